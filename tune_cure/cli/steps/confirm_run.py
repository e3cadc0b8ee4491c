"""A confirmation from its checks to its tables. The command `confirm` and `tune_cure.confirm` share these steps."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from tune_cure.cli.confirm import ConfirmOptions
from tune_cure.cli.steps.continuing import KEPT, explaining_disk_fault
from tune_cure.cli.views.confirmation import JobLines, explain_other_number, print_plan, print_results
from tune_cure.cli.views.console import alert
from tune_cure.cli.views.interruption import EXIT_CODE, Interruption
from tune_cure.cli.views.ray_logs import say_where_logs_are
from tune_cure.confirmation import candidates as candidates_module, plan as plan_module
from tune_cure.confirmation.candidates import BASELINES, Candidate, explain_baselines
from tune_cure.confirmation.checks import ConfirmError, check_disk, make_plan, rehearse
from tune_cure.confirmation.cost import Cost, estimate_costs
from tune_cure.confirmation.own_candidates import explain_differences, read_own_candidates
from tune_cure.confirmation.plan import Job, Plan
from tune_cure.confirmation.searches.chance import find_chance
from tune_cure.confirmation.task import explain_trained_images
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.data import folders, splits as splits_module
from tune_cure.data.splits import Splits
from tune_cure.evaluation.chance import chance_level
from tune_cure.evaluation.names import explain_missing_parts
from tune_cure.ray_backend.resources import plan_resources, this_machine
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.search.space.own_parts import import_parts_of_run
from tune_cure.utils import environment, locking
from tune_cure.utils.environment import describe_missing, is_installed
from tune_cure.utils.signals import WorkLeftBehindError, ignore_ctrl_c, on_ctrl_c

REWRITE_SECONDS = 20.0
"""Least time between two rewritings of the tables while runs are left."""


def run(options: ConfirmOptions, console: Console) -> int:
    """Run the confirmation, or check it, print what it does and what came of it, and return the exit code."""
    prepared = prepare(options)
    print_plan(prepared.jobs, prepared.costs, prepared.concurrent, console)
    for note in prepared.notes:
        console.print(note)
    if options.check:
        return 0
    with prepared.lock(), explaining_disk_fault(options.command()):
        return _run(prepared, options, console)


@dataclass(frozen=True)
class Prepared:
    """A confirmation that can run.

    Attributes:
        result: The search, with the folder of the data as the command line has it.
        candidates: The configurations that are retrained.
        plan: How they are retrained and judged.
        jobs: A job for each candidate and seed.
        splits: The images.
        folder: The confirmation's folder.
        costs: The cost of one run of each candidate, by its name; empty if it is not known.
        concurrent: The number of runs at a time on this machine; None on a cluster, which is not joined yet.
        notes: What to know before it starts, a line each.
    """

    result: SearchResult
    candidates: list[Candidate]
    plan: Plan
    jobs: list[Job]
    splits: Splits
    folder: Path
    costs: dict[str, Cost]
    concurrent: int | None
    notes: list[str]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Make the folder, lock it against other processes, and record the environment in it."""
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfirmError(f"{self.folder}: cannot be made: {error.strerror}") from error
        with locking.hold_run_lock(self.folder):
            environment.write(self.folder, self.splits.source)
            yield


