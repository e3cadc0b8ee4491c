"""The same search with this tool and written by hand: wall time, and what each network keeps under a strong attack.

    python benchmarks/by_hand.py quickstart --rounds 3 --output benchmarks/results
    python benchmarks/by_hand.py cifar10_cpu --data-root FOLDER --output benchmarks/results
    python benchmarks/by_hand.py cifar10_cpu --data-root FOLDER --output benchmarks/results --turns 5

The upper half of this file is what one writes by hand with Ray Tune: OptunaSearch, ASHA, a DataLoader, and the loop of
FGSM training with CURE as the papers have it. It has the same space, the same first trial, numbers of trials, epochs
and rungs, the same images for training and validation, the same network and the same number of trials at a time. It
keeps the best network of a trial, as this tool does.

The lower half starts either search as a process of its own, in turns. Its wall time is that of the process, from start
to exit. The network that the search hands over is then judged: PGD with 50 steps and 10 restarts on test images. Each
search is a row of by_hand.csv, written when it is judged; a search that is there already is not run again. With
`--turns`, by_hand_epochs.csv has the CPU time of single epochs and judgements in one process: what a trial costs
without all that a search adds.
"""

import argparse
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from tune_cure import models
from tune_cure.data import splits as data
from tune_cure.data.splits import Examples, Splits
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.metrics import evaluate
from tune_cure.search.results import SearchResult
from tune_cure.search.space import loading as specs
from tune_cure.search.space.config import SearchSpec
from tune_cure.training.trainer import Trainer
from tune_cure.utils import cpu

OURS, BY_HAND = "tune_cure", "by hand"
NETWORK = "network.pt"
ALPHA = 1.25  # FGSM's step as a multiple of epsilon (Wong et al. 2020)
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
TEST_IMAGES = 1000


class Images(Dataset[tuple[Tensor, int]]):
    """Images in memory, with random crops and flips where asked for."""

    def __init__(self, images: "np.ndarray[Any, Any]", labels: "np.ndarray[Any, Any]", *, padding: int, flip: bool):
        self.images, self.labels = torch.tensor(images), labels.tolist()
        steps: list[nn.Module] = [v2.RandomCrop(images.shape[-1], padding=padding)] if padding else []
        steps += [v2.RandomHorizontalFlip()] if flip else []
        self.transform = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def fgsm(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """Return FGSM's images from a random start."""
    delta = torch.empty_like(images).uniform_(-epsilon, epsilon).requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(images + delta), labels), delta)
    delta = (delta + ALPHA * epsilon * gradient.sign()).clamp(-epsilon, epsilon)
    return (images + delta).clamp(0, 1).detach()


def cure(model: nn.Module, images: Tensor, labels: Tensor, h: float) -> Tensor:
    """Return CURE's penalty: by how much the input gradient changes along the sign of itself."""
    images = images.clone().requires_grad_()
    loss = F.cross_entropy(model(images), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, images, create_graph=True)
    z = gradient.detach().sign()
    z = h * z / z.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
    displaced = F.cross_entropy(model(images + z), labels, reduction="sum")
    (displaced_gradient,) = torch.autograd.grad(displaced, images, create_graph=True)
    return (displaced_gradient - gradient).flatten(1).norm(dim=1).mean()


def pgd_accuracy(model: nn.Module, loader: DataLoader[Any], epsilon: float, steps: int) -> float:
    """Return the accuracy under PGD from one random start."""
    model.eval()
    correct = 0
    for images, labels in loader:
        delta = torch.empty_like(images).uniform_(-epsilon, epsilon)
        for _ in range(steps):
            delta.requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(images + delta), labels), delta)
            delta = (delta.detach() + epsilon / 4 * gradient.sign()).clamp(-epsilon, epsilon)
            delta = (images + delta).clamp(0, 1) - images
        with torch.no_grad():
            correct += int((model(images + delta).argmax(dim=1) == labels).sum())
    return correct / len(loader.dataset)  # type: ignore[arg-type]


def learning_rate(fraction: float, schedule: str) -> float:
    """Return the share of the highest learning rate after a fraction of the steps."""
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * fraction))
    return 2 * fraction if fraction < 0.5 else 2 * (1 - fraction)  # cyclic


