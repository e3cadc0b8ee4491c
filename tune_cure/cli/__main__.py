"""Script of `python -m tune_cure.cli`, which is the command `tune-cure`."""

import sys

from tune_cure.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
