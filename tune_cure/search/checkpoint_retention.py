"""Which checkpoints of trials that have ended are still of use: without this a search keeps one of every trial."""

from pathlib import PurePath

from tune_cure.search.journal import Event
from tune_cure.search.rank_key import RankKey, RankTracker
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.objectives import pareto_front


class CheckpointRetention:
    """Follows a search's journal, and says which checkpoints nobody will ask for any more.

    Kept are those of the best `rescore.top` trials (of one at least) and of the Pareto front of several metrics. What a
    trial has reached is settled when it ends, so one that is behind these then is behind them for ever.
    """

    def __init__(self, spec: SearchSpec) -> None:
        self.spec = spec
        self._standing = RankTracker(spec)
        self._kept: list[RankKey] = []
        self._paths: dict[int, dict[str, str]] = {}  # of each trial by its folder: each session gives it another

    def take(self, event: Event) -> list[str]:
        """Takes in a line of the journal; returns the paths of the checkpoints that are of no more use after it."""
        number = event["trial"]
        if event["event"] == "checkpoint":
            self._paths.setdefault(number, {})[str(PurePath(event["path"]).parent)] = event["path"]
        place = self._standing.take(event)
        if event["event"] != "end":
            return []
        places = sorted([*self._kept, *([place] if place else [])], reverse=True)
        self._kept = places[: max(self.spec.rescore.top, 1)]
        self._kept += [other for other in self._front(places) if other not in self._kept]
        useless = {number, *(other.trial for other in places)} - {other.trial for other in self._kept}
        return [path for other in sorted(useless) for path in self._paths.pop(other, {}).values()]

    def _front(self, places: list[RankKey]) -> list[RankKey]:
        if len(self.spec.search.metrics) == 1:
            return []
        counted = [place for place in places if place.sound and place.feasible]
        on_front = pareto_front([place.metrics for place in counted], self.spec.search.mode)
        return [place for place, is_on in zip(counted, on_front, strict=True) if is_on]
