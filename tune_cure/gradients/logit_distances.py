"""Distances between the logits of two images, which attacks ascend and penalties descend."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def softmax_distance(clean_logits: Tensor, adversarial_logits: Tensor) -> Tensor:
    """Return the (N,) values ‖p(x′) − p(x)‖₂² of the predicted probabilities; logits are (N, K).

    Sriramanan et al. 2020 (arXiv 2011.14969), the second term of the loss of guided adversarial training (GAT).
    """
    return (adversarial_logits.softmax(dim=1) - clean_logits.softmax(dim=1)).square().sum(dim=1)


def nuclear_distance(clean_logits: Tensor, adversarial_logits: Tensor) -> Tensor:
    """Return ‖f(x′) − f(x)‖_* / N, the sum of the singular values of the (N, K) difference of the logits over N.

    Sriramanan et al. 2021 (Towards Efficient and Effective Adversarial Training, NeurIPS 2021), the second term of the
    loss of nuclear norm adversarial training (NuAT), divided by the number of examples. On a GPU the host waits
    for the decomposition.

    Returns:
        (N,) times the same number, because the norm is one of the whole batch: the mean is the penalty. Not finite
        where a logit is not.
    """
    difference = adversarial_logits - clean_logits
    finite = difference.isfinite().all()
    # A decomposition of numbers that are not finite would raise an error.
    norm = torch.linalg.matrix_norm(torch.where(finite, difference, 0.0), ord="nuc")
    return torch.where(finite, norm / len(difference), math.nan).expand(len(difference))


Distance = Callable[[Tensor, Tensor], Tensor]
DISTANCES: dict[str, Distance] = {"softmax": softmax_distance, "nuclear": nuclear_distance}
"""From (N, K) logits at the images and at other points to (N,) distances, by name."""
