"""Rule for which checkpoints of ended trials are kept. Without it a search keeps one of every trial."""

from pathlib import PurePath

from tune_cure.search.journal import Event
from tune_cure.search.ranking import RankKey, RankTracker
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.objectives import pareto_front


class CheckpointRetention:
    """Follower of a journal that names the checkpoints that are not needed any more.

    The checkpoints of the best `rescore.top` trials (at least one) are kept, and with several metrics those of the
    Pareto front. A trial's accuracies do not change after its end, so a trial that falls behind then stays behind.

    Args:
        spec: The search.
    """

    def __init__(self, spec: SearchSpec) -> None:
        self.spec = spec
        self._tracker = RankTracker(spec)
        self._kept: list[RankKey] = []
        # The last path in each folder of each trial: a session that resumes the search gives its trials new folders.
        self._paths: dict[int, dict[str, str]] = {}

    def take(self, event: Event) -> list[str]:
        """Take in an event; return the paths of the checkpoints that are not needed any more after it."""
        number = event["trial"]
        if event["event"] == "checkpoint":
            self._paths.setdefault(number, {})[str(PurePath(event["path"]).parent)] = event["path"]
        key = self._tracker.take(event)
        if event["event"] != "end":
            return []
        candidates = sorted([*self._kept, *([key] if key else [])], reverse=True)
        self._kept = candidates[: max(self.spec.rescore.top, 1)]
        self._kept += [candidate for candidate in self._front(candidates) if candidate not in self._kept]
        dropped = {number, *(candidate.trial for candidate in candidates)} - {kept.trial for kept in self._kept}
        return [path for trial in sorted(dropped) for path in self._paths.pop(trial, {}).values()]

    def _front(self, candidates: list[RankKey]) -> list[RankKey]:
        """Return the Pareto front of the sound and feasible candidates; empty with a single metric."""
        if len(self.spec.search.metrics) == 1:
            return []
        eligible = [key for key in candidates if key.sound and key.feasible]
        on_front = pareto_front([key.metrics for key in eligible], self.spec.search.mode)
        return [key for key, is_on_front in zip(eligible, on_front, strict=True) if is_on_front]
