"""Catastrophic overfitting: a network that comes to withstand the single steps it is trained with, and nothing else."""

import math

CATASTROPHIC_DROP = 0.2  # of PGD accuracy between two epochs
MISALIGNED = 0.3  # a gradient alignment below this


def catastrophic_overfitting(before: dict[str, float] | None, now: dict[str, float]) -> bool:
    """Whether a network has come to withstand single steps alone. Either of two signs will do.

    - Between two epochs PGD accuracy collapsed while FGSM accuracy did not fall: by more than 0.2, as in Wong et al.
      2020 (arXiv 2001.03994, section 5.2), or to less than a half (a network that has 0.18 cannot fall by 0.2).
    - PGD accuracy is less than half of FGSM accuracy, and the FGSM step lowers the mean loss or the gradient alignment
      is below 0.3: gradients do not point to where the loss is high. This also finds a network that never had PGD
      accuracy to lose.

    Differences from a half on count only beyond three standard errors.

    Args:
        before: `evaluation.METRICS` of the epoch before; None if there is none.
        now: Those of the epoch.
    """
    pgd, fgsm = now["pgd_accuracy"], now["fgsm_accuracy"]
    noise = 3 * math.hypot(now["pgd_accuracy_se"], now["fgsm_accuracy_se"])
    misled = now["fgsm_loss_increase"] < 0 or now["gradient_alignment"] < MISALIGNED
    if misled and pgd < fgsm / 2 and fgsm - pgd > noise:
        return True
    if before is None or fgsm < before["fgsm_accuracy"]:
        return False
    fall = before["pgd_accuracy"] - pgd
    noise = 3 * math.hypot(before["pgd_accuracy_se"], now["pgd_accuracy_se"])
    return fall > CATASTROPHIC_DROP or (pgd < before["pgd_accuracy"] / 2 and fall > noise)
