"""The training attack: what it is given at a step, and what each attack must do."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tune_cure.attacks.declarations import AttackDeclaration


@dataclass(frozen=True)
class Step:
    """A training step, as an attack sees it.

    Attributes:
        network: From images to logits, in low precision where that is asked for.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) class indices.
        generator: Source of all randomness, on the images' device.
        loss_scale: See `gradients.input_gradients.logits_and_input_gradient`.
        clean_grad: (N, C, H, W) gradients of the examples' losses at `images` where they are known already, else None.
    """

    network: nn.Module
    images: Tensor
    labels: Tensor
    generator: torch.Generator | None = None
    loss_scale: float = 1.0
    clean_grad: Tensor | None = None


@dataclass(kw_only=True)
class Attack(AttackDeclaration, ABC):
    """The attack of a training run, built once from its configuration.

    `AttackDeclaration` describes the fields that all attacks share. An attack of your own declares its hyperparameters
    beside them, in the same class; those of the project are in declarations.py.

    Attributes:
        start: (N, C, H, W) points from which the last step's attack set out, in [0, 1] unless init is `noise`; None
            before the first step, or if the attack does not keep it.
    """

    start: Tensor | None = field(default=None, init=False, repr=False)

    @abstractmethod
    def __call__(self, step: Step) -> Tensor:
        """Return (N, C, H, W) images to train on, in [0, 1] and detached."""

    @property
    def starts_at_images(self) -> bool:
        """Return True if the first gradient is the one at the images, which is read from `step.clean_grad` if given."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return what the attack carries from step to step: tensors and plain values, saved in checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Continue from what `state_dict` returned."""
        return


@dataclass(kw_only=True)
class NoAttack(Attack):
    """Training on clean images."""

    def __call__(self, step: Step) -> Tensor:
        return step.images
