"""A league from the check of its data to the tables of its searches."""

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from tune_cure.cli import options as command_line
from tune_cure.cli.league import LeagueOptions
from tune_cure.cli.options import EXIT_MORE_TO_DO, UsageError
from tune_cure.cli.steps import league_confirmation
from tune_cure.cli.steps.continuing import say_how_to_continue
from tune_cure.cli.steps.fitting import fit_to_data
from tune_cure.cli.steps.search_run import FAULTS, join, say_start
from tune_cure.cli.views import league_plan, search_plan
from tune_cure.cli.views.console import alert
from tune_cure.cli.views.interruption import EXIT_CODE, Interruption
from tune_cure.cli.views.league_view import LeagueState, LeagueView, PlainLeagueView
from tune_cure.cli.views.ray_logs import say_where_logs_are
from tune_cure.data import folders, splits as splits_module
from tune_cure.data.splits import Splits
from tune_cure.evaluation.chance import chance_level
from tune_cure.league.cost import measure_epoch
from tune_cure.league.folder import League, LeagueConfig, find_given_up, is_league, is_searched
from tune_cure.league.methods import describe_left_out, read_entries, take_shared
from tune_cure.ray_backend.monitoring import dashboard
from tune_cure.ray_backend.resources import ResourcePlan
from tune_cure.reports import artifacts
from tune_cure.search import run_files
from tune_cure.search.progress import SearchState
from tune_cure.search.results import SearchResult
from tune_cure.search.space import bundled_spaces
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.own_parts import import_modules, own_part_files, read_parts
from tune_cure.training.config import expand_model_name
from tune_cure.training.speed import cpu_threads
from tune_cure.utils import environment, locking
from tune_cure.utils.files import LostFolderError, choose_run_folder, make_folder
from tune_cure.utils.formatting import format_hyperparameters, quote_path
from tune_cure.utils.signals import WorkLeftBehindError, ignore_ctrl_c, on_ctrl_c
from tune_cure.utils.yaml_config import ProblemError, first_problem, override, read_mapping


@dataclass(frozen=True)
class Prepared:
    """A league that can run.

    Attributes:
        league: The league; of a new one, nothing is written yet.
        specs: The search of each method, with the number of validation images as counted.
        splits: The images.
        notes: What to know before it starts, a line each.
    """

    league: League
    specs: dict[str, SearchSpec]
    splits: Splits
    notes: list[str]

    @property
    def first(self) -> SearchSpec:
        """The search of the first method: data, network and resources are those of all."""
        return next(iter(self.specs.values()))


def run(options: LeagueOptions, console: Console) -> int:
    """Run the league, or check it, and return the command's exit code."""
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        console.print(line)

    prepared = prepare(options)
    for note in prepared.notes:
        say(note)
    if options.check:
        _check(prepared, options, console)
        return 0
    with hold(prepared, options, say):
        state = LeagueState()
        is_live = console.is_terminal and not options.verbose
        view = LeagueView(state, console, said) if is_live else PlainLeagueView(state, console.print)
        interruption = Interruption(console.print, state.describe_best)
        try:
            with on_ctrl_c(interruption):
                return _run(prepared, view, options, interruption, console)
        except KeyboardInterrupt as error:
            ignore_ctrl_c()
            interruption.settle()
            _say_how_to_continue("interrupted", prepared, options, console)
            if isinstance(error, WorkLeftBehindError):
                raise
            return EXIT_CODE


def prepare(options: LeagueOptions, content: dict[str, Any] | None = None) -> Prepared:
    """Read the methods and the search space, or the league to continue, and load the data; nothing is written.

    Args:
        options: The command line.
        content: The mapping of the search space; None reads that of `options.space`.

    Raises:
        TuneCureError: The league cannot be run as asked for.
    """
    if options.address is None:
        dashboard.check(options.dashboard_host)
    elif options.dashboard_host != dashboard.LOOPBACK:
        raise UsageError("--dashboard-host: goes with a Ray that is started here, not with --address")
    notes: list[str] = []
    league = _read_league(options.resume, options) if options.resume else _new_league(options, content, notes)
    specs = league.compose()
    first = next(iter(specs.values()))
    may_download = bool(options.data_root) or folders.is_default(first.data.root)
    splits = splits_module.load(first.data, download=may_download)
    data = fit_to_data(first, splits).data
    specs = {name: spec.model_copy(update={"data": data}) for name, spec in specs.items()}
    return Prepared(league, specs, splits, notes)


def _new_league(options: LeagueOptions, content: dict[str, Any] | None, notes: list[str]) -> League:
    """Return the league that a command line asks for, in a folder that is free; add to `notes` what it leaves out."""
    config = read_config(options, content, notes)
    name = config.shared.get("name")
    default = run_files.RESULTS / (f"{name}_league" if isinstance(name, str) else "league")
    return League(choose_run_folder(default, options.output), config)


