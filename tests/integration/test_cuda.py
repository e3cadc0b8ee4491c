"""What only a GPU can show: fp16 by default, the fused optimizer, data and checkpoints on the device."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.spaces import tiny
from tune_cure.data import splits as data
from tune_cure.gradients.batch_norm_formulas import Normalization, by_formula, per_channel
from tune_cure.gradients.batch_norm_kernels import tried_kernels
from tune_cure.models import checkpoints
from tune_cure.ray_backend.gpus.memory import measure
from tune_cure.training.cuda_graphs import graphed_step
from tune_cure.training.run import LAST, Run, RunSpec, resolve
from tune_cure.training.trainer import Trainer

pytestmark = pytest.mark.gpu

SECTIONS = {
    "data": {"dataset": "digits", "validation": 100, "train_examples": 256, "image_size": 16},
    "model": {"name": "preact_resnet10", "width": 8},
    "training": {"epochs": 4, "batch_size": 64, "epsilon": 0.1, "lr_schedule": "cyclic", "lambda": 0.02},
    "evaluation": {"epsilon": 0.1, "steps": 3, "examples": 100},
}


IS_SIMULATED = "simcuda" in sys.modules  # on a simulated GPU numbers mean nothing


@pytest.fixture(autouse=True)
def no_comparison_of_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    if IS_SIMULATED:
        monkeypatch.setattr(graphed_step, "compare", lambda *args: None)


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


@pytest.mark.skipif(IS_SIMULATED, reason="the kernels' results are garbage, so they are not used")
def test_batch_norms_second_derivatives_are_triton_kernels_that_give_the_same_again() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    kernels = tried_kernels(device)
    assert kernels is not None
    images, grad_output, direction = (
        torch.randn(128, 64, 32, 32, device=device).half().contiguous(memory_format=torch.channels_last)
        for _ in range(3)
    )
    mean, inverse_std = images.float().mean((0, 2, 3)), images.float().std((0, 2, 3)).reciprocal()
    normalized = (images.float() - per_channel(mean)) * per_channel(inverse_std)
    sums = [(grad_output * normalized).sum((0, 2, 3)), grad_output.float().sum((0, 2, 3))]
    norm = Normalization(images, torch.randn(64, device=device), mean, inverse_std)
    one, again = (kernels(direction, grad_output, norm, *sums) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(one, again, strict=True))
    wide = norm._replace(images=images.double(), weight=norm.weight.double())
    sums_v = [(direction * normalized).sum((0, 2, 3)), direction.float().sum((0, 2, 3))]
    exact = by_formula(direction.double(), grad_output.double(), wide, sums, sums_v)
    for ours, theirs in zip(one[1:], exact, strict=True):
        assert (ours.double() - theirs).norm() < 2e-3 * theirs.norm()


def trainer(spec: RunSpec, **hyperparameters: Any) -> Trainer:
    config = spec.training.model_copy(update=hyperparameters)
    return Trainer(config, data.load(spec.data), model=spec.model, evaluation=spec.evaluation, device="cuda")


def movement(run: Trainer, start: list[Tensor]) -> Tensor:
    return torch.cat([(now - old).flatten() for now, old in zip(run.model.parameters(), start, strict=True)]).detach()


@pytest.mark.parametrize(
    "hyperparameters",
    [
        {},
        {"penalty_every": 2},
        {"init": "previous"},
        {"optimizer": "adam", "lr_max": 0.001},
        {"gradient_clip": 1.0},
        {"averaging": "ema"},
        {"attack": "none", "amp": "off"},
        {"init": "zero", "attack_statistics": "batch", "direction": "fgsm", "penalty_two_sided": False},
        {"regularizer": "elle_a"},
    ],
    ids=str,
)
def test_steps_are_replayed_as_cuda_graphs_with_the_results_of_steps_that_are_not(
    hyperparameters: dict[str, Any], spec: RunSpec, caplog: pytest.LogCaptureFixture
) -> None:
    graphed, plain = (trainer(spec, **hyperparameters) for _ in range(2))
    plain.graphed_step = None
    start = [parameter.detach().clone() for parameter in plain.model.parameters()]
    metrics = [(graphed.train_epoch(), plain.train_epoch()) for _ in range(3)][-1]
    assert graphed.graphed_step is not None
    assert graphed.graphed_step.obstacle == ""
    assert graphed.graphed_step.num_replays > 0
    assert caplog.text == ""
    for of_run in metrics:
        assert (of_run["penalty_seconds"] > 0) == (not of_run["diverged"])
    if not IS_SIMULATED:
        moved, expected = movement(graphed, start), movement(plain, start)
        assert (moved - expected).norm() < 0.2 * expected.norm()


def test_a_resumed_run_records_its_steps_anew(spec: RunSpec, tmp_path: Path) -> None:
    run_in(tmp_path, spec).train_epoch()
    resumed = run_in(tmp_path, spec)
    resumed.restore()
    resumed.train_epoch()
    assert resumed.trainer.graphed_step is not None
    assert resumed.trainer.graphed_step.num_replays > 0
    assert all(isinstance(group["lr"], Tensor) for group in resumed.trainer.optimizer.param_groups)


def test_a_step_that_waits_for_the_gpu_is_not_recorded_and_training_goes_on(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = trainer(spec)
    loss = run.terms.unpenalized_loss

    def waiting(*args: Any) -> Tensor:
        value = loss(*args)
        value.item()
        return value

    monkeypatch.setattr(run.terms, "unpenalized_loss", waiting)
    metrics = [run.train_epoch() for _ in range(2)]
    assert run.graphed_step is not None
    assert run.graphed_step.obstacle
    assert run.graphed_step.num_replays == 0
    assert caplog.text.count("training goes without CUDA graphs") == 1
    assert not metrics[-1]["diverged"]
    assert run.evaluate()["pgd_accuracy"] is not None


def test_a_trial_of_digits_takes_a_small_part_of_a_gpu(tmp_path: Path) -> None:
    space = "space={batch_size: {int: [32, 128]}, regularizer: {choice: [cure, gradalign]}}"
    measured, config = measure(tiny(tmp_path, "start_from=[]", "training={epochs: 4}", space))
    assert 0 < measured.trial < measured.total / 2
    assert measured.hyperparameters["batch_size"] == config.batch_size == 128


def test_the_process_that_drives_a_search_starts_no_cuda() -> None:
    script = """
import torch
from tune_cure.ray_backend.resources import this_machine
from tune_cure.utils import environment
assert len(environment.describe("digits")["gpus"]) == this_machine().gpus > 0
assert not torch.cuda.is_initialized()
"""
    subprocess.run([sys.executable, "-c", script], check=True)
