"""Seconds from a cold process to a network of a given PGD-50-10 accuracy on CIFAR-10's test set.

    .venv/bin/python benchmarks/time_to_accuracy.py --data-root FOLDER --goal 0.45 --output benchmarks/results

The clock starts before Python does, in another process: imports, reading the images, the device's start and all of the
training count. Decoding the data set's files does not, which is done once on a machine (`seconds_to_prepare`; next to
nothing where it has been done before). Nor does the judging afterwards: it is PGD with 50 steps and 10 restarts on the
test set's images. The schedule is known beforehand and runs to its end; there is no choosing among epochs or runs.
The table is written once a network is trained, and again once it is judged.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

STARTED = "TIME_TO_ACCURACY_STARTED"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default="~/.cache/tune_cure", help="where CIFAR-10 is")
    parser.add_argument("--dataset", default="cifar10", help="another data set (default: cifar10)")
    parser.add_argument("--goal", type=float, default=0.45, help="PGD-50-10 accuracy (default: 0.45)")
    parser.add_argument("--model", default="preact_resnet18", help="the network (default: preact_resnet18)")
    parser.add_argument("--width", type=int, help="its first stage's channels")
    parser.add_argument("--train-images", type=int, help="train on so many (default: all but 1,000)")
    parser.add_argument("--examples", type=int, default=10_000, help="test images to judge on (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run each")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a hyperparameter")
    parser.add_argument("--network", type=Path, help="a file for the trained network, of the last seed")
    parser.add_argument("--output", type=Path, help="a folder for time_to_accuracy.csv")
    parser.add_argument("--name", help="of the table: time_to_accuracy_NAME.csv")
    return parser.parse_args(arguments)


def prepare(options: argparse.Namespace) -> float:
    """Decodes the data set unless it has been; seconds."""
    from tune_cure.data import splits as data
    from tune_cure.data.config import DataSpec

    started = time.perf_counter()
    data.load(DataSpec(dataset=options.dataset, root=options.data_root))
    return time.perf_counter() - started


def run(options: argparse.Namespace, seed: int, started: float) -> Iterator[dict[str, Any]]:
    """Trains one network and judges it; `started` is when the process was. Gives the row before and after judging."""
    import torch
    import yaml

    from tune_cure.data import splits as data
    from tune_cure.data.config import DataSpec
    from tune_cure.evaluation.config import EvaluationConfig
    from tune_cure.evaluation.metrics import evaluate
    from tune_cure.training.config import ModelConfig, TrainingConfig
    from tune_cure.training.trainer import Trainer
    from tune_cure.utils import cpu

    given = dict(one.split("=", 1) for one in options.set)
    defaults = {"lr_schedule": "cyclic", "lr_max": 0.2, "lambda": 0.1, "h": 1.739}
    config = TrainingConfig.model_validate(defaults | {key: yaml.safe_load(value) for key, value in given.items()})
    cpu.configure_cpu(None)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = DataSpec(
        dataset=options.dataset, root=options.data_root, validation=1000, train_examples=options.train_images
    )
    splits = data.load(spec)
    trainer = Trainer(
        config, splits, model=ModelConfig(name=options.model, width=options.width), device=device, seed=seed
    )
    imported = time.time() - started
    for _ in range(config.epochs):
        metrics = trainer.train_epoch()
        spent = time.time() - started
        print(f"epoch {metrics['epoch']}: {spent:.1f} s, loss {metrics['train_loss']}", file=sys.stderr, flush=True)
        if metrics["diverged"]:
            raise SystemExit("diverged")
    if options.network:
        trainer.evaluate()
        torch.save(trainer.best_model(), options.network)
    row = {
        "seed": seed,
        "model": options.model,
        "width": options.width,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU",
        "epochs": config.epochs,
        "train_images": len(splits.train),
        "seconds_to_first_step": imported,
        "seconds": spent,
        "goal": options.goal,
        "hyperparameters": json.dumps(config.model_dump(by_alias=True)),
    }
    yield row
    test = splits.test.to(device).subset(options.examples, seed=0)
    judged = evaluate(trainer.judged_model, test, EvaluationConfig(steps=50, restarts=10))
    yield {
        **row,
        "seconds_to_judge": time.time() - started - spent,
        "test_images": len(test),
        "clean_accuracy": judged["clean_accuracy"],
        "pgd_50_10_accuracy": judged["pgd_accuracy"],
        "pgd_50_10_accuracy_se": judged["pgd_accuracy_se"],
        "reached": judged["pgd_accuracy"] >= options.goal,
    }


def main() -> None:
    """Starts a process for each seed; in that one, trains."""
    options = parse()
    if STARTED in os.environ:
        for row in run(options, options.seeds[0], float(os.environ[STARTED])):
            print(json.dumps(row), flush=True)
        return
    prepared = prepare(options)
    rows: dict[int, dict[str, Any]] = {}
    for seed in options.seeds:
        command = [sys.executable, __file__, *sys.argv[1:], "--seeds", str(seed)]
        environment = {**os.environ, STARTED: str(time.time())}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                rows[seed] = {**json.loads(line), "seconds_to_prepare": prepared}
                print(pd.Series(rows[seed]).to_string(), flush=True)
                if options.output:
                    name = f"time_to_accuracy_{options.name}.csv" if options.name else "time_to_accuracy.csv"
                    pd.DataFrame(rows.values()).to_csv(options.output / name, index=False)
        if process.returncode:
            raise SystemExit(process.returncode)


if __name__ == "__main__":
    main()
