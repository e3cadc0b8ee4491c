"""GPU memory of a trial, measured on the space's largest configuration: a few training steps and one evaluation."""

import dataclasses
import gc
from collections.abc import Callable
from typing import Any

import torch

from tune_cure.data.splits import Splits
from tune_cure.ray_backend.data_broadcast import DataBroadcast, load
from tune_cure.ray_backend.resources import DeviceError, MeasuredMemory
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.registration import import_sent_parts
from tune_cure.training.trainer import Trainer

STEPS = 3  # training steps: from the second on there are optimizer state and averages; all later ones are alike
LESS_IS_MORE = ("penalty_every",)  # hyperparameters whose smallest value takes the most memory


def measure(spec: SearchSpec, broadcast: DataBroadcast | None = None) -> MeasuredMemory:
    """Return what the largest trial takes of this machine's GPU.

    Call it in a process of its own that ends afterwards, because the process keeps GPU memory.

    Raises:
        DeviceError: The largest trial does not fit into the GPU.
    """
    import_sent_parts(spec.parts)
    splits = load(spec.data, broadcast).to("cuda")
    hyperparameters, peak = largest(spec, lambda values: peak_memory(spec, splits, values))
    free, total = torch.cuda.mem_get_info()
    # What is on the GPU and not torch's counts as this process's CUDA context. Each trial has one.
    return MeasuredMemory(total, peak + total - free - torch.cuda.memory_reserved(), hyperparameters)


def largest(spec: SearchSpec, peak: Callable[[dict[str, Any]], int]) -> tuple[dict[str, Any], int]:
    """Return the hyperparameters in `spec.space` that take the most memory, and their `peak` in bytes.

    Numbers are at the end of their range that takes more. Choices are tried one after another; those tried before keep
    the value that took the most.
    """
    values = {
        key: distribution.values[0]
        if distribution.kind == "choice"
        else (min if key in LESS_IS_MORE else max)(distribution.values)
        for key, distribution in spec.space.items()
    }
    largest_peak = peak(values)
    for key, distribution in spec.space.items():
        for value in distribution.values[1:] if distribution.kind == "choice" else ():
            other_values = {**values, key: value}
            other_peak = peak(other_values)
            if other_peak > largest_peak:
                values, largest_peak = other_values, other_peak
    return values, largest_peak


def peak_memory(spec: SearchSpec, splits: Splits, hyperparameters: dict[str, Any]) -> int:
    """Return the bytes of GPU memory that torch takes for a trial, with all images of the data.

    Raises:
        DeviceError: The trial takes more than the GPU has.
    """
    config = spec.training_config(hyperparameters)
    few_images = splits.train.subset(STEPS * config.batch_size, seed=0)  # shares the tensor of all images
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        trainer = Trainer(
            config,
            dataclasses.replace(splits, train=few_images),
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
