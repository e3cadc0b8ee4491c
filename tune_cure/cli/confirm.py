"""The command `confirm`: retrains a search's winners over seeds, and judges them on the test set."""

import argparse
import shlex
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tune_cure.cli import options as command_line
from tune_cure.confirmation.candidates import BASELINES, DEFAULT_BASELINES
from tune_cure.utils.formatting import path_word


@dataclass(frozen=True)
class ConfirmOptions:
    """Command line of `confirm`.

    Attributes:
        directory: The folder of the search.
        top: How many leading configurations are retrained.
        seeds: How many training runs of each.
        baselines: Names from `BASELINES`.
        candidates: Configurations and trained networks of the user's own, as `own_candidates` names them.
        epsilons: Radii to judge at besides that of the search, in pixel units.
        examples: Test images to judge on; None is all.
        train_images: Training images to use; None is all.
        weights: `both` judges the last weights and those of the best epoch, `last` the last ones alone. None goes on
            as the confirmation was begun, and begins with both.
        no_autoattack: Leave AutoAttack out.
        check: Print the plan and start nothing.
        data_root: Folder of the data; None leaves that of the search.
        address: Address of a Ray cluster to join; None starts a Ray on this machine.
        verbose: Show what Ray says.
        parts: The file of the user's own parts; None takes the one that the search was begun with.
    """

    directory: Path
    top: int = 3
    seeds: int = 3
    baselines: tuple[str, ...] = DEFAULT_BASELINES
    candidates: tuple[str, ...] = ()
    epsilons: tuple[float, ...] = ()
    examples: int | None = None
    train_images: int | None = None
    weights: str | None = None
    no_autoattack: bool = False
    check: bool = False
    data_root: str | None = None
    address: str | None = None
    verbose: bool = False
    parts: Path | None = None

    def command(self) -> str:
        """Return this command line as typed in a shell."""
        words = ["confirm", path_word(self.directory), "--top", str(self.top), "--seeds", str(self.seeds)]
        words += ["--baselines", *self.baselines]
        words += ["--candidates", *self.candidates] if self.candidates else []
        words += ["--epsilons", *map(repr, self.epsilons)] if self.epsilons else []
        for flag in ("examples", "train_images", "weights", "data_root", "address", "parts"):
            value = getattr(self, flag)
            words += [f"--{flag.replace('_', '-')}", path_word(str(value))] if value else []
        words += ["--no-autoattack"] * self.no_autoattack
        return f"{command_line.program()} {shlex.join(words)}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Retrains the leading configurations of a search and baselines over several seeds, for their whole schedule, "
        "and judges their last weights and those of the best epoch on the test set: clean, PGD-50-10 and AutoAttack. "
        "The same command continues where it was interrupted; with more seeds or configurations it adds to what is "
        "there."
    )
    parser.epilog = (
        "baselines: start_from (its first configuration), ablation (the winner without the penalty: what the penalty "
        "is worth), fgsm (start_from by FGSM, trained at the radius that it is judged at), pgd (the winner's settings "
        "with PGD adversarial training at that radius), both with the cross-entropy alone. candidates: a "
        "configuration to retrain (FILE.yaml, best_config.csv, trials.csv:7), a method to train untuned (trades, nuat, "
        "…: docs/methods.md) or a trained network to judge as it is (as MODEL of tune-cure evaluate); NAME=FILE gives "
        "it a name"
    )
    parser.add_argument("directory", type=Path, metavar="FOLDER", help="the search's folder")
    _add_what_is_compared(parser)
    _add_how_it_is_done(parser)


def _add_what_is_compared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--top", type=command_line.positive, default=3, metavar="N", help="leading configurations (default: 3)"
    )
    parser.add_argument(
        "--seeds", type=command_line.positive, default=3, metavar="N", help="training runs of each (default: 3)"
    )
    parser.add_argument(
        "--baselines",
        nargs="*",
        choices=BASELINES,
        default=list(DEFAULT_BASELINES),
        metavar="NAME",
        help=f"what they are measured against: {', '.join(BASELINES)} (default: {' '.join(DEFAULT_BASELINES)})",
    )
    candidates_help = "what else is retrained or judged, see below"
    parser.add_argument("--candidates", nargs="*", default=[], metavar="FILE", help=candidates_help)
    epsilons_help = "radii to judge at besides the search's: 4/255"
    parser.add_argument("--epsilons", nargs="*", type=command_line.radius, default=[], metavar="X", help=epsilons_help)


def _add_how_it_is_done(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--examples", type=command_line.several, metavar="N", help="test images to judge on (default: all)"
    )
    parser.add_argument(
        "--train-images", type=command_line.several, metavar="N", help="training images to use (default: all)"
    )
    parser.add_argument(
        "--weights",
        choices=("both", "last"),
        help="both: the last weights and those of the best epoch, chosen on images of the search's validation that are "
        "not trained on; last: the last ones alone, trained on all images (default: both, or as it was begun)",
    )
    parser.add_argument("--no-autoattack", action="store_true", help="leave AutoAttack out: quick, and less certain")
    check_help = "print the plan and how long it takes, and start nothing"
    parser.add_argument("--check", "--dry-run", action="store_true", help=check_help)
    parser.add_argument("--data-root", metavar="FOLDER", help="where the data is")
    parser.add_argument("--address", help="a Ray cluster to join, as for search; its machines must see the folder")
    parser.add_argument("--parts", type=Path, metavar="FILE", help=command_line.PARTS_HELP)


def read_options(parsed: argparse.Namespace) -> ConfirmOptions:
    """Return a parsed command line as options."""
    return command_line.read(ConfirmOptions, parsed)


def run(options: ConfirmOptions, console: Console) -> int:
    """Run the command and return its exit code."""
    from tune_cure.cli.steps import confirm_run  # imports torch: not before the command line is known to be good

    return confirm_run.run(options, console)
