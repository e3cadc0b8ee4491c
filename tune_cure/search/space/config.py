"""Configuration of a search: the sections of its YAML file, and what follows from them.

The models of other sections lie beside the code that uses them (`DataSpec`, `ModelConfig`, `TrainingConfig`,
`EvaluationConfig`); this file adds the search's own. `loading` reads the YAML and checks what spans sections.
"""

import importlib.util
import itertools
import logging
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, PlainValidator, field_validator

from tune_cure.data.config import DataSpec
from tune_cure.evaluation.config import AttackName, EvaluationConfig, StricterEvaluation
from tune_cure.evaluation.names import MIN_TARGETED_CLASSES, NORM_LABELS, TARGETED_PARTS
from tune_cure.search.proposals.samplers import SAMPLERS
from tune_cure.search.schedulers.registry import SCHEDULERS
from tune_cure.search.space.distributions import Distribution
from tune_cure.search.space.objectives import Constraint, metrics
from tune_cure.training.config import ModelConfig, TrainingConfig, deciding_keys, has_unread_parts, parse_training
from tune_cure.training.delta import SAME_AS
from tune_cure.training.interactions import inactive_hyperparameters
from tune_cure.utils.schema import MAX_SEED, Number, Schema, absolute_path, one_of, parse_number
from tune_cure.utils.yaml_config import (
    SpecError,
    describe,
)

_logger = logging.getLogger(__name__)

LEAST_REDUCTION = 1.5  # with less, two rungs would fall on one epoch


def _constraint(text: str) -> str:
    return str(Constraint.parse(text))


class SearchConfig(Schema):
    """Number of trials, the sampler and the scheduler, and the metrics that are optimized."""

    trials: int = Field(default=64, ge=1, description="Trials in all, those of start_from included.")
    sampler: Annotated[str, one_of(SAMPLERS)] = Field(default="tpe", description="Who proposes hyperparameters.")
    scheduler: Annotated[str, one_of(SCHEDULERS)] = Field(
        default="asha", description="Rule that stops weak trials early, set by `asha`; none: nothing is stopped."
    )
    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="Seed of the proposals and of every trial's training.")
    metric: Annotated[str | list[str], PlainValidator(metrics)] = Field(
        default="pgd_accuracy_best", description="What is optimized; of a list, early stopping looks at the first."
    )
    mode: Literal["max", "min"] = Field(default="max", description="max if a larger metric is better, else min.")
    retries: int = Field(default=2, ge=0, description="How often a trial that fails goes on from its last checkpoint.")
    on_collapse: Literal["end", "continue"] = Field(
        default="end",
        description="Whether a trial ends with the first epoch in which it overfits catastrophically, or may recover.",
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Propose no more once so many trials ended and none was better; never if absent.",
    )
    budget_seconds: Number | None = Field(
        default=None,
        gt=0,
        description="Seconds of training that all trials share; once they are spent, running trials are stopped.",
    )
    budget_epochs: int | None = Field(
        default=None, ge=1, description="Epochs of training that all trials share, as budget_seconds."
    )
    constraints: list[Annotated[str, AfterValidator(_constraint)]] = Field(
        default_factory=list, description="Bounds such as `clean_accuracy >= 0.8`; trials that keep them rank first."
    )
    warm_start: str | None = Field(
        default=None,
        description="An earlier run's folder, a trials.csv or an Optuna study, from which the sampler learns.",
    )

    @field_validator("warm_start")
    @classmethod
    def _absolute_path(cls, path: str | None) -> str | None:
        return None if path is None else absolute_path(path)

    @property
    def metrics(self) -> list[str]:
        """The metrics that are optimized, the most important first."""
        return [self.metric] if isinstance(self.metric, str) else self.metric

    @property
    def parsed_constraints(self) -> list[Constraint]:
        """The constraints as objects."""
        return [Constraint.parse(text) for text in self.constraints]


class AshaConfig(Schema):
    """Numbers of asynchronous successive halving (Li et al. 2020, arXiv 1810.05934).

    Hyperband takes grace period and reduction factor from here; the median rule takes the grace period.
    """

    grace_period: int = Field(
        default=1,
        ge=1,
        description="Epochs that every trial gets: the first rung. About 60% of `training.epochs` is safe; 1 often "
        "stops the best trial ([measured](early_stopping.md#the-rungs-of-the-bundled-spaces)).",
    )
    reduction_factor: Number = Field(
        default=3,
        ge=LEAST_REDUCTION,
        description="A trial passes a rung if it is in the best 1 / this many of those there.",
    )
    brackets: int = Field(default=1, ge=1, description="Bracket k starts at rung k; trials are shared out at random.")
    steps: int | None = Field(
        default=None,
        ge=1,
        description="PGD steps that judge the best weights so far at a rung; else those of evaluation.",
    )
    attack: AttackName = Field(
        default="pgd", description="What judges the best weights so far at a rung, as `rescore.attack`."
    )
    control: Number = Field(
        default=0,
        ge=0,
        le=1,
        description="Share of the trials, drawn by the seed, that nothing stops: they judge rungs.",
    )
    adapt: bool = Field(
        default=False, description="A rung stops nobody until it is known to be better than chance; needs control."
    )


