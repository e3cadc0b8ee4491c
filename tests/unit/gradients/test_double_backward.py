from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tune_cure.gradients.backward_scope import input_gradients_only
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.gradients.double_backward import cheap_second_derivatives
from tune_cure.models import networks, registry

GEOMETRIES = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (1, 2), "padding": (2, 0)},
    {"dilation": 2, "padding": 2},
    {"groups": 2},
    {"kernel_size": 1},
    {"kernel_size": 2, "stride": 3, "groups": 4, "padding": 1},
]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def layer_of(made: nn.Module) -> nn.Module:
    with torch.no_grad():
        for number, parameter in enumerate(made.double().parameters()):
            parameter.copy_(random(*parameter.shape, seed=number))
    return made


def convolution(*, bias: bool, **geometry: int) -> nn.Module:
    return layer_of(nn.Conv2d(4, 8, **{"kernel_size": 3, "bias": bias, **geometry}))


def batch_norm() -> nn.Module:
    return layer_of(nn.BatchNorm2d(4))


def gradient(network: nn.Module, images: Tensor, grad_output: Tensor) -> Tensor:
    """Of the images, differentiable again."""
    with cheap_second_derivatives():
        result = network(images)
    with input_gradients_only():
        return torch.autograd.grad(result, images, grad_output, create_graph=True)[0]


def as_torch_does(network: nn.Module, images: Tensor, grad_output: Tensor) -> Tensor:
    return torch.autograd.grad(network(images), images, grad_output, create_graph=True)[0]


def check(network: nn.Module, images: Tensor) -> None:
    """Values, image gradients and all second derivatives are those of PyTorch's own operations."""
    images = images.requires_grad_()
    with cheap_second_derivatives():
        ours = network(images)
    torch.testing.assert_close(ours, network(images), rtol=1e-12, atol=1e-12)
    grad_output = random(*ours.shape, seed=7).requires_grad_()
    direction = random(*images.shape, seed=8)
    inputs = [images, grad_output, *network.parameters()]
    results = []
    for method in (gradient, as_torch_does):
        first = method(network, images, grad_output)
        second = torch.autograd.grad((first * direction).sum(), inputs, allow_unused=True, materialize_grads=True)
        results.append([first, *second])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_convolution_has_the_derivatives_of_torchs_convolution(geometry: dict[str, int], bias: bool) -> None:
    check(convolution(bias=bias, **geometry), random(3, 4, 7, 6))


@pytest.mark.parametrize(
    ("inputs", "options"),
    [((), {}), ((None, 2, 1), {}), ((), {"stride": 2, "padding": (1, 0)}), ((None, (1, 2)), {"dilation": 2})],
    ids=str,
)
def test_convolution_is_replaced_however_it_is_called(inputs: tuple[object, ...], options: dict[str, object]) -> None:
    images, weight = random(2, 3, 7, 6).requires_grad_(), random(5, 3, 3, 3, seed=1)
    with cheap_second_derivatives():
        results = F.conv2d(images, weight, *inputs, **options), F.conv2d(input=images, weight=weight)
    expected = F.conv2d(images, weight, *inputs, **options), F.conv2d(images, weight)
    for ours, theirs in zip(results, expected, strict=True):
        assert torch.equal(ours, theirs)
        assert type(ours.grad_fn).__name__ == "_ConvolutionBackward"


def test_relu_has_the_derivatives_of_torchs_relu() -> None:
    check(nn.ReLU(), random(3, 4, 7, 6))
    check(nn.Sequential(convolution(bias=False), nn.ReLU(inplace=True)), random(3, 4, 7, 6))


def test_relu_adds_no_zeros_as_its_second_derivative() -> None:
    images, grad_output = random(3, 4, 2, 2).requires_grad_(), random(3, 4, 2, 2, seed=1).requires_grad_()
    first = gradient(nn.ReLU(), images, grad_output)
    to_slope, to_images = torch.autograd.grad(first.sum(), [grad_output, images], allow_unused=True)
    assert to_images is None
    assert torch.equal(to_slope, (images > 0).double())


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_has_the_derivatives_of_torchs_batch_norm(training: bool) -> None:
    layer = batch_norm()
    layer.running_mean.copy_(random(4, seed=3))
    layer.running_var.copy_(random(4, seed=4).square() + 0.1)
    check(layer.train(training), 3 * random(5, 4, 3, 2, seed=9) + 1)


