"""Loss terms beside cross-entropy and penalty: pure functions of the logits of clean, adversarial and helper images."""

import math

import torch.nn.functional as F
from torch import Tensor


def trades(clean_logits: Tensor, adversarial_logits: Tensor) -> Tensor:
    """Return KL(p(x) ‖ p(x′)), averaged over the batch and differentiated through both; logits are (N, K).

    With `adversarial_weight` 0, `clean_weight` 1 and beta as the weight of this term, the loss is that of TRADES (Zhang
    et al. 2019, arXiv 1901.08573). Deviation: the adversarial images are those of the training attack, which ascends
    the cross-entropy instead of this divergence.
    """
    clean = F.log_softmax(clean_logits, dim=1)
    adversarial = F.log_softmax(adversarial_logits, dim=1)
    return F.kl_div(adversarial, clean, reduction="batchmean", log_target=True)


def boosted(adversarial_logits: Tensor, labels: Tensor) -> Tensor:
    """Return −log(1 − max p_k(x′)) over the wrong classes k, averaged over the batch; logits are (N, K).

    Wang et al. 2020 (MART, "Improving Adversarial Robustness Requires Revisiting Misclassified Examples"): with the
    cross-entropy it is their boosted cross-entropy. It is computed from logarithms, so it stays finite where the
    network is sure of a wrong class.
    """
    wrong = adversarial_logits.scatter(1, labels[:, None], -math.inf)
    others = adversarial_logits.scatter(1, wrong.argmax(dim=1, keepdim=True), -math.inf)
    return (adversarial_logits.logsumexp(dim=1) - others.logsumexp(dim=1)).mean()


def mart(clean_logits: Tensor, adversarial_logits: Tensor, labels: Tensor) -> Tensor:
    """Return KL(p(x) ‖ p(x′)) · (1 − p_y(x)), averaged over the batch and differentiated through all; logits (N, K).

    Wang et al. 2020 (MART): with `adversarial_weight` 1, `boosted` of weight 1 and their lambda as the weight of this
    term, the loss is that of MART. Deviation: the adversarial images are those of the training attack.
    """
    clean, adversarial = F.log_softmax(clean_logits, dim=1), F.log_softmax(adversarial_logits, dim=1)
    divergences = F.kl_div(adversarial, clean, reduction="none", log_target=True).sum(dim=1)
    doubt = 1.0 - clean.gather(1, labels[:, None]).squeeze(1).exp()
    return (divergences * doubt).mean()


def helper_images(images: Tensor, adversarial: Tensor) -> Tensor:
    """Return x + 2(x′ − x), clipped to [0, 1]: (N, C, H, W), twice as far as x′ (Rade and Moosavi-Dezfooli 2022)."""
    return (images + 2.0 * (adversarial - images)).clamp(0.0, 1.0)


def hat(helper_logits: Tensor, adversarial_logits: Tensor) -> Tensor:
    """Return the mean cross-entropy of the helper images with the classes predicted at the adversarial images.

    This is the helper-based term of `CURE_fast_adversarial`; logits are (N, K). Deviation from its source, helper-based
    adversarial training (https://openreview.net/forum?id=Azh9QBQ4tR7): there a second network, trained without attack,
    gives the classes. Here the network itself gives them, so the term asks that its prediction stays the same farther
    out.
    """
    return F.cross_entropy(helper_logits, adversarial_logits.argmax(dim=1))
