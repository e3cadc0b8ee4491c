"""A league on Ray Tune: the searches of all methods in one session of Ray and one run of Tune.

Each method has its own study, rule of early stopping, journal and folder, as an ordinary search has. Tune asks for a
trial whenever a worker is free, and the method whose turn it is proposes one. So no worker waits for a method's last
trials while other methods have something left to do.
"""

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import ray
from ray import tune
from ray.tune.experiment import Trial

from tune_cure.data.config import DataSpec
from tune_cure.league.budget import Turns
from tune_cure.league.cost import EpochCost, measure_epoch
from tune_cure.league.folder import League, find_given_up
from tune_cure.league.stopping import LeagueStopper
from tune_cure.ray_backend import cluster, rescoring, session, tuner
from tune_cure.ray_backend.data_broadcast import DataBroadcast
from tune_cure.ray_backend.gpus.memory import wait_for_memory
from tune_cure.ray_backend.gpus.sharing import plan_devices
from tune_cure.ray_backend.guard import GuardedCall, RayWatch, wait_for
from tune_cure.ray_backend.league.dispatch import LeagueCallback, LeagueScheduler, LeagueSearcher, MethodCallback
from tune_cure.ray_backend.league.trainable import LeagueTrainable
from tune_cure.ray_backend.monitoring.metrics import TrialGauges
from tune_cure.ray_backend.optuna_searcher import OptunaSearcher
from tune_cure.ray_backend.resources import ResourcePlan
from tune_cure.ray_backend.trainable import shared_data
from tune_cure.ray_backend.tuner import RunOptions, Search
from tune_cure.search import resume, run_files
from tune_cure.search.journal import Event
from tune_cure.search.results import SearchResult, read_spec
from tune_cure.search.schedulers.early_stopper import EarlyStopper
from tune_cure.search.schedulers.memory_backoff import MemoryBackoff
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.own_parts import own_part_files
from tune_cure.search.space.registration import import_sent_parts
from tune_cure.search.storage.run_storage import LocalStorage
from tune_cure.training.config import TrainingConfig
from tune_cure.utils import cpu
from tune_cure.utils.signals import WorkLeftBehindError

TUNE_FOLDER = ".tune"  # of the league: Tune's own files, which only name the places of checkpoints

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listeners:
    """What is told of a league that runs.

    Attributes:
        on_ready: Once Ray is up, of the devices and the dashboard's address, which is empty if there is none.
        on_begin: Of all searches with their events so far, before the first new one; the budget is known then. It gets
            the devices, too.
        on_event: Of every event of a method's search.
        on_interrupt: Of a first Ctrl-C, at once.
    """

    on_ready: Callable[[ResourcePlan, str], None] = lambda devices, url: None
    on_begin: Callable[[dict[str, Search], ResourcePlan], None] = lambda searches, plan: None
    on_event: Callable[[str, Event], None] = lambda method, event: None
    on_interrupt: Callable[[], None] = lambda: None


@dataclass
class _Session:
    """A session of a league.

    Attributes:
        league: The league.
        data: The data of all searches, with its number of validation images as counted.
        options: How to run the searches.
        listeners: What is told of them.
        stopper: Ends all of them.
        searches: The search of each method, once all have begun.
    """

    league: League
    data: DataSpec
    options: RunOptions
    listeners: Listeners
    stopper: LeagueStopper = field(default_factory=LeagueStopper)
    searches: dict[str, Search] = field(default_factory=dict)

    def interrupt(self) -> None:
        """End the searches because of Ctrl-C."""
        self.stopper.interrupt()
        if self.stopper.num_interrupts == 1:
            self.listeners.on_interrupt()


