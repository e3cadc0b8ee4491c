"""Adversarial weight perturbation, checked against the paper's formula."""

import copy

import pytest
import torch
from torch import Tensor, nn

from tune_cure.attacks.fgsm import fgsm
from tune_cure.attacks.norms import random_start
from tune_cure.attacks.weight_perturbation import perturbed
from tune_cure.data import splits as data
from tune_cure.data.batches import to_float
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Splits
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.interactions import explain_short_training, inactive_hyperparameters
from tune_cure.training.timing import Stopwatch
from tune_cure.training.trainer import Trainer

GAMMA, EPSILON, RATE, STEPS, BATCH = 0.05, 0.1, 0.3, 3, 8


@pytest.fixture(scope="module")
def splits() -> Splits:
    return data.load(DataSpec(dataset="digits", validation=100, train_examples=64))


def trainer(splits: Splits, **hyperparameters: object) -> Trainer:
    values = {"epsilon": EPSILON, "lambda": 0.0, "momentum": 0.0, "weight_decay": 0.0, "batch_size": BATCH}
    config = TrainingConfig.model_validate({**values, "awp_gamma": GAMMA, **hyperparameters})
    return Trainer(config, splits, model=ModelConfig(name="preact_resnet10", width=4))


def batches(splits: Splits) -> list[tuple[Tensor, Tensor]]:
    pixels, labels = splits.train.gather(torch.arange(STEPS * BATCH))
    images = to_float(pixels).to(torch.get_default_dtype())
    return list(zip(images.split(BATCH), labels.split(BATCH), strict=True))


def cross_entropy(model: nn.Module, points: Tensor, labels: Tensor) -> Tensor:
    return -sum(row.log_softmax(0)[label] for row, label in zip(model(points), labels, strict=True)) / BATCH


def divergence(model: nn.Module, images: Tensor, points: Tensor) -> Tensor:
    p, q = (model(part).softmax(dim=1) for part in (images, points))
    return (p * (p / q).log()).sum(dim=1).mean()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("trades", [0.0, 6.0], ids=["AT-AWP", "TRADES-AWP"])
def test_three_steps_are_those_at_the_perturbed_weights(splits: Splits, trades: float) -> None:
    terms = {"adversarial_weight": 0.0, "clean_weight": 1.0, "trades_weight": trades} if trades else {}
    run, reference = trainer(splits, **terms), trainer(splits).model.double().train()
    run.model.double().train()
    for group in run.optimizer.param_groups:
        group["lr"] = RATE
    generator = torch.Generator().manual_seed(0)

    def loss(model: nn.Module, images: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        if not trades:
            return cross_entropy(model, points, labels)
        return cross_entropy(model, images, labels) + trades * divergence(model, images, points)

    for index, (images, labels) in enumerate(batches(splits)):
        run.step(images, labels, index, Stopwatch(run.device))
        points = fgsm(reference, images, labels, EPSILON, start=random_start(images, EPSILON, generator))
        proxy = copy.deepcopy(reference)  # whose running statistics nobody reads
        parameters = [parameter for parameter in proxy.parameters() if parameter.dim() > 1]
        gradients = torch.autograd.grad(loss(proxy, images, points, labels), parameters)
        perturbations = [GAMMA * w.norm() * g / g.norm() for w, g in zip(parameters, gradients, strict=True)]
        weights = [parameter for parameter in reference.parameters() if parameter.dim() > 1]
        before = [parameter.detach().clone() for parameter in reference.parameters()]
        with torch.no_grad():
            for weight, perturbation in zip(weights, perturbations, strict=True):
                weight += perturbation
        steps = torch.autograd.grad(
            forwards_once(loss, reference, images, points, labels), list(reference.parameters())
        )
        with torch.no_grad():
            for parameter, old, step in zip(reference.parameters(), before, steps, strict=True):
                parameter.copy_(old - RATE * step)
    names = reference.state_dict()
    for name, ours in run.model.state_dict().items():
        if "num_batches" not in name:
            torch.testing.assert_close(ours, names[name], rtol=1e-9, atol=1e-11, msg=name)


def forwards_once(loss, model: nn.Module, images: Tensor, points: Tensor, labels: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    """The loss with one pass for each kind of images, so that running statistics move as often as in training."""
    made: dict[int, Tensor] = {}

    def once(part: Tensor) -> Tensor:
        if id(part) not in made:
            made[id(part)] = model(part)
        return made[id(part)]

    once(points)  # the first pass of a step
    return loss(once, images, points, labels)


def test_each_layer_moves_by_gamma_times_its_length_along_its_gradient_and_comes_back() -> None:
    weights = [
        nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0))) for shape in ((3, 4), (2, 3))
    ]
    before = [weight.detach().clone() for weight in weights]
    gradients = [torch.full((3, 4), 1e-12), torch.full((2, 3), torch.inf)]
    with perturbed(weights, gradients, GAMMA):
        moved = weights[0].detach() - before[0]
        assert moved.norm().item() == pytest.approx(GAMMA * before[0].norm().item(), rel=1e-5)
        torch.testing.assert_close(moved, moved[0, 0].expand(3, 4))
        assert torch.equal(weights[1], before[1])  # a gradient that overflowed
    assert all(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))
    with perturbed(weights, [None, torch.zeros(2, 3)], GAMMA):
        assert all(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))


