"""What the backward passes of a block have to compute, for autograd functions that are written in Python.

PyTorch's own operators see which gradients a backward pass needs. Functions written in Python do not, so they read this
state.
"""

from collections.abc import Iterator
from contextlib import contextmanager

# Shared by all threads, not kept by thread: on CUDA, backward passes run in threads of their own.
_state = {"input gradients only": False}


@contextmanager
def input_gradients_only() -> Iterator[None]:
    """Compute no weight gradients in the block: backward passes go to the images alone."""
    before = _state["input gradients only"]
    _state["input gradients only"] = True
    try:
        yield
    finally:
        _state["input gradients only"] = before


def skips_weight_gradients() -> bool:
    """Return whether the caller is in a block of `input_gradients_only`."""
    return _state["input gradients only"]
