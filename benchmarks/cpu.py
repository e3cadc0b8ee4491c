"""What a training step gains on a CPU from memory that the process keeps, and from weight gradients as products.

    .venv/bin/python benchmarks/cpu.py --data-root FOLDER --output benchmarks/results

Three processes take turns at two steps with the default penalty: one as trials run, one that gives freed memory back to
the system as glibc does by itself, and one that leaves every weight gradient to oneDNN. `time` is that of a step as
trials run, in that of a step without, median and quartiles over the turns; `peak_mb` and `peak_mb_without` are the most
memory that these two processes had.
"""

import argparse
from multiprocessing.connection import Connection
from pathlib import Path

import pandas as pd
import step
import torch

from tune_cure.data.config import DataSpec
from tune_cure.gradients import convolution_gradients
from tune_cure.utils import cpu as cpus

ALL, MEMORY, PRODUCTS = "as trials run", "freed memory is kept", "weight gradients are products"
NETWORKS = [("preact_resnet18", 32, 2), ("preact_resnet18", 32, 1), ("preact_resnet10", 128, 1)]  # batch, threads
TIME = ("time", "time_25", "time_75")


def work(without: str, options: argparse.Namespace, asked: Connection) -> None:
    """A process that does without one of the measures, or without none."""
    if without == MEMORY:
        torch.set_num_threads(options.threads)
    else:
        cpus.configure_cpu(options.threads)
    if without == PRODUCTS:
        convolution_gradients.product_is_faster = lambda *_: False
    step.answer((step.OURS, "batch statistics"), options, asked)


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """A row for each of the two."""
    processes = (ALL, MEMORY, PRODUCTS)
    with step.processes(work, processes, options) as ask:
        seconds = step.in_turns(ask, processes, options.turns)
        peaks = {without: ask(without, "peak_mb") for without in processes}
    network = {"model": options.model, "batch": options.batch, "threads": options.threads}
    return [
        {
            **network,
            "where": without,
            **step.ratios(seconds, without, ALL, TIME),
            "peak_mb": peaks[ALL],
            "peak_mb_without": peaks[without],
        }
        for without in (MEMORY, PRODUCTS)
    ]


def main() -> None:
    """Prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default="~/.cache/tune_cure", help="where CIFAR-10 is")
    parser.add_argument("--turns", type=int, default=15, help="turns of each process (default: 15)")
    parser.add_argument("--output", type=Path, help="a folder for cpu.csv")
    options = parser.parse_args()
    options.device, options.width = "cpu", None
    options.data = DataSpec(dataset="cifar10", root=options.data_root, train_examples=1000)
    print(f"instruction set: {torch.backends.cpu.get_cpu_capability()}", flush=True)
    rows = []
    for options.model, options.batch, options.threads in NETWORKS:
        rows += measure(options)
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="{:.3f}".format))
    if options.output:
        table.round(3).to_csv(options.output / "cpu.csv", index=False)


if __name__ == "__main__":
    main()
