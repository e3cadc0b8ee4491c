import pytest
import torch
from torch import Tensor, nn

from tune_cure.attacks.attack import Step
from tune_cure.attacks.config import AttackConfig
from tune_cure.attacks.fgsm import fgsm
from tune_cure.attacks.norms import random_start
from tune_cure.attacks.ssat import Ssat, first_fooling
from tune_cure.utils.hyperparameters import build_part


class Threshold(nn.Module):
    """Class 1 above a pixel value of 0.5, else class 0."""

    def forward(self, images: Tensor) -> Tensor:
        value = images.flatten(1)[:, 0]
        return torch.stack([torch.full_like(value, 0.5), value], dim=1)


def test_it_is_the_nearest_of_the_points_beyond_the_boundary() -> None:
    images = torch.tensor([0.0, 0.45, 0.0, 0.9], dtype=torch.float64).view(4, 1, 1, 1)
    adversarial = torch.tensor([1.0, 0.75, 0.3, 0.6], dtype=torch.float64).view(4, 1, 1, 1)
    found = first_fooling(Threshold(), images, adversarial, torch.zeros(4, dtype=torch.long), points=3)
    # 1/3 and 2/3 of the way to 1; 0.55 at once; never, so the end; misclassified without attack, so a third.
    torch.testing.assert_close(found.flatten(), torch.tensor([2 / 3, 0.55, 0.3, 0.8], dtype=torch.float64))


def test_with_one_point_it_is_the_fgsm_example() -> None:
    images, adversarial = torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1)
    found = first_fooling(Threshold(), images, adversarial, torch.zeros(2, dtype=torch.long), points=1)
    assert torch.equal(found, adversarial)


@pytest.mark.parametrize("points", [2, 3, 5])
def test_it_is_what_a_search_of_one_example_after_another_finds(points: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(40, 1, 4, 4, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        labels = network(images).argmax(dim=1)
    start = random_start(images, 0.3, generator)
    adversarial = fgsm(network, images, labels, 0.3, start=start)
    expected, taken = [], set()
    for image, end, label in zip(images, adversarial, labels, strict=True):
        for k in range(1, points + 1):
            point = image + k / points * (end - image)
            if network(point[None]).argmax() != label:
                break
        taken.add(k)
        expected.append(point)
    found = first_fooling(network, images, adversarial, labels, points=points)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-9, atol=1e-12)
    assert len(taken) > 1


def test_an_image_that_fools_the_network_at_the_attacks_start_is_trained_on_as_it_is() -> None:
    network = Threshold()
    images = torch.tensor([0.9, 0.45, 0.3], dtype=torch.float64).view(3, 1, 1, 1)
    values = {"attack": "ssat", "init": "zero", "epsilon": 0.4, "alpha": 1.0, "ssat_points": 2}
    part = build_part(Ssat, AttackConfig.model_validate(values))
    for clean_grad in (None, torch.ones(3, 1, 1, 1, dtype=torch.float64)):  # the pass at the start is another's, too
        found = part(Step(network, images, torch.zeros(3, dtype=torch.long), clean_grad=clean_grad))
        torch.testing.assert_close(found.flatten(), torch.tensor([0.9, 0.65, 0.7], dtype=torch.float64))
