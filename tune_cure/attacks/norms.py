"""The balls that attacks live in, by norm: how to move into one, draw from one, and ascend in one."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tune_cure.utils.registry import Registry


def broadcast(numbers: Tensor) -> Tensor:
    """(N,) as (N, 1, 1, 1), to go with images."""
    return numbers.view(-1, 1, 1, 1)


def lengths(vectors: Tensor) -> Tensor:
    """(N,) L2 lengths of (N, C, H, W)."""
    length: Tensor = torch.linalg.vector_norm(vectors, dim=(1, 2, 3))
    return length


def nonzero(numbers: Tensor) -> Tensor:
    """`numbers` with 1 in the place of 0: what is then divided by them is 0 too."""
    return numbers.where(numbers > 0, 1.0)


def _of_size_1(vectors: Tensor) -> Tensor:
    """(N, C, H, W) vectors divided by their largest entry's size, so that squares neither underflow nor overflow."""
    return vectors / broadcast(nonzero(vectors.detach().abs().amax(dim=(1, 2, 3))))


def unit(vectors: Tensor) -> Tensor:
    """(N, C, H, W) vectors of the same directions and L2 length 1; a vector that is exactly zero stays zero."""
    vectors = _of_size_1(vectors)
    return vectors / broadcast(nonzero(lengths(vectors)))


def cosine(one: Tensor, other: Tensor) -> Tensor:
    """(N,) cosines of the angles between (N, C, H, W) vectors; 0 where one of the two is exactly zero."""
    one, other = _of_size_1(one), _of_size_1(other)
    return (one * other).sum(dim=(1, 2, 3)) / (nonzero(lengths(one)) * nonzero(lengths(other)))


def _shrink_l2(displacements: Tensor, epsilon: float) -> Tensor:
    return displacements * broadcast((epsilon / nonzero(lengths(displacements))).clamp(max=1.0))


def _noise_linf(images: Tensor, epsilon: float, generator: torch.Generator | None) -> Tensor:
    noise = torch.rand(images.shape, device=images.device, dtype=images.dtype, generator=generator)
    return epsilon * (2.0 * noise - 1.0)


def _noise_l2(images: Tensor, epsilon: float, generator: torch.Generator | None) -> Tensor:
    options = {"device": images.device, "dtype": images.dtype, "generator": generator}
    direction = torch.randn(images.shape, **options)  # type: ignore[call-overload]
    radius = torch.rand(len(images), **options) ** (1.0 / images[0].numel())  # type: ignore[call-overload]
    noise: Tensor = epsilon * broadcast(radius / nonzero(lengths(direction))) * direction
    return noise


def _steepest_l2(gradient: Tensor) -> Tensor:
    return unit(gradient.nan_to_num())  # an fp16 gradient that overflowed gives a step, as its sign does


@dataclass(frozen=True)
class Norm:
    """What a norm means for an attack.

    Attributes:
        shrink: (displacements, epsilon) to the nearest ones in the ball.
        noise: (images, epsilon, generator) to displacements of the images' shape, uniform in the ball.
        steepest: (N, C, H, W) gradients to the displacements of length 1 along which a linear loss grows most. A
            gradient of zero gives zero.
    """

    shrink: Callable[[Tensor, float], Tensor]
    noise: Callable[[Tensor, float, torch.Generator | None], Tensor]
    steepest: Callable[[Tensor], Tensor]


NORMS: Registry[Norm] = Registry(
    "norm",
    {
        "linf": Norm(lambda displacements, epsilon: displacements.clamp(-epsilon, epsilon), _noise_linf, torch.sign),
        "l2": Norm(_shrink_l2, _noise_l2, _steepest_l2),
    },
    accepts=lambda part: isinstance(part, Norm),
    expected="a Norm",
)


def project(points: Tensor, images: Tensor, epsilon: float, norm: str = "linf") -> Tensor:
    """`points` moved into the ball around `images`, then clipped to [0, 1], which leaves the ball of neither norm."""
    return torch.clamp(images + NORMS.resolve(norm).shrink(points - images, epsilon), 0.0, 1.0)


def random_start(images: Tensor, epsilon: float, generator: torch.Generator | None, norm: str = "linf") -> Tensor:
    """Points drawn uniformly from the ball around `images`, clipped to [0, 1]."""
    return torch.clamp(images + NORMS.resolve(norm).noise(images, epsilon, generator), 0.0, 1.0)
