import pytest
import torch
from torch import nn

from tune_cure.optimizers import OPTIMIZERS

LR, DECAY, MOMENTUM = 0.1, 0.01, 0.8


def expected(name: str, nesterov: bool, weight: float, gradients: list[float]) -> float:
    """The textbook's rule, step by step, on one number."""
    first = second = 0.0
    for step, gradient in enumerate(gradients, start=1):
        if name == "adamw":
            weight -= LR * DECAY * weight
        else:
            gradient += DECAY * weight
        if name == "sgd":
            first = MOMENTUM * first + gradient
            weight -= LR * (gradient + MOMENTUM * first if nesterov else first)
        else:
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            weight -= LR * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)) ** 0.5 + 1e-8)
    return weight


@pytest.mark.parametrize(
    ("name", "nesterov"), [("sgd", False), ("sgd", True), ("adam", False), ("adamw", False)], ids=str
)
def test_an_optimiser_steps_by_its_textbook_rule(name: str, nesterov: bool) -> None:
    weight = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    optimizer = OPTIMIZERS[name]([weight], lr=LR, weight_decay=DECAY, momentum=MOMENTUM, nesterov=nesterov, fused=False)
    gradients = [0.5, -1.0, 0.25]
    for gradient in gradients:
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    assert weight.item() == pytest.approx(expected(name, nesterov, 2.0, gradients), rel=1e-12)
