"""Results of a search: its tables, leaders and summary.

They are made from the journal in the search's folder, so they work for a search that runs, was interrupted or ended.
The columns are described in docs/columns.md.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tune_cure.evaluation.autoattack_version import describe_versions
from tune_cure.search import run_files
from tune_cure.search.budget import describe_budget
from tune_cure.search.journal import OBJECTIVE, RUNG, Event, Journal
from tune_cure.search.ranking import (
    chooses_by_posterior,
    comparable_to_first,
    rank_leaders,
    rank_trials,
    rescoring_decides,
)
from tune_cure.search.schedulers.control_group import ControlGroup
from tune_cure.search.schedulers.early_stopper import EarlyStopper
from tune_cure.search.space import loading as specs
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.trial_table import (
    SearchRecord,
    count_untrained_epochs,
    judged_examples,
    were_cut_while_overfitted,
)
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.files import FolderError, refuse_foreign_links
from tune_cure.utils.formatting import (
    format_count,
    format_duration,
    format_hyperparameters,
    format_notebook,
    format_percent,
    format_table,
)

NUM_SHOWN = 5  # leaders in a notebook
NUM_NAMED = 8  # searches in an error


class ResultsError(TuneCureError):
    """A folder that holds no search."""


@dataclass(frozen=True)
class Best:
    """Leading trial of a search.

    Attributes:
        row: The trial's row of `SearchResult.trials`.
        hyperparameters: Its hyperparameters by their YAML names.
    """

    row: "pd.Series[Any]"
    hyperparameters: dict[str, Any]

    @property
    def trial(self) -> int:
        """The trial's number."""
        return int(self.row["trial"])


