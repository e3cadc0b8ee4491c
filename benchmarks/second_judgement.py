"""What the second judgement of a search needs: real networks under PGD of 10, 20 and 50 steps from one to ten starts.

    tune-cure search benchmarks/picture_curves.yaml --data-root FOLDER --output results/pictures --set rescore.top=8
    python benchmarks/second_judgement.py pictures results/pictures     # 7 minutes for each of eight networks
    python benchmarks/second_judgement.py digits                        # minutes

**pictures**: the best weights of the leading trials, on the validation images that no trial was judged on. **digits**:
networks of configurations of the quick start's space whose curves search_quality.py recorded, trained once more, on the
test images. results/second_judgement has the outcomes, a file for each network. second_judgement.csv says for each
number of steps and starts: the accuracy, how much of it ten starts of 50 steps take away, and whom it names the winner
where as many gradients are spent on fewer steps or starts and more images. The results are in docs/second_judgement.md.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from search_quality import CURVES, EPOCHS, KEYS, PLAIN, WAYS, trainer_of

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
STEPS = (10, 20, 50)
DATA = ("pictures", "digits")
LEADERS = (3, 8)
DRAWS = 20_000
LEAST_SHARE = 1 / 15  # of the images


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
    """Network that counts the images that it sees."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.images = model, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        logits: torch.Tensor = self.model(images)
        return logits


def measure_pictures(folder: Path, num_networks: int) -> None:
    """Attack the best weights of the leading trials of a search, the best first."""
    result = SearchResult(folder)
    spec = result.spec
    examples = fresh_examples(
        spec.model_copy(update={"rescore": spec.rescore.model_copy(update={"examples": spec.data.num_validation})}),
        data.load(spec.data),
    )
    checkpoints = {event["trial"]: event["path"] for event in result.events if event["event"] == "checkpoint"}
    ranked = result.trials.query("status == 'completed'").sort_values("objective", ascending=False)
    for trial, objective in ranked[["trial", "objective"]].head(num_networks).itertuples(index=False):
        checkpoint = Journal(folder).checkpoint_file(checkpoints[trial])
        if checkpoint.exists():
            saved = read_tensors(checkpoint, torch.device("cpu"))
            model = models.rebuild(saved["best_model"], device=torch.device("cpu"), trust_code=True)
            measure(f"pictures-{trial}", model, examples, spec.evaluation, objective)


def measure_digits() -> None:
    """Train and attack networks of recorded configurations, from the best to the middle one."""
    spec = WAYS[PLAIN].spec(0)
    splits = data.load(spec.data)
    curves = pd.read_csv(CURVES)
    best = curves.filter(regex=r"^pgd_\d+$").max(axis=1)
    for place in best.sort_values(ascending=False, kind="stable").index[: len(curves) // 2 : 2]:
        trainer = trainer_of(spec, splits, curves.loc[place, KEYS].to_dict(), seed=0)
        for _ in range(EPOCHS):
            trainer.train_epoch()
            trainer.evaluate()
        name = f"digits-{curves.loc[place, 'trial']:.0f}"
        measure(
            name,
            models.rebuild(trainer.best_model(), device=torch.device("cpu")),
            splits.test,
            spec.evaluation,
            best[place],
        )


def measure(name: str, model: torch.nn.Module, examples: Examples, threat: EvaluationConfig, objective: float) -> None:
    """Attack a network by the numbers of steps whose outcomes are not there yet, and write these."""
    OUTCOMES.mkdir(exist_ok=True)
    file = OUTCOMES / f"{name}.npz"
    found = dict(np.load(file)) if file.exists() else {}
    for steps in STEPS:
        if f"correct_{steps}" in found:
            continue
        outcome = attack(model, examples, threat, steps)
        found |= {f"{key}_{steps}": values for key, values in outcome.items()}
        print(f"{name}, {steps} steps: {np.array2string(outcome['correct'].mean(axis=1), precision=4)}", flush=True)
        np.savez_compressed(file, **{**found, "objective": objective})


def read(name: str) -> tuple[NDArray[np.float64], dict[int, NDArray[np.bool_]], dict[int, NDArray[np.float64]]]:
    """Return objectives, (networks,), and by steps outcomes, (networks, starts + 1, images), and `passes` of each."""
    files = sorted(OUTCOMES.glob(f"{name}-*.npz"))
    arrays = [dict(np.load(file)) for file in files]
    objectives = np.array([float(of["objective"]) for of in arrays])
    correct = {steps: np.stack([of[f"correct_{steps}"] for of in arrays]) for steps in STEPS}
    passes = {steps: np.stack([of[f"passes_{steps}"] for of in arrays]).astype(float) for steps in STEPS}
    return objectives, correct, passes


def summarize(name: str) -> pd.DataFrame:
    """Return a row for each number of steps and starts, on `pictures` or `digits`.

    `missed` is accuracy above that after ten starts of 50 steps, and `missed_deviation` its standard deviation over the
    networks, beside `sampling_deviation`, that of a difference of two networks on as many images, over pairs of them.
    `cost` is in gradients, of which ten starts of 50 steps have 1. `winner_K`: the accuracy, by ten starts of 50 steps
    on all other images, of the winner among the K best of a search, chosen on as many images as cost together what
    `LEAST_SHARE` of all costs by ten starts of 50 steps, but at most half of all. It is a mean over `DRAWS` draws.
    """
    objectives, correct, passes = read(name)
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
                "data": name,
                "steps": steps,
                "starts": starts,
                "networks": len(order),
                "images": reference.shape[1],
                "accuracy": outcome.mean(),
                "missed": missed.mean(),
                "missed_deviation": missed.std(ddof=1),
                "sampling_deviation": np.mean([of.std() for of in differences]) / reference.shape[1] ** 0.5,
                "cost": cost,
                "images_at_equal_cost": int(reference.shape[1] * min(LEAST_SHARE / cost, 0.5)),
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
    """Attack the networks and write the table of all whose outcomes are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    pictures = parts.add_parser("pictures")
    pictures.add_argument("folder", type=Path, help="of the search")
    pictures.add_argument("--networks", type=int, default=8, help="how many, the best ones")
    parts.add_parser("digits")
    parts.add_parser("summarize", help="the table alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part == "pictures":
        measure_pictures(options.folder, options.networks)
    elif options.part == "digits":
        measure_digits()
    table = pd.concat(summarize(name) for name in DATA if any(OUTCOMES.glob(f"{name}-*.npz")))
    table.to_csv(RESULTS / "second_judgement.csv", index=False, float_format="%.5g")
    print(table.to_string(float_format="{:.4f}".format))


if __name__ == "__main__":
    main()
