import statistics

import pytest
import torch
from torch import Tensor, nn

from tests.support.networks import QuadraticLoss
from tune_cure.attacks.registry import NORMS
from tune_cure.regularizers.elle import AdaptiveElle, linearity_error
from tune_cure.regularizers.regularizer import PenaltyStep

EPSILON = 0.1


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def three_points(images: Tensor, norm: str) -> tuple[Tensor, Tensor, Tensor]:
    """The ends of the lines and the shares between them, as `linearity_error` draws them."""
    random = generator()
    first, second = (images + NORMS[norm].noise(images, EPSILON, random) for _ in range(2))
    return first, second, torch.rand(len(images), generator=random, dtype=images.dtype)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_error_is_that_of_the_papers_formula_for_one_example_after_another(
    norm: str, network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    images, labels = batch
    network.eval()
    first, second, shares = three_points(images, norm)
    expected = []
    for a, b, share, label in zip(first, second, shares.tolist(), labels.tolist(), strict=True):
        losses = [
            -network(point[None]).log_softmax(dim=1)[0, label].item() for point in (a, b, (1 - share) * a + share * b)
        ]
        expected.append((losses[2] - (1 - share) * losses[0] - share * losses[1]) ** 2)
    found = linearity_error(network, images, labels, epsilon=EPSILON, norm=norm, generator=generator())
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


def test_the_error_of_a_quadratic_loss_is_its_second_difference() -> None:
    """On a line with ends a and b, a quadratic with Hessian A lies ½ s(1 − s)(a − b)ᵀA(a − b) below its chord."""
    model = QuadraticLoss(12)
    images = torch.rand(5, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    first, second, shares = three_points(images, "linf")
    between = (first - second).flatten(1)
    below = 0.5 * shares * (1 - shares) * torch.einsum("ni,ij,nj->n", between, model.hessian, between)
    found = linearity_error(model, images, torch.zeros(5, dtype=torch.long), epsilon=EPSILON, generator=generator())
    torch.testing.assert_close(found, below.square(), rtol=1e-9, atol=0)


def adaptive(**hyperparameters: float) -> AdaptiveElle:
    return AdaptiveElle(
        epsilon=EPSILON, norm="linf", penalty_two_sided=True, penalty_statistics="running", **hyperparameters
    )


def test_the_weight_follows_the_authors_rule() -> None:
    """A jump counts from the next step on, and only beside more than two earlier errors, as in the authors' code."""
    errors = [1.0, 1.2, 5.0, 1.1, 8.0, 1.0, 1.1, 20.0, float("nan"), 1.0, 1.0]
    part = adaptive(elle_sensitivity=2.0, elle_decay=0.9)
    earlier: list[float] = []
    expected, weight = [], 0.0
    for error in errors:
        expected.append(weight)
        if error != error:  # what overflowed is not remembered
            continue
        threshold = statistics.fmean(earlier) + 2.0 * statistics.pstdev(earlier) if earlier else 0.0
        weight = 1.0 if len(earlier) > 2 and error > threshold else 0.9 * weight
        earlier.append(error)
    found = [part._adapt(torch.tensor(error, dtype=torch.float64)).item() for error in errors]
    assert found == pytest.approx(expected, rel=1e-12)
    assert found[:5] == [0.0] * 5  # 5.0 jumps beside two earlier errors, which are too few
    assert found[5] == found[8] == found[9] == 1.0
    assert found[7] == pytest.approx(0.81)


def test_the_penalty_is_the_error_times_the_weight(network: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    network.eval()
    error = linearity_error(network, *batch, epsilon=EPSILON, generator=generator())
    part = adaptive()
    assert part(PenaltyStep(network, *batch, generator())).tolist() == [0.0] * 6  # nothing to compare the first with
    part.load_state_dict({"history": torch.tensor([3.0, 1e-9, 0.0, 0.0], dtype=torch.float64)}, torch.device("cpu"))
    assert part(PenaltyStep(network, *batch, generator())).tolist() == [0.0] * 6  # it jumps, for the next step
    history = part.state_dict()["history"]
    assert history[0] == 4
    assert history[3] == 1
    assert torch.equal(part(PenaltyStep(network, *batch, generator())), error)


def test_without_decay_the_weight_stays_and_with_full_decay_it_is_gone_at_once() -> None:
    for decay, after in ((1.0, 1.0), (0.0, 0.0)):
        part = adaptive(elle_decay=decay)
        for error in (1.0, 1.0, 1.0, 5.0, 1.0, 1.0):
            weight = part._adapt(torch.tensor(error, dtype=torch.float64))
        assert weight.item() == after
