"""Continuing a search: whether it is still the same one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tune_cure import results
from tune_cure.journal import Journal
from tune_cure.reading import parse
from tune_cure.spec import SearchSpec

HARMLESS = ("search.trials", "search.patience", "search.retries", "resources.", "rescore.", "data.root")
"""Keys, or the beginnings of keys, whose change leaves trials before and after it comparable."""
OF_A_TRIAL = ("data.", "model.", "training.", "evaluation.", "search.seed")
"""Those that change what a trial computes: one that was under way cannot go on from its checkpoint."""


class ResumeError(ValueError):
    """A search that cannot be continued as asked. Its text is one line."""


def prepare(directory: Path, spec: SearchSpec, *, force: bool, say: Callable[[str], None]) -> None:
    """Makes the run in `directory` ready to be continued as `spec`; what has changed since it was begun is said.

    Args:
        directory: The run's folder.
        spec: The search as asked for now.
        force: Continue although trials before and after will not be comparable; the journal then records the change.
        say: Told of changes, in one line.

    Raises:
        ResumeError: There are such changes, without `force`.
        ResultsError: The folder holds no search.
    """
    changes = dict(_differences(_flat(results.read_spec(directory)), _flat(spec)))
    if not changes:
        return
    listed = "; ".join(f"{key} was {before} and is {now}" for key, (before, now) in changes.items())
    serious = [key for key in changes if not key.startswith(HARMLESS)]
    if serious and not force:
        raise ResumeError(
            f"{directory}: is of another search: {listed}; begin a new one, or continue all the same with --force"
        )
    say(f"changed since the search was begun: {listed}")
    if serious:
        restart = any(key.startswith(OF_A_TRIAL) for key in serious)
        if restart:
            say("trials that were under way begin anew")
        Journal(directory).append("change", None, settings=listed, restart=restart)


def _flat(spec: SearchSpec) -> dict[str, Any]:
    """Every setting of a search, defaults too, by the path of its key."""
    flat: dict[str, Any] = {}
    for section, content in parse(spec.to_yaml()).items():
        if isinstance(content, dict):
            flat |= {f"{section}.{key}": value for key, value in content.items()}
        else:
            flat[section] = content
    return flat | {f"space.{key}": str(of) for key, of in spec.space.items()}


def _differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for key in [*before, *(key for key in now if key not in before)]:
        if before.get(key) != now.get(key):
            yield key, (before.get(key, "absent"), now.get(key, "absent"))