def prepare(options: ConfirmOptions) -> Prepared:
    """Load what a confirmation needs, and check all that can be known before its first epoch; nothing is written.

    Raises:
        TuneCureError: The search cannot be confirmed as asked for.
    """
    _check(options)
    result = SearchResult(options.directory)
    spec = import_parts_of_run(result.spec, options.directory / run_files.SPEC, options.parts)
    result.spec = spec
    candidates = candidates_module.choose_candidates(result, options.top, list(options.baselines))
    data = spec.data
    if options.data_root:
        data = data.model_copy(update={"root": str(Path(options.data_root).expanduser().absolute())})
    result.spec = spec.model_copy(update={"data": data})
    whole = data.model_copy(update={"train_examples": None})
    may_download = not options.check and (bool(options.data_root) or folders.is_default(data.root))
    splits = splits_module.load(whole, download=may_download)
    plan = make_plan(
        result,
        splits,
        seeds=options.seeds,
        epsilons=options.epsilons,
        examples=options.examples,
        train_images=options.train_images,
        autoattack=not options.no_autoattack,
        weights=options.weights,
        more_images="; --weights last trains on these, too",
    )
    candidates += read_own_candidates(
        options.candidates, result, candidates, splits.test.subset(plan.examples, seed=0), splits.num_classes
    )
    jobs = plan_module.plan_jobs(result, candidates, plan)
    concurrent = None if options.address else plan_resources(spec, [this_machine()]).concurrent
    check_disk(result.directory, jobs, rehearse(jobs, splits), concurrent or len(jobs))
    return Prepared(
        result,
        candidates,
        plan,
        jobs,
        splits,
        result.directory / run_files.CONFIRM,
        estimate_costs(
            result, jobs, num_searched=data.train_examples or len(splits.train), num_classes=splits.num_classes
        ),
        concurrent,
        _notes(result, candidates, options, splits, jobs),
    )


def _notes(
    result: SearchResult, candidates: Sequence[Candidate], options: ConfirmOptions, splits: Splits, jobs: Sequence[Job]
) -> list[str]:
    """Return what to know before it starts: training images, what is left out, earlier runs, trials at chance."""
    notes = explain_other_number(jobs[0].plan, result.spec.data.train_examples)
    notes += explain_baselines(result, candidates, options.baselines)
    notes += explain_differences(candidates, result)
    if not splits.has_own_test:
        trained = {candidate.name: candidate.trained for candidate in candidates if candidate.trained}
        data = splits_module.with_validation(result.spec.data, splits)
        notes += [f"warning: {sentence}" for sentence in explain_trained_images(trained, data)]
    notes += plan_module.explain_left_out(plan_module.find_left_out(jobs), result.spec.evaluation.norm)
    if not jobs[0].plan.held_out and options.weights is None:
        folder = result.directory / run_files.CONFIRM
        notes.append(
            f"the last weights alone are judged, as this confirmation was begun; move {folder} away to judge those of "
            "the best epoch, too"
        )
    if missing := describe_missing(["plotly"]):
        notes.append(missing)
    if left_out := explain_missing_parts(splits.num_classes, autoattack=not options.no_autoattack):
        notes.append(left_out)
    judged = splits.validation.subset(result.spec.evaluation.examples, seed=0)
    if finding := find_chance(result, chance_level(judged.own_labels)):
        notes.append(f"warning: {finding}")
    return notes


def _check(options: ConfirmOptions) -> None:
    """Refuse numbers and names that the command line would not take: Python can give them, too."""
    for name, least in (("top", 1), ("seeds", 1), ("train_images", 2), ("examples", 2)):
        number = getattr(options, name)
        if number is not None and number < least:
            raise ConfirmError(f"{name}: at least {least} is needed, but found {number}")
    if options.weights not in (None, "both", "last"):
        raise ConfirmError(f"weights: {options.weights!r} is not one of both, last")
    for baseline in options.baselines:
        if baseline not in BASELINES:
            raise ConfirmError(f"baselines: {baseline!r} is not one of {', '.join(BASELINES)}")
    for epsilon in options.epsilons:
        if not 0 < epsilon < math.inf:
            raise ConfirmError(f"epsilons: a radius above 0 is needed, but found {epsilon}")


