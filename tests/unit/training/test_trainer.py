import copy
import dataclasses
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.support.penalties import DELTAS
from tune_cure.attacks.declarations import INITS
from tune_cure.attacks.fgsm import fgsm, start_point
from tune_cure.attacks.registry import ATTACKS
from tune_cure.data import splits as splits_module
from tune_cure.data.batches import MIN_BATCH, BatchStream
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Splits
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.metrics import evaluate
from tune_cure.evaluation.names import ACCURACIES, EPOCH_METRICS, METRICS
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.gradients.mixed_precision import amp_dtype
from tune_cure.models import checkpoints, networks, registry
from tune_cure.regularizers.cure import Cure, cure_penalty
from tune_cure.regularizers.regularizer import PenaltyStep, Regularizer
from tune_cure.training import timing, trainer as trainer_module
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.optimizers import OPTIMIZERS
from tune_cure.training.timing import Stopwatch
from tune_cure.training.trainer import Trainer, check_network
from tune_cure.utils.registry import PartError

MODEL = ModelConfig(name="small_cnn", width=4)
EVALUATION = EvaluationConfig(epsilon=0.1, steps=3, examples=50)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return splits_module.load(DataSpec(dataset="digits", validation=100, train_examples=256))


def trainer(splits: Splits, *, seed: int = 0, **hyperparameters: object) -> Trainer:
    values = {"epochs": 3, "batch_size": 64, "epsilon": 0.1, "lr_schedule": "cyclic", **hyperparameters}
    return Trainer(TrainingConfig.model_validate(values), splits, model=MODEL, evaluation=EVALUATION, seed=seed)


def same(one: Trainer, other: Trainer) -> bool:
    pairs = zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_an_epoch_reports_every_metric_of_epochs_csv(splits: Splits) -> None:
    run = trainer(splits)
    metrics = run.train_epoch() | run.evaluate()
    assert set(metrics) - {"diverged"} == set(EPOCH_METRICS)
    assert metrics["epoch"] == 1
    assert metrics["curvature"] > 0
    assert metrics["pgd_accuracy"] <= metrics["clean_accuracy"]
    assert metrics["skipped_steps"] == 0


@pytest.mark.parametrize(("rest", "images"), [(0, 128), (1, 128), (7, 128), (8, 136)])
def test_an_epoch_leaves_out_a_last_batch_of_fewer_than_8_images(splits: Splits, rest: int, images: int) -> None:
    few = dataclasses.replace(splits, train=splits.train.subset(128 + rest, seed=0))
    run = trainer(few, attack="none", **{"lambda": 0})
    metrics = run.train_epoch()
    assert metrics["images_per_second"] * metrics["train_seconds"] == pytest.approx(images)
    assert (run.images_per_epoch, run.steps_per_epoch) == (images, 2 + (rest == 8))


