"""The commands: what they take, what they print, how they exit. The only place that writes to the terminal.

Exit codes: 0 done; 1 ran, but no trial succeeded; 2 bad input, one line, nothing started; 130 interrupted, state saved.
"""

import argparse
import json
import logging
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
from rich.console import Console
from rich.table import Table

from tune_cure import cli_train, data, datasets, environment, report, results, spec as specs
from tune_cure.curvature import PENALTIES
from tune_cure.devices import DeviceError, Devices, allot, expected_epochs, measure_epoch_seconds, this_machine
from tune_cure.files import FolderError, new_folder, replace_text
from tune_cure.journal import FILE as JOURNAL, Journal
from tune_cure.models import MODELS
from tune_cure.optimizers import OPTIMIZERS
from tune_cure.progress import LiveView, PlainView, SearchState
from tune_cure.reading import SpecError
from tune_cure.remote import Remote
from tune_cure.samplers import SAMPLERS
from tune_cure.schedules import SCHEDULES
from tune_cure.schema import did_you_mean
from tune_cure.spec import SearchSpec
from tune_cure.words import STATUS_WORDS, duration, hyperparameters

SMALLER_SPACE = "search_spaces/cifar10_cpu.yaml"
MEASURED_LATER = (
    "\nor more on each GPU: gpus_per_trial is auto, so a trial's memory is measured before the search starts"
)
TOP = 5  # trials in the closing table
BAD_INPUT = (SpecError, datasets.DataError, DeviceError, results.ResultsError, FolderError)


class UsageError(ValueError):
    """What was asked for on the command line cannot be done. Its text is one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code."""
    options, unknown = parser().parse_known_args(arguments)
    if unknown:
        flags = re.findall(r"--[a-z_-]+", options.parser.format_help())
        options.parser.error(f"unknown argument {unknown[0]}{did_you_mean(unknown[0], flags)}")
    console = Console(soft_wrap=True, highlight=False)
    logging.basicConfig(format="%(message)s", level=logging.INFO if options.verbose else logging.WARNING)
    logging.getLogger("tune_cure").setLevel(logging.INFO)
    try:
        return int(options.run(options, console))
    except (*BAD_INPUT, UsageError) as error:
        print(f"tune-cure: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tune-cure: interrupted", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """Of the whole command line; a parsed one has `run`, which takes it and a console and returns the exit code."""
    whole = _Parser(prog="tune-cure", description="Hyperparameter search for FGSM+CURE adversarial training.")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
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
    search.add_argument("--space", required=True, metavar="FILE", help="the search space, a YAML file")
    search.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of it: training.epochs=5"
    )
    search.add_argument("--data-root", metavar="FOLDER", help="where the data is: overrides data.root")
    search.add_argument("--output", metavar="FOLDER", help="the run's folder, or a URI: s3://… (default: results/NAME)")
    search.add_argument("--resume", action="store_true", help="continue the search in the run's folder")
    search.add_argument("--check", action="store_true", help="print the resolved plan and start nothing")
    search.add_argument(
        "--address",
        help="a Ray cluster to join: auto, HOST:PORT or ray://HOST:PORT (docs/cluster.md); default: none",
    )
    search.set_defaults(run=_search, parser=search)
    cli_train.add_parser(commands)
    again = commands.add_parser("report", help="rebuild the tables and the report of a run from what is on disk")
    again.add_argument("directory", type=Path, metavar="FOLDER", help="the run's folder")
    again.set_defaults(run=_report, parser=again)
    for command in (search, again):
        command.add_argument("--verbose", action="store_true", help="show what Ray and Optuna say")
    return whole


def _report(options: argparse.Namespace, console: Console) -> int:
    results.write(options.directory)
    results.write_summary(options.directory)
    console.print(f"wrote {report.write(options.directory)} and the tables beside it")
    return 0


