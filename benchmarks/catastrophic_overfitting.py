"""Catastrophic overfitting made to happen, and what the CURE penalty does to it: the same run with and without.

    python benchmarks/catastrophic_overfitting.py

FGSM from the image itself with a large epsilon, on handwritten digits enlarged to 16×16 pixels, with a PreActResNet10.
PGD accuracy is at the epsilon that is trained with. Takes about ten minutes on two CPU cores, and no network.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch

from tune_cure.data import splits as data
from tune_cure.data.config import DataSpec
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.trainer import Trainer

EPSILON, SIDE, EPOCHS = 0.2, 16, 16
ATTACK = {"epsilon": EPSILON, "alpha": 1.0, "init": "zero"}
SCHEDULE = {"epochs": EPOCHS, "batch_size": 64, "lr_schedule": "cyclic", "lr_max": 0.1}
H = EPSILON * SIDE  # moves every pixel by epsilon
RUNS: dict[str, dict[str, object]] = {
    "no penalty": {"lambda": 0},
    **{
        f"CURE, lambda {weight}, {statistics} statistics": {"lambda": weight, "h": H, "penalty_statistics": statistics}
        for weight in (0.05, 0.2)
        for statistics in ("running", "batch")
    },
}


def main() -> None:
    """Prints a table with a row for each run and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="a folder for the tables as CSV files")
    options = parser.parse_args()
    torch.set_num_threads(1)  # faster on so small a network, and repeatable
    splits = data.load(DataSpec(dataset="digits", validation=300, image_size=SIDE))
    epochs = []
    for name, hyperparameters in RUNS.items():
        for seed in range(options.seeds):
            trainer = Trainer(
                TrainingConfig.model_validate({**ATTACK, **SCHEDULE, **hyperparameters}),
                splits,
                model=ModelConfig(name="preact_resnet10", width=16),
                evaluation=EvaluationConfig(epsilon=EPSILON, steps=20, examples=300),
                seed=seed,
            )
            epochs += [
                {"run": name, "seed": seed, **trainer.train_epoch(), **trainer.evaluate()} for _ in range(EPOCHS)
            ]
            print(_row(epochs[-EPOCHS:]), flush=True)
    frame = pd.DataFrame([_row(epochs[start : start + EPOCHS]) for start in range(0, len(epochs), EPOCHS)])
    print(f"\n{frame.to_string(index=False, float_format='{:.3f}'.format)}")
    if options.output:
        frame.to_csv(options.output / "catastrophic_overfitting.csv", index=False)
        pd.DataFrame(epochs).to_csv(options.output / "catastrophic_overfitting_epochs.csv", index=False)


def _row(run: list[dict[str, object]]) -> dict[str, object]:
    """One run: its best and its last epoch, and when overfitting was seen."""
    detected = [epoch["epoch"] for epoch in run if epoch["catastrophic_overfitting"]]
    last = run[-1]
    names = ("clean_accuracy", "fgsm_accuracy", "pgd_accuracy", "gradient_alignment")
    return {
        "run": last["run"],
        "seed": last["seed"],
        "best_pgd_accuracy": last["pgd_accuracy_best"],
        "detected_in_epoch": detected[0] if detected else None,
        **{f"last_{name}": last[name] for name in names},
    }


if __name__ == "__main__":
    main()
