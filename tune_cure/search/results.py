"""A search's folder as pandas frames, its leaders and its summary.

Everything here is made from the folder's journal, so it works on a search that runs, was interrupted, or is long over.
The columns are described in docs/columns.md.
"""

from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tune_cure.search import run_files
from tune_cure.search.journal import Event, Journal
from tune_cure.search.ranking import comparable_to_first, rank_leaders, rank_trials, rescoring_decides
from tune_cure.search.space import loading as specs
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.trial_table import build_epoch_table, build_trial_table, count_untrained_epochs, judged_examples
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.formatting import format_count, format_duration, format_hyperparameters, format_percent

SHOWN = 5  # leaders in a notebook
NAMED = 8  # searches in an error


class ResultsError(TuneCureError):
    """A folder that holds no search."""


@dataclass(frozen=True)
class Best:
    """The leading trial of a search: its row of `trials`, and its hyperparameters by their YAML names."""

    row: "pd.Series[Any]"
    hyperparameters: dict[str, Any]

    @property
    def trial(self) -> int:
        """Its number."""
        return int(self.row["trial"])


class SearchResult:
    """A search as its folder has it: read once, when first asked, so all that is taken from it fits together.

    What happens later is not seen; make another for that. In a notebook it shows its leaders.

    Args:
        directory: The run's folder.
        outcome: Of a search that has just been run. finished: every trial came to an end. patience: nothing improved
            any more. time: the time budget was used up. failing: the first trials all failed alike. disk: it was full.
            interrupted: by Ctrl-C.
        reason: The same in words; empty for finished and interrupted.

    Raises:
        ResultsError: The folder holds no search.
    """

    def __init__(self, directory: str | Path, outcome: str = "", reason: str = "") -> None:
        self.directory, self.outcome, self.reason = Path(directory), outcome, reason
        self.spec = read_spec(self.directory)

    @property
    def finished(self) -> bool:
        """Whether there was nothing left to do, or to continue, when it was run."""
        return self.outcome in ("finished", "patience")

    @property
    def events(self) -> list[Event]:
        """The lines of the journal that are of trials, but for those of epochs."""
        return self._read[0]

    @property
    def changes(self) -> list[Event]:
        """The lines of the journal that say how settings were changed."""
        return [event for event in self._read[1] if event["event"] == "change"]

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial: its hyperparameters, what it reached, how and why it ended."""
        return self._read[2]

    @property
    def epochs(self) -> pd.DataFrame:
        """One row per trial and epoch, in that order; an epoch run twice (after a crash) counts once, the last."""
        return self._read[3]

    @cached_property
    def _read(self) -> tuple[list[Event], list[Event], pd.DataFrame, pd.DataFrame]:
        """All of the journal. The lines of epochs are dropped once they are in frames: they take the most memory."""
        content = Journal(self.directory).load()
        events = content.trial_events
        others = [event for event in events if event["event"] != "epoch"]
        return others, content.search_events, build_trial_table(self.spec, events), build_epoch_table(events)

    @cached_property
    def wall_seconds(self) -> float:
        """By the clock, from the first record to the last; less the pauses before the search was continued."""
        times = np.sort([*(event["time"] for event in self.events), *self.epochs["time"]])
        if not len(times):
            return 0.0
        resumed = [event["time"] for event in self._read[1] if event["event"] == "resume"]
        begins = np.array([times[0], *resumed])
        ends = times[np.searchsorted(times, [*resumed, np.inf]) - 1]  # the last record before the next session
        return float((ends - begins).clip(min=0.0).sum())

    @cached_property
    def leaders(self) -> pd.DataFrame:
        """The judged trials, best first: as `ranked`, but those that were judged again in the order that this gave."""
        return rank_leaders(self.trials, self.spec)

    @cached_property
    def best(self) -> Best | None:
        """The leading trial; None if no trial has been judged yet."""
        if self.leaders.empty:
            return None
        row = self.leaders.iloc[0]
        return Best(row, self._proposed(row))

    def _proposed(self, row: "pd.Series[Any]") -> dict[str, Any]:
        """The hyperparameters of a trial by its row, as the journal has them: of their own types, and none empty."""
        begun = (event for event in self.events if event["event"] == "trial" and event["trial"] == row["trial"])
        return dict(next(begun)["hyperparameters"])

    @cached_property
    def pareto_front(self) -> pd.DataFrame:
        """The trials that no other beats in all of several metrics, best first by the first; of one: the best."""
        order = rank_trials(self.trials, self.spec)
        return order[order["pareto_front"]] if "pareto_front" in order else order.head(1)

    @cached_property
    def as_good(self) -> pd.DataFrame:
        """The leaders that cannot be told from the best: at most two standard errors behind it, itself among them.

        Of two that were judged again, by what that found if it decides; of others, by the objective. The error is that
        of a difference of accuracies on images of their own; on the same ones, as here, it is usually smaller.
        """
        if self.best is None:
            return self.leaders
        row = self.best.row
        sound = comparable_to_first(self.leaders)
        behind = self._errors_behind(sound["objective"], row["objective"], judged_examples(self.spec))
        if rescoring_decides(self.spec) and pd.notna(row["fresh_pgd_accuracy"]):
            again = sound["fresh_pgd_accuracy"]
            fresh = self._errors_behind(again.dropna(), row["fresh_pgd_accuracy"], row["fresh_examples"])
            behind = fresh.reindex(sound.index).fillna(behind)
        return sound[behind <= 2]

    def _errors_behind(self, values: "pd.Series[Any]", best: float, examples: float) -> "pd.Series[Any]":
        """By how many standard errors of the difference accuracies are worse than `best`."""
        values, sign = values.astype(float), 1 if self.spec.search.mode == "max" else -1
        variance = (values * (1 - values) + best * (1 - best)) / examples
        return sign * (best - values) / variance.clip(lower=1e-12) ** 0.5

    @cached_property
    def checkpoint(self) -> str | None:
        """The path, relative to the folder, of a checkpoint that holds the leading trial's best weights."""
        if self.best is None:
            return None
        saved = [event for event in self.events if event["event"] == "checkpoint"]
        saved = [event for event in saved if event["trial"] == self.best.trial]
        saved = [event for event in saved if event["epoch"] >= self.best.row["best_epoch"]]
        return str(saved[-1]["path"]) if saved else None

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The search in a few numbers: how many trials ended how, what was trained, what won, by how much, the cost."""
        return _summary(self)

    def __repr__(self) -> str:
        return f"SearchResult({str(self.directory)!r}): {self._headline()}"

    def _headline(self) -> str:
        said = f"{self.spec.name}: {format_count(len(self.trials), 'trial')}"
        if self.best is None:
            return f"{said}, none judged yet"
        row = self.best.row
        reached = format_percent(row["pgd_accuracy_best"], row["pgd_accuracy_best_se"])
        values = format_hyperparameters(self.best.hyperparameters)
        return f"{said}, the best is trial {self.best.trial} with a PGD accuracy of {reached} ({values})"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        columns = ["trial", "status", "pgd_accuracy_best", "pgd_accuracy_best_se", "clean_accuracy_best"]
        columns += ["fresh_pgd_accuracy"] * bool(self.leaders["fresh_pgd_accuracy"].notna().any())
        table = self.leaders[[*columns, "epochs_trained", *self.spec.space]].head(SHOWN)
        spent = f"{self.summary['epochs']:,} epochs in {format_duration(self.summary['wall_seconds'])}"
        html: str = table.to_html(index=False, float_format="{:.4g}".format, na_rep="–", border=0)
        where = f"{spent}; all is in {escape(str(self.directory))}"
        return f"<p><strong>{escape(self._headline())}</strong><br>{where}</p>{html}"


def read_spec(directory: Path) -> SearchSpec:
    """The search that the run in `directory` was made from, as resolved then.

    Raises:
        ResultsError: The folder holds no search.
    """
    if not directory.is_dir():
        there = "it is no folder" if directory.exists() else f"there is no such folder{_beside(directory)}"
        raise ResultsError(f"{directory}: holds no search: {there}")
    for file in (run_files.SPEC, run_files.JOURNAL):
        if not (directory / file).is_file():
            raise ResultsError(f"{directory}: holds no search: there is no {file} in it")
    for path in directory.iterdir():  # a run that somebody sent must not have files elsewhere read or written over
        if path.is_symlink() and not path.resolve().is_relative_to(directory.resolve()):
            raise ResultsError(f"{path}: is a link that leads out of the run's folder")
    return specs.load(directory / run_files.SPEC)


def _beside(directory: Path) -> str:
    """The searches in the folder that `directory` would be in, in words."""
    searches = sorted(file.parent.name for file in directory.parent.glob(f"*/{run_files.JOURNAL}"))
    more = f" and {len(searches) - NAMED} more" if len(searches) > NAMED else ""
    return f"; {directory.parent} has {', '.join(searches[:NAMED])}{more}" if searches else ""


def trials(directory: str | Path) -> pd.DataFrame:
    """`SearchResult.trials` of a run's folder as it is now."""
    return SearchResult(directory).trials


