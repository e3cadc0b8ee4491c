"""The accuracies of one network on fixed examples: clean, FGSM and PGD, the same attack for every network and epoch."""

import math

import torch
from pydantic import Field
from torch import nn

from tune_cure.attacks import fgsm, pgd
from tune_cure.data import Examples, to_float
from tune_cure.gradients import evaluation_mode
from tune_cure.schema import Number, Schema

BATCH_SIZE = 500
START_SEED = 0  # of the random starts: the same for every network, so that accuracies can be compared in pairs


class EvaluationConfig(Schema):
    """How every trial of a search is judged. It is never searched: otherwise the smallest epsilon would win."""

    epsilon: Number = Field(default=8 / 255, gt=0, le=1, description="Radius of the L-infinity ball, in pixel units.")
    steps: int = Field(default=10, ge=1, description="PGD steps; each is a quarter of epsilon long.")
    restarts: int = Field(default=1, ge=1, description="PGD random starts; robust means robust to all of them.")
    examples: int = Field(default=1000, ge=1, description="Validation images used, stratified; all if there are fewer.")


def evaluate(model: nn.Module, examples: Examples, config: EvaluationConfig) -> dict[str, float]:
    """Clean, FGSM and PGD accuracy, each as a fraction of all `examples`.

    FGSM here is one step of `epsilon` from the image itself. Everything runs in float32 (not TF32) with the network in
    evaluation mode, and the random starts come from a fixed seed: the same weights give the same numbers.

    Args:
        model: Network from images in [0, 1] to logits, on the examples' device.
        examples: The images to judge on; every one of them is used.
        config: The threat model and the attack.

    Returns:
        `clean_accuracy`, `fgsm_accuracy`, `pgd_accuracy`.
    """
    device = examples.images.device
    generator = torch.Generator(device).manual_seed(START_SEED)
    correct = {"clean_accuracy": 0, "fgsm_accuracy": 0, "pgd_accuracy": 0}
    cudnn = torch.backends.cudnn
    exact = cudnn.flags(enabled=True, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False)
    with evaluation_mode(model), exact:
        for positions in torch.arange(len(examples), device=device).split(BATCH_SIZE):
            pixels, labels = examples.gather(positions)
            images = to_float(pixels).contiguous(memory_format=torch.channels_last)
            candidates = {
                "clean_accuracy": images,
                "fgsm_accuracy": fgsm(model, images, labels, config.epsilon, alpha=1.0, init="zero"),
                "pgd_accuracy": pgd(
                    model,
                    images,
                    labels,
                    config.epsilon,
                    steps=config.steps,
                    restarts=config.restarts,
                    generator=generator,
                ),
            }
            with torch.no_grad():
                for name, candidate in candidates.items():
                    correct[name] += int((model(candidate).argmax(dim=1) == labels).sum())
    return {name: count / len(examples) for name, count in correct.items()}


def standard_error(accuracy: float, examples: int) -> float:
    """The binomial standard error of an accuracy (a fraction) that was measured on so many examples."""
    return math.sqrt(accuracy * (1.0 - accuracy) / examples)
