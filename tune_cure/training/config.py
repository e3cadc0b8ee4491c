"""What one training run is configured by: the network, and the hyperparameters, every one of which may be searched."""

from typing import Annotated, Any

from pydantic import Field, ValidationError

from tune_cure.attacks.fgsm import INITS
from tune_cure.attacks.norms import NORMS
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.models.registry import MODELS
from tune_cure.regularizers.cure import DIRECTIONS
from tune_cure.regularizers.penalties import PENALTIES
from tune_cure.training.averaging import AVERAGINGS
from tune_cure.training.optimizers import OPTIMIZERS
from tune_cure.training.schedules import SCHEDULES
from tune_cure.utils.schema import Number, Schema, one_of
from tune_cure.utils.yaml_config import ProblemError, first_problem, unknown

ATTACKS = ("fgsm", "zerograd", "pgd", "none")
AMP_MODES = ("auto", "bf16", "fp16", "off")


class ModelConfig(Schema):
    """Which network."""

    name: Annotated[str, one_of(MODELS)] = Field(description="The network.")
    width: int | None = Field(default=None, ge=1, description="Channels of its first stage; its own default if absent.")


def expand_model_name(content: dict[str, Any]) -> None:
    """Turns the short form `model: preact_resnet18` into the long one, in which keys can be set."""
    if isinstance(content.get("model"), str):
        content["model"] = {"name": content["model"]}


class TrainingConfig(Schema):
    """How one network is trained. Every field may be searched."""

    epochs: int = Field(default=30, ge=1, description="Passes over the training images.")
    batch_size: int = Field(default=128, ge=2, description="Images in a step.")
    optimizer: Annotated[str, one_of(OPTIMIZERS)] = Field(default="sgd", description="The optimiser.")
    momentum: Number = Field(default=0.9, ge=0, lt=1, description="Momentum of SGD.")
    nesterov: bool = Field(default=False, description="Nesterov's momentum for SGD, which needs a momentum.")
    weight_decay: Number = Field(default=5e-4, ge=0, description="L2 penalty on all parameters; decoupled with adamw.")
    gradient_clip: Number = Field(default=0.0, ge=0, description="Clip the gradient's L2 norm to this; 0: do not.")
    lr_schedule: Annotated[str, one_of(SCHEDULES)] = Field(
        default="piecewise", description="The learning rate's course, iteration by iteration."
    )
    lr_max: Number = Field(default=0.1, gt=0, description="Highest learning rate of the schedule.")
    lr_min: Number = Field(default=0.0, ge=0, description="Lowest learning rate of the schedule.")
    attack: Annotated[str, one_of(ATTACKS)] = Field(
        default="fgsm",
        description="What is trained on; zerograd: fgsm without the smallest gradients; none: clean.",
    )
    norm: Annotated[str, one_of(NORMS, any_case=True)] = Field(
        default="linf", description="Norm of the training attack's ball."
    )
    epsilon: Number = Field(default=8 / 255, gt=0, description="Radius of the training attack, in pixel units.")
    alpha: Number = Field(default=1.25, gt=0, description="Step of fgsm and zerograd as a multiple of epsilon.")
    init: Annotated[str, one_of(INITS)] = Field(
        default="uniform", description="Start of fgsm and zerograd; noise: uniform, neither clipped nor projected."
    )
    noise: Number = Field(default=2.0, gt=0, description="Radius of init noise as a multiple of epsilon.")
    zero_fraction: Number = Field(
        default=0.35, ge=0, lt=1, description="Share of the gradient entries that zerograd leaves out."
    )
    attack_steps: int = Field(default=7, ge=1, description="Steps of attack pgd, each a quarter of epsilon.")
    attack_statistics: Annotated[str, one_of(STATISTICS)] = Field(
        default="running", description="What batch norm normalises by in the attack, as in penalty_statistics."
    )
    adversarial_weight: Number = Field(default=1.0, ge=0, description="Weight of the attack's cross-entropy.")
    clean_weight: Number = Field(default=0.0, ge=0, description="Weight of the unattacked images' cross-entropy.")
    trades_weight: Number = Field(default=0.0, ge=0, description="Weight of KL(clean, adversarial prediction).")
    hat_weight: Number = Field(
        default=0.0, ge=0, description="Weight of the cross-entropy at twice the perturbation (HAT)."
    )
    label_smoothing: Number = Field(default=0.0, ge=0, lt=1, description="Of both cross-entropies with the labels.")
    delta: Annotated[str, one_of(PENALTIES)] = Field(
        default="classic", description="The penalty: CURE along a direction, gradalign, llr (local linearity) or none."
    )
    lambda_: Number = Field(default=0.1, ge=0, alias="lambda", description="Weight of the mean penalty; 0: none.")
    h: Number = Field(default=1.5, gt=0, description="L2 length of the penalty's displacement, in pixel units.")
    penalty_squared: bool = Field(default=False, description="CURE: the norm is squared.")
    penalty_divide_by_h: bool = Field(default=False, description="CURE: divide the difference by the length of z.")
    penalty_two_sided: bool = Field(default=True, description="Differentiate the gradient at the image too; exact.")
    penalty_statistics: Annotated[str, one_of(STATISTICS)] = Field(
        default="batch", description="What batch norm normalises by in the penalty: the batch's, or the running ones."
    )
    penalty_fraction: Number = Field(default=1.0, gt=0, le=1, description="Share of each batch that is penalised.")
    penalty_every: int = Field(
        default=1, ge=1, description="Steps from one penalty to the next, with its weight multiplied by that number."
    )
    averaging: Annotated[str, one_of(AVERAGINGS)] = Field(
        default="none", description="Which average of the weights is judged and kept; none: the weights themselves."
    )
    ema_decay: Number = Field(default=0.999, ge=0, lt=1, description="Share that averaging ema keeps in a step.")
    swa_start: Number = Field(default=0.75, ge=0, lt=1, description="Fraction of training before averaging swa.")
    amp: Annotated[str, one_of(AMP_MODES)] = Field(
        default="auto", description="Mixed precision; auto: fp16 on CUDA, off on the CPU."
    )


