"""Candidates of the user's own in a confirmation: configurations to retrain, and trained networks to judge as they are.

A configuration is a YAML file with the keys of a training run or its hyperparameters alone, or a row of a search's
table: `results/A/best_config.csv`, `results/A/trials.csv:7`. A trained network is named as in `trained_networks`.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tune_cure.confirmation.candidates import Candidate
from tune_cure.confirmation.judgement import digest_network
from tune_cure.confirmation.trained_networks import load_trained, rehearse_network
from tune_cure.data.splits import Examples
from tune_cure.search.results import SearchResult
from tune_cure.search.space import trial_config
from tune_cure.training import run as training_run
from tune_cure.training.presets import expand_method
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.yaml_config import ProblemError

CONFIGURATION = re.compile(r"(?P<file>.+\.(?:ya?ml|csv))(?::(?P<trial>\d+))?")
NAME = re.compile(r"[A-Za-z0-9_.-]+")
DIGEST_LENGTH = 12


class OwnCandidateError(TuneCureError):
    """A candidate on the command line that cannot be used."""


def read_own_candidates(
    texts: Sequence[str], result: SearchResult, others: Iterable[Candidate], test: Examples, num_classes: int
) -> list[Candidate]:
    """Return the candidates that a command line names, in its order; `NAME=…` gives one its name.

    Args:
        texts: The words of the command line.
        result: The search. A configuration without a network of its own is trained with the search's.
        others: The leaders and baselines, whose names are taken.
        test: Test images; trained networks classify two of them.
        num_classes: The number of classes.

    Raises:
        TuneCureError: One cannot be read, or its name is taken.
    """
    names = {candidate.name for candidate in others}
    candidates = []
    for text in texts:
        given, separator, rest = text.partition("=")
        is_named = bool(separator) and NAME.fullmatch(given) is not None
        source = rest if is_named else text
        name = given if is_named else _default_name(source)
        if not NAME.fullmatch(name) or name in names:
            problem = "is taken" if name in names else "has other characters than letters, digits, _, . and -"
            raise OwnCandidateError(f"--candidates {text}: the name {name!r} {problem}; give another: NAME={source}")
        names.add(name)
        match = CONFIGURATION.fullmatch(source)
        if match:
            trial = None if match["trial"] is None else int(match["trial"])
            candidates.append(_read_configuration(name, Path(match["file"]), trial, result))
        else:
            candidates.append(_read_network(name, source, result, test, num_classes))
    return candidates


def _default_name(source: str) -> str:
    """Return a name: `A` of results/A/best_config.csv, `A-7` of results/A/trials.csv:7, else that of the file."""
    if source.startswith("robustbench:"):
        return source.partition(":")[2]
    match = CONFIGURATION.fullmatch(source)
    path = Path(match["file"] if match else source.rpartition("@")[0] or source).absolute()
    is_common = path.stem in ("best_config", "trials", "config", "best_model", "model")
    name = path.parent.name if is_common else path.stem
    return f"{name}-{match['trial']}" if match and match["trial"] else name


def _read_configuration(name: str, file: Path, trial: int | None, result: SearchResult) -> Candidate:
    """Return a configuration as a candidate."""
    content = trial_config.read(file, trial)
    has_network = "model" in content
    try:
        if isinstance(content.get("training"), dict):
            content["training"] = expand_method(content["training"])
        run = training_run.resolve(content)
    except ProblemError as problem:
        raise problem.within(file) from problem
    row = "" if trial is None else f", trial {trial}"
    model = run.model if has_network and run.model != result.spec.model else None
    network = "" if model is None else f", with the network {model.name}"
    return Candidate(name, "candidate", run.training, f"the configuration in {file}{row}{network}", model=model)


def _read_network(name: str, source: str, result: SearchResult, test: Examples, num_classes: int) -> Candidate:
    """Return a trained network as a candidate; its file is named by its absolute path, as processes of Ray need it."""
    spec = result.spec
    trained = load_trained(source, dataset=spec.data.dataset, norm=spec.evaluation.norm)
    rehearse_network(name, trained, test, num_classes)
    digest = digest_network(trained.network, test).hexdigest()[:DIGEST_LENGTH]
    path, separator, reference = source.rpartition("@") if "@" in source else (source, "", "")
    where = source if trained.file is None else f"{Path(path).absolute()}{separator}{reference}"
    return Candidate(name, "candidate", None, f"judged as it is: {trained.origin}", trained=where, digest=digest)
