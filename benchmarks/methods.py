"""Every method by name, with the hyperparameters of its paper: a training run on digits and one on CIFAR-10 each.

    .venv/bin/python benchmarks/methods.py --setting digits --output benchmarks/results
    .venv/bin/python benchmarks/methods.py --setting cifar10 --data-root FOLDER --output benchmarks/results

All methods have the same network, images, learning rate and epochs; nothing is tuned. The last network is judged on
test images by the attacks of `tune-cure confirm`, among them PGD with 50 steps from 10 starts and AutoAttack. Seconds
are CPU time of training on one thread, so that other processes disturb them little. After each run its row is appended
to methods_SETTING.csv, with the method's keys; rows that are there are not run again.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tune_cure.data import splits as data
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Splits
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.gradient_masking import find_masking_signs
from tune_cure.evaluation.robustness import evaluate_robustness
from tune_cure.training.config import ModelConfig, parse_training
from tune_cure.training.presets import METHODS, NO_METHOD, expand_method
from tune_cure.training.trainer import Trainer

SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {
        "data": {"dataset": "digits", "validation": 360},
        "model": {"name": "small_cnn"},
        "training": {"epochs": 18, "batch_size": 32, "lr_schedule": "onecycle", "lr_max": 0.1, "epsilon": 0.15},
        "h": 1.2,  # moves every pixel of 1×8×8 by 0.15, as the preset's moves one of 3×32×32 by 8/255
        "examples": 100,
    },
    "cifar10": {
        "data": {"dataset": "cifar10", "validation": 2000, "train_examples": 6400},
        "model": {"name": "preact_resnet10", "width": 8},
        "training": {"epochs": 9, "batch_size": 128, "lr_schedule": "onecycle", "lr_max": 0.2, "epsilon": 8 / 255},
        "h": 1.739,
        "examples": 100,
    },
}


def train(method: str, setting: dict[str, Any], splits: Splits, seed: int) -> dict[str, Any]:
    """Train and judge one network; return its row."""
    given = {"method": method, **setting["training"], **({"h": setting["h"]} if "h" in METHODS[method].keys else {})}
    config = parse_training(expand_method(given))
    trainer = Trainer(config, splits, model=ModelConfig(**setting["model"]), seed=seed)
    started = time.process_time()
    for _ in range(config.epochs):
        metrics = trainer.train_epoch()
    seconds = time.process_time() - started
    test = splits.test.subset(setting["examples"], seed=0)
    outcomes = evaluate_robustness(trainer.judged_model, test, EvaluationConfig(epsilon=config.epsilon))
    return {
        "method": method,
        "seed": seed,
        **{attack: outcomes.correct[attack].mean() for attack in outcomes.correct},
        "images": len(test),
        "signs_of_masking": "; ".join(sign.observation() for sign in find_masking_signs(outcomes)),
        "train_loss": metrics["train_loss"],
        "cpu_seconds": seconds,
        "keys": " ".join(f"{key}={config.model_dump(by_alias=True)[key]}" for key in METHODS[method].keys),
    }


def main() -> None:
    """Run what has no row yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=SETTINGS, required=True)
    parser.add_argument("--data-root")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=[name for name in METHODS if name != NO_METHOD])
    options = parser.parse_args()
    torch.set_num_threads(1)
    setting = SETTINGS[options.setting]
    root = {"root": options.data_root} if options.data_root else {}
    splits = data.load(DataSpec(**setting["data"], **root))
    file = options.output / f"methods_{options.setting}.csv"
    for method in options.methods:
        done = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=["method", "seed"])
        if ((done["method"] == method) & (done["seed"] == options.seed)).any():
            continue
        row = train(method, setting, splits, options.seed)
        pd.DataFrame([row]).to_csv(file, mode="a", header=not file.exists(), index=False, float_format="%.6g")
        print({key: value for key, value in row.items() if key != "keys"}, flush=True)


if __name__ == "__main__":
    main()
