"""The command `export`: puts a trained network into a folder to give away."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from tune_cure.cli import options as command_line
from tune_cure.cli.options import UsageError
from tune_cure.cli.views.console import alert
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.search.space.own_parts import import_chosen_parts
from tune_cure.utils.environment import require

if TYPE_CHECKING:
    from tune_cure.reports.export.bundle import ExportedModel


@dataclass(frozen=True)
class ExportOptions:
    """Command line of `export`.

    Attributes:
        directory: The folder of the search.
        to: The folder to write; empty, or not there yet.
        confirmed: Name of a network that `confirm` has trained; None exports the best model of the search.
        seed: Which seed of `confirmed`; None is its first.
        trust_code: Import the code of a network of the user's own, as the search's folder names it.
        parts: The file of the user's own parts; it is imported.
    """

    directory: Path
    to: Path
    confirmed: str | None
    seed: int | None
    trust_code: bool = False
    parts: Path | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Writes weights (safetensors), sizes, a loader that needs torch alone, and a model card with what was measured "
        "on exactly these weights."
    )
    parser.epilog = "without --confirmed: the best model of the search, judged on validation images only"
    parser.add_argument("directory", type=Path, metavar="FOLDER", help="the search's folder")
    parser.add_argument(
        "--to", "--output", type=Path, required=True, metavar="FOLDER", help="where to: empty, or not there yet"
    )
    parser.add_argument("--confirmed", metavar="NAME", help="a network that `confirm` has trained: trial-11, fgsm")
    parser.add_argument("--seed", type=int, metavar="N", help="which of its seeds (default: the first)")
    trust_help = (
        "import the code of a network of your own (model: my_nets:mlp, or parts:): only for a folder that you trust"
    )
    parser.add_argument("--trust-code", action="store_true", help=trust_help)
    parser.add_argument("--parts", type=Path, metavar="FILE", help=command_line.PARTS_HELP)


def read_options(parsed: argparse.Namespace) -> ExportOptions:
    """Return a parsed command line as options."""
    return command_line.read(ExportOptions, parsed)


def run(options: ExportOptions, console: Console) -> int:
    """Run the command and return its exit code."""
    if options.seed is not None and options.confirmed is None:
        raise UsageError("--seed: makes no difference without --confirmed")
    bundle = export(
        options.directory,
        options.to,
        confirmed=options.confirmed,
        seed=options.seed,
        trust_code=options.trust_code,
        parts=options.parts,
    )
    console.print(f"wrote {options.to}: {bundle.description}")
    for warning in bundle.warnings:
        alert(console, f"warning: {warning}", style="bold")
    if not bundle.is_confirmed:
        console.print("its accuracies are those on the validation images that chose it; the model card says so")
    return 0


def export(
    search: SearchResult | str | Path,
    to: str | Path,
    *,
    confirmed: str | None = None,
    seed: int | None = None,
    trust_code: bool = False,
    parts: str | Path | None = None,
) -> "ExportedModel":
    """Write a trained network into a folder to give away: weights, a loader that needs torch alone, a model card.

    Args:
        search: The search, or its folder.
        to: The folder to write; empty, or not there yet.
        confirmed: Name of a network that `confirm` has trained: `trial-11`. None exports the search's best model.
        seed: Which seed of `confirmed`; None is its first.
        trust_code: Import the code of a network of your own, as the search's folder names it.
        parts: The file of your own parts, which is imported.

    Returns:
        What was exported: `description`, `measured` (its accuracies), `warnings`, and more.

    Raises:
        TuneCureError: There is no such network, or the folder is not free.
    """
    if seed is not None and confirmed is None:
        raise UsageError("seed: makes no difference without confirmed")
    require("safetensors", "an exported network")
    from tune_cure.reports.export import bundle as exporting, model_card  # imports torch

    result = SearchResult(command_line.folder_of(search))
    if trust_code or parts:
        given = None if parts is None else Path(parts)
        import_chosen_parts(result.spec.parts, result.directory / run_files.SPEC, given)
    if confirmed is None:
        exported = exporting.collect_search_model(result, trust_code=trust_code)
    else:
        exported = exporting.collect_confirmed_model(result, confirmed, seed, trust_code=trust_code)
    exporting.write_bundle(exported, model_card.build_model_card(exported), result.directory, Path(to))
    return exported
