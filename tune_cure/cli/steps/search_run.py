"""A search from the check of its data to its report. The command `search` and `tune_cure.search` share these steps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from tune_cure.cli.options import EXIT_MORE_TO_DO, UsageError
from tune_cure.cli.search import SearchOptions, ended_early
from tune_cure.cli.steps.continuing import explaining_interruption, say_how_to_continue
from tune_cure.cli.steps.fitting import fit_to_data, load_data, may_download
from tune_cure.cli.views import duration, search_plan
from tune_cure.cli.views.console import alert
from tune_cure.cli.views.interruption import EXIT_CODE, Interruption
from tune_cure.cli.views.live_view import LiveView, PlainView, describe_best
from tune_cure.cli.views.ray_logs import say_where_logs_are
from tune_cure.cli.views.search_results import print_results
from tune_cure.data import source, splits as splits_module
from tune_cure.evaluation.chance import chance_level
from tune_cure.ray_backend.monitoring import dashboard
from tune_cure.reports import artifacts
from tune_cure.reports.refresh import ReportRefresher
from tune_cure.search import results, resume, run_files
from tune_cure.search.journal import Event
from tune_cure.search.progress import SearchState
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.own_parts import own_part_files
from tune_cure.search.storage.run_storage import LocalStorage, ObjectStore, RunStorage, UriStorage
from tune_cure.search.trackers import tracking
from tune_cure.search.trial_table import SearchRecord
from tune_cure.utils import environment, locking
from tune_cure.utils.files import (
    FolderError,
    LostFolderError,
    choose_run_folder,
    make_folder,
    replace_text,
    write_new_text,
)
from tune_cure.utils.formatting import quote_path
from tune_cure.utils.signals import WorkLeftBehindError, ignore_ctrl_c, on_ctrl_c

FAULTS = ("failing", "disk", "ray")  # outcomes of a search that something outside of it has ended


def check(spec: SearchSpec, options: SearchOptions, console: Console) -> None:
    """Print what the search would do; print or write its YAML with every default, for copying, if that is asked for.

    Data that would be downloaded first is not checked.

    Raises:
        TuneCureError: The search would be refused.
    """
    keeps = options.resume and not resume.reads_other_prior_trials(_choose_directory(spec, options), spec)
    prior_trials = search_plan.describe_prior_trials(spec, is_resumed=keeps)
    output = _choose_output(spec, options)
    plan = search_plan.plan_on_this_machine(spec)
    splits = None
    try:
        splits = splits_module.load(spec.data, download=False)
        images = search_plan.describe_images(splits)
        spec = fit_to_data(spec, splits)
    except source.NotHereError as error:
        if not may_download(spec, options):
            raise
        images = f"not here yet: {error}"
    if options.resolved:
        write_new_text(options.resolved, spec.to_yaml())
    elif options.verbose:
        console.print(f"resolved:\n\n{spec.to_yaml()}")
    search_plan.print_plan(spec, plan, images, output, console)
    if splits and options.address is None:
        duration.say_search_duration(spec, splits, plan, console.print)
    if prior_trials:
        console.print(prior_trials)
    if missing := environment.describe_missing(environment.LEFT_OUT):
        console.print(missing)
    if options.resolved:
        console.print(f"wrote {options.resolved}")


def run(spec: SearchSpec, options: SearchOptions, console: Console) -> int:
    """Run the search, print what it does and what came of it, and return the command's exit code."""
    said: list[str] = []
    has_report = environment.is_installed("plotly")

    def say(line: str) -> None:
        said.append(line)
        console.print(line)

    with open_folder(spec, options, say) as folder:
        state = SearchState(folder.spec)
        is_live = console.is_terminal and not options.verbose
        view = LiveView(state, console, said) if is_live else PlainView(state, console.print)
        report = folder.directory / run_files.REPORT
        interruption = Interruption(
            console.print,
            lambda: best + f"; the report: {report}" * has_report if (best := describe_best(state)) else "",
        )
        try:
            with on_ctrl_c(interruption):
                return _run(folder, view, options, interruption, console)
        except KeyboardInterrupt as error:
            ignore_ctrl_c()
            interruption.settle()
            _say_how_to_continue("interrupted", folder, options, console)
            if isinstance(error, WorkLeftBehindError):
                raise
            return EXIT_CODE


def _run(
    folder: "RunFolder",
    view: LiveView | PlainView,
    options: SearchOptions,
    interruption: Interruption,
    console: Console,
) -> int:
    def on_ready(devices: object, url: str) -> None:
        say_start(devices, url, view.say)

    take_history(view.state, folder)
    try:
        with view, ReportRefresher(folder.directory, folder.record):
            result = run_trials(folder.spec, folder, options, view, on_ready, interruption.announce)
            interruption.finish()
    except LostFolderError as error:
        command = options.resume_command(folder.directory, folder.storage.output)
        remains = "; delete what Ray has written there since" if folder.directory.exists() else ""
        alert(console, f"{error}{remains}. Once it is back, continue with:\n  {command}")
        return error.exit_code
    return _conclude(result, folder, options, interruption, console)


