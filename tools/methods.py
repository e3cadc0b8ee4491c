"""Writes the table of methods in docs/methods.md from the presets: `python -m tools.methods`.

What a step costs is counted in each method's second epoch of training: the network's forward passes by a hook, and the
operations of everything by torch's formulas.
"""

import functools
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tools import marked_page
from tune_cure.data.source import Augmentation
from tune_cure.data.splits import Examples, Splits
from tune_cure.search.space.distributions import Distribution
from tune_cure.training.config import ModelConfig, parse_training
from tune_cure.training.presets import METHODS, NO_METHOD, Preset, expand_method
from tune_cure.training.trainer import Trainer
from tune_cure.utils.formatting import format_value

PAGE = marked_page.DOCS / "methods.md"
NETWORK = ModelConfig(name="preact_resnet10", width=32)
BATCH, STEPS, SIDE = 4, 2, 16  # of these steps, one has what a method does in every second one


class Counter(TorchDispatchMode):
    """Counts floating-point operations by torch's own formulas, those of second derivatives included."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        self.total += formula(*args, **(kwargs or {}), out_val=result) if formula else 0
        return result


@functools.cache
def images() -> Splits:
    """Return made-up images."""
    count = BATCH * STEPS
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    everything = Examples(pixels, torch.arange(count) % 10, torch.arange(count))
    return Splits(
        train=everything,
        validation=everything,
        test=everything,
        has_own_test=True,
        classes=tuple(map(str, range(10))),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        augmentation=Augmentation(4, True),
        source="made up",
    )


def count_cost(training: Mapping[str, Any]) -> tuple[float, float]:
    """Return what training costs for each image of an epoch.

    Args:
        training: Hyperparameters by YAML names.

    Returns:
        The forward passes, and all operations in those of one forward pass.
    """
    config = parse_training({**training, "batch_size": BATCH, "epochs": 2, "amp": "off"})
    trainer = Trainer(config, images(), model=NETWORK)
    passes: list[int] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        passes.append(len(inputs[0]))

    with torch.no_grad(), Counter() as forward:
        trainer.model(torch.zeros(BATCH, 3, SIDE, SIDE))
    trainer.train_epoch()  # in the first epoch, weights that grow are still 0
    trainer.model.register_forward_pre_hook(note)
    with Counter() as counter:
        trainer.train_epoch()
    return sum(passes) / (BATCH * STEPS), counter.total / forward.total / STEPS


def table() -> str:
    """Return the table of methods."""
    rows = ["| method | what it is | forward passes | work | keys | space | source |", "|---|---|---|---|---|---|---|"]
    rows += [_row(name, METHODS[name]) for name in METHODS if name != NO_METHOD]
    return "\n".join(rows) + "\n"


def _row(name: str, preset: Preset) -> str:
    passes, work = count_cost(expand_method({"method": name}))
    keys = ", ".join(f"`{key}` {format_value(value)}" for key, value in preset.keys.items())
    space = ", ".join(f"`{key}` {Distribution.model_validate(where)}" for key, where in preset.space.items())
    cells = [f"`{name}`", preset.title, f"{passes:g}", f"{work:.1f}", keys, f"{space}: {preset.ranges}", preset.source]
    return f"| {' | '.join(cells)} |"


def written(page: str) -> str:
    """Return `page` with what stands between the marks written anew."""
    return marked_page.rewrite(page, "methods", table())


if __name__ == "__main__":
    sys.exit(marked_page.write_or_check(PAGE, written, __doc__))