def first_step(run: Trainer) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The images, labels and adversarial images of the first step that `run` will make; takes its randomness along."""
    (images, labels, _), *_ = BatchStream(
        run.splits.train, 256, augmentation=run.splits.augmentation, order=run.order, generator=run.generator
    ).epoch()
    adversarial = fgsm(run.model, images, labels, 0.1, generator=run.generator)
    run.model.train()
    return images, labels, adversarial


def check_step(run: Trainer, reference: Trainer, loss: torch.Tensor) -> None:
    """One step of plain SGD must have moved every weight of `run` by −lr · ∂loss, `loss` being of `reference`."""
    parameters = list(reference.model.parameters())
    rate = 0.1 * 1.0  # the middle of the only step is the peak of the triangle
    gradients = torch.autograd.grad(loss, parameters)
    for moved, start, gradient in zip(run.model.parameters(), parameters, gradients, strict=True):
        torch.testing.assert_close(moved, start - rate * gradient, rtol=1e-5, atol=1e-6)


ONE_STEP = {"epochs": 1, "batch_size": 256, "momentum": 0.0, "weight_decay": 0.0}


@pytest.mark.parametrize("statistics", STATISTICS)
def test_the_objective_is_adversarial_cross_entropy_plus_lambda_times_the_mean_penalty(
    splits: Splits, statistics: str
) -> None:
    run = trainer(splits, **ONE_STEP, penalty_statistics=statistics, **{"lambda": 0.7, "h": 0.8})
    reference = copy.deepcopy(run)
    run.train_epoch()
    images, labels, adversarial = first_step(reference)
    loss = F.cross_entropy(reference.model(adversarial), labels)
    loss = loss + 0.7 * cure_penalty(reference.model, images, labels, 0.8, statistics=statistics).mean()
    check_step(run, reference, loss)


def test_the_other_terms_are_added_with_their_weights_and_smoothed_labels(splits: Splits) -> None:
    weights = {"adversarial_weight": 0.5, "clean_weight": 0.3, "trades_weight": 2.0, "hat_weight": 0.7}
    weights |= {"boosted_weight": 0.9, "mart_weight": 5.0}
    run = trainer(splits, **ONE_STEP, **weights, label_smoothing=0.2, **{"lambda": 0})
    reference = copy.deepcopy(run)
    metrics = run.train_epoch()
    images, labels, adversarial = first_step(reference)

    def log_p(points: torch.Tensor) -> torch.Tensor:
        return reference.model(points).log_softmax(dim=1)

    target = 0.8 * F.one_hot(labels, 10) + 0.02
    attacked, clean = log_p(adversarial), log_p(images)
    helper = log_p((2 * adversarial - images).clamp(0, 1))
    loss = -0.5 * (target * attacked).sum(dim=1).mean() - 0.3 * (target * clean).sum(dim=1).mean()
    loss = loss + 2.0 * (clean.exp() * (clean - attacked)).sum(dim=1).mean()
    wrong = attacked.exp() * (1 - F.one_hot(labels, 10))
    loss = loss - 0.9 * (1 - wrong.amax(dim=1)).log().mean()
    doubt = 1 - clean.exp()[range(len(labels)), labels]
    loss = loss + 5.0 * ((clean.exp() * (clean - attacked)).sum(dim=1) * doubt).mean()
    loss = loss - 0.7 * helper.gather(1, attacked.argmax(dim=1, keepdim=True)).mean()
    assert metrics["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    check_step(run, reference, loss)


@pytest.mark.parametrize("averaging", ["ema", "swa"])
def test_the_averaged_weights_are_judged_and_kept_in_place_of_the_raw_ones(splits: Splits, averaging: str) -> None:
    run, raw = trainer(splits, averaging=averaging, swa_start=0.3), trainer(splits)
    for _ in range(2):
        run.train_epoch()
        raw.train_epoch()
    assert same(run, raw)  # the training itself is the same
    found = run.evaluate()
    assert run.judged_model is not run.model
    assert found["fgsm_loss_increase"] != raw.evaluate()["fgsm_loss_increase"]
    judged = evaluate(run.judged_model, run.judged_on, EVALUATION)
    assert {name: found[name] for name in judged} == judged
    kept = run.best_weights
    assert all(torch.equal(value, kept[name]) for name, value in run.judged_model.state_dict().items())


def test_before_swa_starts_the_weights_themselves_are_judged(splits: Splits) -> None:
    run = trainer(splits, averaging="swa", swa_start=0.9)
    run.train_epoch()
    assert run.judged_model is run.model


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_network_trains_in_either_norm_with_every_attack(splits: Splits, norm: str) -> None:
    for attack in ("fgsm", "zerograd", "pgd"):
        metrics = trainer(splits, norm=norm, attack=attack, epsilon=0.3, delta="random").train_epoch()
        assert not metrics["diverged"]


def test_lambda_changes_what_is_learnt_and_zero_skips_the_penalty(splits: Splits) -> None:
    without, with_penalty = trainer(splits, **{"lambda": 0}), trainer(splits, **{"lambda": 0.5})
    assert without.train_epoch()["curvature"] is None
    with_penalty.train_epoch()
    assert not same(without, with_penalty)


def test_the_same_seed_trains_the_same_weights_and_another_seed_others(splits: Splits) -> None:
    runs = [trainer(splits, seed=seed) for seed in (0, 0, 1)]
    torch.rand(7)  # the global random state must not matter
    metrics = [run.train_epoch() | run.evaluate() for run in runs]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])
    assert metrics[0]["train_loss"] == metrics[1]["train_loss"]


def test_training_leaves_the_global_random_state_alone(splits: Splits) -> None:
    state = torch.get_rng_state()
    run = trainer(splits)
    run.train_epoch()
    run.evaluate()
    assert torch.equal(state, torch.get_rng_state())


def test_a_network_with_dropout_follows_its_seed_and_goes_on_as_if_it_had_not_stopped(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(num_classes: int, in_channels: int, width: int = 4) -> nn.Module:
        return nn.Sequential(networks.small_cnn(width, in_channels, width), nn.Dropout(), nn.Linear(width, num_classes))

    monkeypatch.setitem(registry.MODELS, "small_cnn", forgetful)
    runs = [trainer(splits), trainer(splits)]
    for run in runs:
        torch.rand(7)  # the global random state must not matter
        run.train_epoch()
    assert same(*runs)
    resumed = trainer(splits, seed=5)
    resumed.load_state_dict(runs[0].state_dict())
    for run in (runs[1], resumed):
        torch.rand(7)
        run.train_epoch()
    assert same(runs[1], resumed)


def test_a_checkpoint_keeps_perturbations_only_where_the_next_attack_starts_from_them(splits: Splits) -> None:
    for init in INITS:
        run = trainer(splits, init=init)
        run.train_epoch()
        assert (run.state_dict()["attack"]["previous"] is not None) == (init == "previous")


@pytest.mark.parametrize("options", [{"init": "previous"}, {"init": "zero"}, {"attack": "pgd"}, {"attack": "none"}])
def test_a_checkpoint_of_version_0_1_0_is_read(splits: Splits, options: dict[str, str]) -> None:
    run, resumed = trainer(splits, **options), trainer(splits, seed=9, **options)
    run.train_epoch()
    state = copy.deepcopy(run.state_dict())
    state["previous"] = state.pop("attack").get("previous")  # where that version kept the perturbations
    resumed.load_state_dict(state)
    run.train_epoch()
    resumed.train_epoch()
    assert same(run, resumed)


def test_a_saved_trainer_continues_bit_for_bit(splits: Splits, tmp_path: Path) -> None:
    uninterrupted = trainer(splits)
    uninterrupted.train_epoch()
    uninterrupted.evaluate()
    torch.save(uninterrupted.state_dict(), tmp_path / "state.pt")
    resumed = trainer(splits, seed=5)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for run in (uninterrupted, resumed):
        run.train_epoch()
    assert same(uninterrupted, resumed)
    ours, theirs = uninterrupted.evaluate(), resumed.evaluate()
    for metrics in (ours, theirs):
        metrics.pop("eval_seconds")
    assert ours == theirs


def test_the_best_model_is_that_of_the_best_epoch_and_gives_back_its_accuracies(splits: Splits, tmp_path: Path) -> None:
    run = trainer(splits)
    history = []
    for _ in range(3):
        run.train_epoch()
        history.append(run.evaluate())
    best = max(history, key=lambda metrics: metrics["pgd_accuracy"])
    assert [m["pgd_accuracy_best"] for m in history] == [
        max(m["pgd_accuracy"] for m in history[: i + 1]) for i in range(3)
    ]
    torch.save(run.best_model(), tmp_path / "best.pt")
    network = checkpoints.load(tmp_path / "best.pt")
    again = evaluate(network, run.judged_on, EVALUATION)
    assert {name: again[name] for name in ACCURACIES} == {name: best[name] for name in ACCURACIES}
    assert again == pytest.approx({name: best[name] for name in again}, rel=1e-5)


def test_a_loss_that_is_not_finite_ends_the_epoch_as_diverged(splits: Splits) -> None:
    run = trainer(splits, **{"lr_max": 1e30, "lr_schedule": "piecewise", "momentum": 0.0})
    metrics = run.train_epoch()
    assert metrics["diverged"]
    assert metrics["train_loss"] is None


def test_a_last_step_that_ruins_the_network_is_seen_when_it_is_judged(splits: Splits) -> None:
    run = trainer(splits, **ONE_STEP, **{"lr_max": 1e38, "lr_schedule": "fixed", "lambda": 0})
    assert not run.train_epoch()["diverged"]
    judged = run.evaluate()
    assert judged["diverged"]
    assert "pgd_accuracy" not in judged
    assert run.best_epoch == 0


def test_making_a_network_reseeds_no_device(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    def reseeded(seed: int) -> None:
        raise AssertionError(seed)

    monkeypatch.setattr("torch.cuda.manual_seed_all", reseeded)
    trainer(splits)


def test_a_state_of_another_precision_or_device_is_refused(splits: Splits) -> None:
    state = trainer(splits, amp="bf16").state_dict()
    with pytest.raises(ValueError, match="begun in bfloat16 on cpu, and cannot go on in float32 on cpu"):
        trainer(splits).load_state_dict(state)


@pytest.mark.parametrize(("amp", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_mixed_precision_trains_close_to_float32(splits: Splits, amp: str, dtype: torch.dtype) -> None:
    exact, mixed = trainer(splits, lr_max=0.02), trainer(splits, lr_max=0.02, amp=amp)
    assert mixed.terms.network.dtype == dtype
    wanted, got = exact.train_epoch(), mixed.train_epoch()
    assert got["skipped_steps"] <= 2  # the scaler starts high
    assert got["train_loss"] == pytest.approx(wanted["train_loss"], rel=0.1)
    assert got["curvature"] == pytest.approx(wanted["curvature"], rel=0.3)


def test_fp16_overflows_are_counted_skipped_and_kept_out_of_the_averages(splits: Splits) -> None:
    run = trainer(splits, amp="fp16")
    run.step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, backoff_factor=2.0**-20)
    before = copy.deepcopy(run.model)
    metrics = run.train_epoch()
    assert 1 <= metrics["skipped_steps"] < run.steps_per_epoch
    assert metrics["train_loss"] < 10
    assert all(parameter.isfinite().all() for parameter in run.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(run.model.parameters(), before.parameters(), strict=True))


def test_an_fp16_forward_pass_that_overflows_leaves_the_running_statistics_as_they_were(splits: Splits) -> None:
    run = trainer(splits, amp="fp16", **{"lambda": 0})
    run.step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    calls = itertools.count(1)

    def overflow(layer, inputs, output):  # type: ignore[no-untyped-def]
        return output * float("inf") if layer.training and next(calls) == 3 else output

    run.model[1][0].register_forward_hook(overflow)
    metrics = run.train_epoch()
    assert metrics["skipped_steps"] == 1
    assert not metrics["diverged"]
    assert all(buffer.isfinite().all() for buffer in run.model.buffers())
    assert run.evaluate()["clean_accuracy"] > 0


def test_a_loss_that_is_not_finite_leaves_the_scale_alone_and_gradients_that_overflow_halve_it(splits: Splits) -> None:
    run = trainer(splits, amp="fp16", **{"lambda": 0})
    run.step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    factors = iter([1.0, float("nan"), 1.0, float("inf")])  # of the losses of an epoch of four steps
    loss = run.terms.unpenalized_loss
    run.terms.unpenalized_loss = lambda *inputs: next(factors) * loss(*inputs)  # type: ignore[method-assign]
    assert run.train_epoch()["skipped_steps"] == 2
    assert run.step.scaler.get_scale() == 2.0**8
    run.terms.unpenalized_loss = loss  # type: ignore[method-assign]
    run.step.scaler.update(2.0**30)
    skipped = run.train_epoch()["skipped_steps"]
    assert skipped > 0
    assert run.step.scaler.get_scale() == 2.0 ** (30 - skipped)


def test_gradients_that_overflow_at_any_scale_end_the_run_though_the_loss_is_finite(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bottomless(penalty: Regularizer, step: PenaltyStep) -> torch.Tensor:
        logits = step.network(step.images)
        return (logits - logits.detach()).square().sum(dim=1).sqrt()  # 0, with a gradient that is not finite

    monkeypatch.setattr(Cure, "__call__", bottomless)
    run = trainer(splits, amp="fp16")
    epochs = [run.train_epoch()["diverged"] for _ in range(5)]
    assert epochs == [False, False, False, False, True]  # four steps each: at the seventeenth the scale is below 1


def test_auto_mixed_precision_is_off_on_the_cpu_and_fp16_on_cuda() -> None:
    assert amp_dtype("auto", torch.device("cpu")) is None
    assert amp_dtype("auto", torch.device("cuda")) is torch.float16
    assert amp_dtype("off", torch.device("cuda")) is None


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_optimiser_lowers_the_loss(splits: Splits, optimizer: str) -> None:
    run = trainer(splits, optimizer=optimizer, lr_max=0.1 if optimizer == "sgd" else 0.01, lr_schedule="cosine")
    losses = [run.train_epoch()["train_loss"] for _ in range(3)]
    assert losses[-1] < losses[0]


def test_the_learning_rate_moves_every_step_and_ends_where_the_schedule_says(splits: Splits) -> None:
    run = trainer(splits, epochs=2, lr_schedule="cyclic", lr_max=0.4, lr_min=0.04)
    steps = 2 * run.steps_per_epoch
    first, second = run.train_epoch()["lr"], run.train_epoch()["lr"]
    assert first == pytest.approx(0.04 + 0.36 * (steps - 1) / steps)
    assert second == pytest.approx(0.04 + 0.36 * 1 / steps)


def test_lr_min_above_lr_max_is_refused(splits: Splits) -> None:
    with pytest.raises(
        ValueError, match=r"lr_min: must be at most lr_max, but lr_min can be 0\.3 where lr_max is 0\.1"
    ):
        trainer(splits, lr_min=0.3)


def test_trainers_share_the_images_of_the_splits(splits: Splits) -> None:
    one, other = trainer(splits), trainer(splits)
    assert one.splits.train.images.data_ptr() == other.splits.validation.images.data_ptr()


def test_the_search_metrics_never_look_at_the_test_set(splits: Splits) -> None:
    poisoned = dataclasses.replace(splits, test=None)  # type: ignore[arg-type]
    run = trainer(poisoned)
    run.train_epoch()
    run.evaluate()


@pytest.mark.parametrize("delta", DELTAS)
def test_a_network_trains_with_each_penalty(splits: Splits, delta: str) -> None:
    run, without = trainer(splits, delta=delta, **{"lambda": 0.05}), trainer(splits, **{"lambda": 0})
    metrics = run.train_epoch()
    without.train_epoch()
    assert not metrics["diverged"]
    assert (metrics["curvature"] is None) == (delta == "none")
    assert same(run, without) == (delta == "none")


@pytest.mark.parametrize(
    "options",
    [*({"attack": attack} for attack in ATTACKS), *({"init": init} for init in INITS), {"attack": "zerograd"}],
    ids=str,
)
def test_a_network_trains_with_each_attack_and_continues_bit_for_bit(
    splits: Splits, options: dict[str, str], tmp_path: Path
) -> None:
    run, resumed = trainer(splits, **options, **{"lambda": 0}), trainer(splits, seed=9, **options, **{"lambda": 0})
    assert not run.train_epoch()["diverged"]
    torch.save(run.state_dict(), tmp_path / "state.pt")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    run.train_epoch()
    resumed.train_epoch()
    assert same(run, resumed)


def test_the_previous_start_is_the_perturbation_of_the_batch_before(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, made = [], []

    def starting(images, epsilon, *, previous, **options):  # type: ignore[no-untyped-def]
        given.append(previous.clone())
        return start_point(images, epsilon, previous=previous, **options)

    def recording(model, images, labels, epsilon, **options):  # type: ignore[no-untyped-def]
        adversarial = fgsm(model, images, labels, epsilon, **options)
        made.append((adversarial - images).clone())
        return adversarial

    monkeypatch.setattr("tune_cure.attacks.fgsm.start_point", starting)
    monkeypatch.setattr("tune_cure.attacks.fgsm.fgsm", recording)
    trainer(splits, init="previous", **{"lambda": 0}).train_epoch()
    assert not given[0].any()
    for before, start in zip(made[:-1], given[1:], strict=True):
        assert torch.equal(before, start)


def test_a_penalty_on_every_second_step_weighs_double_there(splits: Splits) -> None:
    run = trainer(splits, penalty_every=2, **{"lambda": 0.1})
    (images, labels, _), *_ = BatchStream(
        splits.train, 64, augmentation=splits.augmentation, order=run.order, generator=run.generator
    ).epoch()
    gradients = []
    for every, index in ((1, 0), (2, 0), (2, 1)):
        one = trainer(splits, penalty_every=every, momentum=0.0, weight_decay=0.0, init="zero", **{"lambda": 0.1})
        before = [parameter.detach().clone() for parameter in one.model.parameters()]
        row = one.step(images, labels, index, Stopwatch(one.device))
        assert row[3] == (0 if index else 64)  # images penalized
        gradients.append([(a - b) / 0.1 for a, b in zip(before, one.model.parameters(), strict=True)])
    for each, doubled, without in zip(*gradients, strict=True):
        torch.testing.assert_close(doubled - without, 2 * (each - without), rtol=1e-3, atol=1e-6)


def test_a_penalty_on_a_fraction_is_the_mean_over_that_part_of_the_batch(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    penalty = Cure.__call__

    def recording(cure: Cure, step: PenaltyStep) -> torch.Tensor:
        sizes.append(len(step.images))
        return penalty(cure, step)

    monkeypatch.setattr(Cure, "__call__", recording)
    metrics = trainer(splits, penalty_fraction=0.3).train_epoch()
    assert sizes == [20, 20, 20, 20]  # of batches of 64, rounded up
    assert metrics["curvature"] > 0
    trainer(splits, penalty_fraction=0.01).train_epoch()
    assert sizes[4:] == [MIN_BATCH] * 4  # the statistics of fewer images are mostly noise
    trainer(splits, penalty_fraction=0.01, batch_size=4, epochs=1).train_epoch()
    assert set(sizes[8:]) == {4}


def test_a_penalty_on_every_third_step_counts_the_steps_of_the_run_not_of_the_epoch(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    penalty = Cure.__call__

    def counted(cure: Cure, step: PenaltyStep) -> torch.Tensor:
        seen.append(1)
        return penalty(cure, step)

    monkeypatch.setattr(Cure, "__call__", counted)
    run = trainer(splits, penalty_every=3)
    penalized = []
    for _ in range(3):  # of four steps each
        run.train_epoch()
        penalized.append(len(seen))
    assert penalized == [2, 3, 4]  # steps 0 and 3, 6, 9


class _Costly(torch.autograd.Function):
    """Leaves a tensor as it is, and puts a clock forward on the way there and on the way back."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, clock: list[float], seconds: float) -> torch.Tensor:  # type: ignore[override]
        ctx.clock, ctx.seconds = clock, seconds
        clock[0] += seconds
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[override]
        ctx.clock[0] += ctx.seconds
        return gradient, None, None


