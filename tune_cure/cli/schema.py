"""The command `schema`: the JSON schema of a search space, by which editors complete keys and mark mistakes."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tune_cure.cli import options as command_line
from tune_cure.cli.options import UsageError
from tune_cure.search.space.own_parts import import_chosen_parts
from tune_cure.utils.files import refuse_foreign_file, replace_text

MARK = '"title": "Search space of tune-cure"'  # near the beginning of what the command has written


@dataclass(frozen=True)
class SchemaOptions:
    """Command line of `schema`.

    Attributes:
        output: The file to write; None prints the schema.
        parts: The file of the user's own parts, whose names and hyperparameters the schema then knows.
    """

    output: Path | None = None
    parts: Path | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Writes the JSON schema of a search space's YAML file. Editors with a YAML language server complete keys and "
        "names by it, and mark mistakes. It knows the parts that installed packages add."
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write it there (default: print it)")
    parser.add_argument("--parts", type=Path, metavar="FILE", help="the file of your own parts, which is imported")


def read_options(parsed: argparse.Namespace) -> SchemaOptions:
    """Return a parsed command line as options."""
    return command_line.read(SchemaOptions, parsed)


def run(options: SchemaOptions, console: Console) -> int:
    """Run the command and return its exit code."""
    from tune_cure.search.space.json_schema import build_json_schema

    if options.parts:
        import_chosen_parts([], options.parts, options.parts)
    text = json.dumps(build_json_schema(), indent=1) + "\n"
    if options.output is None:
        print(text, end="")
        return 0
    try:
        refuse_foreign_file("--output", options.output, MARK)
        replace_text(options.output, text)
    except OSError as error:
        raise UsageError(f"--output {options.output}: cannot be written: {error.strerror}") from error
    modeline = f"# yaml-language-server: $schema={options.output.name}"
    console.print(f"wrote {options.output}; a search space beside it begins with the line\n  {modeline}")
    return 0
