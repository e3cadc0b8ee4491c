"""How far trained networks agree on which images they classify correctly under attack.

    python benchmarks/judge_agreement.py    # minutes

Five configurations of search_quality_curves.csv are trained on digits from two seeds each, and after some epochs the
outcome of the judging attack is taken for each validation image. All networks are attacked on the same images from the
same starts, as in a search. `agreement` is the correlation of two networks' outcomes (0 or 1) over the images; `latent`
is that of the two normal variables whose signs they would be (the tetrachoric correlation). benchmarks/sharper_judge.py
simulates searches with the latter.
"""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm
from search_quality import CURVES, KEYS, PLAIN, REPEATED, WAYS

from tune_cure.attacks.pgd import pgd
from tune_cure.data import splits as data
from tune_cure.data.batches import to_float
from tune_cure.evaluation.metrics import BATCH_SIZE, START_SEED, exact_evaluation
from tune_cure.search.space.config import SearchSpec
from tune_cure.training.trainer import Trainer

AGREEMENT = Path(__file__).parent / "results" / "judge_agreement.csv"
JUDGED = (3, 8, 9, 17, 18, 26, 27)


def right(trainer: Trainer) -> NDArray[np.bool_]:
    """Return whether the network is right about each judged image under the judging attack, (images,)."""
    examples, evaluation, model = trainer.judged_on, trainer.evaluation, trainer.judged_model
    generator, found = torch.Generator(examples.images.device).manual_seed(START_SEED), []
    with exact_evaluation(model):
        for positions in torch.arange(len(examples)).split(BATCH_SIZE):
            pixels, labels = examples.gather(positions)
            settings = {"steps": evaluation.steps, "restarts": evaluation.restarts, "norm": evaluation.norm}
            images = pgd(model, to_float(pixels), labels, evaluation.epsilon, generator=generator, **settings)
            with torch.no_grad():
                found.append(model(images).argmax(dim=1) == labels)
    return torch.cat(found).numpy()


def train(spec: SearchSpec, configs: list[dict[str, Any]]) -> Iterator[Any]:
    """Yield (configuration's index, seed, epoch, outcomes) of all networks after the judged epochs."""
    splits = data.load(spec.data)
    for index, config in enumerate(configs):
        for seed in range(2):
            hyperparameters = spec.training_config(config)
            trainer = Trainer(hyperparameters, splits, model=spec.model, evaluation=spec.evaluation, seed=seed)
            for epoch in range(1, max(JUDGED) + 1):
                trainer.train_epoch()
                if epoch in JUDGED:
                    yield index, seed, epoch, right(trainer)
            print(config, seed, f"{right(trainer).mean():.3f}", flush=True)


def latent_correlation(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the tetrachoric correlation of two networks' outcomes."""
    limits, both = norm.ppf([first.mean(), second.mean()]), (first & second).mean()

    def excess(correlation: float) -> float:
        return float(multivariate_normal.cdf(limits, cov=[[1, correlation], [correlation, 1]]) - both)

    return float(brentq(excess, -0.999, 0.999))


def pairs(outcomes: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield a row for each pair of networks that are compared: at one epoch, or of one network after two."""
    for (config, seed, epoch, first), (other, other_seed, later, second) in combinations(outcomes, 2):
        if (config, seed) == (other, other_seed):
            kind = "epochs of one network"
        elif epoch != later:
            continue
        else:
            kind = "seeds of one configuration" if config == other else "configurations"
        agreement = float(np.corrcoef(first, second)[0, 1])
        accuracy = (first.mean() + second.mean()) / 2
        row = {"pair": kind, "epoch": epoch, "later_epoch": later, "images": len(first), "accuracy": accuracy}
        yield row | {"agreement": agreement, "latent": latent_correlation(first, second)}


def main() -> None:
    """Train the networks and write the means over the pairs of each kind."""
    curves = pd.read_csv(CURVES)
    order = curves.assign(best=curves.filter(regex=r"^pgd_").max(axis=1)).sort_values("best")
    chosen = (np.linspace(0.3, 1.0, REPEATED) * (len(order) - 1)).astype(int)
    outcomes = list(train(WAYS[PLAIN].spec(0), order.iloc[chosen][KEYS].to_dict("records")))
    groups = pd.DataFrame(pairs(outcomes)).groupby(["pair", "epoch", "later_epoch", "images"], sort=False)
    means = groups[["accuracy", "agreement", "latent"]].mean().assign(pairs=groups.size()).reset_index()
    means.to_csv(AGREEMENT, index=False, float_format="%.4g")
    print(means.to_string())


if __name__ == "__main__":
    main()
