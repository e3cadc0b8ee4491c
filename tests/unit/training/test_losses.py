import math

import pytest
import torch

from tune_cure.training.losses import hat, helper_images, trades


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, 3, dtype=torch.float64, generator=generator).requires_grad_().unbind()


def test_trades_is_the_mean_divergence_from_the_clean_prediction(logits) -> None:
    expected = 0.0
    for clean, adversarial in zip(*(part.detach().softmax(dim=1).tolist() for part in logits), strict=True):
        expected += sum(p * math.log(p / q) for p, q in zip(clean, adversarial, strict=True)) / 5
    assert trades(*logits).item() == pytest.approx(expected, rel=1e-12)
    assert trades(logits[0], logits[0]).item() == pytest.approx(0, abs=1e-12)


def test_trades_moves_both_predictions(logits) -> None:
    assert all(slope.abs().min() > 0 for slope in torch.autograd.grad(trades(*logits), logits))


def test_helper_images_are_twice_as_far_and_in_pixel_range() -> None:
    images = torch.tensor([0.5, 0.5, 0.95, 0.0])
    adversarial = torch.tensor([0.6, 0.4, 1.0, 0.0])
    torch.testing.assert_close(helper_images(images, adversarial), torch.tensor([0.7, 0.3, 1.0, 0.0]))


def test_hat_asks_for_the_class_predicted_at_the_adversarial_images(logits) -> None:
    helper, adversarial = logits
    expected = -helper.log_softmax(dim=1)[range(5), adversarial.argmax(dim=1)].mean()
    torch.testing.assert_close(hat(helper, adversarial), expected)
