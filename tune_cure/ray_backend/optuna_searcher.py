"""Tune searcher that asks the search's study for trials; what it proposes is decided in `search.proposals`."""

from typing import Any

from ray.tune.search import Searcher

from tune_cure.search.journal import OBJECTIVE
from tune_cure.search.proposals.proposer import StudyProposer


class OptunaSearcher(Searcher):  # type: ignore[misc]
    """Tune searcher around a `StudyProposer`: translates Tune's trial identifiers to trial numbers.

    A trial's Tune config holds its hyperparameters, its number as `trial`, and as `checkpoint` the path or URI of the
    checkpoint to continue from, where there is one.
    """

    def __init__(self, proposer: StudyProposer) -> None:
        super().__init__(metric=OBJECTIVE, mode=proposer.spec.search.mode)
        self.proposer = proposer
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return the config of the next trial, or Tune's word for a search that proposes no more."""
        proposal = self.proposer.propose()
        if proposal is None:
            return str(Searcher.FINISHED)
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
            self.proposer.tell(number, result["ended"] or "stopped", result["training_iteration"], result)
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
