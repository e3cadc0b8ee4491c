"""The attack of guided adversarial training (Sriramanan et al. 2020, arXiv 2011.14969) and of NuAT (2021)."""

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from tune_cure.attacks.attack import Step
from tune_cure.attacks.declarations import GuidedDeclaration
from tune_cure.attacks.fgsm import Fgsm
from tune_cure.gradients.batch_norm_mode import batch_statistics
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

    `lambda_schedule` applies to the distance's weight, too. As in the authors' code, the clean outputs are normalized
    by the batch's statistics, in the pass that the loss makes at the images if it makes one. Deviation: steps are
    counted over the whole training, not anew in each epoch. With `penalty_every`, those with a penalty are counted.
    """

    def __call__(self, step: Step) -> Tensor:
        weight = self.guide_weight * step.penalty_share
        if not self.host_values(step.number) or weight == 0:
            return self._attack(step)
        if step.clean_logits is not None:
            clean_logits = step.clean_logits()
        else:
            with torch.no_grad(), batch_statistics(step.network):
                clean_logits = step.network(step.images)
        return self._attack(step, loss=guided_loss(clean_logits, self.guide, weight))

    @property
    def starts_at_images(self) -> bool:
        return False  # the gradient that the penalty shares is that of the cross-entropy alone

    @property
    def can_be_recorded(self) -> bool:
        return self.guide != "nuclear" or self.guide_weight == 0  # the decomposition waits

    def host_values(self, number: int) -> Hashable:
        """Return True if the step has the distance."""
        return (number + 1) % self.guide_every == 0
