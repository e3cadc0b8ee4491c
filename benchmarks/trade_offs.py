"""Accuracy against time of the options that make the penalty cheaper, and of what it costs exactly.

    .venv/bin/python benchmarks/trade_offs.py --setting digits_start --seeds 6 --output benchmarks/results
    .venv/bin/python benchmarks/trade_offs.py --setting cifar10 --data-root FOLDER --seeds 2 --output benchmarks/results

Every variant trains the same network with the same seeds and hyperparameters, a search's winner or start; on the test
set it is judged by PGD with 50 steps and 10 restarts. Differences are to the exact penalty, seed by seed, with a 95%
interval of the mean over the seeds (Student's t). Seeds whose runs are in the output folder already are not run again.

Seconds are measured before that: of epochs on a part of the images, for which the variants take turns, relative to the
exact penalty's of the same turn; median and quartiles over the turns. On an otherwise idle machine. `--timing-only`
measures them alone and puts them into the table of an earlier run.
"""

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy import stats

from tune_cure.data import splits as data
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Splits
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.metrics import evaluate
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.trainer import Trainer

TURNS, TIMED_IMAGES = 15, 512
EXACT = "exact: two-sided, every step, all images"
VARIANTS: dict[str, dict[str, Any]] = {
    EXACT: {},
    "one-sided": {"penalty_two_sided": False},
    "every 2nd step": {"penalty_every": 2},
    "on half of the batch": {"penalty_fraction": 0.5},
    "one-sided, on half of the batch": {"penalty_two_sided": False, "penalty_fraction": 0.5},
    "from the image": {"init": "zero", "attack_statistics": "batch"},
    "along FGSM": {"direction": "fgsm"},
    "along FGSM from the image": {"direction": "fgsm", "init": "zero", "attack_statistics": "batch"},
    "along FGSM from the image, one-sided": {
        "direction": "fgsm", "init": "zero", "attack_statistics": "batch", "penalty_two_sided": False,
    },
    "no penalty": {"lambda": 0.0},
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {
        "dataset": "digits",
        "data": {"validation": 360},
        "model": {"name": "small_cnn"},
        "training": {"epochs": 18, "batch_size": 32, "lr_schedule": "cosine"},
        "best": {"lambda": 0.00261, "h": 1.695, "lr_max": 0.3337, "epsilon": 0.1822},
        "epsilon": 0.15,
        "examples": 359,
    },
    "digits_start": {  # where the search began, and where the penalty keeps catastrophic overfitting away
        "dataset": "digits",
        "data": {"validation": 360},
        "model": {"name": "small_cnn"},
        "training": {"epochs": 18, "batch_size": 32, "lr_schedule": "cosine"},
        "best": {"lambda": 0.1, "h": 1.0, "lr_max": 0.05, "epsilon": 0.05},
        "epsilon": 0.15,
        "examples": 359,
    },
    "cifar10": {
        "dataset": "cifar10",
        "data": {"validation": 2000, "train_examples": 6400},
        "model": {"name": "preact_resnet10", "width": 8},
        "training": {"epochs": 9, "lr_schedule": "cyclic"},
        "best": {"lambda": 0.01535, "h": 2.095, "lr_max": 0.1964, "epsilon": 0.04422},
        "epsilon": 8 / 255,
        "examples": 500,
    },
}


def trainer(splits: Splits, setting: dict[str, Any], changes: dict[str, Any], seed: int) -> Trainer:
    """Of a variant."""
    config = TrainingConfig.model_validate({**setting["training"], **setting["best"], **changes})
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Trainer(config, splits, model=ModelConfig(**setting["model"]), device=device, seed=seed)


def train(splits: Splits, setting: dict[str, Any], changes: dict[str, Any], seed: int) -> dict[str, float]:
    """One network."""
    run = trainer(splits, setting, changes, seed)
    for _ in range(run.config.epochs):
        run.train_epoch()
    test = splits.test.to(run.device).subset(setting["examples"], seed=0)
    judged = evaluate(run.model, test, EvaluationConfig(epsilon=setting["epsilon"], steps=50, restarts=10))
    return {"clean": judged["clean_accuracy"], "pgd_50_10": judged["pgd_accuracy"]}


