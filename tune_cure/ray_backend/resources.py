"""CPUs and GPUs that a search uses, and how many trials run at a time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import joblib
import torch

from tune_cure.search.space.config import SearchSpec
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.formatting import format_hyperparameters, join_words

USABLE = 0.9  # of a GPU's memory: the rest is for what falls between torch's blocks
MOST_ON_A_GPU = 3  # trials: without CUDA's MPS they compute by turns, so more of them would only wait for each other
WORTH = 1.05  # times as many images a second must one more trial at a time bring; less may be chance


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
class MeasuredTrial:
    """What the largest trial of a search space takes of a GPU, and how fast such trials train there together.

    Attributes:
        total: Bytes of the GPU.
        trial: Bytes that the trial took, with the CUDA context of its process.
        hyperparameters: The trial's hyperparameters.
        rates: Images a second that 1, 2, … such trials train in all if they share the GPU; empty if not measured.
    """

    total: int
    trial: int
    hyperparameters: dict[str, Any]
    rates: tuple[float, ...] = ()

    @property
    def fit(self) -> int:
        """Number of such trials that fit into the GPU's memory."""
        return max(1, int(USABLE * self.total / self.trial))

    @property
    def best(self) -> int:
        """Number of such trials that are to share the GPU: as many as fit and train more images a second than fewer."""
        if not self.rates:
            return min(MOST_ON_A_GPU, self.fit)
        best = 1
        for number, rate in enumerate(self.rates[1:], start=2):
            if rate > WORTH * self.rates[best - 1]:
                best = number
        return best

    def __str__(self) -> str:
        gib = 2**30
        text = (
            f"measured: a trial takes {self.trial / gib:.2g} of {self.total / gib:.3g} GiB of a GPU at most "
            f"({format_hyperparameters(self.hyperparameters)}), so {self.fit} fit"
        )
        if len(self.rates) < 2:
            return text
        numbers = join_words(map(str, range(1, len(self.rates) + 1)))
        rates = join_words(f"{rate:,.0f}" for rate in self.rates)
        together = f"{self.best} share a GPU" if self.best > 1 else "each has a GPU of its own"
        return f"{text}; {numbers} at a time train {rates} images a second in all, so {together}"


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
    measured: MeasuredTrial | None = None

    def gpu_memory(self, total: int) -> int:
        """Return the bytes that a trial may take of a GPU with `total` bytes: what was measured, else its share."""
        return self.measured.trial if self.measured else int(USABLE * min(1.0, self.gpus_per_trial) * total)

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
    spec: SearchSpec,
    machines: Sequence[Machine],
    measured: MeasuredTrial | None = None,
    *,
    num_trials: int | None = None,
) -> ResourcePlan:
    """Return how a search uses the devices of `machines`; without any GPU its trials run on CPUs alone.

    Args:
        spec: The search. Numbers in its `resources` win over what would be decided here.
        machines: The machines.
        measured: What decides how many trials share a GPU with gpus_per_trial `auto`; None gives each trial a GPU of
            its own.
        num_trials: How many trials there are to run; None is as many as the search has.

    Raises:
        DeviceError: Not even one trial fits.
    """
    wanted = spec.resources
    gpus = sum(int(machine.gpus) for machine in machines)
    shared = gpus > 0 and wanted.gpus_per_trial == "auto" and measured is not None
    if wanted.gpus_per_trial == "auto":
        most = most_on_a_gpu(spec, machines, num_trials) if gpus else 0
        gpus_per_trial = _share(min(measured.best, most)) if measured and gpus else float(gpus > 0)
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


def _share(trials: int) -> float:
    """Return the part of a GPU that each of so many trials takes; Ray counts in ten-thousandths."""
    return math.floor(1e4 / trials) / 1e4


def most_on_a_gpu(spec: SearchSpec, machines: Sequence[Machine], num_trials: int | None = None) -> int:
    """Return how many trials it takes on each GPU to occupy all of them, with the CPUs that there are; at least 1.

    Ray fills one GPU before it begins the next, and few trials would leave the last GPUs empty.

    Args:
        spec: The search.
        machines: The machines, at least one of which has a GPU.
        num_trials: How many trials there are to run; None is as many as the search has.
    """
    wanted = spec.resources
    with_gpus = [machine for machine in machines if machine.gpus >= 1]
    at_once = sum(machine.fits(wanted.cpus_per_trial, 0) for machine in with_gpus)
    at_once = min(
        at_once, num_trials or spec.search.trials, at_once if wanted.concurrent == "auto" else wanted.concurrent
    )
    gpus = sum(int(machine.gpus) for machine in with_gpus)
    return max(1, math.ceil(at_once / gpus))


def this_machine() -> Machine:
    """Return the CPUs and GPUs of this machine that this process may use: a batch system may leave it few of them."""
    return Machine(joblib.cpu_count(), torch.cuda.device_count())
