"""Mixed precision on a network of ten layers: forward passes under autocast, gradients of a scaled loss."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tune_cure.data import splits as data
from tune_cure.data.batches import to_float
from tune_cure.data.config import DataSpec
from tune_cure.gradients.batch_norm_mode import BATCH_NORMS, STATISTICS, batch_statistics
from tune_cure.gradients.double_backward import cheap_second_derivatives
from tune_cure.gradients.input_gradients import input_gradient
from tune_cure.gradients.mixed_precision import (
    INPUT_LOSS_SCALE,
    Autocast,
    RunningStatistics,
    add_gradients,
    copy_all,
    full_float32,
    low_precision,
    precision_name,
    training_float32,
    weights_of_products,
)
from tune_cure.models.networks import StridedPointwise
from tune_cure.regularizers.cure import cure_penalty
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.loss_terms import DROPOUTS
from tune_cure.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained() -> Trainer:
    """A network of ten layers after a short training without attack, which leaves it sure of most images."""
    splits = data.load(DataSpec(dataset="digits", validation=128, train_examples=512, image_size=16))
    config = {"epochs": 4, "batch_size": 64, "attack": "none", "lambda": 0, "lr_schedule": "cyclic"}
    run = Trainer(TrainingConfig.model_validate(config), splits, model=ModelConfig(name="preact_resnet10", width=8))
    for _ in range(4):
        run.train_epoch()
    run.model.eval()
    return run


@pytest.fixture(scope="module")
def ten_layers(trained: Trainer) -> nn.Module:
    return trained.model


@pytest.fixture(scope="module")
def batch(trained: Trainer) -> tuple[Tensor, Tensor]:
    """128 validation images with the classes that the network gives them: small loss gradients."""
    pixels, _ = trained.splits.validation.gather(torch.arange(128))
    images = to_float(pixels)
    return images, trained.model(images).argmax(dim=1)


def penalty_and_gradient(
    model: nn.Module, batch: tuple[Tensor, Tensor], statistics: str, dtype: torch.dtype | None
) -> list[Tensor]:
    network, loss_scale = low_precision(model, CPU, dtype)
    h = 8 / 255 * batch[0][0].numel() ** 0.5
    values = cure_penalty(network, *batch, h, statistics=statistics, loss_scale=loss_scale)
    scale = 2.0**16 if dtype == torch.float16 else 1.0  # where a GradScaler starts
    slopes = torch.autograd.grad(scale * values.mean(), list(model.parameters()))
    return [values.detach(), torch.cat([slope.flatten() for slope in slopes]) / scale]


@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 0.1), (torch.bfloat16, 0.2)], ids=["fp16", "bf16"])
def test_penalty_and_parameter_gradient_are_close_to_float32(
    dtype: torch.dtype, limit: float, statistics: str, ten_layers: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    exact, approximate = (penalty_and_gradient(ten_layers, batch, statistics, kind) for kind in (None, dtype))
    for ours, theirs in zip(approximate, exact, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < limit * theirs.norm()


@pytest.mark.parametrize("on_a_gpu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_a_channel_that_hardly_varies_does_not_overflow_the_penalty_by_batch_statistics(
    dtype: torch.dtype, on_a_gpu: bool, request: pytest.FixtureRequest
) -> None:
    if on_a_gpu:
        request.getfixturevalue("as_on_a_gpu")
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    with torch.no_grad():
        model[0].weight.mul_(1e-4)
    images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    network, loss_scale = low_precision(model, CPU, dtype)
    labels = torch.zeros(8, dtype=torch.long)
    values = cure_penalty(network, images, labels, 1.0, statistics="batch", loss_scale=loss_scale)
    slopes = torch.autograd.grad(values.mean(), list(model.parameters()))
    assert all(slope.isfinite().all() for slope in slopes)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_batch_norms_that_are_not_of_images_are_computed_in_float32_on_a_gpu_too() -> None:
    """They are torch's own, whose second derivative overflows fp16."""
    seen = []
    layers = [nn.BatchNorm1d(3), nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3)]
    for layer in layers:
        layer.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].dtype))
    with batch_statistics(nn.Sequential(*layers)), cheap_second_derivatives():
        layers[0](torch.randn(4, 3).half())
        for layer in layers[1:]:
            layer(torch.randn(4, 3, 2, 2).half())
    assert seen == [torch.float32, torch.float32, torch.float16]


@pytest.mark.parametrize("has_foreach", [True, False])
def test_gradients_are_added_even_by_a_torch_without_foreach_add(
    has_foreach: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_foreach:
        monkeypatch.delattr(torch, "_foreach_add_")
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(4)]
    parameters[0].grad, parameters[1].grad = torch.ones(2), torch.ones(2)
    add_gradients(parameters, [torch.full((2,), 3.0), None, torch.full((2,), 5.0), None])
    assert [None if parameter.grad is None else parameter.grad[0].item() for parameter in parameters] == [4, 1, 5, None]


