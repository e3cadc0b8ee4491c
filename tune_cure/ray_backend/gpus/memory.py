"""GPU memory of a trial, measured on the space's largest configuration: a few training steps and one evaluation.

A trial that starts waits for the memory of the one before: CUDA frees it only when that trial's process has ended.
"""

import dataclasses
import gc
import pickle
import time
from collections.abc import Callable
from typing import Any

import torch

from tune_cure.data.splits import Splits
from tune_cure.ray_backend.data_broadcast import DataBroadcast, load
from tune_cure.ray_backend.resources import DeviceError, MeasuredTrial, ResourcePlan
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.registration import import_sent_parts
from tune_cure.training.config import TrainingConfig
from tune_cure.training.speed import WITH_ALL_TERMS
from tune_cure.training.trainer import Trainer

STEPS = 3  # of each kind: the first makes optimizer state and averages, the second is recorded as CUDA graphs
LESS_IS_MORE = ("penalty_every",)  # hyperparameters whose smallest value takes the most memory
GIB = 2**30
WAIT_SECONDS = 15.0  # for the memory of a trial that has ended; drivers take a second or two
WAIT_POLL_SECONDS = 0.25
MEMORY_ERRORS = ("out of memory", "ALLOC_FAILED", "DEVICE_ALLOCATION_FAILED")  # of CUDA, cuBLAS, and cuDNN 9


def measure(
    spec: SearchSpec,
    broadcast: DataBroadcast | None = None,
    pickled: bytes | None = None,
) -> tuple[MeasuredTrial, TrainingConfig]:
    """Return what the largest trial takes of this machine's GPU, and its configuration.

    Call it in a process of its own that ends afterwards, because the process keeps GPU memory.

    Args:
        spec: The search.
        broadcast: The data for machines that lack it; None if all is on one machine.
        pickled: Configurations by their names, pickled because they cannot be unpickled before the user's own parts
            are imported; the largest one is found. None takes the search's space.

    Raises:
        DeviceError: The largest trial does not fit into the GPU.
    """
    import_sent_parts(spec.parts)
    splits = load(spec.data, broadcast)  # each Trainer moves all images to the GPU
    if pickled is None:
        hyperparameters, peak = largest(spec, lambda values: peak_memory(spec, splits, values))
        config = spec.training_config(hyperparameters)
    else:
        configs: dict[str, TrainingConfig] = pickle.loads(pickled)
        peaks = {name: _peak_memory(spec, splits, one, name) for name, one in configs.items()}
        name = max(peaks, key=lambda each: peaks[each])
        hyperparameters, peak, config = {"configuration": name}, peaks[name], configs[name]
    free, total = torch.cuda.mem_get_info()
    # What is on the GPU and not torch's counts as this process's CUDA context. Each trial has one.
    trial = peak + total - free - torch.cuda.memory_reserved()
    return MeasuredTrial(total, trial, hyperparameters), config


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
    return _peak_memory(spec, splits, spec.training_config(hyperparameters), hyperparameters)


def _peak_memory(spec: SearchSpec, splits: Splits, config: TrainingConfig, described: object) -> int:
    """Return the bytes of GPU memory for a configuration; `described` names it in the error."""
    num_images = STEPS * config.penalty_every * config.batch_size  # steps without a penalty are recorded, too
    few_images = splits.train.subset(num_images, seed=0)  # shares the tensor of all images
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        trainer = Trainer(
            config.model_copy(update=WITH_ALL_TERMS),
            dataclasses.replace(splits, train=few_images),
            model=spec.model,
            evaluation=spec.evaluation.model_copy(update={"steps": 1, "restarts": 1}),
            device="cuda",
            seed=spec.search.seed,
        )
        trainer.train_epoch()
        trainer.evaluate()
    except RuntimeError as error:
        if not is_memory_full(error):
            raise
        raise DeviceError(
            f"resources.gpus_per_trial: auto: not even one trial fits into the memory of a GPU with {described}; "
            "lower batch_size or the network's width"
        ) from error
    attack, size = trainer.terms.attack, tuple(splits.train.images.shape[1:])
    of_few, of_all = (attack.memory_bytes((len(images), *size)) for images in (few_images, splits.train))
    return torch.cuda.max_memory_reserved() + of_all - of_few


def is_memory_full(error: RuntimeError) -> bool:
    """Return whether a GPU had too little free memory; CUDA, cuBLAS and cuDNN say so by errors of their own."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in MEMORY_ERRORS)


def wait_for_memory(plan: ResourcePlan | None, on_wait: Callable[[], None] = lambda: None) -> str:
    """Wait until a trial's part of this process's GPU is free, at most for `WAIT_SECONDS`.

    Args:
        plan: The use of the devices; None, or one without GPUs, waits for nothing.
        on_wait: Called once if there is anything to wait for.

    Returns:
        How long it waited for how much memory, in words; empty if the memory was free at once.
    """
    if plan is None or not plan.gpus_per_trial:
        return ""
    free, total = torch.cuda.mem_get_info()
    needed = plan.gpu_memory(total)
    if free >= needed:
        return ""
    on_wait()
    started = time.monotonic()
    while free < needed and time.monotonic() - started < WAIT_SECONDS:
        time.sleep(WAIT_POLL_SECONDS)
        free, total = torch.cuda.mem_get_info()
    waited = f"waited {time.monotonic() - started:.0f} s for {needed / GIB:.2g} GiB of the GPU's memory"
    return waited if free >= needed else f"{waited}, of which {free / GIB:.2g} GiB are free; it starts all the same"
