import torch
from torch import nn

from tune_cure.attacks.fmn import fmn


def test_on_a_linear_model_the_distance_found_is_the_margin_over_the_l1_norm_of_the_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2).double())
    images = 0.4 + 0.2 * torch.rand(20, 1, 4, 4, dtype=torch.float64)  # far enough from 0 and 1
    with torch.no_grad():
        model[1].bias -= model(images).mean(dim=0)
        labels = model(images).argmax(dim=1)
        logits = model(images)
    margin = logits.gather(1, labels[:, None]).squeeze(1) - logits.gather(1, 1 - labels[:, None]).squeeze(1)
    exact = margin / (model[1].weight[0] - model[1].weight[1]).abs().sum()
    nearest = fmn(model, images, labels, steps=300)
    distance = (nearest - images).abs().amax(dim=(1, 2, 3))
    assert (model(nearest).argmax(dim=1) != labels).all()
    assert (distance >= exact.detach() * (1 - 1e-9)).all()
    assert (distance <= 1.1 * exact.detach() + 1e-3).all()


def test_a_misclassified_image_is_its_own_nearest_adversarial_example(network, batch) -> None:
    images, _ = batch
    network.eval()
    wrong = network(images).argmin(dim=1)
    assert torch.equal(fmn(network, images, wrong), images)


def test_points_stay_in_pixel_range_and_the_network_is_left_alone(network, batch) -> None:
    images, labels = batch
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    nearest = fmn(network, images, labels, steps=10)
    assert nearest.min() >= 0
    assert nearest.max() <= 1
    assert all(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
