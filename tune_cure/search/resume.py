"""Continuing a search: whether it is still the same one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tune_cure.search import results
from tune_cure.search.journal import Journal, JournalError
from tune_cure.search.patience import is_search_over
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.yaml_config import by_path, differences, parse

HARMLESS = ("search.trials", "search.patience", "search.retries", "resources.", "rescore.", "data.root")
"""Keys, or the beginnings of keys, whose change leaves trials before and after it comparable."""
OF_A_TRIAL = ("data.", "model.", "training.", "evaluation.", "search.seed")
"""Those that change what a trial computes: one that was under way cannot go on from its checkpoint."""
FIXED = ("search.metric", "search.mode")
"""What the journal has of each epoch is this metric's value: the trials so far could not be ranked by another."""


class ResumeError(TuneCureError):
    """A search that cannot be continued as asked."""


def refuse_other_search(directory: Path, spec: SearchSpec) -> None:
    """Refuse to begin `spec` in a folder with trials of another search, or of this one before it has ended.

    Without this, the folder would keep the old trials and claim the new settings for them.

    Raises:
        ResumeError: The folder holds such a search.
    """
    if not any(event["event"] == "trial" for event in Journal(directory).read()):
        return
    result = results.SearchResult(directory)
    changes = list(differences(_settings(result.spec), _settings(spec)))
    if changes:
        listed = "; ".join(f"{key} was {before} and is {now}" for key, before, now in changes)
        raise ResumeError(f"{directory}: holds another search: {listed}; name another folder")
    if not is_search_over(result):
        raise ResumeError(f"{directory}: holds this search, which has not ended; to continue it, resume it")


def prepare(directory: Path, spec: SearchSpec, *, force: bool, say: Callable[[str], None]) -> None:
    """Makes the run in `directory` ready to be continued as `spec`; what has changed since it was begun is said.

    Args:
        directory: The run's folder.
        spec: The search as asked for now.
        force: Continue although trials before and after will not be comparable; the journal then records the change.
        say: Told of changes, in one line.

    Raises:
        ResumeError: There are such changes, without `force`; or what is optimised has changed; or a trial is outside of
            the space as it is now.
        JournalError: The journal is damaged.
        ResultsError: The folder holds no search.
    """
    journal = Journal(directory)
    journal.repair()  # before anything is appended: behind half a line it would be lost with that
    _check_trials(journal, spec)
    changes = list(differences(_settings(results.read_spec(directory)), _settings(spec)))
    if not changes:
        return
    listed = "; ".join(f"{key} was {before} and is {now}" for key, before, now in changes)
    serious = [key for key, _, _ in changes if not key.startswith(HARMLESS)]
    if any(key.startswith(FIXED) for key in serious):
        raise ResumeError(
            f"{directory}: optimises something else: {listed}; begin a new search, which learns from this one by "
            "search.warm_start"
        )
    if serious and not force:
        raise ResumeError(
            f"{directory}: is of another search: {listed}; begin a new one, or continue all the same with --force"
        )
    say(f"changed since the search was begun: {listed}")
    if serious:
        restart = any(key.startswith(OF_A_TRIAL) for key in serious)
        if restart:
            say("trials that were under way begin anew")
        journal.append("change", None, settings=listed, restart=restart)


def _check_trials(journal: Journal, spec: SearchSpec) -> None:
    """Whether the study can be made anew from the journal: with all trials from 0 on, each within the space."""
    proposed = {event["trial"]: event["hyperparameters"] for event in journal.read() if event["event"] == "trial"}
    missing = set(range(len(proposed))) - proposed.keys()
    if missing:
        raise JournalError(f"{journal.path}: trial {min(missing)} was never begun, but trial {max(proposed)} was")
    for number, hyperparameters in proposed.items():
        for key, value in hyperparameters.items():
            if key not in spec.space or not spec.space[key].contains(value):
                space = f"space.{key}, {spec.space[key]}" if key in spec.space else "space, which lacks it"
                raise ResumeError(
                    f"{journal.path}: {key} {value} of trial {number} is outside of {space}; begin a new search, which "
                    "learns from this one by search.warm_start"
                )


def _settings(spec: SearchSpec) -> dict[str, Any]:
    """Every setting of a search, defaults too, by the path of its key."""
    return by_path(parse(spec.to_yaml())) | {f"space.{key}": str(of) for key, of in spec.space.items()}
