"""Catastrophic overfitting: a network that becomes robust to single-step attacks and to no other."""

import math

CATASTROPHIC_DROP = 0.2
"""Drop of PGD accuracy from one epoch to the next."""
MISALIGNED = 0.3
"""Gradient alignment below which gradients mislead."""


def catastrophic_overfitting(before: dict[str, float] | None, now: dict[str, float]) -> bool:
    """Return whether a network has become robust to single steps alone. Either of two signs is enough.

    - From one epoch to the next, PGD accuracy collapsed while FGSM accuracy did not fall. A collapse is a drop of more
      than 0.2, as in Wong et al. 2020 (arXiv 2001.03994, section 5.2), or to less than half. (Deviation: the second is
      not in the paper; a network with an accuracy of 0.18 cannot fall by 0.2.)
    - PGD accuracy is less than half of FGSM accuracy, and either the FGSM step lowers the mean loss or the gradient
      alignment is below 0.3: gradients do not point to where the loss is high. This also finds a network that never had
      PGD accuracy to lose.

    A comparison with half of an accuracy must hold by more than three standard errors.

    Args:
        before: `metrics.METRICS` of the epoch before; None for the first epoch.
        now: `metrics.METRICS` of the epoch.
    """
    pgd, fgsm = now["pgd_accuracy"], now["fgsm_accuracy"]
    noise = 3 * math.hypot(now["pgd_accuracy_se"], now["fgsm_accuracy_se"])
    gradients_mislead = now["fgsm_loss_increase"] < 0 or now["gradient_alignment"] < MISALIGNED
    if gradients_mislead and pgd < fgsm / 2 and fgsm - pgd > noise:
        return True
    if before is None or fgsm < before["fgsm_accuracy"]:
        return False
    drop = before["pgd_accuracy"] - pgd
    noise = 3 * math.hypot(before["pgd_accuracy_se"], now["pgd_accuracy_se"])
    return drop > CATASTROPHIC_DROP or (pgd < before["pgd_accuracy"] / 2 and drop > noise)
