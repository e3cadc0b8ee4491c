"""The files of a claim to RobustBench's leaderboard, from a confirmation alone.

One is the record of a model that RobustBench keeps in `model_info`; the other answers the questions of its form for a
new model. What only the authors know is left empty: the paper, its link, authors and venue, where weights and code are.
"""

import json
from typing import Any

from tune_cure.evaluation.autoattack_version import PACKAGE
from tune_cure.evaluation.names import NORM_LABELS
from tune_cure.reports.export.bundle import ExportedModel
from tune_cure.reports.export.measurements import ExportError, Measurement

RECORD, FORM = "robustbench.json", "robustbench.md"
LEADERBOARDS = {("cifar10", "linf"): 8 / 255, ("cifar10", "l2"): 0.5, ("cifar100", "linf"): 8 / 255}
"""The radius of each leaderboard of RobustBench that this project has the data set of, by data set and norm."""
RADII = {8 / 255: "8/255", 0.5: "0.5"}
SIZE = (32, 32)


def build_claim(model: ExportedModel) -> dict[str, bytes]:
    """Return the two files by their names.

    Raises:
        ExportError: The weights were not confirmed, or not in the threat model of a leaderboard by AutoAttack.
    """
    if not model.is_confirmed:
        raise ExportError(
            "--robustbench: a claim is made of a network that was judged on the test set; `tune-cure confirm` makes "
            "some, and --confirmed NAME takes one"
        )
    norm, dataset = model.evaluation.norm, model.data.dataset
    epsilon = LEADERBOARDS.get((dataset, norm))
    if epsilon is None or model.image_size not in (SIZE, None):
        boards = ", ".join(f"{name} ({NORM_LABELS[of]} {RADII[radius]})" for (name, of), radius in LEADERBOARDS.items())
        label = NORM_LABELS.get(norm, norm)
        raise ExportError(f"--robustbench: has no leaderboard for {dataset} in {label}; there are {boards}")
    at_radius = [
        measurement
        for measurement in model.measured
        if (measurement.norm, f"{measurement.epsilon:.6g}") == (norm, f"{epsilon:.6g}")
    ]
    robust = max(
        (measurement for measurement in at_radius if measurement.attack == "AutoAttack"),
        key=lambda measurement: measurement.examples,
        default=None,
    )
    if robust is None:
        raise ExportError(
            f"--robustbench: AutoAttack has not judged these weights at {NORM_LABELS[norm]} {RADII[epsilon]}; "
            f"`tune-cure confirm` does, with --epsilons {RADII[epsilon]} where the search has another radius"
        )
    clean = next(
        measurement
        for measurement in at_radius
        if measurement.attack == "clean" and measurement.examples == robust.examples  # the same images
    )
    record = _record(model, RADII[epsilon], clean, robust)
    return {
        RECORD: (json.dumps(record, indent=2) + "\n").encode(),
        FORM: _form(record, NORM_LABELS[norm], robust).encode(),
    }


def _record(model: ExportedModel, epsilon: str, clean: Measurement, robust: Measurement) -> dict[str, Any]:
    return {
        "link": None,
        "name": None,
        "authors": None,
        "additional_data": False,  # the networks of this project begin with random weights
        "number_forward_passes": 1,
        "dataset": model.data.dataset,
        "venue": None,
        "architecture": _architecture(model),
        "eps": epsilon,
        "clean_acc": _percent(clean),
        "reported": _percent(robust),
        "autoattack_acc": _percent(robust),
    }


def _architecture(model: ExportedModel) -> str:
    width = model.network.get("width")
    return f"{model.network['name']} of width {width}" if width else str(model.network["name"])


def _percent(measurement: Measurement) -> str:
    assert measurement.accuracy is not None
    return f"{100 * measurement.accuracy:.2f}"


def _form(record: dict[str, Any], norm: str, robust: Measurement) -> str:
    package = f" ({PACKAGE} {robust.autoattack_version})" if robust.autoattack_version else ""
    images = f"{robust.examples:,} test images of {record['dataset']}"
    answers = {
        "Paper Information": {"Paper Title": "", "Paper URL": "", "Paper authors": ""},
        "Leaderboard Claim(s)": {
            "Architecture": record["architecture"],
            "Threat Model": norm,
            "eps": record["eps"],
            "Clean accuracy": f"{record['clean_acc']}%",
            "Robust accuracy": f"{record['autoattack_acc']}%",
            "Additional data": "false",
            "Evaluation method": f"AutoAttack, standard version{package}, on {images}",
            "Checkpoint and code": "",
        },
    }
    sections = (
        f"# {title}\n\n" + "".join(f"- **{name}**: {answer}".rstrip() + "\n" for name, answer in lines.items())
        for title, lines in answers.items()
    )
    return "\n".join(sections)
