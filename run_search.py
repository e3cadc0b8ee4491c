"""Script of a hyperparameter search: `python run_search.py --space search_spaces/cure.yaml`."""

import sys

from tune_cure.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["search", *sys.argv[1:]]))
