"""How many random starts the second judgement of a search needs: real networks under one to ten starts of PGD.

    tune-cure search benchmarks/picture_curves.yaml --data-root FOLDER --output results/pictures --set rescore.top=8
    python benchmarks/second_judgement.py results/pictures        # 5 minutes for each of eight networks

The best weights of the leading trials are attacked on the validation images that no trial was judged on, by PGD of 10
and of 50 steps, start by start. results/second_judgement has the outcomes, a file for each trial, and
second_judgement.csv says for each number of starts: the accuracy, how much of it ten starts take away, and whom it
names the winner where as many gradients are spent on fewer starts and more images. The results are in
docs/search_quality.md.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from tune_cure.attacks.pgd import pgd
from tune_cure.data import splits as data
from tune_cure.data.batches import to_float
from tune_cure.data.splits import Examples
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.metrics import BATCH_SIZE, START_SEED, exact_evaluation
from tune_cure.models import checkpoints as models
from tune_cure.ray_backend.rescoring import fresh_examples
from tune_cure.search.journal import Journal
from tune_cure.search.results import SearchResult
from tune_cure.utils.files import read_tensors

RESULTS = Path(__file__).parent / "results"
OUTCOMES = RESULTS / "second_judgement"
STARTS = 10
STEPS = (10, 50)
LEADERS = (3, 8)
DRAWS = 20_000
LEAST_IMAGES = 100


def attack(model: torch.nn.Module, examples: Examples, threat: EvaluationConfig, steps: int) -> dict[str, NDArray[Any]]:
    """Return what each start of PGD leaves, and what it costs.

    Returns:
        `correct`, (starts + 1, images): whether each image is classified correctly, at first unattacked, then after
        each start and those before it; `passes`, (starts,): gradients of single images, as far as steps were begun.
    """
    correct = np.zeros((STARTS + 1, len(examples)), dtype=bool)
    passes = np.zeros(STARTS, dtype=np.int64)
    generator = torch.Generator().manual_seed(START_SEED)
    with exact_evaluation(model), torch.no_grad():
        for positions in torch.arange(len(examples)).split(BATCH_SIZE):
            pixels, labels = examples.gather(positions)
            images = to_float(pixels).contiguous(memory_format=torch.channels_last)
            right = model(images).argmax(dim=1) == labels
            correct[0, positions] = right
            for start in range(STARTS):
                counted = _Counted(model)
                with torch.enable_grad():
                    attacked = pgd(
                        counted,
                        images,
                        labels,
                        threat.epsilon,
                        steps=steps,
                        norm=threat.norm,
                        generator=generator,
                        correct=right,
                    )
                passes[start] += counted.images
                right = right & (model(attacked).argmax(dim=1) == labels)
                correct[start + 1, positions] = right
    return {"correct": correct, "passes": passes}


class _Counted(torch.nn.Module):
    """A network that counts the images that it sees."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.images = model, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        logits: torch.Tensor = self.model(images)
        return logits


def measure(folder: Path, num_networks: int) -> None:
    """Attack the best weights of the leading trials, the best first, as far as their outcomes are not there yet."""
    result = SearchResult(folder)
    spec = result.spec
    examples = fresh_examples(
        spec.model_copy(update={"rescore": spec.rescore.model_copy(update={"examples": spec.data.num_validation})}),
        data.load(spec.data),
    )
    OUTCOMES.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    checkpoints = {event["trial"]: event["path"] for event in result.events if event["event"] == "checkpoint"}
    ranked = result.trials.query("status == 'completed'").sort_values("objective", ascending=False)
    for trial in ranked["trial"].head(num_networks):
        file = OUTCOMES / f"trial-{trial}.npz"
        checkpoint = Journal(folder).checkpoint_file(checkpoints[trial])
        if file.exists() or not checkpoint.exists():
            continue
        saved = read_tensors(checkpoint, torch.device("cpu"))
        model = models.rebuild(saved["best_model"], device=torch.device("cpu"), trust_code=True)
        found = {}
        for steps in STEPS:
            for name, values in attack(model, examples, spec.evaluation, steps).items():
                found[f"{name}_{steps}"] = values
            accuracies = found[f"correct_{steps}"].mean(axis=1)
            print(f"trial {trial}, {steps} steps: {np.array2string(accuracies, precision=4)}", flush=True)
        np.savez_compressed(file, objective=result.trials.set_index("trial").loc[trial, "objective"], **found)


