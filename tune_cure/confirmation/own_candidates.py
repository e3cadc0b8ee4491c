"""Candidates of the user's own in a confirmation: configurations to retrain, and trained networks to judge as they are.

A configuration is the name of a preset (`trades`), a YAML file with the keys of a training run or its hyperparameters
alone, or a row of a search's table (`results/A/best_config.csv`, `results/A/trials.csv:7`). A trained network is named
as in `trained_networks`.

What a preset or the YAML file of a training run leaves open is the confirmed search's: the ball is the one that
networks are judged in, and the keys of `RECIPE` are the winner's. A row is trained as its own search did. All are
trained on the confirmed search's data; a candidate's description names in what its own file has other data.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tune_cure.confirmation.candidates import Candidate
from tune_cure.confirmation.judgement import digest_network
from tune_cure.confirmation.trained_networks import load_trained, rehearse_network, split_reference
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Examples
from tune_cure.search.results import SearchResult
from tune_cure.search.space import trial_config
from tune_cure.training import run as training_run
from tune_cure.training.config import TrainingConfig, expand_model_name, hyperparameter_value
from tune_cure.training.presets import METHOD, METHODS, NO_METHOD, expand_method
from tune_cure.training.sections import AveragingConfig, OptimizerConfig, PrecisionConfig, ScheduleConfig
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.formatting import format_hyperparameters, format_radius
from tune_cure.utils.registry import PartError, did_you_mean
from tune_cure.utils.yaml_config import ProblemError

CONFIGURATION = re.compile(r"(?P<file>.+\.(?:ya?ml|csv))(?::(?P<trial>\d+))?")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""Name of a candidate. It names a folder, so it is neither `.` nor `..`."""
WORD = re.compile(r"[\w-]+")
DIGEST_LENGTH = 12
RECIPE = tuple(
    key
    for section in (OptimizerConfig, ScheduleConfig, AveragingConfig, PrecisionConfig)
    for key in section.model_fields
)
"""Hyperparameters, by YAML names, that belong to no method: how long, in which batches and by which optimizer."""
SCHEDULE = ("epochs", "batch_size", "lr_schedule")
"""Those of `RECIPE` in which a candidate should not differ from the winner without being named."""


class OwnCandidateError(TuneCureError):
    """A candidate on the command line that cannot be used."""


def read_own_candidates(
    texts: Sequence[str], result: SearchResult, others: Sequence[Candidate], test: Examples, num_classes: int
) -> list[Candidate]:
    """Return the candidates that a command line names, in its order; `NAME=…` gives one its name.

    Args:
        texts: The words of the command line.
        result: The search, whose network and ball a configuration gets that names none.
        others: The leaders, the winner first, and the baselines; their names are taken.
        test: Test images; trained networks classify two of them.
        num_classes: The number of classes.

    Raises:
        TuneCureError: One cannot be read, or its name is taken.
    """
    names = {candidate.name for candidate in others}
    winner = others[0].config
    assert winner is not None, others[0].name
    candidates = []
    for text in texts:
        given, separator, rest = text.partition("=")
        is_named = bool(separator) and NAME.fullmatch(given) is not None
        source = rest if is_named else text
        name = given if is_named else _default_name(source)
        if not NAME.fullmatch(name) or name in names:
            rule = "must begin with a letter or a digit, and may have only these, _, . and -"
            problem = "is taken" if name in names else rule
            raise OwnCandidateError(f"--candidates {text}: the name {name!r} {problem}; give another: NAME={source}")
        names.add(name)
        if match := CONFIGURATION.fullmatch(source):
            trial = None if match["trial"] is None else int(match["trial"])
            candidates.append(_read_configuration(name, Path(match["file"]), trial, result, winner))
        elif _is_method(source):
            candidates.append(_read_preset(name, source, result, winner))
        else:
            candidates.append(_read_network(name, source, result, test, num_classes))
    return candidates


def _is_method(source: str) -> bool:
    """Return whether a candidate is a method's name, and no file or folder.

    Raises:
        OwnCandidateError: It is a word, but there is no such method.
    """
    methods = [name for name in METHODS if name != NO_METHOD]
    if Path(source).exists():
        return False
    if WORD.fullmatch(source) and source not in methods:
        raise OwnCandidateError(
            f"--candidates {source}: is no file or folder, and no method: {', '.join(methods)}"
            f"{did_you_mean(source, methods)}"
        )
    return source in methods


def _default_name(source: str) -> str:
    """Return a name: `A` of results/A/best_config.csv, `A-7` of results/A/trials.csv:7, else that of the file.

    A folder may have a dot in its name, as in `epsilon0.1`; a file's ending is left out.
    """
    if source.startswith("robustbench:"):
        return source.partition(":")[2]
    if source in METHODS:
        return source
    match = CONFIGURATION.fullmatch(source)
    path = (Path(match["file"]) if match else split_reference(source)[0]).absolute()
    stem = path.name if path.is_dir() else path.stem
    name = path.parent.name if stem in ("best_config", "trials", "config", "best_model", "model") else stem
    return f"{name}-{match['trial']}" if match and match["trial"] else name


