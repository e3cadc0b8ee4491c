"""The last part of a league: its winners and untuned presets are retrained over seeds and judged on the test set."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from tune_cure.cli.steps.confirm_run import rewriting, run_until_interrupted
from tune_cure.cli.steps.continuing import KEPT, explaining_disk_fault
from tune_cure.cli.views.confirmation import JobLines, print_plan
from tune_cure.cli.views.console import alert
from tune_cure.cli.views.interruption import EXIT_CODE, Interruption
from tune_cure.cli.views.league_results import print_standings
from tune_cure.cli.views.ray_logs import say_where_logs_are
from tune_cure.confirmation.checks import check_disk, make_plan, rehearse
from tune_cure.confirmation.cost import Cost
from tune_cure.confirmation.plan import Job, plan_jobs
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.data import splits as splits_module
from tune_cure.data.config import DataSpec
from tune_cure.evaluation.names import explain_missing_parts
from tune_cure.league.contenders import choose_contenders
from tune_cure.league.cost import estimate_confirmation
from tune_cure.league.folder import League
from tune_cure.league.standings import Standings
from tune_cure.ray_backend.resources import plan_resources, this_machine
from tune_cure.reports.league import files
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.utils.environment import is_installed
from tune_cure.utils.files import make_folder
from tune_cure.utils.signals import WorkLeftBehindError, on_ctrl_c


@dataclass(frozen=True)
class Prepared:
    """The confirmation of a league, which can run.

    Attributes:
        league: The league, whose searches are over.
        result: The search of its first method: data, network, evaluation and resources are those of all.
        jobs: A job for each candidate and seed.
        costs: The cost of one run of each candidate, by its name; a candidate that has none is not known.
        concurrent: The number of runs at a time on this machine; None on a cluster.
        note: Which parts of AutoAttack are left out; empty if none is.
    """

    league: League
    result: SearchResult
    jobs: list[Job]
    costs: dict[str, Cost]
    concurrent: int | None
    note: str

    @property
    def folder(self) -> Path:
        """The confirmation's folder."""
        return self.league.folder / run_files.CONFIRM


def prepare(league: League, data: DataSpec, address: str | None) -> Prepared:
    """Plan the runs, and check all that can be known before the first epoch; nothing is written.

    Args:
        league: The league.
        data: Its data, wherever that is now.
        address: Address of a Ray cluster to join; None starts a Ray on this machine.

    Raises:
        TuneCureError: The league cannot be confirmed.
    """
    config, whole = league.config, data.model_copy(update={"train_examples": None})
    results = league.results()
    result = next(iter(results.values()))
    result.spec = spec = result.spec.model_copy(update={"data": whole})
    splits, folder = splits_module.load(whole), league.folder / run_files.CONFIRM
    plan = make_plan(
        result,
        splits,
        seeds=config.seeds,
        examples=config.examples,
        train_images=config.train_images,
        autoattack=config.autoattack,
        directory=folder,
    )
    jobs = plan_jobs(result, choose_contenders(league), plan, folder)
    concurrent = None if address else plan_resources(spec, [this_machine()]).concurrent
    check_disk(league.folder, jobs, rehearse(jobs, splits), concurrent or len(jobs))
    costs = estimate_confirmation(
        results, jobs, num_searched=data.train_examples or len(splits.train), num_classes=splits.num_classes
    )
    note = explain_missing_parts(splits.num_classes, autoattack=plan.autoattack)
    return Prepared(league, result, jobs, costs, concurrent, note)


def run(
    league: League, data: DataSpec, console: Console, *, address: str | None, verbose: bool, resume_command: str
) -> int:
    """Run the jobs that are left, write tables and league.html, print the standings, and return the exit code.

    Args:
        league: The league, whose searches are over and whose folder is locked.
        data: Its data.
        console: Where to print.
        address: Address of a Ray cluster to join; None starts a Ray on this machine.
        verbose: Show what Ray says.
        resume_command: The command that continues the league.
    """
    interruption, failures = Interruption(console.print), {}
    try:
        with on_ctrl_c(interruption), explaining_disk_fault(resume_command):
            prepared = prepare(league, data, address)
            print_plan(prepared.jobs, prepared.costs, prepared.concurrent, console)
            if prepared.note:
                console.print(prepared.note)
            make_folder(prepared.folder)
            if any(not job.is_done for job in prepared.jobs):
                work = partial(
                    run_jobs, prepared, console.print, interruption.announce, address=address, verbose=verbose
                )
                failures = run_until_interrupted(work, interruption)
            interruption.finish()
            standings = write_results(prepared)
            is_interrupted = interruption.settle()
    except KeyboardInterrupt as error:
        interruption.settle()
        if isinstance(error, WorkLeftBehindError):
            raise
        is_interrupted, standings = True, None
    if is_interrupted:
        alert(console, f"interrupted; {KEPT}\n  {resume_command}")
        return EXIT_CODE
    _say_results(prepared, standings, failures, console)
    if failures:
        alert(console, f"{KEPT}\n  {resume_command}")
    return 1 if failures else 0


def run_jobs(
    prepared: Prepared,
    say: Callable[[str], None],
    on_interrupt: Callable[[], None] = lambda: None,
    *,
    address: str | None,
    verbose: bool,
) -> dict[str, str]:
    """Run the jobs that are not done, and return the reason of each that failed.

    Args:
        prepared: The confirmation of the league.
        say: Prints a line of progress.
        on_interrupt: Is called at Ctrl-C.
        address: Address of a Ray cluster to join; None starts a Ray on this machine.
        verbose: Show what Ray says.
    """
    from tune_cure.ray_backend import confirmation  # Ray takes seconds to import

    lines = JobLines(len(prepared.jobs), say)
    return confirmation.run(
        prepared.jobs,
        prepared.result,
        address=address,
        verbose=verbose,
        on_ready=lines.on_ready,
        on_status=rewriting(lines.on_status, partial(write_results, prepared)),
        on_interrupt=on_interrupt,
    )


def write_results(prepared: Prepared) -> Standings | None:
    """Write the tables of the confirmation and of the league, and league.html; None if no run has been judged yet."""
    Confirmation(prepared.jobs).write(prepared.folder)
    return files.write(prepared.league)


def _say_results(prepared: Prepared, standings: Standings | None, failures: dict[str, str], console: Console) -> None:
    folder = prepared.league.folder
    if standings is None:
        alert(console, "no run came to an end", style="bold")
    else:
        print_standings(standings, prepared.league.config, console)
    for job, reason in failures.items():
        alert(console, f"failed: {job}: {reason}", style="bold")
    say_where_logs_are(console.print)
    if standings is not None:
        page = f"{folder / files.PAGE}, " if is_installed("plotly") else ""
        console.print(f"\nwrote {page}{folder / files.TABLE}, and {prepared.folder}/{run_files.CONFIRM_TABLE}")
