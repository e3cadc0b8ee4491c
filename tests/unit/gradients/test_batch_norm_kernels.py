"""Batch norm's second derivatives as Triton kernels, run by Triton's interpreter on the CPU, and when they are used."""

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tune_cure.gradients import batch_norm, batch_norm_kernels
from tune_cure.gradients.batch_norm_formulas import Normalization, per_channel
from tune_cure.gradients.batch_norm_kernels import SecondDerivatives, find_kernels, largest_error, tried_kernels
from tune_cure.models import networks
from tune_cure.regularizers.cure import cure_penalty

EPS = 1e-5
MODULE = "tune_cure.gradients.batch_norm_triton"
CPU = torch.device("cpu")


@pytest.fixture
def triton_module() -> ModuleType:
    """The kernels' module, as the interpreter runs it."""
    triton = pytest.importorskip("triton")
    if not triton.knobs.runtime.interpret:
        pytest.skip("Triton compiles kernels where a GPU is")
    return importlib.import_module(MODULE)


@pytest.fixture
def kernels(triton_module: ModuleType) -> SecondDerivatives:
    return triton_module.second_derivatives


@pytest.fixture(autouse=True)
def _untried() -> Iterator[None]:
    tried_kernels.cache_clear()
    yield
    tried_kernels.cache_clear()


def random(*shape: int, seed: int) -> Tensor:
    """Numbers that are exact in fp16, in float64 and channels_last."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).half().double()
    return values.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else values


def inputs(*shape: int, spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Direction, `grad_output`, images and weight, in float64."""
    images = (spread * random(*shape, seed=0)).half().double()
    return random(*shape, seed=2), random(*shape, seed=1), images, random(shape[1], seed=3)