def test_the_seconds_of_attack_and_penalty_are_those_that_they_took_the_way_back_included(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    run = trainer(splits, clean_weight=0.5, **{"lambda": 0.1})
    costs = {"attack": 1.0, "penalty": 10.0, "network": 100.0}

    def costly(part: str, function: Any) -> Any:
        return lambda *arguments, **options: _Costly.apply(function(*arguments, **options), clock, costs[part])

    terms = run.terms
    # Nothing goes back through the attack.
    monkeypatch.setattr(terms, "adversarial_images", costly("attack", terms.adversarial_images))
    monkeypatch.setattr(terms, "penalty", costly("penalty", terms.penalty))
    monkeypatch.setattr(terms, "unpenalized_loss", costly("network", terms.unpenalized_loss))
    row = run.train_epoch()
    steps = run.steps_per_epoch
    assert row["attack_seconds"] == steps * 1.0
    assert row["penalty_seconds"] == steps * 20.0
    assert row["train_seconds"] == steps * 221.0


def test_clipping_bounds_the_step_by_the_gradients_norm(splits: Splits) -> None:
    run = trainer(splits, gradient_clip=0.01, epochs=1, batch_size=256, momentum=0.0, weight_decay=0.0)
    before = [parameter.detach().clone() for parameter in run.model.parameters()]
    run.train_epoch()
    moved = sum(((a - b) ** 2).sum() for a, b in zip(before, run.model.parameters(), strict=True)) ** 0.5
    assert moved.item() == pytest.approx(0.1 * 0.01, rel=1e-3)  # the learning rate times the bound


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"delta": "fgsm", "attack": "none"}, "direction: fgsm needs the adversarial examples"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov: needs a momentum above 0"),
    ],
)
def test_hyperparameters_that_contradict_each_other_are_refused(
    splits: Splits, options: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        trainer(splits, **options)


class InEvaluationOnly(nn.Sequential):
    """Network whose output has a second part while it trains, as that of GoogLeNet."""

    def forward(self, images: torch.Tensor) -> Any:
        logits = super().forward(images)
        return (logits, logits) if self.training else logits


def flat(num_classes: int, in_channels: int, width: int | None = None, *, side: int = 8) -> nn.Sequential:
    """A network for images of one size."""
    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(side * side * in_channels, num_classes))


