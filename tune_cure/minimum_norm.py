"""The nearest adversarial example in L-infinity: the fast minimum-norm attack (Pintor et al. 2021, 2102.12827)."""

import math

import torch
from torch import Tensor, nn

from tune_cure.gradients import evaluation_mode

GAMMA = 0.05  # by which the radius first grows or shrinks a step; it decays as the steps go on


def fmn(model: nn.Module, images: Tensor, labels: Tensor, *, steps: int = 5) -> Tensor:
    """Algorithm 1 of the paper for L-infinity, untargeted, from the images themselves.

    Each step follows the gradient of the margin (the label's logit less the largest other one), then projects onto a
    ball whose radius shrinks where the example is misclassified and grows where it is not; before the first success the
    radius is what a linear model would need. Steps and changes of the radius decay like a cosine. Batch norm is in
    evaluation mode.

    Args:
        model: Network from images to logits.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) class indices.
        steps: Gradient steps; five give a direction, some hundreds the distance.

    Returns:
        (N, C, H, W), detached: the nearest misclassified point found, else the last point, in [0, 1].
    """
    images = images.detach()
    count = len(images)
    delta = torch.zeros_like(images)
    best = torch.zeros_like(images)
    best_norm = images.new_full((count,), math.inf)
    radius = images.new_full((count,), math.inf)
    with evaluation_mode(model):
        for step in range(steps + 1):
            margin, gradient = _margin_and_gradient(model, images + delta, labels)
            norm = delta.abs().amax(dim=(1, 2, 3))
            broken = margin < 0
            nearer = broken & (norm < best_norm)
            best = torch.where(_broadcast(nearer), delta, best)
            best_norm = torch.where(nearer, norm, best_norm)
            if step == steps:
                break
            decay = 0.5 * (1.0 + math.cos(math.pi * step / steps))
            gamma = GAMMA * decay
            slope = gradient.abs().sum(dim=(1, 2, 3)).clamp_min(1e-12)
            # A little beyond the boundary of a linear model: on it, rounding alone would decide.
            ahead = (norm + margin.clamp_min(0.0) / slope) * (1.0 + gamma)
            found = best_norm.isfinite()
            outside = torch.where(found, radius * (1.0 + gamma), ahead)
            radius = torch.where(broken, torch.minimum(radius, best_norm) * (1.0 - gamma), outside)
            length = gradient.square().sum(dim=(1, 2, 3)).sqrt().clamp_min(1e-12)
            delta = delta - decay * gradient / _broadcast(length)
            bound = _broadcast(radius)
            delta = torch.minimum(torch.maximum(delta, -bound), bound)
            delta = (images + delta).clamp(0.0, 1.0) - images
    return images + torch.where(_broadcast(best_norm.isfinite()), best, delta)


def _margin_and_gradient(model: nn.Module, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) the label's logit less the largest other one, negative where misclassified; its gradient at the points."""
    points = points.detach().requires_grad_()
    logits = model(points)
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -math.inf)
    margin = own.squeeze(1) - others.amax(dim=1)
    (gradient,) = torch.autograd.grad(margin.sum(), points)
    return margin.detach(), gradient


def _broadcast(numbers: Tensor) -> Tensor:
    """(N,) as (N, 1, 1, 1)."""
    return numbers.view(-1, 1, 1, 1)
