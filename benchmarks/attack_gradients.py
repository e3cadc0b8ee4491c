"""Accuracies under attack by exact gradients, and by gradients whose factors are rounded.

    .venv/bin/python benchmarks/attack_gradients.py --output benchmarks/results

On CUDA the judging attack's forward passes compute in float32 and decide, its gradients in TF32 (10 bits of mantissa).
Here, on the CPU, the backward pass of each convolution and linear layer rounds both factors of its products to bfloat16
(7 bits) or to TF32 and sums in float32, as tensor cores do; the forward pass is exact. A few networks are trained on
digits, with and without the penalty, and attacked from the same random starts. `error` is the standard error of the
accuracy, `differ` the share of the images whose outcome is not the same.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_cure.attacks.pgd import pgd
from tune_cure.data import splits as data
from tune_cure.data.batches import to_float
from tune_cure.data.config import DataSpec
from tune_cure.evaluation.metrics import exact_evaluation, standard_error
from tune_cure.models import checkpoints
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.trainer import Trainer

ATTACKS = {"PGD-10-1": (10, 1), "PGD-50-10": (50, 10)}
TRAININGS: dict[str, dict[str, Any]] = {
    "FGSM": {"lambda": 0.0},
    "FGSM with CURE": {"lambda": 0.05, "h": 1.0},
    "PGD": {"lambda": 0.0, "attack": "pgd"},
}
MANTISSA = {"exact": 23, "TF32": 10, "bfloat16": 7}
"""Bits to which the factors of a gradient's products are rounded."""


def rounded(factor: Tensor, bits: int) -> Tensor:
    """A float32 tensor with so many bits of mantissa, rounded to the nearest."""
    drop = 23 - bits
    if not drop:
        return factor
    integers = factor.contiguous().view(torch.int32)
    return ((integers + (1 << (drop - 1))) & -(1 << drop)).view(torch.float32)


def rounding(layer: Callable[..., Tensor], bits: int) -> Callable[..., Tensor]:
    """A convolution or linear function whose input gradient is a product of rounded factors."""

    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, images: Tensor, weight: Tensor, arguments: tuple[Any, ...]) -> Tensor:
            ctx.save_for_backward(images, weight)
            ctx.arguments = arguments
            return layer(images, weight, *arguments)

        @staticmethod
        def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
            images, weight = ctx.saved_tensors
            with torch.enable_grad():
                point = images.detach().requires_grad_()
                value = layer(point, rounded(weight.detach(), bits), *ctx.arguments)  # linear in the images
                (gradient,) = torch.autograd.grad(value, point, rounded(slopes[0], bits))
            return gradient, None, None

    return lambda images, weight, *arguments: Rounded.apply(images, weight, arguments)


@contextmanager
def rounded_gradients(bits: int) -> Iterator[None]:
    """Let input gradients of convolutions and linear layers be products of rounded factors."""
    convolution, linear = F.conv2d, F.linear
    F.conv2d, F.linear = rounding(convolution, bits), rounding(linear, bits)
    try:
        yield
    finally:
        F.conv2d, F.linear = convolution, linear


def networks(options: argparse.Namespace) -> Iterator[tuple[str, nn.Module, Tensor, Tensor, float]]:
    """Names, networks in evaluation mode, images and labels to attack, and the radius."""
    splits = data.load(DataSpec(dataset="digits", validation=300))
    for name, how in TRAININGS.items():
        values = {"epochs": options.epochs, "epsilon": 0.15, "lr_max": 0.1, "lr_schedule": "cyclic", **how}
        trainer = Trainer(
            TrainingConfig.model_validate(values), splits, model=ModelConfig(name="preact_resnet10", width=8), seed=0
        )
        for _ in range(options.epochs):
            trainer.train_epoch()
        pixels, labels = splits.test.gather(torch.arange(len(splits.test)))
        yield f"digits, {name}", trainer.model.eval(), to_float(pixels), labels, 0.15
    for file in options.cifar10:
        splits = data.load(DataSpec(dataset="cifar10", root=options.data_root))
        some = splits.test.subset(options.examples, seed=0)
        pixels, labels = some.gather(torch.arange(len(some)))
        yield f"CIFAR-10, {file.stem}", checkpoints.load(file), to_float(pixels), labels, 8 / 255


def main() -> None:
    """Attacks every network by each kind of gradients, and prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10, help="of training on digits (default: 10)")
    parser.add_argument("--cifar10", type=Path, nargs="*", default=[], help="best_model.pt files of CIFAR-10")
    parser.add_argument("--data-root", default="~/.cache/tune_cure", help="where CIFAR-10 is")
    parser.add_argument("--examples", type=int, default=200, help="test images of CIFAR-10 (default: 200)")
    parser.add_argument("--output", type=Path, help="a folder for attack_gradients.csv")
    options = parser.parse_args()
    rows = []
    for name, network, images, labels, epsilon in networks(options):
        for attack, (steps, restarts) in ATTACKS.items():
            outcomes: dict[str, Tensor] = {}
            for kind, bits in MANTISSA.items():
                generator = torch.Generator().manual_seed(0)
                with exact_evaluation(network), rounded_gradients(bits):
                    found = pgd(network, images, labels, epsilon, steps=steps, restarts=restarts, generator=generator)
                with exact_evaluation(network), torch.no_grad():
                    outcomes[kind] = network(found).argmax(dim=1) == labels
                accuracy = float(outcomes[kind].double().mean())
                error = standard_error(float(outcomes["exact"].double().mean()), len(labels))
                difference = accuracy - float(outcomes["exact"].double().mean())
                differ = float((outcomes[kind] != outcomes["exact"]).double().mean())
                rows.append(
                    {"network": name, "attack": attack, "images": len(labels), "gradients": kind, "accuracy": accuracy,
                     "error": error, "difference": difference, "in_errors": difference / error, "differ": differ}
                )  # fmt: skip
        print(pd.DataFrame(rows).to_string(index=False, float_format="{:.4f}".format), flush=True)
        if options.output:
            pd.DataFrame(rows).round(6).to_csv(options.output / "attack_gradients.csv", index=False)


if __name__ == "__main__":
    main()
