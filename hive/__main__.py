"""Entry point of `hive` and `python -m hive`."""

import sys

from hive.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
