"""The process that ``plugin inspect --without-sandbox`` asks: loads the library open at a descriptor, repeats what it says.

A program of its own (``python -m supervm_rt.cli.ask_library DESCRIPTOR``): a library may crash or hang while it loads.
"""

from __future__ import annotations

import sys
from pathlib import Path

from supervm_rt._abi import NativePlugin, SealedLibrary
from supervm_rt.cli.markers import ANSWER, FAULT
from supervm_rt.errors import SuperVMError


def answer(descriptor: int) -> int:
    """Prints the answer to standard output or the fault to standard error, each behind its marker."""
    data = Path(f"/proc/self/fd/{descriptor}").read_bytes()
    plugin: NativePlugin | None = None
    try:
        with SealedLibrary(data) as library:
            plugin = NativePlugin(library)
        said = plugin.manifest_json()
    except SuperVMError as error:
        sys.stderr.flush()
        sys.stderr.buffer.write(FAULT + str(error).encode())
        return 1
    finally:
        if plugin is not None:
            plugin.abandon()  # the process ends next: nothing is gained by running its destructors
    sys.stdout.flush()
    sys.stdout.buffer.write(ANSWER + said)
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(answer(int(sys.argv[1])))
