"""A folder with everything that commands read, made by no search: runs, a confirmation, a training run, data."""

import json
from pathlib import Path
from typing import Any

import optuna
import torch
from PIL import Image

from tests.support.exported_models import NETWORK, random_network, write_confirmed_runs, write_search_with_model
from tests.support.journals import write_run
from tests.support.leagues import finish_league, write_league
from tests.support.pictures import write_pictures
from tests.support.spaces import tiny
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.data import splits as data
from tune_cure.reports import training_page
from tune_cure.reports.made_files import MadeFiles
from tune_cure.search import run_files
from tune_cure.search.journal import Journal
from tune_cure.search.proposals.optuna_space import to_optuna_distribution
from tune_cure.search.proposals.warm_start import keep_prior_trials
from tune_cure.search.results import SearchResult
from tune_cure.training.run import CONFIG, Run, resolve
from tune_cure.utils import environment
from tune_cure.utils.files import replace_tensors

RUN = {
    "data": {"dataset": "digits", "validation": 100, "train_examples": 64},
    "model": {"name": "small_cnn", "width": 4},
    "training": {"epochs": 1, "batch_size": 32, "epsilon": 0.1},
    "evaluation": {"epsilon": 0.1, "steps": 1, "examples": 20},
}
RECORD: dict[str, Any] = {
    "command": "python run_search.py",
    "data": "digits",
    "host": "elsewhere",
    "cpus": 2,
    "gpus": [],
    "resumed": [{}],
}


METHOD = """
training: {method: cure, direction: random, lr_max: 0.1}
space: {lambda: {loguniform: [0.01, 10]}}
"""


def write_everything(folder: Path) -> None:
    """Write `run`, `other` and `warm` (searches), `trained` (a training run), `pictures`, `space.yaml` and `study.db`.

    `warm` is a search that began with the trials of `other`. Also `league`, whose winners have been judged, and
    `mine.yaml`, the file of a method.
    """
    for name in ("run", "other", "warm"):
        (folder / name).mkdir()
    write_run(folder / "other")
    _write_warm_run(folder / "warm", folder / "other")
    result = write_search_with_model(folder / "run")
    (folder / "run" / environment.FILE).write_text(json.dumps(RECORD))
    _write_checkpoint(result)
    made = MadeFiles(folder / "run" / run_files.MADE)
    made.add(folder / "run" / run_files.BEST_MODEL, "what it was made from")
    made.write()
    jobs = write_confirmed_runs(SearchResult(folder / "run"), 1, 2)
    Confirmation(jobs).write(folder / "run" / run_files.CONFIRM)
    for name in ("fgsm", "trial-2"):
        (folder / "run" / run_files.CONFIRM / name / "seed-1" / run_files.JOB_STATUS).write_text('{"stage": "done"}')
    (folder / "run" / run_files.CONFIRM / environment.FILE).write_text(json.dumps(RECORD))
    _write_training_run(folder / "trained")
    write_pictures(folder / "pictures", count=4)
    for ending in ("jpg", "tif"):
        Image.linear_gradient("L").resize((12, 8)).convert("RGB").save(folder / "pictures" / "cat" / f"x.{ending}")
    _write_study(result, folder / "study.db")
    _write_league(folder / "league")
    (folder / "mine.yaml").write_text(METHOD)
    (folder / "space.yaml").write_text((folder / "run" / "space.yaml").read_text())


def _write_warm_run(folder: Path, earlier: Path) -> None:
    """Write a search that began with the trials of an earlier one, which it keeps."""
    write_run(folder)
    spec = tiny(folder, f"search.warm_start={earlier}")
    keep_prior_trials(spec, folder, is_begun=False)


def _write_league(folder: Path) -> None:
    """Write a league of two methods that is over."""
    folder.mkdir()
    league = write_league(folder, {"cure": "cure", "fgsm": "fgsm_rs"}, trials=2, seeds=1, examples=30)
    finish_league(league, {"cure": 0.6}, examples=30, seeds=1)
    (folder / environment.FILE).write_text(json.dumps(RECORD))


def _write_checkpoint(result: SearchResult) -> None:
    """Write the checkpoint of the best trial and of one that has not ended, as a trainer leaves it."""
    assert result.best
    journal = Journal(result.directory)
    values = result.spec.start_from[0]
    journal.append("trial", len(result.trials), origin="sampler", hyperparameters=values)
    for number, epoch in ((result.best.trial, int(result.best.row["best_epoch"])), (len(result.trials), 1)):
        folder = result.directory / "trials" / f"trial_{number:05d}"
        folder.mkdir(parents=True)
        best: dict[str, Any] = {"model": NETWORK, "weights": random_network().state_dict(), "epoch": epoch}
        replace_tensors(folder / run_files.CHECKPOINT, {"best_model": best, "epoch": epoch})
        journal.append("checkpoint", number, epoch=12, path=str(folder.relative_to(result.directory)))


def _write_training_run(folder: Path) -> None:
    """Write the folder of a run of one epoch, judged on the test set."""
    folder.mkdir()
    spec = resolve(RUN)
    (folder / CONFIG).write_text(spec.to_yaml())
    run = Run(spec, data.load(spec.data), folder, torch.device("cpu"))
    run.train_epoch()
    run.evaluate_on_test()
    (folder / environment.FILE).write_text(json.dumps(RECORD))
    training_page.write(run)


def _write_study(result: SearchResult, file: Path) -> None:
    """Write an Optuna study of two trials of the space of a search."""
    study = optuna.create_study(storage=f"sqlite:///{file}", direction="maximize")
    values = result.spec.start_from[0]
    distributions = {key: to_optuna_distribution(result.spec.space[key]) for key in values}
    for value in (0.5, 0.25):
        trial = optuna.trial.create_trial(
            value=value, params=values, distributions=distributions, intermediate_values={1: value}
        )
        study.add_trial(trial)
