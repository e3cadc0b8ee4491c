import torch
from torch import nn

from tune_cure.gradients.batch_norm_mode import batch_statistics, evaluation_mode
from tune_cure.gradients.input_gradients import input_gradient


def test_evaluation_mode_restores_each_module_even_one_frozen_on_purpose() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout())
    network.train()
    network[0].eval()
    with evaluation_mode(network):
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network.modules()] == [True, False, True]


def test_input_gradient_of_an_example_does_not_depend_on_its_batch(network, batch) -> None:
    images, labels = batch
    network.eval()
    together = input_gradient(network, images, labels)
    alone = torch.cat([input_gradient(network, images[i : i + 1], labels[i : i + 1]) for i in range(len(images))])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)


def test_input_gradient_matches_central_differences(network, batch) -> None:
    images, labels = batch
    network.eval()
    gradient = input_gradient(network, images, labels)
    direction = torch.randn(images.shape, dtype=images.dtype, generator=torch.Generator().manual_seed(2))
    step = 1e-5
    loss = [
        nn.functional.cross_entropy(network(images + s * step * direction), labels, reduction="none") for s in (1, -1)
    ]
    slope = (loss[0] - loss[1]) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(dim=(1, 2, 3)), slope, rtol=1e-7, atol=1e-10)


def test_a_power_of_two_loss_scale_changes_nothing_in_float64(network, batch) -> None:
    network.eval()
    assert torch.equal(input_gradient(network, *batch), input_gradient(network, *batch, loss_scale=2.0**8))


def test_batch_statistics_are_those_of_training_and_are_not_recorded(network, batch) -> None:
    images, _ = batch
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.eval()
    evaluated = network(images)
    with batch_statistics(network):
        actual = network(images)
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(network(images), evaluated)
    assert torch.equal(network.train()(images), actual)
    assert not torch.equal(actual, evaluated)
