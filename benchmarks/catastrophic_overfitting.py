"""Catastrophic overfitting made to happen, and what the CURE penalty does to it: the same run with and without.

    python benchmarks/catastrophic_overfitting.py --data-root FOLDER

FGSM from the image itself with a large epsilon on a narrow PreActResNet10 and a part of CIFAR-10; PGD accuracy is at
the epsilon that is trained with. Takes about 25 minutes on two CPU cores.
"""

import argparse
from pathlib import Path

import pandas as pd

from tune_cure import data
from tune_cure.config import ModelConfig, TrainingConfig
from tune_cure.data import DataSpec
from tune_cure.evaluation import EvaluationConfig
from tune_cure.training import Trainer

EPSILON = 16 / 255
SHARED = {"batch_size": 128, "epsilon": EPSILON, "alpha": 1.0, "init": "zero", "lr_schedule": "cyclic", "lr_max": 0.2}
H = 16 / 255 * (3 * 32 * 32) ** 0.5  # moves every pixel by epsilon
RUNS: dict[str, dict[str, object]] = {
    "no penalty": {"lambda": 0},
    "CURE": {"lambda": 0.1, "h": H},
    "CURE, batch statistics": {"lambda": 0.1, "h": H, "penalty_statistics": "batch"},
}
COLUMNS = ["clean_accuracy", "fgsm_accuracy", "pgd_accuracy", "pgd_accuracy_se", "fgsm_loss_increase",
           "gradient_alignment", "catastrophic_overfitting"]  # fmt: skip


def main() -> None:
    """Prints an epoch a line, and at the end a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--run", choices=RUNS, help="only this one")
    parser.add_argument("--output", type=Path, help="a folder for the table as a CSV file")
    options = parser.parse_args()
    splits = data.load(DataSpec(dataset="cifar10", root=options.data_root, validation=1000, train_examples=10000))
    rows = []
    for name in [options.run] if options.run else RUNS:
        hyperparameters = RUNS[name]
        trainer = Trainer(
            TrainingConfig.model_validate({"epochs": options.epochs, **SHARED, **hyperparameters}),
            splits,
            model=ModelConfig(name="preact_resnet10", width=16),
            evaluation=EvaluationConfig(epsilon=EPSILON, examples=500),
        )
        print(f"\n{name}: {hyperparameters}")
        for epoch in range(1, options.epochs + 1):
            trainer.train_epoch()
            metrics = trainer.evaluate()
            rows.append({"run": name, "epoch": epoch, **{column: metrics[column] for column in COLUMNS}})
            print(
                pd.DataFrame(rows[-1:]).to_string(index=False, header=epoch == 1, float_format="{:.3f}".format),
                flush=True,
            )
    if options.output:
        pd.DataFrame(rows).to_csv(options.output / "catastrophic_overfitting.csv", index=False)


if __name__ == "__main__":
    main()
