import pytest
import torch
from pydantic import ValidationError

from tune_cure.data import splits as data
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Splits
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.regularizers.registry import REGULARIZERS
from tune_cure.regularizers.regularizer import NoRegularizer
from tune_cure.training.config import HYPERPARAMETERS, ModelConfig, TrainingConfig, deciding_keys
from tune_cure.training.interactions import find_conflict, inactive_hyperparameters
from tune_cure.training.trainer import Trainer
from tune_cure.utils.schema import choices

PARTS = 4  # tests among which the hyperparameters are shared out
OTHERS = {  # another value of each hyperparameter
    "epochs": 3,
    "batch_size": 16,
    "optimizer": "adamw",
    "momentum": 0.5,
    "nesterov": True,
    "weight_decay": 0.1,
    "decay_vectors": False,
    "cutout": 4,
    "gradient_clip": 0.01,
    "lr_schedule": "onedrop",
    "lr_max": 0.02,
    "lr_min": 0.01,
    "attack": "none",
    "norm": "l2",
    "epsilon": 0.2,
    "alpha": 0.5,
    "step_size": 0.03,
    "init": "zero",
    "noise": 1.0,
    "zero_fraction": 0.6,
    "attack_steps": 2,
    "ssat_points": 2,
    "replays": 2,
    "pgi_reset": 1,
    "guide_every": 1,
    "attack_statistics": "batch",
    "adversarial_weight": 0.5,
    "clean_weight": 0.5,
    "trades_weight": 1.0,
    "boosted_weight": 1.0,
    "mart_weight": 1.0,
    "hat_weight": 1.0,
    "label_smoothing": 0.2,
    "regularizer": "none",
    "direction": "random",
    "lambda": 0.3,
    "h": 0.7,
    "penalty_squared": True,
    "penalty_divide_by_h": True,
    "penalty_two_sided": False,
    "penalty_statistics": "running",
    "penalty_fraction": 0.5,
    "penalty_every": 2,
    "lambda_schedule": "ramp",
    "awp_gamma": 0.05,
    "awp_start": 0.5,
    "averaging": "ema",
    "ema_decay": 0.05,
    "swa_start": 0.6,
    "amp": "bf16",
}


def another(key: str) -> object:
    """Another value than the default of a hyperparameter that a part declares, and that is not in OTHERS."""
    field = TrainingConfig.model_fields[HYPERPARAMETERS[key]]
    if isinstance(field.default, bool):
        return not field.default
    return next(name for name in choices(field) if name != field.default) if choices(field) else field.default / 2


OTHERS |= {key: another(key) for key in HYPERPARAMETERS if key not in OTHERS}


@pytest.fixture(scope="module")
def splits() -> Splits:
    return data.load(DataSpec(dataset="digits", validation=30, train_examples=64))


def judged_weights(splits: Splits, values: dict[str, object]) -> dict[str, torch.Tensor]:
    """What the epochs, of two steps each, lead to."""
    run = Trainer(
        TrainingConfig.model_validate(values),
        splits,
        model=ModelConfig(name="small_cnn", width=2),
        evaluation=EvaluationConfig(steps=1, examples=1),
    )
    for _ in range(run.config.epochs):
        run.train_epoch()
    return dict(run.judged_model.state_dict())


@pytest.mark.parametrize("attack", ["none", "fgsm", "pgd", "zerograd", "ssat", "guided", "fgsm_pgi", "free"])
@pytest.mark.parametrize("regularizer", ["none", "cure", "gradalign", "llr", "elle", "gat"])
def test_whatever_leaves_others_without_effect_is_drawn_before_them(attack: str, regularizer: str) -> None:
    base = {"attack": attack, "regularizer": regularizer, "lambda": 0.1}
    idle = inactive_hyperparameters(TrainingConfig.model_validate(base)).keys()
    decided = {"step_size": {"alpha"}}  # never both in one search
    for key, other in OTHERS.items():
        for value in {0, other} if type(other) in (int, float) else {other}:
            try:
                changed = TrainingConfig.model_validate(base | {key: value})
            except ValidationError:  # 0 is not allowed
                continue
            differ = idle ^ inactive_hyperparameters(changed).keys()
            assert key in deciding_keys() or differ <= decided.get(key, set()), (key, value, differ)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lambda": 0},
        {"regularizer": "none"},
        {"regularizer": "gradalign"},
        {"direction": "random", "attack": "pgd", "attack_steps": 1},
        {"attack": "none"},
        {"attack": "none", "direction": "random"},
        {"attack": "zerograd", "init": "noise"},
        {"attack": "ssat", "regularizer": "gat"},
        {"attack": "guided", "guide_every": 2, "regularizer": "fgsm_pgi"},
        {"attack": "guided", "guide_every": 1, "regularizer": "none"},
        {"attack": "fgsm_pgi", "regularizer": "fgsm_pgi", "epochs": 4, "pgi_momentum": 0.9},
        {"attack": "free", "replays": 3},
        {"awp_gamma": 0.1},
        {"optimizer": "adam", "lr_schedule": "fixed"},
        {"averaging": "ema"},
        {"averaging": "swa", "swa_start": 0.3},
    ],
    ids=str,
)
def test_exactly_the_hyperparameters_said_to_have_no_effect_have_none(
    splits: Splits, settings: dict[str, object], part: int
) -> None:
    assert OTHERS.keys() == HYPERPARAMETERS.keys()
    values = {"epochs": 2, "batch_size": 32, "epsilon": 0.1, "lambda": 0.1, "lr_max": 0.05, **settings}
    config = TrainingConfig.model_validate(values)
    idle, weights = inactive_hyperparameters(config), judged_weights(splits, values)
    for name, other in list(OTHERS.items())[part::PARTS]:
        changed = values | {name: other}
        if name == "regularizer" and settings.get("regularizer") == "none":
            changed["regularizer"] = "cure"
        if changed == values or find_conflict(TrainingConfig.model_validate(changed)):
            continue
        if name == "attack" and settings.get("attack") == "none":
            changed["attack"] = "fgsm"
        if name == "averaging" and "averaging" in settings:
            changed["averaging"] = "none"
        found = judged_weights(splits, changed)
        has_effect = any(not torch.equal(value, found[key]) for key, value in weights.items())
        assert has_effect == (name not in idle), name


class OneGradient(NoRegularizer):
    """A penalty that compares no two gradients."""

    @property
    def uses_two_sided(self) -> bool:
        return False


def test_a_penalty_of_one_gradient_leaves_penalty_two_sided_without_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGULARIZERS, "one_gradient", OneGradient)
    config = TrainingConfig.model_validate({"regularizer": "one_gradient"})
    assert inactive_hyperparameters(config)["penalty_two_sided"] == "regularizer is one_gradient"
    assert "penalty_two_sided" not in inactive_hyperparameters(TrainingConfig())
