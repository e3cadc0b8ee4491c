"""Results of a confirmation, read back from the tables in its folder: confirm.csv, confirm.json and outcomes.npz.

The report of a search is made from them, without the data set and without the networks. The files may come from
somebody else, so their contents are checked.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tune_cure.confirmation.outcomes import Arrays, Weights, read_outcomes
from tune_cure.confirmation.plan import CANDIDATE_FOLDER, RunKey
from tune_cure.confirmation.verdicts import COLUMNS, EPOCHS, OF_BEST, Confirmation
from tune_cure.evaluation.autoattack_version import is_version
from tune_cure.evaluation.names import ATTACKS
from tune_cure.search import run_files
from tune_cure.utils.csv_tables import read_csv
from tune_cure.utils.errors import TuneCureError, first_line
from tune_cure.utils.files import FolderError
from tune_cure.utils.formatting import join_words
from tune_cure.utils.schema import MAX_NUMBER

BEST_NUMBERS = (*OF_BEST.values(), "robust_overfitting")
LATER_COLUMNS: dict[str, str | float] = {
    "held_out": "0", "autoattack_version": "", **dict.fromkeys(("chance", *EPOCHS, *BEST_NUMBERS), np.nan)
}  # fmt: skip
"""Columns that version 0.1.0 or 0.2.0 did not write, with what they would have held."""
NUMBERS = ("epsilon", *ATTACKS, "zero_gradient", "chance", "train_seconds", "judge_seconds", *BEST_NUMBERS)
WHOLE_NUMBERS = ("seed", "examples", "train_images", "epochs", "held_out")
KINDS = {"leader", "baseline", "candidate", "winner", "preset"}


class SavedConfirmationError(TuneCureError):
    """Tables of a confirmation that cannot be read."""


def read_confirmation(directory: Path) -> Confirmation | None:
    """Return the confirmation of the search in `directory`; None if it has none, or none of its runs was judged.

    Raises:
        SavedConfirmationError: A table is damaged.
    """
    folder = directory / run_files.CONFIRM
    table_file, outcomes_file = folder / run_files.CONFIRM_TABLE, folder / run_files.OUTCOMES
    summary_file = folder / run_files.CONFIRM_SUMMARY
    if not table_file.is_file():
        return None
    confirmation = Confirmation([])
    confirmation.table = _read_table(table_file)
    if confirmation.table.empty:
        return None
    is_packed = outcomes_file.is_file()
    read = _read_outcomes if is_packed else _read_outcomes_of_jobs
    source = outcomes_file if is_packed else folder
    confirmation.outcomes = read(source, confirmation.table, "last")
    is_judged = confirmation.table[[*OF_BEST.values()]].notna().any(axis=1)
    confirmation.best_outcomes = read(source, confirmation.table[is_judged], "best")
    num_there = len(confirmation.table.drop_duplicates(["contender", "seed"]))
    summary = _read_summary(summary_file)
    planned, judged = (
        value if isinstance(value := summary.get(key), int) else None for key in ("runs_planned", "runs_judged")
    )
    confirmation.num_planned = planned or num_there
    confirmation.num_judged = num_there if judged is None else judged
    confirmation.winner = _find_winner(confirmation, summary)
    confirmation.left_out = _read_left_out(summary)
    return confirmation


def _read_left_out(summary: dict[str, Any]) -> list[RunKey]:
    """Return the runs that confirm.json names as left out; version 0.2.0 named none."""
    left_out = []
    for entry in entries if isinstance(entries := summary.get("left_out"), list) else []:
        match entry:
            case [str(name), int(seed), int() | float() as epsilon] if CANDIDATE_FOLDER.fullmatch(name):
                if 0 < epsilon <= MAX_NUMBER:  # no NaN, and nothing beyond any float
                    left_out.append((name, seed, float(epsilon)))
    return left_out


def _find_winner(confirmation: Confirmation, summary: dict[str, Any]) -> str | None:
    """Return the winner that confirm.json names.

    Version 0.1.0 did not name it. There it is the first leader, if no run is missing that may be the winner's.
    """
    if isinstance(winner := summary.get("winner"), str):
        return winner
    leaders = confirmation.table.loc[confirmation.table["kind"].eq("leader"), "contender"]
    return None if leaders.empty or confirmation.num_judged < confirmation.num_planned else str(leaders.iloc[0])


def _read_table(file: Path) -> pd.DataFrame:
    """Return confirm.csv as `Confirmation.table` has it."""
    try:
        table = read_csv(file, dtype=str)  # numbers, too: pandas may round the last digit
        later = {name: value for name, value in LATER_COLUMNS.items() if name not in table}
        table = table.assign(**later)[list(COLUMNS)]
        table = table.astype(dict.fromkeys(NUMBERS, float) | dict.fromkeys(WHOLE_NUMBERS, int))
        with np.errstate(invalid="ignore"):  # numpy warns of what is too large, and pandas refuses it
            table = table.astype(dict.fromkeys(EPOCHS, float)).astype(dict.fromkeys(EPOCHS, "Int64"))
        table["diverged"] = table["diverged"].eq("True")
    except (OSError, ValueError, KeyError, OverflowError, TypeError) as error:  # pandas raises ValueErrors
        raise SavedConfirmationError(f"{file}: is no table of a confirmation: {first_line(error)}") from error
    table = table.fillna({"warnings": "", "autoattack_version": ""})
    if problem := _find_problem(table):
        raise SavedConfirmationError(f"{file}: is no table of a confirmation: {problem}")
    return table


def _find_problem(table: pd.DataFrame) -> str:
    """Return what no confirmation would have written into its table; empty if there is nothing."""
    if table[["contender", "kind", "description", "norm", "clean", "zero_gradient"]].isna().any(axis=None):
        return "a cell is empty"
    if not set(table["kind"]) <= KINDS:
        return f"kind is not one of {join_words(sorted(KINDS))}"
    shares = table[[*ATTACKS, *OF_BEST.values(), "zero_gradient", "chance"]]
    if not (shares.isna() | shares.ge(0) & shares.le(1)).all(axis=None):
        return "a share is not between 0 and 1"
    if not table["autoattack_version"].map(is_version).all():
        return "autoattack_version is no version"
    if table.loc[table[[*OF_BEST.values()]].notna().any(axis=1), "best_epoch"].isna().any():
        return "a best epoch is missing"
    numbers = table[["epsilon", "train_seconds", "judge_seconds"]]
    if not (np.isfinite(numbers) & numbers.ge(0)).all(axis=None) or table["examples"].lt(2).any():
        return "a radius, a time or a number of images is not possible"
    return "a run is there twice" if table.duplicated(["contender", "seed", "epsilon"]).any() else ""


def _read_outcomes(file: Path, table: pd.DataFrame, weights: Weights) -> dict[RunKey, Arrays]:
    """Return the outcomes of each row of the table, as `Confirmation.outcomes` or `best_outcomes` has them."""
    columns = OF_BEST if weights == "best" else {attack: attack for attack in ATTACKS}
    outcomes: dict[RunKey, Arrays] = {}
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as packed:
            for row in table.to_dict("records"):
                prefix = f"{row['contender']}/{row['seed']}/{row['epsilon']:.6g}"
                measured = [attack for attack, column in columns.items() if not np.isnan(row[column])]
                arrays = {attack: packed[f"{prefix}/{columns[attack]}"] for attack in measured}
                for attack, array in arrays.items():
                    if array.dtype != bool or array.shape != (row["examples"],):
                        raise ValueError(f"{prefix}/{attack} is no outcome of {row['examples']} images")
                arrays |= {"zero_gradient": np.array(row["zero_gradient"]), "chance": np.array(row["chance"])}
                outcomes[row["contender"], row["seed"], row["epsilon"]] = arrays
    except Exception as error:  # a damaged file makes numpy, zipfile or zlib raise errors of any kind
        raise SavedConfirmationError(
            f"{file}: does not belong to {run_files.CONFIRM_TABLE}: {first_line(error)}"
        ) from error
    return outcomes


def _read_outcomes_of_jobs(folder: Path, table: pd.DataFrame, weights: Weights) -> dict[RunKey, Arrays]:
    """Return the outcomes of each row of the table from the folders of the jobs, where outcomes.npz is missing."""
    outcomes: dict[RunKey, Arrays] = {}
    for row in table.to_dict("records"):
        job = folder / Path(row["contender"]).name / f"seed-{row['seed']}"
        name = f"{Path(row['norm']).name}-{row['epsilon']:.6g}-{row['examples']}"
        file = job / (f"best-{name}" if weights == "best" else name) / run_files.OUTCOMES
        try:
            outcomes[row["contender"], row["seed"], row["epsilon"]] = read_outcomes(file, row["examples"])
        except FolderError as error:
            raise SavedConfirmationError(str(error)) from error
    return outcomes


def _read_summary(file: Path) -> dict[str, Any]:
    """Return the content of confirm.json; empty if there is none.

    It has how many runs were asked for, and how many of these have been judged, as long as not all have been. Version
    0.1.0 wrote the first number alone.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise SavedConfirmationError(f"{file}: is damaged: {first_line(error)}") from error
    return content if isinstance(content, dict) else {}