def read_config(options: LeagueOptions, content: dict[str, Any] | None, notes: list[str]) -> LeagueConfig:
    """Return what a command line asks a new league for, without its budget; add to `notes` what it leaves out.

    Raises:
        TuneCureError: A method or the search space cannot be used.
    """
    assert options.space is not None
    folder = Path()
    if content is None:
        source = bundled_spaces.find(options.space)
        content, folder = read_mapping(source), source.parent
    try:
        expand_model_name(content)
        for assignment in options.overrides:
            override(content, assignment)
            expand_model_name(content)
        content |= read_parts(content, folder)
        import_modules(content.get("parts", []))
        shared, left_out = take_shared(content)
    except ProblemError as problem:
        raise problem.within(options.space) from problem
    entries = read_entries(options.methods)
    notes += [line] if (line := describe_left_out(left_out)) else []
    try:
        return LeagueConfig(
            space=options.space,
            methods=entries,
            trials=options.trials,
            budget_by=options.budget_by,
            seeds=options.seeds,
            examples=options.examples,
            train_images=options.train_images,
            autoattack=not options.no_autoattack,
            shared=shared,
        )
    except ValidationError as error:  # the parser of the command line refuses such numbers before
        raise first_problem(error, LeagueConfig).within("league") from error


def _read_league(folder: Path, options: LeagueOptions) -> League:
    """Return the league in a folder, with its data where the command line says."""
    if not is_league(folder) and (folder / run_files.JOURNAL).is_file():
        raise UsageError(f"--resume {folder}: holds a search, no league; continue it with tune-cure search --resume")
    league = League.read(folder)
    for assignment in options.overrides:
        override(league.config.shared, assignment)
    return league


@contextmanager
def hold(prepared: Prepared, options: LeagueOptions, say: Callable[[str], None]) -> Iterator[None]:
    """Make the league's folder and those of its methods, and lock them against other processes."""
    league, splits = prepared.league, prepared.splits
    if options.address is not None:
        join(own_part_files(*prepared.specs.values()), options.address, verbose=options.verbose)
    make_folder(league.folder)
    say(f"results go to {league.folder}")
    with ExitStack() as locks:
        locks.enter_context(locking.hold_run_lock(league.folder, "its league is running already"))
        if not is_league(league.folder):
            league.write()
        environment.write(league.folder, splits.source)
        judged = splits.validation.subset(prepared.first.evaluation.examples, seed=0)
        chance = chance_level(judged.own_labels)
        for name in league.methods:
            folder = make_folder(league.run_folder(name))
            locks.enter_context(locking.hold_run_lock(folder))
            environment.write(folder, splits.source, chance_level=chance)
        yield


def _run(
    prepared: Prepared,
    view: LeagueView | PlainLeagueView,
    options: LeagueOptions,
    interruption: Interruption,
    console: Console,
) -> int:
    league = prepared.league
    results = league.results()
    try:
        if not is_searched(results, league):
            results = run_searches(prepared, view, options, interruption.announce)
            interruption.finish()
            write_results(results, partial(alert, console), is_whole=not interruption.is_asked)
        else:
            write_missing_results(results, partial(alert, console))
    except LostFolderError as error:
        alert(console, f"{error}. Once it is back, continue with:\n  {_resume_command(league, options)}")
        return error.exit_code
    return _conclude(prepared, results, options, interruption, console)


def run_searches(
    prepared: Prepared, view: LeagueView | PlainLeagueView, options: LeagueOptions, on_interrupt: Callable[[], None]
) -> dict[str, SearchResult]:
    """Run the searches until all are over or they are interrupted, and return their results.

    Args:
        prepared: The league.
        view: Shows the progress.
        options: The command line.
        on_interrupt: Is called at Ctrl-C.

    Raises:
        DeadRayError: Ray has died before the budget was known.
    """
    from tune_cure.ray_backend.guard import DeadRayError  # Ray takes seconds to import
    from tune_cure.ray_backend.league import tuner
    from tune_cure.ray_backend.tuner import RunOptions, Search

    def on_begin(searches: dict[str, Search], plan: ResourcePlan) -> None:
        states = {name: SearchState(search.spec) for name, search in searches.items()}
        for name, search in searches.items():
            for event in search.record.history:
                states[name].update(event)
        view.state.begin(states)
        league_plan.say_budget(prepared.league, plan.concurrent, view.say, spent=view.state.share)

    run_options = RunOptions(
        address=options.address,
        dashboard_host=options.dashboard_host,
        verbose=options.verbose,
        seconds=options.time_budget,
    )
    listeners = tuner.Listeners(
        on_ready=lambda devices, url: say_start(devices, url, view.say),
        on_begin=on_begin,
        on_event=view.on_event,
        on_interrupt=on_interrupt,
    )
    try:
        with view:
            return tuner.run(prepared.league, prepared.first.data, run_options, listeners)
    except DeadRayError as error:
        raise DeadRayError(f"{error}; to continue: {_resume_command(prepared.league, options)}") from error


