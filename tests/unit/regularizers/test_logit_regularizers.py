"""The penalties that are functions of the logits at the image, at the attack's start and at the adversarial image."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tune_cure.attacks.fgsm import fgsm
from tune_cure.attacks.norms import random_start
from tune_cure.data import splits as data
from tune_cure.data.batches import to_float
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Splits
from tune_cure.gradients.logit_distances import nuclear_distance, softmax_distance
from tune_cure.regularizers.fgsm_pgi import logit_distance
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.presets import METHODS
from tune_cure.training.timing import Stopwatch
from tune_cure.training.trainer import Trainer

LAMBDA, EPSILON, RATE, STEPS, BATCH = 1.7, 0.1, 0.3, 3, 8


@pytest.fixture
def logits() -> tuple[Tensor, Tensor]:
    """Two (6, 4) logits in float64."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 6, 4, dtype=torch.float64, generator=generator).unbind()
    return first, second


def by_softmax(first: list[float], second: list[float]) -> float:
    """‖softmax(a) − softmax(b)‖₂², entry by entry."""
    totals = [sum(map(math.exp, row)) for row in (first, second)]
    return sum((math.exp(b) / totals[1] - math.exp(a) / totals[0]) ** 2 for a, b in zip(first, second, strict=True))


def test_gat_is_the_squared_distance_of_the_probabilities_of_one_example_after_another(
    logits: tuple[Tensor, Tensor],
) -> None:
    expected = [by_softmax(a, b) for a, b in zip(*(part.tolist() for part in logits), strict=True)]
    assert softmax_distance(*logits).tolist() == pytest.approx(expected, rel=1e-9)


def test_gat_of_two_opposite_certainties_is_two() -> None:
    sure = torch.tensor([[0.0, 800.0]])
    assert softmax_distance(sure, sure.flip(1)).item() == 2.0


def test_fgsm_pgi_is_the_mean_of_the_squared_differences_of_one_example_after_another(
    logits: tuple[Tensor, Tensor],
) -> None:
    expected = [
        sum((a - b) ** 2 for a, b in zip(*rows, strict=True)) / 4
        for rows in zip(*(part.tolist() for part in logits), strict=True)
    ]
    assert logit_distance(*logits).tolist() == pytest.approx(expected, rel=1e-9)


def test_nuat_is_the_trace_of_the_square_root_of_the_differences_gram_matrix(logits: tuple[Tensor, Tensor]) -> None:
    difference = logits[1] - logits[0]
    eigenvalues = torch.linalg.eigvalsh(difference.T @ difference).tolist()
    expected = sum(math.sqrt(max(value, 0.0)) for value in eigenvalues) / 6
    assert nuclear_distance(*logits).tolist() == pytest.approx([expected] * 6, rel=1e-9)


def test_nuat_of_a_difference_of_rank_one_is_the_product_of_its_lengths() -> None:
    left, right = torch.tensor([3.0, 4.0, 0.0]), torch.tensor([0.0, 6.0, 8.0])
    found = nuclear_distance(torch.zeros(3, 3), left[:, None] * right)
    torch.testing.assert_close(found, torch.full((3,), 5.0 * 10.0 / 3))


def test_nuat_of_logits_that_overflowed_is_not_finite_and_raises_nothing() -> None:
    clean = torch.zeros(3, 2, requires_grad=True)
    found = nuclear_distance(clean, torch.tensor([[1.0, 2.0], [math.inf, 0.0], [0.0, 1.0]]))
    assert found.isnan().all()
    found.mean().backward()


def test_nuat_of_equal_logits_has_a_finite_gradient() -> None:
    clean = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    found = nuclear_distance(clean, torch.ones(3, 2, dtype=torch.float64))
    found.mean().backward()
    assert found.tolist() == [0.0] * 3
    assert clean.grad is not None
    assert clean.grad.isfinite().all()


@pytest.fixture(scope="module")
def splits() -> Splits:
    return data.load(DataSpec(dataset="digits", validation=100, train_examples=64))


