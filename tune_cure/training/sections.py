"""The hyperparameters of optimizer, schedule, loss terms, weights and precision, of which a training has all."""

from typing import Annotated

from pydantic import Field

from tune_cure.training.optimizers import OPTIMIZERS
from tune_cure.training.schedules import SCHEDULES
from tune_cure.utils.schema import Number, Schema, one_of

MAX_EPOCHS = 100_000  # a plot has a point for each
AVERAGINGS = ("none", "ema", "swa")
AMP_MODES = ("auto", "bf16", "fp16", "tf32", "off")


class OptimizerConfig(Schema):
    """Length of the training, batches and optimizer."""

    epochs: int = Field(
        default=30, ge=1, le=MAX_EPOCHS, description="Passes over the training images; replays of attack free count."
    )
    batch_size: int = Field(
        default=128, ge=2, description="Images in a step; a last batch of fewer than 8 is left out."
    )
    cutout: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Side of a square of each training image that is hidden, in pixels; 0: none.",
    )
    optimizer: Annotated[str, one_of(OPTIMIZERS)] = Field(default="sgd", description="The optimizer.")
    momentum: Number = Field(default=0.9, ge=0, lt=1, description="Momentum of SGD.")
    nesterov: bool = Field(default=False, description="Nesterov's momentum for SGD, which needs a momentum.")
    weight_decay: Number = Field(default=5e-4, ge=0, description="L2 penalty on the parameters; decoupled with adamw.")
    decay_vectors: bool = Field(
        default=True, description="Weight decay on all parameters; false spares batch norm's, and biases."
    )
    gradient_clip: Number = Field(default=0.0, ge=0, description="Clip the gradient's L2 norm to this; 0: do not.")


class ScheduleConfig(Schema):
    """Learning rate."""

    lr_schedule: Annotated[str, one_of(SCHEDULES)] = Field(
        default="piecewise", description="The learning rate's course, iteration by iteration."
    )
    lr_max: Number = Field(default=0.1, gt=0, description="Highest learning rate of the schedule.")
    lr_min: Number = Field(default=0.0, ge=0, description="Lowest learning rate of the schedule.")


class LossConfig(Schema):
    """Weights of the loss terms other than the penalty."""

    adversarial_weight: Number = Field(default=1.0, ge=0, description="Weight of the attack's cross-entropy.")
    clean_weight: Number = Field(default=0.0, ge=0, description="Weight of the unattacked images' cross-entropy.")
    trades_weight: Number = Field(default=0.0, ge=0, description="Weight of KL(clean, adversarial prediction).")
    boosted_weight: Number = Field(
        default=0.0, ge=0, description="Weight of -log(1 - p) of the likeliest wrong class under attack (MART)."
    )
    mart_weight: Number = Field(
        default=0.0,
        ge=0,
        description="Weight of KL(clean, adversarial prediction) times the clean doubt in the label (MART).",
    )
    hat_weight: Number = Field(
        default=0.0, ge=0, description="Weight of the cross-entropy at twice the perturbation (HAT)."
    )
    label_smoothing: Number = Field(
        default=0.0, ge=0, lt=1, description="Label smoothing of the cross-entropies with the labels."
    )


class WeightPerturbationConfig(Schema):
    """Adversarial weight perturbation (AWP)."""

    awp_gamma: Number = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="AWP: length of each layer's perturbation, as a share of its weights'; 0: none.",
    )
    awp_start: Number = Field(default=0.0, ge=0, lt=1, description="AWP: fraction of training before it begins.")


class AveragingConfig(Schema):
    """Average of the weights."""

    averaging: Annotated[str, one_of(AVERAGINGS)] = Field(
        default="none", description="Which average of the weights is judged and kept; none: the weights themselves."
    )
    ema_decay: Number = Field(default=0.999, ge=0, lt=1, description="Share that averaging ema keeps in a step.")
    swa_start: Number = Field(default=0.75, ge=0, lt=1, description="Fraction of training before averaging swa.")


class PrecisionConfig(Schema):
    """Mixed precision."""

    amp: Annotated[str, one_of(AMP_MODES)] = Field(
        default="auto", description="Mixed precision; auto: fp16 on CUDA, off on the CPU."
    )