class _Convolutions(nn.Module):
    """Two convolutions, one of which does with its weight what it likes, a batch norm and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.own = nn.Conv2d(1, 4, 3), StridedPointwise(4, 4, 2)
        self.norm, self.last = nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(self.norm(self.own(self.first(images))).mean((2, 3)))
        return logits


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_weights_converted_together_give_the_numbers_of_weights_converted_one_by_one(dtype: torch.dtype) -> None:
    model, images = _Convolutions(), torch.rand(4, 1, 8, 8)
    results = []
    for together in (True, False):
        network = Autocast(model, "cpu", dtype)
        network.converted = weights_of_products(model) if together else {}
        logits = network(images)
        results.append([logits, *torch.autograd.grad(logits.square().sum(), list(model.parameters()))])
    assert list(weights_of_products(model)) == ["first.weight", "first.bias", "last.weight", "last.bias"]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))
    assert model.first.weight.dtype == torch.float32


def test_scaled_fp16_input_gradients_survive_where_unscaled_ones_vanish(
    ten_layers: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    """With logits three times as large, an unscaled mean loss under autocast loses half of the images altogether."""
    images, labels = batch
    sure = _Surer(ten_layers).eval()
    exact = input_gradient(sure, images, labels)
    points = images.clone().requires_grad_()
    with torch.autocast("cpu", torch.float16):
        loss = F.cross_entropy(sure(points), labels)
    (naive,) = torch.autograd.grad(loss, points)
    network, loss_scale = low_precision(sure, CPU, torch.float16)
    ours = input_gradient(network, images, labels, loss_scale=loss_scale)
    lost = {name: (of == 0).all(dim=(1, 2, 3)).float().mean() for name, of in (("naive", naive), ("ours", ours))}
    assert not (exact == 0).all(dim=(1, 2, 3)).any()
    assert lost["naive"] > 0.4
    assert lost["ours"] < 0.02
    errors = (ours - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert errors.median() < 0.05


class _Surer(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = 3.0 * self.model(images)
        return logits


def test_only_fp16_needs_a_loss_scale_and_float32_runs_as_it_is(ten_layers: nn.Module) -> None:
    assert low_precision(ten_layers, CPU, None) == (ten_layers, 1.0)
    assert low_precision(ten_layers, CPU, torch.bfloat16)[1] == 1.0
    assert low_precision(ten_layers, CPU, torch.float16)[1] == INPUT_LOSS_SCALE


def test_running_averages_are_restored_after_a_step_that_overflowed_and_kept_after_a_finite_one() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1), nn.BatchNorm2d(1))
    statistics = RunningStatistics(model)
    before = statistics.copy()
    model[0].running_mean.fill_(torch.inf)
    model[2].running_var.fill_(3.0)
    statistics.restore_unless(torch.tensor(True), before)
    assert model[0].running_mean.isinf().all()
    statistics.restore_unless(torch.tensor(False), before)
    assert model[0].running_mean.tolist() == [0.0, 0.0]
    assert model[2].running_var.tolist() == [1.0]


@pytest.mark.parametrize("has_foreach", [True, False])
def test_all_tensors_are_copied_even_by_a_torch_without_foreach_copy(
    has_foreach: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_foreach:
        monkeypatch.delattr(torch, "_foreach_copy_")
    targets, sources = [torch.zeros(2), torch.zeros(3, 1)], [torch.ones(2), torch.full((3, 1), 2.0)]
    copy_all(targets, sources)
    assert all(torch.equal(target, source) for target, source in zip(targets, sources, strict=True))


def test_every_batch_norm_and_every_dropout_of_torch_is_recognized() -> None:
    """The names that torch marks as private are asked here alone: a layer that torch adds fails this test."""
    for layers, base, exempt in (
        (BATCH_NORMS, "_BatchNorm", "Lazy"),  # a lazy layer turns into one of the others at its first batch
        (DROPOUTS, "_DropoutNd", ""),
    ):
        module = nn.modules.batchnorm if base == "_BatchNorm" else nn.modules.dropout
        kinds = [kind for kind in vars(nn).values() if isinstance(kind, type) and issubclass(kind, vars(module)[base])]
        assert set(layers) == {kind for kind in kinds if not (exempt and kind.__name__.startswith(exempt))}


def precisions() -> list[str]:
    backends = torch.backends
    return [
        backends.cuda.matmul.fp32_precision,
        backends.cudnn.conv.fp32_precision,
        backends.mkldnn.conv.fp32_precision,
    ]


@pytest.mark.parametrize(("mode", "cuda"), [("off", "ieee"), ("tf32", "tf32")])
def test_without_autocast_the_setting_decides_how_cuda_computes_float32(mode: str, cuda: str) -> None:
    before = precisions()
    with training_float32(mode, torch.device("cuda")):
        assert precisions() == [cuda, cuda, "ieee"]
        with full_float32():  # an evaluation between two epochs
            assert precisions() == ["ieee"] * 3
        assert precisions() == [cuda, cuda, "ieee"]
    assert precisions() == before


@pytest.mark.parametrize(("mode", "device"), [("fp16", "cuda"), ("bf16", "cuda"), ("off", "cpu"), ("tf32", "cpu")])
def test_elsewhere_float32_is_left_as_the_process_is_set(mode: str, device: str) -> None:
    before = precisions()
    with training_float32(mode, torch.device(device)):
        assert precisions() == before


@pytest.mark.parametrize(
    ("mode", "device", "name"),
    [
        ("auto", "cuda", "float16 on cuda"),
        ("bf16", "cuda", "bfloat16 on cuda"),
        ("tf32", "cuda", "tf32 on cuda"),
        ("off", "cuda", "float32 on cuda"),
        ("auto", "cpu", "float32 on cpu"),
        ("tf32", "cpu", "float32 on cpu"),
    ],
)
def test_the_precision_of_a_training_has_a_name(mode: str, device: str, name: str) -> None:
    assert precision_name(mode, torch.device(device)) == name
