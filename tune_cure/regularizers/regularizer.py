"""The penalty of a training run: what it is given at a step, and what each penalty must do."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from tune_cure.attacks.attack import Step
from tune_cure.gradients.input_gradients import Forward

POINTS = ("clean", "start", "adversarial")
"""The points of a training step: the image, the point from which the attack set out, and the adversarial image."""


@dataclass(frozen=True)
class PenaltyStep(Step):
    """A training step, as a penalty sees it: the images that are penalized, and what is known about them already.

    Attributes:
        adversarial: (N, C, H, W) adversarial images of this step; None with attack none.
        adversarial_forward: The forward pass at `adversarial` with the penalty's batch-norm statistics; None if there
            was none.
        logits: (N, K) logits at each point that the penalty names in `points`, with their graph, from the forward
            passes of the training loss: batch norm is in training mode and has normalized by the whole batch.
    """

    adversarial: Tensor | None = None
    adversarial_forward: Forward | None = None
    logits: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(kw_only=True)
class Regularizer(ABC):
    """The penalty of a training run, built once from its configuration.

    A penalty declares its own hyperparameters as dataclass fields (`utils.hyperparameters.hyperparameter`). The fields
    below are shared by all penalties.

    Attributes:
        epsilon: Radius of the training attack's ball, in pixel units.
        norm: Norm of that ball, a name of `norms.NORMS`.
        penalty_two_sided: Whether the gradient at the image is differentiated with respect to the parameters, too.
        penalty_statistics: What batch norm normalizes by in the penalty, a key of `batch_norm_mode.STATISTICS`.
        points: The points whose logits the penalty takes from `step.logits`: names of `POINTS`. Empty for a penalty
            that makes its own forward passes.
    """

    points: ClassVar[tuple[str, ...]] = ()

    epsilon: float
    norm: str
    penalty_two_sided: bool
    penalty_statistics: str

    @abstractmethod
    def __call__(self, step: PenaltyStep) -> Tensor:
        """Return (N,) penalties of the examples, before lambda.

        They must be differentiable with respect to the parameters (`create_graph=True`). Nothing may be accumulated
        into the parameters' gradients.
        """

    @property
    def takes_clean_grad(self) -> bool:
        """Return True if `step.clean_grad` is used where it is known, with its graph if `penalty_two_sided`."""
        return False

    @property
    def takes_adversarial_forward(self) -> bool:
        """Return True if `step.adversarial_forward` is used where it is known."""
        return False

    @property
    def needs_attack(self) -> bool:
        """Return True if the penalty needs adversarial images."""
        return "start" in self.points or "adversarial" in self.points

    @property
    def uses_two_sided(self) -> bool:
        """Return True if `penalty_two_sided` makes a difference: the penalty compares two gradients."""
        return True

    @property
    def uses_ball(self) -> bool:
        """Return True if the penalty itself depends on epsilon and norm."""
        return True

    def inactive(self) -> dict[str, str]:
        """Return the penalty's own hyperparameters that make no difference beside its others, and why."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what the penalty carries from step to step: tensors and plain values, saved in checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Continue from what `state_dict` returned."""
        return


@dataclass(kw_only=True)
class LogitRegularizer(Regularizer):
    """A penalty that is a function of the logits at its `points` alone."""

    @property
    def uses_two_sided(self) -> bool:
        return False

    @property
    def uses_ball(self) -> bool:
        return False


@dataclass(kw_only=True)
class NoRegularizer(Regularizer):
    """No penalty."""

    def __call__(self, step: PenaltyStep) -> Tensor:
        return step.images.new_zeros(len(step.images))

    @property
    def uses_ball(self) -> bool:
        return False
