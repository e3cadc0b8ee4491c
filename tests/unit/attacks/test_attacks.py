import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tune_cure.attacks.fgsm import fgsm
from tune_cure.attacks.norms import project, random_start
from tune_cure.attacks.pgd import filled_up, pgd, pgd_training
from tune_cure.attacks.registry import NORMS
from tune_cure.gradients.mixed_precision import full_float32
from tune_cure.gradients.registry import LOSSES
from tune_cure.models.networks import build

EPSILON = 0.1


class BinaryLinear(nn.Module):
    """Logits (0, w·x + b): the loss of label 1 falls, and of label 0 rises, along w everywhere."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(shape, dtype=torch.float64, generator=generator))
        self.bias = nn.Parameter(torch.tensor(-0.5 * self.weight.sum().item(), dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        score = (images * self.weight).sum(dim=(1, 2, 3)) + self.bias
        return torch.stack([torch.zeros_like(score), score], dim=1)


@pytest.fixture
def linear() -> BinaryLinear:
    return BinaryLinear((1, 4, 4))


@pytest.fixture
def points() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(200, 1, 4, 4, dtype=torch.float64, generator=generator)
    return images, torch.randint(0, 2, (200,), generator=generator)


def worst_case(linear: BinaryLinear, images: Tensor, labels: Tensor) -> Tensor:
    """The corner of the ball, clipped to [0, 1], that a linear model likes least."""
    away = (1.0 - 2.0 * labels.double()).view(-1, 1, 1, 1)
    return (images + EPSILON * away * linear.weight.sign()).clamp(0, 1).detach()


def correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return model(images).argmax(dim=1) == labels


def test_fgsm_from_zero_is_the_worst_corner_of_a_linear_model(linear, points) -> None:
    adversarial = fgsm(linear, *points, EPSILON, alpha=1.0, init="zero")
    torch.testing.assert_close(adversarial, worst_case(linear, *points), rtol=0, atol=1e-15)


def test_fgsm_from_a_random_start_steps_alpha_epsilon_and_projects(linear, points) -> None:
    images, labels = points
    adversarial = fgsm(linear, images, labels, EPSILON, alpha=0.7, generator=torch.Generator().manual_seed(5))
    noise = torch.rand(images.shape, dtype=images.dtype, generator=torch.Generator().manual_seed(5))
    start = (images + EPSILON * (2 * noise - 1)).clamp(0, 1)
    away = (1.0 - 2.0 * labels.double()).view(-1, 1, 1, 1) * linear.weight.sign()
    expected = (start + 0.7 * EPSILON * away).clamp(images - EPSILON, images + EPSILON).clamp(0, 1)
    torch.testing.assert_close(adversarial, expected.detach(), rtol=0, atol=1e-15)


def test_pgd_accuracy_of_a_linear_model_is_the_closed_form(linear, points) -> None:
    images, labels = points
    adversarial = pgd(linear, images, labels, EPSILON, generator=torch.Generator().manual_seed(6))
    robust = correct(linear, worst_case(linear, images, labels), labels)
    assert 0 < robust.sum() < len(robust)
    assert torch.equal(correct(linear, adversarial, labels), robust)
    torch.testing.assert_close(adversarial[robust], worst_case(linear, images, labels)[robust], rtol=0, atol=1e-15)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", [fgsm, pgd, pgd_training])
def test_an_attack_stays_in_the_ball_and_in_pixel_range(attack, norm: str, network, batch) -> None:
    images, labels = batch
    adversarial = attack(network, images, labels, 0.3, norm=norm, generator=torch.Generator().manual_seed(0))
    size = (adversarial - images).flatten(1).norm(p=float("inf") if norm == "linf" else 2, dim=1)
    assert size.max() <= 0.3 + 1e-12
    assert adversarial.min() >= 0 and adversarial.max() <= 1
    assert not adversarial.requires_grad


@pytest.mark.parametrize("attack", [fgsm, pgd, pgd_training])
def test_an_attack_gives_back_what_it_borrowed(attack, network, batch) -> None:
    images, labels = batch
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    copy, state = images.clone(), torch.get_rng_state()
    attack(network, images, labels, EPSILON, generator=torch.Generator().manual_seed(0))
    assert all(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not images.requires_grad and torch.equal(images, copy)
    assert torch.equal(torch.get_rng_state(), state)


class Bowl(nn.Module):
    """Misclassifies (label 0) only in a thin shell around 0.55: a long PGD run passes through it and out again."""

    def forward(self, images: Tensor) -> Tensor:
        x = images.mean(dim=(1, 2, 3))
        fooled = torch.exp(-(((x - 0.55) / 0.012) ** 2))
        return torch.stack([1 - x, 0.3 + fooled], dim=1)


def test_pgd_keeps_a_perturbation_that_fools_the_network_though_later_steps_leave_it() -> None:
    images = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)
    labels = torch.zeros(1, dtype=torch.long)
    model = Bowl()
    found = []
    for seed, steps in itertools.product(range(20), (5, 6, 7, 30)):
        generator = torch.Generator().manual_seed(seed)
        adversarial = pgd(model, images, labels, 0.1, steps=steps, step_size=0.011, generator=generator)
        found.append((seed, steps, not bool(correct(model, adversarial, labels))))
    for seed in range(20):
        broken = [fooled for s, _, fooled in found if s == seed]
        assert broken == sorted(broken)  # once broken by few steps, broken by all longer runs
    assert any(fooled for *_, fooled in found)


def test_more_restarts_never_help_the_network(network, batch) -> None:
    images, labels = batch
    images, labels = images.repeat(20, 1, 1, 1), labels.repeat(20)
    images = (images + 0.2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(8))).clamp(0, 1)
    robust = []
    for restarts in (1, 2, 5):
        generator = torch.Generator().manual_seed(9)
        adversarial = pgd(network, images, labels, 0.05, steps=2, restarts=restarts, generator=generator)
        robust.append(correct(network.eval(), adversarial, labels))
        network.train()
    assert not (robust[1] & ~robust[0]).any() and not (robust[2] & ~robust[1]).any()


def test_pgd_accuracy_is_at_most_clean_accuracy_example_by_example(network, batch) -> None:
    images, labels = batch
    adversarial = pgd(network, images, labels, 1e-6, generator=torch.Generator().manual_seed(0))
    network.eval()
    assert not (correct(network, adversarial, labels) & ~correct(network, images, labels)).any()


def away(linear: BinaryLinear, labels: Tensor) -> Tensor:
    """The sign of the loss gradient of a linear model, which is the same everywhere."""
    return ((1.0 - 2.0 * labels.double()).view(-1, 1, 1, 1) * linear.weight.sign()).detach()


def test_noise_start_neither_clips_nor_projects_but_to_pixel_range(linear, points) -> None:
    images, labels = points
    generator = torch.Generator().manual_seed(5)
    adversarial = fgsm(linear, images, labels, EPSILON, alpha=1.0, init="noise", noise=2.0, generator=generator)
    noise = 2 * EPSILON * (2 * torch.rand(images.shape, dtype=images.dtype, generator=generator.manual_seed(5)) - 1)
    expected = (images + noise + EPSILON * away(linear, labels)).clamp(0, 1)
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-15)
    assert (adversarial - images).abs().max() > EPSILON


def test_a_start_from_clipped_noise_is_in_pixel_range_as_in_the_code_of_n_fgsm(linear, points) -> None:
    """The code of de Jorge et al. limits η so that x + η is in [0, 1], and x + η + α · sign g once more."""
    images, labels = points
    images = images.clone()
    images[:100] = images[:100].round()  # black and white pixels, where half of all noise leaves the range
    generator = torch.Generator().manual_seed(5)
    choice = {"alpha": 1.0, "init": "clipped_noise", "noise": 2.0}
    adversarial = fgsm(linear, images, labels, EPSILON, generator=generator, **choice)
    eta = 2 * EPSILON * (2 * torch.rand(images.shape, dtype=images.dtype, generator=generator.manual_seed(5)) - 1)
    eta = torch.max(torch.min(eta, 1 - images), -images)
    delta = eta + EPSILON * away(linear, labels)
    expected = images + torch.max(torch.min(delta, 1 - images), -images)
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-15)
    assert (adversarial - images).abs().max() > EPSILON
    unclipped = fgsm(linear, images, labels, EPSILON, generator=generator.manual_seed(5), **choice | {"init": "noise"})
    assert (adversarial - unclipped).abs().max() > EPSILON / 2


def test_previous_start_begins_at_the_given_perturbation(linear, points) -> None:
    images, labels = points
    previous = 0.05 * torch.randn(images.shape, dtype=images.dtype, generator=torch.Generator().manual_seed(1))
    adversarial = fgsm(linear, images, labels, EPSILON, alpha=0.5, init="previous", previous=previous)
    start = (images + previous).clamp(images - EPSILON, images + EPSILON).clamp(0, 1)
    expected = (start + 0.5 * EPSILON * away(linear, labels)).clamp(images - EPSILON, images + EPSILON).clamp(0, 1)
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-15)


def test_zerograd_leaves_the_smallest_gradient_entries_where_they_are(linear, points) -> None:
    images, labels = points
    adversarial = fgsm(linear, images, labels, EPSILON, alpha=1.0, init="zero", zero_fraction=0.5)
    small = linear.weight.abs() <= linear.weight.abs().flatten().sort().values[7]  # the smallest 8 of 16
    step = torch.where(small, 0.0, EPSILON * away(linear, labels))
    torch.testing.assert_close(adversarial, (images + step).clamp(0, 1).detach(), rtol=0, atol=1e-15)


@pytest.mark.parametrize(("fraction", "left_out"), [(0.06, 0), (0.07, 1), (0.18, 2)])  # of 16 entries, rounded down
def test_zerograd_leaves_out_no_entry_for_a_share_of_less_than_one(
    fraction: float, left_out: int, linear, points
) -> None:
    images, labels = points
    inside = images.clamp(0.3, 0.7)
    adversarial = fgsm(linear, inside, labels, EPSILON, alpha=1.0, init="zero", zero_fraction=fraction)
    assert (adversarial == inside).flatten(1).sum(dim=1).tolist() == [left_out] * len(images)


def test_pgd_for_training_reaches_the_worst_corner_for_every_example_misclassified_or_not(linear, points) -> None:
    images, labels = points
    assert not correct(linear, images, labels).all()
    adversarial = pgd_training(linear, images, labels, EPSILON, steps=8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(adversarial, worst_case(linear, images, labels), rtol=0, atol=1e-15)


def full_pgd(model: nn.Module, images: Tensor, labels: Tensor, *, seed: int, steps: int, restarts: int, norm: str,
             loss: str) -> Tensor:  # fmt: skip
    """(N,) still correct after every step of every restart on every example, none ever left out: the plain way."""
    generator = torch.Generator().manual_seed(seed)
    robust = correct(model, images, labels)
    for _ in range(restarts):
        points = random_start(images, EPSILON, generator, norm)
        for _ in range(steps + 1):
            robust &= correct(model, points, labels)
            points = points.detach().requires_grad_()
            value = LOSSES[loss](model(points), labels).sum()
            (slope,) = torch.autograd.grad(value, points)
            points = project(points + EPSILON / 4 * NORMS[norm].steepest(slope), images, EPSILON, norm)
    return robust


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", LOSSES)
def test_pgd_that_leaves_broken_examples_alone_breaks_the_same_ones_as_the_full_attack(
    norm: str, loss: str, network: nn.Module
) -> None:
    generator = torch.Generator().manual_seed(11)
    images = torch.rand(300, 2, 5, 5, dtype=torch.float64, generator=generator)
    network.eval()
    labels = network(images).argmax(dim=1)
    labels = torch.where(torch.rand(300, generator=generator) < 0.1, (labels + 1) % 3, labels)
    settings = {"steps": 5, "restarts": 3, "norm": norm, "loss": loss}
    found = pgd(network, images, labels, EPSILON, generator=torch.Generator().manual_seed(12), **settings)
    robust = full_pgd(network, images, labels, seed=12, **settings)
    assert 20 < robust.sum() < 250
    assert torch.equal(correct(network, found, labels), robust)


def plain_pgd(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, *, steps: int,
              restarts: int) -> Tensor:  # fmt: skip
    """`pgd` as its docstring says it, which goes on when no image is left."""
    result, standing = images.clone(), torch.arange(len(images))
    for _ in range(restarts):
        standing = standing[correct(model, result[standing], labels[standing])]
        result[standing] = random_start(images, EPSILON, generator, "linf")[standing]
        for _ in range(steps):
            point = result[standing].requires_grad_()
            logits = model(point)
            (slope,) = torch.autograd.grad(F.cross_entropy(logits, labels[standing], reduction="sum"), point)
            point = project(point + EPSILON / 4 * slope.sign(), images[standing], EPSILON, "linf").detach()
            right = logits.argmax(dim=1) == labels[standing]
            standing = standing[right]
            result[standing] = point[right]
    return result


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("wrong", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("weaken", [1.0, 30.0])  # in the second case all are broken in the first steps
def test_pgd_stops_when_no_image_is_left_and_finds_and_draws_the_same(
    known: bool, wrong: float, weaken: float, network: nn.Module
) -> None:
    generator = torch.Generator().manual_seed(11)
    images = torch.rand(40, 2, 5, 5, generator=generator)
    network.float().eval()
    with torch.no_grad():
        network[0].weight.mul_(weaken)
    labels = network(images).argmax(dim=1)
    labels = torch.where(torch.rand(40, generator=generator) < wrong, (labels + 1) % 3, labels)
    ours, theirs = (torch.Generator().manual_seed(12) for _ in range(2))
    expected = plain_pgd(network, images, labels, theirs, steps=6, restarts=4)
    sizes: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    told = correct(network, images, labels) if known else None
    sizes.clear()
    found = pgd(network, images, labels, EPSILON, steps=6, restarts=4, generator=ours, correct=told)
    assert torch.equal(found, expected)
    assert torch.equal(ours.get_state(), theirs.get_state())
    assert 0 not in sizes
    if wrong == 1.0:
        assert sizes == ([] if known else [40])
    if weaken > 1:
        assert len(sizes) < 25


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_with_batches_of_few_sizes_finds_the_same_to_the_last_digit(norm: str) -> None:
    """On CUDA cuDNN plans each size anew, so shrinking batches are filled up to a multiple of an eighth."""
    torch.manual_seed(2)
    network = build("preact_resnet10", num_classes=10, in_channels=3, mean=[0.5] * 3, std=[0.2] * 3, width=8).eval()
    images = torch.rand(40, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        labels = network(images).argmax(dim=1)
    sizes: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    found, drawn = {}, {}
    epsilon = 0.015 if norm == "linf" else 0.2
    for fill in (False, True):
        sizes.clear()
        generator = torch.Generator().manual_seed(12)
        found[fill] = pgd(
            network, images, labels, epsilon, steps=6, restarts=3, norm=norm, generator=generator, fill=fill
        )
        drawn[fill] = set(sizes)
    assert torch.equal(found[True], found[False])
    robust = int(correct(network, found[True], labels).sum())
    assert 0 < robust < 30
    assert drawn[True] <= set(range(5, 41, 5))
    assert len(drawn[False]) > len(drawn[True])


@pytest.mark.parametrize(("rows", "size"), [(1, 63), (63, 63), (64, 126), (441, 441), (442, 500), (500, 500)])
def test_rows_are_filled_up_to_one_of_eight_sizes_with_the_first_of_them(rows: int, size: int) -> None:
    filled = filled_up(torch.arange(3, 3 + rows), 500)
    assert filled[:rows].tolist() == list(range(3, 3 + rows))
    assert filled[rows:].tolist() == [3] * (size - rows)


def test_pgd_decides_as_the_process_is_set_and_takes_its_gradients_in_tf32() -> None:
    """What a backend is set to while it computes, which the CPU can show, too."""

    def precisions() -> tuple[str, str]:
        return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision

    class Look(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, images: Tensor) -> Tensor:
            forward.add(precisions())
            return images.clone()

        @staticmethod
        def backward(ctx: Any, slope: Tensor) -> Tensor:
            backward.add(precisions())
            return slope

    class Network(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            score = Look.apply(images).mean(dim=(1, 2, 3))
            return torch.stack([score, 0.4 - score], dim=1)

    forward: set[tuple[str, str]] = set()
    backward: set[tuple[str, str]] = set()
    before = precisions()
    with full_float32():
        pgd(Network(), torch.full((2, 1, 2, 2), 0.5), torch.zeros(2, dtype=torch.long), 0.01, steps=2, restarts=2)
    assert forward == {("ieee", "ieee")}
    assert backward == {("tf32", "tf32")}
    assert precisions() == before


@pytest.mark.parametrize("attack", [fgsm, pgd, pgd_training])
def test_an_l2_attack_goes_straight_along_the_weights_of_a_linear_model_to_the_edge(attack, linear, points) -> None:
    images, labels = points
    images = 0.3 + 0.4 * images  # the edge of the ball is within the pixel range
    robust = torch.ones_like(labels, dtype=torch.bool)
    options = {"alpha": 1.0, "init": "zero"} if attack is fgsm else {"steps": 40}
    adversarial = attack(linear, images, labels, EPSILON, norm="l2", **options)
    direction = (1.0 - 2.0 * labels.double()).view(-1, 1, 1, 1) * linear.weight / linear.weight.norm()
    edge = (images + EPSILON * direction).detach()
    if attack is pgd:
        robust = correct(linear, edge, labels)
        assert torch.equal(correct(linear, adversarial, labels), robust)
    torch.testing.assert_close(adversarial[robust], edge[robust], rtol=0, atol=1e-4)


def test_the_margin_loss_finds_what_a_saturated_cross_entropy_hides() -> None:
    """Logits so large that the softmax is exactly 1: the cross-entropy's gradient is zero, the margin's is not."""

    class Sure(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            score = 1e4 * (images.mean(dim=(1, 2, 3)) - 0.45)
            return torch.stack([score, -score], dim=1)

    images, labels = torch.full((1, 1, 2, 2), 0.5), torch.zeros(1, dtype=torch.long)
    found = {
        loss: pgd(Sure(), images, labels, EPSILON, loss=loss, generator=torch.Generator().manual_seed(0))
        for loss in LOSSES
    }
    assert correct(Sure(), found["cross_entropy"], labels).all()
    assert not correct(Sure(), found["margin"], labels).any()
