"""Courses of a penalty's weight over a training, by name: functions of the fraction of epochs that are done.

A course gives the share of lambda that counts in an epoch. It is constant within an epoch, as in the code of both
papers. To add one, write it and add a line to `LAMBDA_SCHEDULES`.
"""

from collections.abc import Callable


def constant(_: float) -> float:
    """Return 1 throughout."""
    return 1.0


def ramp(fraction: float) -> float:
    """Return a line from 0 in the first epoch to 1 after nine tenths of the training, then 1.

    With fewer than 10 epochs the last epoch begins before nine tenths, so the share stays below 1.

    This is the course of nuclear norm adversarial training (Sriramanan et al. 2021, NuAT).
    """
    return min(1.0, fraction / 0.9)


def late(fraction: float) -> float:
    """Return 1/4 in the first 86 of 100 epochs, then 1; with fewer than 8 epochs 1/4 throughout.

    This is the course of guided adversarial training (Sriramanan et al. 2020, arXiv 2011.14969).
    """
    return 1.0 if fraction >= 0.86 else 0.25


LAMBDA_SCHEDULES: dict[str, Callable[[float], float]] = {"constant": constant, "ramp": ramp, "late": late}