def relative_seconds(splits: Splits, setting: dict[str, Any]) -> pd.DataFrame:
    """A row for each variant."""
    few = dataclasses.replace(splits, train=splits.train.subset(TIMED_IMAGES, seed=0))
    runs = {variant: trainer(few, setting, changes, seed=0) for variant, changes in VARIANTS.items()}
    turns = []
    for _ in range(TURNS + 2):
        turns.append({variant: run.train_epoch()["train_seconds"] for variant, run in runs.items()})
        for run in runs.values():
            run.epoch = 0  # the schedule does not end
    ratios = pd.DataFrame(turns[2:])  # the first ones find their algorithms
    ratios = ratios.div(ratios[EXACT], axis=0)
    columns = {"relative_seconds": 0.5, "relative_seconds_25": 0.25, "relative_seconds_75": 0.75}
    return pd.DataFrame({column: ratios.quantile(share) for column, share in columns.items()}).rename_axis("variant")


def put_seconds(file: Path, seconds: pd.DataFrame) -> pd.DataFrame:
    """Replaces the seconds in a table of an earlier run, whose accuracies stay.

    Raises:
        SystemExit: It is of other variants.
    """
    before = pd.read_csv(file).set_index("variant")
    if set(before.index) != set(seconds.index):
        raise SystemExit(f"{file} has other variants than this script")
    kept = before.drop(columns=[column for column in before if column.startswith("relative_seconds")])
    now = pd.concat([kept[["seeds"]], seconds.loc[kept.index], kept.drop(columns="seeds")], axis=1)
    now = now.rename_axis("variant").reset_index()
    now.to_csv(file, index=False)
    return now


def table(runs: pd.DataFrame, seconds: pd.DataFrame) -> pd.DataFrame:
    """Means over the seeds, and differences to the exact penalty."""
    exact = runs[runs["variant"] == EXACT].set_index("seed")
    rows = []
    for variant, mine in runs.groupby("variant", sort=False):
        mine = mine.set_index("seed")
        difference = mine["pgd_50_10"] - exact["pgd_50_10"]
        row = {
            "variant": variant,
            "seeds": len(mine),
            **seconds.loc[variant],
            "clean": mine["clean"].mean(),
            "pgd_50_10": mine["pgd_50_10"].mean(),
            "pgd_50_10_sd": mine["pgd_50_10"].std(),
        }
        if variant != EXACT and len(mine) > 1:
            reach = stats.t.ppf(0.975, len(mine) - 1) * difference.std() / math.sqrt(len(mine))
            mean = difference.mean()
            row |= {"difference": mean, "difference_low": mean - reach, "difference_high": mean + reach}
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    """Trains all and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=SETTINGS, default="digits", help="data, network and hyperparameters")
    parser.add_argument("--data-root", default="~/.cache/tune_cure", help="where the data is")
    parser.add_argument("--seeds", type=int, default=10, help="how many (default: 10)")
    parser.add_argument("--threads", type=int, help="of the CPU (default: all)")
    parser.add_argument("--output", type=Path, help="a folder for trade_offs_SETTING.csv and the single runs")
    parser.add_argument(
        "--timing-only", action="store_true", help="train nothing: replace the seconds in the folder's table"
    )
    options = parser.parse_args()
    if options.timing_only and not options.output:
        parser.error("--timing-only needs --output, the folder of the table")
    if options.threads:
        torch.set_num_threads(options.threads)
    setting = SETTINGS[options.setting]
    splits = data.load(DataSpec(dataset=setting["dataset"], root=options.data_root, **setting["data"]))
    seconds = relative_seconds(splits, setting)
    print(seconds.to_string(float_format="{:.3f}".format), flush=True)
    if options.timing_only:
        put_seconds(options.output / f"trade_offs_{options.setting}.csv", seconds)
        return
    kept = options.output / f"trade_offs_{options.setting}_runs.csv" if options.output else None
    rows = pd.read_csv(kept).to_dict("records") if kept and kept.exists() else []
    for seed in range(1, options.seeds + 1):
        if seed not in {row["seed"] for row in rows}:
            for variant, changes in VARIANTS.items():
                rows.append({"variant": variant, "seed": seed, **train(splits, setting, changes, seed)})
        runs = pd.DataFrame(rows)
        made = table(runs, seconds)
        print(made.to_string(index=False, float_format="{:.3f}".format), flush=True)
        if options.output:
            runs.to_csv(kept, index=False)
            made.to_csv(options.output / f"trade_offs_{options.setting}.csv", index=False)


if __name__ == "__main__":
    main()
