"""What every training attack must do, by its name in the registry."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from tune_cure.attacks.attack import Attack, Step
from tune_cure.attacks.config import AttackConfig
from tune_cure.attacks.registry import ATTACKS, NORMS
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.gradients.input_gradients import input_gradient
from tune_cure.utils.hyperparameters import build_part, declared_hyperparameters

EPSILON = 0.1
NAMES = list(ATTACKS)


@pytest.fixture
def batch() -> tuple[nn.Module, Tensor, Tensor]:
    """A network in training mode, images and labels."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Softplus(), nn.Flatten(), nn.Linear(64, 3)
        ).double()
    images = torch.rand(6, 1, 6, 6, dtype=torch.float64, generator=generator)
    return network.train(), images, torch.randint(0, 3, (6,), generator=generator)


def build(name: str, **changes: object) -> Attack:
    values = {"attack": name, "epsilon": EPSILON, **changes}
    return build_part(ATTACKS.resolve(name), AttackConfig.model_validate(values))


def begun(name: str, batch: tuple[nn.Module, Tensor, Tensor], **changes: object) -> Attack:
    """An attack before the first step of an epoch; its memories, if any, are in the images' precision."""
    part = build(name, **changes)
    torch.set_default_dtype(batch[1].dtype)
    try:
        part.begin_epoch(0, tuple(batch[1].shape), torch.Generator().manual_seed(2))
    finally:
        torch.set_default_dtype(torch.float32)
    return part


def step_of(batch: tuple[nn.Module, Tensor, Tensor], generator: torch.Generator) -> Step:
    return Step(*batch, generator, positions=torch.arange(len(batch[1])))


def attack(name: str, batch: tuple[nn.Module, Tensor, Tensor], **changes: object) -> Tensor:
    """The images of a step that is not a run's first, in which one that learns from the loss has nothing to go by."""
    network, images, labels = batch
    part = begun(name, batch, **changes)
    adversarial = part(step_of(batch, torch.Generator().manual_seed(1)))
    if part.learns_from_loss:
        gradient = input_gradient(network.eval(), adversarial, labels)
        part.learn(images, adversarial, gradient)
        adversarial = part(step_of((network.train(), images, labels), torch.Generator().manual_seed(1)))
    return adversarial


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("name", NAMES)
def test_its_images_lie_in_the_ball_and_in_the_range_of_pixels(
    name: str, statistics: str, norm: str, batch: tuple[nn.Module, Tensor, Tensor]
) -> None:
    images = batch[1]
    adversarial = attack(name, batch, norm=norm, attack_statistics=statistics)
    assert adversarial.shape == images.shape
    assert adversarial.dtype == images.dtype
    assert not adversarial.requires_grad
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    sizes = (adversarial - images).flatten(1).norm(p=float("inf") if norm == "linf" else 2, dim=1)
    assert sizes.max() <= EPSILON + 1e-12
    assert (sizes.max() > 0) == (name != "none")


@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("name", NAMES)
def test_it_leaves_network_and_random_state_as_they_were(
    name: str, statistics: str, batch: tuple[nn.Module, Tensor, Tensor]
) -> None:
    network, images, _ = batch
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state, pixels = torch.get_rng_state(), images.clone()
    attack(name, batch, attack_statistics=statistics)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(images, pixels)
    assert not images.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_it_raises_the_loss_and_repeats_itself(name: str, batch: tuple[nn.Module, Tensor, Tensor]) -> None:
    network, images, labels = batch
    adversarial = attack(name, batch)
    assert torch.equal(adversarial, attack(name, batch))
    network.eval()
    clean, attacked = (nn.functional.cross_entropy(network(x), labels) for x in (images, adversarial))
    assert (attacked > clean) == (name != "none")


@pytest.mark.parametrize("name", NAMES)
def test_its_state_is_saved_and_read_back(name: str, batch: tuple[nn.Module, Tensor, Tensor]) -> None:
    carried, resumed = begun(name, batch, init="previous"), build(name, init="previous")
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    adversarial = carried(step_of(batch, generators[0]))
    carried.learn(batch[1], adversarial, torch.rand(adversarial.shape, dtype=adversarial.dtype) - 0.5)
    resumed.load_state_dict(copy.deepcopy(carried.state_dict()), torch.device("cpu"))
    generators[1].set_state(generators[0].get_state())
    again = [part(step_of(batch, generators[i])) for i, part in enumerate((carried, resumed))]
    assert torch.equal(*again)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is_and_documents_its_hyperparameters(name: str) -> None:
    part = ATTACKS[name]
    assert part.__doc__
    assert all(declared.description.endswith(".") for declared in declared_hyperparameters(part).values())
    assert set(build(name).inactive()) <= set(declared_hyperparameters(part))


def test_a_step_in_pixels_is_alpha_times_epsilon(batch: tuple[nn.Module, Tensor, Tensor]) -> None:
    for name in ("fgsm", "zerograd", "ssat"):
        by_alpha, by_pixels = attack(name, batch, alpha=0.75), attack(name, batch, step_size=0.075)
        torch.testing.assert_close(by_pixels, by_alpha, rtol=0, atol=1e-15)
        assert build(name, step_size=0.075).inactive()["alpha"] == "step_size is given"


def test_a_part_is_built_from_the_configuration_and_from_its_own_defaults() -> None:
    built = build_part(ATTACKS["pgd"], SimpleNamespace(epsilon=0.2, norm="l2", attack_statistics="batch"))
    assert (built.epsilon, built.norm, built.attack_steps) == (0.2, "l2", 7)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [name for name in NAMES if ATTACKS[name].keeps_start])
def test_an_attack_that_keeps_its_start_keeps_that_of_the_last_step(
    name: str, batch: tuple[nn.Module, Tensor, Tensor]
) -> None:
    part, images = (
        begun(name, batch, init="bernoulli", epsilon=EPSILON / 2 if name == "fgsm_pgi" else EPSILON),
        batch[1],
    )
    assert part.start is None
    part(step_of(batch, torch.Generator().manual_seed(1)))
    assert part.start is not None
    offsets = part.start - images
    inside = (part.start > 0) & (part.start < 1)
    torch.testing.assert_close(offsets.abs()[inside], torch.full_like(offsets, EPSILON / 2)[inside])
    assert 0.3 < (offsets[inside] > 0).double().mean() < 0.7
