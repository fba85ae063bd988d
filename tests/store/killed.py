"""A process that mirrors until it is killed: by itself, in the middle of a statement, or from another thread, wherever it is.

Arguments: the store, the seed of the inputs, how many there are, and ``instructions N`` or ``milliseconds N``.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from random import Random

from supervm_rt.store import Store
from tests.store.support import CHAIN, PLUGIN, dev_mirror, mixed_inputs


def main() -> None:
    path, seed, count, unit, amount = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
    inputs = mixed_inputs(seed, count)
    with Store.open(path) as store:
        mirror = dev_mirror(store)
        done = int(store.position(PLUGIN, CHAIN) or b"0")
        random = Random(seed + done)
        if unit == "instructions":
            left = amount

            def tick() -> int:
                nonlocal left
                left -= 1
                if left <= 0:
                    die()
                return 0

            store._connection.set_progress_handler(tick, 10)
        else:
            threading.Timer(amount / 1000, die).start()
        while done < len(inputs):
            batch = random.randint(1, 12)
            mirror.apply(PLUGIN, inputs[done : done + batch])
            done += batch
    print("finished")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
