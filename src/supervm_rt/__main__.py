"""``python -m supervm_rt``."""

import sys


def run() -> int:
    """The command line, from the first import on: an interrupt there is no traceback either."""
    try:
        from supervm_rt.cli import main

        return main()
    except KeyboardInterrupt:
        print("supervm-rt: interrupted", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(run())
