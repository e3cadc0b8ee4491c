"""Robust accuracy of one network under our PGD and under other implementations, on the same test images.

    pip install --no-deps torchattacks adversarial-robustness-toolbox
    python benchmarks/attacks.py BEST_MODEL.pt --data-root FOLDER

AutoAttack (Croce and Hein 2020, arXiv 2003.01690) is put together from torchattacks' parts with the settings of its
standard version: APGD on the cross-entropy and targeted, 100 steps each, FAB targeted, 100, Square, 5,000 queries.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
import torchattacks
from art.attacks.evasion import ProjectedGradientDescentPyTorch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from tune_cure.attacks.pgd import pgd
from tune_cure.data import splits as data
from tune_cure.data.batches import to_float
from tune_cure.data.config import DataSpec
from tune_cure.evaluation.standard_error import standard_error
from tune_cure.models import checkpoints
from tune_cure.utils.schema import parse_number

NUM_CLASSES = 10
BATCH = 250


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a best_model.pt")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--epsilon", default="8/255")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--output", type=Path, help="a folder for the table as a CSV file")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    splits = data.load(DataSpec(dataset=options.dataset, root=options.data_root))
    pixels, labels = splits.test.subset(options.images, seed=0).gather(torch.arange(options.images))
    images, labels = to_float(pixels).to(device), labels.to(device)
    model = checkpoints.load(options.model, map_location=str(device)).to(device)
    torch.manual_seed(0)  # of the others' random starts
    rows = []
    for name, attack in _attacks(model, images, parse_number(options.epsilon)).items():
        started = time.perf_counter()
        parts = zip(images.split(BATCH), labels.split(BATCH), strict=True)
        found = torch.cat([_is_correct(model, attack(x, y), y) for x, y in parts])
        robust = found.double().mean().item()
        error = standard_error(robust, len(images))
        rows.append({"attack": name, "accuracy": robust, "se": error, "seconds": time.perf_counter() - started})
        print(f"{name:40} {100 * robust:5.1f} ± {100 * error:.1f}%  {rows[-1]['seconds']:.0f} s", flush=True)
    if options.output:
        pd.DataFrame(rows).to_csv(options.output / "attacks.csv", index=False)


def _attacks(model: nn.Module, images: Tensor, epsilon: float) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    step = epsilon / 4

    def ours(**settings: object) -> Callable[[Tensor, Tensor], Tensor]:
        generator = torch.Generator(images.device).manual_seed(0)
        return lambda x, y: pgd(model, x, y, epsilon, generator=generator, **settings)

    classifier = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(images.shape[1:]), NUM_CLASSES, clip_values=(0.0, 1.0)
    )

    def art(steps: int, restarts: int) -> Callable[[Tensor, Tensor], Tensor]:
        attack = ProjectedGradientDescentPyTorch(
            classifier, eps=epsilon, eps_step=step, max_iter=steps, num_random_init=restarts, verbose=False,
            batch_size=BATCH,
        )  # fmt: skip
        return lambda x, y: torch.from_numpy(attack.generate(x.cpu().numpy(), y.cpu().numpy())).to(x.device)

    auto = [
        torchattacks.APGD(model, eps=epsilon, steps=100, loss="ce"),
        torchattacks.APGDT(model, eps=epsilon, steps=100, n_classes=NUM_CLASSES),
        torchattacks.FAB(model, eps=epsilon, steps=100, multi_targeted=True, n_classes=NUM_CLASSES),
        torchattacks.Square(model, eps=epsilon, n_queries=5000),
    ]
    return {
        "none": lambda x, y: x,
        "ours, PGD-10": ours(steps=10),
        "torchattacks, PGD-10": torchattacks.PGD(model, eps=epsilon, alpha=step, steps=10),
        "ART, PGD-10": art(10, 1),
        "ours, PGD-50 with 10 starts": ours(steps=50, restarts=10),
        "ours, PGD-50 with 10 starts, margin": ours(steps=50, restarts=10, loss="margin"),
        "ART, PGD-50 with 10 starts": art(50, 10),
        "AutoAttack": torchattacks.MultiAttack(auto),
    }


@torch.no_grad()
def _is_correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    correct: Tensor = model(images).argmax(dim=1) == labels
    return correct


if __name__ == "__main__":
    main()