def test_second_derivatives_of_batch_norm_match_finite_differences() -> None:
    layer, grad_output = batch_norm().train(), random(3, 4, 2, 2, seed=1).requires_grad_()
    images = random(3, 4, 2, 2).requires_grad_()

    def first(images: Tensor, grad_output: Tensor, weight: Tensor) -> Tensor:
        with cheap_second_derivatives():
            result = F.batch_norm(images, None, None, weight, layer.bias, True, 0.1, 1e-5)
        with input_gradients_only():
            return torch.autograd.grad(result, images, grad_output, create_graph=True)[0]

    assert torch.autograd.gradcheck(first, (images, grad_output, layer.weight))


def test_second_derivatives_of_batch_norm_take_two_backward_passes_and_one_sum() -> None:
    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen[func._overloadpacket.__name__] += 1
            return func(*args, **(kwargs or {}))

    seen: Counter[str] = Counter()
    images, layer = random(5, 4, 3, 2).requires_grad_(), batch_norm().train()
    with Counting():
        gradient(layer, images, random(5, 4, 3, 2, seed=1).requires_grad_()).backward(random(5, 4, 3, 2, seed=2))
    assert seen["native_batch_norm_backward"] == 2
    assert seen["mean"] + seen["sum"] == 1


def test_running_statistics_are_recorded_as_torch_does() -> None:
    ours, theirs = batch_norm().train(), batch_norm().train()
    images = random(5, 4, 3, 2).requires_grad_()
    with cheap_second_derivatives():
        ours(images)
    theirs(images)
    for mine, buffer in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(mine, buffer)


@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("name", registry.MODELS)
def test_networks_have_torchs_second_derivatives_without_a_change(name: str, statistics: str) -> None:
    width = {"wide_resnet28_10": 16}.get(name, 4)
    network = networks.build(name, num_classes=10, in_channels=3, mean=[0.5] * 3, std=[0.2] * 3, width=width).double()
    with STATISTICS[statistics](network):
        check(network, random(6, 3, 16, 16).sigmoid())


@pytest.mark.parametrize("make", [lambda: convolution(bias=True), batch_norm], ids=["convolution", "batch norm"])
def test_all_gradients_are_right_outside_of_input_gradients_only(make: Callable[[], nn.Module]) -> None:
    layer = make()
    images = random(3, 4, 6, 6).requires_grad_()
    inputs = [images, *layer.parameters()]
    results = []
    for mode in (cheap_second_derivatives, torch.enable_grad):
        with mode():
            result = layer(images)
        first = torch.autograd.grad(result.square().sum(), inputs, create_graph=True)
        total = sum(gradient.square().sum() for gradient in first)
        results.append([*first, *torch.autograd.grad(total, inputs)])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


def test_a_third_derivative_raises_an_error() -> None:
    layer, images = convolution(bias=False), random(2, 4, 6, 6).requires_grad_()
    first = gradient(layer, images, random(2, 8, 4, 4).requires_grad_())
    (second,) = torch.autograd.grad(first.square().sum(), layer.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second.square().sum().backward()


def test_the_cheap_operations_are_used() -> None:
    network = nn.Sequential(convolution(bias=False), layer_of(nn.BatchNorm2d(8)))
    images = random(2, 4, 6, 6).requires_grad_()
    with cheap_second_derivatives():
        logits = network(images)  # kept: torch 2.11 frees the graph with its output
    node = logits.grad_fn
    assert type(node).__name__ == "_BatchNormBackward"
    assert type(node.next_functions[0][0]).__name__ == "_ConvolutionBackward"


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_unsupported_layers_are_left_to_torch(padding: str) -> None:
    network = nn.Sequential(
        convolution(bias=True, padding=padding),
        nn.BatchNorm2d(8, affine=False).double(),
        nn.Conv2d(8, 4, 3, padding=1, padding_mode="circular").double(),
        nn.Flatten(),
        nn.BatchNorm1d(4 * (36 if padding == "same" else 16)).double(),
    )
    check(network.train(), random(5, 4, 6, 6))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("statistics", STATISTICS)
def test_gradients_under_autocast_are_close_to_those_in_float32(statistics: str, dtype: torch.dtype) -> None:
    network = networks.build("small_cnn", num_classes=10, in_channels=3, mean=[0.5] * 3, std=[0.2] * 3, width=8)
    images = random(6, 3, 16, 16).sigmoid().float().requires_grad_()
    grad_output = random(6, 10).float()
    results = []
    for enabled in (True, False):
        autocast = torch.autocast("cpu", dtype, enabled=enabled)
        with STATISTICS[statistics](network), autocast, cheap_second_derivatives():
            logits = network(images).float()
        with input_gradients_only():
            (first,) = torch.autograd.grad(logits, images, grad_output, create_graph=True)
        second = torch.autograd.grad(first.square().sum(), list(network.parameters()), allow_unused=True)
        results.append(torch.cat([gradient.flatten() for gradient in second if gradient is not None]))
    assert F.cosine_similarity(*results, dim=0) > 0.99
