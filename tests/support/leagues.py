"""Leagues that were never run: searches of scripted trials, and outcomes on test images that are drawn at random."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tests.support.fake_backend import Script
from tests.support.fake_league import FakeLeague
from tests.support.spaces import TINY
from tune_cure.confirmation.plan import Job, Plan, plan_jobs
from tune_cure.confirmation.verdicts import COLUMNS, EPOCHS, Confirmation
from tune_cure.evaluation.names import ATTACKS, WITHOUT_AUTOATTACK
from tune_cure.league.contenders import PRESET, WINNER, choose_contenders, preset_name
from tune_cure.league.cost import EpochCost
from tune_cure.league.folder import League, LeagueConfig
from tune_cure.league.methods import Entry, take_shared
from tune_cure.reports import artifacts
from tune_cure.reports.made_files import MadeFiles
from tune_cure.search import run_files
from tune_cure.search.proposals.proposer import Proposal
from tune_cure.utils.files import replace_arrays
from tune_cure.utils.yaml_parser import parse

SLOPE = 0.4
"""By how much an accuracy of about a half rises with the latent variable: the normal density at 0."""


def draw_outcomes(
    accuracies: Mapping[str, float],
    *,
    seeds: int = 3,
    images: int = 300,
    deviation: float | Mapping[str, float] = 0.02,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Return outcomes (seeds, images) of configurations by their names.

    Some images are harder for all of them, and some for one of them.

    Args:
        accuracies: The expected accuracy of each, roughly; exact at 0.5.
        seeds: The number of seeds.
        images: The number of images.
        deviation: The standard deviation of the accuracy over seeds, of all or of each.
        seed: Of the random numbers.
    """
    random = np.random.default_rng(seed)
    common, found = random.normal(0, 0.8, images), {}
    for name, accuracy in accuracies.items():
        of_seeds = deviation if isinstance(deviation, float) else deviation[name]
        luck = random.normal(0, of_seeds / SLOPE, (seeds, 1))
        own, chance = random.normal(0, 0.4, images), random.normal(0, 0.45, (seeds, images))
        found[name] = common + own + luck + chance + (accuracy - 0.5) / SLOPE > 0
    return found


def build_confirmation(
    winners: Mapping[str, np.ndarray], presets: Mapping[str, np.ndarray] | None = None, **columns: Any
) -> Confirmation:
    """Return the confirmation of a league whose networks withstood every attack on the same images.

    Args:
        winners: Outcomes (seeds, images) of the winner of each method.
        presets: Those of the untuned preset of some methods.
        columns: Values of columns of its table, the same in all rows.
    """
    confirmation, rows = Confirmation([]), []
    named = [(name, WINNER, found) for name, found in winners.items()]
    named += [(preset_name(name), PRESET, found) for name, found in (presets or {}).items()]
    for name, kind, found in named:
        for seed, right in enumerate(found, 1):
            confirmation.outcomes[name, seed, 0.05] = dict.fromkeys(ATTACKS, right) | {"zero_gradient": np.array(0.0)}
            row = {"contender": name, "kind": kind, "description": name, "seed": seed, "norm": "linf", "epsilon": 0.05}
            row |= {"examples": len(right), "train_images": 600, "epochs": 4, "diverged": False, "train_seconds": 10.0}
            row |= dict.fromkeys(ATTACKS, float(right.mean())) | {"zero_gradient": 0.0, "chance": 0.1, "warnings": ""}
            row["autoattack_version"] = "0.2.0"
            rows.append(row | columns)
    confirmation.table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(EPOCHS, "Int64"))
    confirmation.num_planned = confirmation.num_judged = len(rows)
    return confirmation


