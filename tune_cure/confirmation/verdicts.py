"""Results of a confirmation: accuracies of each run, their means, and which candidate is better than which.

Everything is made from the folders of the jobs, or from the tables that were made of them (`saved`). The tables call a
candidate "contender", as in confirm.csv.
"""

import json
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tune_cure.confirmation.candidates import ABLATION
from tune_cure.confirmation.outcomes import Arrays, read_outcomes, read_trained
from tune_cure.confirmation.plan import AS_IS, Job, RunKey, find_left_out
from tune_cure.confirmation.seed_words import describe_interval, warn_of_few_seeds
from tune_cure.evaluation import gradient_masking
from tune_cure.evaluation.autoattack_version import describe_versions, join_versions, read_version
from tune_cure.evaluation.gradient_masking import MaskingSign
from tune_cure.evaluation.names import ATTACKS, COMPARED_ATTACKS, label_attacks
from tune_cure.evaluation.outcomes import Outcomes
from tune_cure.search import run_files
from tune_cure.utils import significance
from tune_cure.utils.csv_tables import format_csv
from tune_cure.utils.files import replace_arrays, replace_text
from tune_cure.utils.formatting import format_count, format_notebook, format_table, join_words
from tune_cure.utils.significance import Difference, SeedSpread

KEYS = ("contender", "kind", "description", "seed", "norm", "epsilon", "examples", "train_images", "epochs", "diverged")
OF_BEST = {attack: f"best_{attack}" for attack in ATTACKS}
"""Column of the accuracy that the best epoch's weights have under an attack."""
COLUMNS = (*KEYS, *ATTACKS, "zero_gradient", "chance", "train_seconds", "judge_seconds", "warnings",
           "held_out", "best_epoch", "catastrophic_overfitting_epoch", *OF_BEST.values(),
           "robust_overfitting", "autoattack_version")  # fmt: skip
EPOCHS = ("best_epoch", "catastrophic_overfitting_epoch")
"""Columns with the number of an epoch, or nothing."""
SAME = Difference(0.0, 0.0, 0.0, 1.0)


def summarize_seeds(name: str, accuracies: "pd.Series[Any]") -> dict[str, Any]:
    """Return mean, sample standard deviation (`NAME_sd`) and number of seeds (`NAME_seeds`) of an attack's accuracies.

    Args:
        name: The name of the mean.
        accuracies: One for each seed, a fraction; NaN for a seed that the attack has not judged, which is left out.
    """
    measured = accuracies.astype(float)
    return {name: measured.mean(), f"{name}_sd": measured.std(), f"{name}_seeds": int(measured.count())}


