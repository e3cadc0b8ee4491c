"""What a confirmation found: accuracies per seed, their means, and who is better than whom. Made from its folder."""

import json
from collections import Counter
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from tune_cure.confirmation.plan import Job, write_arrays
from tune_cure.evaluation import gradient_masking
from tune_cure.evaluation.names import ATTACKS
from tune_cure.evaluation.robustness import Outcomes
from tune_cure.search import run_files
from tune_cure.utils import significance
from tune_cure.utils.files import read_tensors, replace_text
from tune_cure.utils.formatting import join_words

Array = NDArray[Any]
KEYS = ("contender", "kind", "description", "seed", "norm", "epsilon", "examples", "train_images", "epochs", "diverged")
COLUMNS = (*KEYS, *ATTACKS, "zero_gradient", "train_seconds", "judge_seconds", "warnings")
COMPARED = ("clean", "pgd_50_10", "autoattack")
FEW_SEEDS_WARNINGS = {  # how far verdicts of so many seeds can be trusted; docs/confirming.md has the measurement
    1: "With one seed, the intervals know nothing of how much seeds differ.",
    2: "With two seeds, verdicts err in about one of ten comparisons where there is no difference; take three or more.",
}


def warn_of_few_seeds(comparisons: pd.DataFrame) -> list[str]:
    """What to know of `Confirmation.comparisons` that go by few seeds, a sentence each."""
    return [words for seeds, words in FEW_SEEDS_WARNINGS.items() if comparisons["seeds"].eq(seeds).any()]


