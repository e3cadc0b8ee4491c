import copy

import pytest
import torch
from torch import Tensor, nn

from tests.support.networks import smooth_network
from tune_cure.attacks.attack import Step
from tune_cure.attacks.config import AttackConfig
from tune_cure.attacks.guided import Guided
from tune_cure.utils.hyperparameters import build_part

EPSILON, WEIGHT = 0.1, 30.0


@pytest.fixture
def network() -> nn.Module:
    with torch.random.fork_rng():
        return smooth_network()


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 6, 2, 5, 5, dtype=torch.float64, generator=generator)
    return [(part, torch.randint(0, 3, (6,), generator=generator)) for part in images]


def build(**changes: object) -> Guided:
    values = {"attack": "guided", "init": "bernoulli", "epsilon": EPSILON, "alpha": 1.0, "guide_weight": WEIGHT}
    return build_part(Guided, AttackConfig.model_validate({**values, **changes}))


def softmax(clean: Tensor, attacked: Tensor) -> Tensor:
    return sum(((b.softmax(0) - a.softmax(0)) ** 2).sum() for a, b in zip(clean, attacked, strict=True))


def nuclear(clean: Tensor, attacked: Tensor) -> Tensor:
    return torch.linalg.svd(attacked - clean, full_matrices=False).S.sum()


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize(("guide", "distance"), [("softmax", softmax), ("nuclear", nuclear)])
def test_three_steps_follow_the_sign_of_the_papers_loss(guide, distance, every: int, network: nn.Module) -> None:  # type: ignore[no-untyped-def]
    part, generator, again = build(guide=guide, guide_every=every), *(torch.Generator().manual_seed(1) for _ in "ab")
    unguided = 0
    for index, (images, labels) in enumerate(batches()):
        found = part(Step(network.train(), images, labels, generator, number=index))
        network.eval()
        signs = torch.randint(0, 2, images.shape, generator=again, dtype=torch.float64)
        point = (images + EPSILON / 2 * (2 * signs - 1)).clamp(0, 1).requires_grad_()
        attacked = network(point)
        loss = -attacked.log_softmax(1)[range(6), labels].sum()  # N times the mean, as the distance is N times its own
        (alone,) = torch.autograd.grad(loss, point, retain_graph=True)
        if (index + 1) % every == 0:
            clean = copy.deepcopy(network).train()(images).detach()  # normalized by the batch, as in the authors' code
            loss = loss + WEIGHT * distance(clean, attacked)
        (gradient,) = torch.autograd.grad(loss, point)
        moved = point.detach() + EPSILON * gradient.sign()
        expected = torch.max(torch.min(moved, images + EPSILON), images - EPSILON).clamp(0, 1)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        unguided += torch.equal(alone.sign(), gradient.sign())
    assert unguided == 3 - 3 // every  # the distance has changed the direction wherever it counted


def test_without_weight_it_is_fgsm_and_says_that_the_guide_is_idle(network: nn.Module) -> None:
    part = build(guide_weight=0.0)
    assert {"guide", "guide_every"} <= part.inactive().keys()
    passes: list[int] = []
    network.register_forward_pre_hook(lambda *_: passes.append(1))
    for images, labels in batches():
        part(Step(network, images, labels, torch.Generator().manual_seed(1)))
    assert len(passes) == 3


def test_the_share_of_the_penaltys_weight_counts_for_the_guide_too(network: nn.Module) -> None:
    images, labels = batches()[0]
    found = [
        build(guide_weight=weight, guide_every=1)(
            Step(network, images, labels, torch.Generator().manual_seed(1), penalty_share=share)
        )
        for weight, share in ((WEIGHT, 1.0), (2 * WEIGHT, 0.5), (WEIGHT, 0.0), (0.0, 1.0))
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[2], found[3])
    assert not torch.equal(found[0], found[2])


def test_the_clean_outputs_are_asked_for_only_in_guided_steps(network: nn.Module) -> None:
    part, made = build(guide_every=2), []
    images, labels = batches()[0]

    def clean_logits() -> Tensor:
        made.append(len(made))
        return torch.zeros(6, 3, dtype=torch.float64)

    for number in range(4):
        generator = torch.Generator().manual_seed(1)
        part(Step(network, images, labels, generator, clean_logits=clean_logits, number=number))
        assert len(made) == [0, 1, 1, 2][number]
        assert part.host_values(number) == (number % 2 == 1)