def run(
    league: League, data: DataSpec, options: RunOptions, listeners: Listeners = Listeners()
) -> dict[str, SearchResult]:
    """Run the searches of a league until all are over, Ctrl-C interrupts them, or something else ends them.

    Args:
        league: The league; its folder and those of its methods must exist. Searches that have begun in it go on.
        data: The data of all searches, with its number of validation images as counted.
        options: How to run the searches; `resume` and `record` are decided for each by what is in its folder.
        listeners: What is told.

    Returns:
        The result of each search that has begun, by its method.

    Raises:
        DeviceError: Not even one trial fits into the devices.
        DeadRayError: Ray has died before the budget was known.
        ClusterError: The cluster cannot be joined, or one of its machines does not see the league's folder.
        LostFolderError: A folder was deleted or moved away meanwhile.
        KeyboardInterrupt: Ctrl-C was pressed twice; as WorkLeftBehindError where Ray goes on until this process ends.
    """
    running = _Session(league, data, options, listeners)
    specs = {name: _with_data(spec, data) for name, spec in league.compose().items()}
    modules = own_part_files(*specs.values())
    with tuner.ray_session(options, modules, running.searches.values(), running.interrupt):
        _run_on_ray(running, specs)
    if running.stopper.num_interrupts > 1:
        raise WorkLeftBehindError if session.is_abandoned() else KeyboardInterrupt
    return {name: search.stopper.conclude(search.counts, search.record) for name, search in running.searches.items()}


def _with_data(spec: SearchSpec, data: DataSpec) -> SearchSpec:
    return spec.model_copy(update={"data": data})


def _run_on_ray(running: _Session, specs: dict[str, SearchSpec]) -> None:
    """Fix the budget if it is not known yet, run the trials that are left, and judge the leaders again."""
    league, options = running.league, running.options
    shutil.rmtree(league.folder / TUNE_FOLDER, ignore_errors=True)  # of a session that was killed
    if options.address is not None:
        cluster.check_folder(league.folder.resolve())
    broadcast = None if options.address is None else DataBroadcast(running.data)
    first = next(iter(specs.values()))
    plan = plan_devices(first, broadcast, num_trials=len(specs) * league.config.trials, configs=_extremes(specs))
    running.listeners.on_ready(plan, session.dashboard_url())
    if league.config.budget is None:
        _fix_budget(league, specs, plan, broadcast)
    given_up = find_given_up(league.results())
    for name, spec in league.compose().items():
        running.searches[name] = search = _begin(running, name, _with_data(spec, running.data))
        if name in given_up:
            search.stopper.end("failing", given_up[name])
        running.stopper.stoppers.append(search.stopper)
        search.listeners.append(TrialGauges(f"{league.folder.name}/{name}").on_event)
    searches, stopper = running.searches, running.stopper
    running.listeners.on_begin(searches, plan)
    if not all(search.stopper.outcome or search.stopper.is_over(search.counts) for search in searches.values()):
        _run_trials(running, plan, broadcast)
    if not stopper.outcome:
        over = [search.leaders for search in searches.values() if search.stopper.is_over(search.counts)]
        rescore = partial(rescoring.run, over, plan, broadcast, stopper.stop_all)
        GuardedCall(rescore, stopper, running.interrupt).run()
    if stopper.outcome == "time":
        for search in searches.values():
            if search.stopper.outcome == "time" and search.stopper.is_cut_short(search.counts, search.record):
                search.journal.append("pause", None, reason=stopper.reason)


def _extremes(specs: Mapping[str, SearchSpec]) -> dict[str, TrainingConfig]:
    """Return configurations at both ends of each method's space: the largest decides how many trials share a GPU."""
    return {
        f"{name}, {end} end of its space": _at_end(spec, place)
        for name, spec in specs.items()
        for end, place in (("low", 0), ("high", -1))
    }


def _at_end(spec: SearchSpec, place: int) -> TrainingConfig:
    return spec.training_config(spec.propose(lambda key: spec.space[key].values[place]))


