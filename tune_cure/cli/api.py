"""The public functions that train: the commands `search`, `train` and `confirm` for scripts and notebooks.

They take the same steps as the commands and write the same files. They print a line of progress for each trial or
epoch, or send it to the logger `tune_cure` (see `options.progress`). The functions `report`, `compare`, `replay` and
`export` are in their commands' modules, `league` and `evaluate` in steps/.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from tune_cure.cli import options as command_line
from tune_cure.cli.confirm import ConfirmOptions
from tune_cure.cli.search import SearchOptions, load_spec
from tune_cure.cli.steps import confirm_run, search_run, train_run
from tune_cure.cli.steps.fitting import load_data
from tune_cure.cli.train import TrainOptions, read_begun, read_content, resolve_run
from tune_cure.cli.views.confirmation import JobLines
from tune_cure.cli.views.live_view import PlainView
from tune_cure.cli.views.ray_logs import say_where_logs_are
from tune_cure.cli.views.training import train_epochs
from tune_cure.confirmation.candidates import DEFAULT_BASELINES
from tune_cure.confirmation.plan import files_of_parts
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.models import checkpoints
from tune_cure.reports.figures.notebook import pictures_of_confirmation, pictures_of_log
from tune_cure.reports.refresh import ReportRefresher
from tune_cure.search import resume as resuming, run_files
from tune_cure.search.progress import SearchState
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.own_parts import own_part_files
from tune_cure.search.space.registration import setup_of_workers
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.files import FolderError
from tune_cure.utils.formatting import draw_with, format_count, format_notebook, format_percent, format_table
from tune_cure.utils.yaml_config import parse_duration

Settings = Mapping[str, Any] | Sequence[str]

_logger = logging.getLogger(__name__)

draw_with(Confirmation, pictures_of_confirmation)


def search(
    space: str | Path | Mapping[str, Any],
    *,
    output: str | Path | None = None,
    settings: Settings = (),
    data_root: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    time_budget: float | str | None = None,
    address: str | None = None,
    track: Sequence[str] = (),
    verbose: bool = False,
    quiet: bool = False,
) -> SearchResult:
    """Search a space, and write tables, report and the best model into a folder.

    A folder that holds the same search, ended, is read and not searched again: a notebook's cell can be run twice.
    Ctrl-C ends the search with all state saved; the result's `outcome` is then `interrupted`. A second Ctrl-C waits for
    nothing and raises KeyboardInterrupt.

    Args:
        space: A YAML file, the name of a bundled search space, or a mapping with the keys of such a file.
        output: The run's folder, or a URI; None takes a new folder below results/.
        settings: Overrides of single keys: `{"training.epochs": 5}` or `["training.epochs=5"]`.
        data_root: Folder of the data; None leaves `data.root` as it is.
        resume: Continue the search in the run's folder.
        force: With `resume`: continue although settings have changed.
        time_budget: Seconds, or a text such as `2h`, after which the search ends; None is without limit.
        address: Address of a Ray cluster to join; None starts a Ray on this machine, and ends it afterwards.
        track: Trackers that the search is sent to, too: `["mlflow", "wandb", "trackio"]`.
        verbose: Show what Ray and Optuna say.
        quiet: Print no progress.

    Returns:
        The trials, and how the search ended in `outcome` and `reason`.

    Raises:
        TuneCureError: The space cannot be searched, the folder holds something else, or the results cannot be written.
    """
    options = SearchOptions(
        space="space" if isinstance(space, Mapping) else str(space),
        settings=read_settings(settings),
        data_root=None if data_root is None else str(data_root),
        output=None if output is None else str(output),
        resume=resume,
        force=force,
        time_budget=read_seconds(time_budget),
        address=address,
        track=tuple(track),
        verbose=verbose,
    )
    spec = load_spec(options, dict(deepcopy(space)) if isinstance(space, Mapping) else None)
    if not resume and (ended := _find_ended(spec, options)):
        return ended
    say = command_line.progress(quiet)
    with own_ray(own_part_files(spec), address, verbose), search_run.open_folder(spec, options, say) as folder:
        spec = folder.spec
        view = PlainView(SearchState(spec), say)
        search_run.take_history(view.state, folder)
        with view, ReportRefresher(folder.directory, folder.record):
            result = search_run.run_trials(
                spec,
                folder,
                options,
                view,
                on_ready=lambda devices, url: search_run.say_start(devices, url, say),
            )
        try:
            search_run.write_results(result, folder)
        except OSError as error:
            raise FolderError(f"{folder.directory}: the tables could not be written: {error.strerror}") from error
        folder.storage.copy_all()
        say_where_logs_are(say)
        return result


def _find_ended(spec: SearchSpec, options: SearchOptions) -> SearchResult | None:
    """Return the search in the folder of `options` if it is `spec` and has ended; None if there is no search in it.

    Raises:
        ResumeError: The folder holds another search, or this one before it has ended.
    """
    if options.output is None or not (Path(options.output) / run_files.JOURNAL).is_file():
        return None
    result = SearchResult(options.output, "finished")
    if result.trials.empty:
        return None
    resuming.refuse_other_result(result, load_data(spec, options)[0])
    return result


@dataclass(frozen=True)
class TrainResult:
    """A training run.

    Attributes:
        directory: The run's folder, with its tables, checkpoints and page of curves.
        log: A row for each epoch: losses, accuracies, times.
        network: The network of the best epoch, in evaluation mode, for images in [0, 1]; None if the first diverged.
        best_epoch: The epoch of `network`, counted from 1; 0 if there is none.
        test: Accuracies of the best and the last network on the test set; None if they were not asked for.
    """

    directory: Path
    log: pd.DataFrame
    network: nn.Module | None
    best_epoch: int
    test: pd.DataFrame | None

    def _repr_html_(self) -> str:
        """Return the HTML that a notebook shows: the accuracies by epoch, and those on the test set."""
        return format_notebook(self, *self._describe(), [] if self.test is None else [format_table(self.test)])

    def _describe(self) -> tuple[str, str]:
        """Return the headline and the line below it."""
        where = f"all is in {self.directory}"
        trained = f"{format_count(len(self.log), 'epoch')} trained"
        if not self.best_epoch:
            return f"{trained}; the first diverged", where
        best = self.log.iloc[self.best_epoch - 1]
        reached = format_percent(best["pgd_accuracy"], best["pgd_accuracy_se"])
        return f"{trained}, the best is epoch {self.best_epoch} with a PGD accuracy of {reached}", where


draw_with(TrainResult, lambda run: pictures_of_log(run.log))


def train(
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    trial: int | None = None,
    output: str | Path | None = None,
    settings: Settings = (),
    data_root: str | Path | None = None,
    device: str | None = None,
    resume: bool = False,
    test: bool = False,
    quiet: bool = False,
    parts: str | Path | None = None,
) -> TrainResult:
    """Train one network, without Ray, and write its log, curves and checkpoints into a folder.

    Args:
        config: A run's YAML file, or a mapping with its keys; or a best_config.yaml, best_config.csv or trials.csv in
            the folder of a search. None takes the defaults.
        trial: The trial whose row of the table is taken.
        output: The run's folder; None takes a new one below results/.
        settings: Overrides of single keys: `{"training.epochs": 5}` or `["training.epochs=5"]`.
        data_root: Folder of the data; None leaves `data.root` as it is.
        device: Name of a torch device; None takes CUDA if there is any.
        resume: Continue the run in the folder, which has its configuration.
        test: Judge the best and the last network on the test set at the end.
        quiet: Print no progress.
        parts: The file of your own parts; None takes the ones that `config`, or the run that is resumed, names.

    Raises:
        TuneCureError: The run cannot be trained, or the folder is not free or cannot be continued.
    """
    given = isinstance(config, Mapping)
    options = TrainOptions(
        config=None if config is None or isinstance(config, Mapping) else Path(config),
        trial=trial,
        data_root=None if data_root is None else str(data_root),
        settings=read_settings(settings),
        output=None if output is None else Path(output),
        resume=resume,
        test=test,
        device=device,
        parts=None if parts is None else Path(parts),
    )
    say = command_line.progress(quiet)
    if resume and given:
        raise TuneCureError("resume takes its configuration from the run's folder: leave out config")
    if resume:
        spec = read_begun(options)
    else:
        content = dict(deepcopy(config)) if isinstance(config, Mapping) else read_content(options)
        spec = resolve_run(content, options, say, source="config")
    with train_run.open_run(spec, options) as run:
        train_epochs(run, say)
        frame = run.evaluate_on_test() if test and run.trainer.best_epoch else None
        train_run.write_page(run)
        epoch = run.trainer.best_epoch
        network = checkpoints.rebuild(run.trainer.best_model(), trust_code=True) if epoch else None
        return TrainResult(run.directory, pd.DataFrame(run.log), network, epoch, frame)


def confirm(
    search: SearchResult | str | Path,
    *,
    top: int = 3,
    seeds: int = 3,
    baselines: Sequence[str] = DEFAULT_BASELINES,
    candidates: Sequence[str] = (),
    epsilons: Sequence[float] = (),
    examples: int | None = None,
    train_images: int | None = None,
    weights: str | None = None,
    autoattack: bool = True,
    data_root: str | Path | None = None,
    address: str | None = None,
    verbose: bool = False,
    quiet: bool = False,
    parts: str | Path | None = None,
) -> Confirmation:
    """Retrain a search's winners and baselines over seeds, judge them on the test set, and write the results.

    Runs that are done already are not repeated. A run that fails is logged as a warning, and is not in the result.

    Args:
        search: The search, or its folder.
        top: How many leading configurations are retrained.
        seeds: How many training runs of each.
        baselines: What they are measured against: start_from, ablation, fgsm, pgd.
        candidates: Configurations to retrain and trained networks to judge as they are, as the command line takes
            them: `mine.yaml`, `trades`, `results/A/trials.csv:7`, `weights.pt@my_nets:resnet`, `NAME=FILE`.
        epsilons: Radii to judge at besides that of the search, in pixel units.
        examples: Test images to judge on; None is all.
        train_images: Training images to use; None is all.
        weights: `both` judges the last weights and those of the best epoch, `last` the last ones alone. None goes on
            as the confirmation was begun, and begins with both.
        autoattack: Judge by AutoAttack, too, not by PGD-50-10 alone.
        data_root: Folder of the data; None leaves that of the search.
        address: Address of a Ray cluster to join; None starts a Ray on this machine, and ends it afterwards.
        verbose: Show what Ray says.
        quiet: Print no progress.
        parts: The file of your own parts, where it is not the one that the search used; None takes that one.

    Raises:
        TuneCureError: The search cannot be confirmed as asked for.
    """
    options = ConfirmOptions(
        directory=command_line.folder_of(search),
        top=top,
        seeds=seeds,
        baselines=tuple(baselines),
        candidates=tuple(candidates),
        epsilons=tuple(epsilons),
        examples=examples,
        train_images=train_images,
        weights=weights,
        no_autoattack=not autoattack,
        data_root=None if data_root is None else str(data_root),
        address=address,
        verbose=verbose,
        parts=None if parts is None else Path(parts),
    )
    say = command_line.progress(quiet)
    prepared = confirm_run.prepare(options)
    for note in prepared.notes:
        say(note)
    with own_ray(files_of_parts(prepared.result.spec, prepared.jobs), address, verbose), prepared.lock():
        lines = JobLines(len(prepared.jobs), say)
        failures = confirm_run.run_jobs(prepared, options, lines)
        for job, reason in failures.items():
            _logger.warning("failed: %s: %s", job, reason)
        say_where_logs_are(say)
        return confirm_run.write_results(prepared)


@contextmanager
def own_ray(modules: list[Path], address: str | None, verbose: bool) -> Iterator[None]:
    """Start or join a Ray that knows the registered parts and gets `modules`, and leave it at the end.

    Nothing is done where this process is connected to a Ray already, and where neither a cluster is to be joined nor a
    part is registered: then the search starts a Ray itself, once it has checked its input.
    """
    from tune_cure.ray_backend import session  # Ray takes seconds to import

    setup = setup_of_workers()
    if session.is_running() or (address is None and setup is None):
        yield
        return
    session.start_ray(address, verbose=verbose, setup=setup, modules=modules)
    try:
        yield
    finally:
        session.stop_ray()


def read_seconds(time_budget: float | str | None) -> float | None:
    """Return the seconds of a time budget, which may be a text such as `2h`; None is without limit.

    Raises:
        TuneCureError: The text is no duration.
    """
    if not isinstance(time_budget, str):
        return time_budget
    try:
        return parse_duration(time_budget)
    except ValueError as error:
        raise TuneCureError(f"time_budget: {error}") from error


def read_settings(settings: Settings) -> tuple[str, ...]:
    """Return settings as the command line has them: a key's path, an equals sign, a YAML value."""
    if isinstance(settings, Mapping):
        return tuple(f"{key}={json.dumps(value, default=str)}" for key, value in settings.items())
    return tuple(settings)
