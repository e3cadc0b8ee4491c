"""The penalty of nuclear norm adversarial training (Sriramanan et al. 2021, "Towards Efficient and Effective …")."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tune_cure.regularizers.regularizer import LogitRegularizer, PenaltyStep


def nuclear_distance(clean_logits: Tensor, adversarial_logits: Tensor) -> Tensor:
    """Return ‖f(x′) − f(x)‖_* / N, the sum of the singular values of the (N, K) difference of the logits over N.

    Sriramanan et al. 2021 (Towards Efficient and Effective Adversarial Training, NeurIPS 2021), the second term of the
    loss of nuclear norm adversarial training (NuAT), divided by the number of examples as in the authors' code. On a
    GPU the host waits for the decomposition.

    Returns:
        (N,) times the same number, because the norm is one of the whole batch: the mean is the penalty. Not finite
        where a logit is not.
    """
    difference = adversarial_logits - clean_logits
    finite = difference.isfinite().all()
    # A decomposition of numbers that are not finite would raise an error.
    norm = torch.linalg.matrix_norm(torch.where(finite, difference, 0.0), ord="nuc")
    return torch.where(finite, norm / len(difference), math.nan).expand(len(difference))


@dataclass(kw_only=True)
class Nuat(LogitRegularizer):
    """NuAT: nuclear norm of the batch's differences of logits between image and adversarial image."""

    points: ClassVar[tuple[str, ...]] = ("clean", "adversarial")

    def __call__(self, step: PenaltyStep) -> Tensor:
        return nuclear_distance(step.logits["clean"], step.logits["adversarial"])
