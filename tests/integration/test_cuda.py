"""What only a GPU can show: fp16 by default, the fused optimizer, data and checkpoints on the device."""

from pathlib import Path

import pytest
import torch

from tune_cure.data import splits as data
from tune_cure.models import checkpoints
from tune_cure.training.run import LAST, Run, RunSpec, resolve
from tune_cure.training.trainer import Trainer

pytestmark = pytest.mark.gpu

SECTIONS = {
    "data": {"dataset": "digits", "validation": 100, "train_examples": 256, "image_size": 16},
    "model": {"name": "preact_resnet10", "width": 8},
    "training": {"epochs": 4, "batch_size": 64, "epsilon": 0.1, "lr_schedule": "cyclic", "lambda": 0.02},
    "evaluation": {"epsilon": 0.1, "steps": 3, "examples": 100},
}


@pytest.fixture
def spec() -> RunSpec:
    return resolve(SECTIONS)


def run_in(folder: Path, spec: RunSpec) -> Run:
    folder.mkdir(exist_ok=True)
    return Run(spec, data.load(spec.data), folder, "cuda")


def test_mixed_precision_learns_about_as_well_as_float32(spec: RunSpec) -> None:
    splits = data.load(spec.data)
    reached = {}
    for amp in ("auto", "bf16", "off"):
        config = spec.training.model_copy(update={"amp": amp})
        run = Trainer(config, splits, model=spec.model, evaluation=spec.evaluation, device="cuda")
        for _ in range(4):
            metrics = run.train_epoch()
        assert not metrics["diverged"]
        reached[amp] = metrics["train_loss"]
    assert reached["auto"] == pytest.approx(reached["off"], rel=0.2)
    assert reached["bf16"] == pytest.approx(reached["off"], rel=0.2)


def test_a_run_is_saved_resumed_and_judged_on_the_test_set(spec: RunSpec, tmp_path: Path) -> None:
    run_in(tmp_path, spec).train_epoch()
    resumed = run_in(tmp_path, spec)
    resumed.restore()
    assert resumed.trainer.epoch == 1
    while not resumed.finished:
        resumed.train_epoch()
    assert resumed.evaluate_on_test()["examples"].tolist() == [359, 359]


def test_a_run_that_began_on_a_gpu_is_not_resumed_without_one(spec: RunSpec, tmp_path: Path) -> None:
    run_in(tmp_path, spec).train_epoch()
    assert (tmp_path / LAST).exists()
    with pytest.raises(ValueError, match="begun in float16 on cuda, and cannot go on in float32 on cpu"):
        Run(spec, data.load(spec.data), tmp_path, "cpu").restore()


def test_building_a_network_does_not_change_the_random_state_of_the_gpu(spec: RunSpec) -> None:
    before = torch.cuda.get_rng_state()
    Trainer(spec.training, data.load(spec.data), model=spec.model, device="cuda", seed=3)
    assert torch.equal(before, torch.cuda.get_rng_state())


def test_a_rebuilt_network_has_the_memory_format_of_training(spec: RunSpec, tmp_path: Path) -> None:
    run = run_in(tmp_path, spec)
    run.train_epoch()
    network = checkpoints.rebuild(run.trainer.best_model(), device="cuda")
    kernels = [weight for weight in network.parameters() if weight.dim() == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) and weight.is_cuda for weight in kernels)
