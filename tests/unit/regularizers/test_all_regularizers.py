"""What every regularizer must do, by its name in the registry."""

import pytest
import torch
from torch import Tensor, nn

from tune_cure.attacks.fgsm import fgsm
from tune_cure.attacks.norms import random_start
from tune_cure.gradients.batch_norm_mode import STATISTICS, batch_statistics
from tune_cure.regularizers.config import RegularizerConfig
from tune_cure.regularizers.registry import REGULARIZERS
from tune_cure.regularizers.regularizer import POINTS, PenaltyStep, Regularizer
from tune_cure.training.config import TrainingConfig
from tune_cure.utils.hyperparameters import build_part, declared_hyperparameters

EPSILON = 0.1
NAMES = list(REGULARIZERS)


def build(name: str, **changes: object) -> Regularizer:
    values = {"regularizer": name, "epsilon": EPSILON, **changes}
    return build_part(REGULARIZERS.resolve(name), TrainingConfig.model_validate(values))


def penalties(name: str, network: nn.Module, batch: tuple[Tensor, Tensor], **changes: object) -> Tensor:
    """The penalties of a step that is not a run's first, in which one that compares steps has nothing to compare."""
    start = random_start(batch[0], EPSILON, torch.Generator().manual_seed(7))
    adversarial = fgsm(network, *batch, EPSILON, start=start)
    part = build(name, **changes)
    if name == "elle_a":  # the step before had an error out of the ordinary, so that this one is penalized
        part.load_state_dict({"history": torch.tensor([4.0, 0.0, 0.0, 1.0], dtype=torch.float64)}, batch[0].device)
    if name == "aaer":  # an abnormal example, whose loss the step lowers, and farther than it raises the others'
        start, adversarial = start.clone(), adversarial.clone()
        start[0], adversarial[0] = fgsm(network, *batch, 3 * EPSILON, init="zero")[0], batch[0][0]
    points = {"clean": batch[0], "start": start, "adversarial": adversarial}
    with batch_statistics(network):
        logits = {point: network(points[point]) for point in part.points}
    return part(PenaltyStep(network, *batch, torch.Generator().manual_seed(5), adversarial=adversarial, logits=logits))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("name", NAMES)
def test_it_is_one_finite_number_for_each_example(
    name: str, statistics: str, norm: str, network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    network.train()
    value = penalties(name, network, batch, penalty_statistics=statistics, norm=norm)
    assert value.shape == (len(batch[0]),)
    assert value.isfinite().all()
    assert (value >= 0).all()
    assert (value.sum() > 0) == (name != "none")


@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("name", NAMES)
def test_it_leaves_network_images_and_random_state_as_they_were(
    name: str, statistics: str, network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = torch.get_rng_state()
    penalties(name, network, batch, penalty_statistics=statistics)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not batch[0].requires_grad
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "none"])
def test_it_reaches_every_parameter(name: str, network: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    gradients = torch.autograd.grad(
        penalties(name, network, batch).sum(), list(network.parameters()), allow_unused=True
    )
    assert sum(slope is not None and bool(slope.abs().max() > 0) for slope in gradients) >= len(gradients) - 1


@pytest.mark.parametrize("name", [name for name in NAMES if name != "none"])
def test_differentiating_both_gradients_makes_a_difference_exactly_where_it_says_so(
    name: str, network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    both, one = (
        torch.autograd.grad(penalties(name, network, batch, penalty_two_sided=flag).sum(), network[0].weight)[0]
        for flag in (True, False)
    )
    assert torch.allclose(both, one) != build(name).uses_two_sided


@pytest.mark.parametrize("name", NAMES)
def test_its_ball_makes_a_difference_exactly_where_it_says_so(
    name: str, network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    network.eval()
    value, other = penalties(name, network, batch), penalties(name, network, batch, epsilon=EPSILON / 2)
    assert torch.equal(value, other) != build(name).uses_ball


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is_and_documents_its_hyperparameters(name: str) -> None:
    part = REGULARIZERS[name]
    assert part.__doc__
    declared = declared_hyperparameters(part)
    assert all(hyperparameter.description.endswith(".") for hyperparameter in declared.values())
    assert declared.keys() <= RegularizerConfig.model_fields.keys()
    assert set(build(name).inactive()) <= set(declared)


@pytest.mark.parametrize("name", NAMES)
def test_it_names_known_points_and_needs_an_attack_where_these_come_from_one(name: str) -> None:
    points = build(name).points
    assert set(points) <= set(POINTS)
    assert build(name).needs_attack or not {"start", "adversarial"} & set(points)
