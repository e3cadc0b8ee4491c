"""SMAC3's multi-fidelity facade, by its `ask` and `tell`."""

import logging
import weakref
from tempfile import TemporaryDirectory

from ConfigSpace import ConfigurationSpace, Float
from smac import MultiFidelityFacade, Scenario
from smac.runhistory.dataclasses import TrialInfo, TrialValue

from peers.clock import EPOCHS, Config, Space

FACTOR = 3


class Smac:
    """A search by SMAC: Hyperband with a random forest. A promoted configuration continues after its last epoch.

    Args:
        space: What is searched.
        seed: Of the proposals.
        first_rung: The smallest budget, epochs.
        num_trials: Evaluations that SMAC is told to expect; its initial design has a quarter of them at most.
    """

    def __init__(self, space: Space, seed: int, first_rung: int, num_trials: int) -> None:
        self._folder = TemporaryDirectory()
        weakref.finalize(self, self._folder.cleanup)
        floats = {key: Float(key, (low, high), log=key in space.log) for key, (low, high) in space.bounds.items()}
        scenario = Scenario(
            ConfigurationSpace(floats, seed=seed),
            deterministic=True,
            seed=seed,
            n_trials=num_trials,
            min_budget=first_rung,
            max_budget=EPOCHS,
            output_directory=self._folder.name,
        )
        intensifier = MultiFidelityFacade.get_intensifier(scenario, eta=FACTOR)
        self._smac = MultiFidelityFacade(
            scenario, lambda config, seed, budget: 0.0, intensifier=intensifier, logging_level=logging.ERROR
        )
        self._numbers: dict[tuple[float, ...], int] = {}
        self._asked: dict[int, TrialInfo] = {}

    def next_trial(self) -> tuple[int, Config]:
        info = self._smac.ask()
        config = {key: float(value) for key, value in dict(info.config).items()}
        number = self._numbers.setdefault(tuple(config.values()), len(self._numbers))
        assert number not in self._asked
        self._asked[number] = info
        return number, config

    def report(self, number: int, epoch: int, accuracy: float) -> bool:
        info = self._asked[number]
        if epoch < round(info.budget):
            return True
        self._smac.tell(info, TrialValue(cost=1 - accuracy), save=False)
        del self._asked[number]
        return False

    def winner(self) -> Config | None:
        """Return the incumbent of the intensifier, which `optimize` would return."""
        incumbent = self._smac.intensifier.get_incumbent()
        return None if incumbent is None else {key: float(value) for key, value in dict(incumbent).items()}
