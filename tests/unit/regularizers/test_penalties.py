import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.networks import QuadraticLoss
from tests.support.penalties import DELTAS, penalty
from tune_cure.attacks.fgsm import fgsm as fgsm_attack
from tune_cure.attacks.fmn import fmn
from tune_cure.attacks.registry import NORMS
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.gradients.input_gradients import input_gradient
from tune_cure.regularizers.cure import Point, classic, cure_penalty, gradient
from tune_cure.regularizers.directions import DIRECTIONS

EPSILON = 0.1
NAMES = [name for name in DELTAS if name != "none"]


def compute(name: str, network: nn.Module, batch: tuple[Tensor, Tensor], **options: object) -> Tensor:
    """The penalty with everything that any of them needs, its randomness always the same."""
    adversarial = fgsm_attack(network, *batch, EPSILON, generator=torch.Generator().manual_seed(7))
    settings = {"h": 1.5, "epsilon": EPSILON, "adversarial": adversarial, **options}
    return penalty(name, network, *batch, generator=torch.Generator().manual_seed(5), **settings)


@pytest.fixture
def quadratic() -> tuple[QuadraticLoss, Tensor, Tensor]:
    images = torch.rand(5, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return QuadraticLoss(12), images, torch.zeros(5, dtype=torch.long)


@pytest.mark.parametrize("h", [0.01, 1.5])
def test_penalty_of_a_quadratic_loss_equals_the_length_of_its_hessian_times_z(quadratic, h: float) -> None:
    model, images, labels = quadratic
    slope = images.flatten(1) @ model.hessian + model.b
    z = h * slope.sign() / slope.sign().norm(dim=1, keepdim=True)
    expected = (z @ model.hessian).norm(dim=1)
    torch.testing.assert_close(cure_penalty(model, images, labels, h), expected, rtol=1e-9, atol=0)
    squared = cure_penalty(model, images, labels, h, squared=True)
    torch.testing.assert_close(squared, expected.square(), rtol=1e-9, atol=0)
    divided = cure_penalty(model, images, labels, h, divide_by_h=True)
    torch.testing.assert_close(divided, expected / h, rtol=1e-9, atol=0)


def test_gradient_direction_of_a_quadratic_loss_sees_the_hessian_along_the_gradient(quadratic) -> None:
    model, images, labels = quadratic
    slope = images.flatten(1) @ model.hessian + model.b
    expected = 0.7 * (slope @ model.hessian).norm(dim=1) / slope.norm(dim=1)
    found = cure_penalty(model, images, labels, 0.7, direction="gradient")
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_linearity_error_of_a_quadratic_loss_is_half_the_quadratic_form_at_a_corner_of_the_ball(quadratic) -> None:
    """A quadratic's error ½ δᵀAδ is convex: two ascent steps of ε/2 from inside the ball may only increase it."""
    model, images, labels = quadratic
    found = penalty("llr", model, images, labels, h=1.0, epsilon=EPSILON, generator=torch.Generator().manual_seed(0))
    start = NORMS["linf"].noise(images, EPSILON, torch.Generator().manual_seed(0)).flatten(1)
    delta = start
    for _ in range(2):
        delta = (delta + EPSILON / 2 * (delta @ model.hessian).sign()).clamp(-EPSILON, EPSILON)
    form = [0.5 * torch.einsum("ni,ij,nj->n", d, model.hessian, d) for d in (start, delta)]
    torch.testing.assert_close(found, form[1], rtol=1e-7, atol=0)
    assert (form[1] > form[0]).all()


def numerical_gradient(network: nn.Module, image: Tensor, label: Tensor) -> Tensor:
    """The input gradient of one example, pixel by pixel, by fourth-order central differences of the loss."""

    def loss(x: Tensor) -> float:
        with torch.no_grad():
            return F.cross_entropy(network(x[None]), label[None]).item()

    step, result = 1e-3, torch.zeros_like(image)
    for index in range(image.numel()):
        move = torch.zeros(image.numel(), dtype=image.dtype)
        move[index] = step
        move = move.view_as(image)
        near, far = loss(image + move) - loss(image - move), loss(image + 2 * move) - loss(image - 2 * move)
        result.view(-1)[index] = (8 * near - far) / (12 * step)
    return result


def independent(name: str, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The penalty by its formula, example by example, from numerical gradients."""
    adversarial = fgsm_attack(network, images, labels, EPSILON, generator=torch.Generator().manual_seed(7))
    noise = NORMS["linf"].noise(images, EPSILON, torch.Generator().manual_seed(5))
    nearest = fmn(network, images, labels)
    values = []
    for i, (x, y) in enumerate(zip(images, labels, strict=True)):
        g = numerical_gradient(network, x, y)
        if name == "llr":
            delta = noise[i]
            with torch.no_grad():
                stay = F.cross_entropy(network(x[None]), y[None])
            for _ in range(2):
                with torch.no_grad():
                    error = F.cross_entropy(network((x + delta)[None]), y[None]) - stay - (delta * g).sum()
                slope = error.sign() * (numerical_gradient(network, x + delta, y) - g)
                delta = (delta + EPSILON / 2 * slope.sign()).clamp(-EPSILON, EPSILON)
            with torch.no_grad():
                values.append((F.cross_entropy(network((x + delta)[None]), y[None]) - stay - (delta * g).sum()).abs())
            continue
        z = {
            "classic": 1.5 * g.sign() / g.sign().norm(),
            "gradient": 1.5 * g / g.norm(),
            "random": noise[i],
            "gradalign": noise[i],
            "fgsm": adversarial[i] - x,
            "linf": (nearest[i] - x).clamp(-EPSILON, EPSILON),
        }[name]
        other = numerical_gradient(network, x + z, y)
        values.append(1 - (g * other).sum() / (g.norm() * other.norm()) if name == "gradalign" else (other - g).norm())
    return torch.stack(values)


@pytest.mark.parametrize("name", NAMES)
def test_each_penalty_matches_its_formula_on_numerical_gradients(name: str, network, batch) -> None:
    network.eval()
    expected = independent(name, network, *batch)
    found = compute(name, network, batch).detach()
    assert (found - expected).norm() < 1e-6 * expected.norm()


@pytest.mark.parametrize("name", ["random", "fgsm", "gradalign", "llr"])
@pytest.mark.parametrize(
    "options",
    [{}, {"squared": True, "divide_by_h": True}, {"statistics": "batch"}],
    ids=["plain", "squared-per-h", "batch-statistics"],
)
def test_the_parameter_gradient_of_a_penalty_matches_finite_differences(
    name: str, options: dict[str, object], network, batch
) -> None:
    network.eval()
    adversarial = fgsm_attack(network, *batch, EPSILON, generator=torch.Generator().manual_seed(7))

    def value() -> Tensor:
        generator = torch.Generator().manual_seed(5)
        settings = {"h": 1.5, "epsilon": EPSILON, "adversarial": adversarial, **options}
        return penalty(name, network, *batch, generator=generator, **settings).sum()

    check_parameter_gradient(network, value)


@pytest.mark.parametrize("name", ["classic", "gradient", "linf"])  # held constant, though the parameters move it
def test_with_its_displacement_frozen_a_penalty_has_the_gradient_of_finite_differences(
    name: str, network, batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.eval()
    images, labels = batch
    slope = input_gradient(network, images, labels)
    z = DIRECTIONS[name](Point(network, images, labels, slope, 1.5, EPSILON, "linf", None, None))
    found = torch.autograd.grad(compute(name, network, batch).sum(), list(network.parameters()))
    monkeypatch.setitem(DIRECTIONS, "frozen", lambda point: z)
    frozen = torch.autograd.grad(
        cure_penalty(network, images, labels, 1.5, direction="frozen").sum(), list(network.parameters())
    )
    for ours, theirs in zip(found, frozen, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    check_parameter_gradient(network, lambda: cure_penalty(network, images, labels, 1.5, direction="frozen").sum())


def check_parameter_gradient(network: nn.Module, value) -> None:
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(value(), parameters)
    generator = torch.Generator().manual_seed(2)
    step, reached = 2e-6, 0
    for parameter, slope in zip(parameters, gradients, strict=True):
        direction = torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step * direction
            values.append(value().item())
            with torch.no_grad():
                parameter -= sign * step * direction
        expected = (values[0] - values[1]) / (2 * step)
        reached += expected != 0
        assert (slope * direction).sum().item() == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert reached >= len(parameters) - 1  # batch statistics take away a bias before them


@pytest.mark.parametrize("name", ["random", "fgsm", "gradalign"])
def test_with_batch_statistics_a_penalty_is_that_of_the_network_as_it_trains(name: str, network, batch) -> None:
    images, labels = batch
    found = compute(name, network, batch, statistics="batch")
    noise = NORMS["linf"].noise(images, EPSILON, torch.Generator().manual_seed(5))
    adversarial = fgsm_attack(network, *batch, EPSILON, generator=torch.Generator().manual_seed(7))
    network.train()
    slopes = []
    for points in (images, adversarial if name == "fgsm" else images + noise):
        points = points.clone().requires_grad_()
        loss = F.cross_entropy(network(points), labels, reduction="sum")
        slopes.append(torch.autograd.grad(loss, points)[0].flatten(1))
    expected = 1 - F.cosine_similarity(*slopes) if name == "gradalign" else (slopes[1] - slopes[0]).norm(dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_every_penalty_reaches_every_parameter(name: str, network, batch) -> None:
    gradients = torch.autograd.grad(compute(name, network, batch).sum(), list(network.parameters()))
    assert all(slope.abs().max() > 0 for slope in gradients)


@pytest.mark.parametrize("name", NAMES)
def test_one_sided_has_the_same_value_and_another_parameter_gradient(name: str, network, batch) -> None:
    both, one = (compute(name, network, batch, two_sided=flag) for flag in (True, False))
    torch.testing.assert_close(both, one, rtol=1e-9, atol=1e-12)
    parameters = list(network.parameters())
    slopes = [torch.autograd.grad(value.sum(), parameters)[0] for value in (both, one)]
    assert not torch.allclose(*slopes)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_has_the_same_penalty_in_a_batch_of_1_and_of_64(name: str, network, monkeypatch) -> None:
    """The caller's mode is training: batch statistics, if they were used, would mix the examples."""
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(64, 2, 5, 5, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, 3, (64,), generator=generator)
    noise = NORMS["linf"].noise(images, EPSILON, torch.Generator().manual_seed(5))
    rows = [slice(0, 64), *(slice(i, i + 1) for i in range(64))]
    values = []
    network.train()
    for row in rows:  # the same noise for an example, alone or among others
        monkeypatch.setitem(NORMS, "linf", dataclasses.replace(NORMS["linf"], noise=lambda *_, row=row: noise[row]))
        values.append(
            penalty(
                name, network, images[row], labels[row], h=1.5, epsilon=EPSILON, adversarial=images[row] + noise[row]
            )
        )
    torch.testing.assert_close(values[0], torch.cat(values[1:]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("name", NAMES)
def test_a_penalty_is_one_non_negative_number_per_example_and_leaves_no_trace(
    name: str, statistics: str, network, batch
) -> None:
    images, _ = batch
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = torch.get_rng_state()
    value = compute(name, network, batch, statistics=statistics)
    assert value.shape == (6,)
    assert (value >= 0).all()
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(module.training for module in network.modules())
    assert all(torch.equal(now, before[key]) for key, now in network.state_dict().items())
    assert not images.requires_grad
    assert torch.equal(state, torch.get_rng_state())


def test_directions_have_length_h_and_are_zero_where_the_gradient_is(network, batch) -> None:
    images, labels = batch
    slope = input_gradient(network.eval(), images, labels)
    slope[0] = 0
    for direction in (classic, gradient):
        z = direction(Point(network, images, labels, slope, 1.739, EPSILON, "linf", None, None))
        lengths = z.flatten(1).norm(dim=1)
        assert lengths[0] == 0
        torch.testing.assert_close(lengths[1:], torch.full((5,), 1.739, dtype=torch.float64))


@pytest.mark.parametrize(
    ("statistics", "normalizes", "num_stayed"),
    [("running", True, 3), ("batch", True, 6), ("batch", False, 3)],
    ids=["running", "batch", "without-batch-norm"],
)
@pytest.mark.parametrize("options", [{}, {"squared": True}, {"divide_by_h": True}], ids=["plain", "squared", "per-h"])
def test_one_sided_an_image_that_is_not_displaced_has_penalty_and_gradient_0_however_passes_are_rounded(
    options: dict[str, object], statistics: str, normalizes: bool, num_stayed: int, network, batch
) -> None:
    images, labels = batch
    if not normalizes:
        network[1] = nn.Identity()
    with STATISTICS[statistics](network):
        slope = input_gradient(network, images, labels)
    rounded = slope.nextafter(torch.ones_like(slope))  # as another kernel may add in another order
    settings = {"direction": "fgsm", "two_sided": False, "statistics": statistics, **options}
    adversarial = torch.cat([images[:num_stayed], images[num_stayed:] + 0.1])
    value = cure_penalty(network, images, labels, 1.5, adversarial=adversarial, clean_grad=rounded, **settings)
    assert value[:num_stayed].tolist() == [0] * num_stayed
    assert (value[num_stayed:] > 0).all()
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(value[:num_stayed].sum(), parameters, retain_graph=True)
    assert all(gradient.eq(0).all() for gradient in gradients)
    if num_stayed < len(images):
        gradients = torch.autograd.grad(value.sum(), parameters)
        assert all(gradient.isfinite().all() and gradient.ne(0).any() for gradient in gradients)


def test_with_batch_statistics_an_image_that_is_not_displaced_has_the_penalty_that_the_others_cause(
    network, batch
) -> None:
    images, labels = batch
    adversarial = torch.cat([images[:3], images[3:] + 0.1])
    value = cure_penalty(network, images, labels, 1.5, direction="fgsm", adversarial=adversarial, statistics="batch")
    assert (value > 1e-3).all()


def test_length_1_739_moves_each_pixel_of_a_cifar_image_by_8_of_255() -> None:
    slope = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    z = classic(Point(nn.Identity(), slope, slope, slope, 1.739, EPSILON, "linf", None, None))
    assert z.abs().max().item() == pytest.approx(8 / 255, rel=1e-3)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["random", "fgsm", "linf"])
def test_directions_of_the_ball_stay_in_it(name: str, norm: str, network, batch) -> None:
    images, labels = batch
    adversarial = fgsm_attack(network, images, labels, EPSILON, norm=norm, generator=torch.Generator().manual_seed(7))
    point = Point(
        network.eval(), images, labels, images, 1.5, EPSILON, norm, adversarial, torch.Generator().manual_seed(0)
    )
    z = DIRECTIONS[name](point)
    sizes = z.flatten(1).norm(p=float("inf") if norm == "linf" else 2, dim=1)
    assert sizes.max() <= EPSILON + 1e-12
    assert sizes.max() > 0


def test_the_fgsm_direction_without_an_attack_says_what_is_missing(network, batch) -> None:
    with pytest.raises(ValueError, match="direction fgsm needs the adversarial examples of an attack"):
        cure_penalty(network, *batch, 1.5, direction="fgsm")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "linf"])
def test_the_penalty_of_an_example_with_zero_gradient_is_finite_and_differentiable(name: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2).double())
    nn.init.zeros_(model[1].weight)
    images = torch.rand(3, 1, 2, 2, dtype=torch.float64)
    labels = torch.zeros(3, dtype=torch.long)
    value = penalty(name, model, images, labels, h=1.0, epsilon=EPSILON, adversarial=images + 0.1)
    value.sum().backward()
    assert value.isfinite().all()
    assert model[1].weight.grad.isfinite().all()
