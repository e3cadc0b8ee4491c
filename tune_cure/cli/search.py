"""The command `search`: its flags, what it prints before, meanwhile and after, and how it is continued."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tune_cure.cli.live_view import LiveView, PlainView, SearchState
from tune_cure.cli.search_results import print_results
from tune_cure.data import config, datasets, source as source_module, splits as splits_module
from tune_cure.models.networks import MODELS
from tune_cure.ray_backend.monitoring import dashboard
from tune_cure.ray_backend.remote_storage import RemoteStorage
from tune_cure.ray_backend.resources import (
    ResourcePlan,
    expected_epochs,
    measure_epoch_seconds,
    plan_resources,
    this_machine,
)
from tune_cure.regularizers.penalties import PENALTIES
from tune_cure.reports import artifacts
from tune_cure.reports.refresh import ReportRefresher
from tune_cure.search import results, resume as resuming, run_files, trial_table
from tune_cure.search.journal import Journal
from tune_cure.search.results import SearchResult
from tune_cure.search.samplers import SAMPLERS
from tune_cure.search.space import bundled_spaces, loading as specs
from tune_cure.search.space.config import SearchSpec
from tune_cure.training.optimizers import OPTIMIZERS
from tune_cure.training.schedules import SCHEDULES
from tune_cure.utils import environment, locking
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.files import FolderError, make_run_folder
from tune_cure.utils.formatting import format_duration, format_hyperparameters
from tune_cure.utils.signals import treat_sigterm_as_ctrl_c
from tune_cure.utils.yaml_config import parse_duration

SMALLER_SPACE = "cifar10_cpu"
MEASURED_LATER = (
    "\nor more on each GPU: gpus_per_trial is auto, so a trial's memory is measured before the search starts"
)
FAULTS = ("failing", "disk", "ray")  # ends of a search that are not its own


class UsageError(TuneCureError):
    """A command line that cannot be carried out."""


def add_parser(commands: Any) -> None:
    """Adds the command to an argument parser's subcommands."""
    names: dict[str, Iterable[str]] = {
        "data sets": datasets.DATASETS,
        "networks": MODELS,
        "penalties (delta)": PENALTIES,
        "schedules": SCHEDULES,
        "optimisers": OPTIMIZERS,
        "samplers": SAMPLERS,
    }
    search = commands.add_parser(
        "search",
        help="search the space of a YAML file",
        description="Searches the space of a YAML file and leaves tables, a report and the best model in a folder.",
        epilog="\n".join(f"{title}: {', '.join(registry)}" for title, registry in names.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    search.add_argument(
        "--space",
        required=True,
        metavar="FILE",
        help=f"the search space: a YAML file, or one that comes along: {', '.join(bundled_spaces.bundled())}",
    )
    search.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of it: training.epochs=5"
    )
    search.add_argument("--data-root", metavar="FOLDER", help="where the data is: overrides data.root")
    search.add_argument("--output", metavar="FOLDER", help="the run's folder, or a URI: s3://… (default: results/NAME)")
    search.add_argument("--resume", action="store_true", help="continue the search in the run's folder")
    search.add_argument("--force", action="store_true", help="with --resume: continue although settings have changed")
    search.add_argument(
        "--time-budget", type=_duration, metavar="2h", help="stop after so long; --resume continues (default: no limit)"
    )
    search.add_argument("--check", action="store_true", help="print the resolved plan and start nothing")
    search.add_argument(
        "--address",
        help="a Ray cluster to join: auto, HOST:PORT or ray://HOST:PORT (docs/cluster.md); default: none",
    )
    search.add_argument(
        "--dashboard-host",
        default=dashboard.LOOPBACK,
        metavar="HOST",
        help="where Ray's dashboard listens, to open it to other machines: 0.0.0.0; it asks for a token",
    )
    search.set_defaults(run=_search, parser=search)
    search.add_argument("--verbose", action="store_true", help="show what Ray and Optuna say")


def _search(options: argparse.Namespace, console: Console) -> int:
    overrides = list(options.set)
    if options.data_root:
        overrides.append(f"data.root={json.dumps(str(Path(options.data_root).expanduser()))}")
    spec = specs.load(bundled_spaces.find(options.space), overrides)
    known = ""
    if spec.search.warm_start and not options.resume:
        from tune_cure.search import warm_start  # Optuna, too, is not imported before the input is known to be good

        used, left_out = warm_start.read_prior_trials(spec)
        known = f"{len(used)} trials of {spec.search.warm_start} are known to the sampler"
        known += f"; {left_out} did not end, or lie outside of the space" * bool(left_out)
    if options.check:
        _check(spec, options, console, known)
        return 0
    if known:
        console.print(known)
    if options.address is None:
        dashboard.check(options.dashboard_host)
    elif options.dashboard_host != dashboard.LOOPBACK:
        raise UsageError("--dashboard-host: goes with a Ray that is started here, not with --address")
    splits = splits_module.load(spec.data, download=_may_download(spec, options))
    if options.address is None:
        _print_cost(spec, splits, plan_resources(spec, [this_machine()]), console)
    else:
        _join(options)
    remote = RemoteStorage(options.output) if options.output and "://" in options.output else None
    directory = _folder(spec, options, remote)
    with locking.hold_run_lock(directory, f"its search is running already; to see it: tune-cure watch {directory}"):
        if options.resume:
            resuming.prepare(directory, spec, force=options.force, say=console.print)
        environment.write(directory, splits.source)
        del splits  # the trials map the same file; this process need not hold it
        return _run(spec, directory, options, console, remote)


def _conclude(result: SearchResult, options: argparse.Namespace, console: Console, remote: RemoteStorage | None) -> int:
    """Writes what a run leaves, says how it ended and how to continue, and returns the exit code."""
    directory, outcome, reason = result.directory, result.outcome, result.reason
    copied = True
    try:
        if remote and result.checkpoint:
            Journal(directory).checkpoint_file(result.checkpoint)  # a run that somebody sent puts no files elsewhere
            remote.get_checkpoint(directory, result.checkpoint)  # best_model.pt is made from it
        page = artifacts.write_artifacts(result)
    except OSError as error:
        why = error.strerror or str(error)
        console.print(f"the tables could not be written ({why}); later: tune-cure report {directory}")
        outcome, reason = "disk", reason or f"{directory}: {why}"
    if remote and outcome != "disk":
        try:
            remote.put(directory)
        except FolderError as error:  # the search is over all the same
            console.print(str(error), style="bold")
            copied = False
    if outcome in ("finished", "patience", "time"):
        print_results(result, page, console)
    if outcome == "patience":
        console.print(ended_early(reason))
    elif outcome != "finished":
        resume = resume_command(directory, remote.uri if remote else str(directory))
        resume += f" --address {options.address}" if options.address else ""
        console.print(f"{reason or 'interrupted'}; all state is in {directory}. Continue with:\n  {resume}")
    if outcome == "interrupted":
        return 130
    return 0 if result.best and outcome not in FAULTS and copied else 1


def ended_early(reason: str) -> str:
    """What is said of a search whose patience is used up."""
    return f"ended early: {reason}; to go on, raise search.patience and --resume"


def resume_command(directory: Path, output: str) -> str:
    """What continues the search in `directory`, whose --output was `output`."""
    space = shlex.quote(str(directory / run_files.SPEC))
    return f"{bundled_spaces.search_command()} --space {space} --output {shlex.quote(output)} --resume"


def _join(options: argparse.Namespace) -> None:
    """Joins the cluster before anything is written: there may be none."""
    from tune_cure.ray_backend import session

    session.start_ray(options.address, verbose=options.verbose)


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _run(
    spec: SearchSpec, directory: Path, options: argparse.Namespace, console: Console, remote: RemoteStorage | None
) -> int:
    from tune_cure.ray_backend import tuner  # Ray takes seconds to import: not before the input is known to be good

    state = SearchState(spec)
    if options.resume:
        for event in Journal(directory).read():
            state.update(event)
    live = console.is_terminal and not options.verbose
    view = LiveView(state, console) if live else PlainView(state, console.print)

    def ready(devices: object, url: str) -> None:
        treat_sigterm_as_ctrl_c()  # only now: Ray has set a handler of its own when it started
        copied = f", copied to {remote.uri}" if remote else ""
        console.print(f"{devices}; results in {directory}{copied}")
        if url:
            console.print(f"Ray dashboard: {url} (asks for the token in ~/.ray/auth_token)")

    def lost() -> None:
        view.__exit__(None, None, None)
        refreshing.__exit__(None, None, None)  # or two would write the tables
        died = SearchResult(directory, "ray", "Ray has died, or was killed")
        code = _conclude(died, options, console, remote)
        sys.stdout.flush()
        os._exit(code)  # the main thread waits for Ray, and cannot be told

    refreshing = ReportRefresher(directory)
    with view, refreshing:
        result = tuner.run(
            spec,
            directory,
            address=options.address,
            dashboard_host=options.dashboard_host,
            remote=remote,
            resume=options.resume,
            verbose=options.verbose,
            seconds=options.time_budget,
            on_event=view.on_event,
            on_ready=ready,
            on_lost=lost,
        )
    treat_sigterm_as_ctrl_c()  # Ray, shut down, has given SIGTERM back to the system
    return _conclude(result, options, console, remote)


def _folder(spec: SearchSpec, options: argparse.Namespace, remote: RemoteStorage | None) -> Path:
    """The run's folder on this machine: new, or that of the search to continue."""
    default = Path("results") / spec.name
    if remote is None:
        named = Path(options.output) if options.output else None
        if not options.resume:
            return make_run_folder(default, named)
        results.read_spec(named or default)  # nothing is written where there is no search
        return named or default
    if str(options.address).startswith("ray://"):
        raise UsageError(f"--output {remote.uri}: cannot be used with --address ray://…; use `ray job submit`")
    if not options.resume:
        if remote.exists(run_files.JOURNAL):
            raise UsageError(f"--output {remote.uri}: holds a search; name another, or continue it with --resume")
        return make_run_folder(default, None)
    if not remote.exists(run_files.JOURNAL):
        raise UsageError(f"--output {remote.uri}: holds no search: there is no {run_files.JOURNAL} in it")
    directory = make_run_folder(default, None)
    remote.get(directory)
    return directory


def _may_download(spec: SearchSpec, options: argparse.Namespace) -> bool:
    """A file that somebody sent may say where data is, but only the user where it is written."""
    return bool(options.data_root) or config.is_default(spec.data.root)


def _check(spec: SearchSpec, options: argparse.Namespace, console: Console, known: str) -> None:
    """Prints what the search would do, unless it would be refused, and last its YAML, for copying.

    Data yet to be downloaded is not checked.
    """
    plan = plan_resources(spec, [this_machine()])
    splits, images = None, ""
    try:
        splits = splits_module.load(spec.data, download=False)
        images = _images(splits)
    except source_module.NotHereError as error:
        if not _may_download(spec, options):  # the search would be refused
            raise
        images = f"not here yet: {error}"
    _print_plan(spec, plan, images, console)
    if splits and options.address is None:
        _print_cost(spec, splits, plan, console)
    if known:
        console.print(known)
    console.print("resolved:\n")
    console.print(spec.to_yaml())


def _images(splits: splits_module.Splits) -> str:
    """How many images of what kind."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    counts = ", ".join(f"{len(part):,} {name}" for name, part in parts.items())
    height, width = splits.image_size
    kind = f"{splits.in_channels}×{height}×{width}, {splits.num_classes} classes"
    return f"{counts} images of {kind}\n{splits.source}"


def _print_plan(spec: SearchSpec, plan: ResourcePlan, images: str, console: Console) -> None:
    most = spec.search.trials * spec.max_epochs
    rows = {
        "search": f"{spec.name}: {spec.search.trials} trials by {spec.search.sampler}, seed {spec.search.seed}, for "
        f"{spec.search.mode} {' and '.join(spec.search.metrics)}"
        + "".join(f", {text}" for text in spec.search.constraints),
        "data": images,
        "network": spec.model.name + (f", width {spec.model.width}" if spec.model.width else ""),
        "space": "\n".join(f"{key}: {_values(spec, key)}{_when(spec, key)}" for key in spec.space),
        "start_from": "\n".join(format_hyperparameters(start) for start in spec.start_from) or "none",
        "scheduler": f"{spec.search.scheduler} {_stops(spec)}; runs to {spec.max_epochs}",
        "epochs": f"at most {most}" + _expected(spec),
        "judged by": f"{spec.evaluation} on {trial_table.judged_examples(spec)} validation images",
        "devices": f"{plan}{MEASURED_LATER if plan.gpus_per_trial and spec.resources.gpus_per_trial == 'auto' else ''}",
    }
    table = Table.grid(padding=(0, 2))
    for name, text in rows.items():
        table.add_row(name, text)
    console.print(table)


def _values(spec: SearchSpec, key: str) -> str:
    """A hyperparameter's distribution; of an L∞ radius also in 1/255, as it is written most."""
    of = spec.space[key]
    if key != "epsilon" or spec.training.get("norm", "linf") != "linf" or "norm" in spec.space:
        return str(of)
    return f"{of} ({', '.join(f'{255 * radius:.3g}/255' for radius in of.values)})"


def _when(spec: SearchSpec, key: str) -> str:
    never = spec.idle().get(key)
    return "" if never is None else " (left out: makes no difference)" if never else " (where it makes a difference)"


def _stops(spec: SearchSpec) -> str:
    if spec.search.scheduler == "median":
        return f"may stop a trial after any epoch from {spec.asha.grace_period} on"
    return f"may stop a trial after epoch {', '.join(map(str, spec.rungs))}" if spec.rungs else "stops nothing"


def _expected(spec: SearchSpec) -> str:
    if not spec.rungs:
        return ""
    return f"; about {expected_epochs(spec):.0f} if one in {spec.asha.reduction_factor:g} goes on at each rung"


def _print_cost(spec: SearchSpec, splits: splits_module.Splits, plan: ResourcePlan, console: Console) -> None:
    """Where a space that was made for GPUs meets a machine without one: what that will cost, before it starts."""
    if not spec.resources.gpus_per_trial or plan.gpus_per_trial:
        return
    epoch = measure_epoch_seconds(spec, splits)
    most, expected = spec.search.trials * spec.max_epochs, expected_epochs(spec)
    console.print(
        f"no GPU found: an epoch of {spec.model.name} takes about {format_duration(epoch)} on "
        f"{plan.cpus_per_trial} CPU(s) "
        f"here (measured). {plan.concurrent} at a time, about {expected:.0f} epochs take "
        f"{format_duration(expected * epoch / plan.concurrent)}, the most possible, {most}, "
        f"{format_duration(most * epoch / plan.concurrent)}.\nA search made for CPUs: --space {SMALLER_SPACE}"
    )