def _check(prepared: Prepared, options: LeagueOptions, console: Console) -> None:
    """Print what the league would do: methods, budget and time; nothing is written."""
    league, spec = prepared.league, prepared.first
    plan = search_plan.plan_on_this_machine(spec)
    console.print(f"results would go to {league.folder}")
    console.print(f"{search_plan.describe_images(prepared.splits)}\n{plan}")
    for name, search in prepared.specs.items():
        space = ", ".join(f"{key} {distribution}" for key, distribution in search.space.items())
        console.print(f"{name}: {space}; begins with {format_hyperparameters(search.start_from[0])}")
    if league.config.budget is None and (plan.gpus_per_trial or options.address):
        console.print("an epoch of each method is measured on the workers when the league starts: its budget follows")
        return
    if league.config.budget is None:
        with cpu_threads(spec.resources.cpus_per_trial):
            costs = {name: measure_epoch(search, prepared.splits) for name, search in prepared.specs.items()}
        league = league.with_costs(prepared.specs, costs)
    league_plan.say_budget(league, plan.concurrent, console.print)
    console.print(league_plan.budget_table(league, prepared.specs))


def write_results(results: Mapping[str, SearchResult], warn: Callable[[str], None], *, is_whole: bool = True) -> None:
    """Write tables and report of each search into its own folder.

    Args:
        results: The searches.
        warn: Says that one could not be written.
        is_whole: Write figures and the best model, too.
    """
    for result in results.values():
        try:
            if is_whole:
                artifacts.write_artifacts(result)
            else:
                artifacts.write_tables_and_report(result)
        except OSError as error:
            folder, message = result.directory, error.strerror or str(error)
            warn(f"the tables could not be written ({message}); later: tune-cure report {quote_path(folder)}")


def write_missing_results(results: Mapping[str, SearchResult], warn: Callable[[str], None]) -> None:
    """Write all files of each search that lacks some: an earlier session was killed, or interrupted at its end."""
    missing = {name for name, result in results.items() if not artifacts.has_current_artifacts(result.directory)}
    write_results({name: result for name, result in results.items() if name in missing}, warn)


def _conclude(
    prepared: Prepared,
    results: dict[str, SearchResult],
    options: LeagueOptions,
    interruption: Interruption,
    console: Console,
) -> int:
    """Print what the searches found, or how to continue them, and return the exit code."""
    league = prepared.league
    say_where_logs_are(console.print)
    outcomes = {result.outcome for result in results.values()}
    if interruption.settle() or len(results) < len(league.methods) or "interrupted" in outcomes:
        _say_how_to_continue("interrupted", prepared, options, console)
        return EXIT_CODE
    console.print(league_plan.results_table(results))
    given_up = explain_given_up(league, results)
    for line in given_up.values():
        alert(console, line, style="bold")
    faulty = {name: it for name, it in results.items() if it.outcome in FAULTS and name not in given_up}
    for name, result in faulty.items():
        alert(console, f"{name}: {result.reason}", style="bold")
    if "time" in outcomes:
        _say_how_to_continue("the time budget is used up", prepared, options, console)
        return EXIT_MORE_TO_DO
    if faulty:
        _say_how_to_continue("not all searches have ended", prepared, options, console)
        return 1
    console.print(f"all searches are over; each method's folder in {league.folder} is that of an ordinary search")
    code = int(bool(given_up))
    if options.searches_only:
        return code
    confirmed = league_confirmation.run(
        league,
        prepared.first.data,
        console,
        address=options.address,
        verbose=options.verbose,
        resume_command=_resume_command(league, options),
    )
    return confirmed or code


def explain_given_up(league: League, results: Mapping[str, SearchResult]) -> dict[str, str]:
    """Return a line for each method whose search is given up: why, and how it is searched anew; by method."""
    return {
        name: f"{name}: {reason}; its search is given up, and the league goes on without it. To search it anew, delete "
        f"{league.run_folder(name)} and resume the league"
        for name, reason in find_given_up(results).items()
    }


def _say_how_to_continue(reason: str, prepared: Prepared, options: LeagueOptions, console: Console) -> None:
    league = prepared.league
    say_how_to_continue(reason, league.folder, prepared.first, _resume_command(league, options), console)


def _resume_command(league: League, options: LeagueOptions) -> str:
    words = ["--resume", str(league.folder.absolute())]
    words += ["--data-root", str(Path(options.data_root).expanduser().absolute())] if options.data_root else []
    words += ["--address", options.address] if options.address else []
    words += ["--searches-only"] * options.searches_only
    return f"{command_line.program()} league {shlex.join(words)}"
