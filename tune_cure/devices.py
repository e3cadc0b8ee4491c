"""What a search takes of the devices at hand, and how long it may take there."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tune_cure.data import Splits
from tune_cure.spec import SearchSpec
from tune_cure.training import Trainer

MEASURED_IMAGES = 64


class DeviceError(ValueError):
    """Not even one trial fits into the devices. Its text is one line."""


@dataclass(frozen=True)
class Machine:
    """CPU cores and GPUs of a machine that a search may use."""

    cpus: int
    gpus: float

    def fits(self, cpus_per_trial: int, gpus_per_trial: float) -> int:
        """How many trials run on it at a time. A trial that takes a part of a GPU is on one GPU alone."""
        fit = self.cpus // cpus_per_trial
        if gpus_per_trial >= 1:
            fit = min(fit, int(self.gpus / gpus_per_trial))
        elif gpus_per_trial:
            fit = min(fit, int(self.gpus) * int(1 / gpus_per_trial + 1e-9))  # 1 / 0.1 is 10, whatever floats make of it
        return fit


@dataclass(frozen=True)
class Devices:
    """The CPUs and GPUs of a machine or cluster, what one trial takes of them, and how many trials run at a time."""

    machines: Sequence[Machine]
    cpus_per_trial: int
    gpus_per_trial: float
    concurrent: int

    def __str__(self) -> str:
        cpus, gpus = sum(machine.cpus for machine in self.machines), sum(machine.gpus for machine in self.machines)
        has = f"{cpus} CPU{'s' * (cpus != 1)}, " + (f"{gpus:g} GPU{'s' * (gpus != 1)}" if gpus else "no GPU")
        on = f" on {len(self.machines)} machines" if len(self.machines) > 1 else ""
        each = f"{self.cpus_per_trial} CPU{'s' * (self.cpus_per_trial != 1)}"
        each += f" and {self.gpus_per_trial:g} GPU" if self.gpus_per_trial else ""
        trials = f"{self.concurrent} trial{'s' * (self.concurrent != 1)} at a time, each with {each}"
        return f"{has}{on}: {trials}"


def allot(spec: SearchSpec, machines: Sequence[Machine]) -> Devices:
    """How a search uses the devices of `machines`; without any GPU its trials run on CPUs alone.

    Raises:
        DeviceError: Not even one trial fits.
    """
    wanted = spec.resources
    gpus_per_trial = wanted.gpus_per_trial if any(machine.gpus for machine in machines) else 0.0
    fit = sum(machine.fits(wanted.cpus_per_trial, gpus_per_trial) for machine in machines)
    if fit < 1:
        found = " and ".join(f"{machine.cpus} CPUs and {machine.gpus:g} GPUs" for machine in machines)
        raise DeviceError(
            f"resources: a trial takes {wanted.cpus_per_trial} CPUs and {gpus_per_trial:g} GPUs, but there are {found}"
            f"{' on single machines' * (len(machines) > 1)}; lower cpus_per_trial or gpus_per_trial"
        )
    concurrent = fit if wanted.concurrent == "auto" else min(fit, wanted.concurrent)
    return Devices(machines, wanted.cpus_per_trial, gpus_per_trial, concurrent)


def this_machine() -> Machine:
    """The CPUs and GPUs at hand."""
    return Machine(os.cpu_count() or 1, torch.cuda.device_count())


def expected_epochs(spec: SearchSpec) -> float:
    """The epochs of all trials together if at each rung exactly one in `reduction_factor` goes on.

    All that are possible with a scheduler that has no rungs.
    """
    rungs = spec.rungs
    shares = spec.bracket_shares if spec.search.scheduler == "hyperband" else [1.0]
    epochs = 0.0
    for bracket, share in enumerate(shares):
        going_on, reached = share * spec.search.trials, 0
        for rung in [*rungs[bracket:], spec.max_epochs]:
            epochs += going_on * (rung - reached)
            going_on, reached = going_on / spec.asha.reduction_factor, rung
    return epochs


def measure_epoch_seconds(spec: SearchSpec, splits: Splits) -> float:
    """Seconds of one epoch and its evaluation on this machine's CPU, extrapolated from a small timed one."""
    config = spec.training_config({key: of.values[0] for key, of in spec.space.items()})
    images = min(MEASURED_IMAGES, len(splits.train))
    small = dataclasses.replace(splits, train=splits.train.subset(images, seed=0))
    threads = torch.get_num_threads()
    torch.set_num_threads(spec.resources.cpus_per_trial)
    try:
        trainer = Trainer(
            config.model_copy(update={"batch_size": min(config.batch_size, images // 2), "amp": "off"}),
            small,
            model=spec.model,
            evaluation=spec.evaluation.model_copy(update={"examples": MEASURED_IMAGES}),
        )
        training = trainer.train_epoch()["train_seconds"] / len(small.train)
        evaluation = trainer.evaluate()["eval_seconds"] / len(trainer.judged_on)
    finally:
        torch.set_num_threads(threads)
    judged = min(spec.evaluation.examples, len(splits.validation))
    return float(training * len(splits.train) + evaluation * judged)
