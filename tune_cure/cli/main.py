"""Entry point: parses the command line, runs one command and returns its exit code.

Only this room writes to the terminal. The module of a command is imported when that command is named.

Exit codes:
    0: done.
    1: ran, but no trial succeeded, or something else than the search ended it: a full disk, a dead Ray, a
        pipe whose reader has gone.
    2: bad input; one line says what is wrong, and nothing was started.
    75: a time budget ended a search that has more to do; `--resume` continues it.
    130: interrupted by Ctrl-C; the state is saved. After SIGTERM it is 143, after SIGHUP 129.
"""

import argparse
import importlib
import importlib.metadata
import itertools
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import NoReturn

from tune_cure.cli.views.interruption import EXIT_CODE
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.files import DiskError, FolderError, describe_disk_fault, describe_path_fault
from tune_cure.utils.formatting import join_words
from tune_cure.utils.registry import did_you_mean
from tune_cure.utils.signals import StopSignals, WorkLeftBehindError, ignore_ctrl_c, leave_closed_pipes

COMMANDS = {
    "search": "search the space of a YAML file",
    "train": "train one network, without Ray",
    "league": "search several methods on equal budgets, and say which is best",
    "confirm": "retrain a search's winners over seeds, and judge them on the test set",
    "evaluate": "judge trained networks of any origin, as they are, on the same test images",
    "compare": "show searches side by side, and which found the better winner",
    "export": "put a search's best model into a folder to give away, with a model card",
    "report": "rebuild the tables and the report of a run from what is on disk",
    "replay": "show what ASHA with other numbers would have done to a finished search",
    "watch": "show a search that runs in another terminal",
    "schema": "write the JSON schema of a search space, for editors",
}
"""Each command with its line in the help; the module of the same name has add_arguments, read_options and run."""

SHELLS = ("bash", "zsh", "fish")
"""Shells in which command lines can be completed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    try:
        return _handle_errors(list(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:  # of a socket, unless the reader of what is printed has gone: | head
        if not leave_closed_pipes():
            raise
        return DiskError.exit_code
    finally:
        leave_closed_pipes()


def _handle_errors(words: list[str]) -> int:
    """Run a command line and return its exit code; say errors of users, of the disk and of the search in one line."""
    with StopSignals() as signals:
        try:
            code = _run(words)
            if sys.stdout:  # None where the shell has closed it: >&-
                sys.stdout.flush()
        except TuneCureError as error:
            print(f"tune-cure: {error}", file=sys.stderr)
            return error.exit_code
        except OSError as error:
            if not (fault := describe_disk_fault(error) or describe_path_fault(error)):
                raise
            print(f"tune-cure: {fault}", file=sys.stderr)
            return FolderError.exit_code if describe_path_fault(error) else DiskError.exit_code
        except WorkLeftBehindError:  # it may crash while Python and Ray tidy up
            leave_closed_pipes()
            os._exit(signals.exit_code)
        except KeyboardInterrupt as error:
            ignore_ctrl_c()
            print(f"tune-cure: {str(error) or 'interrupted'}", file=sys.stderr)
            code = EXIT_CODE
        if code != EXIT_CODE:
            return code
        ignore_ctrl_c()
        return signals.exit_code


def _run(words: list[str]) -> int:
    parsed = _parse(words)
    # Imported after the help and the errors of the command line, which do not need rich.
    from tune_cure.cli.views.console import SafeConsole, SafeFormatter, TerminalHandler

    # [x] in a file name is no markup
    console = SafeConsole(soft_wrap=True, highlight=False, markup=False, quiet=parsed.quiet)
    handler = TerminalHandler()
    handler.setFormatter(SafeFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO if parsed.verbose else logging.WARNING)
    logging.getLogger("tune_cure").setLevel(logging.WARNING if parsed.quiet else logging.INFO)
    command = _module(parsed.command)
    return int(command.run(command.read_options(parsed), console))


def _parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; exit with one line if it is wrong."""
    named = next((word for word in words if not word.startswith("-")), "")
    parser, commands = _build_parsers([named])
    if named in commands:
        suggest = getattr(_module(named), "suggest_setting", None)
        _refuse_unknown_flags(words[words.index(named) + 1 :], commands[named], suggest)
    elif list(words[:1]) == [named]:
        hint = did_you_mean(named, COMMANDS) or f"; commands are {', '.join(COMMANDS)}"
        parser.error(f"unknown command {named!r}{hint}")
    parsed, unknown = parser.parse_known_args(words)
    if unknown:
        parsed.parser.error(f"unknown argument {unknown[0]}")
    return parsed


def _refuse_unknown_flags(
    words: Iterable[str], parser: argparse.ArgumentParser, suggest: Callable[[str, str], str] | None
) -> None:
    """Exit with an error for a flag that the command does not take, before its value can be taken for another word.

    Args:
        words: What follows the command's name.
        parser: The command's parser.
        suggest: Returns a hint for an unknown flag and its value, or an empty text. Then the hint names the flags that
            begin like the unknown one, or else the nearest flag.
    """
    words = list(itertools.takewhile(lambda word: word != "--", words))
    flags = [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        flag, _, value = word.partition("=")
        if flag.startswith("--") and flag not in flags:
            value = value or following * (not following.startswith("-"))
            hint = suggest(flag, value) if suggest else ""
            longer = join_words((repr(known) for known in flags if known.startswith(flag)), "or")
            hint = hint or (f"; did you mean {longer}?" if longer else did_you_mean(flag, flags))
            parser.error(f"unknown argument {word}{hint}")


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def build_parser(detailed: Iterable[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """Build the parser of the whole command line.

    Args:
        detailed: The commands that get their arguments; their modules are imported. Each other command has only its
            name and its line in the help.

    Returns:
        A parser whose result has `command`, the name, and `parser`, the parser of that command.
    """
    return _build_parsers(detailed)[0]


def _build_parsers(detailed: Iterable[str]) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser of the whole command line, and the parsers of its commands by their names."""
    parser = _Parser(prog="tune-cure", description="Hyperparameter search for FGSM+CURE adversarial training.")
    parser.add_argument(
        "--version", action=_Version, nargs=0, dest=argparse.SUPPRESS, help="print the version and exit"
    )
    completion_help = f"print what completes commands and flags in a shell: {', '.join(SHELLS)}"
    parser.add_argument(
        "--print-completion",
        action=_Completion,
        choices=SHELLS,
        metavar="SHELL",
        default=argparse.SUPPRESS,
        dest=argparse.SUPPRESS,
        help=completion_help,
    )
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    detailed = set(detailed)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, allow_abbrev=False)
        subparser.set_defaults(command=name, parser=subparser)
        if name in detailed:
            _module(name).add_arguments(subparser)
            loudness = subparser.add_mutually_exclusive_group()
            loudness.add_argument("--verbose", action="store_true", help="show what Ray, Optuna and torch say")
            loudness.add_argument("--quiet", action="store_true", help="print warnings and errors only")
    return parser, dict(subparsers.choices)


class _Completion(argparse.Action):
    """Prints the script that completes command lines in a shell, for which all commands are imported."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: object, shell: object, *_: object) -> NoReturn:
        from tune_cure.cli.views.shell_completion import write_completion

        print(write_completion(build_parser(), str(shell)))
        parser.exit()


class _Version(argparse.Action):
    """Prints the version, which is read from the installed package only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        try:
            version = importlib.metadata.version("tune-cure")
        except importlib.metadata.PackageNotFoundError:
            version = "of a checkout that is not installed"
        print(f"tune-cure {version}")
        parser.exit()


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"tune_cure.cli.{command}")
