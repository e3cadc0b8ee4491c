"""Compares AutoAttack of the package pyautoattack, which judges networks here, with the official implementation.

    git clone https://github.com/fra31/auto-attack
    python benchmarks/autoattack_official.py auto-attack --output benchmarks/results

A small network is trained on handwritten digits by PGD adversarial training. It is judged by both, image by image, and
so is the same network with its logits multiplied by 10,000, whose gradients are masked. Ten minutes on an idle core.
"""

import argparse
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import tune_cure
from tune_cure.data import splits as splits_module
from tune_cure.data.batches import to_float
from tune_cure.data.config import DataSpec
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.metrics import START_SEED
from tune_cure.evaluation.robustness import evaluate_under

EPSILON = 0.15
CONFIG: dict[str, Any] = {
    "data": {"dataset": "digits"},
    "training": {"attack": "pgd", "attack_steps": 7, "regularizer": "none", "epsilon": EPSILON, "epochs": 20},
    "threads": 1,
}
MASK = 10_000.0


class Masked(nn.Module):
    """A network whose logits are so large that the cross-entropy has no gradient left in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return MASK * logits


def judge_officially(network: nn.Module, images: Tensor, labels: Tensor) -> np.ndarray:
    """Return whether each image withstands the standard version of the official AutoAttack, (N,) booleans."""
    from autoattack import AutoAttack  # of the checkout

    attack = AutoAttack(
        network, norm="Linf", eps=EPSILON, version="standard", seed=START_SEED, device="cpu", verbose=False
    )
    adversarial = attack.run_standard_evaluation(images, labels, bs=len(images))
    with torch.no_grad():
        return (network(adversarial).argmax(dim=1) == labels).numpy()


def describe_commit(checkout: Path) -> str:
    """Return the commit of a checkout in short, with `-dirty` behind it if files were changed."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Print a row for each network, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="the folder of a checkout of the official implementation")
    parser.add_argument("--examples", type=int, default=359, help="test images; there are 359")
    parser.add_argument("--output", type=Path, help="a folder for the table")
    options = parser.parse_args()
    if not (options.checkout / ".git").exists():  # git would name the commit of a checkout around it
        parser.error(f"{options.checkout}: is no git checkout, so nothing says which commit it is")
    commit = describe_commit(options.checkout)
    sys.path.insert(0, str(options.checkout))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        tune_cure.train(CONFIG, output=Path(folder, "run"), quiet=True)
        network = tune_cure.load_model(Path(folder, "run", "best_model.pt"))
    test = splits_module.load(DataSpec(dataset="digits")).test.subset(options.examples, seed=0)
    pixels, labels = test.gather(torch.arange(len(test)))
    rows = []
    for name, judged in (("sound", network), ("masked", Masked(network).eval())):
        ours = evaluate_under("autoattack", judged, test, EvaluationConfig(epsilon=EPSILON))["autoattack"]
        official = judge_officially(judged, to_float(pixels), labels)
        row = {"network": name, "examples": len(test), "ours": ours.mean(), "official": official.mean()}
        row |= {"images judged alike": int((ours == official).sum()), "pyautoattack": version("pyautoattack")}
        rows.append(row | {"official commit": commit})
        print(rows[-1], flush=True)
    if options.output:
        pd.DataFrame(rows).to_csv(options.output / "autoattack_official.csv", index=False)


if __name__ == "__main__":
    main()