def test_biases_and_batch_norm_are_not_perturbed(splits: Splits) -> None:
    run = trainer(splits)
    names = {id(parameter): name for name, parameter in run.model.named_parameters()}
    perturbed_names = [names[id(weight)] for weight in run.step.weights]
    assert all(name.endswith("weight") for name in perturbed_names)
    assert len(perturbed_names) == sum(parameter.dim() > 1 for parameter in run.model.parameters())


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    "options",
    [
        {"regularizer": "cure", "lambda": 0.5, "init": "zero", "attack_statistics": "batch", "direction": "fgsm"},
        {"regularizer": "fgsm_pgi", "lambda": 5.0, "attack_statistics": "batch"},
        {
            "attack": "guided",
            "regularizer": "gat",
            "lambda": 5.0,
            "clean_weight": 1.0,
            "guide_every": 1,
            "attack_statistics": "batch",
        },
    ],
    ids=str,
)
def test_no_pass_of_the_unperturbed_weights_serves_the_loss(splits: Splits, options: dict[str, object]) -> None:
    """With a perturbation of next to nothing the step is that without one: each pass is made where it belongs."""
    runs = [trainer(splits, awp_gamma=gamma, **options) for gamma in (1e-9, 0.0)]
    for run in runs:
        run.model.double().train()
        for index, (images, labels) in enumerate(batches(splits)[:2]):
            run.step(images, labels, index, Stopwatch(run.device))
    for one, other in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_it_begins_after_its_share_of_the_epochs(splits: Splits) -> None:
    runs = [trainer(splits, epochs=4, awp_gamma=gamma, awp_start=0.5) for gamma in (GAMMA, 0.0)]
    same = []
    for _ in range(3):
        for run in runs:
            run.train_epoch()
        pairs = zip(*(run.model.parameters() for run in runs), strict=True)
        same.append(all(torch.equal(a, b) for a, b in pairs))
    assert same == [True, True, False]


@pytest.mark.parametrize(("epochs", "begins"), [(1, False), (19, False), (20, True)])
def test_a_training_in_which_it_never_begins_says_so(epochs: int, begins: bool) -> None:
    lines = explain_short_training(TrainingConfig(epochs=epochs, awp_gamma=0.01, awp_start=0.95))
    assert (lines == []) == begins == any(epoch / epochs >= 0.95 for epoch in range(epochs))
    assert begins or "so AWP never begins; 20 or more reach it" in lines[0]


def test_its_start_has_no_effect_without_it() -> None:
    assert "awp_start" in inactive_hyperparameters(TrainingConfig())
    assert "awp_start" not in inactive_hyperparameters(TrainingConfig(awp_gamma=0.01))
