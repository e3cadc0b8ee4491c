"""The command `export`: what it takes, what it prints."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from tune_cure.search.results import SearchResult


def add_parser(commands: Any) -> None:
    """Adds the command to an argument parser's subcommands."""
    parser = commands.add_parser(
        "export",
        help="put a search's best model into a folder to give away, with a model card",
        description="Writes weights (safetensors), sizes, a loader that needs torch alone, and a model card with what "
        "was measured of exactly these weights.",
        epilog="without --confirmed: the best model of the search, judged on validation images only",
    )
    parser.add_argument("directory", type=Path, metavar="FOLDER", help="the search's folder")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where to: empty, or not there yet")
    parser.add_argument("--confirmed", metavar="NAME", help="a network that `confirm` has trained: trial-11, fgsm")
    parser.add_argument("--seed", type=int, metavar="N", help="which of its seeds (default: the first)")
    parser.add_argument("--verbose", action="store_true", help="show what Ray says")
    parser.set_defaults(run=export, parser=parser)


def export(options: argparse.Namespace, console: Console) -> int:
    """Runs the command and returns its exit code."""
    from tune_cure.reports.export import bundle as exporting, measurements, model_card

    if options.seed is not None and options.confirmed is None:
        raise measurements.ExportError("--seed: makes no difference without --confirmed")
    result = SearchResult(options.directory)
    if options.confirmed is None:
        found = exporting.collect_search_model(result)
    else:
        found = exporting.collect_confirmed_model(result, options.confirmed, options.seed)
    exporting.write_bundle(found, model_card.build_model_card(found), options.directory, options.to)
    console.print(f"wrote {options.to}: {found.description}")
    for warning in found.warnings:
        console.print(f"warning: {warning}", style="bold")
    if not found.is_confirmed:
        console.print("its accuracies are those on the validation images that chose it; the model card says so")
    return 0
