"""All that a training step changes, so that a step can be made twice from the same state, and the two compared."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tune_cure.gradients.mixed_precision import copy_all
from tune_cure.training.step import TrainingStep

TOLERANCE = 0.05
"""Largest difference of two changes, relative to the change itself, that counts as rounding.

Kernels that add in another order every time differ by far less, and a step with a wrong input by about 1.
"""


@dataclass(frozen=True)
class Snapshot:
    """Copy of a `TrainingState`.

    Attributes:
        tensors: Copies on the CPU, by the group of tensors that they belong to.
        scaler: State of the GradScaler.
        random: States of the random generators.
    """

    tensors: dict[str, list[Tensor]]
    scaler: dict[str, Any]
    random: list[Tensor]


class TrainingState:
    """The state of a training run, as far as a step changes it.

    Args:
        model: The network.
        step: Its steps.
        generator: Source of the randomness of attacks and penalties, on the network's device.
    """

    def __init__(self, model: nn.Module, step: TrainingStep, generator: torch.Generator) -> None:
        self.model, self.step, self.generator = model, step, generator

    def tensors(self) -> dict[str, list[Tensor]]:
        """Return the tensors themselves, in groups: weights, buffers, optimizer, and what attack and penalty carry."""
        terms = self.step.terms
        states: dict[str, Any] = {
            "weights": list(self.model.parameters()),
            "buffers": list(self.model.buffers()),
            "optimizer": list(self.step.optimizer.state.values()),
            "attack": terms.attack.state_dict(),
            "penalty": terms.regularizer.state_dict(),
        }
        return {name: list(_tensors(state)) for name, state in states.items()}

    def carried(self) -> tuple[Hashable, ...]:
        """Return what attack and penalty carry from step to step: plain values, and the places of tensors in memory.

        A recorded step finds the tensors in the same places and changes them there, and cannot change a plain value.
        """
        terms = self.step.terms
        leaves = _leaves([terms.attack.state_dict(), terms.regularizer.state_dict()])
        return tuple(("tensor", leaf.data_ptr()) if isinstance(leaf, Tensor) else leaf for leaf in leaves)

    def copy(self) -> Snapshot:
        """Return a copy in the host's memory; the host waits for the device."""
        tensors = {
            name: [tensor.detach().to("cpu", copy=True) for tensor in group] for name, group in self.tensors().items()
        }
        device = self.generator.device
        states = [self.generator.get_state(), torch.get_rng_state()]
        if device.type == "cuda":
            states.append(torch.cuda.get_rng_state(device))
        return Snapshot(tensors, self.step.scaler.state_dict(), states)

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Return to `snapshot`. Every tensor keeps its place in memory."""
        for name, group in self.tensors().items():
            copy_all([tensor.detach() for tensor in group], snapshot.tensors[name])
        if snapshot.scaler:
            self.step.scaler.load_state_dict(snapshot.scaler)
        own, of_cpu, *of_cuda = snapshot.random
        self.generator.set_state(own)
        torch.set_rng_state(of_cpu)
        for state in of_cuda:
            torch.cuda.set_rng_state(state, self.generator.device)


def difference(before: Snapshot, once: Snapshot, again: Snapshot) -> str:
    """Return the group of tensors in which two steps from `before` led to different results; empty if in none.

    Args:
        before: The state that both steps began with.
        once: The state after the first step.
        again: The state after the second one.
    """
    for name, group in before.tensors.items():
        change = moved = 0.0
        for old, one, other in zip(group, once.tensors[name], again.tensors[name], strict=True):
            if not old.is_floating_point():
                if not torch.equal(one, other):
                    return name
                continue
            change += _length(one - old) ** 2
            moved += _length(other - one) ** 2
        if not moved <= TOLERANCE**2 * change:  # also where either is not a number
            return name
    return ""


def _length(tensor: Tensor) -> float:
    length: Tensor = torch.linalg.vector_norm(tensor, dtype=torch.float64)
    return length.item()


def _leaves(state: Any) -> Iterator[Any]:
    """Yield the tensors and plain values in nested dictionaries and lists."""
    if isinstance(state, dict):
        state = list(state.values())
    if isinstance(state, list | tuple):
        for value in state:
            yield from _leaves(value)
    else:
        yield state


def _tensors(state: Any) -> Iterator[Tensor]:
    for leaf in _leaves(state):
        if isinstance(leaf, Tensor):
            yield leaf
