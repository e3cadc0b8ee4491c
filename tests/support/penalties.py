"""Penalties by the names of `delta`, each built as a training run builds it."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from tune_cure.gradients.input_gradients import Forward
from tune_cure.regularizers.registry import REGULARIZERS
from tune_cure.regularizers.regularizer import PenaltyStep
from tune_cure.training.delta import split_delta
from tune_cure.utils.hyperparameters import build_part

DELTAS = ("classic", "gradient", "random", "fgsm", "linf", "gradalign", "llr", "none")
"""The penalties with a formula in tests/unit/regularizers/test_penalties.py; a new one needs no entry here."""


def penalty(
    name: str,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    h: float,
    epsilon: float,
    norm: str = "linf",
    adversarial: Tensor | None = None,
    generator: torch.Generator | None = None,
    squared: bool = False,
    divide_by_h: bool = False,
    two_sided: bool = True,
    statistics: str = "running",
    loss_scale: float = 1.0,
    clean_grad: Tensor | None = None,
    adversarial_forward: Forward | None = None,
) -> Tensor:
    """(N,) values of the penalty that `delta: name` stands for."""
    parts = split_delta(name)
    config = SimpleNamespace(
        epsilon=epsilon, norm=norm, direction=parts["direction"], h=h, penalty_squared=squared,
        penalty_divide_by_h=divide_by_h, penalty_two_sided=two_sided, penalty_statistics=statistics,
    )  # fmt: skip
    step = PenaltyStep(
        network, images, labels, generator, loss_scale, clean_grad,
        adversarial=adversarial, adversarial_forward=adversarial_forward,
    )  # fmt: skip
    return build_part(REGULARIZERS.resolve(parts["regularizer"]), config)(step)
