"""Standings of a league: the order of its methods, which of them can be told apart, and what each of them cost.

Everything is made from the outcomes of the confirmation (winner and untuned preset of each method) and from the
searches. Methods are compared under the strongest attack that judged all of them, by their last weights.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tune_cure.confirmation.candidates import list_sound_trials
from tune_cure.confirmation.verdicts import OF_BEST, Confirmation
from tune_cure.evaluation.gradient_masking import MaskingSign
from tune_cure.evaluation.names import COMPARED_ATTACKS
from tune_cure.league.contenders import WINNER, preset_name
from tune_cure.league.folder import find_given_up
from tune_cure.search.patience import is_search_over
from tune_cure.search.results import SearchResult
from tune_cure.search.space.objectives import pareto_front
from tune_cure.utils import significance
from tune_cure.utils.significance import SeedSpread

MEASURED = (*COMPARED_ATTACKS, *(OF_BEST[attack] for attack in COMPARED_ATTACKS), "robust_overfitting", "train_seconds",
            "judge_seconds", "epochs", "diverged", "catastrophic_overfitting_epoch", "warnings",
            "autoattack_version")  # fmt: skip
"""Columns of confirm.csv that league.csv has of a method's winner."""
OF_PRESET = (*COMPARED_ATTACKS, "train_seconds", "diverged", "catastrophic_overfitting_epoch")
"""Columns of confirm.csv that league.csv has of a method's untuned preset, too, with `preset_` before their names."""
OF_SEARCH = ("trials", "completed", "stopped", "catastrophic_overfitting", "diverged", "failed", "epochs", "seconds")
"""Counts and sums of a method's search in league.csv, with `search_` before the names."""
COLUMNS = ("method", "seed", "rank", "groups", "flagged", "norm", "epsilon", "examples", "train_images", "held_out",
           *MEASURED, *(f"preset_{name}" for name in OF_PRESET), *(f"search_{name}" for name in OF_SEARCH), "trial",
           "hyperparameters")  # fmt: skip
PAIR_COLUMNS = ("first", "second", "difference", "low", "high", "p_value", "p_value_holm", "verdict")
QUARTILES = {"lowest": 0.0, "lower_quartile": 0.25, "median": 0.5, "upper_quartile": 0.75, "highest": 1.0}