CONFLICTING_KEYS = (
    "lr_min",
    "lr_max",
    "attack",
    "norm",
    "epsilon",
    "delta",
    "optimizer",
    "momentum",
    "nesterov",
    "adversarial_weight",
    "clean_weight",
    "trades_weight",
    "hat_weight",
)
"""The hyperparameters, by their YAML names, that `contradiction` looks at."""


def find_conflict(config: TrainingConfig) -> tuple[str, str] | None:
    """A hyperparameter (by its YAML name) and why its value cannot go with another's; None if all go together."""
    if config.lr_min > config.lr_max:
        return (
            "lr_min",
            f"must be at most lr_max, but lr_min can be {config.lr_min:g} where lr_max is {config.lr_max:g}",
        )
    if config.norm == "linf" and config.epsilon > 1:
        return "epsilon", f"must be at most 1 with norm linf, but can be {config.epsilon:g}: images are in [0, 1]"
    if config.optimizer == "sgd" and config.nesterov and config.momentum == 0:
        return "nesterov", "needs a momentum above 0, but momentum can be 0"
    if config.adversarial_weight == 0 and config.clean_weight == 0:
        return "adversarial_weight", "can be 0 where clean_weight is 0 too: then nothing would be learnt from labels"
    if config.attack == "none":
        if config.delta == "fgsm":
            return "delta", "fgsm needs the adversarial examples of an attack, but attack can be none"
        for name in ("clean_weight", "trades_weight", "hat_weight"):
            if getattr(config, name) > 0:
                return name, "goes with an attack, but attack can be none, which trains on clean images as they are"
    return None


OF_PENALTY = ("penalty_two_sided", "penalty_statistics", "penalty_fraction", "penalty_every")
OF_CURE = ("penalty_squared", "penalty_divide_by_h")
OF_LENGTH_H = ("classic", "gradient")
"""The directions whose length is h; the others stay in the ball of epsilon."""


def inactive_hyperparameters(config: TrainingConfig) -> dict[str, str]:
    """The hyperparameters (by their YAML names) that make no difference to this training, and why."""
    idle: dict[str, str] = {}
    if config.optimizer != "sgd":
        idle |= dict.fromkeys(("momentum", "nesterov"), f"optimizer is {config.optimizer}")
    if config.lr_schedule == "fixed":
        idle["lr_min"] = "lr_schedule is fixed"
    if config.init != "noise":
        idle["noise"] = f"init is {config.init}"
    attack = f"attack is {config.attack}"
    if config.attack not in ("fgsm", "zerograd"):
        idle |= dict.fromkeys(("alpha", "init", "noise"), attack)
    if config.attack == "none":
        idle["attack_statistics"] = attack
    if config.attack != "zerograd":
        idle["zero_fraction"] = attack
    if config.attack != "pgd":
        idle["attack_steps"] = attack
    if config.averaging != "ema":
        idle["ema_decay"] = f"averaging is {config.averaging}"
    if config.averaging != "swa":
        idle["swa_start"] = f"averaging is {config.averaging}"

    delta = f"delta is {config.delta}"
    penalised = config.lambda_ > 0 and config.delta != "none"
    if not penalised:
        why = delta if config.delta == "none" else "lambda is 0"
        idle |= dict.fromkeys(("h", *OF_CURE, *OF_PENALTY, "lambda" if config.delta == "none" else "delta"), why)
    elif config.delta not in OF_LENGTH_H:
        idle["h"] = delta
    if penalised and config.delta not in DIRECTIONS:
        idle |= dict.fromkeys(OF_CURE, delta)
    if config.attack == "none" and (not penalised or config.delta in OF_LENGTH_H):
        idle |= dict.fromkeys(("epsilon", "norm"), attack)
    return idle


DECIDING_KEYS = ("attack", "init", "optimizer", "lr_schedule", "averaging", "delta", "lambda")
"""The hyperparameters, by their YAML names, that `without_effect` looks at; each after those that decide about it."""

HYPERPARAMETERS = {field.alias or name: name for name, field in TrainingConfig.model_fields.items()}
"""The name in Python of each hyperparameter, by its YAML name."""


def parse_hyperparameter(key: str, value: Any, path: str) -> Any:
    """`value` of hyperparameter `key` as TrainingConfig understands it; what is wrong with it is reported at `path`."""
    if key not in HYPERPARAMETERS:
        raise ProblemError(path, unknown(key, HYPERPARAMETERS))
    try:
        return getattr(TrainingConfig.model_validate({key: value}), HYPERPARAMETERS[key])
    except ValidationError as error:
        raise ProblemError(path, first_problem(error, TrainingConfig).message) from error