def _search(options: argparse.Namespace, console: Console) -> int:
    overrides = list(options.set)
    if options.data_root:
        overrides.append(f"data.root={json.dumps(str(Path(options.data_root).expanduser()))}")
    spec = specs.load(options.space, overrides)
    if options.check:
        _print_plan(spec, console)
        return 0
    splits = data.load(spec.data)
    if options.address is None:
        plan = allot(spec, [this_machine()])
        if spec.resources.gpus_per_trial and not plan.gpus_per_trial:
            _print_cost(spec, splits, plan, console)
    else:
        _join(options)
    remote = Remote(options.output) if options.output and "://" in options.output else None
    directory = _folder(spec, options, remote)
    replace_text(directory / results.SPEC, spec.to_yaml())
    environment.write(directory, splits.source)
    del splits  # the trials map the same file; this process need not hold it
    finished = _run(spec, directory, options, console, remote)
    if remote and (leader := results.best(directory)) and (saved := results.checkpoint(directory, leader)):
        remote.get_checkpoint(directory, saved)  # best_model.pt is made from it
    results.write(directory)
    results.write_summary(directory)
    page = report.write(directory)
    if remote:
        remote.put(directory)
    if not finished:
        folder = shlex.quote(str(directory))
        output = shlex.quote(remote.uri) if remote else folder
        resume = f"python run_search.py --space {folder}/{results.SPEC} --output {output} --resume"
        resume += f" --address {options.address}" if options.address else ""
        console.print(f"interrupted; all state is in {directory}. Continue with:\n  {resume}")
        return 130
    _print_results(spec, directory, page, console)
    return 0 if results.best(directory) else 1


def _join(options: argparse.Namespace) -> None:
    """Joins the cluster before anything is written: there may be none."""
    from tune_cure import search

    search.start_ray(options.address, verbose=options.verbose)


def _run(
    spec: SearchSpec, directory: Path, options: argparse.Namespace, console: Console, remote: Remote | None
) -> bool:
    from tune_cure import search  # Ray takes seconds to import: not before the input is known to be good

    state = SearchState(spec)
    if options.resume:
        for event in Journal(directory).read():
            state.update(event)
    live = console.is_terminal and not options.verbose
    view = LiveView(state, console) if live else PlainView(state, console.print)

    def ready(devices: object, dashboard: str) -> None:
        cli_train.stop_as_on_ctrl_c()  # only now: Ray has set a handler of its own when it started
        copied = f", copied to {remote.uri}" if remote else ""
        console.print(f"{devices}; results in {directory}{copied}")
        if dashboard:
            console.print(f"Ray dashboard: {dashboard} (asks for the token in ~/.ray/auth_token)")

    with view:
        return search.run(
            spec,
            directory,
            address=options.address,
            remote=remote,
            resume=options.resume,
            verbose=options.verbose,
            on_event=view.on_event,
            on_ready=ready,
        )


def _folder(spec: SearchSpec, options: argparse.Namespace, remote: Remote | None) -> Path:
    """The run's folder on this machine: new, or that of the search to continue."""
    default = Path("results") / spec.name
    if remote is None:
        named = Path(options.output) if options.output else None
        return _continued(spec, named) if options.resume else new_folder(default, named)
    if str(options.address).startswith("ray://"):
        raise UsageError(f"--output {remote.uri}: cannot be used with --address ray://…; use `ray job submit`")
    if not options.resume:
        if remote.exists(JOURNAL):
            raise UsageError(f"--output {remote.uri}: holds a search; name another, or continue it with --resume")
        return new_folder(default, None)
    if not remote.exists(JOURNAL):
        raise UsageError(f"--output {remote.uri}: holds no search: there is no {JOURNAL} in it")
    directory = new_folder(default, None)
    remote.get(directory)
    return _continued(spec, directory)


def _continued(spec: SearchSpec, output: Path | None) -> Path:
    """The folder of the search to continue, which must be the same search but for its length and resources."""
    directory = output or Path("results") / spec.name
    before = results.read_spec(directory)
    changeable = {"search": {"trials"}, "resources": True}
    old, new = (s.model_dump(exclude=changeable) for s in (before, spec))  # type: ignore[arg-type]
    changed = [key for key in old if old[key] != new[key]]
    if changed:
        raise UsageError(
            f"{directory}: --resume needs the search that was begun there, but {', '.join(changed)} differ"
            f"{'s' * (len(changed) == 1)} from {directory / results.SPEC}; only search.trials and resources may"
        )
    return directory