def train_epoch(model: nn.Module, loader: DataLoader[Any], optimizer: Any, scheduler: Any, config: Any) -> None:
    """Train for an epoch by FGSM with CURE."""
    for images, labels in loader:
        model.eval()
        adversarial = fgsm(model, images, labels, config["epsilon"])
        model.train()
        loss = F.cross_entropy(model(adversarial), labels)
        loss = loss + config["lambda"] * cure(model, images, labels, config["h"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()


def load(arrays: dict[str, Any], settings: dict[str, Any]) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Return the batches of training and of validation images."""
    training = Images(*arrays["train"], **settings["augmentation"])
    loader = DataLoader(training, batch_size=settings["batch_size"], shuffle=True, drop_last=True)
    return loader, DataLoader(Images(*arrays["validation"], padding=0, flip=False), batch_size=250)


def train(config: dict[str, Any], settings: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Train one network, and report the best accuracy so far after each epoch."""
    torch.set_num_threads(1)
    torch.manual_seed(settings["seed"])
    model = models.build(**settings["model"])
    loader, validation = load(arrays, settings)
    optimizer = torch.optim.SGD(model.parameters(), config["lr_max"], MOMENTUM, weight_decay=WEIGHT_DECAY)
    num_steps = settings["epochs"] * len(loader)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate(step / num_steps, settings["schedule"])
    )
    best = -1.0
    for epoch in range(1, settings["epochs"] + 1):
        train_epoch(model, loader, optimizer, scheduler, config)
        accuracy = pgd_accuracy(model, validation, settings["epsilon"], settings["steps"])
        if accuracy <= best:
            tune.report({"accuracy": best, "epoch": epoch})
            continue
        best = accuracy
        with tempfile.TemporaryDirectory() as folder:
            torch.save(model.state_dict(), Path(folder) / NETWORK)
            tune.report({"accuracy": best, "epoch": epoch}, checkpoint=tune.Checkpoint.from_directory(folder))


def search_by_hand(spec: SearchSpec, folder: Path, seed: int) -> None:
    """Search with Ray Tune, and write the best network and a table of the trials into a folder."""
    settings, arrays = prepare(spec, data.load(spec.data), seed)
    space = {
        key: (tune.loguniform if one.kind == "loguniform" else tune.uniform)(*one.values)
        for key, one in spec.space.items()
    }
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train, settings=settings, arrays=arrays), {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            num_samples=spec.search.trials,
            search_alg=OptunaSearch(seed=seed, points_to_evaluate=[dict(start) for start in spec.start_from]),
            scheduler=ASHAScheduler(
                time_attr="epoch",
                max_t=settings["epochs"],
                grace_period=spec.asha.grace_period,
                reduction_factor=spec.asha.reduction_factor,
            ),
        ),
        run_config=tune.RunConfig(
            name="ray", storage_path=str(folder), checkpoint_config=tune.CheckpointConfig(num_to_keep=1), verbose=0
        ),
    )
    found = tuner.fit()
    winner = found.get_best_result()
    assert winner.checkpoint is not None
    with winner.checkpoint.as_directory() as checkpoint:
        torch.save(torch.load(Path(checkpoint) / NETWORK), folder / NETWORK)
    found.get_dataframe()[["accuracy", "epoch"]].to_csv(folder / "trials.csv", index=False)