class Confirmation:
    """Outcomes of the finished jobs, read once from their folders.

    Attributes:
        num_planned: The number of runs that were asked for, judged or not.
        num_judged: The number of these that have been judged as was asked, at each radius and by each attack.
        left_out: What earlier commands judged and this one does not ask for; see `plan.find_left_out`.
        winner: The name of the search's winner, which need not have been judged yet; None in a league.
        outcomes: For each judged network the content of its outcomes.npz. Under each attack's name (`ATTACKS`) lies an
            array of shape (examples,): True where the test image was still classified correctly.
        best_outcomes: The same of the best epoch's weights, where images were held out to choose it.
        table: A row of `COLUMNS` for each judged network; accuracies are fractions.

    Args:
        jobs: All jobs of a plan, finished or not; empty if `saved.read_confirmation` reads the tables.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.num_planned = len(jobs)
        self.num_judged = sum(job.is_done for job in jobs)
        self.left_out = find_left_out(jobs)
        self.winner = next((job.candidate.name for job in jobs if job.candidate.kind == "leader"), None)
        self.outcomes: dict[RunKey, Arrays] = {}
        self.best_outcomes: dict[RunKey, Arrays] = {}
        rows = []
        for job in jobs:
            for epsilon in job.plan.epsilons:
                file = job.outcome_folder(epsilon) / run_files.OUTCOMES
                of_best = job.outcome_folder(epsilon, "best") / run_files.OUTCOMES
                if file.exists():
                    key = job.candidate.name, job.seed, epsilon
                    arrays = self.outcomes[key] = read_outcomes(file, job.plan.examples)
                    if "best" in job.weights and of_best.exists():
                        self.best_outcomes[key] = read_outcomes(of_best, job.plan.examples)
                    rows.append(_row(job, epsilon, arrays, self.best_outcomes.get(key, {})))
        self.table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(EPOCHS, "Int64"))

    @property
    def attack_labels(self) -> dict[str, str]:
        """The attacks as people write them, by their columns; see `names.label_attacks`."""
        return label_attacks([attack for attack in ATTACKS if self.table[attack].notna().any()])

    @property
    def autoattack(self) -> str:
        """AutoAttack's package and versions as a sentence; empty if it has not judged, or none is known."""
        return describe_versions(self.table.loc[self.table["autoattack"].notna(), "autoattack_version"])

    @property
    def question(self) -> tuple[str, str] | None:
        """The winner and its ablation, whose comparison says what the penalty is worth; None if one is not judged."""
        baselines = self.table.loc[self.table["kind"].eq("baseline"), "contender"]
        ablation = baselines[baselines.eq(ABLATION) | baselines.str.startswith(f"{ABLATION}-of-")]
        if self.winner is None or ablation.empty or not self.table["contender"].eq(self.winner).any():
            return None
        return self.winner, ablation.iloc[0]

    def shortest_trainings(self) -> "pd.Series[float]":
        """Return the seconds of each candidate's shortest training run.

        The shortest, because what else a machine does makes runs longer. A run that diverged ended early, and counts
        only where all runs of its candidate did.
        """
        whole = self.table[~self.table["diverged"]].groupby("contender")["train_seconds"].min()
        return whole.combine_first(self.table.groupby("contender")["train_seconds"].min())

    def means(self) -> pd.DataFrame:
        """Return a row per candidate and radius with the means over the seeds.

        Columns: contender, epsilon, seeds (their number), description, diverged (the number of runs that did), and for
        each attack the mean accuracy, in the column that ends in `_sd` the sample standard deviation, and in that which
        ends in `_seeds` the number of seeds that it has judged.
        """
        rows = []
        for (candidate, epsilon), runs in self.table.groupby(["contender", "epsilon"], sort=False):
            row: dict[str, Any] = {"contender": candidate, "epsilon": epsilon, "seeds": len(runs)}
            row |= {"description": runs["description"].iloc[0], "diverged": int(runs["diverged"].sum())}
            for attack in ATTACKS:
                row |= summarize_seeds(attack, runs[attack])
            rows.append(row)
        return pd.DataFrame(rows)

    def comparisons(self) -> pd.DataFrame:
        """Return a row per pair of candidates, radius and attack: the difference and the verdict.

        Each leader is compared with each baseline and each candidate of the user's, and the winner with the
        other leaders. A comparison uses the same test images for both, and the seeds that both have. How much seeds
        differ is measured over all candidates together (`significance.pooled_difference`). P-values are adjusted after
        Holm (1979) over all pairs at a radius under an attack, but for that of `question`: it is asked before any
        number is seen, and stands by itself. Clean accuracy depends on no radius, and is compared once.

        Columns: first, second, epsilon, metric (the attack), seeds and examples (their numbers), difference (first
        minus second, a fraction), low and high (its 95% interval), p_value, p_value_holm, verdict.
        """
        rows: list[dict[str, Any]] = []
        for epsilon in dict.fromkeys(self.table["epsilon"]):
            for attack in reversed(COMPARED_ATTACKS):
                if attack == "clean" and epsilon != self.table["epsilon"].iloc[0]:
                    continue
                spread = self.seed_spread(epsilon, attack)
                family = [row for pair in self._pairs() if (row := self._compare(*pair, epsilon, attack, spread))]
                is_question = [(row["first"], row["second"]) == self.question for row in family]
                alone = is_question.index(True) if True in is_question else None
                adjusted = significance.holm([row["p_value"] for row in family], alone=alone)
                for row, p_value in zip(family, adjusted, strict=True):
                    verdict = significance.verdict(row["difference"], p_value)
                    rows.append({**row, "p_value_holm": p_value, "verdict": verdict})
        columns = ["first", "second", "epsilon", "metric", "seeds", "examples", "difference", "low", "high", "p_value",
                   "p_value_holm", "verdict"]  # fmt: skip
        return pd.DataFrame(rows, columns=columns)

    def _pairs(self) -> Iterator[tuple[str, str]]:
        kinds = dict(zip(self.table["contender"], self.table["kind"], strict=True))
        leaders = [name for name, kind in kinds.items() if kind == "leader"]
        for leader in leaders:
            yield from ((leader, name) for name, kind in kinds.items() if kind != "leader")
        if self.winner is not None and self.winner in leaders:
            yield from ((self.winner, other) for other in leaders if other != self.winner)

    def seed_spread(self, epsilon: float, attack: str) -> SeedSpread:
        """Return how much the candidates' accuracies vary over seeds, at a radius under an attack.

        Networks that were judged as they are have no seeds, and are not in it.
        """
        names = self.table.loc[self.table["seed"].ne(AS_IS), "contender"].unique()
        by_seed = {name: [*self._outcomes_by_seed(name, epsilon, attack).values()] for name in names}
        return significance.measure_seed_spread({name: np.stack(found) for name, found in by_seed.items() if found})

    def describe_seeds(self, comparisons: pd.DataFrame) -> tuple[str, list[str]]:
        """Return what the intervals of `comparisons` include, and what its seeds do not allow to say, in sentences.

        They go by the comparison at the search's radius under the strongest attack that judged two candidates.
        """
        if comparisons.empty:
            return "", []
        row = comparisons.iloc[0]
        spread = self.seed_spread(row["epsilon"], row["metric"])
        return describe_interval(spread), warn_of_few_seeds(comparisons["seeds"], spread)

    def _compare(
        self, first: str, second: str, epsilon: float, attack: str, spread: SeedSpread
    ) -> dict[str, Any] | None:
        """Return a row of `comparisons` without the verdict; None if the two have no seed in common.

        A network that was judged as it is, is compared with every seed of the other.
        """
        of_first, of_second = (self._outcomes_by_seed(name, epsilon, attack) for name in (first, second))
        is_fixed = AS_IS in of_second
        seeds = [seed for seed in of_first if is_fixed or seed in of_second]
        if not seeds:
            return None
        first_outcomes = np.stack([of_first[seed] for seed in seeds])
        second_outcomes = np.stack([of_second[seed] for seed in ([AS_IS] if is_fixed else seeds)])
        difference = significance.pooled_difference({first: first_outcomes, second: second_outcomes}, spread)
        return {
            "first": first, "second": second, "epsilon": epsilon, "metric": attack, "seeds": len(seeds),
            "examples": first_outcomes.shape[1], "difference": difference.estimate, "low": difference.low,
            "high": difference.high, "p_value": difference.p_value,
        }  # fmt: skip

    def _outcomes_by_seed(self, name: str, epsilon: float, attack: str) -> dict[int, NDArray[Any]]:
        """Return the outcomes (examples,) of a candidate's networks at a radius under an attack, by seed."""
        seeds = dict.fromkeys(self.table["seed"])
        found = {seed: self.outcomes.get((name, seed, epsilon), {}) for seed in seeds}
        return {seed: arrays[attack] for seed, arrays in found.items() if attack in arrays}

    def robust_overfitting(self) -> pd.DataFrame:
        """Return a row per candidate, radius and attack: what the best epoch's weights have more than the last ones.

        Both are of the same training runs, and are judged on the same images. Rice, Wong and Kolter 2020 (arXiv
        2002.11569) call the loss of robust accuracy in later epochs robust overfitting.

        Columns: contender, epsilon, metric (the attack), seeds and examples (their numbers), held_out (the number of
        images that chose the epoch), best_epochs (of each seed), epochs (of the whole schedule), best and last (mean
        accuracies, fractions), difference (best minus last), low and high (its 95% interval). A row has the seeds
        whose best weights have been judged; there is none of a candidate without such seeds. Runs that diverged are
        left out: their last weights are not what longer training made of the best ones. Clean accuracy depends on no
        radius, and has one row.
        """
        rows, whole = [], self.table[~self.table["diverged"]]
        for (candidate, epsilon), runs in whole.groupby(["contender", "epsilon"], sort=False):
            for attack in reversed(COMPARED_ATTACKS):
                judged = runs.dropna(subset=[attack, OF_BEST[attack]])
                if judged.empty or (attack == "clean" and epsilon != self.table["epsilon"].iloc[0]):
                    continue
                keys = [(str(candidate), int(seed), float(str(epsilon))) for seed in judged["seed"]]
                best, last = (
                    np.stack([outcomes[key][attack] for key in keys])
                    for outcomes in (self.best_outcomes, self.outcomes)
                )
                is_same = judged["best_epoch"].eq(judged["epochs"]).all()  # the same networks, judged once
                difference = SAME if is_same else significance.paired_difference(best, last)
                rows.append({
                    "contender": candidate, "epsilon": epsilon, "metric": attack, "seeds": len(judged),
                    "examples": best.shape[1], "held_out": int(judged["held_out"].max()),
                    "best_epochs": [int(epoch) for epoch in judged["best_epoch"]],
                    "epochs": int(judged["epochs"].max()), "best": float(best.mean()), "last": float(last.mean()),
                    "difference": difference.estimate, "low": difference.low, "high": difference.high,
                })  # fmt: skip
        columns = ["contender", "epsilon", "metric", "seeds", "examples", "held_out", "best_epochs", "epochs", "best",
                   "last", "difference", "low", "high"]  # fmt: skip
        return pd.DataFrame(rows, columns=columns)

    def masking_warnings(self) -> list[tuple[float, str]]:
        """Return the signs of masked gradients as pairs of radius and sentence.

        Runs that show the same sign at the same radius share a sentence, which gives the largest size and names them.
        """
        groups: dict[tuple[float, str], list[tuple[MaskingSign, str]]] = {}
        for candidate, epsilon, sign in self.masking_signs:
            groups.setdefault((epsilon, sign.claim), []).append((sign, candidate))
        num_runs = Counter((candidate, epsilon) for candidate, _, epsilon in self.outcomes)
        warnings = []
        for (epsilon, _), group in groups.items():
            largest = max((sign for sign, _ in group), key=lambda sign: sign.size)
            affected = Counter(candidate for _, candidate in group)
            names = [f"{name} ({count} of {num_runs[name, epsilon]} seeds)" for name, count in affected.items()]
            claim = largest.observation("up to " if len(group) > 1 else "")
            warnings.append((epsilon, f"{claim}, {join_words(names)}: {largest.meaning}."))
        return warnings

    def find_overrated(self, attack: str) -> set[str]:
        """Return the candidates that may seem more robust under an attack than they are, at the search's radius.

        These are the ones of which a run has a sign of masked gradients that this attack does not settle.
        """
        at = self.table["epsilon"].iloc[0]
        return {name for name, epsilon, sign in self.masking_signs if epsilon == at and attack in sign.overrated}

    @cached_property
    def masking_signs(self) -> list[tuple[str, float, MaskingSign]]:
        """Candidate, radius and sign, for each sign of masked gradients in a run that did not diverge."""
        diverged = self.table.set_index(["contender", "seed", "epsilon"])["diverged"]
        return [
            (candidate, epsilon, sign)
            for (candidate, seed, epsilon), arrays in self.outcomes.items()
            if not diverged[candidate, seed, epsilon]
            for sign in gradient_masking.find_masking_signs(Outcomes.from_arrays(arrays))
        ]

    def _repr_html_(self) -> str:
        """Return the HTML that a notebook shows: accuracies of every seed, means, verdicts."""
        headline = f"{self.num_judged} of {format_count(self.num_planned, 'run')} judged on the test set"
        if self.table.empty:
            return format_notebook(self, headline)
        compared = [name for attack in COMPARED_ATTACKS for name in (attack, f"{attack}_sd")]
        means = self.means()[["contender", "epsilon", "seeds", *compared]].dropna(axis=1, how="all")
        comparisons = self.comparisons()
        verdicts = comparisons[["first", "second", "epsilon", "metric", "difference", "low", "high", "verdict"]]
        points = dict.fromkeys(("difference", "low", "high"), "{:+.1%}")
        tables = [format_table(means, dict.fromkeys(compared, "{:.1%}")), format_table(verdicts, points)]
        return format_notebook(self, headline, " ".join(self.describe_seeds(comparisons)[1]), tables)

    def write(self, folder: Path) -> None:
        """Write confirm.csv, confirm.json, and outcomes.npz with every single outcome, for other statistics."""
        replace_text(folder / run_files.CONFIRM_TABLE, format_csv(self.table))
        content: dict[str, Any] = {"means": _records(self.means()), "comparisons": _records(self.comparisons())}
        if self.winner is not None:
            content["winner"] = self.winner
        if self.best_outcomes:
            content["robust_overfitting"] = _records(self.robust_overfitting())
        if self.num_judged < self.num_planned:
            content |= {"runs_planned": self.num_planned, "runs_judged": self.num_judged}
        if self.left_out:
            content["left_out"] = self.left_out
        replace_text(folder / run_files.CONFIRM_SUMMARY, json.dumps(content, indent=2, allow_nan=False) + "\n")
        packed = {
            f"{candidate}/{seed}/{epsilon:.6g}/{attack}": array
            for (candidate, seed, epsilon), arrays in self.outcomes.items()
            for attack, array in arrays.items()
            if attack in ATTACKS
        } | {
            f"{candidate}/{seed}/{epsilon:.6g}/{OF_BEST[attack]}": array
            for (candidate, seed, epsilon), arrays in self.best_outcomes.items()
            for attack, array in arrays.items()
            if attack in ATTACKS
        }
        replace_arrays(folder / run_files.OUTCOMES, packed)


