"""Runs the protocol of overfitting_protocol.md: catastrophic overfitting on CIFAR-10 with and without penalties.

    python benchmarks/overfitting.py --data-root FOLDER

Each run trains for 9 to 45 minutes on one idle thread and is then judged. The runs of the question are all trained
first: collapses are known before anything is judged. The command goes on where it was ended, also on another machine:
the results of a finished run are small files in benchmarks/results/overfitting, which stand for it. (Networks are not
among them, so a run that was trained but not judged on another machine is trained again.) `--jobs 2` makes two runs at
a time. overfitting_report.py makes tables of what is there.
"""

import argparse
import json
import math
import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import tune_cure

RESULTS = Path(__file__).parent / "results" / "overfitting"
EPSILON = 16 / 255
EPOCHS = 12
COMMON = {"epochs": EPOCHS, "batch_size": 128, "lr_schedule": "cyclic", "lr_max": 0.2, "epsilon": EPSILON, "amp": "off"}
FGSM_RS = {"attack": "fgsm", "init": "uniform", "alpha": 1.25}
FGSM = {"attack": "fgsm", "init": "zero", "alpha": 1.0}
CURE = {**FGSM_RS, "regularizer": "cure", "direction": "classic", "h": 3.478, "penalty_every": 2}
PLAIN = {"regularizer": "none"}
LAMBDAS, LAMBDA_SEED = (0.03, 0.1, 0.3), 100
MAIN = "cure"
QUESTION = ("fgsm_rs", MAIN)


@dataclass(frozen=True)
class Arm:
    """A way of training.

    Attributes:
        keys: Its hyperparameters beside `COMMON`.
        seeds: How many seeds it is trained with, from 0 on.
        takes_lambda: Whether lambda is the one that was chosen beforehand.
    """

    keys: dict[str, Any]
    seeds: int
    takes_lambda: bool = False


ARMS = {  # in the order in which they are run, but for the two of the question
    "fgsm_rs": Arm({**FGSM_RS, **PLAIN}, 10),
    "cure": Arm(CURE, 10, takes_lambda=True),
    "fgsm_rs_long": Arm({**FGSM_RS, **PLAIN, "epochs": 33}, 5),
    "n_fgsm": Arm({**PLAIN, "attack": "fgsm", "init": "noise", "noise": 2.0, "alpha": 1.0}, 5),
    "pgd_2": Arm({**PLAIN, "attack": "pgd", "attack_steps": 2, "alpha": 0.5}, 5),
    "cure_zero": Arm({**CURE, "lambda": 0.0}, 1),
    "cure_every_step": Arm({**CURE, "penalty_every": 1}, 5, takes_lambda=True),
    "gradalign": Arm({**FGSM, "regularizer": "gradalign", "lambda": 2.0}, 5),
    "elle": Arm({**FGSM, "regularizer": "elle", "lambda": 4000.0}, 5),
}


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        name: The arm, or `lambda_0.1` for a run that helps to choose lambda.
        seed: Its seed.
        keys: Its hyperparameters.
        results: The folder of the results of all runs.
        is_judged: Whether its networks are judged on test images.
    """

    name: str
    seed: int
    keys: dict[str, Any]
    results: Path
    is_judged: bool = True

    def folder(self, work: Path) -> Path:
        """Return the folder of the run while it is under way."""
        return work / f"{self.name}-{self.seed}"

    def file(self, suffix: str) -> Path:
        """Return a file of the run's results."""
        return self.results / f"{self.name}-{self.seed}{suffix}"

    @property
    def summary(self) -> dict[str, Any]:
        """What is known of the run; empty until it is trained."""
        file = self.file(".json")
        return json.loads(file.read_text()) if file.exists() else {}

    @property
    def is_done(self) -> bool:
        """True if all results are there. A run that diverged has no network to judge."""
        summary = self.summary
        return bool(summary) and (not self.is_judged or summary["diverged"] or "last_clean" in summary)


def lambda_jobs(results: Path) -> list[Job]:
    """Return the runs that choose lambda."""
    return [
        Job(f"lambda_{value}", LAMBDA_SEED, {**COMMON, **CURE, "lambda": value}, results, is_judged=False)
        for value in LAMBDAS
    ]


def choose_lambda(results: Path) -> float:
    """Return the lambda whose run has the highest PGD accuracy after its last epoch."""
    jobs = lambda_jobs(results)
    last = {job.keys["lambda"]: pd.read_csv(job.file(".csv"))["pgd_accuracy"].iloc[-1] for job in jobs}
    return max(last, key=lambda value: last[value])


def arm_jobs(results: Path) -> list[Job]:
    """Return the runs of all arms: first those of the two of the question, seed by seed, then arm by arm."""
    chosen = {"lambda": choose_lambda(results)}
    jobs = [
        Job(name, seed, {**COMMON, **arm.keys, **(chosen if arm.takes_lambda else {})}, results)
        for name, arm in ARMS.items()
        for seed in range(arm.seeds)
    ]
    return sorted(jobs, key=lambda job: job.seed if job.name in QUESTION else math.inf)


