"""The attack of guided adversarial training (Sriramanan et al. 2020, arXiv 2011.14969) and of NuAT (2021)."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tune_cure.attacks.attack import Step
from tune_cure.attacks.declarations import GuidedDeclaration
from tune_cure.attacks.fgsm import Fgsm
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.gradients.input_gradients import Loss, cross_entropy
from tune_cure.gradients.logit_distances import DISTANCES


def guided_loss(clean_logits: Tensor, guide: str, weight: float) -> Loss:
    """Return the loss ℓ(x′) + weight · d(f(x), f(x′)), summed over the examples, with d a name of `DISTANCES`.

    Sriramanan et al. 2020 (arXiv 2011.14969) with `softmax`; Sriramanan et al. 2021 (Towards Efficient and Effective
    Adversarial Training) with `nuclear`.

    Args:
        clean_logits: (N, K) logits at the images, which are constants.
        guide: Name of the distance.
        weight: Weight of the distance beside the cross-entropy.
    """
    distance = DISTANCES[guide]

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels) + weight * distance(clean_logits, logits)

    return loss


@dataclass(kw_only=True)
class Guided(GuidedDeclaration, Fgsm):
    """FGSM on the cross-entropy and, in every `guide_every`-th step, the distance of the outputs from the clean ones.

    The clean outputs are computed with the attack's batch-norm statistics.
    """

    steps: int = field(default=0, init=False)

    def __call__(self, step: Step) -> Tensor:
        self.steps += 1
        if self.steps % self.guide_every or self.guide_weight == 0:
            return self._attack(step)
        with torch.no_grad(), STATISTICS[self.attack_statistics](step.network):
            clean_logits = step.network(step.images)
        return self._attack(step, loss=guided_loss(clean_logits, self.guide, self.guide_weight))

    @property
    def starts_at_images(self) -> bool:
        return False  # the gradient that the penalty shares is that of the cross-entropy alone

    def state_dict(self) -> dict[str, Any]:
        """Return what `Fgsm` keeps, and the number of steps made."""
        return {**super().state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        super().load_state_dict(state, device)
        self.steps = state["steps"]
