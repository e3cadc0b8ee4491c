"""Folder of a league: its settings in league.yaml, and the folder of an ordinary search for each method."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from tune_cure.league.budget import equal_budget, with_budget
from tune_cure.league.cost import EpochCost
from tune_cure.league.methods import NAME, Entry, compose_spec
from tune_cure.search import run_files
from tune_cure.search.patience import has_judged_leaders, is_search_over
from tune_cure.search.results import ResultsError, SearchResult, read_spec
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.stopping import MAX_EQUAL_FAILURES, is_one_failure
from tune_cure.utils.files import replace_text
from tune_cure.utils.formatting import format_count, join_words, shorten_repr
from tune_cure.utils.schema import Schema
from tune_cure.utils.yaml_config import SpecError, first_problem, problem_at, read_mapping


def _check_name(name: str) -> str:
    """Return the name of a method, which names a folder: a file that somebody sent must not lead elsewhere."""
    if not NAME.fullmatch(name):
        raise ValueError(f"letters, digits, '.', '_' and '-' are needed, but found {shorten_repr(name)}")
    return name


class LeagueConfig(Schema):
    """Everything that a league was asked for."""

    space: str = Field(description="The search space as it was named.")
    methods: dict[Annotated[str, AfterValidator(_check_name)], Entry] = Field(
        min_length=2, description="The methods by their names, in order."
    )
    trials: int = Field(ge=1, description="Whole trials that a method of average cost can train.")
    budget_by: Literal["seconds", "epochs"] = Field(default="seconds", description="What is equal.")
    budget: float | None = Field(default=None, gt=0, description="What each method may spend; null until measured.")
    costs: dict[str, EpochCost] = Field(default_factory=dict, description="What an epoch takes, by method.")
    seeds: int = Field(default=3, ge=1, description="Trainings of each winner and each untuned preset.")
    examples: int | None = Field(default=None, ge=2, description="Test images to judge on; null: all.")
    train_images: int | None = Field(default=None, ge=2, description="Training images of the confirmation; null: all.")
    autoattack: bool = Field(default=True, description="Whether AutoAttack judges them.")
    shared: dict[str, Any] = Field(description="The part of the search space that all methods share.")

    @model_validator(mode="after")
    def _check_costs(self) -> Self:
        if self.budget is not None and self.costs.keys() != self.methods.keys():
            raise problem_at("costs", f"a cost of each method is needed: {join_words(self.methods)}")
        return self


class League:
    """A league in its folder.

    Args:
        folder: The league's folder.
        config: Its settings.
    """

    def __init__(self, folder: Path, config: LeagueConfig) -> None:
        self.folder, self.config = folder, config

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the league in a folder.

        Raises:
            ResultsError: The folder holds no league.
            SpecError: Its league.yaml is damaged.
        """
        file = folder / run_files.LEAGUE
        if not file.is_file():
            raise ResultsError(f"{folder}: holds no league: there is no {run_files.LEAGUE} in it")
        try:
            return cls(folder, LeagueConfig.model_validate(read_mapping(file)))
        except ValidationError as error:
            raise first_problem(error, LeagueConfig).within(file) from error

    def write(self) -> None:
        """Write league.yaml."""
        content = self.config.model_dump(mode="json")
        replace_text(self.folder / run_files.LEAGUE, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    @property
    def methods(self) -> list[str]:
        """The names of the methods, in the league's order."""
        return list(self.config.methods)

    def run_folder(self, method: str) -> Path:
        """Return the folder of a method's search, by the method's name."""
        return self.folder / method

    def compose(self) -> dict[str, SearchSpec]:
        """Return the search of each method, made from the league's settings; with its budget once that is known.

        Raises:
            SpecError: A search cannot be run.
        """
        config = self.config
        specs = {name: compose_spec(config.shared, name, entry, config.space) for name, entry in config.methods.items()}
        if config.budget is None:
            return specs
        return {
            name: with_budget(spec, config.budget_by, config.budget, config.costs[name].train_seconds)
            for name, spec in specs.items()
        }

    def with_costs(self, specs: Mapping[str, SearchSpec], costs: Mapping[str, EpochCost]) -> Self:
        """Return this league with the budget that follows from what an epoch of each method takes.

        Args:
            specs: The search of each method.
            costs: What an epoch of each method takes.
        """
        epochs = {name: spec.max_epochs for name, spec in specs.items()}
        seconds = {name: cost.train_seconds for name, cost in costs.items()}
        budget = equal_budget(self.config.trials, self.config.budget_by, epochs, seconds)
        update = {"budget": budget, "costs": dict(costs)}
        return type(self)(self.folder, self.config.model_copy(update=update))

    def set_budget(self, specs: Mapping[str, SearchSpec], costs: Mapping[str, EpochCost]) -> None:
        """Fix what each method may spend, as `with_costs` does, and write league.yaml."""
        self.config = self.with_costs(specs, costs).config
        self.write()

    def spec(self, method: str) -> SearchSpec:
        """Return the search of a method as its own folder has it.

        Raises:
            ResultsError: It has not begun.
        """
        return read_spec(self.run_folder(method))

    def results(self) -> dict[str, SearchResult]:
        """Return what the search of each method has found, for those that have begun.

        Raises:
            SpecError: A spec.yaml lacks the preset with which every search of a league begins.
        """
        begun = [name for name in self.methods if (self.run_folder(name) / run_files.JOURNAL).is_file()]
        results = {name: SearchResult(self.run_folder(name)) for name in begun}
        for name, result in results.items():
            if not result.spec.start_from:
                file = self.run_folder(name) / run_files.SPEC
                raise SpecError(f"{file}: start_from: the preset of {name} is needed, but nothing is given")
        return results


def is_searched(results: Mapping[str, SearchResult], league: League) -> bool:
    """Return whether the searches of all methods are over or given up, and their leaders judged again."""
    given_up = find_given_up(results)
    return all(
        name in results and (name in given_up or (is_search_over(results[name]) and has_judged_leaders(results[name])))
        for name in league.methods
    )


def find_given_up(results: Mapping[str, SearchResult]) -> dict[str, str]:
    """Return why searches are given up in which every trial failed, the last ones for one reason, by method.

    Empty if the trials of every method failed: then the cause is no method's, and a resumed league tries again.

    Args:
        results: The searches that have begun.
    """
    failed = {name: list(result.trials["reason"]) for name, result in results.items() if has_only_failures(result)}
    if len(failed) == len(results):
        return {}
    return {
        name: f"all of its {format_count(len(reasons), 'trial')} failed: {reasons[-1]}"
        for name, reasons in failed.items()
        if is_one_failure(reasons[-MAX_EQUAL_FAILURES:])
    }


def has_only_failures(result: SearchResult) -> bool:
    """Return whether a search has trials, and every one of them failed."""
    statuses = result.trials["status"]
    return len(statuses) > 0 and bool(statuses.eq("failed").all())


def is_league(folder: Path) -> bool:
    """Return whether a folder holds a league."""
    return (folder / run_files.LEAGUE).is_file()