class Confirmation:
    """What the jobs that are done have left.

    Attributes:
        outcomes: Whether each test image was classified right, shape (examples,), by candidate, seed and epsilon, and
            by what was done to it (`ATTACKS`).
        table: A row of `COLUMNS` for each candidate, seed and epsilon; accuracies are fractions.
    """

    compared = COMPARED

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = jobs
        self.outcomes: dict[tuple[str, int, float], dict[str, Array]] = {}
        rows = []
        for job in jobs:
            for epsilon in job.plan.epsilons:
                file = job.outcome_folder(epsilon) / run_files.OUTCOMES
                if file.exists():
                    with np.load(file) as content:
                        found = {name: content[name] for name in content.files}
                    self.outcomes[job.candidate.name, job.seed, epsilon] = found
                    rows.append(_row(job, epsilon, found))
        self.table = pd.DataFrame(rows, columns=list(COLUMNS))

    def means(self) -> pd.DataFrame:
        """A row per candidate and epsilon: the number of seeds, and mean and sample standard deviation over them."""
        rows = []
        for (candidate, epsilon), group in self.table.groupby(["contender", "epsilon"], sort=False):
            row: dict[str, Any] = {"contender": candidate, "epsilon": epsilon, "seeds": len(group)}
            row |= {"description": group["description"].iloc[0], "diverged": int(group["diverged"].sum())}
            for name in ATTACKS:
                mean, deviation = significance.mean_and_deviation(group[name].to_numpy(dtype=float))
                row |= {name: mean, f"{name}_sd": deviation}
            rows.append(row)
        return pd.DataFrame(rows)

    def comparisons(self) -> pd.DataFrame:
        """A row per pair, epsilon and metric: the difference with its 95% interval, and the verdict.

        Pairs are each leader with each baseline, and the first leader with the others; on the same test images, and
        with the seeds that both have. P-values are adjusted after Holm for all pairs of a metric at a radius.
        """
        rows: list[dict[str, Any]] = []
        for epsilon in dict.fromkeys(self.table["epsilon"]):
            for metric in reversed(COMPARED):
                found = [row for pair in self._pairs() if (row := self._compare(*pair, epsilon, metric))]
                adjusted = significance.holm([row["p_value"] for row in found])
                for row, p_value in zip(found, adjusted, strict=True):
                    rows.append(
                        {**row, "p_value_holm": p_value, "verdict": significance.verdict(row["difference"], p_value)}
                    )
        columns = ["first", "second", "epsilon", "metric", "seeds", "examples", "difference", "low", "high", "p_value",
                   "p_value_holm", "verdict"]  # fmt: skip
        return pd.DataFrame(rows, columns=columns)

    def _pairs(self) -> Iterator[tuple[str, str]]:
        kinds = dict(zip(self.table["contender"], self.table["kind"], strict=True))
        leaders = [name for name, kind in kinds.items() if kind == "leader"]
        for leader in leaders:
            yield from ((leader, name) for name, kind in kinds.items() if kind == "baseline")
        yield from ((leaders[0], other) for other in leaders[1:])

    def _compare(self, first: str, second: str, epsilon: float, metric: str) -> dict[str, Any] | None:
        both = [
            seed
            for seed in dict.fromkeys(job.seed for job in self.jobs)
            if all(metric in self.outcomes.get((name, seed, epsilon), {}) for name in (first, second))
        ]
        if not both:
            return None
        one, other = (
            np.stack([self.outcomes[name, seed, epsilon][metric] for seed in both]) for name in (first, second)
        )
        found = significance.paired_difference(one, other)
        return {
            "first": first, "second": second, "epsilon": epsilon, "metric": metric, "seeds": len(both),
            "examples": one.shape[1], "difference": found.estimate, "low": found.low, "high": found.high,
            "p_value": found.p_value,
        }  # fmt: skip

    def doubts(self) -> list[tuple[float, str]]:
        """The signs of masked gradients: radius, and a sentence for all runs that show the same."""
        alike: dict[tuple[float, str], list[tuple[gradient_masking.MaskingSign, str]]] = {}
        diverged = self.table.set_index(["contender", "seed", "epsilon"])["diverged"]
        for run, found in self.outcomes.items():
            candidate, _, epsilon = run
            for sign in [] if diverged[run] else gradient_masking.find_masking_signs(Outcomes.of(found)):
                alike.setdefault((epsilon, sign.claim), []).append((sign, candidate))
        runs = Counter((candidate, epsilon) for candidate, _, epsilon in self.outcomes)
        doubts = []
        for (epsilon, _), seen in alike.items():
            largest = max((sign for sign, _ in seen), key=lambda sign: sign.size)
            shown = Counter(candidate for _, candidate in seen)
            who = join_words(f"{name} ({count} of {runs[name, epsilon]} seeds)" for name, count in shown.items())
            doubts.append((epsilon, f"{largest.found('up to ' if len(seen) > 1 else '')}, {who}: {largest.meaning}."))
        return doubts

    def write(self, folder: Path) -> None:
        """Writes confirm.csv, confirm.json and, for other statistics, outcomes.npz with every single outcome."""
        replace_text(folder / run_files.CONFIRM_TABLE, self.table.to_csv(index=False))
        content = {"means": _records(self.means()), "comparisons": _records(self.comparisons())}
        replace_text(folder / run_files.CONFIRM_SUMMARY, json.dumps(content, indent=2, allow_nan=False) + "\n")
        packed = {
            f"{candidate}/{seed}/{epsilon:.6g}/{name}": of
            for (candidate, seed, epsilon), found in self.outcomes.items()
            for name, of in found.items()
            if name in ATTACKS
        }
        write_arrays(folder / run_files.OUTCOMES, packed)


def _row(job: Job, epsilon: float, found: dict[str, Array]) -> dict[str, Any]:
    trained = read_tensors(job.folder / run_files.JOB_MODEL, torch.device("cpu"))
    accuracies = {name: float(found[name].mean()) for name in ATTACKS if name in found}
    diverged = not trained["weights"]
    return {
        "contender": job.candidate.name,
        "kind": job.candidate.kind,
        "description": job.candidate.description,
        "seed": job.seed,
        "norm": job.evaluation.norm,
        "epsilon": epsilon,
        "examples": job.plan.examples,
        "train_images": job.plan.train_images,
        "epochs": trained["epoch"],
        "diverged": diverged,
        **accuracies,
        "zero_gradient": float(found["zero_gradient"]),
        "train_seconds": trained["train_seconds"],
        "judge_seconds": float(found["seconds"]),
        "warnings": " ".join([] if diverged else map(str, gradient_masking.find_masking_signs(Outcomes.of(found)))),
    }


def _records(frame: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """The rows as JSON has them: no NaN."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")
