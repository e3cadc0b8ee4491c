"""The command `confirm`: what it takes, what it prints meanwhile and at the end."""

import argparse
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from tune_cure.confirmation.candidates import BASELINES, Candidate
from tune_cure.data import config as config_module, splits as splits_module
from tune_cure.evaluation.names import ATTACK_LABELS
from tune_cure.ray_backend.resources import measure_epoch_seconds, plan_resources, this_machine
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.utils import environment, locking
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.formatting import (
    format_count,
    format_duration,
    format_percent,
    format_points,
    format_radius,
    join_words,
)
from tune_cure.utils.schema import parse_number
from tune_cure.utils.signals import treat_sigterm_as_ctrl_c


class ConfirmError(TuneCureError):
    """A request that cannot be confirmed."""


def add_parser(commands: Any) -> None:
    """Adds the command to an argument parser's subcommands."""
    parser = commands.add_parser(
        "confirm",
        help="retrain a search's winners over seeds, and judge them on the test set",
        description="Retrains the leading configurations of a search and baselines over several seeds, on all training "
        "images and for their whole schedule, and judges their last weights on the test set: clean, PGD-50-10 and "
        "AutoAttack. The same command goes on where it was interrupted; with more seeds or configurations it adds to "
        "what is there.",
        epilog="baselines: start_from (its first configuration), fgsm (that without the penalty), ablation (the winner "
        "without the penalty)",
    )
    parser.add_argument("directory", type=Path, metavar="FOLDER", help="the search's folder")
    parser.add_argument("--top", type=_positive, default=3, metavar="N", help="leading configurations (default: 3)")
    parser.add_argument("--seeds", type=_positive, default=3, metavar="N", help="training runs of each (default: 3)")
    parser.add_argument(
        "--baselines",
        nargs="*",
        choices=BASELINES,
        default=["start_from", "fgsm"],
        metavar="NAME",
        help=f"what they are measured against: {', '.join(BASELINES)} (default: start_from fgsm)",
    )
    parser.add_argument(
        "--epsilons",
        nargs="*",
        type=_radius,
        default=[],
        metavar="X",
        help="radii to judge at besides the search's: 4/255",
    )
    parser.add_argument("--examples", type=_several, metavar="N", help="test images to judge on (default: all)")
    parser.add_argument("--train-images", type=_positive, metavar="N", help="training images to use (default: all)")
    parser.add_argument("--no-autoattack", action="store_true", help="leave AutoAttack out: quick, and less certain")
    parser.add_argument("--data-root", metavar="FOLDER", help="where the data is")
    parser.add_argument("--address", help="a Ray cluster to join, as of search; its machines must see the folder")
    parser.add_argument("--verbose", action="store_true", help="show what Ray says")
    parser.set_defaults(run=confirm, parser=parser)


def _positive(text: str) -> int:
    number = int(text) if text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is needed, but found {text!r}")
    return number


def _several(text: str) -> int:
    number = _positive(text)
    if number < 2:
        raise argparse.ArgumentTypeError("at least 2 are needed: one image has no spread")
    return number


def _radius(text: str) -> float:
    try:
        number = float(parse_number(text))
    except (ValueError, TypeError):
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"a radius such as 4/255 or 0.5 is needed, but found {text!r}")
    return number


def confirm(options: argparse.Namespace, console: Console) -> int:
    """Runs the command and returns its exit code."""
    from tune_cure.confirmation import candidates, plan as plan_module

    result = SearchResult(options.directory)
    spec = result.spec
    chosen = candidates.choose_candidates(result, options.top, options.baselines)
    data_spec = spec.data
    if options.data_root:
        data_spec = data_spec.model_copy(update={"root": str(Path(options.data_root).expanduser().absolute())})
    result.spec = spec.model_copy(update={"data": data_spec})
    whole = data_spec.model_copy(update={"train_examples": None})
    splits = splits_module.load(whole, download=bool(options.data_root) or config_module.is_default(data_spec.root))
    images = len(plan_module.all_training_images(splits))
    plan = plan_module.Plan(
        seeds=tuple(spec.search.seed + 1 + number for number in range(options.seeds)),
        epsilons=_distinct([spec.evaluation.epsilon, *options.epsilons]),
        examples=_at_most(options.examples, len(splits.test), "--examples", "test images"),
        train_images=_at_most(options.train_images, images, "--train-images", "training images"),
        autoattack=not options.no_autoattack,
    )
    jobs = plan_module.plan_jobs(result, chosen, plan)
    _print_plan(result.spec, chosen, plan, splits, jobs, console)
    folder = result.directory / run_files.CONFIRM
    folder.mkdir(exist_ok=True)
    with locking.hold_run_lock(folder):
        environment.write(folder, splits.source)
        return _run(jobs, result, folder, options, console)