def read() -> tuple[NDArray[np.float64], dict[int, NDArray[np.bool_]], dict[int, NDArray[np.float64]]]:
    """Return objectives (trials,), and by steps: outcomes (trials, starts + 1, images), passes (trials, starts)."""
    files = sorted(OUTCOMES.glob("trial-*.npz"))
    arrays = [dict(np.load(file)) for file in files]
    objectives = np.array([float(of["objective"]) for of in arrays])
    correct = {steps: np.stack([of[f"correct_{steps}"] for of in arrays]) for steps in STEPS}
    passes = {steps: np.stack([of[f"passes_{steps}"] for of in arrays]).astype(float) for steps in STEPS}
    return objectives, correct, passes


def summarize() -> pd.DataFrame:
    """Return a row for each number of steps and starts.

    `missed` is accuracy above that after ten starts of 50 steps, and `missed_deviation` its standard deviation over the
    networks, beside `sampling_deviation`, that of a difference of two networks on as many images, over pairs of them.
    `cost` is in gradients, of which ten starts of 50 steps have 1. `winner_K`: the accuracy, by ten starts of 50 steps
    on all other images, of the winner among the K best of a search, chosen on as many images as cost together what
    `LEAST_IMAGES` cost by ten starts of 50 steps. It is a mean over `DRAWS` draws of the images.
    """
    objectives, correct, passes = read()
    order = np.argsort(-objectives, kind="stable")
    reference = correct[max(STEPS)][:, -1]
    full_cost = passes[max(STEPS)].sum(axis=1).mean()
    pairs = [(one, two) for one in range(len(order)) for two in range(one)]
    rows = []
    for steps in STEPS:
        for starts in range(1, STARTS + 1):
            outcome = correct[steps][:, starts]
            missed = outcome.mean(axis=1) - reference.mean(axis=1)
            cost = passes[steps][:, :starts].sum(axis=1).mean() / full_cost
            differences = [outcome[one].astype(float) - outcome[two] for one, two in pairs]
            row = {
                "steps": steps,
                "starts": starts,
                "networks": len(order),
                "images": reference.shape[1],
                "accuracy": outcome.mean(),
                "missed": missed.mean(),
                "missed_deviation": missed.std(ddof=1),
                "sampling_deviation": np.mean([of.std() for of in differences]) / reference.shape[1] ** 0.5,
                "cost": cost,
                "images_at_equal_cost": int(LEAST_IMAGES / cost),
            }
            for top in LEADERS:
                leaders = order[:top]
                row[f"winner_{top}"] = choose(outcome[leaders], reference[leaders], row["images_at_equal_cost"])
            rows.append(row)
    return pd.DataFrame(rows)


def choose(outcome: NDArray[np.bool_], reference: NDArray[np.bool_], num_images: int) -> float:
    """Return the mean accuracy of winners that are chosen on `num_images` images, on all others.

    Args:
        outcome: What chooses, (networks, images).
        reference: What judges, (networks, images).
        num_images: Chosen on; less than all.
    """
    chance, found = np.random.default_rng(0), []
    for _ in range(DRAWS):
        drawn = np.zeros(outcome.shape[1], dtype=bool)
        drawn[chance.permutation(outcome.shape[1])[:num_images]] = True
        winner = int(outcome[:, drawn].sum(axis=1).argmax())
        found.append(reference[winner, ~drawn].mean())
    return float(np.mean(found))


def main() -> None:
    """Attack the networks and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of the search; without it, the table alone is made anew")
    parser.add_argument("--networks", type=int, default=8, help="how many, the best ones")
    options = parser.parse_args()
    if options.folder:
        measure(options.folder, options.networks)
    table = summarize()
    table.to_csv(RESULTS / "second_judgement.csv", index=False, float_format="%.5g")
    print(table.to_string(float_format="{:.4f}".format))


if __name__ == "__main__":
    main()
