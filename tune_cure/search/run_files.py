"""Names of the files and folders in a search's folder. Everything that writes or reads one of them takes it from here.

The names are those of every version: an old folder is read by them, too. README ("What a run leaves") and
docs/columns.md say what each file holds. A training run (`tune-cure train`) has names of its own, in training/run.py.
"""

from pathlib import Path

from tune_cure.utils import environment

RESULTS = Path("results")  # where runs go whose folder the user does not name

# What the search works with.
SPEC = "spec.yaml"
JOURNAL = "journal.jsonl"
ENVIRONMENT = environment.FILE
PRIOR_TRIALS = "prior_trials.json"  # the trials of `search.warm_start`, as the search began with them
STUDY = "study.db"  # the Optuna study, in an SQLite database
TRIALS = "trials"  # Ray's folder, with the checkpoints; each later session makes another: trials-2, …
CHECKPOINT = "trainer.pt"  # in a checkpoint's folder: the state of a Trainer

LEAGUE = "league.yaml"  # in the folder of a league, beside the folders of its searches

# What it reports.
REPORT = "report.html"
FIGURES = "figures"
IMPORTANCE = "importance.json"
TENSORBOARD = "tensorboard"
TRIALS_TABLE, TRIALS_PARQUET = "trials.csv", "trials.parquet"
EPOCHS_TABLE, EPOCHS_PARQUET = "epochs.csv", "epochs.parquet"
SUMMARY = "summary.json"
BEST_CONFIG_TABLE, BEST_CONFIG_SPEC = "best_config.csv", "best_config.yaml"
BEST_MODEL = "best_model.pt"
BEST_WEIGHTS = "best_model.safetensors"
TOP_MARKDOWN, TOP_LATEX = "top_configurations.md", "top_configurations.tex"
REPLAY = "replay.csv"
MLFLOW_STORE, MLFLOW_ARTIFACTS, MLFLOW_RUN = "mlflow.db", "mlflow", ".mlflow"  # of --track mlflow
WANDB_RUNS, TRACKIO_RUN = ".wandb_runs", ".trackio"  # of --track wandb, --track trackio
TABLES_AND_MODEL = (TRIALS_TABLE, EPOCHS_TABLE, BEST_CONFIG_TABLE, BEST_CONFIG_SPEC, BEST_MODEL, BEST_WEIGHTS)
MADE = ".made.json"  # from what the figures, their shares and the best model were made

# Its confirmation: a folder in the search's folder, with a folder for each candidate and seed.
CONFIRM = "confirm"
CONFIRM_TABLE = "confirm.csv"
CONFIRM_SUMMARY = "confirm.json"
CONFIRM_REPORT = "confirm.html"
OUTCOMES = "outcomes.npz"  # of all candidates, by candidate and image; in the folder of a radius: of one alone
JOB_CONFIG = "config.yaml"
JOB_STATE = "last.pt"  # while it trains
JOB_MODEL = "model.pt"  # the last weights
JOB_BEST = "best.pt"  # those of the best epoch
JOB_EPOCHS = "epochs.csv"
JOB_STATUS = "status.json"

CONFIRMED = Path(CONFIRM, CONFIRM_TABLE)


def holds_search(folder: Path) -> bool:
    """Return whether a folder is that of a search; a damaged one may lack one of the two files."""
    return (folder / SPEC).is_file() or (folder / JOURNAL).is_file()


def find_runs(folder: Path) -> list[Path]:
    """Return the folders of searches in `folder`, the one that was written to last first."""
    journals = folder.glob(f"*/{JOURNAL}")
    return [file.parent for file in sorted(journals, key=lambda file: file.stat().st_mtime, reverse=True)]
