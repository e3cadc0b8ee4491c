"""Abnormal adversarial examples regularization (Lin, Yu and Liu 2023, arXiv 2404.08154)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tune_cure.gradients.input_gradients import cross_entropy
from tune_cure.regularizers.declarations import StartDeclaration
from tune_cure.regularizers.regularizer import LogitRegularizer, PenaltyStep


def abnormal_variation(start_logits: Tensor, adversarial_logits: Tensor, labels: Tensor) -> Tensor:
    """Return A / N · max(v_abnormal − v_normal, 0), where A of the N examples are abnormal; logits are (N, K).

    An example is abnormal if the attack's step has lowered its loss. v is the mean of ‖f(x′) − f(x₀)‖₂² over the
    abnormal or the other examples, x₀ being the attack's start. f(x₀) and v_normal are constants. Without examples of
    both kinds the penalty is 0.

    Lin, Yu and Liu 2023 (arXiv 2404.08154), as in the authors' code. There the penalty's weight is the product of two
    factors, λ₁ · λ₃. Deviation: their third term, λ₂ times the mean of ℓ(x₀) − ℓ(x′) over the abnormal examples, is
    left out. In their code both losses are constants, so that it trains nothing.

    Returns:
        (N,) times the same number, because the penalty is one of the whole batch: the mean is the penalty.
    """
    start_logits = start_logits.detach()
    with torch.no_grad():
        abnormal = (cross_entropy(start_logits, labels) > cross_entropy(adversarial_logits, labels)).to(start_logits)
        normal = 1.0 - abnormal
        num_abnormal, num_normal = abnormal.sum(), normal.sum()
    variation = (adversarial_logits - start_logits).square().sum(dim=1)
    of_abnormal = (variation * abnormal).sum() / num_abnormal.clamp(min=1.0)
    of_normal = (variation.detach() * normal).sum() / num_normal.clamp(min=1.0)
    excess = torch.where(num_normal > 0, of_abnormal - of_normal, 0.0).clamp(min=0.0)
    return (num_abnormal / len(labels) * excess).expand(len(labels))


@dataclass(kw_only=True)
class Aaer(StartDeclaration, LogitRegularizer):
    """AAER: how much more the step moves the logits of examples whose loss it lowers than those of the others."""

    def __call__(self, step: PenaltyStep) -> Tensor:
        return abnormal_variation(step.logits["start"], step.logits["adversarial"], step.labels)
