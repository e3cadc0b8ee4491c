"""The README.md of an exported network: what it is, what was measured of it, what to believe, how to use it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from tune_cure.evaluation.metrics import standard_error
from tune_cure.evaluation.names import NORM_LABELS
from tune_cure.reports.export.bundle import BEST_CONFIG, ExportedModel
from tune_cure.reports.export.measurements import Measurement
from tune_cure.utils.formatting import format_count, format_percent, format_radius, join_words, one_line

ROBUSTBENCH = ("cifar10", "cifar100")  # data sets that it and this project both have
CIFAR_SIZE = (32, 32)
BALLS = {"linf": "L∞", "l2": "L2"}
MOST_NAMED = 20  # classes
TARGETS = 9  # of AutoAttack's targeted attacks, where there are so many other classes
FRONT = {"license": "unknown", "pipeline_tag": "image-classification", "tags": ["adversarial-robustness", "pytorch"]}
CITATIONS = """\
- FGSM adversarial training: E. Wong, L. Rice, J. Z. Kolter, *Fast is better than free: Revisiting adversarial
  training*, ICLR 2020, [arXiv 2001.03994](https://arxiv.org/abs/2001.03994).
- The curvature penalty CURE: S.-M. Moosavi-Dezfooli, A. Fawzi, J. Uesato, P. Frossard, *Robustness via curvature
  regularization, and vice versa*, CVPR 2019, [arXiv 1811.09716](https://arxiv.org/abs/1811.09716)."""
LICENCE = """\
Not known: whoever trained the network, and the licence of the data, decide. `model.py` and `load.py` are of tune_cure
(MIT)."""


def build_model_card(of: ExportedModel) -> str:
    """The whole card."""
    sections = {
        "What it is": _what(of),
        "What was measured": _measured(of),
        "What it is for, and what not": _limits(of),
        "Loading it": _loading(of),
        "Evaluating it": _evaluating(of),
        "How it was trained": _training(of),
        "Where it comes from": _origin(of),
        "Licence": LICENCE,
        "Citing": CITATIONS,
    }
    front = yaml.safe_dump(FRONT, sort_keys=False)
    body = "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items())
    return f"---\n{front}---\n\n# {of.title}\n{body}"


def _what(of: ExportedModel) -> str:
    network, size = of.network, of.image_size
    images = f"{network['in_channels']}×{size[0]}×{size[1]}" if size else f"{network['in_channels']}-channel"
    return (
        f"An image classifier that was trained to withstand small changes of its input: `{network['name']}`, "
        f"{of.parameters:,} parameters, for {images} images of the data set {of.dataset}, {network['num_classes']} "
        f"classes{_classes(of)}.\n\nIts weights: {of.description}."
    )


def _classes(of: ExportedModel) -> str:
    if of.classes is None:
        return " (their names are not recorded)"
    if len(of.classes) > MOST_NAMED:
        return " (their names are in `config.json`)"
    return f": {join_words(_code(name) for name in of.classes)}"


def _measured(of: ExportedModel) -> str:
    parts = [_on_test_images(of) if of.is_confirmed else _on_validation_images(of), _own_table(of), _warned(of)]
    if of.elsewhere:
        seeds = format_count(max(one.seeds for one in of.elsewhere), "other seed")
        parts.append(
            "The configuration was confirmed: other networks, trained anew with the same hyperparameters and "
            f"{seeds}, were judged on test images. These accuracies are not of the weights here; they say what the "
            "configuration is worth (mean ± sample standard deviation over the seeds). `tune-cure export --confirmed "
            f"{of.candidate}` exports one of those networks."
        )
        heads = ["attack", "radius", "test images", "seeds", "accuracy (%)"]
        parts.append(_table(heads, map(_elsewhere, of.elsewhere)))
    elif not of.is_confirmed:
        parts.append(
            "The configuration has not been confirmed (`tune-cure confirm`: trained with other seeds, judged on test "
            "images by AutoAttack)."
        )
    return "\n\n".join(parts)


def _on_test_images(of: ExportedModel) -> str:
    seeds = of.measured[0].seeds
    over = f", and mean ± sample standard deviation over the {seeds} seeds of its configuration" if seeds > 1 else ""
    said = (
        "On test images, which neither the training nor the search has read, in float32: the accuracy of this network "
        f"± its standard error{over}."
    )
    if any(one.attack == "AutoAttack" for one in of.measured):
        said += (
            " Each of AutoAttack's four attacks (APGD-CE, APGD-T, FAB-T and Square, whose row is called AutoAttack) "
            "stands with those before it."
        )
    return said if seeds > 1 else f"{said} With one seed, nothing is known of how much seeds differ."


def _on_validation_images(of: ExportedModel) -> str:
    said = (
        f"**These are validation accuracies of the winner of {format_count(of.trials, 'trial')}, and so are "
        f"optimistic: the "
        "configuration and the epoch were chosen by them. These weights were not judged on test images.**"
    )
    if any(one.on == "fresh validation" for one in of.measured):
        said += (
            " The rows *fresh validation* are of images that the search had not looked at before its end: they only "
            "put its first leaders in order."
        )
    return f"{said} Accuracies of this network ± their standard errors:"


def _own_table(of: ExportedModel) -> str:
    heads = ["attack", "radius", "images", "accuracy (%)"]
    if any(one.seeds > 1 for one in of.measured):
        heads.append("over the seeds (%)")
    rows = (
        [one.attack, _radius(one), f"{one.examples:,} {one.on}", _accuracy(one), _over_seeds(one)][: len(heads)]
        for one in of.measured
    )
    return _table(heads, rows)


def _elsewhere(one: Measurement) -> list[str]:
    return [one.attack, _radius(one), f"{one.examples:,}", str(one.seeds), _over_seeds(one)]


def _radius(one: Measurement) -> str:
    return "–" if one.attack == "clean" else format_radius(one.epsilon, one.norm)


def _accuracy(one: Measurement) -> str:
    assert one.accuracy is not None
    return format_percent(one.accuracy, standard_error(one.accuracy, one.examples), digits=2, unit="")


def _over_seeds(one: Measurement) -> str:
    return format_percent(one.mean, one.deviation, digits=2, unit="")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _warned(of: ExportedModel) -> str:
    said = [f"- **Warning.** {warning}" for warning in of.warnings]
    if not any(one.attack == "AutoAttack" for one in of.measured):
        said.append(
            "- AutoAttack has not been run on these weights: whether the network only hides its gradients from PGD has "
            "not been found out."
        )
    return "\n".join(said or ["No sign of masked gradients was found."])


def _limits(of: ExportedModel) -> str:
    ball = f"{BALLS[of.evaluation.norm]} ball of {format_radius(of.evaluation.epsilon, of.evaluation.norm)}"
    return (
        f"For research on adversarial robustness, on images like those of {of.dataset}. Robust here means: against "
        f"changes within the {ball} in [0, 1], as far as the attacks above can tell. No more is claimed: nothing of "
        "larger radii, of other norms, of rotations, patches, blur or other images, and nothing is proved, as it is by "
        "certified defences. Not for anything that somebody's safety depends on."
    )


def _loading(of: ExportedModel) -> str:
    height, width = of.image_size or CIFAR_SIZE
    return f"""\
Python and torch are enough. In this folder:

```python
import torch
from load import model

images = torch.rand(2, {of.network["in_channels"]}, {height}, {width})
classes = model(images).argmax(dim=1)
```

Images are floats in [0, 1], shape (N, C, H, W), without normalisation: the network subtracts the mean and divides by
the standard deviation itself. `python load.py` runs it on random images. What the numbers of the classes mean is in
`config.json`. The library safetensors reads `model.safetensors`, too."""


def _evaluating(of: ExportedModel) -> str:
    norm, epsilon = NORM_LABELS[of.evaluation.norm], _spelled(of.evaluation.epsilon)
    if of.dataset in ROBUSTBENCH and of.image_size in (CIFAR_SIZE, None):
        threat = f'dataset="{of.dataset}", threat_model="{norm}", eps={epsilon}'
        return f"""\
With [RobustBench](https://robustbench.github.io), whose `benchmark` runs AutoAttack on the first test images:

```python
from load import model
from robustbench import benchmark

clean, robust = benchmark(model, n_examples=1000, {threat})
```

RobustBench 1.1.1 imports `autoattack`, which its package does not bring: https://github.com/fra31/auto-attack."""
    fewer = ""
    if (targets := of.network["num_classes"] - 1) < TARGETS:
        fewer = f"attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = {targets}\n"
    return f"""\
RobustBench has no test images of {of.dataset} at hand, but AutoAttack takes the network as it is
(`pip install pyautoattack`), with `images` in [0, 1] and their `labels`:

```python
from load import model
from pyautoattack import AutoAttack

attack = AutoAttack(model, norm="{norm}", eps={epsilon}, device="cpu")
{fewer}attack.run_standard_evaluation(images, labels)
```"""


def _spelled(epsilon: float) -> str:
    """A radius as people write it: 8 / 255."""
    return f"{round(255 * epsilon)} / 255" if round(255 * epsilon) / 255 == epsilon else f"{epsilon}"


def _training(of: ExportedModel) -> str:
    config = of.config
    attack = (
        "Without attack"
        if config.attack == "none"
        else f"Against `{config.attack}` at {format_radius(config.epsilon, config.norm)}"
    )
    penalised = config.delta != "none" and config.lambda_ > 0
    penalty = f"with the penalty `{config.delta}`, lambda {config.lambda_:.4g}" if penalised else "without a penalty"
    images = "the training images" if of.train_images is None else f"{of.train_images:,} training images"
    images += (
        ", those held out for validation included" if of.is_confirmed else " without those held out for validation"
    )
    settings = yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False)
    return (
        f"{attack}, {penalty}, on {images}, with tune_cure. Searched were {join_words(map(_code, of.searched))}; all "
        f"settings:\n\n```yaml\n{settings}```"
    )


def _origin(of: ExportedModel) -> str:
    lines = list(_facts(of.environment))
    if of.best_config:
        lines.append(f"{join_words(map(_code, BEST_CONFIG))} are the search's, of this configuration")
    facts = "\n".join(f"- {line}" for line in lines or ["not recorded"])
    return f"The search {_code(of.name)} ({format_count(of.trials, 'trial')}):\n\n{facts}"


def _facts(environment: Mapping[str, Any]) -> Iterator[str]:
    if "data" in environment:
        yield f"data: {_text(environment['data'])}"
    if "command" in environment:
        yield f"command: {_code(environment['command'])}"
    resumed = environment.get("resumed")
    if resumed and isinstance(resumed, list):
        yield f"continued {format_count(len(resumed), 'time')} after that"
    for key in ("versions", "platform", "cuda", "gpus", "git_commit"):
        if of := environment.get(key):
            yield f"{key.replace('_', ' ')}: {_text(_plain(of))}"


def _plain(of: Any) -> str:
    if isinstance(of, Mapping):
        return ", ".join(f"{name} {version}" for name, version in of.items() if version)
    return ", ".join(map(str, of)) if isinstance(of, list) else str(of)


def _code(text: Any) -> str:
    return f"`{one_line(str(text)).replace('`', chr(39))}`"


def _text(of: Any) -> str:
    """Text that is not to be taken for Markdown or HTML."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|" else c for c in one_line(str(of)))