def trainer(splits: Splits, **hyperparameters: object) -> Trainer:
    values = {"epsilon": EPSILON, "lambda": LAMBDA, "momentum": 0.0, "weight_decay": 0.0, "batch_size": BATCH}
    config = TrainingConfig.model_validate({**values, **hyperparameters})
    run = Trainer(config, splits, model=ModelConfig(name="preact_resnet10", width=4))
    run.model.double().train()
    for group in run.optimizer.param_groups:
        group["lr"] = RATE
    return run


def batches(splits: Splits) -> list[tuple[Tensor, Tensor]]:
    pixels, labels = splits.train.gather(torch.arange(STEPS * BATCH))
    images = to_float(pixels).to(torch.get_default_dtype())
    return list(zip(images.split(BATCH), labels.split(BATCH), strict=True))


Outputs = dict[str, Tensor]


def descend(reference: nn.Module, loss: Tensor) -> None:
    """Take one step of plain gradient descent."""
    parameters = list(reference.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= RATE * gradient


def assert_same_weights(model: nn.Module, reference: nn.Module) -> None:
    for ours, theirs in zip(model.state_dict().values(), reference.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return -sum(row.log_softmax(0)[label] for row, label in zip(logits, labels, strict=True)) / BATCH


def gat(outputs: Outputs, labels: Tensor) -> Tensor:
    pairs = zip(outputs["clean"], outputs["adversarial"], strict=True)
    penalty = sum(((b.exp() / b.exp().sum() - a.exp() / a.exp().sum()) ** 2).sum() for a, b in pairs) / BATCH
    return cross_entropy(outputs["clean"], labels) + LAMBDA * penalty


def nuat(outputs: Outputs, labels: Tensor) -> Tensor:
    difference = outputs["adversarial"] - outputs["clean"]
    nuclear = torch.linalg.svd(difference, full_matrices=False).S.sum()
    return cross_entropy(outputs["clean"], labels) + LAMBDA * nuclear / BATCH


def pgi(outputs: Outputs, labels: Tensor) -> Tensor:
    pairs = zip(outputs["start"], outputs["adversarial"], strict=True)
    penalty = sum(((a - b) ** 2).sum() / len(a) for a, b in pairs) / BATCH
    return cross_entropy(outputs["adversarial"], labels) + LAMBDA * penalty


def mart(outputs: Outputs, labels: Tensor) -> Tensor:
    total = torch.zeros(())
    for clean, attacked, label in zip(outputs["clean"], outputs["adversarial"], labels, strict=True):
        p, q = clean.exp() / clean.exp().sum(), attacked.exp() / attacked.exp().sum()
        wrong = torch.cat([q[:label], q[label + 1 :]]).max()
        total = total - q[label].log() - (1 - wrong).log() + 5.0 * (p * (p / q).log()).sum() * (1 - p[label])
    return total / BATCH


CLEAN = {"adversarial_weight": 0.0, "clean_weight": 1.0}


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("hyperparameters", "points", "objective"),
    [
        ({"regularizer": "gat", **CLEAN}, ("adversarial", "clean"), gat),
        ({"regularizer": "nuat", **CLEAN}, ("adversarial", "clean"), nuat),
        ({"regularizer": "fgsm_pgi"}, ("adversarial", "start"), pgi),
        ({"regularizer": "none", "boosted_weight": 1.0, "mart_weight": 5.0}, ("adversarial", "clean"), mart),
    ],
    ids=["gat", "nuat", "fgsm_pgi", "mart"],
)
def test_three_steps_move_the_weights_as_the_papers_loss_says(
    hyperparameters: dict[str, object],
    points: tuple[str, ...],
    objective: Callable[[Outputs, Tensor], Tensor],
    splits: Splits,
) -> None:
    run, reference = trainer(splits, **hyperparameters), trainer(splits).model
    generator = torch.Generator().manual_seed(0)
    for index, (images, labels) in enumerate(batches(splits)):
        run.step(images, labels, index, Stopwatch(run.device))
        start = random_start(images, EPSILON, generator)
        at = {"clean": images, "start": start, "adversarial": fgsm(reference, images, labels, EPSILON, start=start)}
        loss = objective({point: reference(at[point]) for point in points}, labels)
        descend(reference, loss)
    assert_same_weights(run.model, reference)


def count_passes(run: Trainer, images: Tensor, labels: Tensor, step: int = 0) -> int:
    passes: list[nn.Module] = []
    hook = run.model.register_forward_pre_hook(lambda module, _: passes.append(module))
    run.step(images, labels, step, Stopwatch(run.device))
    hook.remove()
    return len(passes)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("hyperparameters", "forwards"),
    [
        ({"regularizer": "gat"}, 3),  # attack, adversarial image, image
        ({"regularizer": "gat", "clean_weight": 1.0, "trades_weight": 1.0, "adversarial_weight": 0.0}, 3),
        ({"regularizer": "gat", "penalty_fraction": 0.5}, 3),
        ({"regularizer": "nuat", "hat_weight": 0.5}, 4),
        ({"regularizer": "fgsm_pgi"}, 3),
        ({"regularizer": "fgsm_pgi", "clean_weight": 1.0}, 4),
        ({"regularizer": "fgsm_pgi", "clean_weight": 1.0, "init": "zero"}, 3),  # the start is the image
        ({"regularizer": "gat", "mart_weight": 5.0, "boosted_weight": 1.0}, 3),
        ({"regularizer": "gat", "lambda": 0.0}, 2),
        ({"regularizer": "fgsm_pgi", "attack_statistics": "batch"}, 2),  # the attack's pass at its start is the loss's
        ({"regularizer": "fgsm_pgi", "attack_statistics": "batch", "penalty_fraction": 0.5, "attack": "zerograd"}, 2),
        ({"regularizer": "aaer", "attack_statistics": "batch"}, 2),
        ({"regularizer": "aaer"}, 3),
        ({"regularizer": "gat", "attack": "guided", "guide_every": 1}, 3),  # the clean pass guides the attack, too
        ({"regularizer": "none", "attack": "guided", "guide_every": 1, "mart_weight": 5.0}, 3),
        ({"regularizer": "none", "attack": "guided", "guide_every": 1}, 3),  # the loss needs no clean outputs
    ],
    ids=str,
)
def test_each_point_takes_one_forward_pass_which_losses_and_penalty_share(
    hyperparameters: dict[str, object], forwards: int, splits: Splits
) -> None:
    assert count_passes(trainer(splits, **hyperparameters), *batches(splits)[0]) == forwards


