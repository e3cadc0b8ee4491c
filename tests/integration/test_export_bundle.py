import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.support.exported_models import (
    IMAGE_FIELDS,
    NETWORK,
    card_rows,
    plan_leader,
    random_network,
    write_best_model,
    write_bundle,
    write_search_with_model,
)
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.models import checkpoints
from tune_cure.ray_backend import confirmation as confirmation_jobs
from tune_cure.reports.export import bundle
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult


@pytest.fixture
def result(tmp_path: Path) -> SearchResult:
    return write_search_with_model(tmp_path)


ONLY_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"tune_cure", "ray", "optuna", "pandas", "yaml", "pydantic", "safetensors", "PIL"}:
            raise ImportError(f"{name} is not to be had here")

sys.meta_path.insert(0, Blocked())
sys.path[:] = [sys.argv[1], *(path for path in sys.path if "site-packages" in path or "python3" in path)]
import torch

torch.set_num_threads(1)
from load import model

images = torch.rand(5, *map(int, sys.argv[3:]), generator=torch.Generator().manual_seed(0))
torch.save(model(images), sys.argv[2])
"""


def logits_elsewhere(folder: Path, *shape: int) -> torch.Tensor:
    """Return the logits of load.py in a process that can import torch, but nothing of this project."""
    out = folder.parent / f"{folder.name}.pt"
    command = [sys.executable, "-I", "-c", ONLY_TORCH, str(folder), str(out), *map(str, shape)]
    subprocess.run(command, check=True, cwd="/")
    logits: torch.Tensor = torch.load(out)
    return logits


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ({}, (1, 8, 8)),
        ({"name": "small_cnn", "width": None}, (1, 9, 7)),
        ({"name": "preact_resnet10", "in_channels": 3, "mean": None, "std": None}, (3, 32, 32)),
    ],
)
def test_load_py_gives_the_same_logits_to_the_last_bit_where_only_torch_is_installed(
    sizes: dict[str, Any], shape: tuple[int, ...], result: SearchResult, tmp_path: Path
) -> None:
    file = write_best_model(result, model=NETWORK | sizes, weights=random_network(**sizes).state_dict())
    folder = write_bundle(bundle.collect_search_model(result), result, tmp_path / "out")
    images = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(logits_elsewhere(folder, *shape), checkpoints.load(file)(images))


def test_load_py_as_a_script_shows_logits_for_random_images(result: SearchResult, tmp_path: Path) -> None:
    folder = write_bundle(bundle.collect_search_model(result), result, tmp_path / "out")
    shown = subprocess.run([sys.executable, folder / "load.py"], check=True, capture_output=True, text=True).stdout
    assert shown.startswith("tensor([[")
    assert len(bundle.LOAD_CODE.split('"""')[2].strip().splitlines()) < 25


def test_a_confirmed_network_has_the_weights_of_its_seed_and_the_numbers_of_confirm_csv(
    result: SearchResult, tmp_path: Path
) -> None:
    jobs = plan_leader(result, 1, 2, epsilons=(0.15, 0.05))
    for job in jobs:
        confirmation_jobs.work(job)
    confirmation = Confirmation(jobs)
    for job in jobs:
        exported = bundle.collect_confirmed_model(result, job.candidate.name, job.seed)
        folder = write_bundle(exported, result, tmp_path / f"{job.candidate.name}-{job.seed}")
        trained = torch.load(job.folder / run_files.JOB_MODEL, weights_only=True)
        weights = load_file(folder / "model.safetensors")
        assert all(torch.equal(weights[name], tensor) for name, tensor in trained["weights"].items())

        table = confirmation.table[
            (confirmation.table["contender"] == job.candidate.name) & (confirmation.table["seed"] == job.seed)
        ]
        means = confirmation.means()[confirmation.means()["contender"] == job.candidate.name]
        card = (folder / "README.md").read_text()
        for attack, name in {"clean": "clean", "FGSM": "fgsm", "PGD-10": "pgd_10", "PGD-50-10": "pgd_50_10"}.items():
            shown = card_rows(card, attack)
            assert [cells[1] for cells in shown] == ["30 test", "30 test"]
            assert [cells[2].split(" ± ")[0] for cells in shown] == [f"{100 * share:.2f}" for share in table[name]]
            assert [cells[3] for cells in shown] == [
                f"{100 * mean:.2f} ± {100 * sd:.2f}" for mean, sd in zip(means[name], means[f"{name}_sd"], strict=True)
            ]
        settings = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
        assert settings == job.candidate.config.model_dump(mode="json", by_alias=True)
        content = json.loads((folder / "config.json").read_text())
        assert content["classes"] == IMAGE_FIELDS["classes"]
        assert content["image_size"] == IMAGE_FIELDS["image_size"]