class SearchResult:
    """Results of the search in a folder.

    The tables are made once, at the first question, so that all answers belong together. Later events are not seen:
    make a new object for those. A notebook shows the leaders, and pictures of the search.

    Args:
        directory: The run's folder.
        outcome: Why a search that has just been run ended; empty for any other. finished: every trial ended. patience:
            nothing improved any more. time: the time budget was used up. failing: the first trials all failed alike.
            disk: the disk was full, or the folder could not be written to. interrupted: by Ctrl-C.
            ray: Ray died, or the folder of its session was deleted.
        reason: The outcome in words; empty for finished and interrupted.
        record: What the search's journal says, where this process has read or written it; None reads the journal.

    Raises:
        ResultsError: The folder holds no search.
    """

    def __init__(
        self, directory: str | Path, outcome: str = "", reason: str = "", *, record: SearchRecord | None = None
    ) -> None:
        self.directory, self.outcome, self.reason = Path(directory), outcome, reason
        self._record = record
        self.spec = read_spec(self.directory)

    @property
    def finished(self) -> bool:
        """Return True if the search that was run has nothing left to do or to resume."""
        return self.outcome in ("finished", "patience")

    @property
    def events(self) -> list[Event]:
        """The events of trials, without those of epochs."""
        return self._read[0]

    @property
    def changes(self) -> list[Event]:
        """The events that say how settings were changed."""
        return [event for event in self._read[1] if event["event"] == "change"]

    @property
    def trials(self) -> pd.DataFrame:
        """A row per trial: its hyperparameters, what it reached, how and why it ended. Columns: docs/columns.md."""
        return self._read[2]

    @property
    def epochs(self) -> pd.DataFrame:
        """A row per trial and epoch, in that order. If an epoch ran twice, after a crash, the last counts."""
        return self._read[3]

    @cached_property
    def _read(self) -> tuple[list[Event], list[Event], pd.DataFrame, pd.DataFrame]:
        """Events of trials without epochs, events of the search, and both tables.

        The events of epochs take the most memory, so they are dropped once they are in tables.
        """
        record = self._record.snapshot() if self._record else SearchRecord(Journal(self.directory).load())
        trials, epochs = record.build_trial_table(self.spec), record.build_epoch_table()
        return record.events, record.search_events, trials, epochs

    @cached_property
    def wall_seconds(self) -> float:
        """The time from the first event to the last, in seconds, without the pauses before the search was resumed."""
        times = np.sort([*(event["time"] for event in self.events), *self.epochs["time"]])
        if not len(times):
            return 0.0
        search_events = self._read[1]
        resumes = [event["time"] for event in search_events if event["event"] == "resume" and event["time"] > times[0]]
        begins = np.array([times[0], *resumes])
        ends = times[np.searchsorted(times, [*resumes, np.inf]) - 1]  # the last event before the next session
        return float((ends - begins).clip(min=0.0).sum())

    @cached_property
    def leaders(self) -> pd.DataFrame:
        """The judged trials, best first; see `ranking.rank_leaders`."""
        return rank_leaders(self.trials, self.spec)

    @property
    def is_chosen_by_posterior(self) -> bool:
        """Return True if the posterior mean decided among the finalists that were judged again."""
        return rescoring_decides(self.spec) and chooses_by_posterior(rank_trials(self.trials, self.spec), self.spec)

    @cached_property
    def best(self) -> Best | None:
        """The leading trial; None if no trial has been judged yet."""
        if self.leaders.empty:
            return None
        row = self.leaders.iloc[0]
        return Best(row, dict(self.proposals[row["trial"]]))

    @cached_property
    def proposals(self) -> dict[int, dict[str, Any]]:
        """The hyperparameters of each trial by its number, as the journal has them: typed, without inactive ones."""
        return {event["trial"]: event["hyperparameters"] for event in self.events if event["event"] == "trial"}

    @cached_property
    def pareto_front(self) -> pd.DataFrame:
        """The trials that no other trial beats in all metrics, best first by the first metric.

        With a single metric this is the best trial alone.
        """
        order = rank_trials(self.trials, self.spec)
        return order[order["pareto_front"]] if "pareto_front" in order else order.head(1)

    @cached_property
    def as_good(self) -> pd.DataFrame:
        """The leaders that cannot be told from the best: at most two standard errors behind it.

        The best is one of them. Two trials that were both judged again are compared by those accuracies, if they
        decide; others by the objective. The standard error is that of a difference between accuracies on separate
        images. On the same images, as here, it is usually smaller.
        """
        if self.best is None:
            return self.leaders
        row = self.best.row
        rivals = comparable_to_first(self.leaders)
        behind = self._errors_behind(rivals["objective"], row["objective"], judged_examples(self.spec))
        if rescoring_decides(self.spec) and pd.notna(row["fresh_pgd_accuracy"]):
            fresh = rivals["fresh_pgd_accuracy"].dropna()
            fresh_behind = self._errors_behind(fresh, row["fresh_pgd_accuracy"], row["fresh_examples"])
            behind = fresh_behind.reindex(rivals.index).fillna(behind)
        return rivals[behind <= 2]

    def _errors_behind(self, values: "pd.Series[Any]", best: float, examples: float) -> "pd.Series[Any]":
        """Return by how many standard errors of the difference each accuracy is worse than `best`."""
        values, sign = values.astype(float), 1 if self.spec.search.mode == "max" else -1
        variance = (values * (1 - values) + best * (1 - best)) / examples
        return sign * (best - values) / variance.clip(lower=1e-12) ** 0.5

    @cached_property
    def checkpoint(self) -> str | None:
        """The path, relative to the folder, of a checkpoint that holds the leading trial's best weights.

        None if there is no such checkpoint yet.
        """
        if self.best is None:
            return None
        trial, epoch = self.best.trial, self.best.row["best_epoch"]
        checkpoints = [event for event in self.events if event["event"] == "checkpoint" and event["trial"] == trial]
        paths = [str(event["path"]) for event in checkpoints if event["epoch"] >= epoch]
        return paths[-1] if paths else None

    @property
    def autoattack(self) -> str:
        """Version of AutoAttack that judged leaders again, as a sentence; empty if it has not, or it is not known."""
        if "fresh_autoattack_version" not in self.trials:
            return ""
        judged = self.trials[self.trials["fresh_pgd_accuracy"].notna()]
        return describe_versions(judged["fresh_autoattack_version"].fillna(""))

    @cached_property
    def control_group(self) -> ControlGroup | None:
        """What the control group says of the rungs, from the recorded epochs; None without such a group or rungs."""
        spec = self.spec
        if not spec.asha.control or not spec.rungs:
            return None
        trials = self.trials.set_index("trial")
        status = trials["status"].replace({"unfinished": "", "failed": ""})
        status = status.mask(were_cut_while_overfitted(trials, spec), "stopped")
        is_last = ~self.epochs.duplicated("trial", keep="last")
        decisive = self.epochs[is_last | self.epochs["epoch"].isin(spec.rungs)]  # at others no trial is compared
        ended = decisive["trial"].map(status).where(is_last, "")
        stopper = EarlyStopper(spec)
        for number in self.trials["trial"]:
            stopper.add(int(number))
        names = ["trial", "epoch", OBJECTIVE, RUNG, "ended"]
        for row in decisive.assign(ended=ended).sort_values("time", kind="stable")[names].to_dict("records"):
            event = {str(name): value for name, value in row.items()}
            stopper.take({**event, "event": "epoch", RUNG: None if pd.isna(row[RUNG]) else row[RUNG]})
        return stopper.group

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The search in a few numbers: how its trials ended, what was trained, which one won, and the cost."""
        return _summary(self)

    def __repr__(self) -> str:
        return f"SearchResult({str(self.directory)!r}): {self._headline()}"

    def _headline(self) -> str:
        headline = f"{self.spec.name}: {format_count(len(self.trials), 'trial')}"
        if self.best is None:
            return f"{headline}, none judged yet"
        row = self.best.row
        reached = format_percent(row["pgd_accuracy_best"], row["pgd_accuracy_best_se"])
        values = format_hyperparameters(self.best.hyperparameters)
        return f"{headline}, the best is trial {self.best.trial} with a PGD accuracy of {reached} ({values})"

    def _repr_html_(self) -> str:
        """Return the HTML that a notebook shows."""
        columns = ["trial", "status", "pgd_accuracy_best", "pgd_accuracy_best_se", "clean_accuracy_best"]
        columns += ["fresh_pgd_accuracy"] * bool(self.leaders["fresh_pgd_accuracy"].notna().any())
        leaders = self.leaders[[*columns, "epochs_trained", *self.spec.space]].head(NUM_SHOWN)
        spent = f"{self.summary['epochs']:,} epochs in {format_duration(self.summary['wall_seconds'])}"
        where = f"{spent}; all is in {self.directory}"
        return format_notebook(self, self._headline(), where, [format_table(leaders)])


def read_spec(directory: Path) -> SearchSpec:
    """Read the settings of the search in `directory`, with every default that was used.

    Raises:
        ResultsError: The folder holds no search.
    """
    if not directory.is_dir():
        there = "it is no folder" if directory.exists() else f"there is no such folder{beside(directory)}"
        raise ResultsError(f"{directory}: holds no search: {there}")
    for file in (run_files.SPEC, run_files.JOURNAL):
        if not (directory / file).is_file():
            if runs := run_files.find_runs(directory):
                raise ResultsError(f"{directory}: holds no search itself, but these: {_list_names(runs)}; name one")
            raise ResultsError(f"{directory}: holds no search: there is no {file} in it")
    try:
        refuse_foreign_links(directory)
    except FolderError as error:
        raise ResultsError(str(error)) from error
    return specs.load(directory / run_files.SPEC)


def beside(directory: Path) -> str:
    """Return the names of searches beside the missing `directory`, in words; empty if there are none."""
    searches = [Path(run.name) for run in run_files.find_runs(directory.parent)]
    return f"; {directory.parent} has {_list_names(searches)}" if searches else ""


def _list_names(paths: list[Path]) -> str:
    """Return paths in their order by name, the first few of them."""
    more = f" and {len(paths) - NUM_NAMED} more" if len(paths) > NUM_NAMED else ""
    return ", ".join(map(str, sorted(paths)[:NUM_NAMED])) + more


def trials(directory: str | Path) -> pd.DataFrame:
    """Return `SearchResult.trials` of a run's folder as it is now."""
    return SearchResult(directory).trials


