"""Parts of your own: data sets, networks, an attack, a penalty, a direction of CURE, a method, a schedule, a sampler.

Nothing is copied into the package, and nothing is registered: own_parts.yaml names each part as `my_parts:NAME`.
docs/own_parts.md says what each kind of part must keep.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optuna.samplers import BaseSampler, QMCSampler
from torch import Tensor, nn

from tune_cure.attacks.attack import Attack, Step
from tune_cure.attacks.norms import lengths, project, unit
from tune_cure.attacks.registry import NORMS
from tune_cure.data.source import Augmentation, DataError, Dataset, DataSource
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.gradients.input_gradients import input_gradient
from tune_cure.regularizers.cure import Point
from tune_cure.regularizers.regularizer import PenaltyStep, Regularizer
from tune_cure.training.presets import Preset
from tune_cure.utils.hyperparameters import hyperparameter


def find_arrays(root: Path, image_size: int | None, download: bool) -> DataSource:
    """Find images.npz in `root`: images (M, C, H, W) uint8, labels (M,) whole numbers from 0, classes (K,) names."""
    file = root / "images.npz"
    if not file.is_file():
        raise DataError(f"{file}: there is no such file; put images, labels and classes there")

    def read() -> dict[str, Any]:
        with np.load(file) as arrays:
            return {
                "train_images": torch.from_numpy(arrays["images"]),
                "train_labels": torch.from_numpy(arrays["labels"].astype(np.int64)),
                "classes": [str(name) for name in arrays["classes"]],
            }  # without test_images, a test set is held out of these

    state = file.stat()
    return DataSource(f"arrays of {file}", fingerprint=f"{file} {state.st_size} {state.st_mtime_ns}", read=read)


arrays = Dataset(find_arrays)


def find_stripes(root: Path, image_size: int | None, download: bool) -> DataSource:
    """Make up pictures of 8×8 pixels with a bright row or a bright column, in noise; `root` is not looked at."""

    def read() -> dict[str, Any]:
        random = torch.Generator().manual_seed(0)
        images = torch.randint(0, 100, (600, 1, 8, 8), dtype=torch.uint8, generator=random)
        labels = torch.arange(600) % 2
        for image, label, place in zip(images, labels, torch.randint(0, 8, (600,), generator=random), strict=True):
            image[0].select(int(label), int(place)).fill_(200)
        return {"train_images": images, "train_labels": labels, "classes": ["row", "column"]}

    # The fingerprint says when the data has changed: what was prepared before is then prepared again.
    return DataSource("made-up stripes", fingerprint="stripes 1", read=read)


stripes = Dataset(find_stripes, Augmentation(padding=0, flip=False))


def two_layers(num_classes: int, in_channels: int, width: int = 16) -> nn.Module:
    """Return a convolution, and a linear layer on the maximum over the picture. Normalization is put before it."""
    convolution = nn.Conv2d(in_channels, width, 5, padding=2, bias=False)
    return nn.Sequential(
        convolution,
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(width, num_classes),
    )


def mlp(num_classes: int, in_channels: int, width: int = 64) -> nn.Module:
    """Return three layers on images of any size, averaged to 8×8; softplus has second derivatives for the penalty."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(8),
        nn.Flatten(),
        nn.Linear(64 * in_channels, width),
        nn.Softplus(),
        nn.Linear(width, width),
        nn.Softplus(),
        nn.Linear(width, num_classes),
    )


@dataclass(kw_only=True)
class TwoSteps(Attack):
    """Two gradient steps from the image, the first of `first_step` × epsilon."""

    first_step: float = hyperparameter(0.5, "First step of attack TwoSteps as a multiple of epsilon.", gt=0)

    def __call__(self, step: Step) -> Tensor:
        point = step.images
        with STATISTICS[self.attack_statistics](step.network):
            for length in (self.first_step * self.epsilon, self.epsilon):
                gradient = input_gradient(step.network, point, step.labels, loss_scale=step.loss_scale)
                ascent = length * NORMS.resolve(self.norm).steepest(gradient)
                point = project(point + ascent, step.images, self.epsilon, self.norm)
        return point.detach()


@dataclass(kw_only=True)
class GradientNorm(Regularizer):
    """‖∇ₓℓ(x)‖₂ of each example, to the power of `power`."""

    power: float = hyperparameter(1.0, "GradientNorm: power of the gradient's length.", ge=1)

    def __call__(self, step: PenaltyStep) -> Tensor:
        with STATISTICS[self.penalty_statistics](step.network):
            gradient = input_gradient(
                step.network, step.images, step.labels, create_graph=True, loss_scale=step.loss_scale
            )
        return lengths(gradient).pow(self.power)

    @property
    def uses_ball(self) -> bool:
        """Return False: epsilon and norm make no difference."""
        return False

    @property
    def uses_two_sided(self) -> bool:
        """Return False: there is one gradient."""
        return False


def diagonal(point: Point) -> Tensor:
    """Return a corner of the ball, drawn at random, of L2 length h: a direction of CURE, (N, C, H, W)."""
    noise = torch.rand(point.images.shape, generator=point.generator, device=point.images.device)
    return point.h * unit((noise - 0.5).sign().to(point.images.dtype))


two_steps = Preset(
    title="two steps, and a penalty on the length of the input gradient",
    source="this file",
    keys={"attack": "my_parts:TwoSteps", "first_step": 0.75, "regularizer": "my_parts:GradientNorm", "lambda": 0.01},
    space={"lambda": {"loguniform": [0.001, 0.1]}, "first_step": {"uniform": [0.5, 1]}},
    ranges="a factor of ten on either side; half of the radius to all of it",
)
"""A method: `training: {method: my_parts:two_steps}` and `space: {method: default}`."""


def warmup(fraction: float) -> float:
    """Rise to 1 in the first tenth of training, then fall to 0 in a straight line."""
    return fraction / 0.1 if fraction < 0.1 else (1.0 - fraction) / 0.9


def halton(seed: int, drawn: int) -> BaseSampler:
    """Return a scrambled Halton sequence; another one after an interruption, when `drawn` trials have been proposed."""
    return QMCSampler(qmc_type="halton", scramble=True, seed=seed + drawn)