def _read_configuration(
    name: str, file: Path, trial: int | None, result: SearchResult, winner: TrainingConfig
) -> Candidate:
    """Return a configuration as a candidate."""
    content, is_trial = trial_config.read_with_origin(file, trial)
    has_network = "model" in content
    expand_model_name(content)
    try:
        training = content.setdefault("training", {})
        if isinstance(training, dict):  # else `resolve` says what is wrong
            training = training if is_trial else _complete(training, result, winner)
            content["training"] = expand_method(training)
        run = training_run.resolve(content)
    except ProblemError as problem:
        raise problem.within(file) from problem
    row = "" if trial is None else f", trial {trial}"
    model = run.model if has_network and run.model != result.spec.model else None
    network = "" if model is None else f", with the network {model.name}"
    data = _describe_other_data(content.get("data") or {}, run.data, result.spec.data)
    return Candidate(name, "candidate", run.training, f"the configuration in {file}{row}{network}{data}", model=model)


def _describe_other_data(given: Collection[str], own: DataSpec, searched: DataSpec) -> str:
    """Return the given keys in which a configuration's data is other than the search's, on which it is trained.

    Args:
        given: The keys that its file has.
        own: Its data.
        searched: The search's.
    """
    own_values, values = own.model_dump(exclude={"root"}), searched.model_dump(exclude={"root"})
    differing = {key: value for key, value in own_values.items() if key in given and value != values[key]}
    return f", on the search's data instead of {format_hyperparameters(differing)}" if differing else ""


def _read_preset(name: str, method: str, result: SearchResult, winner: TrainingConfig) -> Candidate:
    """Return a method as a candidate, untuned: its paper's values, and what else the search and its winner have."""
    try:
        preset = METHODS.resolve(method)
        training = expand_method(_complete({METHOD: method}, result, winner))
        config = training_run.resolve({"training": training}).training
    except (PartError, ProblemError) as problem:
        raise OwnCandidateError(f"--candidates {method}: {problem}") from problem
    at = format_radius(config.epsilon, config.norm)
    description = f"the preset {method} ({preset.title}) at {at}: the winner's epochs and optimizer"
    return Candidate(name, "candidate", config, description)


def _complete(training: dict[str, Any], result: SearchResult, winner: TrainingConfig) -> dict[str, Any]:
    """Return hyperparameters with those of the search for the absent keys of ball and `RECIPE`.

    Args:
        training: Hyperparameters by YAML names.
        result: The search.
        winner: Its winner.
    """
    evaluation = result.spec.evaluation
    ball: dict[str, Any] = {"norm": evaluation.norm}
    if str(training.get("norm", evaluation.norm)).lower() == evaluation.norm.lower():  # else: no radius in that norm
        ball["epsilon"] = evaluation.epsilon
    return {**ball, **{key: hyperparameter_value(winner, key) for key in RECIPE}, **training}


def explain_differences(candidates: Sequence[Candidate], result: SearchResult) -> list[str]:
    """Return a sentence for each of the user's configurations that trains in another ball or schedule.

    Args:
        candidates: All candidates, the winner first.
        result: The search.
    """
    winner, evaluation = candidates[0], result.spec.evaluation
    assert winner.config is not None, winner.name
    schedule = {key: hyperparameter_value(winner.config, key) for key in SCHEDULE}
    sentences = []
    for candidate in candidates:
        if candidate.kind != "candidate" or candidate.config is None:
            continue
        config = candidate.config
        if config.attack != "none" and (config.norm, config.epsilon) != (evaluation.norm, evaluation.epsilon):
            trained, judged = (format_radius(it.epsilon, it.norm) for it in (config, evaluation))
            sentences.append(f"{candidate.name} is trained at {trained}, and judged at {judged}")
        own = {key: value for key in SCHEDULE if (value := hyperparameter_value(config, key)) != schedule[key]}
        if own:
            others = format_hyperparameters({key: schedule[key] for key in own})
            sentences.append(f"{candidate.name} has {format_hyperparameters(own)}; {winner.name} has {others}")
    return sentences


def _read_network(name: str, source: str, result: SearchResult, test: Examples, num_classes: int) -> Candidate:
    """Return a trained network as a candidate; its file is named by its absolute path, as processes of Ray need it."""
    spec = result.spec
    trained = load_trained(source, dataset=spec.data.dataset, norm=spec.evaluation.norm)
    rehearse_network(name, trained, test, num_classes)
    digest = digest_network(trained.network, test).hexdigest()[:DIGEST_LENGTH]
    path, reference = split_reference(source)
    where = source if trained.file is None else f"{path.absolute()}{reference and '@'}{reference}"
    return Candidate(name, "candidate", None, f"judged as it is: {trained.origin}", trained=where, digest=digest)
