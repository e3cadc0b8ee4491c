"""Networks that cannot classify the images of a data set are described in words."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tune_cure.models.rehearsal import find_misfit

IMAGES = torch.full((2, 3, 8, 8), 0.5).contiguous(memory_format=torch.channels_last)

WEIGHT = torch.ones((), requires_grad=True)


class Of(nn.Module):
    """Network that computes a function of the images."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> object:
        return self.function(images)


def logits(images: Tensor) -> Tensor:
    return images.mean(dim=(2, 3))


def refuse(images: Tensor) -> Tensor:
    raise RuntimeError(f"needs sides of 224\nand more\n{images.shape}")


def test_a_network_that_returns_a_row_of_logits_for_each_image_fits() -> None:
    assert find_misfit(Of(logits), IMAGES, num_classes=3) == ""


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (refuse, "cannot classify images of 3×8×8: RuntimeError: needs sides of 224"),
        (lambda images: images.view(2, -1), "cannot classify images of 3×8×8: RuntimeError: view size is not"),
        (
            lambda images: (logits(images), logits(images)),
            "returns a tuple for 2 images, where (2, 3) logits are needed",
        ),
        (lambda images: None, "returns a NoneType for 2 images, where (2, 3) logits are needed"),
        (lambda images: images, "returns values of shape (2, 3, 8, 8) for 2 images, where 3 classes are needed"),
        (lambda images: logits(images)[:, :2], "returns values of shape (2, 2) for 2 images, where 3 classes"),
        (lambda images: logits(images).argsort(), "returns int64 values, where floats are needed"),
        (lambda images: logits((255 * images).byte() / 255), "returns logits without a gradient with respect to the"),
        (lambda images: logits(images.detach()) * WEIGHT, "returns logits without a gradient with respect to the"),
        (
            lambda images: logits(images.exp().add_(1)),
            "returns logits that cannot be given a gradient with respect to the images, which attacks need: "
            "RuntimeError: one of the variables needed for gradient computation has been modified",
        ),
    ],
)
def test_what_is_wrong_is_said_in_short(function: Callable[[Tensor], object], problem: str) -> None:
    assert find_misfit(Of(function), IMAGES, num_classes=3).startswith(problem)


def test_a_rehearsal_leaves_no_gradients_behind() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(IMAGES[0].numel(), 3))
    assert find_misfit(network, IMAGES, num_classes=3) == ""
    assert all(parameter.grad is None for parameter in network.parameters())
    assert IMAGES.grad is None and not IMAGES.requires_grad


def test_a_long_error_is_cut() -> None:
    def refuse_at_length(images: Tensor) -> Tensor:
        raise ValueError("too small " * 1000)

    assert len(find_misfit(Of(refuse_at_length), IMAGES, num_classes=3)) < 300
