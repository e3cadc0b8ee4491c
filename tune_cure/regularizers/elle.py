"""ELLE and ELLE-A: local linearity without a second derivative (Abad Rocamora et al. 2024, arXiv 2401.11618)."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tune_cure.attacks.norms import broadcast
from tune_cure.attacks.registry import NORMS
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.gradients.input_gradients import cross_entropy
from tune_cure.regularizers.declarations import AdaptiveElleDeclaration, ElleDeclaration
from tune_cure.regularizers.regularizer import PenaltyStep, Regularizer

MIN_ERRORS = 3  # earlier errors of ELLE-A beside which one can be out of the ordinary


def linearity_error(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: str = "linf",
    generator: torch.Generator | None = None,
    statistics: str = "running",
) -> Tensor:
    """Return (ℓ(x_c) − (1 − a)ℓ(x_a) − aℓ(x_b))² of each example, at three points of a line in the ball.

    Abad Rocamora et al. 2024 (arXiv 2401.11618), equation 3: x_a and x_b are uniform in the ball, a is uniform in
    [0, 1], and x_c = (1 − a)x_a + a x_b. One forward pass takes the points of all examples, so with statistics `batch`
    batch norm normalizes by all three.

    Args:
        model: Network from images to logits.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) class indices.
        epsilon: Radius of the ball, in pixel units. The points are not clipped to [0, 1].
        norm: Norm of the ball, a name of `NORMS`.
        generator: Source of the points, on the images' device.
        statistics: What batch norm normalizes by, a key of `batch_norm_mode.STATISTICS`.

    Returns:
        (N,) squared errors, differentiable with respect to the parameters.
    """
    ball = NORMS.resolve(norm)
    start, end = (images + ball.noise(images, epsilon, generator) for _ in range(2))
    share = torch.rand(len(images), generator=generator, dtype=images.dtype, device=images.device)
    between = torch.lerp(start, end, broadcast(share))
    with STATISTICS[statistics](model):
        logits = model(torch.cat([start, end, between]))
    first, second, middle = cross_entropy(logits, labels.repeat(3)).chunk(3)
    return (middle - torch.lerp(first, second, share)).square()


@dataclass(kw_only=True)
class Elle(ElleDeclaration, Regularizer):
    """ELLE: how far the loss is from linear between two random points of the ball."""

    def __call__(self, step: PenaltyStep) -> Tensor:
        return linearity_error(
            step.network,
            step.images,
            step.labels,
            epsilon=self.epsilon,
            norm=self.norm,
            generator=step.generator,
            statistics=self.penalty_statistics,
        )


@dataclass(kw_only=True)
class AdaptiveElle(AdaptiveElleDeclaration, Elle):
    """ELLE-A: ELLE with lambda after an error that is out of the ordinary, and less and less from then on.

    Where a step's mean error exceeds the mean of all earlier steps' by more than `elle_sensitivity` of their standard
    deviations, the next step is penalized by lambda itself. Else the next step's weight is `elle_decay` of this one's;
    it starts at zero. The rule counts from the fourth step on. Abad Rocamora et al. 2024 (arXiv 2401.11618), as in the
    authors' code.
    """

    # Number of earlier steps, mean of their errors, sum of squared deviations from it (Welford), and the weight of the
    # step that comes, as a part of lambda.
    history: Tensor | None = field(default=None, init=False)

    def __call__(self, step: PenaltyStep) -> Tensor:
        errors = super().__call__(step)
        with torch.no_grad():
            weight = self._adapt(errors.mean().double())
        return errors * weight.to(errors.dtype)

    def _adapt(self, error: Tensor) -> Tensor:
        """Return this step's weight, as a part of lambda; remember its mean `error`, and the next step's weight."""
        if self.history is None:
            self.history = error.new_zeros(4)
        before = self.history.clone()
        count, mean, squares, weight = before.unbind()
        deviation = (squares / count.clamp(min=1)).sqrt()
        jumps = (count >= MIN_ERRORS) & (error > mean + self.elle_sensitivity * deviation)
        following = torch.where(jumps, torch.ones_like(weight), self.elle_decay * weight)
        moved = mean + (error - mean) / (count + 1)
        after = torch.stack([count + 1, moved, squares + (error - mean) * (error - moved), following])
        # A step that overflowed is skipped by the optimizer, and must not be remembered.
        self.history.copy_(torch.where(error.isfinite(), after, before))  # in place, for CUDA graphs
        return weight

    def state_dict(self) -> dict[str, Any]:
        """Return the (4,) history of the errors, or None before the first step."""
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self.history = None if state["history"] is None else state["history"].to(device)