def epochs(directory: str | Path) -> pd.DataFrame:
    """Return `SearchResult.epochs` of a run's folder as it is now."""
    return SearchResult(directory).epochs


def best(directory: str | Path) -> Best | None:
    """Return `SearchResult.best` of a run's folder as it is now."""
    return SearchResult(directory).best


def _summary(result: SearchResult) -> dict[str, Any]:
    """Return the content of summary.json; docs/columns.md describes its keys."""
    spec, frame, epoch_table, leader = result.spec, result.trials, result.epochs, result.best
    baseline = frame[frame["origin"] == "start_from"].head(1)
    not_trained = count_untrained_epochs(frame, spec)
    saved = not_trained.pop("stopped", 0)
    return {
        "name": spec.name,
        "metric": spec.search.metric,
        "constraints": spec.search.constraints,
        "trials_feasible": int(frame["feasible"].eq(True).sum()),
        "trials": len(frame),
        # With a budget, `search.trials` is only a limit, which the budget does not reach. A search that was resumed
        # with fewer trials than had begun trains these to their end.
        "trials_planned": len(frame) if describe_budget(spec) else max(spec.search.trials, len(frame)),
        "trials_by_status": {str(status): int(count) for status, count in frame["status"].value_counts().items()},
        "epochs": len(epoch_table),
        "epochs_without_early_stopping": len(epoch_table) + saved,
        "epochs_not_trained": not_trained,
        "early_stopping": None if result.control_group is None else result.control_group.summarize(),
        "wall_seconds": result.wall_seconds,
        "trial_seconds": float(epoch_table["train_seconds"].sum() + epoch_table["eval_seconds"].sum()),
        "changes": [event["settings"] for event in result.changes],
        "best": None if leader is None else _describe_trial(leader.row, leader.hyperparameters),
        "as_good": [int(number) for number in result.as_good["trial"]],
        "pareto_front": [int(number) for number in result.pareto_front["trial"]],
        "baseline": None
        if baseline.empty
        else _describe_trial(baseline.iloc[0], result.proposals[baseline.iloc[0]["trial"]]),
    }


def _describe_trial(row: "pd.Series[Any]", hyperparameters: dict[str, Any]) -> dict[str, Any]:
    """Return what the summary says of one trial."""
    metrics = ("objective", "pgd_accuracy_best", "pgd_accuracy_best_se", "clean_accuracy_best", "best_epoch",
               "fresh_pgd_accuracy", "fresh_pgd_accuracy_se", "fresh_clean_accuracy", "fresh_examples")  # fmt: skip
    values = {name: None if pd.isna(row[name]) else float(row[name]) for name in metrics}
    return {"trial": int(row["trial"]), "status": row["status"], "hyperparameters": hyperparameters, **values}
