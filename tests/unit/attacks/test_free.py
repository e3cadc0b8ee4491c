"""Free adversarial training: replays, the perturbation that is carried on, and the one backward pass."""

import pytest
import torch
from torch import Tensor

from tune_cure.data import splits as data
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Splits
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.step import TrainingStep
from tune_cure.training.timing import Stopwatch
from tune_cure.training.trainer import Trainer

EPSILON, RATE, REPLAYS, BATCH = 0.1, 0.3, 3, 9  # the last batch of a pass has 8 images


@pytest.fixture(scope="module")
def splits() -> Splits:
    return data.load(DataSpec(dataset="digits", validation=100, train_examples=44))


def trainer(splits: Splits, **hyperparameters: object) -> Trainer:
    values = {"attack": "free", "replays": REPLAYS, "epsilon": EPSILON, "lambda": 0.0, "batch_size": BATCH}
    config = TrainingConfig.model_validate({**values, "epochs": 6, **hyperparameters})
    return Trainer(config, splits, model=ModelConfig(name="preact_resnet10", width=4))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("extra", [{}, {"clean_weight": 0.5, "label_smoothing": 0.2}], ids=["paper", "more terms"])
def test_the_steps_of_an_epoch_are_those_of_the_paper(splits: Splits, extra: dict[str, float]) -> None:
    """Algorithm 1, with the loss's gradient at x + δ from the pass that trains the weights; BN is in training mode."""
    run, reference = (trainer(splits, momentum=0.0, weight_decay=0.0, **extra) for _ in "ab")
    for one in (run, reference):
        one.model.double().train()
        for group in one.optimizer.param_groups:
            group["lr"] = RATE
    model = reference.model
    delta = torch.zeros(BATCH, 1, 8, 8)
    passes: list[int] = []
    run.model.register_forward_pre_hook(lambda *_: passes.append(1))
    turned = 0
    for index, (images, labels, _) in enumerate(reference.batches.epoch()):
        images = images.double()
        run.step(images, labels, index, Stopwatch(run.device))
        attacked = (images + delta[: len(images)]).clamp(0, 1).requires_grad_()
        loss = -of_targets(model(attacked), labels, extra.get("label_smoothing", 0.0))
        if extra:
            loss = loss - 0.5 * of_targets(model(images), labels, 0.2)
        parameters = list(model.parameters())
        *gradients, of_image = torch.autograd.grad(loss, [*parameters, attacked])
        before = delta.clone()
        for i, (image, point, gradient) in enumerate(zip(images, attacked.detach(), of_image, strict=True)):
            moved = (point + EPSILON * gradient.sign() - image).clamp(-EPSILON, EPSILON)
            delta[i] = (image + moved).clamp(0, 1) - image
        turned += int((before * delta < 0).any())
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= RATE * gradient
    assert len(passes) == run.steps_per_epoch * (2 if extra else 1)
    for ours, theirs in zip(run.model.state_dict().values(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert turned > 0


def of_targets(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """The mean log-probability of the labels, smoothed: one example after another."""
    rows = [
        (1 - smoothing) * row.log_softmax(0)[label] + smoothing * row.log_softmax(0).mean()
        for row, label in zip(logits, labels, strict=True)
    ]
    return torch.stack(rows).mean()


def test_an_epoch_has_as_many_steps_as_with_any_other_attack_and_the_images_are_seen_in_replays_epochs(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(splits)
    assert run.steps_per_epoch == trainer(splits, attack="fgsm").steps_per_epoch == 5
    seen: list[list[int]] = []
    call = TrainingStep.__call__

    def recording(
        step: TrainingStep, images: Tensor, labels: Tensor, index: int, watch: Stopwatch, n: Tensor
    ) -> Tensor:
        seen.append(n.tolist())
        return call(step, images, labels, index, watch, n)

    monkeypatch.setattr(TrainingStep, "__call__", recording)
    metrics = [run.train_epoch() for _ in range(REPLAYS)]
    batches = [seen[i] for i in range(0, 15, REPLAYS)]
    assert seen == [batch for batch in batches for _ in range(REPLAYS)]  # a batch goes on in the next epoch
    assert sorted(n for batch in batches for n in batch) == list(range(44))
    assert all(row["train_loss"] is not None for row in metrics)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"regularizer": "gat", "lambda": 1.0},
            "regularizer: gat shares the loss's backward pass, from which attack free",
        ),
        ({"awp_gamma": 0.01}, "awp_gamma: needs a backward pass of its own, but attack free makes one for all"),
        ({"regularizer": "fgsm_pgi", "lambda": 1.0}, "regularizer: fgsm_pgi needs the start of the attack, which free"),
    ],
    ids=str,
)
def test_what_needs_passes_of_its_own_is_refused(splits: Splits, options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        trainer(splits, **options)


@pytest.mark.parametrize("options", [{"regularizer": "cure", "direction": "fgsm"}, {"regularizer": "elle"}], ids=str)
def test_a_penalty_with_a_backward_pass_of_its_own_leaves_the_perturbation_alone(
    splits: Splits, options: dict[str, object]
) -> None:
    perturbations = []
    for weight in (0.0, 0.5):
        run = trainer(splits, **options, **{"lambda": weight})
        run.model.train()
        images, labels, _ = next(run.batches.epoch())
        run.step(images, labels, 0, Stopwatch(run.device))
        perturbations.append(run.terms.attack.state_dict()["perturbation"])
    assert torch.equal(*perturbations)


def test_an_overflow_in_fp16_leaves_a_perturbation_in_the_ball(splits: Splits) -> None:
    run = trainer(splits, amp="fp16")
    run.step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, backoff_factor=2.0**-30)
    assert run.train_epoch()["skipped_steps"] > 0
    perturbation = run.terms.attack.state_dict()["perturbation"]
    assert perturbation.isfinite().all()
    assert 0 < perturbation.abs().max() <= EPSILON + 1e-6
