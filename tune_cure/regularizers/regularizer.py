"""The penalty of a training run: what it is given at a step, and what each penalty must do."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from tune_cure.attacks.attack import Step
from tune_cure.gradients.input_gradients import Forward
from tune_cure.regularizers.declarations import LogitDeclaration, NoRegularizerDeclaration, RegularizerDeclaration

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
class Regularizer(RegularizerDeclaration, ABC):
    """The penalty of a training run, built once from its configuration.

    `RegularizerDeclaration` describes the fields that all penalties share. A penalty of your own declares its
    hyperparameters beside them, in the same class; those of the project are in declarations.py.

    Attributes:
        can_be_recorded: False if the host waits for the device, so that no CUDA graph of a step can be recorded.
    """

    can_be_recorded: ClassVar[bool] = True

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

    def state_dict(self) -> dict[str, Any]:
        """Return what the penalty carries from step to step: tensors and plain values, saved in checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Continue from what `state_dict` returned."""
        return


@dataclass(kw_only=True)
class LogitRegularizer(LogitDeclaration, Regularizer):
    """A penalty that is a function of the logits at its `points` alone."""


@dataclass(kw_only=True)
class NoRegularizer(NoRegularizerDeclaration, Regularizer):
    """No penalty."""

    def __call__(self, step: PenaltyStep) -> Tensor:
        return step.images.new_zeros(len(step.images))
