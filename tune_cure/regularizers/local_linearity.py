"""Local linearity regularisation (Qin et al. 2019, arXiv 1907.02610)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_cure.attacks.norms import NORMS, broadcast
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.gradients.input_gradients import logits_and_input_gradient

LINEARITY_STEPS = 2  # of the search for the least linear point, as Qin et al. took on CIFAR-10


def local_linearity(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: str = "linf",
    generator: torch.Generator | None = None,
    two_sided: bool = True,
    statistics: str = "running",
    loss_scale: float = 1.0,
) -> Tensor:
    """|ℓ(x + δ) − ℓ(x) − δᵀ∇ₓℓ(x)| of each example at the δ of the ball that a short search finds largest.

    Qin et al. 2019 (arXiv 1907.02610), equation 5, the maximum approached by two gradient steps of epsilon / 2
    from a random start. Deviation: their second term, |δᵀ∇ₓℓ(x)|, is left out.
    Arguments and result as of `cure_penalty`.
    """
    with STATISTICS[statistics](model):
        logits, clean_grad = logits_and_input_gradient(model, images, labels, create_graph=True, loss_scale=loss_scale)
        clean_grad = clean_grad if two_sided else clean_grad.detach()
        stayed = F.cross_entropy(logits, labels, reduction="none")

        def error(delta: Tensor, moved_logits: Tensor) -> Tensor:
            moved = F.cross_entropy(moved_logits, labels, reduction="none")
            return moved - stayed - (delta * clean_grad).sum(dim=(1, 2, 3))

        ball = NORMS.resolve(norm)
        delta = ball.noise(images, epsilon, generator)
        for _ in range(LINEARITY_STEPS):
            nearby, slope = logits_and_input_gradient(model, images + delta, labels, loss_scale=loss_scale)
            ascent = broadcast(error(delta, nearby).detach()).sign() * (slope - clean_grad.detach())
            delta = ball.shrink(delta + epsilon / LINEARITY_STEPS * ball.steepest(ascent), epsilon)
        return error(delta, model(images + delta)).abs()
