"""Outcomes of attacks, image by image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from tune_cure.evaluation.autoattack_version import read_version
from tune_cure.evaluation.names import ATTACKS


@dataclass(frozen=True)
class Outcomes:
    """Outcome of each attack on each image.

    Attributes:
        correct: (N,) booleans by the name of the attack, one of `ATTACKS`: whether the image is still classified
            correctly. Under `pgd_50_10`, in every step from each of its 10 starts. Under a part of AutoAttack, after
            that part and all parts before it, so that `autoattack` is after all of them.
        zero_gradient: Share of the images at which the gradient of the loss is exactly zero.
        autoattack_version: Version of AutoAttack's package; several if it changed between parts. Empty if AutoAttack
            did not run, or if the version of a part is not known.
    """

    correct: dict[str, NDArray[Any]]
    zero_gradient: float
    autoattack_version: str = ""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Outcomes":
        """Return the outcomes in the arrays that a confirmation saves for each network, by their names."""
        correct = {name: arrays[name] for name in ATTACKS if name in arrays}
        return cls(correct, float(arrays["zero_gradient"]), read_version(arrays))
