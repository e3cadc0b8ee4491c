"""Best models of random weights, and their export bundles."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.confirmations import PLAN, write_quick_search
from tune_cure.confirmation.candidates import choose_candidates
from tune_cure.confirmation.plan import Job, plan_jobs
from tune_cure.evaluation.names import WITHOUT_AUTOATTACK
from tune_cure.evaluation.robustness import keep_trace_function
from tune_cure.models import networks
from tune_cure.reports import tables
from tune_cure.reports.export import bundle
from tune_cure.reports.export.bundle import ExportedModel
from tune_cure.reports.export.model_card import build_model_card
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.utils.files import replace_arrays, replace_tensors

NETWORK = {"name": "small_cnn", "width": 4, "num_classes": 10, "in_channels": 1, "mean": [0.3], "std": [0.4]}
IMAGE_FIELDS = {"classes": list("0123456789"), "image_size": [8, 8]}


def random_network(seed: int = 0, **sizes: Any) -> torch.nn.Module:
    """Return a network with random weights and statistics, in channels_last as a trainer leaves it."""
    torch.manual_seed(seed)
    made = networks.build(**{**NETWORK, **sizes}).to(memory_format=torch.channels_last)
    for buffer in made[1].buffers():
        buffer.copy_(torch.rand_like(buffer, dtype=torch.float32) * 10 + 0.5)
    return made.eval()


def write_search_with_model(folder: Path, *overrides: str) -> SearchResult:
    """Write a small search that has ended, its tables and its best model."""
    folder.mkdir(exist_ok=True)
    search = write_quick_search(folder, *overrides)
    tables.write_tables(search)
    write_best_model(search)
    return search


def write_best_model(result: SearchResult, **changes: Any) -> Path:
    """Write a file as `tables.write_best_model` does; the journals of tests name checkpoints that do not exist."""
    assert result.best
    content = {**IMAGE_FIELDS, "model": NETWORK, "weights": random_network().state_dict(), "trial": result.best.trial}
    file = result.directory / "best_model.pt"
    replace_tensors(file, {**content, "epoch": int(result.best.row["best_epoch"]), **changes})
    return file


def write_network_for_pictures(name: str, validation: int) -> Path:
    """Write a search on the class folders in `pictures`, which have no test set, and its best model."""
    data = ("data.dataset=image_folder", "data.root=pictures", f"data.validation={validation}", "rescore.top=0")
    result = write_search_with_model(Path(name), *data)
    sizes = {"num_classes": 2, "in_channels": 3, "mean": [0.3] * 3, "std": [0.4] * 3}
    model, classes = {**NETWORK, **sizes}, ["cat", "dog"]
    write_best_model(result, model=model, weights=random_network(**sizes).state_dict(), classes=classes)
    return result.directory


def plan_leader(result: SearchResult, *seeds: int, epsilons: tuple[float, ...] = (0.15,)) -> list[Job]:
    """Return the jobs that confirm the leader and plain FGSM with each seed."""
    plan = dataclasses.replace(PLAN, seeds=seeds, epsilons=epsilons)
    return plan_jobs(result, choose_candidates(result, 1, ["fgsm"]), plan)


def write_confirmed_runs(result: SearchResult, *seeds: int) -> list[Job]:
    """Write what the jobs of `plan_leader` leave when they finish, with random weights and outcomes."""
    jobs = plan_leader(result, *seeds)
    for job in jobs:
        job.folder.mkdir(parents=True)
        (job.folder / run_files.JOB_CONFIG).write_text(job.config.to_yaml())
        saved = {"model": NETWORK, "weights": random_network(job.seed).state_dict(), "epoch": 2, "train_seconds": 1.0}
        replace_tensors(job.folder / run_files.JOB_MODEL, {**IMAGE_FIELDS, **saved})
        for epsilon in job.plan.epsilons:
            random = np.random.default_rng(job.seed).random(job.plan.examples)
            withstood = dict.fromkeys(WITHOUT_AUTOATTACK, random < 0.5) | {"clean": random < 0.9}
            folder = job.outcome_folder(epsilon)
            folder.mkdir()
            replace_arrays(folder / run_files.OUTCOMES, {**withstood, "zero_gradient": 0.0, "seconds": 1.0})
    return jobs


def write_bundle(exported: ExportedModel, result: SearchResult, folder: Path) -> Path:
    """Write an export bundle with its model card, and return its folder."""
    bundle.write_bundle(exported, build_model_card(exported), result.directory, folder)
    return folder


def card_rows(card: str, attack: str) -> list[list[str]]:
    """Return the cells of a model card's table rows of an attack, without the first cell."""
    lines = [line for line in card.splitlines() if line.startswith(f"| {attack} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")][1:] for line in lines]


def run_card_code(folder: Path, number: int, monkeypatch: pytest.MonkeyPatch, **names: Any) -> dict[str, Any]:
    """Run the model card's first or second block of Python in the folder, and return its variables by name."""
    monkeypatch.syspath_prepend(folder)
    lines = (folder / "README.md").read_text().split("```python\n")[number].split("```")[0]
    try:
        with keep_trace_function():  # the lines may run AutoAttack, which would end a coverage run's
            exec(lines, names)
    finally:
        for name in ("load", "model"):
            del sys.modules[name]
    return names
