"""The nearest adversarial example in L-infinity: the fast minimum-norm attack (Pintor et al. 2021, 2102.12827)."""

import math

import torch
from torch import Tensor, nn

from tune_cure.attacks.norms import broadcast, lengths
from tune_cure.gradients.batch_norm_mode import evaluation_mode
from tune_cure.gradients.input_gradients import logits_and_input_gradient, margin

GAMMA = 0.05  # share by which the first step changes the radius; later steps change it less


def fmn(model: nn.Module, images: Tensor, labels: Tensor, *, steps: int = 5) -> Tensor:
    """Return the nearest adversarial images that algorithm 1 of the paper finds for L-infinity, untargeted.

    Deviations: a radius that shrinks does so from the smaller of itself and the best distance, where the authors' code
    shrinks the radius first; and changes of the radius decay to 0, not to a fiftieth.

    The search starts at the images. Each step ascends the margin (the largest other logit minus the label's), then
    projects onto a ball. The ball's radius shrinks where the example is misclassified and grows where it is not. Before
    the first success the radius is what a linear model would need. Steps and changes of the radius decay like a cosine.
    Batch norm is in evaluation mode.

    Args:
        model: Network from images to logits.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) class indices.
        steps: Gradient steps; five give a direction, some hundreds the distance.

    Returns:
        (N, C, H, W) in [0, 1], detached: the nearest misclassified point found, else the last point.
    """
    images = images.detach()
    count = len(images)
    delta = torch.zeros_like(images)
    best = torch.zeros_like(images)
    best_norm = images.new_full((count,), math.inf)
    radius = images.new_full((count,), math.inf)
    with evaluation_mode(model):
        for step in range(steps + 1):
            logits, gradient = logits_and_input_gradient(model, images + delta, labels, loss=margin)
            ahead_by = -margin(logits.detach(), labels)  # distance of the label's logit above the largest other one
            norm = delta.abs().amax(dim=(1, 2, 3))
            broken = ahead_by < 0
            nearer = broken & (norm < best_norm)
            best = torch.where(broadcast(nearer), delta, best)
            best_norm = torch.where(nearer, norm, best_norm)
            if step == steps:
                break
            decay = 0.5 * (1.0 + math.cos(math.pi * step / steps))
            gamma = GAMMA * decay
            grad_size = gradient.abs().sum(dim=(1, 2, 3)).clamp_min(1e-12)
            # A little beyond the boundary of a linear model: on it, rounding alone would decide.
            needed = (norm + ahead_by.clamp_min(0.0) / grad_size) * (1.0 + gamma)
            found = best_norm.isfinite()
            outside = torch.where(found, radius * (1.0 + gamma), needed)
            radius = torch.where(broken, torch.minimum(radius, best_norm) * (1.0 - gamma), outside)
            delta = delta + decay * gradient / broadcast(lengths(gradient).clamp_min(1e-12))
            bound = broadcast(radius)
            delta = torch.minimum(torch.maximum(delta, -bound), bound)
            delta = (images + delta).clamp(0.0, 1.0) - images
    return images + torch.where(broadcast(best_norm.isfinite()), best, delta)
