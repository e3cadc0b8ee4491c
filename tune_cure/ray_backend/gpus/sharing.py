"""Sharing of GPUs with `gpus_per_trial: auto`: memory and throughput of a few steps decide how many share one."""

import dataclasses
import pickle
import time
from collections.abc import Mapping
from functools import partial

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tune_cure.ray_backend import cluster
from tune_cure.ray_backend.data_broadcast import DataBroadcast, load
from tune_cure.ray_backend.gpus import memory
from tune_cure.ray_backend.guard import wait_for
from tune_cure.ray_backend.resources import (
    MOST_ON_A_GPU,
    ResourcePlan,
    most_on_a_gpu,
    plan_resources,
)
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.registration import import_sent_parts
from tune_cure.training.config import TrainingConfig
from tune_cure.training.trainer import Trainer
from tune_cure.utils import cpu

STEPS = 10  # training steps with a penalty between two looks at the clock
SECONDS = 3.0  # that each number of trials at a time trains for


def plan_devices(
    spec: SearchSpec,
    broadcast: DataBroadcast | None,
    *,
    num_trials: int | None = None,
    configs: Mapping[str, TrainingConfig] | None = None,
) -> ResourcePlan:
    """Return how Ray's devices are used; measure a trial first if that decides how many share a GPU.

    Args:
        spec: The search.
        broadcast: The data for machines that lack it; None if all is on one machine.
        num_trials: How many trials there are to run; None is as many as the search has.
        configs: The configurations of these trials, by their names; None is the search's space. With an empty mapping
            nothing is measured, and each gets a GPU of its own.

    Raises:
        DeviceError: Not even one trial fits into the devices.
        DeadRayError: Ray has died meanwhile.
    """
    machines = cluster.machines()
    plan = plan_resources(spec, machines, num_trials=num_trials)
    if spec.resources.gpus_per_trial != "auto" or not plan.gpus_per_trial or configs == {}:
        return plan
    # With max_calls its process ends with the task, so that nothing of it stays on the GPU.
    task = ray.remote(num_gpus=1, num_cpus=spec.resources.cpus_per_trial, max_calls=1)(memory.measure)
    pickled = None if configs is None else pickle.dumps(dict(configs))
    [(measured, config)] = wait_for([partial(task.remote, spec, broadcast, pickled)])
    most = min(MOST_ON_A_GPU, measured.fit, most_on_a_gpu(spec, machines, num_trials))
    if most > 1:
        measured = dataclasses.replace(measured, rates=_measure_rates(spec, config, broadcast, most))
    return plan_resources(spec, machines, measured, num_trials=num_trials)


def _measure_rates(
    spec: SearchSpec, config: TrainingConfig, broadcast: DataBroadcast | None, most: int
) -> tuple[float, ...]:
    """Return the images a second that 1, 2, … up to `most` training runs make in all on one GPU.

    A number that does not fit into the memory, and those above it, are left out. If starting all of them at once
    leaves no memory for the first, its number is 0.
    """
    cpus = spec.resources.cpus_per_trial
    group = placement_group([{"GPU": 1, "CPU": cpus * most}])  # one bundle: all of them are on the same GPU
    try:
        runs = [_start_run(group, spec, pickle.dumps(config), broadcast, share=1 / most) for _ in range(most)]
        rates: list[float] = []
        for number in range(1, most + 1):
            together = wait_for([partial(run.images_per_second.remote, SECONDS) for run in runs[:number]])
            if not all(together):
                break
            rates.append(sum(together))
        return tuple(rates) or (0.0,)
    finally:
        if ray.is_initialized():  # not after Ray has died
            remove_placement_group(group)  # ends their processes


def _start_run(
    group: PlacementGroup,
    spec: SearchSpec,
    config: bytes,
    broadcast: DataBroadcast | None,
    share: float,
) -> "ray.actor.ActorHandle":
    strategy = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=0)
    actor = ray.remote(num_gpus=int(1e4 * share) / 1e4, num_cpus=spec.resources.cpus_per_trial)(TimedRun)
    return actor.options(scheduling_strategy=strategy).remote(spec, config, broadcast)


class TimedRun:
    """Training run on a few images, which tells how fast it is. Its process does nothing else.

    Args:
        spec: The search.
        pickled: The hyperparameters, pickled: they cannot be unpickled before the user's own parts are imported.
        broadcast: The data for machines that lack it; None if all is on one machine.
        device: The device of all computations.
    """

    def __init__(self, spec: SearchSpec, pickled: bytes, broadcast: DataBroadcast | None, device: str = "cuda") -> None:
        cpu.configure_cpu(spec.resources.cpus_per_trial)
        import_sent_parts(spec.parts)
        config: TrainingConfig = pickle.loads(pickled)
        splits = load(spec.data, broadcast)
        few_images = splits.train.subset(STEPS * config.penalty_every * config.batch_size, seed=0)
        self.trainer: Trainer | None = None
        try:
            self.trainer = Trainer(
                config, dataclasses.replace(splits, train=few_images), model=spec.model, device=device
            )
            self._train()  # kernels are chosen, memory is taken
        except RuntimeError as error:
            if not memory.is_memory_full(error):
                raise
            self.trainer = None

    def images_per_second(self, seconds: float) -> float:
        """Train for so many seconds, and return how many images a second; 0 if the GPU's memory was too small."""
        if self.trainer is None:
            return 0.0
        started, images = time.perf_counter(), 0
        try:
            while (spent := time.perf_counter() - started) < seconds:
                images += self._train()
        except RuntimeError as error:
            if not memory.is_memory_full(error):
                raise
            return 0.0
        return images / spent

    def _train(self) -> int:
        """Train for one epoch, as in the first one, and return the number of its images."""
        assert self.trainer is not None
        self.trainer.epoch = 0  # so that the schedule never ends
        self.trainer.train_epoch()  # its last line waits for the device
        return self.trainer.images_per_epoch
