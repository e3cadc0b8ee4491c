from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tune_cure.gradients import convolution_gradients
from tune_cure.gradients.convolution_gradients import Geometry, as_product, product_is_faster, weight_gradient
from tune_cure.gradients.input_gradients import input_gradient
from tune_cure.models.networks import build

MANY = 1024  # channels in, and so 2**20 weights and more


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    values = torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return values.contiguous(memory_format=torch.channels_last)


def geometry(stride: tuple[int, int] = (1, 1), padding: tuple[int, int] = (1, 1)) -> Geometry:
    return list(stride), list(padding), [1, 1], False, [0, 0], 1


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (2, 3)], ids=str)
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 3)], ids=str)
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 0)], ids=str)
def test_the_product_is_the_weight_gradient(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> None:
    images, weight = random(3, 4, 7, 6), random(5, 4, *kernel, seed=1).requires_grad_()
    result = F.conv2d(images, weight, None, stride, padding)
    grad_output = random(*result.shape, seed=2)
    (expected,) = torch.autograd.grad(result, weight, grad_output)
    actual = as_product(grad_output, images, weight, geometry(stride, padding))
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    assert actual.is_contiguous(memory_format=torch.channels_last)


def layer(
    size: int = 4, outputs: int = MANY, dtype: torch.dtype = torch.float32, at: Geometry | None = None
) -> tuple[Tensor, Tensor, Tensor, Geometry]:
    """Slope, images, weight and geometry of a layer for which the product is faster, unless something is changed."""
    grad_output = random(2, outputs, size, size, seed=2, dtype=dtype)
    images, weight = random(2, MANY, size, size, dtype=dtype), random(outputs, MANY, 1, 1, seed=1, dtype=dtype)
    return grad_output, images, weight, at or geometry(padding=(0, 0))


@pytest.mark.parametrize(
    ("changes", "faster"),
    [
        ({}, True),
        ({"size": 9}, False),
        ({"outputs": 512}, False),
        ({"dtype": torch.bfloat16}, False),
        ({"at": ([1, 1], [0, 0], [2, 2], False, [0, 0], 1)}, False),
        ({"at": ([1, 1], [0, 0], [1, 1], False, [0, 0], 2)}, False),
    ],
    ids=str,
)
def test_many_weights_that_see_few_pixels_are_a_product_on_avx2(
    changes: dict[str, Any], faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = layer(**changes)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert product_is_faster(*given) is faster
    grad_output, images, weight, at = given
    assert not product_is_faster(grad_output, images.contiguous(), weight, at)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert not product_is_faster(*given)


def test_both_ways_of_a_weight_gradient_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    given = layer()
    actual = []
    for capability in ("AVX2", "AVX512"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        actual.append(weight_gradient(*given))
    torch.testing.assert_close(*actual, rtol=1e-4, atol=1e-4)


def test_a_training_step_uses_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def seen(*given: Tensor) -> Tensor:
        taken.append(given[2].shape)
        return product(*given)

    product = convolution_gradients.as_product
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(convolution_gradients, "as_product", seen)
    model = build("preact_resnet10", num_classes=10, in_channels=3, width=64).to(memory_format=torch.channels_last)
    images = random(2, 3, 16, 16, dtype=torch.float32)
    gradient = input_gradient(model.eval(), images, torch.tensor([0, 1]), create_graph=True)
    gradient.square().sum().backward(inputs=list(model.parameters()))
    assert sorted(set(taken)) == [(512, 256, 3, 3), (512, 512, 3, 3)]
