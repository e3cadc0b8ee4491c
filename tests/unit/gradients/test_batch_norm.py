"""What batch norm computes on a GPU, checked on the CPU: fewer launches, and gradients in the images' memory format."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tune_cure.gradients import batch_norm
from tune_cure.gradients.backward_scope import input_gradients_only
from tune_cure.gradients.batch_norm import frozen_batch_norm
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.gradients.double_backward import cheap_first_derivatives, cheap_second_derivatives
from tune_cure.gradients.input_gradients import logits_and_input_gradient
from tune_cure.models import networks

EPS = 1e-5


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def arguments(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Images, weight, bias, running mean and running variance."""
    images = (2 * random(3, 4, 3, 2, dtype=dtype) + 1).to(memory_format=torch.channels_last).requires_grad_()
    weight, bias = (random(4, seed=seed, dtype=dtype).requires_grad_() for seed in (1, 2))
    return [images, weight, bias, random(4, seed=3, dtype=dtype), random(4, seed=4, dtype=dtype).square() + 0.1]


def as_torch_does(images: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    return F.batch_norm(images, mean, var, weight, bias, False, 0.0, EPS)


def test_frozen_batch_norm_has_the_derivatives_of_finite_differences_and_again() -> None:
    *differentiated, mean, var = arguments()

    def normalized(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return frozen_batch_norm(images, weight, bias, mean, var, EPS)

    assert torch.autograd.gradcheck(normalized, differentiated)
    assert torch.autograd.gradgradcheck(normalized, differentiated)


def test_frozen_batch_norm_has_the_values_and_derivatives_of_torchs_batch_norm() -> None:
    values = arguments()
    results = []
    for function in (lambda *tensors: frozen_batch_norm(*tensors, EPS), as_torch_does):
        result = function(*values)
        first = torch.autograd.grad(result, values[:3], random(3, 4, 3, 2, seed=5), create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), values[1])
        results.append([result, *first, *second])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


def test_frozen_batch_norm_differs_from_torchs_by_rounding_alone() -> None:
    """The output is torch's. The gradient is not, bit for bit: on the CPU torch takes 1/std in float64."""
    values = arguments(torch.float32)
    ours, theirs = frozen_batch_norm(*values, EPS), as_torch_does(*values)
    assert torch.equal(ours, theirs)
    grad_output = random(3, 4, 3, 2, seed=5, dtype=torch.float32)
    ours, theirs = (torch.autograd.grad(result, values[0], grad_output)[0] for result in (ours, theirs))
    torch.testing.assert_close(ours, theirs, rtol=3 * torch.finfo(torch.float32).eps, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_gradients_of_frozen_batch_norm_stay_in_channels_last(dtype: torch.dtype) -> None:
    images, *others = arguments(torch.float32)
    images = images.detach().to(dtype).requires_grad_()
    grad_output = random(3, 4, 3, 2).to(dtype).to(memory_format=torch.channels_last).requires_grad_()
    (first,) = torch.autograd.grad(frozen_batch_norm(images, *others, EPS), images, grad_output, create_graph=True)
    (second,) = torch.autograd.grad(first, grad_output, torch.ones_like(first))
    for gradient in (first, second):
        assert gradient.dtype == dtype
        assert gradient.is_contiguous(memory_format=torch.channels_last)
        assert not gradient.is_contiguous()


def test_no_weight_gradient_is_computed_where_only_those_of_images_are_asked_for() -> None:
    values = arguments()
    result = frozen_batch_norm(*values, EPS)
    with input_gradients_only():
        result.sum().backward()
    assert values[0].grad is not None
    assert values[1].grad is None
    assert values[2].grad is None


def test_on_the_cpu_attacks_use_torchs_own_operators() -> None:
    with cheap_first_derivatives(torch.zeros(1, 1, 1, 1)):
        images = random(2, 4, 3, 2).requires_grad_()
        result = nn.BatchNorm2d(4).double().eval()(images)
    assert type(result.grad_fn).__name__ == "NativeBatchNormBackward0"


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("statistics", STATISTICS)
def test_on_a_gpu_attacks_use_frozen_batch_norm_with_running_statistics(statistics: str) -> None:
    layer, images = nn.BatchNorm2d(4).double(), random(2, 4, 3, 2).requires_grad_()
    with STATISTICS[statistics](layer), cheap_first_derivatives(images):
        result = layer(images)
    assert (type(result.grad_fn).__name__ == "_FrozenBatchNormBackward") == (statistics == "running")


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("statistics", STATISTICS)
def test_on_a_gpu_input_gradients_are_those_of_torch(statistics: str) -> None:
    network = networks.build("preact_resnet10", num_classes=10, in_channels=3, width=4).double()
    images, labels = random(6, 3, 16, 16).sigmoid(), torch.arange(6)
    with STATISTICS[statistics](network):
        logits, gradient = logits_and_input_gradient(network, images, labels)
        images.requires_grad_()
        theirs = network(images)
    (expected,) = torch.autograd.grad(F.cross_entropy(theirs, labels, reduction="sum"), images)
    torch.testing.assert_close(logits, theirs)
    torch.testing.assert_close(gradient, expected)


def second_derivatives(dtype: torch.dtype, spread: float) -> list[Tensor]:
    """Of batch norm's image gradient: to grad_output, images and weight, in float64.

    Args:
        dtype: Of images, `grad_output` and `direction`; the weight is float32 beside fp16 and bf16.
        spread: Standard deviation of the images.
    """
    images, grad_output, direction = (random(8, 4, 6, 6, seed=seed).half() for seed in range(3))
    images = (images.double() * spread).half()  # all three are exact in every data type
    images, grad_output, direction = (tensor.to(dtype).requires_grad_() for tensor in (images, grad_output, direction))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    weight, bias = (random(4, seed=seed).float().to(wide).requires_grad_() for seed in (3, 4))
    with cheap_second_derivatives():
        result = F.batch_norm(images, None, None, weight, bias, training=True, momentum=0.1, eps=EPS)
    with input_gradients_only():
        (first,) = torch.autograd.grad(result, images, grad_output, create_graph=True)
    inputs = [grad_output, images, weight]
    return [gradient.double() for gradient in torch.autograd.grad(first, inputs, direction)]


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("spread", [1.0, 1e-2], ids=["usual", "hardly varying"])
def test_second_derivatives_in_fp16_are_those_of_float64_but_for_the_rounding_of_their_values(spread: float) -> None:
    """With the smaller spread r³ is 10⁶, beyond the largest number of fp16."""
    for ours, exact in zip(
        *(second_derivatives(dtype, spread) for dtype in (torch.float16, torch.float64)), strict=True
    ):
        assert ours.isfinite().all()
        assert (ours - exact).norm() < 2e-3 * exact.norm()


@pytest.mark.usefixtures("as_on_a_gpu")
def test_second_derivatives_in_few_launches_are_those_of_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = second_derivatives(torch.float64, 0.3)
    monkeypatch.setattr(batch_norm, "prefers_few_launches", lambda images: False)
    for mine, theirs in zip(ours, second_derivatives(torch.float64, 0.3), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-11)
