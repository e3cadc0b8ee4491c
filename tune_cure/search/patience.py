"""Rule for the end of a search: all trials have ended, the budget is spent, or too many trials improved nothing."""

from tune_cure.search.budget import replay_budget
from tune_cure.search.journal import Event
from tune_cure.search.ranking import RankKey, RankTracker, rank_key, select_finalists
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.formatting import format_count


class Patience:
    """Count of the trials that have ended since one was better than all before it.

    Attributes:
        spec: The search. Its `search.patience` is read at each question, and None means that patience has no end.
    """

    def __init__(self, spec: SearchSpec) -> None:
        self.spec = spec
        self._tracker = RankTracker(spec)
        self._best: RankKey | None = None
        self._num_since_best = 0

    def take(self, event: Event) -> None:
        """Take in an event of a trial."""
        key = self._tracker.take(event)
        if event["event"] == "end":
            self.count(key)

    def count(self, key: RankKey | None) -> None:
        """Count a trial that ended, by its sort key; None if it was never judged."""
        self._num_since_best += 1
        if key is not None and key.improves_on(self._best):
            self._best, self._num_since_best = key, 0

    @property
    def is_used_up(self) -> bool:
        """Return True if `search.patience` trials in a row have improved nothing: no more are to be proposed."""
        patience = self.spec.search.patience
        return patience is not None and self._num_since_best >= patience

    @property
    def words(self) -> str:
        """The reason that is given once it is used up."""
        return f"the last {format_count(self.spec.search.patience or 0, 'trial')} improved nothing"


def is_search_over(result: SearchResult) -> bool:
    """Return whether no trial is left to run: all trials have ended, or all that began, and no more are proposed."""
    if result.trials.empty or result.trials["status"].eq("unfinished").any():
        return False
    return len(result.trials) >= result.spec.search.trials or bool(describe_early_end(result))


def has_judged_leaders(result: SearchResult) -> bool:
    """Return whether each leading trial is judged again, or there are no other validation images to judge it on."""
    spec = result.spec
    if (spec.data.validation or 0) <= spec.evaluation.examples:
        return True
    return bool(select_finalists(result.trials, spec)["fresh_pgd_accuracy"].notna().all())


def describe_early_end(result: SearchResult) -> str:
    """Return why a recorded search proposes no more trials although it has not had all; empty if it does."""
    budget = replay_budget(result)
    if budget.is_spent:
        return f"its budget of {budget.words} is spent"
    patience = replay_patience(result)
    return patience.words if patience.is_used_up else ""


def replay_patience(result: SearchResult) -> Patience:
    """Return the patience of a recorded search, counted in the order in which its trials ended."""
    spec, patience = result.spec, Patience(result.spec)
    columns = ["trial", "status", "feasible", "objective", *spec.search.metrics]
    rows = result.trials[list(dict.fromkeys(columns))].to_dict("records")
    by_number = {row["trial"]: row for row in rows}
    for event in result.events:
        if event["event"] == "end":
            patience.count(rank_key(by_number[event["trial"]], spec))
    return patience