def _run(jobs: list[Any], result: SearchResult, folder: Path, options: argparse.Namespace, console: Console) -> int:
    """Runs the jobs, writes and prints what came of them, and returns the exit code."""
    from tune_cure.ray_backend import confirmation
    from tune_cure.reports import confirmation_page

    view = _View(jobs, console)
    try:
        failures = confirmation.run(
            jobs,
            result,
            address=options.address,
            verbose=options.verbose,
            on_ready=view.on_ready,
            on_status=view.on_status,
        )
    except KeyboardInterrupt:
        if any(job.is_judged for job in jobs):
            confirmation_page.write(result, jobs, folder)
            console.print(f"interrupted; of what is done so far, {_wrote(folder)}")
        else:
            console.print("interrupted; no run has been judged yet")
        console.print("what is done is kept. Continue with:\n  " + _command(options))
        return 130
    found = confirmation_page.write(result, jobs, folder)
    print_results(found, result.spec, console)
    for job, reason in failures.items():
        console.print(f"failed: {job}: {reason}", style="bold")
    console.print(f"\n{_wrote(folder)}")
    return 1 if failures else 0


def _wrote(folder: Path) -> str:
    return f"wrote {folder}/confirm.html, confirm.csv, confirm.json and outcomes.npz"


def _distinct(radii: list[float]) -> tuple[float, ...]:
    """The radii that have folders of their own (`Job.outcome_folder`): 0.0313725 is 8/255."""
    found: dict[str, float] = {}
    for of in radii:
        found.setdefault(f"{of:.6g}", of)
    return tuple(found.values())


def _at_most(asked: int | None, most: int, flag: str, of: str) -> int:
    if asked is not None and asked > most:
        raise ConfirmError(f"{flag} {asked}: there are {most:,} {of}")
    return asked or most


def _command(options: argparse.Namespace) -> str:
    """The same command line again."""
    words = ["tune-cure", "confirm", str(options.directory), "--top", str(options.top), "--seeds", str(options.seeds)]
    words += ["--baselines", *options.baselines]
    words += ["--epsilons", *map(repr, options.epsilons)] if options.epsilons else []
    for flag in ("examples", "train_images", "data_root", "address"):
        value = getattr(options, flag)
        words += [f"--{flag.replace('_', '-')}", str(value)] if value else []
    words += ["--no-autoattack"] * options.no_autoattack
    return shlex.join(words)


def _print_plan(
    spec: SearchSpec,
    chosen: list[Candidate],
    plan: Any,
    splits: splits_module.Splits,
    jobs: list[Any],
    console: Console,
) -> None:
    table = Table.grid(padding=(0, 2))
    for one in chosen:
        table.add_row(one.name, one.kind, f"{one.config.epochs} epochs", one.description)
    console.print(table)
    seeds = f"seed{'s' * (len(plan.seeds) > 1)} {join_words(map(str, plan.seeds))}"
    radii = join_words(format_radius(epsilon, spec.evaluation.norm) for epsilon in plan.epsilons)
    console.print(
        f"each with {seeds}, on {plan.train_images:,} training images; judged on "
        f"{plan.examples:,} test images at {radii}, "
        f"{'by PGD-50-10 and AutoAttack' if plan.autoattack else 'by PGD-50-10'}"
    )
    left = [job for job in jobs if job.status().get("stage") != "done"]
    if len(left) < len(jobs):
        console.print(f"{len(jobs) - len(left)} of {format_count(len(jobs), 'run')} are done already")
    devices = plan_resources(spec, [this_machine()])
    if left and not devices.gpus_per_trial:
        epoch = measure_epoch_seconds(spec, splits) * plan.train_images / len(splits.train)
        epochs = sum(job.candidate.config.epochs for job in left)
        seconds = epoch * epochs / devices.concurrent
        console.print(f"training takes about {format_duration(seconds)} here (measured); judging comes on top of it")


