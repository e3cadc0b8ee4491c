"""The command `league`: searches several methods on equal budgets, then compares their winners."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tune_cure.cli import options as command_line
from tune_cure.league.budget import BudgetUnit
from tune_cure.ray_backend.monitoring.dashboard import LOOPBACK
from tune_cure.search.space import bundled_spaces

DEFAULT_TRIALS = 16


@dataclass(frozen=True)
class LeagueOptions:
    """Command line of `league`.

    Attributes:
        space: A YAML file, or the name of a bundled search space; None with `resume`.
        methods: The methods: METHOD, NAME=METHOD or NAME=FILE.yaml.
        trials: Whole trials that a method of average cost can train with its budget.
        budget_by: What is equal for all methods: seconds or epochs of training.
        settings: Overrides of single keys: `training.epochs=5`.
        data_root: Folder of the data; None leaves `data.root` as it is.
        output: The league's folder; None takes a new folder below results/.
        resume: The folder of a league to continue; None begins one.
        time_budget: Seconds after which the searches end; None is without limit.
        seeds: Trainings of each winner and each untuned preset.
        examples: Test images to judge on; None is all.
        train_images: Training images of the confirmation; None is all.
        no_autoattack: Leave AutoAttack out.
        searches_only: End after the searches.
        check: Print the plan and start nothing.
        address: Address of a Ray cluster to join; None starts a Ray on this machine.
        dashboard_host: Address at which Ray's dashboard listens.
        verbose: Show what Ray and Optuna say.
    """

    space: str | None = None
    methods: tuple[str, ...] = ()
    trials: int = DEFAULT_TRIALS
    budget_by: BudgetUnit = "seconds"
    settings: tuple[str, ...] = ()
    data_root: str | None = None
    output: Path | None = None
    resume: Path | None = None
    time_budget: float | None = None
    seeds: int = 3
    examples: int | None = None
    train_images: int | None = None
    no_autoattack: bool = False
    searches_only: bool = False
    check: bool = False
    address: str | None = None
    dashboard_host: str = LOOPBACK
    verbose: bool = False

    @property
    def overrides(self) -> list[str]:
        """The overrides of single keys of the search space."""
        root = [f"data.root={json.dumps(str(Path(self.data_root).expanduser().absolute()))}"] if self.data_root else []
        return [*self.settings, *root]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Searches the hyperparameters of several methods, each with the same budget of training, in one session of "
        "Ray; then retrains the winners and the untuned presets over seeds, and judges them on the test set."
    )
    parser.epilog = (
        "methods: METHOD (cure, fgsm_rs, …: docs/methods.md), NAME=METHOD (the same under another name), or "
        "NAME=FILE.yaml, whose sections training (with the key method) and space change a method's keys"
    )
    bundled = ", ".join(bundled_spaces.bundled())
    space_help = f"what all methods share: a YAML file, or one that comes with the project: {bundled}"
    parser.add_argument("space", nargs="?", metavar="SPACE", help=space_help)
    parser.add_argument("--methods", nargs="+", default=[], metavar="METHOD", help="who takes part: at least two")
    parser.add_argument(
        "--trials",
        type=command_line.positive,
        metavar="N",
        help=f"whole trials that a method of average cost can train (default: {DEFAULT_TRIALS})",
    )
    budget_help = "what is equal: seconds of training, so that cheap steps earn more trials (default), or epochs"
    parser.add_argument("--budget-by", choices=("seconds", "epochs"), help=budget_help)
    set_help = "override a key of the search space: training.epochs=5"
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=set_help)
    parser.add_argument("--data-root", metavar="FOLDER", help="where the data is: overrides data.root")
    output_help = "the league's folder (default: results/NAME_league)"
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=output_help)
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="continue the league in this folder")
    time_help = "stop the searches after this time; --resume continues (default: no limit)"
    parser.add_argument("--time-budget", type=command_line.duration, metavar="2h", help=time_help)
    seeds_help = "trainings of each winner and each untuned preset (default: 3)"
    parser.add_argument("--seeds", type=command_line.positive, metavar="N", help=seeds_help)
    examples_help = "test images to judge on (default: all)"
    parser.add_argument("--examples", type=command_line.several, metavar="N", help=examples_help)
    images_help = "training images of the retrained networks (default: all)"
    parser.add_argument("--train-images", type=command_line.several, metavar="N", help=images_help)
    autoattack_help = "leave AutoAttack out: quick, and less certain"
    parser.add_argument("--no-autoattack", action="store_true", help=autoattack_help)
    only_help = "end after the searches; --resume goes on with the winners"
    parser.add_argument("--searches-only", action="store_true", help=only_help)
    check_help = "print the plan and start nothing"
    parser.add_argument("--check", "--dry-run", action="store_true", help=check_help)
    address_help = "a Ray cluster to join: auto or HOST:PORT (docs/cluster.md); default: none"
    parser.add_argument("--address", help=address_help)
    host_help = "where Ray's dashboard listens; 0.0.0.0 opens it to other machines; it asks for a token"
    parser.add_argument("--dashboard-host", default=LOOPBACK, metavar="HOST", help=host_help)


def read_options(parsed: argparse.Namespace) -> LeagueOptions:
    """Return a parsed command line as options."""
    if parsed.resume is None and parsed.space is None:
        names = ", ".join(bundled_spaces.bundled())
        parsed.parser.error(f"a search space is needed: a YAML file, or one of {names}")
    if parsed.resume is None and not parsed.methods:
        parsed.parser.error("--methods is needed: --methods cure fgsm_rs n_fgsm")
    if parsed.resume is not None:
        _refuse_new_settings(parsed)
    for key in WITH_DEFAULTS:
        if getattr(parsed, key) is None:
            setattr(parsed, key, getattr(LeagueOptions, key))
    return command_line.read(LeagueOptions, parsed)


WITH_DEFAULTS = ("trials", "budget_by", "seeds")
"""Settings with a default, which the parser leaves out: so a flag that repeats a default is known to be given."""
FIXED = ("space", "methods", *WITH_DEFAULTS, "settings", "output", "examples", "train_images", "no_autoattack")
"""Settings that a league is begun with."""


def _refuse_new_settings(parsed: argparse.Namespace) -> None:
    """Exit with an error where a league that is resumed is asked for other settings."""
    names = {"space": "SPACE", "settings": "--set"}
    for key in FIXED:
        if getattr(parsed, key) not in (None, [], False):
            name = names.get(key, f"--{key.replace('_', '-')}")
            parsed.parser.error(f"--resume continues the league with the {name} that it was begun with; leave it out")


def run(options: LeagueOptions, console: Console) -> int:
    """Run the command and return its exit code."""
    from tune_cure.cli.steps import league_run  # takes seconds to import

    return league_run.run(options, console)
