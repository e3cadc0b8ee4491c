import math

import pytest
import torch

from tune_cure.training.losses import boosted, hat, helper_images, mart, trades


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


LABELS = torch.tensor([0, 1, 2, 0, 1])


def test_the_boosted_term_pushes_the_likeliest_wrong_class_down(logits) -> None:
    expected = 0.0
    for row, label in zip(logits[1].detach().softmax(dim=1).tolist(), LABELS.tolist(), strict=True):
        expected -= math.log(1 - max(p for k, p in enumerate(row) if k != label)) / 5
    assert boosted(logits[1], LABELS).item() == pytest.approx(expected, rel=1e-9)


def test_the_boosted_term_of_a_certain_mistake_is_its_margin_and_has_a_gradient() -> None:
    sure = torch.tensor([[0.0, 200.0]], requires_grad=True)
    loss = boosted(sure, torch.tensor([0]))
    assert loss.item() == 200.0
    (slope,) = torch.autograd.grad(loss, sure)
    assert slope.tolist() == [[-1.0, 1.0]]


def test_mart_weighs_each_divergence_by_the_doubt_in_the_label(logits) -> None:
    expected = 0.0
    rows = zip(*(part.detach().softmax(dim=1).tolist() for part in logits), LABELS.tolist(), strict=True)
    for clean, adversarial, label in rows:
        divergence = sum(p * math.log(p / q) for p, q in zip(clean, adversarial, strict=True))
        expected += divergence * (1 - clean[label]) / 5
    assert mart(*logits, LABELS).item() == pytest.approx(expected, rel=1e-9)


def test_mart_moves_the_doubt_too(logits) -> None:
    """The weight 1 − p_y(x) is differentiated, as the paper's loss says: it is no constant."""
    clean, adversarial = logits
    constant = 1 - clean.detach().softmax(dim=1)[range(5), LABELS]
    divergences = (clean.softmax(1) * (clean.log_softmax(1) - adversarial.log_softmax(1))).sum(1)
    (whole,) = torch.autograd.grad(mart(clean, adversarial, LABELS), clean, retain_graph=True)
    (part,) = torch.autograd.grad((divergences * constant).mean(), clean)
    assert not torch.allclose(whole, part)


def test_helper_images_are_twice_as_far_and_in_pixel_range() -> None:
    images = torch.tensor([0.5, 0.5, 0.95, 0.0])
    adversarial = torch.tensor([0.6, 0.4, 1.0, 0.0])
    torch.testing.assert_close(helper_images(images, adversarial), torch.tensor([0.7, 0.3, 1.0, 0.0]))


def test_hat_asks_for_the_class_predicted_at_the_adversarial_images(logits) -> None:
    helper, adversarial = logits
    expected = -helper.log_softmax(dim=1)[range(5), adversarial.argmax(dim=1)].mean()
    torch.testing.assert_close(hat(helper, adversarial), expected)
