"""Whether the input gradients at two sets of images come cheaper as one batch than as two, by running statistics.

    .venv/bin/python benchmarks/one_batch.py --output benchmarks/results

One thread; one and two batches take turns; CPU time of the process, so that other work on the machine counts little.
`two_for_one` is the time of the two batches in that of the one, median and quartiles over the turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from tune_cure.gradients.batch_norm_mode import evaluation_mode
from tune_cure.gradients.input_gradients import input_gradient
from tune_cure.models import networks

TURNS = 9
SIZE = 32  # of the images, and the network's width


def ratio(images: int, *, twice: bool) -> list[float]:
    """Lower quartile, median and upper quartile; `twice`, with the graph for a second derivative."""
    torch.manual_seed(0)
    model = networks.build("preact_resnet18", num_classes=10, in_channels=3, mean=[0.5] * 3, std=[0.2] * 3, width=SIZE)
    model.to(memory_format=torch.channels_last)
    x = torch.rand(2 * images, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (2 * images,))
    halves = list(zip(x.split(images), y.split(images), strict=True))

    def seconds(run: Callable[[], object]) -> float:
        started = time.process_time()
        run()
        return time.process_time() - started

    ratios = []
    with evaluation_mode(model):
        for _ in range(TURNS + 2):
            together = seconds(lambda: input_gradient(model, x, y, create_graph=twice))
            apart = seconds(lambda: [input_gradient(model, *half, create_graph=twice) for half in halves])
            ratios.append(apart / together)
    return statistics.quantiles(ratios[2:], n=4, method="inclusive")  # the first ones find their algorithms


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="a folder for one_batch.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for images in (16, 32):
        for twice in (False, True):
            low, middle, high = ratio(images, twice=twice)
            row = {"images": images, "twice": twice}
            rows.append({**row, "two_for_one": middle, "two_for_one_25": low, "two_for_one_75": high})
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="{:.2f}".format))
    if options.output:
        table.to_csv(options.output / "one_batch.csv", index=False)


if __name__ == "__main__":
    main()
