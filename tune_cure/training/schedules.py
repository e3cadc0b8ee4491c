"""Learning-rate schedules by name, as pure functions of the fraction of training that is done.

A schedule is a shape from [0, 1] to [0, 1]. `learning_rate` stretches it between `lr_min` and `lr_max`, so every
schedule keeps to both. All names but `onecycle` are those of `CURE_fast_adversarial`. With `lr_min` 0 their shapes are
those of Rice et al. 2020 (arXiv 2002.11569); `cyclic` and `multistep` are those of Wong et al. 2020 (arXiv 2001.03994).
Deviation: `onedrop` drops after half of the epochs, to a tenth; there, both were settings.

To add one, write its shape and add a line to `SCHEDULES`.
"""

import itertools
import math
from collections.abc import Callable

from tune_cure.utils.registry import Registry


def _interpolate(fraction: float, *points: tuple[float, float]) -> float:
    """Interpolate linearly between `points`, which are sorted by their first coordinate."""
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if fraction <= x1:
            return y0 + (y1 - y0) * (fraction - x0) / (x1 - x0)
    return points[-1][1]


def piecewise(fraction: float) -> float:
    """Return 1 for the first half, 1/10 until three quarters, then 1/100."""
    return 1.0 if fraction < 0.5 else 0.1 if fraction < 0.75 else 0.01


def cyclic(fraction: float) -> float:
    """Return one triangle: up from 0 to 1 over the first half, down to 0 over the second."""
    return _interpolate(fraction, (0.0, 0.0), (0.5, 1.0), (1.0, 0.0))


def superconverge(fraction: float) -> float:
    """Return one triangle with its peak at two fifths."""
    return _interpolate(fraction, (0.0, 0.0), (0.4, 1.0), (1.0, 0.0))


def linear(fraction: float) -> float:
    """Return 1 for the first third, then straight lines to 1/10 at two thirds and to 1/100 at the end."""
    return _interpolate(fraction, (0.0, 1.0), (1 / 3, 1.0), (2 / 3, 0.1), (1.0, 0.01))


def cosine(fraction: float) -> float:
    """Return half a cosine from 1 to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * fraction))


def onecycle(fraction: float) -> float:
    """Return half a cosine up from 1/25 over the first three tenths, then half a cosine down to 1/250,000.

    The one-cycle policy (Smith and Topin 2018, arXiv 1708.07120) with the shape and the defaults of
    `torch.optim.lr_scheduler.OneCycleLR`. The momentum is not cycled.
    """
    first, last, peak = 1 / 25, 1 / 25e4, 0.3
    if fraction < peak:
        return first + (1.0 - first) * (1.0 - cosine(fraction / peak))
    return last + (1.0 - last) * cosine((fraction - peak) / (1.0 - peak))


def onedrop(fraction: float) -> float:
    """Return 1 for the first half, then 1/10."""
    return 1.0 if fraction < 0.5 else 0.1


def multipledecay(fraction: float) -> float:
    """Return ten steps down, each by a tenth: 1, 0.9, …, 0.1."""
    return 1.0 - min(math.floor(10 * fraction), 9) / 10


def fixed(fraction: float) -> float:
    """Return 1 throughout."""
    return 1.0


SCHEDULES: Registry[Callable[[float], float]] = Registry(
    "schedule",
    {
        "piecewise": piecewise,
        "multistep": piecewise,  # Wong et al.; the original project mistook the learning rates for the milestones
        "cyclic": cyclic,
        "superconverge": superconverge,
        "linear": linear,
        "onedrop": onedrop,
        "multipledecay": multipledecay,
        "cosine": cosine,
        "onecycle": onecycle,
        "fixed": fixed,
    },
)


def learning_rate(name: str, fraction: float, *, lr_max: float, lr_min: float = 0.0) -> float:
    """Return the learning rate of schedule `name` when `fraction` (0 to 1) of all training steps are done."""
    return lr_min + (lr_max - lr_min) * SCHEDULES.resolve(name)(fraction)
