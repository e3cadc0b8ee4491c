"""Judgement of trained networks as they are: the accuracy of each under every attack, and which is better than which.

All networks are judged on the same images. Each is one network: a verdict says which of two networks is better on
images like these, and nothing of the methods that trained them. `tune-cure confirm` compares methods, over seeds.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from tune_cure.data.batches import to_float
from tune_cure.data.splits import Examples
from tune_cure.evaluation import gradient_masking
from tune_cure.evaluation.autoattack_version import describe_versions
from tune_cure.evaluation.chance import is_clearly_above
from tune_cure.evaluation.metrics import exact_evaluation
from tune_cure.evaluation.names import ATTACKS, COMPARED_ATTACKS, label_attacks
from tune_cure.evaluation.outcomes import Outcomes
from tune_cure.search.run_files import OUTCOMES
from tune_cure.utils import significance
from tune_cure.utils.csv_tables import format_csv
from tune_cure.utils.files import replace_arrays, replace_text
from tune_cure.utils.formatting import format_count, format_notebook, format_percent, format_radius, format_table
from tune_cure.utils.seeding import seeded_global_state
from tune_cure.utils.significance import Difference

TABLE, SUMMARY = "evaluation.csv", "evaluation.json"
COLUMNS = ("model", "origin", "parameters", "norm", "epsilon", "examples", *ATTACKS, "zero_gradient", "chance",
           "judge_seconds", "warnings", "autoattack_version")  # fmt: skip
COMPARISON_COLUMNS = ("first", "second", "metric", "examples", "difference", "low", "high", "p_value", "p_value_holm",
                      "verdict")  # fmt: skip
NUM_ANSWERS = 4
"""The first images of a test set, whose classification is part of a network's digest."""


@dataclass(frozen=True)
class JudgedNetwork:
    """One network and what it withstood.

    Attributes:
        name: Its name in tables.
        origin: Where it is from, in words.
        parameters: The number of its trainable parameters.
        outcomes: The outcome of each attack on each image.
        seconds: How long judging took.
    """

    name: str
    origin: str
    parameters: int
    outcomes: Outcomes
    seconds: float