class Standings:
    """Order of a league's methods, with what can be said of it.

    Args:
        methods: The names of the methods, in the league's order.
        confirmation: The outcomes of winners and presets; its table is not empty.
        results: The search of each method, by its name.

    Attributes:
        methods: As given.
        confirmation: As given.
        results: As given.
        epsilon: The radius.
        attack: The strongest attack that judged every winner.
    """

    def __init__(self, methods: Sequence[str], confirmation: Confirmation, results: Mapping[str, SearchResult]) -> None:
        self.methods, self.confirmation, self.results = list(methods), confirmation, dict(results)
        self.epsilon = float(confirmation.table["epsilon"].iloc[0])
        winners = confirmation.table[confirmation.table["kind"].eq(WINNER)]
        self.attack = next(name for name in reversed(COMPARED_ATTACKS) if winners[name].notna().all())

    @cached_property
    def order(self) -> list[str]:
        """The methods whose winners have been judged, best first; of equal ones the first of the league first."""
        judged = [name for name in self.methods if len(self.runs(name))]
        return sorted(judged, key=lambda name: -float(self.runs(name)[self.attack].mean()))

    @property
    def unjudged(self) -> list[str]:
        """The methods whose winners have not been judged."""
        return [name for name in self.methods if name not in self.order]

    @property
    def awaited(self) -> list[str]:
        """The methods whose winners are still to be judged: a search that ended without a sound trial has none."""
        return [name for name in self.unjudged if self._may_have_winner(name)]

    def _may_have_winner(self, name: str) -> bool:
        result = self.results.get(name)
        if result is None or list_sound_trials(result):
            return True
        return not is_search_over(result) and name not in find_given_up(self.results)

    @property
    def label(self) -> str:
        """The attack as people write it."""
        return self.confirmation.attack_labels[self.attack]

    def runs(self, candidate: str) -> pd.DataFrame:
        """Return the rows of `Confirmation.table` of a winner (by its method) or a preset."""
        return self.confirmation.table[self.confirmation.table["contender"].eq(candidate)]

    def preset(self, method: str) -> str | None:
        """Return the candidate that is a method's preset, which may be the winner; None if it was not judged."""
        name = preset_name(method)
        if len(self.runs(name)):
            return name
        result = self.results.get(method)
        is_same = result is not None and self._is_preset(result)
        return method if is_same and len(self.runs(method)) else None

    def _is_preset(self, result: SearchResult) -> bool:
        """Return whether the winner of a search is the untuned preset."""
        if result.best is None:
            return False
        configs = [result.spec.training_config(it) for it in (result.best.hyperparameters, result.spec.start_from[0])]
        return configs[0] == configs[1]

    def outcomes(self, candidate: str) -> NDArray[Any]:
        """Return whether a candidate's networks withstood the attack, shape (seeds, images)."""
        keys = [(candidate, int(seed), self.epsilon) for seed in self.runs(candidate)["seed"]]
        found = [self.confirmation.outcomes[key] for key in keys]
        return np.stack([arrays[self.attack] for arrays in found if self.attack in arrays])

    @cached_property
    def spread(self) -> SeedSpread:
        """The variances of the winners' accuracies over seeds."""
        return significance.measure_seed_spread({name: self.outcomes(name) for name in self.order})

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """A row for each pair of methods, the better one first: its difference and the verdict.

        Intervals hold at 95% for all pairs together (Bonferroni), verdicts at 5% for all together (Holm 1979).

        Columns: first, second, difference (first minus second, a fraction), low, high, p_value, p_value_holm, verdict
        (better or cannot tell).
        """
        outcomes = {name: self.outcomes(name) for name in self.order}
        return _compare(outcomes, list(itertools.combinations(self.order, 2)))

    @cached_property
    def tuning(self) -> pd.DataFrame:
        """A row for each method whose preset was judged: tuned minus untuned. Columns as in `pairs`.

        Intervals and verdicts hold for all methods together. The row of a method whose preset won its search has a
        difference of 0 and takes no part in that.
        """
        presets = {name: preset for name in self.order if (preset := self.preset(name))}
        pairs = [(name, preset) for name, preset in presets.items() if preset != name and self._has_attack(preset)]
        table = _compare({name: self.outcomes(name) for pair in pairs for name in pair}, pairs)
        same = [
            {"first": name, "second": name, **dict.fromkeys(("difference", "low", "high"), 0.0),
             "p_value": 1.0, "p_value_holm": 1.0, "verdict": "the preset won"}
            for name, preset in presets.items() if preset == name
        ]  # fmt: skip
        rows = pd.concat([table, pd.DataFrame(same, columns=list(PAIR_COLUMNS))]) if same else table
        return rows.sort_values("first", key=lambda names: names.map(self.order.index), ignore_index=True)

    def _has_attack(self, candidate: str) -> bool:
        return bool(self.runs(candidate)[self.attack].notna().all())

    @cached_property
    def groups(self) -> dict[str, str]:
        """Letters of each method's groups: methods that share a letter cannot be told apart; `a` has the first one."""
        told = {
            frozenset((row["first"], row["second"])) for _, row in self.pairs.iterrows() if row["verdict"] == "better"
        }
        alike = {
            name: {other for other in self.order if other != name and frozenset((name, other)) not in told}
            for name in self.order
        }
        cliques = sorted(sorted(map(self.order.index, clique)) for clique in find_cliques(alike))
        return {
            name: "".join(_letter(number) for number, clique in enumerate(cliques) if self.order.index(name) in clique)
            for name in self.order
        }

    @cached_property
    def leading(self) -> list[str]:
        """The first method and those that cannot be told from it, best first."""
        is_open = self.pairs["first"].eq(self.order[0]) & self.pairs["verdict"].eq("cannot tell")
        tied = set(self.pairs.loc[is_open, "second"])
        return [name for name in self.order if name == self.order[0] or name in tied]

    @cached_property
    def flags(self) -> dict[str, list[str]]:
        """Signs of masked gradients in a method's winner, the largest of each kind in a sentence, by method.

        PGD far above AutoAttack is one of them. A method with such signs is not crowned.
        """
        largest: dict[str, dict[str, MaskingSign]] = {name: {} for name in self.order}
        for name, epsilon, sign in self.confirmation.masking_signs:
            if name in largest and epsilon == self.epsilon:
                other = largest[name].setdefault(sign.claim, sign)
                largest[name][sign.claim] = max(other, sign, key=lambda it: it.size)
        return {
            name: [f"{sign.observation('up to ')}: {sign.meaning}" for sign in signs.values()]
            for name, signs in largest.items()
            if signs
        }

    @cached_property
    def costs(self) -> pd.DataFrame:
        """A row for each judged winner and preset: accuracy and training time, and whether it is on the Pareto front.

        Columns: method, kind, candidate, clean and robust (mean accuracies), train_seconds (of the shortest run) and
        front.
        """
        rows, shortest = [], self.confirmation.shortest_trainings()
        for name in self.order:
            preset = self.preset(name)
            for candidate in dict.fromkeys([name, *([preset] if preset and self._has_attack(preset) else [])]):
                runs = self.runs(candidate)
                rows.append({
                    "method": name, "kind": runs["kind"].iloc[0], "candidate": candidate,
                    "clean": float(runs["clean"].mean()), "robust": float(runs[self.attack].mean()),
                    "train_seconds": float(shortest[candidate]),
                })  # fmt: skip
        front = pareto_front([[row["robust"], -row["train_seconds"]] for row in rows], "max")
        return pd.DataFrame(rows).assign(front=front)

    @cached_property
    def searches(self) -> pd.DataFrame:
        """A row for each search: how its trials ended, what they spent, and how far they spread.

        Columns: method; trials, and how many of these completed, were stopped, diverged or failed, and how many
        overfitted catastrophically in some epoch; epochs and seconds (of training); the quartiles of
        the best PGD accuracy on validation images, over the trials that ran to their end, as fractions.
        """
        rows = []
        for name, result in self.results.items():
            trials = result.trials
            counts = trials["status"].value_counts()
            accuracies = trials.loc[trials["status"].eq("completed"), "pgd_accuracy_best"].astype(float)
            rows.append(
                {"method": name, "trials": len(trials), "epochs": len(result.epochs)}
                | {status: int(counts.get(status, 0)) for status in ("completed", "stopped", "diverged", "failed")}
                | {"catastrophic_overfitting": int(trials["catastrophic_overfitting_epoch"].notna().sum())}
                | {"seconds": float(result.epochs["train_seconds"].sum())}
                | {title: float(accuracies.quantile(share)) for title, share in QUARTILES.items()}
            )
        return pd.DataFrame(rows, columns=["method", *OF_SEARCH, *QUARTILES])

    def collapses(self, candidate: str) -> int:
        """Return how many of a candidate's runs overfitted catastrophically or diverged."""
        runs = self.runs(candidate)
        return int((runs["diverged"] | runs["catastrophic_overfitting_epoch"].notna()).sum())

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row of `COLUMNS` for each method and seed, the best method first; accuracies are fractions."""
        rows, searches = [], self.searches.set_index("method")
        for rank, name in enumerate(self.order, 1):
            result, preset = self.results.get(name), self.preset(name)
            best = None if result is None else result.best
            of_preset = self.runs(preset).set_index("seed") if preset else pd.DataFrame()
            for _, run in self.runs(name).iterrows():
                row = {"method": name, "rank": rank, "groups": self.groups[name], "flagged": name in self.flags}
                row |= {key: run[key] for key in ("seed", "norm", "epsilon", "examples", "train_images", "held_out")}
                row |= {key: run[key] for key in MEASURED}
                if run["seed"] in of_preset.index:
                    row |= {f"preset_{key}": of_preset.loc[run["seed"], key] for key in OF_PRESET}
                if result is not None:
                    row |= {f"search_{key}": searches.loc[name, key] for key in OF_SEARCH}
                if best is not None:
                    row |= {"trial": best.trial, "hyperparameters": json.dumps(best.hyperparameters)}
                rows.append(row)
        return pd.DataFrame(rows, columns=list(COLUMNS))


def _compare(outcomes: Mapping[str, NDArray[Any]], pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Return a row of `PAIR_COLUMNS` for each pair, adjusted for all of them together."""
    differences = significance.simultaneous_differences(outcomes, pairs)
    adjusted = significance.holm([difference.p_value for difference in differences])
    rows = [
        {"first": pair[0], "second": pair[1], "difference": difference.estimate, "low": difference.low,
         "high": difference.high, "p_value": difference.p_value, "p_value_holm": p_value,
         "verdict": significance.verdict(difference.estimate, p_value)}
        for pair, difference, p_value in zip(pairs, differences, adjusted, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(PAIR_COLUMNS))


def find_cliques(neighbors: Mapping[str, set[str]]) -> list[set[str]]:
    """Return the maximal cliques of a graph: sets of nodes that are all neighbors of each other.

    The algorithm is that of Bron and Kerbosch (1973), without pivots: leagues are small.

    Args:
        neighbors: The neighbors of each node.
    """
    cliques: list[set[str]] = []

    def extend(clique: set[str], candidates: set[str], excluded: set[str]) -> None:
        if not candidates and not excluded:
            cliques.append(clique)
        for node in sorted(candidates):
            extend(clique | {node}, candidates & neighbors[node], excluded & neighbors[node])
            candidates, excluded = candidates - {node}, excluded | {node}

    extend(set(), set(neighbors), set())
    return cliques


def _letter(number: int) -> str:
    """Return the name of a group: a to z, then a2, b2, …"""
    return "abcdefghijklmnopqrstuvwxyz"[number % 26] + (str(number // 26 + 1) if number >= 26 else "")
