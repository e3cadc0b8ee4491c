"""The training attack: what it is given at a step, and what each attack must do."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tune_cure.attacks.declarations import AttackDeclaration
from tune_cure.gradients.input_gradients import Forward


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
        positions: (N,) numbers of the images among the training images, the same in every epoch; None if unknown.
        shares_start: The training loss needs the logits at the attack's start, too: the pass there is made in training
            mode, and kept in `Attack.start_forward`.
        clean_logits: Makes the pass at `images` that the training loss needs, too, in training mode, and returns its
            (N, K) logits as constants; None if the loss needs none, or cannot share it.
        penalty_share: Share of the penalty's weight that counts in this epoch (`lambda_schedule`).
        number: The step's number in the run, from 0 on; steps from one penalty to the next (`penalty_every`) share one.
    """

    network: nn.Module
    images: Tensor
    labels: Tensor
    generator: torch.Generator | None = None
    loss_scale: float = 1.0
    clean_grad: Tensor | None = None
    positions: Tensor | None = None
    shares_start: bool = False
    clean_logits: Callable[[], Tensor] | None = None
    penalty_share: float = 1.0
    number: int = 0


@dataclass(kw_only=True)
class Attack(AttackDeclaration, ABC):
    """The attack of a training run, built once from its configuration.

    `AttackDeclaration` describes the fields that all attacks share. An attack of your own declares its hyperparameters
    beside them, in the same class; those of the project are in declarations.py.

    Attributes:
        start: (N, C, H, W) points from which the last step's attack set out, in [0, 1] unless init is `noise`; None
            before the first step, or if the attack does not keep it.
        start_forward: The pass at `start` of a step that shares it (`Step.shares_start`), with its graph, else None.
    """

    start: Tensor | None = field(default=None, init=False, repr=False)
    start_forward: Forward | None = field(default=None, init=False, repr=False)

    def begin_epoch(self, epoch: int, shape: tuple[int, ...], generator: torch.Generator) -> None:
        """Prepare for an epoch.

        Args:
            epoch: Its number, from 0 on.
            shape: (M, C, H, W) of all training images, which `Step.positions` count.
            generator: Source of randomness, on the device of the training.
        """
        return

    @abstractmethod
    def __call__(self, step: Step) -> Tensor:
        """Return (N, C, H, W) images to train on, in [0, 1] and detached."""

    def learn(self, images: Tensor, adversarial: Tensor, gradient: Tensor) -> None:
        """Learn from the training loss without its penalty; called after its backward pass if `learns_from_loss`.

        Args:
            images: (N, C, H, W) images of the step.
            adversarial: (N, C, H, W) images that the attack returned for them.
            gradient: (N, C, H, W) gradient at `adversarial`, multiplied by a positive number; it may not be finite.
        """
        return

    @property
    def can_be_recorded(self) -> bool:
        """Return False if the host waits for the device, so that no CUDA graph of a step can be recorded."""
        return True

    def host_values(self, number: int) -> Hashable:
        """Return what the attack's operations in the step of this number depend on, besides tensors."""
        return None

    def memory_bytes(self, shape: tuple[int, ...]) -> int:
        """Return the bytes that the attack keeps for all training images, (M, C, H, W), in memory and checkpoints."""
        return 0

    @property
    def steps_per_batch(self) -> int:
        """Return how many steps in a row are made on each batch."""
        return 1

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
