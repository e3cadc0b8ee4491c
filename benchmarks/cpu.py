"""What a training step gains on a CPU from memory that the process keeps, and from weight gradients as products.

    .venv/bin/python benchmarks/cpu.py --data-root FOLDER --output benchmarks/results

Three processes take turns at a step with the default penalty: one as trials run, one that gives freed memory back to
the system as glibc does by itself, and one that leaves every weight gradient to oneDNN. `time` is that of a step as
trials run, in that of a step without, median and quartiles over the turns; `peak_mb` and `peak_mb_without` are the most
memory that these two processes had.
"""

import argparse
import itertools
import resource
import statistics
import sys
import time
from pathlib import Path
from subprocess import PIPE, Popen

import pandas as pd
import step
import torch

from tune_cure import convolution_gradients, cpus, data
from tune_cure.config import ModelConfig
from tune_cure.data import DataSpec, to_float
from tune_cure.timing import Stopwatch

ALL, MEMORY, PRODUCTS = "as trials run", "freed memory is kept", "weight gradients are products"
WARM_UP = 3  # steps that are not counted
NETWORKS = [("preact_resnet18", 32, 2), ("preact_resnet18", 32, 1), ("preact_resnet10", 128, 1)]  # batch, threads


def work(without: str, root: str, name: str, batch: int, threads: int) -> None:
    """Makes a step for each line of the standard input, and answers with its seconds; at the end, with the memory."""
    if without == MEMORY:
        torch.set_num_threads(threads)
    else:
        cpus.take(threads)
    if without == PRODUCTS:
        convolution_gradients.product_is_faster = lambda *_: False
    splits = data.load(DataSpec(dataset="cifar10", root=root, train_examples=1000))
    device = torch.device("cpu")
    trainer = step.trainer(splits, ModelConfig(name=name), device, batch, **step.BATCH)
    trainer.model.train()
    pixels, labels = splits.train.gather(torch.arange(batch))
    images, watch = to_float(pixels).contiguous(memory_format=torch.channels_last), Stopwatch(device)
    for number, _ in zip(itertools.count(), sys.stdin, strict=False):
        started = time.perf_counter()
        trainer._step(images, labels, number, watch)
        print(time.perf_counter() - started, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measure(root: str, name: str, batch: int, threads: int, turns: int) -> list[dict[str, object]]:
    """A row for each of the two."""
    command = [sys.executable, __file__, "--data-root", root, "--worker"]
    workers = {
        without: Popen([*command, without, name, str(batch), str(threads)], stdin=PIPE, stdout=PIPE, text=True)
        for without in (ALL, MEMORY, PRODUCTS)
    }
    seconds: dict[str, list[float]] = {without: [] for without in workers}
    for turn in range(turns + WARM_UP):
        for without, worker in workers.items():
            assert worker.stdin and worker.stdout
            print(file=worker.stdin, flush=True)
            took = float(worker.stdout.readline())
            if turn >= WARM_UP:
                seconds[without].append(took)
    peaks = {without: float(worker.communicate()[0]) for without, worker in workers.items()}
    rows: list[dict[str, object]] = []
    for without in (MEMORY, PRODUCTS):
        ratios = [a / b for a, b in zip(seconds[ALL], seconds[without], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        row = {"model": name, "batch": batch, "threads": threads, "where": without, "time": middle, "time_25": low}
        rows.append({**row, "time_75": high, "peak_mb": peaks[ALL], "peak_mb_without": peaks[without]})
    return rows


def main() -> None:
    """Prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default="~/.cache/tune_cure", help="where CIFAR-10 is")
    parser.add_argument("--turns", type=int, default=15, help="steps of each process (default: 15)")
    parser.add_argument("--output", type=Path, help="a folder for cpu.csv")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        without, name, batch, threads = options.worker
        work(without, options.data_root, name, int(batch), int(threads))
        return
    print(f"instruction set: {torch.backends.cpu.get_cpu_capability()}", flush=True)
    rows = [row for of in NETWORKS for row in measure(options.data_root, *of, options.turns)]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="{:.3f}".format))
    if options.output:
        table.round(3).to_csv(options.output / "cpu.csv", index=False)


if __name__ == "__main__":
    main()