def _fix_budget(
    league: League, specs: Mapping[str, SearchSpec], plan: ResourcePlan, broadcast: DataBroadcast | None
) -> None:
    """Measure what an epoch of each method takes, and give all methods the same budget.

    The methods are measured on the workers that will train them, as many beside each other as trials will run.
    """
    task = ray.remote(num_cpus=plan.cpus_per_trial, num_gpus=plan.gpus_per_trial)(_measure)
    costs = wait_for([partial(task.remote, spec, plan, broadcast) for spec in specs.values()], plan.concurrent)
    league.set_budget(specs, dict(zip(specs, costs, strict=True)))


def _measure(spec: SearchSpec, plan: ResourcePlan, broadcast: DataBroadcast | None) -> EpochCost:
    """Return what an epoch of a method's first trial takes. Runs in a worker process."""
    cpu.configure_cpu(spec.resources.cpus_per_trial)
    import_sent_parts(spec.parts)
    wait_for_memory(plan)
    return measure_epoch(spec, shared_data(spec.data, plan.device, broadcast), plan.device)


def _begin(running: _Session, name: str, spec: SearchSpec) -> Search:
    """Begin the search of a method, or continue the one in its folder."""
    folder, record = running.league.run_folder(name), None
    if (folder / run_files.JOURNAL).exists():
        # The keys of its method are those that it was begun with, also if a later version gives the method others.
        spec = _with_data(read_spec(folder), running.data)
        record = resume.prepare(folder, spec, force=False, say=_logger.info)
    options = RunOptions(
        resume=record is not None,
        record=record,
        seconds=running.options.seconds,
        epoch_seconds=running.league.config.costs[name].train_seconds,
    )
    return tuner.begin(spec, LocalStorage(folder), options, partial(running.listeners.on_event, name))


def _run_trials(running: _Session, plan: ResourcePlan, broadcast: DataBroadcast | None) -> None:
    """Run the trials that are left, one run of Tune for all methods."""
    controller = _make_tuner(running, plan, broadcast)
    try:
        GuardedCall(controller.fit, running.stopper, running.interrupt).run()
    finally:
        if not session.is_abandoned():
            shutil.rmtree(running.league.folder / TUNE_FOLDER, ignore_errors=True)


def _make_tuner(running: _Session, plan: ResourcePlan, broadcast: DataBroadcast | None) -> tune.Tuner:
    """Return Tune's controller of the trials of all methods."""
    searches, backoff = running.searches, MemoryBackoff(plan.concurrent)
    specs = {name: search.spec for name, search in searches.items()}
    proposers = {name: search.make_proposer() for name, search in searches.items()}
    searchers = {name: OptunaSearcher(proposer, backoff) for name, proposer in proposers.items()}
    rules = {
        name: EarlyStopper(search.spec, search.record.history, search.stopper.budget)
        for name, search in searches.items()
    }
    checkpoints = {
        name: search.storage.folder / search.storage.unused_name(run_files.TRIALS) for name, search in searches.items()
    }
    callbacks = {
        name: MethodCallback(search.make_recorder(), search.storage.folder, RayWatch())
        for name, search in searches.items()
    }
    is_reused = tuner.reuses_processes(plan)
    return tuner.make_tuner(
        tuner.with_parameters(LeagueTrainable, broadcast, specs=specs, plan=plan, reused=is_reused),
        plan,
        tune_config=tune.TuneConfig(
            search_alg=LeagueSearcher(searchers, Turns(proposers), backoff, checkpoints),
            scheduler=LeagueScheduler(rules, backoff),
            num_samples=sum(search.counts.count_left(search.spec.search.trials) for search in searches.values()),
            max_concurrent_trials=plan.concurrent,
            reuse_actors=is_reused,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=TUNE_FOLDER,
            storage_path=str(running.league.folder.resolve()),
            failure_config=tune.FailureConfig(max_failures=next(iter(specs.values())).search.retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            stop=tuner.TuneStopper(running.stopper),
            callbacks=[LeagueCallback(callbacks)],
            verbose=1 if running.options.verbose else 0,
        ),
    )


def _trial_name(trial: Trial) -> str:
    return f"{trial.config['method']}_trial_{trial.config['trial']:05d}"
