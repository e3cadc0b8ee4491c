"""This tool: its proposer, its early stopping and its choice of the winner, without Ray's processes."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna
import pandas as pd

from peers.clock import EPOCHS, KEYS, Config, Space
from tune_cure.search.journal import OBJECTIVE, Journal
from tune_cure.search.proposals.proposer import StudyProposer
from tune_cure.search.ranking import rank_leaders
from tune_cure.search.schedulers.early_stopper import EarlyStopper
from tune_cure.search.space import loading as specs
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.stopping import SearchStopper


def read_spec(seed: int, sampler: str, scheduler: str, asha: str) -> SearchSpec:
    """Return the quick start's space with longer runs, nothing to start from, and no end."""
    chosen = [f"search.sampler={sampler}", f"search.scheduler={scheduler}", f"search.seed={seed}", f"asha={{{asha}}}"]
    return specs.load(
        "search_spaces/quickstart.yaml",
        [*chosen, f"training.epochs={EPOCHS}", "start_from=[]", "search.trials=1000000"],
    )


def read_space() -> Space:
    """Return the bounds of the quick start's space."""
    space = read_spec(0, "random", "none", "grace_period: 9").space
    return Space({key: tuple(space[key].values) for key in KEYS}, frozenset(k for k in KEYS if "log" in space[k].kind))


@dataclass
class Ours:
    """A search by this tool.

    Args:
        seed: Of the proposals.
        sampler: `search.sampler`.
        scheduler: `search.scheduler`.
        asha: The keys of `asha`.
        judge: The second judgement of a trial, by its configuration, epochs and accuracy; None for a search without.

    Attributes:
        reached: Epochs and best accuracy of each trial.
        configs: The configuration of each trial.
    """

    seed: int
    sampler: str
    scheduler: str
    asha: str
    judge: Callable[[Config, int, float], float] | None = None
    reached: dict[int, tuple[int, float]] = field(default_factory=dict)
    configs: dict[int, Config] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._folder = TemporaryDirectory()
        weakref.finalize(self, self._folder.cleanup)
        self._spec = spec = read_spec(self.seed, self.sampler, self.scheduler, self.asha)
        folder = Path(self._folder.name)
        storage = optuna.storages.InMemoryStorage()
        stopper = SearchStopper(spec, folder, None, [])
        self._proposer = StudyProposer(spec, Journal(folder), [], stopper, storage=storage)
        self._stopper = EarlyStopper(spec)

    def next_trial(self) -> tuple[int, Config]:
        trial = self._proposer.propose()
        assert trial is not None
        self._stopper.add(trial.number)
        self.configs[trial.number] = trial.hyperparameters
        return trial.number, trial.hyperparameters

    def report(self, number: int, epoch: int, accuracy: float) -> bool:
        self.reached[number] = (epoch, accuracy)
        result = {"training_iteration": epoch, OBJECTIVE: accuracy, "ended": "completed" * (epoch == EPOCHS)}
        if epoch == EPOCHS:
            self._stopper.complete(number, epoch, result)
        else:
            self._proposer.report(number, epoch, accuracy)
            if self._stopper.report(number, epoch, result):
                return True
        self._proposer.tell(number, result["ended"] or "stopped", epoch, result)
        return False

    def winner(self) -> Config:
        """Return the configuration that ranks first."""
        rows = [
            {"trial": number, "status": "completed", "feasible": True, "objective": accuracy}
            for number, (_, accuracy) in sorted(self.reached.items())
        ]
        frame = pd.DataFrame(rows)
        frame["pgd_accuracy_best"] = frame["objective"]
        if self.judge is None:
            return self.configs[int(frame.loc[frame["objective"].idxmax(), "trial"])]
        leaders = frame.nlargest(self._spec.rescore.top, "objective")["trial"]
        again = {n: self.judge(self.configs[n], *self.reached[n]) for n in leaders}
        judged = frame.assign(fresh_pgd_accuracy=frame["trial"].map(again))
        return self.configs[int(rank_leaders(judged, self._spec).iloc[0]["trial"])]
