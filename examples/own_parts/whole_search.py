"""A data set, a network, a penalty and a sampler of one's own, and a search that uses them all.

    python examples/own_parts/whole_search.py FOLDER

Nothing is copied into the package: `register` puts all of them into its dictionaries, here and in trials' processes.
docs/own_parts.md says what each must keep.
"""

import sys
from pathlib import Path
from typing import Any

import ray
import torch
from optuna.samplers import BaseSampler, RandomSampler
from torch import Tensor, nn

from tune_cure.attacks.norms import lengths
from tune_cure.data import datasets
from tune_cure.data.source import Augmentation, Dataset, DataSource
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.gradients.input_gradients import input_gradient
from tune_cure.models import registry
from tune_cure.ray_backend import session, tuner
from tune_cure.regularizers import cure, penalties
from tune_cure.regularizers.cure import Point
from tune_cure.search.proposals import samplers
from tune_cure.search.space import loading

SPACE = """
name: own-parts
data: {dataset: stripes, validation: 100}
model: two_layers
training: {epochs: 2, batch_size: 50, lr_max: 0.05}
space:
  delta: {choice: [noise, slope]}
  lambda: {loguniform: [0.001, 0.1]}
evaluation: {epsilon: 0.1, steps: 3, examples: 100}
rescore: {top: 1, steps: 3, restarts: 1, examples: 50}
search: {trials: 4, sampler: twice, scheduler: none}
resources: {concurrent: 1}
"""


def find_stripes(folder: Path, image_size: int | None, may_download: bool) -> DataSource:
    """Pictures of 8×8 pixels with a bright row or a bright column, in noise; made up, so `folder` is not looked at."""

    def read() -> dict[str, Any]:
        random = torch.Generator().manual_seed(0)
        images = torch.randint(0, 100, (600, 1, 8, 8), dtype=torch.uint8, generator=random)
        labels = torch.arange(600) % 2
        for image, label, place in zip(images, labels, torch.randint(0, 8, (600,), generator=random), strict=True):
            image[0].select(int(label), int(place)).fill_(200)
        return {"train_images": images, "train_labels": labels, "classes": ["row", "column"]}

    # The fingerprint says when the data has changed: what was prepared before is then prepared anew.
    return DataSource(source="made-up stripes", fingerprint="stripes 1", read=read)


def two_layers(num_classes: int, in_channels: int, width: int = 16) -> nn.Module:
    """A convolution, and a linear layer on the mean over the picture. Normalisation is put before it by `build`."""
    convolution = nn.Conv2d(in_channels, width, 5, padding=2, bias=False)
    return nn.Sequential(
        convolution,
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(width, num_classes),
    )


def noise(point: Point) -> Tensor:
    """A direction of the CURE penalty: a random one, of length h."""
    z = torch.randn(point.images.shape, generator=point.generator, device=point.images.device)
    return point.h * z / lengths(z)[:, None, None, None]


def slope(model: nn.Module, images: Tensor, labels: Tensor, *, statistics: str, loss_scale: float, **_: Any) -> Tensor:
    """A penalty that is not CURE: the length of the loss's gradient at the image."""
    with STATISTICS[statistics](model):
        return lengths(input_gradient(model, images, labels, create_graph=True, loss_scale=loss_scale))


def twice(seed: int, drawn: int) -> BaseSampler:
    """A sampler: random draws from another seed."""
    return RandomSampler(seed=2 * seed + drawn)


def register() -> None:
    """Makes them known under their names. Each process needs this: this one, and those that trials run in."""
    datasets.DATASETS["stripes"] = Dataset(find_stripes, Augmentation(padding=0, flip=False))
    registry.MODELS["two_layers"] = two_layers
    cure.DIRECTIONS["noise"] = noise
    penalties.OTHER_PENALTIES["slope"] = slope
    samplers.SAMPLERS["twice"] = twice


def main(folder: Path) -> None:
    """Searches SPACE."""
    register()
    folder.mkdir(parents=True, exist_ok=True)
    space = folder / "space.yaml"
    space.write_text(SPACE)
    session.start_ray(setup=register)
    result = tuner.run(loading.load(space), folder)
    ray.shutdown()
    print(result)
    print(result.trials[["trial", "status", "delta", "lambda", "pgd_accuracy_best"]].to_string(index=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
