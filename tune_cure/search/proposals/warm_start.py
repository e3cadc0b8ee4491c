"""Warm start: ended trials of an earlier search, read from its folder, a table or an Optuna study."""

import json
import math
import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL

from tune_cure.search import results, run_files
from tune_cure.search.event_schemas import STATUSES
from tune_cure.search.proposals.outcome import EPOCHS, REACHED, STATUS
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.objectives import METRICS
from tune_cure.training.config import parse_hyperparameter
from tune_cure.training.delta import say_delta_in
from tune_cure.utils.csv_tables import read_csv
from tune_cure.utils.errors import first_line
from tune_cure.utils.files import replace_text
from tune_cure.utils.yaml_config import ProblemError, SpecError, describe

SQLITE_COMPANIONS = ("-journal", "-wal")  # files beside a database with changes that are not in it yet
STUDY_DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
ENDED_STATUSES = ("completed", "stopped", "catastrophic_overfitting", "diverged")


def sqlite_url(path: Path) -> str:
    """Return the URL of an SQLite database file; characters such as `?` and `%` in its name are kept."""
    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


@dataclass(frozen=True)
class PriorTrial:
    """Trial that ended in an earlier search.

    Attributes:
        hyperparameters: Its values of the searched hyperparameters.
        metrics: What it reached, by metric, as fractions.
        status: How it ended (`ENDED_STATUSES`).
        epochs: How many epochs it trained.
    """

    hyperparameters: dict[str, Any]
    metrics: dict[str, float]
    status: str
    epochs: int


def read_prior_trials(spec: SearchSpec) -> tuple[list[PriorTrial], int]:
    """Return the ended trials of `search.warm_start` that lie within the space, and how many others there are.

    Raises:
        SpecError: The file cannot be read, or no trial of it can be used.
    """
    assert spec.search.warm_start is not None
    path = Path(spec.search.warm_start).expanduser()
    try:
        frame = _table(path, spec)
    except (OSError, ValueError) as error:
        raise SpecError(f"search.warm_start: {path}: cannot be read: {first_line(error)}") from error
    missing = [name for name in spec.search.metrics if name not in frame]
    if missing:
        raise SpecError(f"search.warm_start: {path}: has no column {missing[0]}, which is what is optimized")
    rows = [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]
    prior_trials = _select(spec, path, rows)
    if not prior_trials:
        raise SpecError(
            f"search.warm_start: {path}: none of its {len(rows)} trials ended within the space of this search"
        )
    return prior_trials, len(rows) - len(prior_trials)


def keep_prior_trials(spec: SearchSpec, folder: Path, *, is_begun: bool) -> list[PriorTrial]:
    """Return the trials of `search.warm_start` that the search in `folder` began with; none without that key.

    They are read once and kept in the folder: before the search is resumed, the earlier one may be moved, deleted or
    continued. A run of a version that kept none reads them again.

    Args:
        spec: The search.
        folder: The run's folder.
        is_begun: Whether the search has proposed trials of its own.

    Raises:
        SpecError: The file cannot be read, or no trial of it can be used.
    """
    if not spec.search.warm_start:
        return []
    kept = folder / run_files.PRIOR_TRIALS
    if is_begun and kept.exists():
        return _select(spec, kept, _read_kept(kept))
    prior_trials, _ = read_prior_trials(spec)
    rows = [
        {**prior.hyperparameters, **prior.metrics, "status": prior.status, "epochs_trained": prior.epochs}
        for prior in prior_trials
    ]
    replace_text(kept, json.dumps(rows))
    return prior_trials


def _read_kept(file: Path) -> list[dict[str, Any]]:
    """Return the rows of the trials that a run's folder keeps.

    Raises:
        SpecError: The file is damaged.
    """
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(f"search.warm_start: {file}: cannot be read: {first_line(error)}") from error
    is_table = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    if not is_table or any(isinstance(value, list | dict) for row in rows for value in row.values()):
        raise SpecError(f"search.warm_start: {file}: is no list of trials: the file is damaged")
    return list(rows)


def _select(spec: SearchSpec, path: Path, rows: list[dict[str, Any]]) -> list[PriorTrial]:
    """Return the trials of a table's rows that ended within the space.

    Raises:
        SpecError: A value in a row is impossible.
    """
    prior_trials: list[PriorTrial] = []
    for number, row in enumerate(rows):
        try:
            prior_trial = _prior_trial(spec, row)
        except ProblemError as problem:
            raise SpecError(f"search.warm_start: {path}: row {number}: {problem.path}: {problem.message}") from problem
        prior_trials += [prior_trial] if prior_trial else []
    return prior_trials


def _table(path: Path, spec: SearchSpec) -> pd.DataFrame:
    """Return the trials at `path` as a table with the columns of trials.csv.

    Raises:
        ValueError: The file is neither a table nor a study, or its study has other objectives.
    """
    folder = path if path.is_dir() else path.parent
    if (folder / run_files.JOURNAL).is_file() and path.suffix != ".csv":
        return results.trials(folder)
    if path.suffix == ".csv":
        return read_csv(path)
    if not path.is_file():
        raise ValueError("the folder of a search, a table (.csv) or an Optuna study (.db) is needed")
    return _study(path, spec)