def prepare(spec: SearchSpec, splits: Splits, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of a trial, and the arrays that it trains and is judged on."""
    settings = {
        "seed": seed,
        "model": architecture(spec, splits),
        "augmentation": {"padding": splits.augmentation.padding, "flip": splits.augmentation.flip},
        "epochs": spec.training["epochs"],
        "batch_size": spec.training["batch_size"],
        "schedule": spec.training["lr_schedule"],
        "epsilon": spec.evaluation.epsilon,
        "steps": spec.evaluation.steps,
    }
    judged_on = splits.validation.subset(spec.evaluation.examples, seed=0)
    arrays = {"train": as_arrays(splits.train), "validation": as_arrays(judged_on)}
    return settings, arrays


def architecture(spec: SearchSpec, splits: Splits) -> dict[str, Any]:
    """Return the arguments of `models.build`."""
    sizes = {"num_classes": splits.num_classes, "in_channels": splits.in_channels}
    normalization = {"mean": list(splits.mean), "std": list(splits.std)}
    return {"name": spec.model.name, "width": spec.model.width, **sizes, **normalization}


def as_arrays(examples: Examples) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    """Return images (N, C, H, W) uint8 and labels (N,)."""
    images, labels = examples.gather(torch.arange(len(examples)))
    return images.numpy(), labels.numpy()


def run(way: str, space: str, data_root: str | None, given: list[str], folder: Path) -> dict[str, Any]:
    """Search in a process of its own; return its wall time and what it handed over."""
    root = ["--data-root", data_root] if data_root else []
    settings = [*root, *(word for one in given for word in ("--set", one)), "--output", str(folder)]
    command = (
        ["run_search.py", "--space", f"search_spaces/{space}.yaml"] if way == OURS else [__file__, space, "--hand"]
    )
    spec = read_spec(space, data_root, given)
    splits = data.load(spec.data)  # decodes the images once on a machine, on nobody's time
    started = time.perf_counter()
    subprocess.run([sys.executable, *command, *settings], check=True)
    seconds = time.perf_counter() - started
    if way == OURS:
        found = SearchResult(folder)
        model, trials = models.load(folder / "best_model.pt"), found.trials
        epochs, best = len(found.epochs), trials["pgd_accuracy_best"].max()
    else:
        trials = pd.read_csv(folder / "trials.csv")
        model = models.build(**architecture(spec, splits))
        model.load_state_dict(torch.load(folder / NETWORK))
        epochs, best = int(trials["epoch"].sum()), trials["accuracy"].max()
    test = splits.test.subset(TEST_IMAGES, seed=0)
    judging = EvaluationConfig(epsilon=spec.evaluation.epsilon, steps=50, restarts=10)
    judged = evaluate(model.eval(), test, judging)
    return {
        "way": way,
        "seconds": seconds,
        "trials": len(trials),
        "epochs": epochs,
        "best_validation_accuracy": best,
        "test_images": len(test),
        "clean_accuracy": judged["clean_accuracy"],
        "pgd_50_10_accuracy": judged["pgd_accuracy"],
        "pgd_50_10_accuracy_se": judged["pgd_accuracy_se"],
    }


def measure(options: argparse.Namespace) -> None:
    """Run the searches that the table lacks, in turns: an even round begins with ours, an odd one by hand."""
    table = options.output / "by_hand.csv"
    for seed in range(options.rounds):
        for way in (OURS, BY_HAND) if seed % 2 == 0 else (BY_HAND, OURS):
            done = pd.read_csv(table) if table.exists() else pd.DataFrame(columns=["space", "round", "way"])
            if ((done["space"] == options.space) & (done["round"] == seed) & (done["way"] == way)).any():
                continue
            given = [f"search.seed={seed}", *options.set]
            with tempfile.TemporaryDirectory() as folder:
                row = run(way, options.space, options.data_root, given, Path(folder) / "run")
            row = {"space": options.space, "round": seed, **row}
            print(pd.Series(row).to_string(), flush=True)
            pd.DataFrame([row]).to_csv(table, mode="a", header=not table.exists(), index=False, float_format="%.5g")


def measure_epochs(options: argparse.Namespace) -> None:
    """Write and print the CPU seconds of an epoch and of its judgement on one thread, by either way in turns."""
    spec = read_spec(options.space, options.data_root, options.set)
    splits = data.load(spec.data)
    cpu.configure_cpu(1)
    config = dict(spec.start_from[0])
    ours = Trainer(spec.training_config(config), splits, model=spec.model, evaluation=spec.evaluation, seed=0)
    settings, arrays = prepare(spec, splits, seed=0)
    model = models.build(**settings["model"])
    loader, validation = load(arrays, settings)
    optimizer = torch.optim.SGD(model.parameters(), config["lr_max"] / 2, MOMENTUM, weight_decay=WEIGHT_DECAY)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    parts = {
        (OURS, "epoch"): ours.train_epoch,
        (BY_HAND, "epoch"): lambda: train_epoch(model, loader, optimizer, scheduler, config),
        (OURS, "judgement"): ours.evaluate,
        (BY_HAND, "judgement"): lambda: pgd_accuracy(model, validation, settings["epsilon"], settings["steps"]),
    }
    rows = []
    for turn in range(options.turns):
        for (way, part), make in parts.items():
            started = time.process_time()
            make()
            rows.append({"space": options.space, "turn": turn, "way": way, "part": part})
            rows[-1]["cpu_seconds"] = time.process_time() - started
            print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(options.output / "by_hand_epochs.csv", index=False, float_format="%.4g")


def read_spec(space: str, data_root: str | None, given: list[str]) -> SearchSpec:
    """Return a bundled search space with some settings."""
    root = [f"data.root={data_root}"] if data_root else []
    return specs.load(f"search_spaces/{space}.yaml", [*root, *given])


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space", help="quickstart, cifar10_cpu or another bundled space of cure with floats alone")
    parser.add_argument("--rounds", type=int, default=1, help="searches of each way, with seeds from 0 on")
    parser.add_argument("--data-root", help="where the images are")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of both searches")
    parser.add_argument("--output", type=Path, required=True, help="a folder for by_hand.csv")
    parser.add_argument("--turns", type=int, help="measure so many epochs of each way instead, on one thread")
    parser.add_argument("--hand", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure, or be the search by hand."""
    options = parse()
    if options.hand:
        spec = read_spec(options.space, options.data_root, options.set)
        options.output.mkdir(parents=True)
        search_by_hand(spec, options.output.absolute(), spec.search.seed)
    elif options.turns:
        measure_epochs(options)
    else:
        measure(options)


if __name__ == "__main__":
    main()
