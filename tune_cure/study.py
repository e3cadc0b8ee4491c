"""The Optuna study of a search under Ray Tune: who proposes hyperparameters, and what it is told of the outcome."""

import logging
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from tune_cure.endings import Endings
from tune_cure.files import FolderError, read_tensors
from tune_cure.journal import CHECKPOINT_FILE, OBJECTIVE, Event, Journal
from tune_cure.samplers import SAMPLERS
from tune_cure.spec import Distribution, SearchSpec

FILE = "study.db"
_logger = logging.getLogger(__name__)
_STATES = {"completed": TrialState.COMPLETE, "failed": TrialState.FAIL}  # every other end: pruned
_WITH_VALUE = (TrialState.COMPLETE, TrialState.PRUNED)  # the latest one


def distribution(of: Distribution) -> BaseDistribution:
    """The Optuna distribution of a searched hyperparameter."""
    match of.kind:
        case "choice":
            return CategoricalDistribution(of.values)
        case "int":
            low, high = of.values
            return IntDistribution(low, high, step=int(of.step or 1))
        case kind:
            low, high = of.values
            return FloatDistribution(low, high, log=kind == "loguniform", step=of.step)


class StudySearch(OptunaSearch):  # type: ignore[misc]
    """OptunaSearch over the study in the run's folder, told the truth about trials that did not run to their end.

    OptunaSearch reports a trial that the scheduler stopped as complete with its latest value, which would let a lucky
    start outrank a finished trial. Here such a trial is pruned at its last epoch, as is one that diverged or overfitted
    catastrophically. A trial keeps its number in the study over interruptions of the search.

    Args:
        spec: What to search.
        journal: Where the proposals are recorded.
        history: The journal so far; empty for a new search.
        endings: Says when no more are to be proposed.
    """

    def __init__(self, spec: SearchSpec, journal: Journal, history: list[Event], endings: Endings) -> None:
        self.journal = journal
        self.trials = spec.search.trials
        self.unfinished: list[dict[str, Any]] = []
        self.endings = endings
        for leftover in journal.path.parent.glob(f"{FILE}*"):  # with SQLite's own journal: see `_rebuild`
            leftover.unlink()
        storage = optuna.storages.RDBStorage(f"sqlite:///{journal.path.parent / FILE}")
        proposed = [event for event in history if event["event"] == "trial"]
        space = {key: distribution(of) for key, of in spec.space.items()}
        super().__init__(
            space,
            metric=OBJECTIVE,
            mode=spec.search.mode,
            # A sampler that starts again must not repeat the draws that the study has already.
            sampler=SAMPLERS[spec.search.sampler](spec.search.seed + len(proposed)),
            study_name=spec.name,
            storage=storage,
        )
        self._proposed = {event["trial"] for event in proposed}
        self._rebuild(history, space)
        begun = sum(event["origin"] == "start_from" for event in proposed)
        for start in spec.start_from[begun:]:
            self._ot_study.enqueue_trial(start, user_attrs={"origin": "start_from"})

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next configuration: first of the trials that an interruption left unfinished, then of the study."""
        if self.unfinished:
            config = self.unfinished.pop(0)
            stored = self._ot_study.get_trials(deepcopy=False)[config["trial"]]
            self._ot_trials[trial_id] = optuna.trial.Trial(self._ot_study, stored._trial_id)
            return config
        if len(self._proposed) >= self.trials or self.endings.exhausted:
            return str(Searcher.FINISHED)
        hyperparameters = super().suggest(trial_id)
        trial = self._ot_trials[trial_id]
        self._record(trial.number, trial.user_attrs.get("origin", "sampler"), hyperparameters)
        return {**hyperparameters, "trial": trial.number}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells the study how a trial ended."""
        if result and not error:
            self.on_trial_result(trial_id, result)
            self._tell(self._ot_trials[trial_id], result["ended"] or "stopped", result[OBJECTIVE])
        else:
            self._tell(self._ot_trials[trial_id], "failed", None)
        self._completed_trials.add(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Records the objective of one epoch, unless an interrupted run recorded it before."""
        trial = self._ot_trials[trial_id]
        stored = self._ot_study.get_trials(deepcopy=False)[trial.number]
        if result["training_iteration"] not in stored.intermediate_values:  # it is, if the trial was set back
            trial.report(result[OBJECTIVE], result["training_iteration"])

    def save_to_dir(self, checkpoint_dir: str, session_str: str) -> None:
        """Writes nothing: the journal and the study are on disk already, and Ray's snapshots are never read."""

    def _record(self, number: int, origin: str, hyperparameters: dict[str, Any]) -> None:
        self._proposed.add(number)
        self.journal.append("trial", number, origin=origin, hyperparameters=hyperparameters)

    def _tell(self, trial: optuna.trial.Trial, status: str, value: float | None) -> None:
        state = _STATES.get(status, TrialState.PRUNED)
        self._ot_study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)

    def _rebuild(self, history: list[Event], space: dict[str, BaseDistribution]) -> None:
        """Makes the study anew from the journal, and finds the trials to continue.

        A study that an interruption left behind may be ahead of the journal, hold a trial that was asked for in part,
        or be damaged; one that is made anew is none of these. A trial that had ended but for the journal's line is
        ended now.
        """
        by_trial: dict[int, list[Event]] = {}
        for event in history:
            by_trial.setdefault(event["trial"], []).append(event)
        for number, events in sorted(by_trial.items()):
            objectives = {event["epoch"]: event[OBJECTIVE] for event in events if event["event"] == "epoch"}
            last = next((event for event in reversed(events) if event["event"] in ("epoch", "end")), None)
            if last and last["event"] == "epoch" and last["ended"]:
                last = self.journal.append("end", number, status=last["ended"], reason="")
            status = last["status"] if last and last["event"] == "end" else None
            state = TrialState.RUNNING if status is None else _STATES.get(status, TrialState.PRUNED)
            hyperparameters = events[0]["hyperparameters"]
            self._ot_study.add_trial(
                optuna.trial.create_trial(
                    state=state,
                    value=objectives[max(objectives)] if objectives and state in _WITH_VALUE else None,
                    params=hyperparameters,
                    distributions=space,
                    intermediate_values=objectives,
                    user_attrs={"origin": events[0]["origin"]},
                )
            )
            if status is None:
                self.unfinished.append({**hyperparameters, "trial": number, **self._checkpoint(events)})

    def _checkpoint(self, events: list[Event]) -> dict[str, str]:
        """The newest checkpoint of a trial that can be read; nothing if there is none, and the trial starts anew."""
        for event in reversed(events):
            if event["event"] == "checkpoint":
                folder = (self.journal.path.parent / event["path"]).resolve()
                if not folder.exists():  # an older one, whose place a newer has taken
                    continue
                try:
                    read_tensors(folder / CHECKPOINT_FILE, torch.device("cpu"))
                except FolderError as error:
                    _logger.warning("trial %d cannot go on from its last epoch: %s", event["trial"], error)
                else:
                    return {"checkpoint": str(folder)}
        return {}