class RescoreConfig(Schema):
    """Second evaluation of the leaders after the search, on fresh validation images."""

    top: int = Field(default=3, ge=0, description="Number of leaders that are judged again; `choose` says which wins.")
    attack: AttackName = Field(
        default="pgd", description="What judges them: PGD, AutoAttack's targeted APGD, or all of AutoAttack."
    )
    choose: Literal["fresh", "posterior"] = Field(
        default="fresh",
        description="How the winner is chosen: by the fresh accuracy, or by a posterior mean with it.",
    )
    steps: int = Field(default=20, ge=1, description="PGD steps, as of evaluation.")
    restarts: int = Field(default=10, ge=1, description="PGD random starts.")
    examples: int = Field(
        default=2500, ge=1, description="Number of validation images, of those that evaluation does not use."
    )


def _deciding_values(distribution: Distribution) -> list[Any]:
    """Return values that stand for all of a distribution where they decide whether other hyperparameters are active.

    The only number that decides is exactly 0. The high end of a range stands for all others. 0 is drawn from a grid
    that begins there, but not from a continuous range.
    """
    values = distribution.values
    has_grid = distribution.kind == "int" or distribution.step is not None
    is_whole = distribution.kind == "choice" or (has_grid and values[0] == 0)
    return values if is_whole else values[1:]


def _count_or_auto(value: Any) -> Any:
    if value != "auto" and (type(value) is not int or value < 1):
        raise ValueError(f"a whole number of at least 1, or auto, is needed, but found {describe(value)}")
    return value


def _gpus_or_auto(value: Any) -> Any:
    if value == "auto":
        return value
    try:
        number = parse_number(value)
    except ValueError as error:
        raise ValueError(f"{error}, or auto") from error
    if type(number) not in (int, float) or not 0 <= number < math.inf:
        raise ValueError(f"a number of at least 0, or auto, is needed, but found {describe(value)}")
    if number != int(number) and not 1e-4 <= number <= 1:  # Ray counts in ten-thousandths, and shares only single GPUs
        raise ValueError(f"a whole number, or a fraction between 0.0001 and 1, is needed, but found {number:g}")
    return float(number)


class ResourcesConfig(Schema):
    """Devices of one trial. Without a GPU, trials run on CPUs alone."""

    gpus_per_trial: Annotated[float | Literal["auto"], PlainValidator(_gpus_or_auto)] = Field(
        default=0.0,
        description="0.5 puts two trials on a GPU; auto: up to 3, as measured; 0: trials run on CPUs. A trial trains "
        "on one GPU at most, so more than 1 leaves GPUs idle.",
    )
    cpus_per_trial: int = Field(default=1, ge=1, description="CPU cores, and so threads, of a trial.")
    concurrent: Annotated[int | Literal["auto"], PlainValidator(_count_or_auto)] = Field(
        default="auto", description="Trials at a time, and runs of a confirmation; auto: as many as the devices hold."
    )