def _print_plan(spec: SearchSpec, console: Console) -> None:
    most = spec.search.trials * spec.max_epochs
    plan = allot(spec, [this_machine()])
    try:
        splits = data.load(spec.data, download=False)
        counts = [f"{len(part):,} {name}" for name, part in
                  (("train", splits.train), ("validation", splits.validation), ("test", splits.test))]  # fmt: skip
        height, width = splits.image_size
        images = f"{', '.join(counts)} images of {splits.in_channels}×{height}×{width}, {splits.num_classes} classes"
        images += f"\n{splits.source}"
    except datasets.DataError as error:
        images = f"not here yet: {error}"
    rows = {
        "search": f"{spec.name}: {spec.search.trials} trials by {spec.search.sampler}, seed {spec.search.seed}, for "
        f"{spec.search.mode} {spec.search.metric}",
        "data": images,
        "network": spec.model.name + (f", width {spec.model.width}" if spec.model.width else ""),
        "space": "\n".join(f"{key}: {of}" for key, of in spec.space.items()),
        "start_from": "\n".join(hyperparameters(start) for start in spec.start_from) or "none",
        "ASHA": f"may stop a trial after epoch {', '.join(map(str, spec.rungs))}; runs to {spec.max_epochs}"
        if spec.rungs
        else "stops nothing",
        "epochs": f"at most {most}; about {expected_epochs(spec):.0f} if one in {spec.asha.reduction_factor:g} goes on "
        "at each rung",
        "judged by": f"{spec.evaluation} on {results.judged_examples(spec)} validation images",
        "devices": f"{plan}{MEASURED_LATER if plan.gpus_per_trial and spec.resources.gpus_per_trial == 'auto' else ''}",
    }
    table = Table.grid(padding=(0, 2))
    for name, text in rows.items():
        table.add_row(name, text)
    console.print(table)
    console.print("resolved:\n")
    console.print(spec.to_yaml(), markup=False)


def _print_cost(spec: SearchSpec, splits: data.Splits, plan: Devices, console: Console) -> None:
    """Where a space that was made for GPUs meets a machine without one: what that will cost, before it starts."""
    epoch = measure_epoch_seconds(spec, splits)
    most, expected = spec.search.trials * spec.max_epochs, expected_epochs(spec)
    console.print(
        f"no GPU found: an epoch of {spec.model.name} takes about {duration(epoch)} on {plan.cpus_per_trial} CPU(s) "
        f"here (measured). {plan.concurrent} at a time, about {expected:.0f} epochs take "
        f"{duration(expected * epoch / plan.concurrent)}, the most possible, {most}, "
        f"{duration(most * epoch / plan.concurrent)}.\nA search made for CPUs: --space {SMALLER_SPACE}"
    )


def _print_results(spec: SearchSpec, directory: Path, page: Path, console: Console) -> None:
    frame = results.trials(directory)
    summary = results.summary(directory)
    console.print(f"\n[bold]{spec.name}: the best of {len(frame)} trials[/bold]\n")
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for title in ("trial", "PGD", "±", "clean", "epoch", *spec.space, "ended"):
        table.add_column(title, justify="left" if title == "ended" else "right", no_wrap=True)
    leaders = results.ranked(frame, spec).head(TOP)
    baseline = frame[(frame["origin"] == "start_from") & frame["objective"].notna()].head(1)
    for _, row in leaders.iterrows():
        table.add_row(*_cells(row, spec))
    if len(baseline) and int(baseline.iloc[0]["trial"]) not in set(leaders["trial"]):
        table.add_row(*_cells(baseline.iloc[0], spec))
    console.print(table)
    if len(baseline):
        console.print("* a trial of start_from", style="dim")
    ended = ", ".join(f"{count} {STATUS_WORDS[status]}" for status, count in summary["trials_by_status"].items())
    console.print(
        f"\n{ended}; {summary['epochs']} epochs trained of {summary['epochs_without_early_stopping']} without early "
        f"stopping, in {duration(summary['wall_seconds'])}"
    )
    console.print(
        f"{spec.evaluation} on {results.judged_examples(spec)} validation images; the best of many trials looks better "
        "than it is, and no test image was used"
    )
    console.print(f"\nwrote in {directory}:")
    for path in (page.name, "trials.csv", "epochs.csv", "best_config.csv", "best_config.yaml", "best_model.pt"):
        if (directory / path).exists():
            console.print(f"  {directory / path}")
    console.print(f"next: open {page} in a browser; best_config.yaml is a start_from for a search around the winner")


def _cells(row: "pd.Series[Any]", spec: SearchSpec) -> list[str]:
    accuracies = [f"{100 * row[c]:.1f}" for c in ("pgd_accuracy_best", "pgd_accuracy_best_se", "clean_accuracy_best")]
    values = [f"{row[key]:.3g}" if isinstance(row[key], float) else str(row[key]) for key in spec.space]
    mark = "*" if row["origin"] == "start_from" else ""
    return [f"{mark}{int(row['trial'])}", *accuracies, f"{int(row['best_epoch'])}", *values, row["status"]]