def run_jobs(
    prepared: Prepared, options: ConfirmOptions, lines: JobLines, on_interrupt: Callable[[], None] = lambda: None
) -> dict[str, str]:
    """Run the jobs that are not done, and return the reason of each that failed, by its folder.

    Tables and page are written anew while they run: a run that is done is in them although the process is killed.

    Args:
        prepared: The confirmation.
        options: The command line.
        lines: Prints the progress.
        on_interrupt: Is called at Ctrl-C.
    """
    from tune_cure.ray_backend import confirmation  # Ray takes seconds to import
    from tune_cure.reports import confirmation_page

    def write() -> None:
        confirmation_page.write(prepared.result, prepared.jobs, prepared.folder)

    return confirmation.run(
        prepared.jobs,
        prepared.result,
        address=options.address,
        verbose=options.verbose,
        on_ready=lines.on_ready,
        on_status=rewriting(lines.on_status, write),
        on_interrupt=on_interrupt,
    )


def rewriting(
    on_status: Callable[[Job, dict[str, Any]], None], write: Callable[[], object]
) -> Callable[[Job, dict[str, Any]], None]:
    """Return `on_status` that also has the tables written anew when runs are done, so that they outlast kill −9."""
    written = time.monotonic()

    def follow(job: Job, status: dict[str, Any]) -> None:
        nonlocal written
        on_status(job, status)
        if status["stage"] == "done" and time.monotonic() - written > REWRITE_SECONDS:
            write()
            written = time.monotonic()

    return follow


def run_until_interrupted(work: Callable[[], dict[str, str]], interruption: Interruption) -> dict[str, str]:
    """Return what the work returns, or nothing if a first Ctrl-C has ended it: the tables are still to be written."""
    try:
        return work()
    except KeyboardInterrupt as error:
        if interruption.is_urgent or isinstance(error, WorkLeftBehindError):
            raise
        interruption.is_asked = True
        return {}
    finally:
        interruption.finish()


def _run(prepared: Prepared, options: ConfirmOptions, console: Console) -> int:
    """Run the jobs, write and print the results, and return the exit code."""
    interruption = Interruption(console.print)
    try:
        with on_ctrl_c(interruption):
            lines = JobLines(len(prepared.jobs), console.print)
            work = partial(run_jobs, prepared, options, lines, interruption.announce)
            failures = run_until_interrupted(work, interruption)
            code = _conclude(prepared, failures, interruption, console)
    except KeyboardInterrupt as error:
        ignore_ctrl_c()
        interruption.settle()
        alert(console, f"interrupted; {KEPT}\n  {options.command()}")
        if isinstance(error, WorkLeftBehindError):
            raise
        return EXIT_CODE
    if code:
        alert(console, f"{KEPT}\n  {options.command()}")
    return code


def _conclude(prepared: Prepared, failures: dict[str, str], interruption: Interruption, console: Console) -> int:
    """Write and print the results that there are, and return the exit code."""
    directory = prepared.result.directory
    if interruption.is_asked and not any(job.is_judged for job in prepared.jobs):
        interruption.settle()
        alert(console, "interrupted; no run has been judged yet")
        return EXIT_CODE
    results = write_results(prepared)
    if interruption.settle():
        alert(console, f"interrupted; with what is done so far, {_wrote(directory)}")
        return EXIT_CODE
    print_results(results, prepared.result, console)
    for job, reason in failures.items():
        alert(console, f"failed: {job}: {reason}", style="bold")
    say_where_logs_are(console.print)
    console.print(f"\n{_wrote(directory)}")
    return 1 if failures else 0


def write_results(prepared: Prepared) -> Confirmation:
    """Write the tables and the page of a confirmation, and the search's report with it, and return the outcomes."""
    from tune_cure.reports import confirmation_page

    confirmation = confirmation_page.write(prepared.result, prepared.jobs, prepared.folder)
    if is_installed("plotly"):
        from tune_cure.reports import search_page  # takes a second to import

        search_page.write(SearchResult(prepared.result.directory))  # the search may have gone on since
    return confirmation


def _wrote(directory: Path) -> str:
    folder = directory / run_files.CONFIRM
    if not is_installed("plotly"):
        return f"wrote {folder}/confirm.csv, confirm.json and outcomes.npz"
    return (
        f"wrote {folder}/confirm.html, confirm.csv, confirm.json and outcomes.npz, and {directory}/{run_files.REPORT}"
    )
