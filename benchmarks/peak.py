"""Upper bounds of a step's speed: its own convolutions and matrix products at their fastest, and the memory's speed.

Each distinct call of a step is recorded with the shapes, memory formats and data types of its arguments, and made again
by itself. No step can compute more operations a second than the fastest of its calls does.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

TRIES = 3
TOGETHER = {"cpu": 1, "cuda": 20}
"""Calls of which one try consists: on a GPU a single one would be as long as its launch."""
COPIED = {"cpu": 2**27, "cuda": 2**30}
"""Bytes that are copied to measure the memory's speed, more than a cache holds."""


class Counter(TorchDispatchMode):
    """Counts operations by torch's own formulas, whose counter's hooks do not get along with second derivatives.

    Attributes:
        operations: Floating-point operations.
        num_bytes: Bytes of all arguments and results of operators that compute something.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        self.operations += formula(*args, **(kwargs or {}), out_val=result) if formula else 0
        if not is_view(func):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.num_bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


def is_view(func: Any) -> bool:
    """Whether an operator returns its argument's memory as it is."""
    return any(value.alias_info and not value.alias_info.is_write for value in func._schema.returns)


@dataclass(frozen=True)
class Layout:
    """How a tensor lies in memory."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def make(self, device: torch.device) -> Tensor:
        """A tensor of random numbers that lies so."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=device).normal_()


class CallRecorder(TorchDispatchMode):
    """Records the distinct calls of operators that have a formula of torch's, with their operations.

    Attributes:
        calls: The operations of each call: its operator, and its arguments with a `Layout` for each tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[tuple[Any, str], tuple[Any, Any, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula:
            arguments = tree_map(
                lambda leaf: Layout(tuple(leaf.shape), leaf.stride(), leaf.dtype) if isinstance(leaf, Tensor) else leaf,
                (args, kwargs or {}),
            )
            operations = formula(*args, **(kwargs or {}), out_val=result)
            self.calls.setdefault((func, repr(arguments)), (func, arguments, operations))
        return result


class Peak:
    """The fastest of the calls that some steps consist of.

    Args:
        steps: The steps, each of which is made once.
        device: Where they run.
    """

    def __init__(self, steps: list[Callable[[], object]], device: torch.device) -> None:
        self.device = device
        with CallRecorder() as recorder:
            for make in steps:
                make()
        self.calls = list(recorder.calls.values())

    def operations_per_second(self) -> float:
        """Operations a second of the fastest call, each the best of a few tries."""
        return max(operations / self._seconds(func, arguments) for func, arguments, operations in self.calls)

    def bytes_per_second(self) -> float:
        """Bytes a second that are read and written by a copy, the best of a few tries."""
        source = torch.ones(COPIED[self.device.type], dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        return 2 * source.numel() / self._best(lambda: target.copy_(source))

    def _seconds(self, func: Any, arguments: Any) -> float:
        args, kwargs = tree_map(lambda leaf: leaf.make(self.device) if isinstance(leaf, Layout) else leaf, arguments)
        with torch.no_grad():
            return self._best(lambda: func(*args, **kwargs))

    def _best(self, call: Callable[[], object]) -> float:
        number, seconds = TOGETHER[self.device.type], []
        for _ in range(TRIES + 1):  # the first one finds its algorithm
            self._wait()
            started = time.perf_counter()
            for _ in range(number):
                call()
            self._wait()
            seconds.append((time.perf_counter() - started) / number)
        return min(seconds)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
