"""How much GPU memory a trial takes: tried out on the space's largest configuration, a few steps and one evaluation."""

import dataclasses
import gc
from collections.abc import Callable
from typing import Any

import torch

from tune_cure.data.splits import Splits
from tune_cure.ray_backend.data_broadcast import DataBroadcast, load
from tune_cure.ray_backend.resources import DeviceError, MeasuredMemory
from tune_cure.search.space.config import SearchSpec
from tune_cure.training.trainer import Trainer

STEPS = 3  # of training: the second one's optimiser state and averages are there, the third is as all that follow
LESS_IS_MORE = ("penalty_every",)  # hyperparameters whose smallest value takes the most memory


def measure(spec: SearchSpec, broadcast: DataBroadcast | None = None) -> MeasuredMemory:
    """What the largest trial takes of the GPU at hand; called in a process of its own, which must end afterwards.

    Raises:
        DeviceError: The largest trial does not fit into the GPU.
    """
    splits = load(spec.data, broadcast).to("cuda")
    hyperparameters, peak = largest(spec, lambda values: peak_memory(spec, splits, values))
    free, total = torch.cuda.mem_get_info()
    # All that is on the GPU and not torch's is taken for the context of this process, of which each trial has one.
    return MeasuredMemory(total, peak + total - free - torch.cuda.memory_reserved(), hyperparameters)


def largest(spec: SearchSpec, peak: Callable[[dict[str, Any]], int]) -> tuple[dict[str, Any], int]:
    """The configuration of `spec.space` that takes the most memory, and its `peak`.

    Numbers are at the end that takes more. The values of each choice are tried one choice after another, those before
    it at their worst.
    """
    values = {
        key: (min if key in LESS_IS_MORE else max)(of.values) if of.kind != "choice" else of.values[0]
        for key, of in spec.space.items()
    }
    most = peak(values)
    for key, of in spec.space.items():
        for value in of.values[1:] if of.kind == "choice" else ():
            tried = {**values, key: value}
            taken = peak(tried)
            if taken > most:
                values, most = tried, taken
    return values, most


def peak_memory(spec: SearchSpec, splits: Splits, hyperparameters: dict[str, Any]) -> int:
    """Bytes that torch takes of the GPU for a trial, the data that all its images are in among them.

    Raises:
        DeviceError: It takes more than there is.
    """
    config = spec.training_config(hyperparameters)
    few = splits.train.subset(STEPS * config.batch_size, seed=0)  # its tensor still holds all images
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        trainer = Trainer(
            config,
            dataclasses.replace(splits, train=few),
            model=spec.model,
            evaluation=spec.evaluation.model_copy(update={"steps": 1, "restarts": 1}),
            device="cuda",
            seed=spec.search.seed,
        )
        trainer.train_epoch()
        trainer.evaluate()
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"resources.gpus_per_trial: auto: not even one trial fits into the memory of a GPU with {hyperparameters}; "
            "lower batch_size or the network's width"
        ) from error
    return torch.cuda.max_memory_reserved()
