"""How robust one network is on fixed examples: the same attack on the same images for every network and epoch."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from tune_cure.attacks.norms import NORMS, cosine, project, random_start
from tune_cure.attacks.pgd import pgd
from tune_cure.data.batches import to_float
from tune_cure.data.splits import Examples
from tune_cure.gradients.batch_norm_mode import evaluation_mode
from tune_cure.gradients.input_gradients import LOSSES, cross_entropy, input_gradient, logits_and_input_gradient
from tune_cure.gradients.mixed_precision import full_float32
from tune_cure.utils.formatting import format_radius
from tune_cure.utils.schema import Number, Schema, one_of

BATCH_SIZE = 500
START_SEED = 0  # of the random starts: the same for every network, so that accuracies can be compared in pairs
ACCURACIES = ("clean_accuracy", "fgsm_accuracy", "pgd_accuracy")
METRICS = (*ACCURACIES, *(f"{name}_se" for name in ACCURACIES), "fgsm_loss_increase", "gradient_alignment")


class EvaluationConfig(Schema):
    """How every trial of a search is judged. It is never searched: otherwise the smallest epsilon would win."""

    norm: Annotated[str, one_of(NORMS)] = Field(default="linf", description="Norm of the ball.")
    epsilon: Number = Field(default=8 / 255, gt=0, description="Radius of the ball, in pixel units.")
    steps: int = Field(default=10, ge=1, description="PGD steps; each is a quarter of epsilon long.")
    restarts: int = Field(default=1, ge=1, description="PGD random starts; robust means robust to all of them.")
    loss: Annotated[str, one_of(LOSSES)] = Field(default="cross_entropy", description="What PGD ascends.")
    examples: int = Field(default=1000, ge=1, description="Validation images used, stratified; all if there are fewer.")

    @field_validator("epsilon")
    @classmethod
    def _is_a_ball_of_pixels(cls, epsilon: float, info: ValidationInfo) -> float:
        if info.data.get("norm") == "linf" and epsilon > 1:
            raise ValueError(f"must be at most 1 with norm linf, but found {epsilon:g}")
        return epsilon

    def __str__(self) -> str:
        starts = f"{self.restarts} start" + "s" * (self.restarts > 1)
        ascends = "" if self.loss == "cross_entropy" else f" on the {self.loss} loss"
        return f"PGD-{self.steps} with {starts}{ascends} at {format_radius(self.epsilon, self.norm)}"


def evaluate(model: nn.Module, examples: Examples, config: EvaluationConfig) -> dict[str, float]:
    """Clean, FGSM and PGD accuracy, each as a fraction of all `examples`, and what tells of catastrophic overfitting.

    FGSM here is one step of `epsilon` from the image itself. Everything runs in float32 (not TF32) with the network in
    evaluation mode, and the random starts come from a fixed seed: the same weights give the same numbers.

    Args:
        model: Network from images in [0, 1] to logits, on the examples' device.
        examples: The images to judge on; every one of them is used.
        config: The threat model and the attack.

    Returns:
        `METRICS`: the three accuracies; the binomial standard error (`_se`) of each; `fgsm_loss_increase`, the mean
        by which FGSM raises the cross-entropy, in nats (near zero or below where a network has learnt to hide its
        gradient from single steps); `gradient_alignment`, the mean cosine of the loss gradients at the image and at a
        random point of the ball (Andriushchenko and Flammarion 2020, arXiv 2007.02617; it falls towards zero with
        catastrophic overfitting).
    """
    device = examples.images.device
    generator = torch.Generator(device).manual_seed(START_SEED)
    totals = dict.fromkeys((*ACCURACIES, "fgsm_loss_increase", "gradient_alignment"), 0.0)
    with exactly(model):
        for positions in torch.arange(len(examples), device=device).split(BATCH_SIZE):
            pixels, labels = examples.gather(positions)
            images = to_float(pixels).contiguous(memory_format=torch.channels_last)
            for name, values in _judge(model, images, labels, config, generator).items():
                totals[name] += float(values.double().sum())
    means = {name: total / len(examples) for name, total in totals.items()}
    errors = {f"{name}_se": standard_error(means[name], len(examples)) for name in ACCURACIES}
    return {name: (means | errors)[name] for name in METRICS}


@contextmanager
def exactly(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and float32 that is neither TF32 nor bfloat16, whatever the process is set to."""
    with evaluation_mode(model), full_float32():
        yield


def _judge(
    model: nn.Module, images: Tensor, labels: Tensor, config: EvaluationConfig, generator: torch.Generator
) -> dict[str, Tensor]:
    """The metrics example by example: (N,) each."""
    logits, gradient = logits_and_input_gradient(model, images, labels)
    correct = logits.argmax(dim=1) == labels
    step = config.epsilon * NORMS[config.norm].steepest(gradient)
    attacked = pgd(
        model,
        images,
        labels,
        config.epsilon,
        steps=config.steps,
        restarts=config.restarts,
        norm=config.norm,
        loss=config.loss,
        generator=generator,
        correct=correct,
    )
    nearby = input_gradient(model, random_start(images, config.epsilon, generator, config.norm), labels)
    with torch.no_grad():
        fgsm_logits = model(project(images + step, images, config.epsilon, config.norm))
        return {
            "clean_accuracy": correct,
            "fgsm_accuracy": fgsm_logits.argmax(dim=1) == labels,
            "pgd_accuracy": model(attacked).argmax(dim=1) == labels,
            "fgsm_loss_increase": cross_entropy(fgsm_logits, labels) - cross_entropy(logits, labels),
            "gradient_alignment": cosine(gradient, nearby),
        }


def standard_error(accuracy: float, examples: int) -> float:
    """The binomial standard error of an accuracy (a fraction) that was measured on so many examples."""
    return math.sqrt(accuracy * (1.0 - accuracy) / examples)