@dataclass(frozen=True)
class Judgement:
    """Networks that were judged on the same images in the same threat model.

    Attributes:
        networks: The networks.
        norm: The norm of the attacks.
        epsilon: Their radius, in pixel units.
        chance: The accuracy of one fixed answer on the images, a fraction.
    """

    networks: Sequence[JudgedNetwork]
    norm: str
    epsilon: float
    chance: float

    @property
    def examples(self) -> int:
        """The number of images."""
        return len(self.networks[0].outcomes.correct["clean"])

    @property
    def attack_labels(self) -> dict[str, str]:
        """The attacks as people write them, by their columns; see `names.label_attacks`."""
        return label_attacks(list(self.networks[0].outcomes.correct))

    @property
    def autoattack(self) -> str:
        """AutoAttack's package and versions as a sentence; empty if it has not judged, or none is known."""
        outcomes = [judged.outcomes for judged in self.networks]
        return describe_versions(found.autoattack_version for found in outcomes if "autoattack" in found.correct)

    def _repr_html_(self) -> str:
        """Return the HTML that a notebook shows: accuracies of every network, verdicts, warnings."""
        at = format_radius(self.epsilon, self.norm)
        headline = f"{format_count(len(self.networks), 'network')} on {self.examples:,} test images at {at}"
        accuracies = self.table()[["model", "origin", "parameters", *self.attack_labels]]
        tables = [format_table(accuracies, dict.fromkeys(ATTACKS, "{:.1%}"))]
        verdicts = self.comparisons()[["first", "second", "metric", "difference", "low", "high", "verdict"]]
        if len(verdicts):
            tables.append(format_table(verdicts, dict.fromkeys(("difference", "low", "high"), "{:+.1%}")))
        return format_notebook(self, headline, " ".join(self.warnings()), tables)

    def table(self) -> pd.DataFrame:
        """Return a row of `COLUMNS` for each network; accuracies are fractions."""
        rows = []
        for judged in self.networks:
            accuracies = {name: float(found.mean()) for name, found in judged.outcomes.correct.items()}
            row = {"model": judged.name, "origin": judged.origin, "parameters": judged.parameters, "norm": self.norm}
            row |= {"epsilon": self.epsilon, "examples": self.examples, **accuracies, "chance": self.chance}
            row |= {"zero_gradient": judged.outcomes.zero_gradient, "judge_seconds": judged.seconds}
            signs = gradient_masking.find_masking_signs(judged.outcomes)
            version = judged.outcomes.autoattack_version
            rows.append(row | {"warnings": " ".join(map(str, signs)), "autoattack_version": version})
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def comparisons(self) -> pd.DataFrame:
        """Return a row for each pair of networks and each compared attack: the difference and the verdict.

        The test is the paired t-test over images. P-values are adjusted after Holm (1979) over all pairs under an
        attack.

        Columns: first, second, metric (the attack), examples, difference (first minus second, a fraction), low and
        high (its 95% interval), p_value, p_value_holm, verdict.
        """
        rows = []
        for attack in reversed(COMPARED_ATTACKS):
            measured = {
                judged.name: judged.outcomes.correct[attack][None]
                for judged in self.networks
                if attack in judged.outcomes.correct
            }
            pairs = list(itertools.combinations(measured, 2))
            differences = [significance.paired_difference(measured[one], measured[two]) for one, two in pairs]
            adjusted = significance.holm([difference.p_value for difference in differences])
            rows += [
                self._row(pair, attack, difference, p_value)
                for pair, difference, p_value in zip(pairs, differences, adjusted, strict=True)
            ]
        return pd.DataFrame(rows, columns=list(COMPARISON_COLUMNS))

    def _row(self, pair: tuple[str, str], attack: str, difference: Difference, p_value: float) -> dict[str, Any]:
        return {
            "first": pair[0], "second": pair[1], "metric": attack, "examples": self.examples,
            "difference": difference.estimate, "low": difference.low, "high": difference.high,
            "p_value": difference.p_value, "p_value_holm": p_value,
            "verdict": significance.verdict(difference.estimate, p_value),
        }  # fmt: skip

    def warnings(self) -> list[str]:
        """Return a sentence for each reason to doubt a network's accuracies: masked gradients, and no more than chance.

        The level of chance is adjusted for the number of networks.
        """
        sentences = []
        for judged in self.networks:
            clean = float(judged.outcomes.correct["clean"].mean())
            if not is_clearly_above(clean, self.examples, self.chance, num_compared=len(self.networks)):
                level = f"{format_percent(self.chance)}, which one fixed answer reaches"
                sentences.append(f"{judged.name}: Not clearly above chance without attack. Chance is {level}.")
            sentences += [f"{judged.name}: {sign}" for sign in gradient_masking.find_masking_signs(judged.outcomes)]
        return sentences

    def write(self, folder: Path) -> None:
        """Write evaluation.csv, evaluation.json with the comparisons, and outcomes.npz with every single outcome."""
        replace_text(folder / TABLE, format_csv(self.table()))
        comparisons = self.comparisons().to_dict("records")
        replace_text(folder / SUMMARY, json.dumps({"comparisons": comparisons}, indent=2, allow_nan=False) + "\n")
        packed = {
            f"{judged.name}/{attack}": found
            for judged in self.networks
            for attack, found in judged.outcomes.correct.items()
        }
        replace_arrays(folder / OUTCOMES, packed)


def outcome_key(network: nn.Module, examples: Examples, *, norm: str, epsilon: float) -> str:
    """Return a text that names the outcomes of a network: equal where network, images and threat model are equal.

    Outcomes that are saved under it stay valid whatever the network is called and whichever networks stand beside it.

    Args:
        network: The network, on the CPU.
        examples: The images that it is judged on, on any device.
        norm: The norm of the attacks.
        epsilon: Their radius, in pixel units.
    """
    digest = digest_network(network, examples)
    images, labels = examples.gather(torch.arange(len(examples), device=examples.images.device))
    _update(digest, {"images": images, "labels": labels})
    digest.update(f"{norm} {epsilon!r}".encode())
    return digest.hexdigest()[:32]


def digest_network(network: nn.Module, examples: Examples) -> "hashlib._Hash":
    """Return the SHA-256 of a network's layers, of its tensors, and of its answers to a few images.

    The answers tell networks apart whose layers and tensors are equal, but whose code or plain attributes differ. They
    are computed on the CPU in float32, so that the device has no influence. Rounding absorbs the last bits, which
    depend on the number of threads. Where it fails to, the network is judged once more.

    Args:
        network: The network, on the CPU.
        examples: Test images on any device. Which of the data set's they are has no influence.
    """
    digest = hashlib.sha256(str(network).encode())
    _update(digest, network.state_dict())
    images = to_float(examples.images[:NUM_ANSWERS].cpu()).requires_grad_()
    with exact_evaluation(network), seeded_global_state(0, images.device):  # a network may draw random numbers
        logits = network(images)
        margins = logits.amax(dim=1) - logits.mean(dim=1)  # unlike a logit, never a small difference of large numbers
        (gradients,) = torch.autograd.grad(margins.sum(), images)
    slopes = gradients.flatten(1).norm(dim=1)
    for label, margin, slope in zip(logits.argmax(dim=1).tolist(), margins.tolist(), slopes.tolist(), strict=True):
        digest.update(f"{label} {margin:.2e} {slope:.1e} ".encode())
    return digest


def _update(digest: "hashlib._Hash", tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