def write_league(
    folder: Path,
    methods: Mapping[str, str],
    *,
    trials: int = 4,
    falling: Collection[str] = (),
    failing: Collection[str] = (),
    **settings: Any,
) -> League:
    """Write a league whose searches are over: their accuracies rise with the number of the trial.

    The reports of the searches are empty, because drawing them takes seconds. They are recorded as current.

    Args:
        folder: The league's folder.
        methods: The preset of each method, by its name.
        trials: Whole trials of each search.
        falling: Methods whose accuracies fall instead, so that the first trial, the preset, wins.
        failing: Methods whose trials all fail, for one reason, so that their searches have ended before their budget.
        settings: Of `LeagueConfig`.
    """
    entries = {name: Entry(training={"method": method}) for name, method in methods.items()}
    shared = take_shared(parse(TINY))[0] | {"rescore": {"top": 0}}
    config = LeagueConfig(
        space="tiny.yaml", methods=entries, trials=trials, shared=shared, budget_by="epochs", **settings
    )
    league = League(folder, config)
    league.set_budget(league.compose(), dict.fromkeys(methods, EpochCost(train_seconds=1.0, eval_seconds=0.1)))

    def script(name: str, proposal: Proposal) -> Script:
        accuracy = 0.3 + 0.01 * min(proposal.number, 15) * (-1 if name in falling else 1)
        failures = {1: ["broken"] * 9} if name in failing else {}
        return Script([accuracy - 0.1, accuracy - 0.05, accuracy, accuracy], failures=failures)

    FakeLeague(league.compose(), folder, script).run()
    for name in methods:
        run = league.run_folder(name)
        made = MadeFiles(run / run_files.MADE)
        for file in (run / run_files.REPORT, run / run_files.TOP_MARKDOWN):
            file.touch()
            made.add(file, artifacts.digest_inputs(run))
        made.write()
    return league


def plan_league(league: League, *, examples: int, seeds: int = 3, autoattack: bool = True) -> list[Job]:
    """Return the jobs of a league's confirmation."""
    plan = Plan(tuple(range(1, seeds + 1)), (0.05,), examples, 600, autoattack, held_out=100)
    result = next(iter(league.results().values()))
    return plan_jobs(result, choose_contenders(league), plan, league.folder / run_files.CONFIRM)


def finish_job(job: Job, right: np.ndarray, *, seconds: float = 10.0) -> None:
    """Write what a finished job leaves.

    Args:
        job: The job.
        right: Which images its last weights withstood every attack on; the best ones withstand one more.
        seconds: Seconds of its training.
    """
    names = ATTACKS if job.plan.autoattack else WITHOUT_AUTOATTACK
    better = right.copy()
    better[np.flatnonzero(~right)[:1]] = True
    for weights, found in (("last", right), ("best", better)):
        folder = job.outcome_folder(0.05, weights)  # type: ignore[arg-type]
        folder.mkdir(parents=True, exist_ok=True)
        numbers = {"zero_gradient": 0.0, "seconds": 1.0, "chance": 0.1}
        version = {"autoattack_version": "0.2.0" if job.plan.autoattack else ""}
        replace_arrays(folder / run_files.OUTCOMES, {**dict.fromkeys(names, found), **numbers, **version})
    model = {"model": {}, "weights": {"w": torch.ones(1)}, "epoch": 4, "train_seconds": seconds, "best_epoch": 3}
    torch.save(model, job.folder / run_files.JOB_MODEL)
    epochs = pd.DataFrame({"epoch": [1, 2, 3, 4], "pgd_accuracy": right.mean() * np.array([0.5, 0.8, 1.0, 0.98])})
    epochs.to_csv(job.folder / run_files.JOB_EPOCHS, index=False)


def finish_league(
    league: League, accuracies: Mapping[str, float], *, examples: int = 300, seeds: int = 3
) -> Confirmation:
    """Write what a league's confirmation leaves, and return it.

    Args:
        league: The league.
        accuracies: The expected accuracy of candidates by their names; 0.4 for others.
        examples: The number of test images.
        seeds: The number of seeds.
    """
    jobs = plan_league(league, examples=examples, seeds=seeds)
    names = dict.fromkeys(job.candidate.name for job in jobs)
    drawn = draw_outcomes({name: accuracies.get(name, 0.4) for name in names}, seeds=seeds, images=examples)
    for job in jobs:
        finish_job(
            job, drawn[job.candidate.name][job.seed - 1], seconds=10.0 + 7 * list(names).index(job.candidate.name)
        )
    confirmation = Confirmation(jobs)
    confirmation.write(league.folder / run_files.CONFIRM)
    return confirmation
