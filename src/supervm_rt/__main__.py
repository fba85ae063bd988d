"""``python -m supervm_rt``."""

import sys

from supervm_rt.cli import main

if __name__ == "__main__":
    sys.exit(main())
