"""``python -m admodes`` is the command ``admodes``."""

import sys

from admodes.cli import main

if __name__ == "__main__":
    sys.exit(main())
