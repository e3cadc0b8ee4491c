"""Completion of commands, flags, names and files in a shell: a static script, so that Tab starts no Python."""

import argparse
from collections.abc import Iterator
from typing import Any

from tune_cure.search.space import bundled_spaces
from tune_cure.training.config import HYPERPARAMETERS, config_class
from tune_cure.training.presets import METHOD, METHODS
from tune_cure.utils.environment import require
from tune_cure.utils.schema import choices

_SPACES = {
    "bash": """
_tune_cure_spaces() {{
  compgen -W "{names}" -- $1
  compgen -f -X "!*.yaml" -- $1
  compgen -d -- $1
}}
""",
    "zsh": """
_tune_cure_spaces() {{
  _alternative "spaces:bundled space:({names})" "files:file:_files -g '*.yaml'"
}}
""",
    "fish": """
function _tune_cure_spaces
  printf '%s\\n' {names}
  __fish_complete_suffix .yaml
end
""",
}
"""Functions of the shells that complete a search space: a bundled one, or a file."""


def write_completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script that completes a command line in a shell.

    Args:
        parser: The parser of the whole command line; what completes each argument is added to it.
        shell: bash, zsh or fish.

    Raises:
        MissingPackageError: The package shtab is not installed.
    """
    require("shtab", "--print-completion")
    import shtab

    names = " ".join(bundled_spaces.bundled())
    functions = {name: code.format(names=names) for name, code in _SPACES.items()}
    spaces = {"bash": "_tune_cure_spaces", "zsh": "_tune_cure_spaces", "fish": "(_tune_cure_spaces)"}
    values = _names()
    completed: Any
    for action in _arguments(parser):
        if action.dest == "space":
            completed = {**spaces, "preamble": functions}
        elif found := values.get(action.dest):
            completed = shtab.cmd(" ".join(["printf '%s\\n'", *found]))
        elif action.metavar == "FOLDER":
            completed = shtab.DIRECTORY
        elif action.metavar in ("FILE", "MODEL"):
            completed = shtab.FILE
        else:
            continue
        action.complete = completed  # type: ignore[attr-defined]
    return shtab.complete(parser, shell)


def _arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of all commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _arguments(command)
        else:
            yield action


def _names() -> dict[str, list[str]]:
    """Return the names that the flags of `train` take, by their destinations."""
    fields = config_class().model_fields
    found = {f"training.{key}": choices(fields[name]) for key, name in HYPERPARAMETERS.items()}
    return found | {f"training.{METHOD}": list(METHODS)}
