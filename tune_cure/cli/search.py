"""The command `search`: its arguments, and the order in which it answers errors.

An error in the YAML file is answered before Ray, Optuna, pandas and plotly are imported, which takes seconds.
"""

import argparse
import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tune_cure.cli import options as command_line
from tune_cure.cli.options import UsageError
from tune_cure.ray_backend.monitoring.dashboard import LOOPBACK
from tune_cure.search import run_files
from tune_cure.search.space import bundled_spaces, loading
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.trackers.tracking import TRACKERS
from tune_cure.utils.formatting import join_words


@dataclass(frozen=True)
class SearchOptions:
    """Command line of `search`.

    Attributes:
        space: A YAML file, or the name of a bundled search space.
        settings: Overrides of single keys: `training.epochs=5`.
        data_root: Folder of the data; None leaves `data.root` as it is.
        output: The run's folder, or a URI; None takes a new folder below results/.
        resume: Continue the search in the run's folder.
        force: With `resume`: continue although settings have changed.
        time_budget: Seconds after which the search ends; None is without limit.
        check: Print the plan and start nothing.
        resolved: With `check`: a new file for the search space with every default; None writes none.
        address: Address of a Ray cluster to join; None starts a Ray on this machine.
        dashboard_host: Address at which Ray's dashboard listens.
        track: Names from `TRACKERS`: where the search is sent, too.
        verbose: Show what Ray and Optuna say.
    """

    space: str
    settings: tuple[str, ...] = ()
    data_root: str | None = None
    output: str | None = None
    resume: bool = False
    force: bool = False
    time_budget: float | None = None
    check: bool = False
    resolved: Path | None = None
    address: str | None = None
    dashboard_host: str = LOOPBACK
    track: tuple[str, ...] = ()
    verbose: bool = False

    def resume_command(self, directory: Path, output: str) -> str:
        """Return the command that continues a search that was begun with these options, from any working directory.

        Args:
            directory: The run's folder on this machine; the search's settings are those of its spec.yaml.
            output: The --output that names the run: the folder, or a URI.
        """
        folder = directory.absolute()
        words = ["--space", str(folder / run_files.SPEC), "--output", output, "--resume"]
        if "://" not in output:
            words = ["--resume", str(folder)]
        words += ["--address", self.address] if self.address else []
        words += [word for name in self.track for word in ("--track", name)]
        return f"{command_line.program()} search {shlex.join(words)}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = "Searches the space of a YAML file and leaves tables, a report and the best model in a folder."
    parser.epilog = "\n".join(f"{title}: {', '.join(names)}" for title, names in _names().items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    bundled = ", ".join(bundled_spaces.bundled())
    space_help = f"the search space: a YAML file, or one that comes with the project: {bundled}"
    parser.add_argument(
        "space", nargs="?", action=_AddSpace, default=argparse.SUPPRESS, metavar="SPACE", help=space_help
    )
    parser.add_argument("--space", action=_AddSpace, metavar="SPACE", help="the same, as a flag")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the search space: training.epochs=5",
    )
    parser.add_argument("--data-root", metavar="FOLDER", help="where the data is: overrides data.root")
    output_help = "the run's folder, or a URI: s3://… (default: results/NAME)"
    parser.add_argument("--output", metavar="FOLDER", help=output_help)
    resume_help = "continue the search in the run's folder; alone, this names everything: --resume results/NAME"
    parser.add_argument("--resume", nargs="?", const=True, default=False, metavar="FOLDER", help=resume_help)
    force_help = "with --resume: continue although settings have changed"
    parser.add_argument("--force", action="store_true", help=force_help)
    budget_help = "stop after this time; --resume continues (default: no limit)"
    parser.add_argument("--time-budget", type=command_line.duration, metavar="2h", help=budget_help)
    check_help = "print the plan and start nothing; with --verbose also the YAML with every default"
    parser.add_argument("--check", "--dry-run", action="store_true", help=check_help)
    resolved_help = "with --check: write the YAML with every default into this new file"
    parser.add_argument("--resolved", type=Path, metavar="FILE", help=resolved_help)
    address_help = "a Ray cluster to join: auto or HOST:PORT (docs/cluster.md); default: none"
    parser.add_argument("--address", help=address_help)
    names = ", ".join(TRACKERS)
    track_help = f"send trials and epochs to a tracker, too: {names}; may be given several times (docs/watching.md)"
    parser.add_argument("--track", action="append", default=[], choices=TRACKERS, metavar="NAME", help=track_help)
    host_help = "where Ray's dashboard listens; 0.0.0.0 opens it to other machines; it asks for a token"
    parser.add_argument("--dashboard-host", default=LOOPBACK, metavar="HOST", help=host_help)


