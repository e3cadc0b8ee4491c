"""CPUs and GPUs that a search uses, and how many trials run at a time."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.errors import TuneCureError

USABLE = 0.9  # of a GPU's memory: the rest is for what falls between torch's blocks
MOST_ON_A_GPU = 8  # trials: they compute by turns, so more of them would only wait for each other


class DeviceError(TuneCureError):
    """Devices that are too small for even one trial."""


@dataclass(frozen=True)
class Machine:
    """CPU cores and GPUs of a machine that a search may use."""

    cpus: int
    gpus: float

    def fits(self, cpus_per_trial: int, gpus_per_trial: float) -> int:
        """Return how many trials run on it at a time. A trial that takes a part of a GPU is on one GPU alone."""
        fit = self.cpus // cpus_per_trial
        if gpus_per_trial >= 1:
            fit = min(fit, int(self.gpus / gpus_per_trial))
        elif gpus_per_trial:
            fit = min(fit, int(self.gpus) * int(1 / gpus_per_trial + 1e-9))  # 1e-9: 1 / 0.1 must count as 10
        return fit


@dataclass(frozen=True)
class MeasuredMemory:
    """Memory of a GPU, and what the largest trial of a search space takes of it.

    Attributes:
        total: Bytes of the GPU.
        trial: Bytes that the trial took, with the CUDA context of its process.
        hyperparameters: The trial's hyperparameters.
    """

    total: int
    trial: int
    hyperparameters: dict[str, Any]

    @property
    def fit(self) -> int:
        """Number of such trials that share the GPU."""
        return min(MOST_ON_A_GPU, max(1, int(USABLE * self.total / self.trial)))

    def __str__(self) -> str:
        gib = 2**30
        return (
            f"measured: a trial takes {self.trial / gib:.2g} of {self.total / gib:.3g} GiB of a GPU at most "
            f"({', '.join(f'{key} {value}' for key, value in self.hyperparameters.items())}), so {self.fit} fit"
        )


@dataclass(frozen=True)
class ResourcePlan:
    """Use that a search makes of the CPUs and GPUs of a machine or cluster.

    Attributes:
        machines: The machines.
        cpus_per_trial: CPU cores of a trial.
        gpus_per_trial: GPUs of a trial, perhaps a part of one; 0 trains on CPUs.
        concurrent: How many trials run at a time.
        measured: What decided the share of a GPU; None if it was not measured.
    """

    machines: Sequence[Machine]
    cpus_per_trial: int
    gpus_per_trial: float
    concurrent: int
    measured: MeasuredMemory | None = None

    @property
    def device(self) -> str:
        """Device that trials run on. They cannot find it out: Ray hides no GPU from a process that was given none."""
        return "cuda" if self.gpus_per_trial else "cpu"

    def __str__(self) -> str:
        cpus, gpus = sum(machine.cpus for machine in self.machines), sum(machine.gpus for machine in self.machines)
        has = f"{cpus} CPU{'s' * (cpus != 1)}, " + (f"{gpus:g} GPU{'s' * (gpus != 1)}" if gpus else "no GPU")
        on = f" on {len(self.machines)} machines" if len(self.machines) > 1 else ""
        each = f"{self.cpus_per_trial} CPU{'s' * (self.cpus_per_trial != 1)}"
        each += f" and {self.gpus_per_trial:g} GPU" if self.gpus_per_trial else ""
        trials = f"{self.concurrent} trial{'s' * (self.concurrent != 1)} at a time, each with {each}"
        return f"{has}{on}: {trials}" + (f"\n{self.measured}" if self.measured else "")


def plan_resources(
    spec: SearchSpec, machines: Sequence[Machine], measured: MeasuredMemory | None = None
) -> ResourcePlan:
    """Return how a search uses the devices of `machines`; without any GPU its trials run on CPUs alone.

    Args:
        spec: The search. Numbers in its `resources` win over what would be decided here.
        machines: The machines.
        measured: Memory of a trial, which decides how many share a GPU with gpus_per_trial `auto`; None gives each
            trial a GPU of its own.

    Raises:
        DeviceError: Not even one trial fits.
    """
    wanted = spec.resources
    gpus = sum(int(machine.gpus) for machine in machines)
    shared = gpus > 0 and wanted.gpus_per_trial == "auto" and measured is not None
    if wanted.gpus_per_trial == "auto":
        gpus_per_trial = _share(spec, machines, measured) if measured and gpus else float(gpus > 0)
    else:
        gpus_per_trial = wanted.gpus_per_trial if gpus else 0.0
    fit = sum(machine.fits(wanted.cpus_per_trial, gpus_per_trial) for machine in machines)
    if fit < 1:
        available = " and ".join(f"{machine.cpus} CPUs and {machine.gpus:g} GPUs" for machine in machines)
        raise DeviceError(
            f"resources: a trial takes {wanted.cpus_per_trial} CPUs and {gpus_per_trial:g} GPUs, but there are "
            f"{available}{' on single machines' * (len(machines) > 1)}; lower cpus_per_trial or gpus_per_trial"
        )
    concurrent = fit if wanted.concurrent == "auto" else min(fit, wanted.concurrent)
    return ResourcePlan(machines, wanted.cpus_per_trial, gpus_per_trial, concurrent, measured if shared else None)


def _share(spec: SearchSpec, machines: Sequence[Machine], measured: MeasuredMemory) -> float:
    """Return the part of a GPU that a trial takes.

    As many trials share a GPU as its memory allows, but no more than it takes to occupy every GPU: Ray fills one GPU
    before it begins the next, and few trials would leave the last GPUs empty.
    """
    wanted = spec.resources
    with_gpus = [machine for machine in machines if machine.gpus >= 1]
    at_once = sum(machine.fits(wanted.cpus_per_trial, 0) for machine in with_gpus)
    at_once = min(at_once, spec.search.trials, at_once if wanted.concurrent == "auto" else wanted.concurrent)
    gpus = sum(int(machine.gpus) for machine in with_gpus)
    trials = max(1, min(measured.fit, math.ceil(at_once / gpus)))
    return math.floor(1e4 / trials) / 1e4  # Ray counts in ten-thousandths


def this_machine() -> Machine:
    """Return the CPUs and GPUs of this machine."""
    return Machine(os.cpu_count() or 1, torch.cuda.device_count())