def epochs(directory: str | Path) -> pd.DataFrame:
    """`SearchResult.epochs` of a run's folder as it is now."""
    return SearchResult(directory).epochs


def best(directory: str | Path) -> Best | None:
    """`SearchResult.best` of a run's folder as it is now."""
    return SearchResult(directory).best


def _summary(result: SearchResult) -> dict[str, Any]:
    spec, frame, curve, leader = result.spec, result.trials, result.epochs, result.best
    baseline = frame[frame["origin"] == "start_from"].head(1)
    left = count_untrained_epochs(frame, spec)
    saved = left.pop("stopped", 0)
    return {
        "name": spec.name,
        "metric": spec.search.metric,
        "constraints": spec.search.constraints,
        "trials_feasible": int(frame["feasible"].eq(True).sum()),
        "trials": len(frame),
        "trials_planned": spec.search.trials,
        "trials_by_status": {str(status): int(count) for status, count in frame["status"].value_counts().items()},
        "epochs": len(curve),
        "epochs_without_early_stopping": len(curve) + saved,
        "epochs_not_trained": left,
        "wall_seconds": result.wall_seconds,
        "trial_seconds": float(curve["train_seconds"].sum() + curve["eval_seconds"].sum()),
        "changes": [event["settings"] for event in result.changes],
        "best": None if leader is None else _reached(leader.row, leader.hyperparameters),
        "as_good": [int(number) for number in result.as_good["trial"]],
        "pareto_front": [int(number) for number in result.pareto_front["trial"]],
        "baseline": None if baseline.empty else _reached(baseline.iloc[0], result._proposed(baseline.iloc[0])),
    }


def _reached(row: "pd.Series[Any]", hyperparameters: dict[str, Any]) -> dict[str, Any]:
    metrics = ("objective", "pgd_accuracy_best", "pgd_accuracy_best_se", "clean_accuracy_best", "best_epoch",
               "fresh_pgd_accuracy", "fresh_pgd_accuracy_se", "fresh_clean_accuracy", "fresh_examples")  # fmt: skip
    values = {name: None if pd.isna(row[name]) else float(row[name]) for name in metrics}
    return {"trial": int(row["trial"]), "status": row["status"], "hyperparameters": hyperparameters, **values}