class SearchSpec(Schema):
    """A whole search, as loaded from its YAML file."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100, description="Names the folder results/NAME."
    )
    data: DataSpec
    model: ModelConfig
    training: dict[str, Any] = Field(default_factory=dict, description="The hyperparameters that are fixed.")
    space: dict[str, Distribution] = Field(min_length=1, description="Those that are searched.")
    start_from: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Run first, to their end: values for the keys of space, or a best_config.yaml.",
    )
    evaluation: EvaluationConfig = EvaluationConfig()
    search: SearchConfig = SearchConfig()
    asha: AshaConfig = AshaConfig()
    rescore: RescoreConfig = RescoreConfig()
    resources: ResourcesConfig = ResourcesConfig()
    parts: list[str] = Field(
        default_factory=list,
        description="Files or modules of your own parts, imported first: `my_parts.py` beside the YAML.",
    )

    def training_config(self, hyperparameters: dict[str, Any]) -> TrainingConfig:
        """Return the configuration of a trial with these values of the searched hyperparameters."""
        return parse_training({**self.training, **hyperparameters}, partly=self.has_unread_parts)

    @property
    def has_unread_parts(self) -> bool:
        """Return True if an attack or a penalty of the search is the user's own and not imported here."""
        choices = ((key, where.values) for key, where in self.space.items() if where.kind == "choice")
        searched = ({key: name} for key, names in choices for name in names)
        return has_unread_parts(self.training) or any(map(has_unread_parts, searched))

    def propose(self, draw: Callable[[str], Any]) -> dict[str, Any]:
        """Return a value for each searched hyperparameter that is active.

        A hyperparameter can be inactive because of the value of another one: `h` makes a difference for some
        `direction` only. So those that decide about others are drawn first, and inactive ones are not drawn at all.

        Args:
            draw: Returns a value for the hyperparameter whose YAML name it is called with.
        """
        values: dict[str, Any] = {}
        first = deciding_keys()
        for key in sorted(self.space, key=lambda key: first.index(key) if key in first else len(first)):
            if key not in inactive_hyperparameters(self.training_config(values)):
                values[key] = draw(key)
        return {key: values[key] for key in self.space if key in values}

    def inactive_keys(self) -> dict[str, bool]:
        """Return the searched hyperparameters that are inactive in some trials.

        Returns:
            By YAML name: True if the hyperparameter is inactive in every trial, False if only in some.
        """
        deciding = {key: _deciding_values(self.space[key]) for key in deciding_keys() if key in self.space}
        cases = [
            inactive_hyperparameters(self.training_config(dict(zip(deciding, values, strict=True)))).keys()
            & self.space.keys()
            for values in itertools.product(*deciding.values())
        ]
        return {key: all(key in case for case in cases) for key in self.space if any(key in case for case in cases)}

    @property
    def max_epochs(self) -> int:
        """The largest number of epochs that a trial can train."""
        searched = self.space.get("epochs")
        return int(max(searched.values)) if searched else self.training_config({}).epochs

    @property
    def rescoring(self) -> StricterEvaluation:
        """The second judgement of the leaders: the threat model of `evaluation`, the stronger attack of `rescore`."""
        return StricterEvaluation.model_construct(
            **{**dict(self.evaluation), **self.rescore.model_dump(exclude={"top", "choose"})}
        )

    @property
    def rung_judgement(self) -> StricterEvaluation | None:
        """The judgement of trials at rungs by the attack of `asha`; None if the evaluation of the epoch serves."""
        if self.asha.attack == "pgd" and self.asha.steps is None:
            return None
        steps = self.evaluation.steps if self.asha.steps is None else self.asha.steps
        return StricterEvaluation.model_construct(
            **{**dict(self.evaluation), "attack": self.asha.attack, "steps": steps}
        )

    def check_attacks(self, num_classes: int) -> None:
        """Refuse attacks of `rescore` and `asha` that cannot attack networks for such data here.

        Args:
            num_classes: The number of classes.

        Raises:
            SpecError: One needs more classes, does not know the norm, or is not installed.
        """
        judgements = {
            "asha.attack": self.rung_judgement,
            "rescore.attack": self.rescoring if self.rescore.top else None,
        }
        for key, judgement in judgements.items():
            if judgement is None or judgement.attack == "pgd":
                continue
            if importlib.util.find_spec("pyautoattack") is None:
                raise SpecError(f"{key}: AutoAttack is not installed here: pip install pyautoattack, or use pgd")
            if judgement.norm not in NORM_LABELS:
                known = " and ".join(NORM_LABELS)
                raise SpecError(f"{key}: {judgement.label} knows the norms {known}, but not {judgement.norm}")
            if judgement.attack in TARGETED_PARTS and num_classes < MIN_TARGETED_CLASSES:
                needed = f"needs {MIN_TARGETED_CLASSES} classes, and there are {num_classes}; use autoattack or pgd"
                raise SpecError(f"{key}: {judgement.label} {needed}")

    @property
    def rungs(self) -> list[int]:
        """The epochs after which ASHA or Hyperband may stop a trial of the first bracket; empty without these two."""
        if self.search.scheduler not in ("asha", "hyperband"):
            return []
        rungs, rung = [], float(self.asha.grace_period)
        while math.ceil(rung) < self.max_epochs:
            rungs.append(math.ceil(rung))
            rung *= self.asha.reduction_factor
        return rungs

    @property
    def bracket_shares(self) -> list[float]:
        """The share of trials in each bracket; bracket k starts at rung k, so that its trials skip the rungs before.

        Hyperband has a bracket for each rung and one without rungs. A bracket with s rungs ahead gets η^s / (s + 1)
        times as many trials as the one without (Li et al. 2018). ASHA has `asha.brackets` of them, each with e times
        as many trials as the next.
        """
        if self.search.scheduler == "hyperband":
            weights = [self.asha.reduction_factor**ahead / (ahead + 1) for ahead in range(len(self.rungs), -1, -1)]
        else:
            weights = [math.exp(-bracket) for bracket in range(self.asha.brackets)]
        return [weight / sum(weights) for weight in weights]

    def to_yaml(self) -> str:
        """Return the search as YAML with every default written out. Loading it gives the same search."""
        content = self.model_dump(mode="json", by_alias=True, exclude={"space", "training"})
        if not self.parts:
            del content["parts"]
        fixed = {**self.training_config({}).model_dump(mode="json", by_alias=True), **self.training}
        searched = {*self.space, *(key for name in self.space for key in SAME_AS.get(name, ()))}
        content["training"] = {key: value for key, value in fixed.items() if key not in searched}
        content["space"] = {
            key: distribution.model_dump(mode="json", by_alias=True, exclude_none=True)
            for key, distribution in self.space.items()
        }
        order = list(SearchSpec.model_fields)
        return yaml.safe_dump(dict(sorted(content.items(), key=lambda item: order.index(item[0]))), sort_keys=False)