def run(job: Job, options: argparse.Namespace) -> None:
    """Train one network and judge it, unless its results are there."""
    if job.is_done:
        return
    train(job, options)
    folder, summary = job.folder(options.work), job.summary
    if job.is_judged and not summary["diverged"]:
        for name, correct in judge(folder, pd.read_csv(job.file(".csv")), options).items():
            np.savez_compressed(job.file(f"-{name}.npz"), **correct)
            summary |= {f"{name}_{attack}": float(found.mean()) for attack, found in correct.items()}
        write(job, summary)
    shutil.rmtree(folder)


def train(job: Job, options: argparse.Namespace) -> None:
    """Train one network from where an earlier command left it, and write what became of it, unless this was done."""
    folder = job.folder(options.work)
    if job.is_done or (job.summary and folder.exists()):
        return
    is_begun = (folder / "config.yaml").exists()
    config = {
        "data": {"dataset": "cifar10", "root": str(options.data_root), "validation": 5000, **options.less_data},
        "model": {"name": "preact_resnet10", "width": 8},
        "training": {**job.keys, **options.fewer_epochs},
        "evaluation": {"epsilon": EPSILON, "steps": 10, "examples": options.examples},
        "seed": job.seed,
        "threads": 1,
    }
    tune_cure.train(None if is_begun else config, output=folder, resume=is_begun, quiet=True)
    log = pd.read_csv(folder / "epochs.csv")
    job.results.mkdir(parents=True, exist_ok=True)
    log.to_csv(job.file(".csv"), index=False)
    record = json.loads((folder / "environment.json").read_text())
    data = record["data"].replace(str(options.data_root), "FOLDER")
    write(job, describe_log(log) | {"lambda": job.keys.get("lambda", 0.0), "data": data})


def write(job: Job, summary: dict[str, Any]) -> None:
    """Write and print what is known of a run."""
    job.file(".json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"{job.name}, seed {job.seed}: {summary}", flush=True)


def judge(folder: Path, log: pd.DataFrame, options: argparse.Namespace) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Return by network, `last` and `best`, and by attack whether each image is classified correctly, (images,)."""
    networks = [f"last={folder / 'last.pt'}", f"best={folder}"]
    is_one = log["pgd_accuracy"].idxmax() == log.index[-1]
    judgement = tune_cure.evaluate(
        networks[:1] if is_one else networks,
        examples=options.examples,
        output=folder / "evaluation",
        autoattack=options.autoattack,
        quiet=True,
    )
    found = {judged.name: judged.outcomes.correct for judged in judgement.networks}
    return {"last": found["last"], "best": found["last"] if is_one else found["best"]}


def describe_log(log: pd.DataFrame) -> dict[str, Any]:
    """Return what became of a run: epochs at which it was collapsed, whether in the end, its seconds of training."""
    collapsed = log["catastrophic_overfitting"].eq(True) | log["diverged"].eq(True)
    return {
        "collapsed_epochs": log.loc[collapsed, "epoch"].astype(int).tolist(),
        "collapsed_in_the_end": bool(collapsed.iloc[-1]),
        "diverged": bool(log["diverged"].iloc[-1]),
        "train_seconds": round(float(log["train_seconds"].sum()), 1),
    }


def do_all(work: Callable[[Job, argparse.Namespace], None], jobs: list[Job], options: argparse.Namespace) -> None:
    """Do the work of all runs that are not done yet, `options.jobs` at a time."""
    left = [(job, options) for job in jobs if not job.is_done]
    with multiprocessing.get_context("spawn").Pool(options.jobs, maxtasksperchild=1) as pool:
        pool.starmap(work, left, chunksize=1)


def main() -> None:
    """Carry out the protocol."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="the folder of CIFAR-10, or of its pictures")
    parser.add_argument("--work", type=Path, default=Path("results", "overfitting"), help="where runs are under way")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the results of finished runs go")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on one thread")
    parser.add_argument(
        "--rehearse", action="store_true", help="seed 0 for two epochs on a few images, to see that all works"
    )
    options = parser.parse_args()
    options.less_data = {"train_examples": 256} if options.rehearse else {}
    options.fewer_epochs = {"epochs": 2} if options.rehearse else {}
    options.examples, options.autoattack = (20, False) if options.rehearse else (1000, True)
    do_all(run, lambda_jobs(options.results), options)
    jobs = [job for job in arm_jobs(options.results) if job.seed == 0 or not options.rehearse]
    do_all(train, [job for job in jobs if job.name in QUESTION], options)
    do_all(run, jobs, options)


if __name__ == "__main__":
    main()
