"""GradAlign (Andriushchenko and Flammarion 2020, arXiv 2007.02617)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tune_cure.attacks.norms import cosine
from tune_cure.attacks.registry import NORMS
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.gradients.input_gradients import input_gradient
from tune_cure.regularizers.regularizer import PenaltyStep, Regularizer


def gradalign(
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
    """Return 1 − cos(∇ₓℓ(x), ∇ₓℓ(x + η)) of each example, with η uniform in the ball.

    GradAlign (Andriushchenko and Flammarion 2020, arXiv 2007.02617), equation 5. `cure_penalty` describes the arguments
    and the result. In the authors' code ∇ₓℓ(x) is a constant where the attack is FGSM (`two_sided` false). Deviation:
    the cosine with a gradient of exactly zero counts as 0; there, such an example is left out of the mean.
    """
    with STATISTICS[statistics](model):
        clean_grad = input_gradient(model, images, labels, create_graph=two_sided, loss_scale=loss_scale)
        displaced = images + NORMS.resolve(norm).noise(images, epsilon, generator)
        displaced_grad = input_gradient(model, displaced, labels, create_graph=True, loss_scale=loss_scale)
    return 1.0 - cosine(clean_grad, displaced_grad)


@dataclass(kw_only=True)
class GradAlign(Regularizer):
    """GradAlign: how far the input gradient turns at a random point of the ball."""

    def __call__(self, step: PenaltyStep) -> Tensor:
        return gradalign(
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
