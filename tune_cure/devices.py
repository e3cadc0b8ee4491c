"""What a search takes of the devices at hand, and how long it may take there."""

import dataclasses
from dataclasses import dataclass

import torch

from tune_cure.data import Splits
from tune_cure.spec import SearchSpec
from tune_cure.training import Trainer

MEASURED_IMAGES = 64


class DeviceError(ValueError):
    """Not even one trial fits into the devices. Its text is one line."""


@dataclass(frozen=True)
class Devices:
    """The CPUs and GPUs of a machine or cluster, what one trial takes of them, and how many trials run at a time."""

    cpus: int
    gpus: float
    cpus_per_trial: int
    gpus_per_trial: float
    concurrent: int

    def __str__(self) -> str:
        gpus = f", {self.gpus:g} GPU{'s' * (self.gpus != 1)}" if self.gpus else ", no GPU"
        each = f"{self.cpus_per_trial} CPU{'s' * (self.cpus_per_trial != 1)}"
        each += f" and {self.gpus_per_trial:g} GPU" if self.gpus_per_trial else ""
        trials = f"{self.concurrent} trial{'s' * (self.concurrent != 1)} at a time, each with {each}"
        return f"{self.cpus} CPU{'s' * (self.cpus != 1)}{gpus}: {trials}"


def allot(spec: SearchSpec, *, cpus: int, gpus: float) -> Devices:
    """How a search uses `cpus` cores and `gpus` GPUs; without any GPU its trials run on CPUs alone.

    Raises:
        DeviceError: Not even one trial fits.
    """
    wanted = spec.resources
    gpus_per_trial = wanted.gpus_per_trial if gpus else 0.0
    fit = cpus // wanted.cpus_per_trial
    if gpus_per_trial:
        fit = min(fit, int(gpus / gpus_per_trial + 1e-9))  # 1 / 0.1 trials fit on a GPU, whatever floats make of it
    if fit < 1:
        raise DeviceError(
            f"resources: a trial takes {wanted.cpus_per_trial} CPUs and {gpus_per_trial:g} GPUs, but there are {cpus} "
            f"CPUs and {gpus:g} GPUs; lower cpus_per_trial or gpus_per_trial"
        )
    concurrent = fit if wanted.concurrent == "auto" else min(fit, wanted.concurrent)
    return Devices(cpus, gpus, wanted.cpus_per_trial, gpus_per_trial, concurrent)


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
