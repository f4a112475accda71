"""Makes `python -m asyncworkers` the command line."""

import sys

from asyncworkers.cli import main

if __name__ == "__main__":
    sys.exit(main())
