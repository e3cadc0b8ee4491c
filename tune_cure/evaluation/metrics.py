"""Accuracies of one network on fixed examples: the same attack on the same images for every network and epoch."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tune_cure.attacks.norms import cosine, project, random_start
from tune_cure.attacks.pgd import pgd
from tune_cure.attacks.registry import NORMS
from tune_cure.data.batches import to_float
from tune_cure.data.splits import Examples
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.names import ACCURACIES, METRICS
from tune_cure.evaluation.standard_error import standard_error
from tune_cure.gradients.batch_norm_mode import evaluation_mode
from tune_cure.gradients.input_gradients import cross_entropy, input_gradient, logits_and_input_gradient
from tune_cure.gradients.mixed_precision import full_float32

BATCH_SIZE = 500
START_SEED = 0
"""Seed of the random starts: the same for every network, so that accuracies can be compared image by image."""


def evaluate(model: nn.Module, examples: Examples, config: EvaluationConfig) -> dict[str, float]:
    """Return clean, FGSM and PGD accuracy of a network, and signs of catastrophic overfitting.

    FGSM here is one step of `epsilon` from the image itself. The network runs in evaluation mode and in float32 (not
    TF32), and the random starts come from a fixed seed, so the same weights give the same numbers.

    Args:
        model: Network from images in [0, 1] to logits, on the examples' device.
        examples: The images, all of which are used.
        config: The threat model and the attack.

    Returns:
        `METRICS`. The three accuracies are fractions of all `examples`, and `_se` is the binomial standard error of
        each. `fgsm_loss_increase` is the mean by which FGSM raises the cross-entropy, in nats; it is near zero or
        negative where a network has learned to hide its gradient from single steps. `gradient_alignment` is the mean
        cosine of the loss gradients at the image and at a random point of the ball (Andriushchenko and Flammarion 2020,
        arXiv 2007.02617); it falls toward zero with catastrophic overfitting.
    """
    device = examples.images.device
    generator = torch.Generator(device).manual_seed(START_SEED)
    totals = dict.fromkeys((*ACCURACIES, "fgsm_loss_increase", "gradient_alignment"), 0.0)
    with exact_evaluation(model):
        for positions in torch.arange(len(examples), device=device).split(BATCH_SIZE):
            pixels, labels = examples.gather(positions)
            images = to_float(pixels).contiguous(memory_format=torch.channels_last)
            for name, values in _metrics_of_batch(model, images, labels, config, generator).items():
                totals[name] += float(values.double().sum())
    means = {name: total / len(examples) for name, total in totals.items()}
    errors = {f"{name}_se": standard_error(means[name], len(examples)) for name in ACCURACIES}
    return {name: (means | errors)[name] for name in METRICS}


@contextmanager
def exact_evaluation(model: nn.Module) -> Iterator[None]:
    """Put `model` into evaluation mode and compute in exact float32, whatever the process is set to."""
    with evaluation_mode(model), full_float32():
        yield


def _metrics_of_batch(
    model: nn.Module, images: Tensor, labels: Tensor, config: EvaluationConfig, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return the metrics of each example of a batch: (N,) each."""
    logits, gradient = logits_and_input_gradient(model, images, labels)
    is_correct = logits.argmax(dim=1) == labels
    step = config.epsilon * NORMS.resolve(config.norm).steepest(gradient)
    adversarial = pgd(
        model,
        images,
        labels,
        config.epsilon,
        steps=config.steps,
        restarts=config.restarts,
        norm=config.norm,
        loss=config.loss,
        generator=generator,
        correct=is_correct,
    )
    nearby = random_start(images, config.epsilon, generator, config.norm)
    nearby_gradient = input_gradient(model, nearby, labels)
    with torch.no_grad():
        fgsm_logits = model(project(images + step, images, config.epsilon, config.norm))
        return {
            "clean_accuracy": is_correct,
            "fgsm_accuracy": fgsm_logits.argmax(dim=1) == labels,
            "pgd_accuracy": model(adversarial).argmax(dim=1) == labels,
            "fgsm_loss_increase": cross_entropy(fgsm_logits, labels) - cross_entropy(logits, labels),
            "gradient_alignment": cosine(gradient, nearby_gradient),
        }
