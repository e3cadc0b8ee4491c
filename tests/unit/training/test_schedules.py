import math

import pytest
import torch

from tune_cure.training.schedules import SCHEDULES, learning_rate


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_stays_between_lr_min_and_lr_max_and_touches_lr_max(name: str) -> None:
    rates = [learning_rate(name, i / 1000, lr_max=0.3, lr_min=0.02) for i in range(1001)]
    assert min(rates) >= 0.02 - 1e-12
    assert max(rates) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("name", "fraction", "expected"),
    [
        ("piecewise", 0.49, 1.0),
        ("piecewise", 0.5, 0.1),
        ("piecewise", 0.75, 0.01),
        ("cyclic", 0.0, 0.0),
        ("cyclic", 0.25, 0.5),
        ("cyclic", 0.5, 1.0),
        ("cyclic", 1.0, 0.0),
        ("linear", 0.2, 1.0),
        ("linear", 0.5, 0.55),
        ("linear", 2 / 3, 0.1),
        ("linear", 1.0, 0.01),
        ("cosine", 1 / 3, 0.5 * (1 + math.cos(math.pi / 3))),
        ("cosine", 1.0, 0.0),
        ("superconverge", 0.2, 0.5),
        ("superconverge", 0.4, 1.0),
        ("superconverge", 0.7, 0.5),
        ("multistep", 0.6, 0.1),
        ("onedrop", 0.49, 1.0),
        ("onedrop", 0.5, 0.1),
        ("multipledecay", 0.05, 1.0),
        ("multipledecay", 0.35, 0.7),
        ("multipledecay", 1.0, 0.1),
        ("fixed", 0.9, 1.0),
    ],
)
def test_a_schedule_has_its_published_shape(name: str, fraction: float, expected: float) -> None:
    assert learning_rate(name, fraction, lr_max=2.0) == pytest.approx(2.0 * expected, abs=1e-12)


def test_onecycle_is_the_one_of_pytorch() -> None:
    steps = 4_000
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.3, total_steps=steps, cycle_momentum=False)
    theirs = []
    for _ in range(steps):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(theirs) < steps:
            scheduler.step()
    ours = [learning_rate("onecycle", (step + 0.5) / steps, lr_max=0.3) for step in range(steps)]
    # PyTorch reaches the peak and the end one step earlier, which is nothing in so many steps.
    assert ours == pytest.approx(theirs, abs=0.3 * math.pi / 2 / (0.3 * steps))
    assert max(ours) == pytest.approx(0.3, rel=1e-6)
