"""Leagues without Ray, in milliseconds: the searches of several methods share workers, and take turns.

Each method's search is a `FakeBackend`; whose turn it is decides `league.budget.Turns`, as under Ray Tune.
"""

import heapq
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.support.fake_backend import FakeBackend, RunningTrial, Script, ScriptedWorker
from tune_cure.league.budget import Turns
from tune_cure.search.journal import Event
from tune_cure.search.proposals.proposer import Proposal
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec


class TimedWorker(ScriptedWorker):
    """Scripted worker that reports how long its epochs have trained, and how long they were judged."""

    def step(self) -> dict[str, Any]:
        return super().step() | {"train_seconds": self.script.seconds, "eval_seconds": 0.1}


class FakeLeague:
    """A session of a league, new or resumed.

    Args:
        specs: The search of each method.
        folder: The league's folder.
        scripts: What a trial of a method does.
        workers: How many trials run at a time.
        resume: Continue the searches in the folder.
        kill_at: Whether the process is killed right after an event of a method is written.
    """

    def __init__(
        self,
        specs: Mapping[str, SearchSpec],
        folder: Path,
        scripts: Callable[[str, Proposal], Script],
        *,
        workers: int = 2,
        resume: bool = False,
        kill_at: Callable[[str, Event], bool] = lambda name, event: False,
    ) -> None:
        self.workers, self.scripts = workers, scripts
        self.num_idle = 0  # how often a worker had nothing to do although not all had ended
        self.backends = {
            name: self._backend(name, spec, folder / name, resume, kill_at) for name, spec in specs.items()
        }
        self.turns = Turns({name: backend.proposer for name, backend in self.backends.items()})

    def _backend(
        self, name: str, spec: SearchSpec, folder: Path, resume: bool, kill_at: Callable[[str, Event], bool]
    ) -> FakeBackend:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.yaml").write_text(spec.to_yaml())

        def begin(proposal: Proposal) -> TimedWorker:
            return TimedWorker(spec, proposal, self.scripts(name, proposal), {})

        return FakeBackend(
            spec,
            folder,
            begin,
            seconds=lambda proposal: self.scripts(name, proposal).seconds,
            resume=resume,
            kill_at=lambda event: kill_at(name, event),
        )

    def run(self) -> dict[str, SearchResult]:
        """Run all searches to their end, and return the result of each."""
        now = 0.0
        running: list[tuple[float, str, int, RunningTrial]] = []
        while True:
            while len(running) < self.workers and (begun := self._begin()):
                name, trial = begun
                heapq.heappush(running, (now + trial.seconds, name, trial.number, trial))
            if not running:
                break
            self.num_idle += self.workers - len(running)
            now, name, number, trial = heapq.heappop(running)
            if self.backends[name]._step(trial):
                heapq.heappush(running, (now + trial.seconds, name, number, trial))
        return {
            name: backend.stopper.conclude(backend.counts, backend.record) for name, backend in self.backends.items()
        }

    def _begin(self) -> tuple[str, RunningTrial] | None:
        for name in self.turns.order():
            proposal = self.backends[name].proposer.propose()
            if proposal is not None:
                return name, self.backends[name]._start(proposal)
        return None
