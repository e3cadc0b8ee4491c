"""Recording of a training step as CUDA graphs, and its replay on other images.

Attack, loss, penalty and update are graphs of their own, in one pool of memory, so that the stopwatch can be read
between them. They must be replayed in the order in which they were recorded.
"""

import gc
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from tune_cure.training.step import TrainingStep
from tune_cure.training.timing import Watch

_START = ""  # what is noted of a `start`; a `split` is noted by the name of its part
_abandoned: list[torch.cuda.CUDAGraph] = []
"""Graphs whose recording failed: torch's allocator may ask for them later."""


@dataclass(frozen=True)
class StepInputs:
    """What a step is given: its batch.

    Attributes:
        images: (N, C, H, W) in [0, 1].
        labels: (N,) class indices.
        positions: (N,) numbers of the images among the training images; None where nothing asks for them.
    """

    images: Tensor
    labels: Tensor
    positions: Tensor | None = None

    def clone(self) -> "StepInputs":
        """Return copies of the tensors."""
        positions = None if self.positions is None else self.positions.clone()
        return StepInputs(self.images.clone(), self.labels.clone(), positions)

    def copy_from(self, other: "StepInputs") -> None:
        """Overwrite the tensors by those of `other`, of the same shapes."""
        self.images.copy_(other.images)
        self.labels.copy_(other.labels)
        if self.positions is not None and other.positions is not None:
            self.positions.copy_(other.positions)


@dataclass
class Recording:
    """A recorded step.

    Attributes:
        inputs: Tensors that the graphs read.
        row: (6,) what the step returns, written anew by each replay.
        parts: The graphs, each with what the stopwatch is told after it: `_START` or the name of a part.
    """

    inputs: StepInputs
    row: Tensor
    parts: list[tuple[torch.cuda.CUDAGraph, str | None]] = field(default_factory=list)

    def __call__(self, inputs: StepInputs, watch: Watch) -> Tensor:
        """Make the step on other inputs; return its row, which the next replay overwrites."""
        self.inputs.copy_from(inputs)
        watch.start()
        for graph, note in self.parts:
            graph.replay()
            if note == _START:
                watch.start()
            elif note is not None:
                watch.split(note)
        return self.row


class _Recorder:
    """Stopwatch of a step that is being recorded: ends a graph and begins the next one wherever it is read.

    Args:
        pool: Memory of all graphs of the run.
        generator: The run's random generator, which the graphs draw from.
    """

    def __init__(self, pool: Any, generator: torch.Generator) -> None:
        self.pool, self.generator = pool, generator
        self.parts: list[tuple[torch.cuda.CUDAGraph, str | None]] = []
        self._graph: torch.cuda.CUDAGraph | None = None
        self._something = torch.zeros((), device=generator.device)

    def start(self) -> None:
        """Begin a graph."""
        self._cut(_START)

    def split(self, part: str) -> None:
        """End the graph of `part` and begin the next one."""
        self._cut(part)

    def end(self, note: str | None = None) -> None:
        """End the last graph."""
        if self._graph is not None:
            self._graph.capture_end()
            self.parts.append((self._graph, note))
            self._graph = None

    def abandon(self) -> None:
        """End a recording that failed, so that steps can go on without graphs."""
        if self._graph is None:
            return
        _abandoned.append(self._graph)
        with suppress(RuntimeError):  # the failure itself, once more
            self._graph.capture_end()
        # In torch before 2.15 the generators of a failed recording go on waiting for its end, and refuse to draw.
        device = self.generator.device
        index = torch.cuda.current_device() if device.index is None else device.index
        for generator in (self.generator, torch.cuda.default_generators[index]):
            fresh = torch.Generator(device)
            fresh.set_state(generator.get_state())
            generator.graphsafe_set_state(fresh)

    def _cut(self, note: str) -> None:
        self.end(note)
        self._graph = torch.cuda.CUDAGraph()
        if TorchVersion(torch.__version__) < "2.15":  # later versions find the generators by themselves
            self._graph.register_generator_state(self.generator)
        self._graph.capture_begin(pool=self.pool)
        self._something.zero_()  # because torch warns of a graph in which nothing happens, such as that of no attack


class CudaRecorder:
    """Records steps of a training run as CUDA graphs, which share their memory.

    Args:
        step: The steps.
        generator: The run's random generator, on the GPU.

    Attributes:
        peak_memory: The most bytes that tensors took while a step was recorded. Replays take the same memory, which
            torch does not count again.
    """

    def __init__(self, step: TrainingStep, generator: torch.Generator) -> None:
        self.step, self.generator = step, generator
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream(generator.device)
        self.peak_memory = 0

    def __call__(self, inputs: StepInputs, number: int) -> Recording:
        """Record the step of this number in the run. Nothing is computed, and no state changes.

        Raises:
            RuntimeError: Something in the step cannot be recorded, or the memory does not suffice.
        """
        inputs = inputs.clone()
        recorder = _Recorder(self.pool, self.generator)
        torch.cuda.synchronize()
        gc.collect()
        torch.cuda.empty_cache()
        with torch.cuda.stream(self.stream):
            try:
                row = self.step(inputs.images, inputs.labels, number, recorder, inputs.positions)
                recorder.end()
            except RuntimeError:
                recorder.abandon()
                raise
        self.peak_memory = max(self.peak_memory, torch.cuda.max_memory_allocated(self.generator.device))
        return Recording(inputs, row, recorder.parts)
