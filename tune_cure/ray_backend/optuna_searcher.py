"""Tune searcher that asks the search's study for trials; what it proposes is decided in `search.proposals`."""

from typing import Any

from ray.tune.search import Searcher

from tune_cure.search.journal import OBJECTIVE, end_status
from tune_cure.search.proposals.proposer import StudyProposer
from tune_cure.search.schedulers.memory_backoff import MemoryBackoff


class OptunaSearcher(Searcher):  # type: ignore[misc]
    """Tune searcher around a `StudyProposer`: translates Tune's trial identifiers to trial numbers.

    A trial's Tune config holds its hyperparameters, its number as `trial`, and as `checkpoint` the path or URI of the
    checkpoint to continue from, where there is one.

    Args:
        proposer: Proposes trials.
        backoff: Says how many trials run at a time.
    """

    def __init__(self, proposer: StudyProposer, backoff: MemoryBackoff) -> None:
        super().__init__(metric=OBJECTIVE, mode=proposer.spec.search.mode)
        self.proposer, self.backoff = proposer, backoff
        self._numbers: dict[str, int] = {}

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Return True: Tune leaves it to `suggest` how many trials there are at a time."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the config of the next trial, Tune's word for a search that proposes no more, or None for "later"."""
        if len(self._numbers) >= self.backoff.limit:
            return None
        proposal = self.proposer.propose()
        if proposal is None:
            # A running trial may leave some of the budget to another one, or be a new best and so restore patience.
            return None if self._numbers else str(Searcher.FINISHED)
        self._numbers[trial_id] = proposal.number
        checkpoint = {"checkpoint": proposal.checkpoint} if proposal.checkpoint else {}
        return {**proposal.hyperparameters, "trial": proposal.number, **checkpoint}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass the objective after an epoch on to the study."""
        self.proposer.report(self._numbers[trial_id], result["training_iteration"], result[OBJECTIVE])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how a trial ended; a result that names no end is of a trial that the scheduler stopped."""
        number = self._numbers.pop(trial_id)
        if result and not error:
            status = end_status(str(result["ended"] or "stopped"), result)
            self.proposer.tell(number, status, result["training_iteration"], result)
        else:
            self.proposer.tell(number, "failed")

    def save_to_dir(self, checkpoint_dir: str, session_str: str) -> None:
        """Write nothing: the journal and the study are on disk already, and Ray's snapshots are never read."""

    def save(self, checkpoint_path: str) -> None:
        """Write nothing, like `save_to_dir`."""

    def restore(self, checkpoint_path: str) -> None:
        """Refuse: an interrupted search is rebuilt from its journal.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a search is resumed from its journal, not from Ray's snapshots")
