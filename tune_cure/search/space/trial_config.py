"""Configuration of a single training run, read from the files that a search leaves."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tune_cure.search import run_files
from tune_cure.search.space import loading as specs
from tune_cure.search.space.bundled_spaces import search_command
from tune_cure.training.config import HYPERPARAMETERS, has_unread_parts
from tune_cure.training.delta import DELTA
from tune_cure.utils.csv_tables import read_csv
from tune_cure.utils.errors import first_line
from tune_cure.utils.formatting import quote_path
from tune_cure.utils.yaml_config import SpecError, read_mapping
from tune_cure.utils.yaml_parser import describe_yaml_error, parse

if TYPE_CHECKING:
    import pandas as pd


def read(path: Path, trial: int | None = None) -> dict[str, Any]:
    """Read the sections of a training run, as `training.run.resolve` takes them, from a file.

    Args:
        path: A YAML file with the keys of `RunSpec`, each optional; or a best_config.yaml, best_config.csv or
            trials.csv, in the folder of the search that wrote it; or this folder, for the winner or the trial in it.
        trial: The trial whose row of a table is read; None if the table has a single row.

    Raises:
        SpecError: The file cannot be read, or is none of these.
    """
    return read_with_origin(path, trial)[0]


def read_with_origin(path: Path, trial: int | None = None) -> tuple[dict[str, Any], bool]:
    """Return what `read` does, and True if it is a trial of a search, whose absent keys have their defaults."""
    if path.is_dir():
        table = path / (run_files.BEST_CONFIG_TABLE if trial is None else run_files.TRIALS_TABLE)
        if not table.is_file():
            raise SpecError(f"{path}: holds no {table.name}; tune-cure report {quote_path(path)} writes it")
        path = table
    if path.suffix == ".csv":
        return _of_search(path, _row(path, trial)), True
    content = read_mapping(path)
    if "space" in content:
        raise SpecError(f"{path}: space: is of a search; to search it: {search_command()} --space {path}")
    if content.keys() <= {*HYPERPARAMETERS, DELTA}:
        return _of_search(path, content), True
    return content, False


def _row(path: Path, trial: int | None) -> dict[str, Any]:
    """Return the hyperparameters in a row of a search's table."""
    try:
        frame = read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise SpecError(f"{path}: cannot be read as a table: {first_line(error)}") from error
    if "trial" not in frame:
        raise SpecError(f"{path}: has no column trial; a best_config.csv or a trials.csv is needed")
    rows = frame if trial is None else frame[frame["trial"] == str(trial)]
    if rows.empty and len(frame):
        raise SpecError(f"{path}: has no trial {trial}; there are {_range(frame)}")
    if len(rows) != 1:
        raise SpecError(f"{path}: has {len(rows)} rows to choose from; name one with --trial ({_range(frame)})")
    cells = {str(name): value for name, value in rows.iloc[0].items() if name in HYPERPARAMETERS or name == DELTA}
    try:
        return {name: parse(value) for name, value in cells.items() if value}  # an empty cell: inactive in this trial
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: a value is not valid: {describe_yaml_error(error)}") from error


def _range(frame: "pd.DataFrame") -> str:
    return f"{frame['trial'].iloc[0]} to {frame['trial'].iloc[-1]}" if len(frame) else "there is none"


def _of_search(path: Path, hyperparameters: dict[str, Any]) -> dict[str, Any]:
    """Return a run with these hyperparameters, and all other settings of the search whose folder holds `path`.

    It has as many threads as a trial had, but not more than this process may use CPUs: they would wait for each other.
    """
    import joblib  # takes long to import

    file = path.parent / run_files.SPEC
    if not file.is_file():
        raise SpecError(f"{path}: lies beside no {run_files.SPEC}, which says on what data and network its search was")
    search = specs.load(file)
    sections = search.model_dump(mode="json", by_alias=True, include={"parts", "data", "model", "evaluation"})
    training = {**search.training, **hyperparameters}
    if not has_unread_parts(training):  # else unknown keys may be that part's
        training = {key: value for key, value in training.items() if key in HYPERPARAMETERS or key == DELTA}
    threads = min(search.resources.cpus_per_trial, joblib.cpu_count())
    return {**sections, "training": training, "seed": search.search.seed, "threads": threads}
