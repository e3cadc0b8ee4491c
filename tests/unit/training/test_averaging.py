import pytest
import torch
from torch import nn

from tune_cure.training.averaging import WeightAverage


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2))


def set_to(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        model[0].weight.fill_(value)
        model[1].running_mean.fill_(10 * value)
        model[1].num_batches_tracked.fill_(int(value))


def test_swa_is_the_mean_over_the_epochs_after_its_start(model: nn.Module) -> None:
    average = WeightAverage("swa", model, decay=0.9, start=0.5)
    for epoch, value in enumerate([1.0, 2.0, 6.0, 10.0], start=1):
        set_to(model, value)
        average.after_step(model, epoch)
        average.after_epoch(model, epoch / 4)
        assert (average.model is None) == (epoch <= 2)
    assert average.model is not None
    assert average.model[0].weight.flatten().tolist() == pytest.approx([8.0, 8.0])
    assert average.model[1].running_mean.tolist() == pytest.approx([80.0, 80.0])


def test_ema_forgets_the_first_steps_soon_and_then_decays_as_told(model: nn.Module) -> None:
    average = WeightAverage("ema", model, decay=0.4, start=0.0)
    values, expected = [1.0, 2.0, 6.0, 3.0, 5.0, 4.0, 9.0], 1.0
    for step, value in enumerate(values, start=1):
        set_to(model, value)
        average.after_step(model, step)
        average.after_epoch(model, 1.0)
        if step > 1:  # the first weights are taken as they are
            decay = min(0.4, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * value
    assert average.model is not None
    assert average.model[0].weight.flatten().tolist() == pytest.approx([expected] * 2)
    assert average.model[1].running_mean.tolist() == pytest.approx([10 * expected] * 2)


class Tied(nn.Module):
    """Layers of which two share a weight, and two others the memory of theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.third, self.last = (nn.Linear(1, 1, bias=False) for _ in range(3))
        self.second = self.first
        self.fourth = nn.Linear(1, 1, bias=False)
        self.fourth.weight.data = self.third.weight.data


@pytest.mark.parametrize(("kind", "expected"), [("swa", 1.5), ("ema", 2.125)])
def test_weights_that_layers_share_are_averaged_as_any_other(kind: str, expected: float) -> None:
    model = Tied()
    average = WeightAverage(kind, model, decay=0.5, start=0.0)
    for epoch, value in enumerate([0.0, 1.0, 2.0, 3.0], start=1):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(value)
        average.after_step(model, 100 + epoch)
        average.after_epoch(model, epoch / 4)
    weights = average.state_dict()["weights"]
    assert sorted(weights) == [f"{name}.weight" for name in ("first", "fourth", "last", "second", "third")]
    assert [weight.item() for weight in weights.values()] == [expected] * 5


def test_the_average_leaves_the_network_alone(model: nn.Module) -> None:
    average = WeightAverage("ema", model, decay=0.9, start=0.0)
    for step, value in ((1, 1.0), (2, 5.0)):
        set_to(model, value)
        average.after_step(model, step)
    assert model[0].weight.flatten().tolist() == [5.0, 5.0]