def variation(outputs: Outputs, labels: Tensor) -> Tensor:
    losses = [-outputs[point].detach().log_softmax(1)[range(BATCH), labels] for point in ("start", "adversarial")]
    abnormal = [bool(before > after) for before, after in zip(*losses, strict=True)]
    moved = [((a.detach() - b) ** 2).sum() for a, b in zip(outputs["start"], outputs["adversarial"], strict=True)]
    both = [[value for value, odd in zip(moved, abnormal, strict=True) if odd == kind] for kind in (True, False)]
    penalty = outputs["adversarial"].sum() * 0
    if all(both):
        of_abnormal, of_normal = (torch.stack(values).mean() for values in both)
        penalty = sum(abnormal) / BATCH * (of_abnormal - of_normal.detach()).clamp(min=0)
    return cross_entropy(outputs["adversarial"], labels) + LAMBDA * penalty


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("hyperparameters", "objective"),
    [
        ({"regularizer": "fgsm_pgi", "attack": "fgsm_pgi", "pgi_momentum": 0.6}, pgi),
        ({"regularizer": "aaer", "alpha": 4.0}, variation),  # so large a step that some losses fall
    ],
    ids=["fgsm_pgi", "aaer"],
)
def test_with_the_batchs_statistics_steps_are_those_of_the_authors_loop_of_two_passes(
    hyperparameters: dict[str, object], objective: Callable[[Outputs, Tensor], Tensor], splits: Splits
) -> None:
    """Two epochs of the same images in another order; both passes are made in training mode, the start's first."""
    run = trainer(splits, attack_statistics="batch", **{"alpha": 1.0, **hyperparameters})
    reference = trainer(splits).model
    alpha, remembers = run.config.alpha, "attack" in hyperparameters
    generator = torch.Generator().manual_seed(0)
    batch = [torch.cat(parts) for parts in zip(*batches(splits), strict=True)]
    shape = tuple(batch[0].shape)
    eta, momentum = torch.zeros(shape), torch.zeros(shape)
    if remembers:
        eta = EPSILON * (torch.rand(shape, generator=generator) * 2 - 1).sign()
    penalties = []
    for epoch in range(2):
        run.step.begin_epoch(epoch, shape)
        order = torch.randperm(STEPS * BATCH, generator=torch.Generator().manual_seed(epoch))
        for positions in order.split(BATCH):
            images, labels = batch[0][positions], batch[1][positions]
            row = run.step(images, labels, 0, Stopwatch(run.device), positions)
            penalties.append(float(row[4]))
            remembered = (images + eta[positions]).clamp(0, 1)
            start = remembered if remembers else random_start(images, EPSILON, generator)
            outputs = {"start": reference(start.requires_grad_())}
            (gradient,) = torch.autograd.grad(cross_entropy(outputs["start"], labels), start, retain_graph=True)
            start = start.detach()
            momentum[positions] = gradient / gradient.abs().sum() + 0.6 * momentum[positions]
            moved = start + alpha * EPSILON * momentum[positions].sign() - images
            eta[positions] = (images + moved.clamp(-EPSILON, EPSILON)).clamp(0, 1) - images
            moved = start + alpha * EPSILON * gradient.sign() - images
            outputs["adversarial"] = reference((images + moved.clamp(-EPSILON, EPSILON)).clamp(0, 1))
            descend(reference, objective(outputs, labels))
    assert max(penalties) > 0
    assert_same_weights(run.model, reference)


