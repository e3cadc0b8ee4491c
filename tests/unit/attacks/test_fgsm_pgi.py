"""FGSM-PGI's memory: each training image's start and momentum, whatever the order of the images."""

import pytest
import torch
from torch import Tensor, nn

from tune_cure.attacks.attack import Step
from tune_cure.attacks.config import AttackConfig
from tune_cure.attacks.fgsm_pgi import FgsmPgi
from tune_cure.utils.hyperparameters import build_part

EPSILON, MOMENTUM, RESET = 0.1, 0.6, 3
SHAPE = (8, 2, 5, 5)


pytestmark = pytest.mark.usefixtures("double")


def build(**changes: object) -> FgsmPgi:
    values = {"attack": "fgsm_pgi", "epsilon": EPSILON, "alpha": 1.0, "pgi_momentum": MOMENTUM, "pgi_reset": RESET}
    return build_part(FgsmPgi, AttackConfig.model_validate({**values, **changes}))


def batch_of(epoch: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The batches of an epoch: shuffled images, which augmentation has changed, and their numbers."""
    generator = torch.Generator().manual_seed(epoch)
    order = torch.randperm(8, generator=generator)
    images = torch.rand(2, 4, *SHAPE[1:], generator=generator)
    labels = torch.arange(8) % 3
    return [(images[i], labels[chosen], chosen) for i, chosen in enumerate(order.split(4))]


def gradient_of(network: nn.Module, point: Tensor, label: Tensor) -> Tensor:
    point = point[None].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(-network(point).log_softmax(1)[0, label], point)
    return gradient[0]


def limited(delta: Tensor, image: Tensor) -> Tensor:
    return (image + delta.clamp(-EPSILON, EPSILON)).clamp(0, 1) - image


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_each_image_starts_where_the_momentum_of_its_earlier_gradients_has_left_it(
    alpha: float, network: nn.Module
) -> None:
    """Written here example by example from the paper, over more epochs than there are between two resets."""
    part, generator, again = build(alpha=alpha), *(torch.Generator().manual_seed(9) for _ in "ab")
    eta: dict[int, Tensor] = {}
    momentum: dict[int, Tensor] = {}
    turned = 0
    network.eval()
    for epoch in range(RESET + 2):
        part.begin_epoch(epoch, SHAPE, generator)
        if epoch % RESET == 0:
            corners = alpha * EPSILON * (torch.rand(SHAPE, generator=again) * 2 - 1).sign()
            eta, momentum = dict(enumerate(corners)), dict(enumerate(torch.zeros(SHAPE)))
        for images, labels, positions in batch_of(epoch):
            found = part(Step(network, images, labels, generator, positions=positions))
            numbers = positions.tolist()
            starts = [limited(eta[n], x) for n, x in zip(numbers, images, strict=True)]
            gradients = [gradient_of(network, x + s, y) for x, s, y in zip(images, starts, labels, strict=True)]
            total = sum(float(gradient.abs().sum()) for gradient in gradients)
            for index, (n, x) in enumerate(zip(numbers, images, strict=True)):
                start, gradient = starts[index], gradients[index]
                momentum[n] = gradient / total + MOMENTUM * momentum[n]
                eta[n] = limited(start + alpha * EPSILON * momentum[n].sign(), x)
                turned += int((momentum[n].sign() != gradient.sign()).any())
                expected = x + limited(start + alpha * EPSILON * gradient.sign(), x)
                torch.testing.assert_close(found[index], expected, rtol=0, atol=1e-12)
                assert part.start is not None
                torch.testing.assert_close(part.start[index], x + start, rtol=0, atol=1e-12)
            network[0].weight.data.mul_(-0.9)  # the network learns, so gradients turn
    assert part.perturbations is not None
    torch.testing.assert_close(part.perturbations, torch.stack([eta[n] for n in range(8)]), rtol=0, atol=1e-12)
    assert turned > 5  # the momentum makes a difference


def test_an_image_that_no_batch_had_keeps_its_memory(network: nn.Module) -> None:
    part = build()
    part.begin_epoch(0, SHAPE, torch.Generator().manual_seed(9))
    assert part.perturbations is not None and part.momenta is not None
    before = part.perturbations.clone()
    images, labels, positions = batch_of(0)[0]
    part(Step(network, images, labels, positions=positions))
    others = torch.ones(8, dtype=torch.bool)
    others[positions] = False
    assert torch.equal(part.perturbations[others], before[others])
    assert not part.momenta[others].any()
    assert part.momenta[positions].abs().amax(dim=(1, 2, 3)).min() > 0


def test_a_gradient_that_overflowed_is_not_remembered(network: nn.Module) -> None:
    part = build()
    part.begin_epoch(0, SHAPE, torch.Generator().manual_seed(9))
    images, labels, positions = batch_of(0)[0]
    part(Step(network, images, labels, positions=positions))
    assert part.momenta is not None and part.perturbations is not None
    before = part.momenta.clone()
    with torch.no_grad():
        network[0].weight[0, 0, 0, 0] = torch.inf
    part(Step(network, images, labels, positions=positions))
    assert torch.equal(part.momenta, before)
    assert part.perturbations.isfinite().all()
    assert part.perturbations.abs().max() <= EPSILON + 1e-12


def test_it_says_how_much_memory_it_takes_and_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_cure.attacks.fgsm_pgi.RESET_AT_A_TIME", 3)  # several parts
    part = build()
    part.begin_epoch(0, SHAPE, torch.Generator().manual_seed(9))
    state = part.state_dict()
    assert sum(tensor.nbytes for tensor in state.values()) == part.memory_bytes(SHAPE) == 2 * 8 * 8 * 2 * 5 * 5
    assert state["perturbations"].abs().eq(EPSILON).all()
    assert 0.3 < state["perturbations"].gt(0).double().mean() < 0.7


def test_the_start_of_other_attacks_makes_no_difference() -> None:
    assert {"init", "noise"} <= build().inactive().keys()
