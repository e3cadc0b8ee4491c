"""Reading of a search space from YAML. Every error is one line."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tune_cure.search import run_files
from tune_cure.search.space import checks, keys
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.configurations import Identity, identify, limit_trials
from tune_cure.search.space.distributions import KINDS, ON_GRID, Distribution
from tune_cure.search.space.own_parts import expect_own_parts, import_modules, import_own_parts, read_parts
from tune_cure.training.config import HYPERPARAMETERS, config_class, expand_model_name, parse_hyperparameter
from tune_cure.training.delta import DELTA, delta_notice, expand_delta, say_delta_in
from tune_cure.training.interactions import inactive_hyperparameters
from tune_cure.training.presets import METHOD, expand_method, expand_space, expand_start, find_preset
from tune_cure.utils.formatting import format_count, join_words
from tune_cure.utils.yaml_config import (
    ProblemError,
    SpecError,
    first_problem,
    override,
    read_mapping,
    unknown,
)

_logger = logging.getLogger(__name__)

ONLY_TRAINING = "only keys of training can be searched"
BRACKET_KEYS = (
    "asha.brackets",
    "asha.grace_period",
    "asha.reduction_factor",
    "search.scheduler",
    "training.epochs",
    "space.epochs",
)
LATER_CHECKS: tuple[tuple[Sequence[str], Callable[[SearchSpec], None]], ...] = (
    (("search.constraints",), checks.check_constraints),
    (BRACKET_KEYS, checks.check_brackets),
)
"""Checks that earlier versions lacked, with the keys that they read. A run of such a version may have what is refused
now; it is checked only where one of these keys is set anew."""


def load(path: str | Path, overrides: Sequence[str] = (), *, import_parts: bool = False) -> SearchSpec:
    """Read a search space from a YAML file.

    Args:
        path: The file.
        overrides: `training.epochs=5` and the like: a key's path, an equals sign, a YAML value.
        import_parts: Import the user's own parts, to check their names and hyperparameters. A file that somebody else
            wrote could name any module, and importing a module runs its code; so only commands that train set this.
            Without it, any name may be that of a part that `parts` register.

    Raises:
        SpecError: The file cannot be read, or what it asks for cannot be run.
    """
    return load_mapping(read_mapping(path), overrides, path, import_parts=import_parts)


def load_mapping(
    content: dict[str, Any],
    overrides: Sequence[str] = (),
    source: str | Path = "space",
    *,
    import_parts: bool = False,
) -> SearchSpec:
    """Return the search that a mapping describes, with the keys of a search space's YAML file.

    Args:
        content: The mapping; changed in place.
        overrides: As for `load`.
        source: Names the mapping in errors.
        import_parts: As for `load`.

    Raises:
        SpecError: What it asks for cannot be run.
    """
    try:
        expand_model_name(content)
        for assignment in overrides:
            override(content, assignment)
            expand_model_name(content)
        content |= read_parts(content, Path(source).parent)
        if import_parts:
            import_modules(content.get("parts", []))
        else:
            expect_own_parts(content)
        is_of_run = Path(source).with_name(run_files.JOURNAL).is_file()
        # A run's spec.yaml has every key of its method, as it was when the run began.
        if not is_of_run or Path(source).name != run_files.SPEC:
            _expand_method(content, is_imported=import_parts)
        read_starts(content)
        spec = _check(content, import_parts=import_parts)
        for keys_of_check, check in LATER_CHECKS:
            if not is_of_run or _sets_any(overrides, keys_of_check):
                check(spec)
        if not is_of_run:
            spec = spec.model_copy(update={"start_from": _drop_repeated(spec)})
    except ProblemError as problem:
        raise problem.within(source) from problem
    if import_parts or not is_of_run:  # a recorded search keeps the trials that it had
        asked, spec = spec.search.trials, limit_trials(spec)
        if spec.search.trials < asked:
            text = "search.trials: %d, but the space has only %s; each is trained once"
            _logger.warning(text, asked, format_count(spec.search.trials, "configuration"))
    if not is_of_run:  # the file of a run is not the user's to change
        _say_what_delta_is(content)
    return spec


def _sets_any(overrides: Iterable[str], keys_of_check: Iterable[str]) -> bool:
    """Return whether one of the overrides sets one of the keys, a part of it, or the section that it is in."""
    paths = [f"{assignment.partition('=')[0].strip()}." for assignment in overrides]
    return any(path.startswith(f"{key}.") or f"{key}.".startswith(path) for path in paths for key in keys_of_check)


def _expand_method(content: dict[str, Any], *, is_imported: bool) -> None:
    """Put the keys of a method where `method` stands: under training, in the space, and in the starts."""
    training, space, starts = content.get("training", {}), content.get("space"), content.get("start_from")
    if not isinstance(training, dict) or not isinstance(space, dict):
        return  # validating the sections gives the error, if there is one
    preset = find_preset(training, is_imported=is_imported)
    content["space"] = space = expand_space(space, training, preset)
    content["training"] = expand_method(training, beside=space, is_imported=is_imported)
    if isinstance(starts, list):
        content["start_from"] = [
            expand_start(start, space, preset, f"start_from[{index}]") if isinstance(start, dict) else start
            for index, start in enumerate(starts)
        ]


def _say_what_delta_is(content: dict[str, Any]) -> None:
    """Say once what the older key `delta` is called now."""
    if DELTA in content.get("training", {}):
        _logger.warning("training.%s", delta_notice(content["training"][DELTA]))
    elif DELTA in content["space"]:
        _logger.warning("space.%s is now space.regularizer and space.direction", DELTA)


def read_starts(content: dict[str, Any]) -> None:
    """Replace each file name under start_from by the searched hyperparameters in that best_config.yaml.

    Args:
        content: The mapping of a search space, with `space` and `start_from`; changed in place.

    Raises:
        ProblemError: A file cannot be read.
    """
    starts, space = content.get("start_from"), content.get("space")
    if not isinstance(starts, list) or not isinstance(space, dict):
        return  # validating the sections gives the error
    for index, start in enumerate(starts):
        if isinstance(start, str):
            best = read_start_file(start, index)
            starts[index] = {key: value for key, value in say_delta_in(best, space).items() if key in space}


def read_start_file(file: str, index: int) -> dict[str, Any]:
    """Return the content of a best_config.yaml that start_from names.

    Args:
        file: The file.
        index: Its place in start_from.

    Raises:
        ProblemError: It cannot be read.
    """
    try:
        if not Path(file).is_file():  # a pipe or a device might never end
            raise SpecError(f"{file}: there is no such file")
        return read_mapping(file)
    except SpecError as error:
        raise ProblemError(f"start_from[{index}]", str(error)) from error


def _check(content: dict[str, Any], *, import_parts: bool) -> SearchSpec:
    """Return the search that a mapping describes, after all checks.

    Raises:
        ProblemError: It cannot be run.
    """
    _refuse_other_sections(content.get("space"))
    try:
        spec = SearchSpec.model_validate(content)
    except ValidationError as error:
        raise first_problem(error, SearchSpec, keys.paths_of) from error
    checks.check_same_keys(spec)
    spec = spec.model_copy(update={"training": expand_delta(spec.training, "training")})
    if import_parts:
        import_own_parts(spec)
    training = {key: _parse(spec, key, value, f"training.{key}") for key, value in spec.training.items()}
    space = {key: _resolve(spec, key, distribution) for key, distribution in spec.space.items()}
    spec = spec.model_copy(update={"training": training, "space": space})
    checks.check_given_once(spec)
    checks.check_conflicts(spec, says_delta=DELTA in content.get("training", {}) or DELTA in space)
    checks.check_something_matters(spec)
    checks.check_early_stopping(spec)
    checks.check_winner(spec)
    checks.check_trials(spec)
    starts = [_resolve_start(spec, start, f"start_from[{index}]") for index, start in enumerate(spec.start_from)]
    spec = spec.model_copy(update={"start_from": starts})
    checks.check_sampler(spec)
    return spec


def _parse(spec: SearchSpec, key: str, value: Any, path: str) -> Any:
    """Return a value as TrainingConfig types it; as it is if it may belong to a part that is not imported."""
    if key not in HYPERPARAMETERS and key not in (DELTA, METHOD) and spec.has_unread_parts:
        _check_name(key, path)
        return value
    return parse_hyperparameter(key, value, path)


def _resolve(spec: SearchSpec, key: str, distribution: Distribution) -> Distribution:
    """Return `distribution` with both ends, or all choices, accepted and typed by TrainingConfig."""
    path = f"space.{key}"
    kind = "int_" if distribution.kind == "int" else distribution.kind
    if key not in HYPERPARAMETERS and key != DELTA:
        if spec.has_unread_parts:
            _check_name(key, path)
            return distribution
        raise ProblemError(path, _explain_unknown(key))
    takes = str if key == DELTA else config_class().model_fields[HYPERPARAMETERS[key]].annotation
    if takes is str and kind != "choice":
        raise ProblemError(path, f"takes names: use choice, not {distribution.kind}")
    if takes is int and kind in ("uniform", "loguniform"):
        raise ProblemError(path, f"takes whole numbers: use int or choice, not {kind}")
    values = [
        parse_hyperparameter(key, value, f"{path}.{distribution.kind}[{index}]")
        for index, value in enumerate(distribution.values)
    ]
    if distribution.step is not None:
        low, high = values
        highest = low + distribution.step * distribution.num_steps
        if abs(highest - high) > ON_GRID * distribution.step:  # else `high` stays as it is spelled
            values[1] = highest
            text = "%s: %g is no multiple of step %g above %g; the highest value is %g"
            _logger.warning(text, path, high, distribution.step, low, highest)
    return distribution.model_copy(update={kind: [int(value) for value in values] if kind == "int_" else values})


def _refuse_other_sections(space: Any) -> None:
    """Raise an error where the space names a key by its section: `model.width`, or a mapping `model` with that key."""
    for key, value in space.items() if isinstance(space, dict) else ():
        path = str(key)
        if isinstance(value, dict) and not {*KINDS, "step"}.intersection(value):
            path = ".".join([path, *map(str, [*value][:1])])
        section, dot, name = path.partition(".")
        if dot and section in SearchSpec.model_fields and key not in HYPERPARAMETERS:
            hint = f"; did you mean space.{name}?" if section == "training" and name in HYPERPARAMETERS else ""
            raise ProblemError(f"space.{path}", f"{ONLY_TRAINING}{hint}")


def _explain_unknown(key: str) -> str:
    """Return why a key that is no hyperparameter cannot be searched."""
    if key in SearchSpec.model_fields:
        return ONLY_TRAINING
    paths = keys.paths_of(key)
    return f"{ONLY_TRAINING}, and this is {join_words(paths, 'or')}" if paths else unknown(key, HYPERPARAMETERS)


def _check_name(key: str, path: str) -> None:
    """Check that a part that is not imported can have a hyperparameter of this name: files are named for it."""
    if not key.isidentifier():
        raise ProblemError(path, "is no name of a hyperparameter: letters, digits and _ are allowed")


def _resolve_start(spec: SearchSpec, start: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the values of a start, typed, for the hyperparameters that are active in it.

    Raises:
        ProblemError: A key is not searched, or its value is outside of the space, or an active key has no value.
    """
    space = spec.space
    if DELTA in start and DELTA not in space:
        fixed = spec.training_config({}).model_dump(by_alias=True)
        expanded = expand_delta(start, path)
        start = {key: value for key, value in expanded.items() if key in space or key in start or fixed[key] != value}
    for key in start:
        if key not in space:
            raise ProblemError(f"{path}.{key}", unknown(key, space))
    values = {key: _parse(spec, key, value, f"{path}.{key}") for key, value in start.items()}
    for key, value in values.items():
        if not space[key].contains(value):
            raise ProblemError(f"{path}.{key}", f"{value!r} is outside of space.{key}, {space[key]}")
    missing: list[str] = []

    def given_value(key: str) -> Any:
        if key not in values:
            missing.append(key)
        return values.get(key, space[key].values[0])

    active = spec.propose(given_value)
    if spec.has_unread_parts:  # which keys count in this start is not known
        return values
    if missing:
        missing = [key for key in space if key in missing]
        raise ProblemError(path, f"gives no value for {', '.join(missing)}; every key of space that counts needs one")
    for key in values.keys() - active.keys():
        why = inactive_hyperparameters(spec.training_config(active))[key]
        _logger.warning("%s.%s: left out, for it makes no difference: %s", path, key, why)
    return active


def _drop_repeated(spec: SearchSpec) -> list[dict[str, Any]]:
    """Return the search's starts without those that are the same as an earlier one, and warn of these."""
    indices: dict[Identity, int] = {}
    for index, start in enumerate(spec.start_from):
        first = indices.setdefault(identify(spec, start), index)
        if first != index:
            _logger.warning("start_from[%d]: left out, for it is the same as start_from[%d]", index, first)
    return [spec.start_from[index] for index in indices.values()]
