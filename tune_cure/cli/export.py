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
        onnx: Write the network as ONNX, too.
        robustbench: Write the files of a claim to RobustBench, too.
        push_to_hub: A repository of the Hugging Face Hub to send the folder to; None sends nothing.
        dry_run: Write the folder as it would be sent, and send nothing.
    """

    directory: Path
    to: Path
    confirmed: str | None
    seed: int | None
    trust_code: bool = False
    parts: Path | None = None
    onnx: bool = False
    robustbench: bool = False
    push_to_hub: str | None = None
    dry_run: bool = False


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
    parser.add_argument(
        "--onnx", action="store_true", help="write model.onnx, too, and check that its logits are equal"
    )
    claim_help = "write a claim to RobustBench's leaderboard, too: only of a confirmed network that AutoAttack judged"
    parser.add_argument("--robustbench", action="store_true", help=claim_help)
    hub_help = "send the folder to a repository of the Hugging Face Hub: OWNER/NAME; a new one is private"
    parser.add_argument("--push-to-hub", metavar="REPO", help=hub_help)
    dry_help = "with --push-to-hub: write the folder as it would be sent, and send nothing"
    parser.add_argument("--dry-run", action="store_true", help=dry_help)


def read_options(parsed: argparse.Namespace) -> ExportOptions:
    """Return a parsed command line as options."""
    return command_line.read(ExportOptions, parsed)


def run(options: ExportOptions, console: Console) -> int:
    """Run the command and return its exit code."""
    if options.seed is not None and options.confirmed is None:
        raise UsageError("--seed: makes no difference without --confirmed")
    if options.dry_run and options.push_to_hub is None:
        raise UsageError("--dry-run: makes no difference without --push-to-hub")
    if options.push_to_hub is not None:
        _check_hub(options.push_to_hub)
    bundle = export(
        options.directory,
        options.to,
        confirmed=options.confirmed,
        seed=options.seed,
        trust_code=options.trust_code,
        parts=options.parts,
        onnx=options.onnx,
        robustbench=options.robustbench,
    )
    console.print(f"wrote {options.to}: {bundle.description}")
    for warning in bundle.warnings:
        alert(console, f"warning: {warning}", style="bold")
    if not bundle.is_confirmed:
        console.print("its accuracies are those on the validation images that chose it; the model card says so")
    if options.push_to_hub is not None and options.dry_run:
        names = ", ".join(sorted(file.name for file in options.to.iterdir()))
        console.print(f"dry run: nothing was sent; {options.push_to_hub} would get {names}")
    elif options.push_to_hub is not None:
        from tune_cure.reports.export import hub

        console.print(f"sent to {hub.push(options.to, options.push_to_hub)}")
    return 0


def _check_hub(repository: str) -> None:
    """Refuse a repository's name before anything is written, and a missing package."""
    require("huggingface_hub", "--push-to-hub")
    from tune_cure.reports.export import hub

    hub.check_repository(repository)


def export(
    search: SearchResult | str | Path,
    to: str | Path,
    *,
    confirmed: str | None = None,
    seed: int | None = None,
    trust_code: bool = False,
    parts: str | Path | None = None,
    onnx: bool = False,
    robustbench: bool = False,
    push_to_hub: str | None = None,
) -> "ExportedModel":
    """Write a trained network into a folder to give away: weights, a loader that needs torch alone, a model card.

    Args:
        search: The search, or its folder.
        to: The folder to write; empty, or not there yet.
        confirmed: Name of a network that `confirm` has trained: `trial-11`. None exports the search's best model.
        seed: Which seed of `confirmed`; None is its first.
        trust_code: Import the code of a network of your own, as the search's folder names it.
        parts: The file of your own parts, which is imported.
        onnx: Write model.onnx, too, whose logits are checked to be equal.
        robustbench: Write a claim to RobustBench's leaderboard, too, of a confirmed network.
        push_to_hub: A repository of the Hugging Face Hub to send the folder to; None sends nothing.

    Returns:
        What was exported: `description`, `measured` (its accuracies), `warnings`, and more.

    Raises:
        TuneCureError: There is no such network, it cannot be exported so, the folder is not free, or the Hub refuses.
    """
    if seed is not None and confirmed is None:
        raise UsageError("seed: makes no difference without confirmed")
    require("safetensors", "an exported network")
    if push_to_hub is not None:
        _check_hub(push_to_hub)
    for package in ("onnx", "onnxscript", "onnxruntime") if onnx else ():
        require(package, "--onnx")
    from tune_cure.reports.export import bundle as exporting, claim, hub, model_card, onnx_file  # imports torch

    result = SearchResult(command_line.folder_of(search))
    if trust_code or parts:
        given = None if parts is None else Path(parts)
        import_chosen_parts(result.spec.parts, result.directory / run_files.SPEC, given)
    if confirmed is None:
        exported = exporting.collect_search_model(result, trust_code=trust_code)
    else:
        exported = exporting.collect_confirmed_model(result, confirmed, seed, trust_code=trust_code)
    also = claim.build_claim(exported) if robustbench else {}
    if onnx:
        also[exporting.ONNX] = onnx_file.build_onnx(exported)
    card = model_card.build_model_card(exported, [name for name in model_card.FURTHER_FILES if name in also])
    exporting.write_bundle(exported, card, result.directory, Path(to), also)
    if push_to_hub is not None:
        hub.push(Path(to), push_to_hub)
    return exported
