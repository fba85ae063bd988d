"""Invariant: as in ``killing``. The campaign: ``--executions`` kills (200), or as many as fit into ``--seconds``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from fuzz.child_kills.killing import Kills, digest_of, mirror, mirror_with_kills


def main() -> int:
    """0: every store ended alike; 1: one did not; 2: wrong usage."""
    parser = argparse.ArgumentParser(prog="fuzz.child_kills")
    parser.add_argument("--seconds", type=float, help="go on for so long, however many kills that are")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--executions", type=int, default=200, help="kills")
    options = parser.parse_args()
    total, rounds, begun = Kills(), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = mirror(folder / "undisturbed.db")
        while total.done < options.executions if options.seconds is None else time.monotonic() - begun < options.seconds:
            seed = options.seed + rounds
            store = folder / f"{seed}.db"
            kills = mirror_with_kills(store, Random(seed))
            rounds += 1
            total.add(kills)
            if digest_of(store) != expected:
                print(f"seed {seed}: the store differs after {kills.done} kills", file=sys.stderr)
                print(json.dumps({"executions": total.done, "failures": 1, "detail": f"seed {seed}"}))
                return 1
            store.unlink()
    detail = (
        f"{rounds} mirrors, seeds {options.seed} to {options.seed + rounds - 1}; {total.uncommitted} kills with frames taken and "
        f"not committed, {total.in_transaction} of them within an open transaction, {total.in_reorg} within a reorg, "
        f"{total.inside} within either"
    )
    print(json.dumps({"executions": total.done, "failures": 0, "detail": detail}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
