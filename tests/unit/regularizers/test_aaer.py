import pytest
import torch
from torch import Tensor

from tune_cure.regularizers.aaer import abnormal_variation

GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.randint(0, 4, (12,), generator=GENERATOR)
START, END = torch.randn(2, 12, 4, dtype=torch.float64, generator=GENERATOR).unbind()


def of_the_authors(start: Tensor, end: Tensor, labels: Tensor, *, of_loss: float, of_logits: float) -> Tensor:
    """What the authors' code adds to the loss (with λ₁ = 1), example by example."""
    losses = [
        [-row.detach().log_softmax(0)[label] for row, label in zip(part, labels, strict=True)] for part in (start, end)
    ]
    abnormal = [float(before) > float(after) for before, after in zip(*losses, strict=True)]
    moved = [((a.detach() - b) ** 2).sum() for a, b in zip(start, end, strict=True)]
    count = sum(abnormal)
    if not 0 < count < len(labels):
        return end.sum() * 0
    falls = [float(before - after) for before, after, odd in zip(*losses, abnormal, strict=True) if odd]
    of_abnormal = torch.stack([value for value, odd in zip(moved, abnormal, strict=True) if odd]).mean()
    of_normal = sum(value.detach() for value, odd in zip(moved, abnormal, strict=True) if not odd)
    excess = (of_abnormal - of_normal / (len(labels) - count)).clamp(min=0)
    return count / len(labels) * (of_loss * sum(falls) / count + of_logits * excess)


def ends(scale: float) -> Tensor:
    """Logits after the step: those of two classes have moved farther than the others."""
    return START + scale * (END - START) * torch.where(LABELS[:, None] % 2 == 0, 2.0, 0.3)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_it_is_that_of_one_example_after_another(scale: float) -> None:
    end = ends(scale)
    wanted = of_the_authors(START, end, LABELS, of_loss=0.0, of_logits=1.0)
    assert wanted > 0
    assert abnormal_variation(START, end, LABELS).tolist() == pytest.approx([wanted.item()] * 12, rel=1e-9)


def test_it_trains_what_the_authors_code_trains_whose_term_of_the_losses_is_a_constant() -> None:
    moved = [ends(2.0).requires_grad_() for _ in "ab"]
    starts = [START.clone().requires_grad_() for _ in "ab"]
    (1.5 * abnormal_variation(starts[0], moved[0], LABELS).mean()).backward()
    of_the_authors(starts[1], moved[1], LABELS, of_loss=2.5, of_logits=1.5).backward()
    assert moved[0].grad is not None and moved[1].grad is not None
    assert moved[0].grad.abs().max() > 0
    torch.testing.assert_close(moved[0].grad, moved[1].grad, rtol=1e-9, atol=1e-15)
    assert starts[0].grad is None


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["none is abnormal", "all are"])
def test_without_examples_of_both_kinds_it_is_zero_with_a_finite_gradient(sign: float) -> None:
    own = torch.nn.functional.one_hot(LABELS, 4).double()
    end = (START - sign * own).requires_grad_()
    penalty = abnormal_variation(START, end, LABELS)
    penalty.mean().backward()
    assert penalty.tolist() == [0.0] * 12
    assert end.grad is not None
    assert not end.grad.any()


def test_examples_that_move_no_farther_than_the_others_cost_nothing() -> None:
    own = torch.nn.functional.one_hot(LABELS, 4).double()
    direction = torch.where(torch.arange(12)[:, None] < 4, 0.1, -1.0)  # four abnormal ones, little moved
    assert abnormal_variation(START, START + direction * own, LABELS).tolist() == [0.0] * 12