def by_torch(direction: Tensor, grad_output: Tensor, images: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """The derivatives to `grad_output`, images and weight by PyTorch's own second derivative of batch norm."""
    variables = [tensor.clone().requires_grad_() for tensor in (grad_output, images, weight)]
    result = F.batch_norm(variables[1], None, None, variables[2], torch.zeros_like(weight), True, 0.0, EPS)
    (first,) = torch.autograd.grad(result, variables[1], variables[0], create_graph=True)
    return torch.autograd.grad(first, variables, direction)


def by_kernels(
    kernels: SecondDerivatives, direction: Tensor, grad_output: Tensor, images: Tensor, weight: Tensor
) -> tuple[Tensor, ...]:
    """The same by the kernels, with the statistics and sums that a first backward pass leaves."""
    wide = images.to(weight.dtype)
    mean, inverse_std = wide.mean((0, 2, 3)), (wide.var((0, 2, 3), correction=0) + EPS).rsqrt()
    normalized = (wide - per_channel(mean)) * per_channel(inverse_std)
    sum_b, sum_s = (grad_output * normalized).sum((0, 2, 3)), grad_output.to(weight.dtype).sum((0, 2, 3))
    return kernels(direction, grad_output, Normalization(images, weight, mean, inverse_std), sum_b, sum_s)


@pytest.mark.parametrize(
    "shape",
    [(3, 5, 7, 6), (4, 40, 9, 7), (3, 5, 20, 20), (2, 1, 5, 5), (5, 130, 1, 1)],
    ids=["a block", "many rows", "few channels", "one channel", "blocks of channels"],
)
def test_kernels_give_the_second_derivatives_of_torchs_batch_norm(
    kernels: SecondDerivatives, shape: tuple[int, ...]
) -> None:
    values = inputs(*shape)
    for ours, theirs in zip(by_kernels(kernels, *values), by_torch(*values), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("spread", [1.0, 1e-2], ids=["usual", "hardly varying"])
def test_kernels_in_fp16_are_those_in_float64_but_for_the_rounding_of_their_values(
    kernels: SecondDerivatives, spread: float
) -> None:
    """With the smaller spread r³ is 10⁶, beyond the largest number of fp16."""
    values = inputs(4, 40, 9, 7, spread=spread)
    narrow = [*(tensor.half() for tensor in values[:3]), values[3].float()]
    found = by_kernels(kernels, *narrow)
    assert [tensor.dtype for tensor in found] == [torch.float16, torch.float16, torch.float32]
    for ours, exact in zip(found, by_torch(*values), strict=True):
        assert (ours.double() - exact).norm() < 5e-4 * exact.norm()


def test_sums_that_several_blocks_of_rows_share_are_the_same(
    triton_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = inputs(4, 40, 9, 7)
    one_each = by_kernels(triton_module.second_derivatives, *values)
    monkeypatch.setattr(triton_module, "SUMMING_PROGRAMS", 3)
    for several, one in zip(by_kernels(triton_module.second_derivatives, *values), one_each, strict=True):
        torch.testing.assert_close(several, one, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", [(512, 64, 64, 64), (42, 64, 224, 224), (2048, 512, 32, 32)])
def test_no_more_blocks_are_launched_on_an_axis_than_cuda_allows(
    triton_module: ModuleType, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    grids: list[tuple[int, ...]] = []

    class Launched:
        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            grids.append(grid)
            return lambda *_, **__: None

    for name in ("_sum_kernel", "_derivatives_kernel"):
        monkeypatch.setattr(triton_module, name, Launched())
    images, channels = torch.empty(shape, device="meta"), torch.empty(shape[1], device="meta")
    norm = Normalization(images, channels, channels, channels)
    triton_module.second_derivatives(images, images, norm, channels, channels)
    assert len(grids) == 2
    assert all(grid[0] < 2**31 and max(grid[1:]) <= 65_535 for grid in grids)


def test_derivatives_are_in_channels_last_and_directions_may_be_in_any_format(kernels: SecondDerivatives) -> None:
    direction, grad_output, images, weight = inputs(3, 5, 7, 6)
    plain = direction.contiguous(), grad_output.contiguous()
    found = by_kernels(kernels, *plain, images, weight)
    for ours, same in zip(found, by_kernels(kernels, direction, grad_output, images, weight), strict=True):
        torch.testing.assert_close(ours, same, rtol=1e-11, atol=1e-11)
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in found[:2])


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_the_parameter_gradient_of_a_penalty_is_the_same_with_and_without_kernels(
    kernels: SecondDerivatives, statistics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counted(*values: Tensor | Normalization) -> tuple[Tensor, Tensor, Tensor]:
        calls.append(1)
        return kernels(*values)  # type: ignore[arg-type]

    gradients = []
    for found in (None, counted):
        monkeypatch.setattr(batch_norm, "find_kernels", lambda images, found=found: found)
        torch.manual_seed(0)
        network = networks.build("preact_resnet10", num_classes=10, in_channels=3, width=2).double()
        network.to(memory_format=torch.channels_last)
        images = random(4, 3, 16, 16, seed=4).sigmoid()
        penalty = cure_penalty(network, images, torch.arange(4), 1.5, statistics=statistics)
        gradients.append(torch.autograd.grad(penalty.sum(), list(network.parameters()), allow_unused=True))
    assert bool(calls) == (statistics == "batch")
    for without, with_kernels in zip(*gradients, strict=True):
        assert (without is None) == (with_kernels is None)
        if without is not None:
            torch.testing.assert_close(with_kernels, without, rtol=1e-9, atol=1e-10)


def test_kernels_that_are_right_are_used(triton_module: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert tried_kernels(CPU) is triton_module.second_derivatives
    assert not caplog.records


def test_images_on_the_cpu_need_no_kernels() -> None:
    assert find_kernels(random(2, 3, 4, 4, seed=0)) is None


def refused(caplog: pytest.LogCaptureFixture) -> str:
    """The one warning of two tries, after which no kernels are used."""
    with caplog.at_level(logging.WARNING):
        assert [tried_kernels(CPU), tried_kernels(CPU)] == [None, None]
    (record,) = caplog.records
    return record.getMessage()


def test_without_triton_there_are_no_kernels_and_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    assert refused(caplog).startswith(
        "batch norm's second derivative goes without Triton, and is slower: import of triton"
    )


def test_kernels_that_fail_are_not_used(
    triton_module: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler.\nmore")

    monkeypatch.setattr(triton_module, "second_derivatives", fail)
    assert refused(caplog).endswith("is slower: Failed to find C compiler.")


@pytest.mark.parametrize(("factor", "said"), [(1.01, "0.01"), (float("nan"), "nan")])
@pytest.mark.parametrize("which", range(3))
def test_kernels_with_a_wrong_derivative_are_not_used(
    triton_module: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    which: int,
    factor: float,
    said: str,
) -> None:
    right = triton_module.second_derivatives

    def wrong(*values: object) -> list[Tensor]:
        return [factor * value if index == which else value for index, value in enumerate(right(*values))]

    monkeypatch.setattr(triton_module, "second_derivatives", wrong)
    assert f"its results are wrong on this GPU (relative error {said})" in refused(caplog)


def test_the_error_of_right_kernels_is_that_of_rounding_to_fp16(kernels: SecondDerivatives) -> None:
    assert largest_error(kernels, CPU) < batch_norm_kernels.MOST_ERROR / 4
