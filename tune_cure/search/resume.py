"""Check whether an interrupted search may be resumed with the settings that are asked for now."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tune_cure.search import results, run_files
from tune_cure.search.journal import Event, Journal, JournalContent, JournalError, drop_running
from tune_cure.search.patience import is_search_over
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.configurations import identify
from tune_cure.search.space.distributions import Distribution
from tune_cure.search.trial_table import SearchRecord
from tune_cure.utils import locking
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.formatting import format_count
from tune_cure.utils.yaml_config import by_path, describe_differences, differences
from tune_cure.utils.yaml_parser import parse

HARMLESS = (
    "parts",
    "search.trials",
    "search.patience",
    "search.budget_",
    "search.retries",
    "resources.",
    "rescore.",
    "data.root",
)
"""Keys, or beginnings of keys, that may change: trials before and after the change stay comparable."""
RESTARTING = ("data.", "model.", "training.", "evaluation.", "search.seed")
"""Keys that decide what a trial computes: after a change, running trials cannot continue from their checkpoints."""
RUNG_KEYS = ("asha.", "search.scheduler", "search.seed", "search.on_collapse", "training.epochs", "space.epochs")
"""Keys, or beginnings of keys, by which the control group finds in the journal what the rungs decided."""
FIXED = ("search.metric", "search.mode")
"""Keys that cannot change: the journal holds this metric's values alone, so that old trials could not be ranked."""
BEGIN_ANEW = "begin a new search, which learns from this one by search.warm_start"


class ResumeError(TuneCureError):
    """A search that cannot be continued as asked."""


def is_unbegun(directory: Path) -> bool:
    """Return whether a folder holds a search that ended before its first trial, and that no process runs now.

    A search locks its folder, then writes spec.yaml and environment.json. A folder with other files and without
    spec.yaml is somebody else's.
    """
    if not locking.is_unlocked(directory):
        return False
    names = {path.name for path in directory.iterdir()}
    if run_files.SPEC not in names:
        return names <= {locking.LOCK_FILE, run_files.ENVIRONMENT}
    if run_files.JOURNAL not in names:
        return True
    with (directory / run_files.JOURNAL).open("rb") as lines:
        return not any(b'"event": "trial"' in line for line in lines)


def refuse_other_search(directory: Path, spec: SearchSpec) -> None:
    """Refuse to begin `spec` in a folder with trials of another search, or of this one before it has ended.

    Without this, the folder would keep the old trials and claim the new settings for them.

    Raises:
        ResumeError: The folder holds such a search.
    """
    record = SearchRecord(Journal(directory).load())
    if record.events:
        refuse_other_result(results.SearchResult(directory, record=record), spec)


def refuse_other_result(result: results.SearchResult, spec: SearchSpec) -> None:
    """Refuse to begin `spec` where `result` is another search, or this one before it has ended.

    Raises:
        ResumeError: It is.
    """
    directory = result.directory
    changes = _find_changes(result.spec, spec)
    if changes:
        listed = describe_differences(changes)
        raise ResumeError(f"{directory}: holds another search: {listed}; name another folder")
    if not is_search_over(result):
        raise ResumeError(f"{directory}: holds this search, which has not ended; to continue it, resume it")


def prepare(directory: Path, spec: SearchSpec, *, force: bool, say: Callable[[str], None]) -> SearchRecord:
    """Check that the search in `directory` can be resumed as `spec`, and record changes of settings in its journal.

    An end of the journal that a crash damaged is cut off.

    Args:
        directory: The run's folder.
        spec: The search as asked for now.
        force: Resume although trials before and after the changes are not comparable.
        say: Called with one line for each remark on the changes.

    Returns:
        What the journal says then. Its history is the events of trials that the resumed search builds on.

    Raises:
        ResumeError: There are such changes without `force`; or the metric has changed; or a trial is outside of the
            space as it is now, or lacks one of its hyperparameters; or start_from has another configuration, or lacks
            one; or the control group would misread what the rungs decided.
        SpecError: Another `search.warm_start` cannot be read.
        JournalError: The journal is damaged.
        ResultsError: The folder holds no search.
    """
    journal = Journal(directory)
    content = journal.load(repair=True)  # an event that is appended behind half a line would be lost
    _check_trials(journal.path, content.trial_events, spec)
    before = results.read_spec(directory)
    changes = _find_changes(before, spec)
    if not changes:
        return SearchRecord(content)
    listed = describe_differences(changes)
    serious = [key for key, _, _ in changes if not key.startswith(HARMLESS)]
    if any(key.startswith(FIXED) for key in serious):
        raise ResumeError(f"{directory}: optimizes something else: {listed}; {BEGIN_ANEW}")
    if serious and not force:
        raise ResumeError(
            f"{directory}: is of another search: {listed}; begin a new one, or continue all the same with --force"
        )
    say(f"changed since the search was begun: {listed}")
    if not serious:
        return SearchRecord(content)
    _check_change(journal.path, content.trial_events, spec)
    _check_rungs(journal.path, content.trial_events, before, spec, changes)
    if "search.warm_start" in serious:
        _replace_prior_trials(directory, spec)
    restart = any(key.startswith(RESTARTING) for key in serious)
    if restart:
        say("trials that were under way begin anew")
    change = journal.append("change", None, settings=listed, restart=restart)
    history = drop_running(content.trial_events) if restart else content.trial_events
    return SearchRecord(JournalContent(history, [*content.search_events, change]))


