"""The balls of attacks by norm: projection into a ball, random points of it, and the steepest ascent in it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tune_cure.attacks.registry import NORMS


def broadcast(numbers: Tensor) -> Tensor:
    """Return (N,) numbers as (N, 1, 1, 1), which broadcasts against images."""
    return numbers.view(-1, 1, 1, 1)


def lengths(vectors: Tensor) -> Tensor:
    """Return the (N,) L2 lengths of (N, C, H, W) vectors."""
    length: Tensor = torch.linalg.vector_norm(vectors, dim=(1, 2, 3))
    return length


def nonzero(numbers: Tensor) -> Tensor:
    """Return `numbers` with 1 in the place of 0, as divisors: a vector of length 0 then stays 0."""
    return numbers.where(numbers > 0, 1.0)


def _scale_to_size_1(vectors: Tensor) -> Tensor:
    """Divide (N, C, H, W) vectors by their largest entry's size, so that squares neither underflow nor overflow."""
    return vectors / broadcast(nonzero(vectors.detach().abs().amax(dim=(1, 2, 3))))


def unit(vectors: Tensor) -> Tensor:
    """Return (N, C, H, W) vectors of the same directions and L2 length 1; a vector that is exactly zero stays zero."""
    vectors = _scale_to_size_1(vectors)
    return vectors / broadcast(nonzero(lengths(vectors)))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the (N,) cosines of the angles between (N, C, H, W) vectors; 0 where one of the two is exactly zero."""
    a, b = _scale_to_size_1(a), _scale_to_size_1(b)
    return (a * b).sum(dim=(1, 2, 3)) / (nonzero(lengths(a)) * nonzero(lengths(b)))


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
    """The functions of a norm that attacks need.

    Attributes:
        shrink: From (displacements, epsilon) to the nearest displacements in the ball.
        noise: From (images, epsilon, generator) to displacements of the images' shape, uniform in the ball.
        steepest: From (N, C, H, W) gradients to the displacements of length 1 along which a linear loss grows most. A
            gradient of zero gives zero.
    """

    shrink: Callable[[Tensor, float], Tensor]
    noise: Callable[[Tensor, float, torch.Generator | None], Tensor]
    steepest: Callable[[Tensor], Tensor]


LINF = Norm(lambda displacements, epsilon: displacements.clamp(-epsilon, epsilon), _noise_linf, torch.sign)
L2 = Norm(_shrink_l2, _noise_l2, _steepest_l2)


def project(points: Tensor, images: Tensor, epsilon: float, norm: str = "linf") -> Tensor:
    """Move (N, C, H, W) points into the ball around `images`, then clip to [0, 1], which keeps them in the ball."""
    return torch.clamp(images + NORMS.resolve(norm).shrink(points - images, epsilon), 0.0, 1.0)


def random_start(images: Tensor, epsilon: float, generator: torch.Generator | None, norm: str = "linf") -> Tensor:
    """Draw (N, C, H, W) points uniformly from the ball around `images`, and clip them to [0, 1]."""
    return torch.clamp(images + NORMS.resolve(norm).noise(images, epsilon, generator), 0.0, 1.0)
