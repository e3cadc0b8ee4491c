"""The attack of free adversarial training (Shafahi et al. 2019, arXiv 1904.12843)."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tune_cure.attacks.attack import Attack, Step
from tune_cure.attacks.declarations import FreeDeclaration
from tune_cure.attacks.norms import project
from tune_cure.attacks.registry import NORMS


@dataclass(kw_only=True)
class Free(FreeDeclaration, Attack):
    """Free adversarial training: each batch `replays` times, one backward pass for weights and perturbation.

    Shafahi et al. 2019 (arXiv 1904.12843), algorithm 1: δ ← Π( δ + ε · sign g ), where g is the gradient at x + δ from
    the backward pass of the training loss. δ is carried on, to the next replay and to the next batch. Each replay is an
    optimizer step, so an epoch has as many steps as with any other attack and shows one in `replays` of the images.
    Deviation: x + δ is clipped to [0, 1] before its gradient is taken, as in `fgsm`.
    """

    perturbation: Tensor | None = field(default=None, init=False, repr=False)

    def __call__(self, step: Step) -> Tensor:
        images = step.images
        if self.perturbation is None:
            self.perturbation = torch.zeros_like(images)
        return project(images + self.perturbation[: len(images)], images, self.epsilon, self.norm)

    def learn(self, images: Tensor, adversarial: Tensor, gradient: Tensor) -> None:
        assert self.perturbation is not None
        direction = NORMS.resolve(self.norm).steepest(gradient.nan_to_num())  # after an overflow in fp16, too
        moved = project(adversarial + self.epsilon * direction, images, self.epsilon, self.norm)
        self.perturbation[: len(images)] = moved - images

    @property
    def steps_per_batch(self) -> int:
        return self.replays

    def state_dict(self) -> dict[str, Any]:
        """Return the perturbations of the last batch: (N, C, H, W), or None before the first step."""
        return {"perturbation": self.perturbation}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self.perturbation = None if state["perturbation"] is None else state["perturbation"].to(device)