def _row(job: Job, epsilon: float, arrays: Arrays, of_best: Arrays) -> dict[str, Any]:
    """Return a row of `COLUMNS`.

    Args:
        job: The job.
        epsilon: The radius.
        arrays: The outcomes of its last weights.
        of_best: Those of its best weights; empty if these have not been judged.
    """
    is_trained_here = job.candidate.trained is None
    trained = read_trained(job.folder / run_files.JOB_MODEL) if is_trained_here else {}
    accuracies = {attack: float(arrays[attack].mean()) for attack in ATTACKS if attack in arrays}
    best = {OF_BEST[attack]: float(of_best[attack].mean()) for attack in ATTACKS if attack in of_best}
    judged = next((attack for attack in reversed(COMPARED_ATTACKS) if attack in arrays and attack in of_best), None)
    collapsed = trained.get("catastrophic_overfitting_epochs")
    diverged = is_trained_here and not trained["weights"]
    signs = [] if diverged else gradient_masking.find_masking_signs(Outcomes.from_arrays(arrays))
    return {
        "contender": job.candidate.name,
        "kind": job.candidate.kind,
        "description": job.candidate.description,
        "seed": job.seed,
        "norm": job.evaluation.norm,
        "epsilon": epsilon,
        "examples": job.plan.examples,
        "train_images": job.plan.train_images if is_trained_here else 0,
        "epochs": trained.get("epoch", 0),
        "diverged": diverged,
        **accuracies,
        "zero_gradient": float(arrays["zero_gradient"]),
        "chance": float(arrays.get("chance", np.nan)),
        "train_seconds": trained.get("train_seconds", 0.0),
        "judge_seconds": float(arrays["seconds"]),
        "warnings": " ".join(map(str, signs)),
        "held_out": job.plan.held_out if is_trained_here else 0,
        "best_epoch": trained.get("best_epoch", np.nan),
        "catastrophic_overfitting_epoch": collapsed[0] if collapsed else np.nan,
        **best,
        "robust_overfitting": best[OF_BEST[judged]] - accuracies[judged] if judged and not diverged else np.nan,
        "autoattack_version": join_versions(read_version(it) for it in (arrays, of_best) if "autoattack" in it),
    }


def _records(frame: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """Return the rows as JSON takes them, with None in place of NaN."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")