def with_tuples(num_classes: int, in_channels: int, width: int | None = None) -> nn.Module:
    return InEvaluationOnly(*flat(num_classes, in_channels))


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (partial(flat, side=224), "cannot classify images of 1×8×8: RuntimeError: "),
        (
            lambda num_classes, *_, **options: flat(5, 1),
            "returns values of shape (2, 5) for 2 images, where 10 classes",
        ),
        (with_tuples, "returns a tuple for 2 images, where (2, 10) logits are needed"),
    ],
)
def test_a_network_that_cannot_classify_the_images_is_refused_before_anything_is_trained(
    splits: Splits, build: Any, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.MODELS, "unfit", build)
    with pytest.raises(PartError) as caught:
        check_network(ModelConfig(name="unfit"), splits)
    said = str(caught.value)
    assert said.startswith(f"model.name: network 'unfit' in training mode {problem}")
    assert said.endswith("; choose a network from (N, 1, 8, 8) images to (N, 10) logits, or another data.image_size")


@pytest.mark.parametrize(("layers", "said"), [([nn.Linear(64, 10)], "0 of its 2"), ([], "0 of its 0")])
def test_a_network_without_a_parameter_to_train_is_refused(
    splits: Splits, layers: list[nn.Module], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = nn.Sequential(nn.Flatten(), *layers).requires_grad_(False)
    monkeypatch.setitem(registry.MODELS, "frozen", lambda *_, **__: frozen)
    with pytest.raises(PartError) as caught:
        check_network(ModelConfig(name="frozen"), splits)
    assert str(caught.value) == (
        f"model.name: network 'frozen' has nothing to train: {said} parameters require a gradient; at least one must"
    )


def test_the_check_of_a_network_leaves_the_global_random_state_as_it_was(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.MODELS, "random", flat)
    state = torch.get_rng_state()
    check_network(ModelConfig(name="random"), splits)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("accuracies", "seen"),
    [
        ([(0.4, 0.5), (0.05, 0.8), (0.06, 0.9), (0.05, 0.95), (0.38, 0.5)], [2, 3, 4]),  # until it recovers
        ([(0.4, 0.5), (0.34, 0.55), (0.27, 0.6), (0.21, 0.65), (0.15, 0.7)], [5]),  # averaged weights fall slowly
        ([(0.5, 0.55), (0.48, 0.57), (0.45, 0.6), (0.42, 0.63)], []),  # robust overfitting
    ],
)
def test_collapses_are_seen_by_the_best_epoch_so_far(
    accuracies: list[tuple[float, float]], seen: list[int], splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = dict.fromkeys(METRICS, 0.01) | {"gradient_alignment": 0.9}
    found = iter(metrics | {"pgd_accuracy": pgd, "fgsm_accuracy": fgsm} for pgd, fgsm in accuracies)
    monkeypatch.setattr(trainer_module, "evaluate", lambda *_: next(found))
    run, shown = trainer(splits), []
    for run.epoch in range(1, len(accuracies) + 1):
        shown += [run.epoch] if run.evaluate()["catastrophic_overfitting"] else []
    assert shown == seen