class _View:
    """Says what has come of the jobs, a line for each that is trained or judged."""

    def __init__(self, jobs: list[Any], console: Console) -> None:
        self.console, self.total, self.done = console, len(jobs), 0

    def on_ready(self, devices: object) -> None:
        """Ray is up."""
        treat_sigterm_as_ctrl_c()  # only now: Ray has set a handler of its own when it started
        self.console.print(str(devices))

    def on_status(self, job: Any, status: dict[str, Any]) -> None:
        """A job does something else now."""
        name = f"{job.candidate.name}, seed {job.seed}"
        match status["stage"]:
            case "training" if status["epoch"] == 0:
                self.console.print(f"{name}: trains {status['epochs']} epochs")
            case "judging" if "accuracy" in status:
                at = format_radius(status["epsilon"], job.evaluation.norm)
                self.console.print(f"{name}: {status['attack']} {format_percent(status['accuracy'])} at {at}")
            case "failed":
                self.console.print(f"{name}: failed: {status['reason']}")
            case "done":
                self.done += 1
                self.console.print(f"[{self.done}/{self.total}] {name}: done")


def print_results(found: Any, spec: SearchSpec, console: Console) -> None:
    """The table of means, the verdicts, and what is to be warned of."""
    from tune_cure.confirmation.verdicts import warn_of_few_seeds  # which imports Ray

    means, comparisons = found.means(), found.comparisons()
    if means.empty:
        console.print("no run came to an end", style="bold")
        return
    shown = [name for name in found.compared if means[name].notna().any()]
    for epsilon, group in means.groupby("epsilon", sort=False):
        console.print(
            f"\non the test set at {format_radius(float(str(epsilon)), spec.evaluation.norm)}\n", style="bold"
        )
        table = Table(box=None, pad_edge=False, padding=(0, 1))
        for title in ("", "seeds", *(word for name in shown for word in (ATTACK_LABELS[name], "±"))):
            table.add_column(title, justify="right" if title else "left", no_wrap=True)
        for _, row in group.iterrows():
            table.add_row(row["contender"], str(row["seeds"]), *(cell for name in shown for cell in _cells(row, name)))
        console.print(table)
    console.print("±: standard deviation over the seeds", style="dim")
    console.print()
    for _, row in comparisons.iterrows():
        console.print(verdict_words(row, spec))
    console.print(
        "better and worse hold at 5% for all pairs of a column together (Holm 1979); an interval is of its pair alone",
        style="dim",
    )
    for words in warn_of_few_seeds(comparisons):
        console.print(words, style="bold")
    for epsilon, said in found.doubts():
        console.print(f"\nwarning, at {format_radius(epsilon, spec.evaluation.norm)}: {said}", style="bold")


def _cells(row: "pd.Series[Any]", name: str) -> tuple[str, str]:
    deviation = row[f"{name}_sd"]
    return f"{100 * row[name]:.1f}", "" if pd.isna(deviation) else f"{100 * deviation:.1f}"


def verdict_words(row: "pd.Series[Any]", spec: SearchSpec) -> str:
    """A comparison in words."""
    at = "" if row["metric"] == "clean" else f" at {format_radius(row['epsilon'], spec.evaluation.norm)}"
    return (
        f"{row['first']} against {row['second']}, {ATTACK_LABELS[row['metric']]}{at}: {row['verdict']} "
        f"({format_points(row['difference'])} points, 95% interval {format_points(row['low'])} to "
        f"{format_points(row['high'])})"
    )
