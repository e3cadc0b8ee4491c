"""Local linearity regularization (Qin et al. 2019, arXiv 1907.02610)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_cure.attacks.norms import broadcast
from tune_cure.attacks.registry import NORMS
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.gradients.input_gradients import logits_and_input_gradient
from tune_cure.regularizers.regularizer import PenaltyStep, Regularizer

LINEARITY_STEPS = 2  # gradient steps towards the least linear point, as Qin et al. took on CIFAR-10


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
    """Return |ℓ(x + δ) − ℓ(x) − δᵀ∇ₓℓ(x)| of each example, at a δ of the ball that makes it large.

    Qin et al. 2019 (arXiv 1907.02610), equation 5. Two gradient steps of epsilon / 2 from a random start approach the
    maximum over δ. Deviation: their second term, |δᵀ∇ₓℓ(x)|, is left out. `cure_penalty` describes the arguments and
    the result.
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


@dataclass(kw_only=True)
class LocalLinearity(Regularizer):
    """Local linearity: the error of the loss's linearization at the worst point of the ball."""

    def __call__(self, step: PenaltyStep) -> Tensor:
        return local_linearity(
            step.network,
            step.images,
            step.labels,
            epsilon=self.epsilon,
            norm=self.norm,
            generator=step.generator,
            two_sided=self.penalty_two_sided,
            statistics=self.penalty_statistics,
            loss_scale=step.loss_scale,
        )
