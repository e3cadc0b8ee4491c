"""How much of the CURE penalty and of its parameter gradient mixed precision keeps, on a trained network.

    python benchmarks/mixed_precision.py BEST_MODEL.pt --data-root FOLDER

Everything is compared with float32 on the same weights and images. The naive way, shown beside it, is that of the
code that this project descends from: the mean loss under autocast, its gradient taken unscaled.
"""

import argparse
import itertools
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_cure.data import splits as data
from tune_cure.data.batches import to_float
from tune_cure.data.config import DataSpec
from tune_cure.gradients.batch_norm_mode import STATISTICS
from tune_cure.gradients.input_gradients import input_gradient
from tune_cure.gradients.mixed_precision import low_precision
from tune_cure.models import checkpoints
from tune_cure.regularizers.cure import cure_penalty

LENGTHS = {"1/255": 1 / 255, "8/255": 8 / 255}  # of z, for every pixel
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a best_model.pt")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--output", type=Path, help="a folder for the tables as CSV files")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    splits = data.load(DataSpec(dataset=options.dataset, root=options.data_root))
    pixels, labels = splits.test.subset(options.images, seed=0).gather(torch.arange(options.images))
    images, labels = to_float(pixels).to(device), labels.to(device)
    model = checkpoints.load(options.model, map_location=str(device)).to(device)
    print(f"{options.model}, {options.images} test images, {device}, torch {torch.__version__}")
    tables = {"penalty": penalties(model, images, labels), "input_gradient": underflows(model, images, labels)}
    for name, rows in tables.items():
        frame = pd.DataFrame(rows)
        print(f"\n{frame.to_string(index=False, float_format=lambda number: f'{number:.3g}')}")
        if options.output:
            frame.to_csv(options.output / f"mixed_precision_{name}.csv", index=False)


def penalties(model: nn.Module, images: Tensor, labels: Tensor) -> list[dict[str, object]]:
    """Relative errors of the penalty and of its parameter gradient."""
    rows: list[dict[str, object]] = []
    for statistics, (length, step) in itertools.product(STATISTICS, LENGTHS.items()):
        h = step * images[0].numel() ** 0.5
        exact = _penalty(model, images, labels, h, statistics, None)
        for name, dtype in DTYPES.items():
            found = _penalty(model, images, labels, h, statistics, dtype)
            rows.append(
                {
                    "statistics": statistics,
                    "z per pixel": length,
                    "amp": name,
                    "error of the mean": abs(found[0].mean() / exact[0].mean() - 1).item(),
                    "median error": ((found[0] - exact[0]).abs() / exact[0]).median().item(),
                    "error of the parameter gradient": ((found[1] - exact[1]).norm() / exact[1].norm()).item(),
                    "its cosine": F.cosine_similarity(found[1], exact[1], dim=0).item(),
                }
            )
    return rows


def _penalty(
    model: nn.Module, images: Tensor, labels: Tensor, h: float, statistics: str, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """(N,) penalties, and the gradient of their mean, all parameters in one vector."""
    network, loss_scale = low_precision(model, images.device, dtype)
    values = cure_penalty(network, images, labels, h, statistics=statistics, loss_scale=loss_scale)
    scaler = torch.amp.GradScaler(images.device.type, enabled=dtype == torch.float16)
    parameters = list(model.parameters())
    slopes = torch.autograd.grad(scaler.scale(values.mean()), parameters)
    scale = scaler.get_scale()
    return values.detach(), torch.cat([slope.flatten() / scale for slope in slopes])


def underflows(model: nn.Module, images: Tensor, labels: Tensor) -> list[dict[str, object]]:
    """Input gradients in fp16 as the network grows surer: its logits are multiplied by `sureness`."""
    rows: list[dict[str, object]] = []
    for sureness in (1.0, 4.0, 8.0, 16.0, 32.0):
        sure = _Surer(model, sureness).eval()
        predicted = sure(images).argmax(dim=1)
        exact = input_gradient(sure, images, predicted)
        for way in ("ours", "naive"):
            if way == "ours":
                network, loss_scale = low_precision(sure, images.device, torch.float16)
                found = input_gradient(network, images, predicted, loss_scale=loss_scale)
            else:
                found = naive_gradient(sure, images, predicted)
            rows.append(
                {
                    "fp16 input gradient": way,
                    "logits": f"×{sureness:g}",
                    "median of |float32|": exact.abs().median().item(),
                    "exact zeros": (found == 0).float().mean().item(),
                    "same sign": (found.sign() == exact.sign()).float().mean().item(),
                }
            )
    return rows


def naive_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the mean loss, forward and loss under autocast, not scaled."""
    points = images.detach().requires_grad_()
    with torch.autocast(images.device.type, torch.float16):
        loss = F.cross_entropy(model(points), labels)
    (gradient,) = torch.autograd.grad(loss, points)
    return gradient


class _Surer(nn.Module):
    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.factor * self.model(images)
        return logits


if __name__ == "__main__":
    main()