def _study(path: Path, spec: SearchSpec) -> pd.DataFrame:
    """Return an Optuna study as a table; the values of its objectives count as the metrics.

    Optuna makes its tables in every database that it opens. So it opens a copy, and the file stays as it is.

    Raises:
        ValueError: The file holds no study or several, or the study has other objectives.
    """
    with tempfile.TemporaryDirectory(prefix="tune_cure-") as temporary:
        copy = Path(temporary, "copy.db")
        shutil.copyfile(path, copy)
        for ending in SQLITE_COMPANIONS:
            if (companion := path.with_name(path.name + ending)).is_file():
                shutil.copyfile(companion, copy.with_name(copy.name + ending))
        try:
            return _read_study(copy, spec)
        except Exception as error:  # SQLite, SQLAlchemy and Optuna raise errors of any kind for a damaged database
            raise ValueError(first_line(error)) from error


def _read_study(database: Path, spec: SearchSpec) -> pd.DataFrame:
    """Return the study in a database, into which tables may be written, as `_study` does."""
    with closing(sqlite3.connect(database)) as connection:
        if not connection.execute("SELECT name FROM sqlite_master WHERE name = 'studies'").fetchall():
            raise ValueError("is a database without a study of Optuna")
    storage = RDBStorage(sqlite_url(database))
    try:
        studies = optuna.study.get_all_study_names(storage)
        if len(studies) != 1:
            raise ValueError(f"holds {len(studies)} studies; one is needed")
        return _tabulate(optuna.load_study(study_name=studies[0], storage=storage), spec)
    finally:
        storage.engine.dispose()


def _tabulate(study: optuna.Study, spec: SearchSpec) -> pd.DataFrame:
    """Return a study as a table with the columns of trials.csv.

    Raises:
        ValueError: The study has another number of objectives, or another direction of one.
    """
    metrics, mode = spec.search.metrics, spec.search.mode
    if len(study.directions) != len(metrics):
        raise ValueError(f"its trials have {len(study.directions)} values, but search.metric is {', '.join(metrics)}")
    for metric, direction in zip(metrics, study.directions, strict=True):
        if direction != STUDY_DIRECTIONS[mode]:
            raise ValueError(f"its direction of {metric} is {direction.name.lower()}, but search.mode is {mode}")
    return pd.DataFrame([_row_of_study(trial, spec) for trial in study.trials])


def _row_of_study(trial: FrozenTrial, spec: SearchSpec) -> dict[str, Any]:
    """Return a trial of a study as a row of trials.csv.

    A study of this project says in user attributes how the trial ended, after how many epochs, and what it had reached
    where the study was told the worst value. Studies of other origin, and of earlier versions, lack some of these: then
    a complete trial without a curve has trained all epochs.
    """
    metrics = spec.search.metrics
    values = dict(zip(metrics, trial.values or [None] * len(metrics), strict=True))
    status = {TrialState.COMPLETE: "completed", TrialState.PRUNED: "stopped"}.get(trial.state, "failed")
    attributes = trial.user_attrs if trial.user_attrs.get(STATUS) in STATUSES else {}
    status = attributes.get(STATUS, status)
    if REACHED in attributes:
        values[metrics[0]] = attributes[REACHED]
    whole = trial.params.get("epochs", spec.max_epochs) if status == "completed" else 1
    epochs = attributes.get(EPOCHS, max(trial.intermediate_values, default=whole))
    return {**trial.params, **values, "status": status, "epochs_trained": epochs}


def _prior_trial(spec: SearchSpec, row: dict[str, Any]) -> PriorTrial | None:
    """Return the trial of a table's row; None if it did not end, or lies outside of the space.

    Raises:
        ProblemError: A value in the row is impossible.
    """
    status = str(row.get("status", "completed"))
    metrics = {name: _accuracy(name, row[name]) for name in METRICS if name in row and pd.notna(row[name])}
    if status not in ENDED_STATUSES or not set(spec.search.metrics) <= metrics.keys():
        return None
    epochs = row.get("epochs_trained")
    epochs = spec.max_epochs if epochs is None or pd.isna(epochs) else epochs
    if not _is_real(epochs) or epochs < 1 or epochs != int(epochs):
        raise ProblemError("epochs_trained", f"a whole number of at least 1 is needed, but found {describe(epochs)}")
    try:
        row = say_delta_in(row, spec.space)
        values = spec.propose(lambda key: _value(key, row))
    except (KeyError, ProblemError):
        return None
    if not all(spec.space[key].contains(value) for key, value in values.items()):
        return None
    return PriorTrial(values, metrics, status, int(epochs))


def _is_real(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def _accuracy(name: str, value: Any) -> float:
    """Return a value of the metric `name`.

    Raises:
        ProblemError: It is not a fraction.
    """
    if not _is_real(value) or not 0 <= value <= 1:
        raise ProblemError(name, f"a fraction between 0 and 1 is needed, but found {describe(value)}")
    return float(value)


def _value(key: str, row: dict[str, Any]) -> Any:
    """Return a hyperparameter's value in a row.

    Raises:
        KeyError: The row has no such value.
        ProblemError: The hyperparameter cannot have this value.
    """
    if pd.isna(row[key]):
        raise KeyError(key)
    value = row[key]
    is_whole = isinstance(value, float) and value.is_integer()  # beside empty cells, pandas makes them floats
    try:
        return parse_hyperparameter(key, value, key)
    except ProblemError:
        if is_whole:
            return parse_hyperparameter(key, int(value), key)
        raise
