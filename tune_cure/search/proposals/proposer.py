"""Proposer of trials: an Optuna study that is told how each trial ended, rebuilt from the journal on resume."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from tune_cure.search.journal import OBJECTIVE, Event, Journal, end_reason
from tune_cure.search.proposals import warm_start
from tune_cure.search.proposals.distinct_sampler import ORIGIN, WARM_START_ORIGIN
from tune_cure.search.proposals.optuna_space import suggest, to_optuna_distribution, to_optuna_value
from tune_cure.search.proposals.outcome import study_outcome
from tune_cure.search.proposals.recorded_trials import RecordedTrial, find_checkpoint, recorded_trials
from tune_cure.search.proposals.study import create_storage, create_study
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.stopping import SearchStopper
from tune_cure.search.storage.run_storage import LocalStorage, RunStorage


class Proposal(NamedTuple):
    """A trial to run.

    Attributes:
        number: Its number in the search.
        hyperparameters: Its values of the searched hyperparameters.
        checkpoint: The path or URI of the checkpoint to continue from; None to begin with the first epoch.
    """

    number: int
    hyperparameters: dict[str, Any]
    checkpoint: str | None = None


class StudyProposer:
    """Proposes the trials of a search from an Optuna study, and tells the study how they end.

    A trial keeps its number in the study over interruptions of the search. Trials of an earlier search
    (`search.warm_start`) come first in the study and have no number in this search.

    Args:
        spec: The search.
        journal: Where proposals are recorded.
        history: The events of the journal so far; empty for a new search. The end of a trial whose last epoch ended it
            is added here and to the journal if a crash kept it from there.
        stopper: Says when no more trials are to be proposed; it is told of the ends that are added.
        storage: Where the study is kept; study.db beside the journal if None.
        run_storage: Where checkpoints are kept; the journal's folder if None.

    Attributes:
        study: The study.
        num_prior: How many trials of an earlier search it begins with.
    """

    def __init__(
        self,
        spec: SearchSpec,
        journal: Journal,
        history: list[Event],
        stopper: SearchStopper,
        *,
        storage: BaseStorage | None = None,
        run_storage: RunStorage | None = None,
    ) -> None:
        self.spec, self.journal, self.stopper = spec, journal, stopper
        self._run_storage = run_storage or LocalStorage(journal.path.parent)
        self._has_several = len(spec.search.metrics) > 1
        proposed = [event for event in history if event["event"] == "trial"]
        prior_trials = warm_start.keep_prior_trials(spec, journal.path.parent, is_begun=bool(proposed))
        self.num_prior = len(prior_trials)
        self.study = create_study(
            spec, storage or create_storage(journal.path.parent), num_drawn=self.num_prior + len(proposed)
        )
        self._num_proposed = len({event["trial"] for event in proposed})
        self._running: dict[int, optuna.Trial] = {}
        self._last_reported: dict[int, int] = {}
        self._unfinished: list[RecordedTrial] = []
        for prior in prior_trials:
            self._add_prior(prior)
        for trial in recorded_trials(history):
            self._add_recorded(trial, history)
        num_started = sum(event["origin"] == "start_from" for event in proposed)
        self._starts = spec.start_from[num_started:]

    @property
    def has_unfinished(self) -> bool:
        """Return True while trials that an interruption left unfinished wait to be continued."""
        return bool(self._unfinished)

    def propose(self) -> Proposal | None:
        """Return the next trial to run, first those that an interruption left unfinished; None if there is no more."""
        if self._unfinished:
            return self._continue(self._unfinished.pop(0))
        if self._num_proposed >= self.spec.search.trials or self.stopper.exhausted:
            return None
        if self._starts:
            origin, hyperparameters = "start_from", self._starts.pop(0)
            self._enqueue(hyperparameters, origin)
            trial = self._ask_for(hyperparameters)
        else:
            origin, trial = "sampler", self.study.ask()
            # Key by key: the first values decide which of the later keys make a difference.
            hyperparameters = self.spec.propose(lambda key: suggest(trial, key, self.spec.space[key]))
        number = trial.number - self.num_prior
        self._running[number] = trial
        self._num_proposed += 1
        self.stopper.take(self.journal.append("trial", number, origin=origin, hyperparameters=hyperparameters))
        return Proposal(number, hyperparameters)

    def report(self, number: int, epoch: int, objective: float) -> None:
        """Record the objective after an epoch; one that is reported again after a retry is ignored."""
        if self._has_several:  # a study of several objectives takes the last values alone
            return
        if epoch > self._last_reported.get(number, 0):
            self._running[number].report(objective, epoch)
            self._last_reported[number] = epoch

    def tell(self, number: int, status: str, epoch: int = 0, metrics: Mapping[str, Any] | None = None) -> None:
        """Tell the study how a trial ended.

        Args:
            number: The trial's number.
            status: How it ended (`event_schemas.Status`).
            epoch: Its last epoch.
            metrics: What it had reached then, with `OBJECTIVE`; None for a trial that failed.
        """
        outcome = study_outcome(self.spec, status, epoch, metrics or {})
        if metrics is not None:
            self.report(number, epoch, outcome.values[0])
        trial = self._running.pop(number)
        self._last_reported.pop(number, None)
        for name, violation in outcome.violations.items():
            trial.set_constraint(name, violation)
        for name, value in outcome.attributes.items():
            trial.set_user_attr(name, value)
        self.study.tell(trial, outcome.values if outcome.state == TrialState.COMPLETE else None, state=outcome.state)

    def _continue(self, recorded: RecordedTrial) -> Proposal:
        """Return an unfinished trial, which the study has as its next one, and give the study the trial's epochs."""
        trial = self._ask_for(recorded.hyperparameters)
        assert trial.number == self.num_prior + recorded.number
        self._running[recorded.number] = trial
        for epoch, objective in recorded.objectives.items():
            self.report(recorded.number, epoch, objective)
        return Proposal(recorded.number, recorded.hyperparameters, find_checkpoint(recorded, self._run_storage))

    def _enqueue(self, hyperparameters: dict[str, Any], origin: str) -> None:
        """Make a trial with these hyperparameters one that the study returns when it is asked."""
        self.study.enqueue_trial(self._to_params(hyperparameters), user_attrs={ORIGIN: origin})

    def _ask_for(self, hyperparameters: dict[str, Any]) -> optuna.Trial:
        """Return the first trial that is enqueued, which has these hyperparameters."""
        trial = self.study.ask()
        for key in hyperparameters:
            suggest(trial, key, self.spec.space[key])
        return trial

    def _to_params(self, hyperparameters: dict[str, Any]) -> dict[str, Any]:
        """Return hyperparameters as the study has them."""
        return {key: to_optuna_value(self.spec.space[key], value) for key, value in hyperparameters.items()}

    def _add_prior(self, prior: warm_start.PriorTrial) -> None:
        """Add a trial of an earlier search to the study."""
        objective = prior.metrics[self.spec.search.metrics[0]]
        metrics = {**prior.metrics, OBJECTIVE: objective}
        objectives = {prior.epochs: objective}
        self._add_ended(prior.hyperparameters, WARM_START_ORIGIN, prior.status, metrics, objectives)

    def _add_recorded(self, trial: RecordedTrial, history: list[Event]) -> None:
        """Add a trial of the journal to the study: ended, or waiting to be continued."""
        status = trial.status
        if not status and trial.ended:  # a crash kept the end from the journal
            status = trial.ended
            end = self.journal.append("end", trial.number, status=status, reason=end_reason(status, trial.last_epoch))
            history.append(end)
            self.stopper.take(end)
        if status:
            self._add_ended(trial.hyperparameters, trial.origin, status, trial.metrics, trial.objectives)
        else:
            self._enqueue(trial.hyperparameters, trial.origin)
            self._unfinished.append(trial)

    def _add_ended(
        self,
        hyperparameters: dict[str, Any],
        origin: str,
        status: str,
        metrics: Mapping[str, Any],
        objectives: dict[int, float],
    ) -> None:
        """Add an ended trial to the study, as if the study had seen it live.

        Args:
            hyperparameters: Its values of the searched hyperparameters.
            origin: Where they came from.
            status: How it ended.
            metrics: What it had reached then.
            objectives: Its objective by epoch.
        """
        last = max(objectives, default=0)
        outcome = study_outcome(self.spec, status, last, metrics)
        told = {} if self._has_several or not objectives else {**objectives, last: outcome.values[0]}
        has_values = outcome.state != TrialState.FAIL and None not in outcome.values
        trial = optuna.trial.create_trial(
            state=outcome.state,
            values=outcome.values if has_values else None,
            params=self._to_params(hyperparameters),
            distributions={key: to_optuna_distribution(self.spec.space[key]) for key in hyperparameters},
            intermediate_values=told,
            user_attrs={ORIGIN: origin, **outcome.attributes},
        )
        for name, violation in outcome.violations.items():
            trial.set_constraint(name, violation)
        self.study.add_trial(trial)
