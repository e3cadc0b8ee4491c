"""Methods of adversarial training by name: the hyperparameters of a paper, and the space in which its own are searched.

`training: {method: n_fgsm}` stands for the keys of that entry; a key beside it overrides. A preset says what a step
does. Epochs, learning rate, averaging and the radius are not of a method and stay as they are.

To add a method, add an entry to `METHODS`. Another package adds one by an entry point of the group `tune_cure.methods`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from tune_cure.training.delta import SAME_AS
from tune_cure.utils.formatting import format_hyperparameters, join_words
from tune_cure.utils.registry import PartError, Registry
from tune_cure.utils.schema import Schema, one_of
from tune_cure.utils.yaml_config import ProblemError, describe

METHOD = "method"
DEFAULT = "default"
NO_METHOD = "none"


@dataclass(frozen=True)
class Preset:
    """A method.

    Attributes:
        title: What it is, in a few words.
        source: Its paper, and where the values of `keys` come from.
        keys: Hyperparameters by YAML names.
        space: The distributions in which the method's own hyperparameters are searched, as a YAML file has them.
        ranges: Why these ranges.
    """

    title: str
    source: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ranges: str = ""


_FGSM = {"attack": "fgsm", "init": "uniform", "alpha": 1.25}
_CLEAN_AND_PENALTY = {"adversarial_weight": 0.0, "clean_weight": 1.0}
_NO_PENALTY = {"regularizer": "none"}

METHODS: Registry[Preset] = Registry(
    "method",
    {
        NO_METHOD: Preset("no preset: every key that is not given has its default", ""),
        "fgsm_rs": Preset(
            "FGSM from a random start",
            "Wong et al. 2020, arXiv 2001.03994",
            keys={**_FGSM, **_NO_PENALTY},
            space={"alpha": {"uniform": [0.5, 1.5]}},
            ranges="the paper's 1.25 and, below and above it, as far as steps of half and of one and a half radii",
        ),
        "n_fgsm": Preset(
            "FGSM from noise beyond the ball",
            "de Jorge et al. 2022, arXiv 2202.01181",
            keys={"attack": "fgsm", "init": "clipped_noise", "noise": 2.0, "alpha": 1.0, **_NO_PENALTY},
            space={"noise": {"uniform": [1, 4]}, "alpha": {"uniform": [0.5, 1.5]}},
            ranges="the authors' scripts take noise of 2, 3 and 4 radii and steps of 2/3 to 1 radius",
        ),
        "zerograd": Preset(
            "FGSM without the smallest gradients",
            "Golgooni et al. 2021, arXiv 2103.15476",
            keys={"attack": "zerograd", "init": "uniform", "alpha": 2.0, "zero_fraction": 0.35, **_NO_PENALTY},
            space={"zero_fraction": {"uniform": [0.1, 0.6]}, "alpha": {"uniform": [1, 2]}},
            ranges="around the share of 0.35 at 8/255; the step from one radius to the published two",
        ),
        "ssat": Preset(
            "FGSM, stopped at the first point that fools the network",
            "Kim, Lee and Lee 2020, arXiv 2010.01799",
            keys={"attack": "ssat", "init": "uniform", "alpha": 1.25, "ssat_points": 3, **_NO_PENALTY},
            space={"ssat_points": {"int": [2, 5]}, "alpha": {"uniform": [0.5, 1.5]}},
            ranges="around the paper's 3 points; the step as of fgsm_rs",
        ),
        "free": Preset(
            "free adversarial training",
            "Shafahi et al. 2019, arXiv 1904.12843",
            keys={"attack": "free", "replays": 8, **_NO_PENALTY},
            space={"replays": {"int": [2, 10]}},
            ranges="the paper's table for CIFAR-10 goes from 2 to 10",
        ),
        "pgd": Preset(
            "PGD adversarial training",
            "Madry et al. 2018, arXiv 1706.06083",
            keys={"attack": "pgd", "attack_steps": 7, **_NO_PENALTY},
            space={"attack_steps": {"int": [2, 10]}},
            ranges="up to the 10 steps that most later papers take",
        ),
        "trades": Preset(
            "TRADES",
            "Zhang et al. 2019, arXiv 1901.08573; the attack ascends the cross-entropy, not the divergence",
            keys={"attack": "pgd", "attack_steps": 10, "trades_weight": 6.0, **_CLEAN_AND_PENALTY, **_NO_PENALTY},
            space={"trades_weight": {"loguniform": [1, 12]}},
            ranges="from the paper's weaker weight, 1, to twice its stronger one, 6",
        ),
        "mart": Preset(
            "MART",
            "Wang et al. 2020 (ICLR, “Improving Adversarial Robustness Requires Revisiting Misclassified Examples”)",
            keys={"attack": "pgd", "attack_steps": 10, "boosted_weight": 1.0, "mart_weight": 5.0, **_NO_PENALTY},
            space={"mart_weight": {"loguniform": [1, 20]}},
            ranges="a factor of four or five on either side of the paper's 5",
        ),
        "cure": Preset(
            "FGSM from a random start and CURE",
            "Moosavi-Dezfooli et al. 2019, arXiv 1811.09716, added to fgsm_rs; the paper itself fine-tunes a network "
            "that was trained without attacks, for 20 epochs, by the clean cross-entropy and the penalty",
            keys={**_FGSM, "regularizer": "cure", "direction": "classic", "lambda": 0.1, "h": 1.739},
            space={"lambda": {"loguniform": [0.001, 1]}, "h": {"uniform": [0.5, 5]}},
            ranges="what small searches found (docs/results.md); 1.739 moves every pixel of 3×32×32 by 8/255",
        ),
        "gradalign": Preset(
            "FGSM from the image and GradAlign",
            "Andriushchenko and Flammarion 2020, arXiv 2007.02617",
            keys={
                "attack": "fgsm",
                "init": "zero",
                "alpha": 1.0,
                "regularizer": "gradalign",
                "lambda": 0.2,
                "penalty_two_sided": False,
            },
            space={"lambda": {"loguniform": [0.02, 2]}},
            ranges="a factor of ten on either side of the authors' 0.2 at 8/255",
        ),
        "llr": Preset(
            "local linearity regularization",
            "Qin et al. 2019, arXiv 1907.02610, without the second term of their penalty",
            keys={"attack": "none", "regularizer": "llr", "lambda": 4.0},
            space={"lambda": {"loguniform": [0.4, 40]}},
            ranges="a factor of ten on either side of the paper's 4",
        ),
        "elle": Preset(
            "FGSM from the image and ELLE",
            "Abad Rocamora et al. 2024, arXiv 2401.11618",
            keys={"attack": "fgsm", "init": "zero", "alpha": 1.0, "regularizer": "elle", "lambda": 1000.0},
            space={"lambda": {"loguniform": [1, 10000]}},
            ranges="from 1, which a benchmark takes (arXiv 2604.22853), to 10,000; the authors' scripts take 1,000 to "
            "10,000",
        ),
        "elle_a": Preset(
            "FGSM from the image and ELLE-A",
            "Abad Rocamora et al. 2024, arXiv 2401.11618",
            keys={
                "attack": "fgsm",
                "init": "zero",
                "alpha": 1.0,
                "regularizer": "elle_a",
                "lambda": 4000.0,
                "elle_sensitivity": 2.0,
                "elle_decay": 0.99,
            },
            space={"lambda": {"loguniform": [10, 10000]}, "elle_sensitivity": {"uniform": [1, 3]}},
            ranges="around the authors' 4,000 and their two standard deviations",
        ),
        "gat": Preset(
            "guided adversarial training",
            "Sriramanan et al. 2020, arXiv 2011.14969",
            keys={
                "attack": "guided",
                "guide": "softmax",
                "guide_weight": 40.0,
                "guide_every": 2,
                "init": "bernoulli",
                "alpha": 1.0,
                **_CLEAN_AND_PENALTY,
                "regularizer": "gat",
                "lambda": 40.0,
                "lambda_schedule": "late",
            },
            space={"lambda": {"loguniform": [8, 200]}, "guide_weight": {"loguniform": [8, 200]}},
            ranges="a factor of five on either side of the paper's 40, of which a quarter counts until late",
        ),
        "nuat": Preset(
            "nuclear norm adversarial training",
            "Sriramanan et al. 2021 (NeurIPS, “Towards Efficient and Effective Adversarial Training”)",
            keys={
                "attack": "guided",
                "guide": "nuclear",
                "guide_weight": 4.0,
                "guide_every": 2,
                "init": "bernoulli",
                "alpha": 1.0,
                **_CLEAN_AND_PENALTY,
                "regularizer": "nuat",
                "lambda": 4.0,
                "lambda_schedule": "ramp",
            },
            space={"lambda": {"loguniform": [0.8, 20]}, "guide_weight": {"loguniform": [0.8, 20]}},
            ranges="a factor of five on either side of the paper's 4, to which the weights grow",
        ),
        "aaer": Preset(
            "FGSM from noise beyond the ball and a penalty on abnormal examples (N-AAER)",
            "Lin, Yu and Liu 2023, arXiv 2404.08154; the weight is the product of two of the paper's; the "
            "statistics are the batch's, as in the authors' code",
            keys={
                "attack": "fgsm",
                "init": "clipped_noise",
                "noise": 2.0,
                "alpha": 1.0,
                "attack_statistics": "batch",
                "regularizer": "aaer",
                "lambda": 0.15,
            },
            space={"lambda": {"loguniform": [0.015, 1.5]}},
            ranges="from a tenth of 0.15, the weight with such noise, to 1.5, the weight with a start in the ball",
        ),
        "fgsm_pgi": Preset(
            "prior-guided FGSM, whose starts follow a momentum of each image's gradients (FGSM-MEP)",
            "Jia et al. 2022, arXiv 2207.08859; the statistics are the batch's, as in the authors' code",
            keys={
                "attack": "fgsm_pgi",
                "alpha": 1.0,
                "attack_statistics": "batch",
                "pgi_momentum": 0.3,
                "pgi_reset": 40,
                "regularizer": "fgsm_pgi",
                "lambda": 10.0,
            },
            space={"lambda": {"loguniform": [2, 50]}, "pgi_momentum": {"uniform": [0, 0.6]}},
            ranges="a factor of five on either side of the paper's 10; no momentum to twice the paper's",
        ),
    },
    accepts=lambda part: isinstance(part, Preset),
    expected="a Preset",
)


class MethodConfig(Schema):
    """The method that a configuration was made from."""

    method: Annotated[str, one_of(METHODS)] = Field(
        default=NO_METHOD,
        description="Stands for the hyperparameters of a paper that are not given ([methods](methods.md)).",
    )


def find_preset(training: Mapping[str, Any], path: str = "training", *, is_imported: bool = True) -> Preset | None:
    """Return the preset that `method` names among hyperparameters; None without one.

    Args:
        training: Hyperparameters by YAML names.
        path: Their section, for the error.
        is_imported: Whether the user's own parts may be imported. Where not, a preset that is not known yet is None.

    Raises:
        ProblemError: There is no such method, or it is no name.
    """
    name = training.get(METHOD, NO_METHOD)
    if not isinstance(name, str):
        raise ProblemError(f"{path}.{METHOD}", f"a name is needed, but found {describe(name)}")
    if name == NO_METHOD or (not is_imported and METHODS.is_unread(name)):
        return None
    try:
        return METHODS.resolve(name)
    except PartError as error:
        raise ProblemError(f"{path}.{METHOD}", str(error)) from error


def expand_method(
    training: Mapping[str, Any], *, beside: Iterable[str] = (), path: str = "training", is_imported: bool = True
) -> dict[str, Any]:
    """Return hyperparameters with the keys of their method in place of those that are not given.

    The key `method` stays, so that what was asked for can be said. A key that says the same as a given one in other
    words, as `alpha` does beside `step_size`, is left out.

    Args:
        training: Hyperparameters by YAML names.
        beside: Keys that are given elsewhere: those that are searched.
        path: Section of the hyperparameters, for errors.
        is_imported: As for `find_preset`.

    Raises:
        ProblemError: There is no such method.
    """
    preset = find_preset(training, path, is_imported=is_imported)
    if preset is None:
        return dict(training)
    given = _with_synonyms([*_present(training), *beside])
    implied = {key: value for key, value in preset.keys.items() if key not in given}
    return {METHOD: training[METHOD], **implied, **training}


def _present(training: Mapping[str, Any]) -> list[str]:
    """Return the keys whose value is not null, which stands for an absent key."""
    return [key for key, value in training.items() if value is not None]


def _with_synonyms(keys: Iterable[str]) -> set[str]:
    """Return `keys`, and those that say the same in other words."""
    return {name for key in keys for name in (key, *SAME_AS.get(key, ()))}


def expand_space(space: Mapping[str, Any], training: Mapping[str, Any], preset: Preset | None) -> dict[str, Any]:
    """Return a space with `method: default` replaced by the distributions of the method for keys that are not given.

    Args:
        space: Distributions by YAML names.
        training: The hyperparameters that are fixed.
        preset: The method; None without one.

    Raises:
        ProblemError: `method` is something else than `default`, or there is no method.
    """
    if METHOD not in space:
        return dict(space)
    if space[METHOD] != DEFAULT:
        raise ProblemError(
            f"space.{METHOD}",
            f"takes {DEFAULT}, which stands for the space of training.{METHOD}; methods are not searched: search each, "
            "then tune-cure compare",
        )
    if preset is None:
        raise ProblemError(f"training.{METHOD}", f"is needed: space.{METHOD} stands for the space of that method")
    given = _with_synonyms([*space, *_present(training)])
    expanded: dict[str, Any] = {}
    for key, distribution in space.items():
        own = {name: dict(where) for name, where in preset.space.items() if name not in given}
        expanded |= own if key == METHOD else {key: distribution}
    return expanded


def expand_start(start: Mapping[str, Any], space: Iterable[str], preset: Preset | None, path: str) -> dict[str, Any]:
    """Return a configuration of start_from with `method: default` replaced by the paper's values of searched keys.

    Args:
        start: Values by YAML names.
        space: The searched keys.
        preset: The method; None without one.
        path: Of the start, for errors.

    Raises:
        ProblemError: `method` is something else than `default`, or there is no method.
    """
    if METHOD not in start:
        return dict(start)
    if start[METHOD] != DEFAULT or preset is None:
        raise ProblemError(
            f"{path}.{METHOD}", f"takes {DEFAULT}, which stands for the values of training.{METHOD}, which it needs"
        )
    rest = {key: value for key, value in start.items() if key != METHOD}
    return {key: preset.keys[key] for key in space if key in preset.keys} | rest


def describe_method(training: Mapping[str, Any], searched: Iterable[str] = ()) -> str:
    """Return the method of hyperparameters in words: its source, the keys it stands for, and those given instead.

    Args:
        training: Hyperparameters by YAML names, with the keys of their method.
        searched: The keys that are searched.

    Returns:
        A line; empty without a method, or with one that this process does not know.
    """
    preset = METHODS.get(training.get(METHOD, NO_METHOD))
    if preset is None or not preset.keys:
        return ""
    now = {key: training[key] for key in preset.keys if key in training}
    changed = {key: value for key, value in now.items() if value != preset.keys[key]}
    searched = [key for key in searched if key in preset.keys]
    parts = [
        format_hyperparameters({key: value for key, value in now.items() if key not in changed}),
        f"given instead: {format_hyperparameters(changed)}" if changed else "",
        f"searched: {join_words(searched)}" if searched else "",
    ]
    return f"{training[METHOD]} ({preset.title}; {preset.source}): {'; '.join(filter(None, parts))}"