def reads_other_prior_trials(directory: Path, spec: SearchSpec) -> bool:
    """Return whether `spec` names another `search.warm_start` than the search in `directory`, if there is a search."""
    if not spec.search.warm_start or not (directory / run_files.SPEC).is_file():
        return False
    return results.read_spec(directory).search.warm_start != spec.search.warm_start


def _replace_prior_trials(directory: Path, spec: SearchSpec) -> None:
    """Replace the trials of `search.warm_start` that a run's folder keeps, once the new ones have been read.

    Raises:
        SpecError: The new ones cannot be read; the old ones are kept.
    """
    if spec.search.warm_start:
        from tune_cure.search.proposals import warm_start  # imports Optuna

        warm_start.keep_prior_trials(spec, directory, is_begun=False)
    else:
        (directory / run_files.PRIOR_TRIALS).unlink(missing_ok=True)


def _check_trials(path: Path, history: Iterable[Event], spec: SearchSpec) -> None:
    """Check that the study can be rebuilt: trials are numbered from 0 without a gap, and each is within the space."""
    proposed = {event["trial"]: event["hyperparameters"] for event in history if event["event"] == "trial"}
    missing = set(range(len(proposed))) - proposed.keys()
    if missing:
        raise JournalError(f"{path}: trial {min(missing)} was never begun, but trial {max(proposed)} was")
    for number, hyperparameters in proposed.items():
        for key, value in hyperparameters.items():
            if key not in spec.space or not spec.space[key].contains(value):
                space = f"space.{key}, {spec.space[key]}" if key in spec.space else "space, which lacks it"
                raise ResumeError(f"{path}: {key} {value} of trial {number} is outside of {space}; {BEGIN_ANEW}")


def _check_change(path: Path, history: Iterable[Event], spec: SearchSpec) -> None:
    """Check that changed settings leave each trial its configuration, and the trials of start_from the first ones."""
    proposed = [event for event in history if event["event"] == "trial"]
    for event in proposed:
        try:
            spec.propose(event["hyperparameters"].__getitem__)
        except KeyError as error:
            lack = f"trial {event['trial']} was trained without a value for space.{error.args[0]}"
            raise ResumeError(f"{path}: {lack}, which makes a difference in it; {BEGIN_ANEW}") from error
    started = [event["hyperparameters"] for event in proposed if event["origin"] == "start_from"]
    for number, (now, before) in enumerate(zip(spec.start_from, started, strict=False)):
        if identify(spec, now) != identify(spec, before):
            raise ResumeError(f"{path}: start_from[{number}] is not what trial {number} was trained with; {BEGIN_ANEW}")
    if len(started) > len(spec.start_from) or len(started) < min(len(spec.start_from), len(proposed)):
        changed = f"start_from has {format_count(len(spec.start_from), 'configuration')}, but the search began with"
        raise ResumeError(f"{path}: {changed} {len(started)}; {BEGIN_ANEW}")


def _check_rungs(
    path: Path, history: Iterable[Event], before: SearchSpec, spec: SearchSpec, changes: Iterable[tuple[str, Any, Any]]
) -> None:
    """Check that the control group reads what the rungs decided so far by the settings that they decided by."""
    decisive = [change for change in changes if change[0].startswith(RUNG_KEYS)]
    if not (spec.asha.control and spec.rungs and decisive):
        return
    first = min([*before.rungs, *spec.rungs])
    if any(event["event"] == "epoch" and event["epoch"] >= first for event in history):
        need = "trials have reached a rung, and the control group can judge only rungs that decide alike in all trials"
        changed = describe_differences(decisive)
        raise ResumeError(f"{path}: {changed}, but {need}; {BEGIN_ANEW}, or give up the group by asha.control: 0")


def _find_changes(before: SearchSpec, now: SearchSpec) -> list[tuple[str, Any, Any]]:
    """Return every setting that differs: the path of its key, the value before and the value now.

    Defaults are included. A distribution is given in words, which have all digits where it would look the same.
    """
    settings = (by_path(parse(spec.to_yaml())) for spec in (before, now))
    return [
        (path, *_in_words(path.removeprefix("space."), before, now)) if path.startswith("space.") else (path, *values)
        for path, *values in differences(*settings)
    ]


def _in_words(key: str, before: SearchSpec, now: SearchSpec) -> tuple[str, str]:
    """Return the distribution of a hyperparameter before and now."""
    first, second = (spec.space.get(key, "absent") for spec in (before, now))
    if isinstance(first, Distribution) and isinstance(second, Distribution) and str(first) == str(second):
        return first.exact_words, second.exact_words
    return str(first), str(second)
