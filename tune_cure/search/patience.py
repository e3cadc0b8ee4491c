"""When a search is over: every trial has ended, or its patience is used up."""

from tune_cure.search.journal import Event
from tune_cure.search.rank_key import RankKey, RankTracker, rank_key
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.formatting import format_count


class Patience:
    """How many of a search's trials have ended since one that was better than all before.

    Attributes:
        spec: The search, whose `search.patience` counts as it is when asked.
    """

    def __init__(self, spec: SearchSpec) -> None:
        self.spec = spec
        self._standing = RankTracker(spec)
        self._best: RankKey | None = None
        self._since_best = 0

    def take(self, event: Event) -> None:
        """Takes in a line of the journal that is of a trial."""
        place = self._standing.take(event)
        if event["event"] == "end":
            self.count(place)

    def count(self, place: RankKey | None) -> None:
        """Takes in that a trial ended, and where it stands; None if it was never judged."""
        self._since_best += 1
        if place and place.sound and (self._best is None or place[:3] > self._best[:3]):
            self._best, self._since_best = place, 0

    @property
    def is_used_up(self) -> bool:
        """Whether so many trials have improved nothing that no more are to be proposed."""
        patience = self.spec.search.patience
        return patience is not None and self._since_best >= patience

    @property
    def words(self) -> str:
        """What is to be said when it is used up."""
        return f"the last {format_count(self.spec.search.patience or 0, 'trial')} improved nothing"


def is_search_over(result: SearchResult) -> bool:
    """Whether nothing is left to run: all trials have ended, or those that were begun, and patience is used up."""
    if result.trials.empty or result.trials["status"].eq("unfinished").any():
        return False
    return len(result.trials) >= result.spec.search.trials or replay_patience(result).is_used_up


def replay_patience(result: SearchResult) -> Patience:
    """The patience of a search as its folder has it, counted in the order in which its trials ended."""
    spec, patience = result.spec, Patience(result.spec)
    columns = ["trial", "status", "feasible", "objective", *spec.search.metrics]
    rows = result.trials[list(dict.fromkeys(columns))].to_dict("records")
    by_number = {row["trial"]: row for row in rows}
    for event in result.events:
        if event["event"] == "end":
            patience.count(rank_key(by_number[event["trial"]], spec))
    return patience