@dataclass(frozen=True)
class RunFolder:
    """Folder and storage of a search.

    Attributes:
        spec: The search, with the number of validation images as counted.
        directory: The folder on this machine.
        storage: How its files and checkpoints are kept: in this folder alone, or in an object store, too.
        record: What its journal says.
        track: Takes the events of trials, for the trackers.
    """

    spec: SearchSpec
    directory: Path
    storage: RunStorage
    record: SearchRecord = field(default_factory=SearchRecord)
    track: Callable[[Event], None] = lambda event: None


@contextmanager
def open_folder(spec: SearchSpec, options: SearchOptions, say: Callable[[str], None]) -> Iterator[RunFolder]:
    """Check that the search can run, and yield its folder, locked against other processes.

    Nothing is written before the data is loaded and, with an address, the cluster is joined.

    Args:
        spec: The search.
        options: The command line.
        say: Prints a line.

    Raises:
        TuneCureError: The search cannot be run, or the folder is not free, or cannot be continued.
    """
    if prior_trials := search_plan.describe_prior_trials(spec, is_resumed=options.resume):
        say(prior_trials)
    if missing := environment.describe_missing(environment.LEFT_OUT):
        say(missing)
    if options.address is None:
        dashboard.check(options.dashboard_host)
    elif options.dashboard_host != dashboard.LOOPBACK:
        raise UsageError("--dashboard-host: goes with a Ray that is started here, not with --address")
    spec, splits = load_data(spec, options)
    plan = search_plan.plan_on_this_machine(spec) if options.address is None else None
    if options.address is not None:
        join(own_part_files(spec), options.address, verbose=options.verbose)
    folder = _make_folder(spec, options)
    say(f"results go to {_describe_output(folder.directory, folder.storage.checkpoint_uri)}")
    running = f"its search is running already; to see it: tune-cure watch {quote_path(folder.directory)}"
    with locking.hold_run_lock(folder.directory, running):
        _write_first_files(folder.directory, spec, options)
        command = options.resume_command(folder.directory, folder.storage.output)
        with explaining_interruption(folder.directory, spec, command):  # what follows may take seconds
            if options.resume:
                record = resume.prepare(folder.directory, spec, force=options.force, say=say)
                folder = replace(folder, record=record)
            else:
                if plan:  # of a resumed search, the views say how much is left
                    duration.say_search_duration(spec, splits, plan, say)
                for line in search_plan.explain_judgements(spec):
                    say(line)
            judged = splits.validation.subset(spec.evaluation.examples, seed=0)
            chance = chance_level(judged.own_labels)
            environment.write(folder.directory, splits.source, chance_level=chance)
            del splits, judged  # the trials map the same file; this process need not hold it
        with tracking.track(options.track, folder.spec, folder.directory, folder.record.history) as send:
            yield replace(folder, track=send)


def _write_first_files(directory: Path, spec: SearchSpec, options: SearchOptions) -> None:
    """Make a folder that of a search, before Ray is imported, which takes seconds: --resume needs these files."""
    if not (options.resume and (directory / run_files.SPEC).exists()):
        replace_text(directory / run_files.SPEC, spec.to_yaml())
    (directory / run_files.JOURNAL).touch()


def take_history(state: SearchState, folder: RunFolder) -> None:
    """Update the state of a search with the events before this session."""
    for event in folder.record.history:
        state.update(event)


def run_trials(
    spec: SearchSpec,
    folder: RunFolder,
    options: SearchOptions,
    view: LiveView | PlainView,
    on_ready: Callable[[object, str], None],
    on_interrupt: Callable[[], None] = lambda: None,
) -> SearchResult:
    """Run the trials of a search until it ends or is interrupted.

    Args:
        spec: The search.
        folder: Its folder, locked.
        options: The command line.
        view: Is told of every event.
        on_ready: Is called once Ray is up, with the devices and the dashboard's address.
        on_interrupt: Is called at once at a first Ctrl-C.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed twice, or before there was anything to end in order.
    """
    from tune_cure.ray_backend import tuner  # Ray takes seconds to import: not before the input is known to be good

    run_options = tuner.RunOptions(
        address=options.address,
        dashboard_host=options.dashboard_host,
        resume=options.resume,
        record=folder.record,
        verbose=options.verbose,
        seconds=options.time_budget,
    )

    def on_event(event: Event) -> None:
        folder.track(event)
        view.on_event(event)

    return tuner.run(spec, folder.storage, run_options, on_event=on_event, on_ready=on_ready, on_interrupt=on_interrupt)


def say_start(devices: object, url: str, say: Callable[[str], None]) -> None:
    """Say on what devices the search runs, and where Ray's dashboard is."""
    say(str(devices))
    if url:
        say(f"Ray dashboard: {url} ({dashboard.describe_token()})")


