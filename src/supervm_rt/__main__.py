"""``python -m supervm_rt``."""

import os
import sys


def run() -> int:
    """The command line, from the first import on: an interrupt there is no traceback either."""
    try:
        from supervm_rt import _abi
        from supervm_rt.cli import main

        status = main()
    except KeyboardInterrupt:
        print("supervm-rt: interrupted", file=sys.stderr)
        return 1
    if _abi.slots_in_use():
        # An abandoned plugin's constructor may hold the dynamic linker's lock for ever, and exit() would wait for that.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(run())