@pytest.mark.usefixtures("double")
def test_three_steps_of_n_aaer_are_those_of_the_authors_loop(splits: Splits) -> None:
    """Their script with `--clamp 0`: noise of two radii, limited to pixel range before and after the step only."""
    keys = {**METHODS["aaer"].keys, "alpha": 7.0, "lambda": LAMBDA}  # so large a step that some losses fall
    run, reference = trainer(splits, **keys), trainer(splits).model
    generator = torch.Generator().manual_seed(0)
    penalties = []
    for index, (images, labels) in enumerate(batches(splits)):
        penalties.append(float(run.step(images, labels, index, Stopwatch(run.device))[4]))
        eta = 2 * EPSILON * (2 * torch.rand(images.shape, generator=generator) - 1)
        eta = torch.max(torch.min(eta, 1 - images), -images).requires_grad_()
        outputs = {"start": reference(images + eta)}
        (gradient,) = torch.autograd.grad(cross_entropy(outputs["start"], labels), eta)
        delta = eta.detach() + 7.0 * EPSILON * gradient.sign()
        outputs["adversarial"] = reference(images + torch.max(torch.min(delta, 1 - images), -images))
        descend(reference, variation(outputs, labels))
    assert max(penalties) > 0
    assert_same_weights(run.model, reference)


@pytest.mark.usefixtures("double")
def test_a_step_without_the_penalty_makes_none_of_its_passes(splits: Splits) -> None:
    run = trainer(splits, regularizer="gat", penalty_every=2)
    assert [count_passes(run, *batch, step) for step, batch in enumerate(batches(splits))] == [3, 2, 3]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", ["gat", "nuat", "fgsm_pgi"])
def test_a_fraction_penalizes_the_first_images_of_the_batch(name: str, splits: Splits) -> None:
    run = trainer(splits, regularizer=name, penalty_fraction=0.5)
    images, labels = map(torch.cat, zip(*batches(splits)[:2], strict=True))
    row = run.step(images, labels, 0, Stopwatch(run.device))
    assert row[3] == BATCH == len(images) / 2
    assert row[4] > 0


def test_a_penalty_is_refused_whose_points_the_attack_does_not_have(splits: Splits) -> None:
    with pytest.raises(
        ValueError, match="regularizer: fgsm_pgi needs the start of the attack, which pgd does not keep"
    ):
        trainer(splits, regularizer="fgsm_pgi", attack="pgd")
    with pytest.raises(ValueError, match="regularizer: gat needs the adversarial examples of an attack"):
        trainer(splits, regularizer="gat", attack="none")
