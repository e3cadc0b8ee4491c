"""The penalties by name.

To add one: declare its hyperparameters in declarations.py, write its class in a file of its own, and add a line here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tune_cure.regularizers.declarations import (
    AdaptiveElleDeclaration,
    CureDeclaration,
    ElleDeclaration,
    GuidedDeclaration,
    NoRegularizerDeclaration,
    RegularizerDeclaration,
    StartDeclaration,
)
from tune_cure.utils.registry import Declared, Registry

if TYPE_CHECKING:
    from tune_cure.regularizers.regularizer import Regularizer


def _is_regularizer(part: object) -> bool:
    from tune_cure.regularizers.regularizer import Regularizer

    return isinstance(part, type) and issubclass(part, Regularizer)


REGULARIZERS: Registry[type[Regularizer]] = Registry(
    "regularizer",
    {
        "cure": Declared("tune_cure.regularizers.cure:Cure", CureDeclaration),
        "gradalign": Declared("tune_cure.regularizers.gradalign:GradAlign", RegularizerDeclaration),
        "llr": Declared("tune_cure.regularizers.local_linearity:LocalLinearity", RegularizerDeclaration),
        "elle": Declared("tune_cure.regularizers.elle:Elle", ElleDeclaration),
        "elle_a": Declared("tune_cure.regularizers.elle:AdaptiveElle", AdaptiveElleDeclaration),
        "gat": Declared("tune_cure.regularizers.gat:Gat", GuidedDeclaration),
        "nuat": Declared("tune_cure.regularizers.nuat:Nuat", GuidedDeclaration),
        "fgsm_pgi": Declared("tune_cure.regularizers.fgsm_pgi:FgsmPgi", StartDeclaration),
        "aaer": Declared("tune_cure.regularizers.aaer:Aaer", StartDeclaration),
        "none": Declared("tune_cure.regularizers.regularizer:NoRegularizer", NoRegularizerDeclaration),
    },
    accepts=_is_regularizer,
    expected="a subclass of Regularizer",
)
