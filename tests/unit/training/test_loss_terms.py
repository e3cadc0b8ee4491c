"""Which passes through the network a training step makes, and that making fewer changes nothing."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import StochasticDepth

from tests.support.penalties import DELTAS
from tune_cure.attacks.registry import ATTACKS
from tune_cure.data import splits as data
from tune_cure.data.batches import to_float
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Splits
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.presets import expand_method
from tune_cure.training.timing import Stopwatch
from tune_cure.training.trainer import Trainer

SHARED = {"init": "zero", "attack_statistics": "batch", "delta": "fgsm"}
WAITING = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select")
"""Operations whose result the host must wait for."""
VIEWS = ("view", "split_with_sizes")  # which launch nothing on the device


@pytest.fixture(scope="module")
def splits() -> Splits:
    return data.load(DataSpec(dataset="digits", validation=100, train_examples=256))


@pytest.fixture
def double() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def trainer(splits: Splits, **hyperparameters: object) -> Trainer:
    values = {"batch_size": 16, "epsilon": 0.1, "lambda": 0.5, "momentum": 0.0, **hyperparameters}
    model = ModelConfig(name="preact_resnet10", width=4)
    return Trainer(TrainingConfig.model_validate(values), splits, model=model)


def images_of(splits: Splits, count: int = 32) -> tuple[Tensor, Tensor]:
    pixels, labels = splits.train.gather(torch.arange(count))
    return to_float(pixels).to(torch.get_default_dtype()), labels


def train(run: Trainer, images: Tensor, labels: Tensor) -> int:
    """Two steps; returns how many forward passes they took."""
    passes = []
    run.model.double().train().register_forward_pre_hook(lambda *_: passes.append(1))
    for step, (x, y) in enumerate(zip(images.split(16), labels.split(16), strict=True)):
        run.step(x, y, step, Stopwatch(run.device))
    return len(passes) // 2


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize(
    ("hyperparameters", "forwards", "without"),
    [
        ({"delta": "classic"}, 4, 4),  # attack; cross-entropy; at the images and displaced
        ({"delta": "fgsm", "penalty_statistics": "running"}, 4, 4),
        ({"delta": "fgsm"}, 3, 4),
        ({"delta": "fgsm", "init": "zero"}, 3, 4),
        (SHARED, 2, 4),
        ({**SHARED, "delta": "classic"}, 3, 4),
        ({**SHARED, "delta": "gradient", "penalty_statistics": "running", "attack_statistics": "running"}, 4, 4),
        ({**SHARED, "attack": "zerograd"}, 2, 4),
        ({**SHARED, "penalty_fraction": 0.5}, 4, 4),  # the statistics of a half are not those of the batch
        ({**SHARED, "penalty_every": 2}, 2, 3),  # and two in the step without a penalty
        ({**SHARED, "label_smoothing": 0.1, "clean_weight": 0.5}, 3, 5),
        ({**SHARED, "lambda": 0.0}, 2, 2),
    ],
    ids=str,
)
def test_sharing_passes_saves_them_and_changes_no_weight(
    hyperparameters: dict[str, Any],
    forwards: int,
    without: int,
    two_sided: bool,
    splits: Splits,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = images_of(splits)
    shared = trainer(splits, penalty_two_sided=two_sided, **hyperparameters)
    start = [parameter.detach().double().clone() for parameter in shared.model.parameters()]
    assert train(shared, *batch) == forwards
    separate = trainer(splits, penalty_two_sided=two_sided, **hyperparameters)
    monkeypatch.setattr(separate.terms, "shared_gradient", lambda *_: None)
    monkeypatch.setattr(separate.terms, "shared_forward", lambda *_: None)
    assert train(separate, *batch) == without
    pairs = zip(shared.model.state_dict().values(), separate.model.state_dict().values(), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    moved = zip(start, shared.model.parameters(), strict=True)
    assert any(not torch.allclose(before, now, rtol=1e-3) for before, now in moved)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("random", [nn.Dropout(0.5), StochasticDepth(0.5, "row")], ids=lambda it: type(it).__name__)
def test_a_network_with_dropout_shares_no_forward_pass(
    random: nn.Module, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_dropout(**options: Any) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), random, nn.Linear(32, 10))

    monkeypatch.setattr("tune_cure.training.trainer.build", with_dropout)
    assert train(trainer(splits, **SHARED), *images_of(splits)) == 3


@pytest.mark.parametrize("every", [1, 2, 3, 4])
def test_the_guide_counts_whatever_penalty_every_is(every: int, splits: Splits) -> None:
    images, labels = images_of(splits, 8)
    weights, gat = [], {"method": "gat", "penalty_every": every, "attack_statistics": "batch"}
    for guide_weight in (1.0, 40.0):
        run = trainer(splits, **expand_method({**gat, "guide_weight": guide_weight}))
        run.model.train()
        for step in range(every + 1):
            run.step(images, labels, step, Stopwatch(run.device))
        weights.append(torch.cat([parameter.detach().flatten() for parameter in run.model.parameters()]))
    assert not torch.equal(*weights)


class Counting(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[func._overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("attack", [name for name in ATTACKS if name != "none"])
def test_a_step_never_waits_for_the_device(attack: str, delta: str, splits: Splits) -> None:
    weights = {"clean_weight": 0.5, "trades_weight": 0.5, "hat_weight": 0.5, "gradient_clip": 1.0}
    run = trainer(splits, attack=attack, delta=delta, **weights)
    run.model.train()
    run.step.begin_epoch(0, (16, 1, 8, 8))
    with Counting() as counting:
        run.step(*images_of(splits, 16), 0, Stopwatch(run.device), torch.arange(16))
    assert counting.seen["convolution"] > 10
    assert not [name for name in WAITING if counting.seen[name]]


@pytest.mark.parametrize(
    "options",
    [
        {"attack": "fgsm_pgi", "regularizer": "fgsm_pgi", "attack_statistics": "batch"},
        {"regularizer": "aaer"},
        {"regularizer": "aaer", "attack_statistics": "batch"},
        {"awp_gamma": 0.005, "lambda": 0.0},
        {"awp_gamma": 0.005, "gradient_clip": 1.0},
        {"attack": "free", "lambda": 0.0},
        {"attack": "ssat", "init": "zero", "attack_statistics": "batch", "penalty_statistics": "batch"},
        {"attack": "guided", "regularizer": "gat", "guide_every": 1},
    ],
    ids=str,
)
def test_a_step_of_a_fast_method_never_waits_for_the_device(options: dict[str, Any], splits: Splits) -> None:
    run = trainer(splits, **options)
    run.model.train()
    run.step.begin_epoch(0, (16, 1, 8, 8))
    with Counting() as counting:
        run.step(*images_of(splits, 16), 0, Stopwatch(run.device), torch.arange(16))
    assert counting.seen["convolution"] > 10
    assert not [name for name in WAITING if counting.seen[name]]


def test_the_guard_of_fp16_takes_as_many_operations_in_a_deep_network_as_in_a_shallow_one(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    for name in ("preact_resnet10", "preact_resnet18"):
        model = ModelConfig(name=name, width=2)
        seen = []
        for guarded in (True, False):
            run = Trainer(TrainingConfig.model_validate({"amp": "fp16", "lambda": 0.0}), splits, model=model)
            if not guarded:
                monkeypatch.setattr(run.step.statistics, "buffers", [])
            with Counting() as counting:
                run.step(*images_of(splits, 4), 0, Stopwatch(run.device))
            seen.append(counting.seen)
        more = seen[0] - seen[1]
        taken.append({name: more[name] for name in more if name not in VIEWS})
    assert taken[0] == taken[1]
    assert sum(taken[0].values()) == 4


@pytest.mark.parametrize(
    ("hyperparameters", "norms"),
    [
        ({}, 0),
        ({"gradient_clip": 1.0}, 1),
        ({"amp": "fp16"}, 0),  # the scaler's scale tells whether it skipped the step
        ({"amp": "fp16", "gradient_clip": 1.0}, 1),
    ],
)
def test_the_norm_of_the_gradients_is_taken_only_where_somebody_reads_it(
    hyperparameters: dict[str, Any], norms: int, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, get = [], torch.nn.utils.get_total_norm
    monkeypatch.setattr("torch.nn.utils.get_total_norm", lambda *args, **how: taken.append(1) or get(*args, **how))
    run = trainer(splits, **hyperparameters)
    run.step(*images_of(splits, 16), 0, Stopwatch(run.device))
    assert len(taken) == norms


def test_a_step_that_waits_is_noticed() -> None:
    with Counting() as counting:
        torch.ones(3).sum().item()
    assert [name for name in WAITING if counting.seen[name]] == ["_local_scalar_dense"]