def write_results(result: SearchResult, folder: RunFolder) -> Path | None:
    """Write tables, report and the best model into the run's folder, and return the report's path, if there is one.

    Raises:
        OSError: They cannot be written.
    """
    if result.checkpoint:
        folder.storage.fetch_checkpoint(result.checkpoint)  # best_model.pt is made from it
    return artifacts.write_artifacts(result)


def _conclude(
    result: SearchResult, folder: RunFolder, options: SearchOptions, interruption: Interruption, console: Console
) -> int:
    """Write the results, print how the search ended and how to continue it, and return the exit code."""
    directory, outcome, reason = result.directory, result.outcome, result.reason
    is_copied = True
    try:
        page = write_results(result, folder)
    except OSError as error:
        message = error.strerror or str(error)
        alert(console, f"the tables could not be written ({message}); later: tune-cure report {quote_path(directory)}")
        outcome, reason = "disk", reason or f"{directory}: {message}"
    if outcome != "disk":
        try:
            folder.storage.copy_all()
        except FolderError as error:  # the search is over all the same
            alert(console, str(error), style="bold")
            is_copied = False
    say_where_logs_are(console.print)
    if interruption.settle() and not reason:
        outcome = "interrupted"  # by Ctrl-C after the last trial, too: what follows the command is not to run
    if outcome in ("finished", "patience", "time"):
        print_results(result, page, console)
    if outcome == "patience":
        console.print(ended_early(reason))
    elif outcome != "finished":
        _say_how_to_continue(reason or "interrupted", folder, options, console)
    if interruption.is_asked:
        return EXIT_CODE
    if outcome == "time" and is_copied:
        return EXIT_MORE_TO_DO
    return 0 if result.best and outcome not in FAULTS and is_copied else 1


def _say_how_to_continue(reason: str, folder: RunFolder, options: SearchOptions, console: Console) -> None:
    command = options.resume_command(folder.directory, folder.storage.output)
    say_how_to_continue(reason, folder.directory, folder.spec, command, console)


def join(modules: list[Path], address: str, *, verbose: bool) -> None:
    """Join the cluster, and send `modules` to its machines, before anything is written: there may be none."""
    from tune_cure.ray_backend import session

    if not session.is_running():
        session.start_ray(address, verbose=verbose, modules=modules)


def _choose_output(spec: SearchSpec, options: SearchOptions) -> str:
    """Return where the results of the search would go, in words; nothing is made.

    Raises:
        TuneCureError: They cannot go there.
    """
    return _describe_output(_choose_directory(spec, options), _find_uri(options))


def _find_uri(options: SearchOptions) -> str | None:
    """Return the URI of the object store that the results are copied to; None if they stay on this machine."""
    return options.output if options.output and "://" in options.output else None


def _choose_directory(spec: SearchSpec, options: SearchOptions) -> Path:
    """Return the folder of the search on this machine; nothing is made.

    Raises:
        TuneCureError: The folder is not free, or holds no search to resume.
    """
    default = run_files.RESULTS / spec.name
    if _find_uri(options):
        return choose_run_folder(default, None, resume.is_unbegun)
    named = Path(options.output) if options.output else None
    if not options.resume:
        return choose_run_folder(default, named, resume.is_unbegun)
    directory = named or default
    if not resume.is_unbegun(directory):
        results.read_spec(directory)
    return directory


def _describe_output(directory: Path, uri: str | None) -> str:
    return f"{directory}, copied to {uri}" if uri else str(directory)


def _make_folder(spec: SearchSpec, options: SearchOptions) -> RunFolder:
    """Make the run's folder on this machine, or find that of the search to continue."""
    if uri := _find_uri(options):
        return _make_folder_with_store(spec, ObjectStore(uri), options)
    directory = make_folder(_choose_directory(spec, options))
    return RunFolder(spec, directory, LocalStorage(directory))


def _make_folder_with_store(spec: SearchSpec, store: ObjectStore, options: SearchOptions) -> RunFolder:
    """Make the local folder of a search that is kept in an object store.

    A resumed search takes the folder whose copy the store has, if this machine has it still: its journal may be newer.
    Else its new folder gets the store's files. A search that ended before its first trial has left no copy.
    """
    is_copied = store.exists(run_files.JOURNAL)
    if not options.resume and is_copied:
        raise UsageError(f"--output {store.uri}: holds a search; name another, or continue it with --resume")
    directory = store.find_original(run_files.find_runs(run_files.RESULTS)) if is_copied else None
    if directory is None:
        directory = _choose_directory(spec, options)
        if options.resume and not is_copied and not resume.is_unbegun(directory):
            raise UsageError(f"--output {store.uri}: holds no search: there is no {run_files.JOURNAL} in it")
        make_folder(directory)
        if is_copied:
            store.get_run(directory)
    return RunFolder(spec, directory, UriStorage(store, directory))