class _AddSpace(argparse.Action):
    """Takes the search space, which stands by itself or after its flag, but not both."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, space: Any, option: str | None = None
    ) -> None:
        if (given := getattr(namespace, self.dest, None)) is not None:
            first, second = (given, space) if option else (space, given)
            parser.error(f"one search space is needed, but found {first} and {second}")
        setattr(namespace, self.dest, space)


def suggest_setting(flag: str, value: str) -> str:
    """Return a hint for a flag that is the name of a search space's key: how `--set` sets that key; else empty."""
    from tune_cure.search.space.keys import paths_of

    settings = [f"--set {path}={shlex.quote(value or 'X')}" for path in paths_of(flag[2:].replace("-", "_"))]
    return f"; did you mean {join_words(settings, 'or')}?" if settings else ""


def _names() -> dict[str, Iterable[str]]:
    """Return the registered names that a search space may use, by what they name."""
    from tune_cure.attacks.registry import ATTACKS
    from tune_cure.data.datasets import DATASETS
    from tune_cure.models.registry import MODELS
    from tune_cure.regularizers.directions import DIRECTIONS
    from tune_cure.regularizers.registry import REGULARIZERS
    from tune_cure.search.proposals.samplers import SAMPLERS
    from tune_cure.training.optimizers import OPTIMIZERS
    from tune_cure.training.presets import METHODS
    from tune_cure.training.schedules import SCHEDULES

    return {
        "data sets": DATASETS,
        "networks": MODELS,
        "methods": METHODS,
        "attacks": ATTACKS,
        "regularizers": REGULARIZERS,
        "directions of cure": DIRECTIONS,
        "schedules": SCHEDULES,
        "optimizers": OPTIMIZERS,
        "samplers": SAMPLERS,
    }


def read_options(parsed: argparse.Namespace) -> SearchOptions:
    """Return a parsed command line as options."""
    if isinstance(parsed.resume, str):
        _take_folder(parsed)
    if parsed.space is None:
        names = ", ".join(bundled_spaces.bundled())
        parsed.parser.error(f"a search space is needed: a YAML file, or one of {names}")
    return command_line.read(SearchOptions, parsed)


def _take_folder(parsed: argparse.Namespace) -> None:
    """Let `--resume FOLDER` stand for the folder's own search space and for `--output FOLDER --resume`."""
    if parsed.output not in (None, parsed.resume):
        parsed.parser.error(f"one folder is needed, but found --resume {parsed.resume} and --output {parsed.output}")
    if parsed.space is None and "://" in parsed.resume:
        parsed.parser.error("--resume URI: a search space is needed, too")
    if parsed.space is None:
        from tune_cure.search import results  # imports pandas

        results.read_spec(Path(parsed.resume))
        parsed.space = str(Path(parsed.resume) / run_files.SPEC)
    parsed.output, parsed.resume = parsed.resume, True


def run(options: SearchOptions, console: Console) -> int:
    """Run the command and return its exit code."""
    if options.resolved is not None and not options.check:
        raise UsageError("--resolved: makes no difference without --check")
    if options.force and not options.resume:
        raise UsageError("--force: makes no difference without --resume")
    spec = load_spec(options)
    from tune_cure.cli.steps import search_run  # takes seconds to import: not before the YAML is known to be good

    if options.check:
        search_run.check(spec, options, console)
        return 0
    return search_run.run(spec, options, console)


def load_spec(options: SearchOptions, content: dict[str, Any] | None = None) -> SearchSpec:
    """Read the search space with all overrides.

    Args:
        options: The command line.
        content: The mapping of the search space; None reads that of `options.space`.

    Raises:
        SpecError: It cannot be read, or describes no search that can be run.
    """
    overrides = list(options.settings)
    if options.data_root:
        overrides.append(f"data.root={json.dumps(str(Path(options.data_root).expanduser()))}")
    if content is not None:
        return loading.load_mapping(content, overrides, options.space, import_parts=True)
    return loading.load(bundled_spaces.find(options.space), overrides, import_parts=True)


def ended_early(reason: str) -> str:
    """Return the line that says that a search ended because its patience was used up."""
    return f"ended early: {reason}; to go on, raise search.patience and --resume"
