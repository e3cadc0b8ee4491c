"""Model card of an exported network, its README.md: what it is, its measurements, their limits, how to use it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from tune_cure.evaluation.autoattack_version import describe_versions
from tune_cure.evaluation.names import (
    ATTACK_LABELS,
    AUTOATTACK_PARTS,
    MIN_TARGETED_CLASSES,
    NORM_LABELS,
    UNTARGETED_LABEL,
)
from tune_cure.evaluation.standard_error import standard_error
from tune_cure.reports.export.bundle import BEST_CONFIG, ONNX, ExportedModel
from tune_cure.reports.export.claim import FORM, RECORD
from tune_cure.reports.export.measurements import Measurement
from tune_cure.utils.formatting import (
    escape_markdown,
    format_count,
    format_norm,
    format_percent,
    format_radius,
    join_words,
    one_line,
    spell_out,
)

ROBUSTBENCH = ("cifar10", "cifar100")  # the data sets of this project that RobustBench has, too
CIFAR_SIZE = (32, 32)
MAX_CLASS_NAMES = 20  # more are left to config.json
NUM_TARGETS = 9  # classes that AutoAttack's targeted attacks aim at; with fewer other classes, all of them
FURTHER_FILES = {
    ONNX: f"`{ONNX}` is the same network for ONNX runtimes: `images` in, `logits` out, for any number of images. It "
    "was checked to give the same logits.",
    RECORD: f"`{RECORD}` and `{FORM}` claim a place for these weights on RobustBench's leaderboard: its record of a "
    "model, and its form for a new one. The authors fill in what is empty.",
}
"""Text of the card on each file that is not in every export."""
FRONT = {"license": "unknown", "pipeline_tag": "image-classification", "tags": ["adversarial-robustness", "pytorch"]}
CITATIONS = """\
- FGSM adversarial training: E. Wong, L. Rice, J. Z. Kolter, *Fast is better than free: Revisiting adversarial
  training*, ICLR 2020, [arXiv 2001.03994](https://arxiv.org/abs/2001.03994).
- The curvature penalty CURE: S.-M. Moosavi-Dezfooli, A. Fawzi, J. Uesato, P. Frossard, *Robustness via curvature
  regularization, and vice versa*, CVPR 2019, [arXiv 1811.09716](https://arxiv.org/abs/1811.09716)."""
LICENCE = """\
Not known. It depends on whoever trained the network, and on the licence of the data. `model.py` and `load.py` belong
to tune_cure (MIT)."""


def build_model_card(model: ExportedModel, also: Iterable[str] = ()) -> str:
    """Return the card as Markdown.

    Args:
        model: The network.
        also: The names of further files in the folder, keys of `FURTHER_FILES`.
    """
    sections = {
        "What it is": _what(model),
        "What was measured": _measured(model),
        "What it is for, and what not": _limits(model),
        "Loading it": "\n\n".join([_loading(model), *(FURTHER_FILES[name] for name in also)]),
        "Evaluating it": _evaluating(model),
        "How it was trained": _training(model),
        "Where it comes from": _origin(model),
        "Licence": LICENCE,
        "Citing": CITATIONS,
    }
    front = yaml.safe_dump(FRONT, sort_keys=False)
    body = "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items())
    return spell_out(f"---\n{front}---\n\n# {escape_markdown(model.title)}\n{body}")


def _what(model: ExportedModel) -> str:
    network, size = model.network, model.image_size
    images = f"{network['in_channels']}×{size[0]}×{size[1]}" if size else f"{network['in_channels']}-channel"
    return (
        f"An image classifier that was trained to withstand small changes of its input. The network is a "
        f"{_code(network['name'])} with {model.num_parameters:,} parameters. It takes {images} images of the data set "
        f"{escape_markdown(model.data.dataset)} and has {network['num_classes']} classes{_classes(model)}.\n\nIts "
        f"weights: {escape_markdown(model.description)}."
    )


def _classes(model: ExportedModel) -> str:
    if model.classes is None:
        return " (their names are not recorded)"
    if len(model.classes) > MAX_CLASS_NAMES:
        return " (their names are in `config.json`)"
    return f": {join_words(_code(name) for name in model.classes)}"


def _measured(model: ExportedModel) -> str:
    introduction = _on_test_images(model) if model.is_confirmed else _on_validation_images(model)
    parts = [introduction, _own_table(model), _warnings(model)]
    if model.elsewhere:
        command = _code(f"tune-cure export --confirmed {model.candidate}")
        seeds = format_count(max(len(measurement.seeds) for measurement in model.elsewhere), "other seed")
        parts.append(
            f"The configuration was confirmed: other networks were trained with the same hyperparameters and {seeds}, "
            "and judged on test images. These accuracies are not those of the weights here. They say how good the "
            "configuration is (mean ± sample standard deviation over the seeds). "
            f"{command} exports one of those networks."
        )
        rows = [
            [
                measurement.attack,
                _radius(measurement),
                f"{measurement.examples:,}",
                _seeds(measurement),
                _over_seeds(measurement),
            ]
            for measurement in model.elsewhere
        ]
        parts.append(_table(["attack", "radius", "test images", "seeds", "accuracy (%)"], rows))
    elif not model.is_confirmed:
        parts.append(
            "The configuration has not been confirmed: `tune-cure confirm` trains it with other seeds and judges it on "
            f"test images{' by AutoAttack' if model.evaluation.norm in NORM_LABELS else ''}."
        )
    if version := _autoattack(model):
        parts.append(version)
    return "\n\n".join(parts)


def _autoattack(model: ExportedModel) -> str:
    """Return AutoAttack's package and versions as a sentence; empty if it has not judged, or none is known."""
    of_autoattack = {ATTACK_LABELS[attack] for attack in AUTOATTACK_PARTS} | {UNTARGETED_LABEL}
    judged = [it for it in (*model.measured, *model.elsewhere) if it.attack in of_autoattack]
    return describe_versions(it.autoattack_version for it in judged)


def _on_test_images(model: ExportedModel) -> str:
    seeds = len(model.measured[0].seeds)
    text = (
        "Accuracies of this network ± their standard errors, in float32, on test images that neither the training nor "
        "the search has read."
    )
    if seeds > 1:
        text += " Beside them: mean ± sample standard deviation over the seeds of its configuration."
    if any(measurement.attack == "AutoAttack" for measurement in model.measured):
        text += (
            " AutoAttack has four attacks: APGD-CE, APGD-T, FAB-T and Square, whose row is called AutoAttack. Each of "
            "these rows includes the attacks before it: an image counts only if it withstood all of them."
        )
    return text if seeds > 1 else f"{text} With one seed, nothing is known about how much seeds differ."


def _on_validation_images(model: ExportedModel) -> str:
    text = (
        f"**These are validation accuracies of the winner of {format_count(model.trials, 'trial')}, and so are "
        "optimistic: the configuration and the epoch were chosen by them. These weights were not judged on test "
        "images.**"
    )
    if any(measurement.on == "fresh validation" for measurement in model.measured):
        text += (
            " The rows *fresh validation* are of images that the search did not use until its end. There they only put "
            "the leading trials in order."
        )
    return f"{text} Accuracies of this network ± their standard errors:"


def _own_table(model: ExportedModel) -> str:
    titles = ["attack", "radius", "images", "accuracy (%)"]
    if any(len(measurement.seeds) > 1 for measurement in model.measured):
        titles += ["over the seeds (%)", "seeds"]
    rows = [
        [
            measurement.attack,
            _radius(measurement),
            f"{measurement.examples:,} {measurement.on}",
            _accuracy(measurement),
            _over_seeds(measurement),
            _seeds(measurement),
        ][: len(titles)]
        for measurement in model.measured
    ]
    return _table(titles, rows)


def _radius(measurement: Measurement) -> str:
    return "–" if measurement.attack == "clean" else format_radius(measurement.epsilon, measurement.norm)


def _accuracy(measurement: Measurement) -> str:
    assert measurement.accuracy is not None
    error = standard_error(measurement.accuracy, measurement.examples)
    return format_percent(measurement.accuracy, error, digits=2, unit="")


def _over_seeds(measurement: Measurement) -> str:
    return format_percent(measurement.mean, measurement.deviation, digits=2, unit="")


def _seeds(measurement: Measurement) -> str:
    return join_words(map(str, measurement.seeds))


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _warnings(model: ExportedModel) -> str:
    warnings = [f"- **Warning.** {warning}" for warning in model.warnings]
    if not any(measurement.attack in ("AutoAttack", UNTARGETED_LABEL) for measurement in model.measured):
        warnings.append(
            "- AutoAttack has not been run on these weights. So it is not known whether the network only hides its "
            "gradients from PGD."
        )
    return "\n".join(warnings or ["No sign of masked gradients was found."])


def _limits(model: ExportedModel) -> str:
    norm, epsilon = model.evaluation.norm, model.evaluation.epsilon
    ball = f"{format_norm(norm)} ball of {format_radius(epsilon, norm)}"
    return (
        f"It is for research on adversarial robustness, on images like those of {escape_markdown(model.data.dataset)}. "
        f"Robust means here: against changes within the {ball} in [0, 1], as far as the attacks above can tell. "
        "Nothing is claimed about larger radii, other norms, rotations, patches, blur or other images. Nothing is "
        "proved, unlike with certified defences. Do not use it where somebody's safety depends on it."
    )


def _loading(model: ExportedModel) -> str:
    height, width = model.image_size or CIFAR_SIZE
    return f"""\
Python and torch are enough. In this folder:

```python
import torch
from load import model

images = torch.rand(2, {model.network["in_channels"]}, {height}, {width})
classes = model(images).argmax(dim=1)
```

Images are floats in [0, 1], shape (N, C, H, W), without normalization: the network subtracts the mean and divides by
the standard deviation itself. `python load.py` runs it on random images. `config.json` has the names of the classes.
The library safetensors reads `model.safetensors`, too."""


def _evaluating(model: ExportedModel) -> str:
    norm, epsilon = NORM_LABELS.get(model.evaluation.norm), _fraction(model.evaluation.epsilon)
    if norm is None:
        known = join_words(NORM_LABELS.values())
        return f"RobustBench and AutoAttack attack in {known}, not in {_code(model.evaluation.norm)}."
    if model.data.dataset in ROBUSTBENCH and model.image_size in (CIFAR_SIZE, None):
        threat = f'dataset="{model.data.dataset}", threat_model="{norm}", eps={epsilon}'
        return f"""\
[RobustBench](https://robustbench.github.io) runs AutoAttack on the first test images:

```python
from load import model
from robustbench import benchmark

clean, robust = benchmark(model, n_examples=1000, {threat})
```

RobustBench 1.1.1 needs the package `autoattack` but does not install it: https://github.com/fra31/auto-attack."""
    fewer = ""
    if model.network["num_classes"] < MIN_TARGETED_CLASSES:
        fewer = 'attack.attacks_to_run = ["apgd-ce", "square"]  # the others need four classes\n'
    elif (targets := model.network["num_classes"] - 1) < NUM_TARGETS:
        fewer = f"attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = {targets}\n"
    size = " of this size" if model.data.dataset in ROBUSTBENCH else ""
    return f"""\
RobustBench has no test images of {escape_markdown(model.data.dataset)}{size}, but AutoAttack takes the network as it is
(`pip install pyautoattack`), with `images` in [0, 1] and their `labels`:

```python
from load import model
from pyautoattack import AutoAttack

attack = AutoAttack(model, norm="{norm}", eps={epsilon}, device="cpu")
{fewer}attack.run_standard_evaluation(images, labels)
```"""


def _fraction(epsilon: float) -> str:
    """Return a radius as people write it in Python: 8 / 255."""
    return f"{round(255 * epsilon)} / 255" if round(255 * epsilon) / 255 == epsilon else f"{epsilon}"


def _training(model: ExportedModel) -> str:
    config = model.config
    attack = (
        "Without attack"
        if config.attack == "none"
        else f"Against {_code(config.attack)} at {format_radius(config.epsilon, config.norm)}"
    )
    along = f" along {_code(config.direction)}" if config.regularizer == "cure" else ""
    penalized = config.regularizer != "none" and config.lambda_ > 0
    name = f"{_code(config.regularizer)}{along}"
    penalty = f"with the penalty {name}, lambda {config.lambda_:.4g}" if penalized else "without a penalty"
    images = "the training images" if model.train_images is None else f"{model.train_images:,} training images"
    images += f", {model.held_out}"
    chosen = f" The search chose {join_words(map(_code, model.searched))}." if model.searched else ""
    settings = yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False)
    return f"{attack}, {penalty}, on {images}, with tune_cure.{chosen} All settings:\n\n```yaml\n{settings}```"


def _origin(model: ExportedModel) -> str:
    lines = list(_facts(model.environment))
    if model.best_config:
        lines.append(f"{join_words(map(_code, BEST_CONFIG))}: the search's files of this configuration")
    facts = "\n".join(f"- {line}" for line in lines or ["not recorded"])
    return f"The search {_code(model.name)} ({format_count(model.trials, 'trial')}):\n\n{facts}"


def _facts(environment: Mapping[str, Any]) -> Iterator[str]:
    if "data" in environment:
        yield f"data: {escape_markdown(str(environment['data']))}"
    if "command" in environment:
        yield f"command: {_code(environment['command'])}"
    resumed = environment.get("resumed")
    if resumed and isinstance(resumed, list):
        yield f"continued {format_count(len(resumed), 'time')} after that"
    for key in ("versions", "platform", "cuda", "gpus", "git_commit"):
        if content := environment.get(key):
            yield f"{key.replace('_', ' ')}: {escape_markdown(_plain(content))}"


def _plain(content: Any) -> str:
    """Return a value of environment.json in one line; empty parts are left out."""
    if isinstance(content, Mapping):
        return ", ".join(f"{name} {value}" for name, value in content.items() if value)
    return ", ".join(map(str, content)) if isinstance(content, list) else str(content)


def _code(text: Any) -> str:
    """Return a text as code that cannot end early: back quotes become quotes."""
    return f"`{one_line(str(text)).replace('`', chr(39))}`"
