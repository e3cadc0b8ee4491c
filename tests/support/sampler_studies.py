"""Studies and proposers by every sampler, without trials that train."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from tune_cure.search.journal import Journal
from tune_cure.search.proposals import samplers
from tune_cure.search.proposals.proposer import Proposal, StudyProposer
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.stopping import SearchStopper

NUMBERS = {"lr_max": FloatDistribution(0.01, 1.0, log=True), "batch_size": IntDistribution(32, 128, step=32)}
SPACE = {**NUMBERS, "delta": CategoricalDistribution(["classic", "random"])}
Values = dict[str, Any]


def propose_values(name: str, trials: int, objective: Callable[[Values], float], seed: int = 0) -> list[Values]:
    """Return the proposals of a study in which every third trial is stopped after its first epoch."""
    study = optuna.create_study(sampler=samplers.make_sampler(name, seed, 0), direction="maximize")
    proposals = []
    for number in range(trials):
        trial = study.ask(NUMBERS if name == "cmaes" else SPACE)
        proposals.append(trial.params)
        if number % 3 == 2:
            trial.report(objective(trial.params) / 2, 1)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, objective(trial.params))
    return proposals


def peak(values: Values) -> float:
    """Return an objective that is highest at a learning rate of 0.1 with the direction `classic`."""
    return 1.0 - abs(math.log10(values["lr_max"]) + 1) - 0.5 * (values.get("delta") == "random")


def make_proposer(spec: SearchSpec, folder: Path) -> StudyProposer:
    """Return a proposer that knows what the journal in `folder` says; its study is in memory."""
    journal = Journal(folder)
    stopper, storage = SearchStopper(spec, folder, None, []), optuna.storages.InMemoryStorage()
    return StudyProposer(spec, journal, journal.read(), stopper, storage=storage)


def propose(proposer: StudyProposer) -> Proposal:
    """Return the next proposal; the search must not have ended."""
    proposal = proposer.propose()
    assert proposal is not None
    return proposal
