"""Training gives the numbers of version 0.1.0: two epochs of several configurations, in the words of that version.

The numbers were computed by that version's code with one CPU thread, and this code gave exactly the same ones. Another
processor can round differently, so the test allows for a part in 10,000 in the first epoch, and for a part in 100 in
the second: FGSM takes the sign of gradients, also of those that are almost 0.
"""

from typing import Any

import pytest
import torch

from tune_cure.data import splits as data
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Splits
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.trainer import Trainer

SHARED = {"epochs": 2, "batch_size": 64, "epsilon": 0.1, "h": 0.8, "lambda": 0.3}

# Hyperparameters; loss, adversarial accuracy and curvature of each epoch; the sum of all parameters at the end.
CASES: list[tuple[dict[str, Any], list[float | None], list[float | None], float]] = [
    (
        {},
        [2.6725069999694826, 0.005, 0.6430633664131165],
        [2.433804740905762, 0.105, 0.2930180585384369],
        52.390224779090204,
    ),
    (
        {"delta": "gradient", "penalty_squared": True, "penalty_divide_by_h": True},
        [2.6718814754486084, 0.005, 0.6945469331741333],
        [2.351935977935791, 0.105, 0.07598613202571869],
        52.86493268828019,
    ),
    (
        {"delta": "random", "penalty_two_sided": False, "penalty_statistics": "running"},
        [2.4899704170227053, 0.005, 0.026541478708386423],
        [2.388946352005005, 0.09, 0.0393022732436657],
        50.87156296239118,
    ),
    (
        {"delta": "fgsm", "init": "zero", "attack_statistics": "batch"},
        [2.712769002914429, 0.0, 0.5820859718322754],
        [2.437601099014282, 0.09, 0.26188695192337036],
        53.2300706011456,
    ),
    (
        {"init": "zero", "attack_statistics": "batch", "attack": "zerograd"},
        [2.714998121261597, 0.0, 0.6392248892784118],
        [2.429462890625, 0.085, 0.27979361057281493],
        53.529511861950596,
    ),
    (
        {"delta": "linf", "attack": "pgd", "attack_steps": 3},
        [2.487809896469116, 0.005, 0.08669022887945176],
        [2.3755535888671875, 0.095, 0.1068577527999878],
        51.274301302112235,
    ),
    (
        {"delta": "gradalign", "norm": "l2", "epsilon": 0.5, "init": "previous"},
        [2.5157277965545655, 0.01, 0.18036514401435852],
        [2.4062633991241453, 0.07, 0.1489763069152832],
        52.29181409302154,
    ),
    (
        {"delta": "llr", "penalty_fraction": 0.5, "penalty_every": 2, "init": "noise"},
        [2.569034481048584, 0.005, 0.15462569892406464],
        [2.4361134433746336, 0.03, 0.08369769901037216],
        51.82568757566878,
    ),
    (
        {"delta": "none", "clean_weight": 0.5, "trades_weight": 2.0, "hat_weight": 0.3, "averaging": "ema"},
        [4.264323596954346, 0.02, None],
        [4.059463806152344, 0.12, None],
        51.28659036344857,
    ),
    (
        {"attack": "none", "optimizer": "adam", "lr_max": 0.01, "lr_schedule": "cyclic"},
        [2.514874973297119, 0.115, 0.6970771193504334],
        [2.2638519191741944, 0.285, 0.35572832703590396],
        52.61432449710992,
    ),
]


@pytest.fixture(scope="module")
def splits() -> Splits:
    return data.load(DataSpec(dataset="digits", validation=100, train_examples=200))


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("hyperparameters", "first", "second", "parameters"), CASES)
def test_training_gives_the_numbers_of_version_0_1_0(
    hyperparameters: dict[str, Any],
    first: list[float | None],
    second: list[float | None],
    parameters: float,
    splits: Splits,
) -> None:
    run = Trainer(
        TrainingConfig.model_validate({**SHARED, **hyperparameters}),
        splits,
        model=ModelConfig(name="small_cnn", width=8),
        evaluation=EvaluationConfig(epsilon=0.1, steps=2, examples=50),
        seed=3,
    )
    for expected, rounding in ((first, 1e-4), (second, 1e-2)):
        row = run.train_epoch()
        found = [row[name] for name in ("train_loss", "train_adversarial_accuracy", "curvature")]
        for number, reference in zip(found, expected, strict=True):
            assert number == (reference if reference is None else pytest.approx(reference, rel=rounding))
    total = sum(parameter.double().sum().item() for parameter in run.model.parameters())
    assert total == pytest.approx(parameters, rel=1e-4)
