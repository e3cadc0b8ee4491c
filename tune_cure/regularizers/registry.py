"""The penalties by name. To add one: write its class in a file of its own, and add a line here."""

from tune_cure.regularizers.regularizer import Regularizer
from tune_cure.utils.registry import Registry

REGULARIZERS: Registry[type[Regularizer]] = Registry(
    "regularizer",
    {
        "cure": "tune_cure.regularizers.cure:Cure",
        "gradalign": "tune_cure.regularizers.gradalign:GradAlign",
        "llr": "tune_cure.regularizers.local_linearity:LocalLinearity",
        "elle": "tune_cure.regularizers.elle:Elle",
        "elle_a": "tune_cure.regularizers.elle:AdaptiveElle",
        "gat": "tune_cure.regularizers.gat:Gat",
        "nuat": "tune_cure.regularizers.nuat:Nuat",
        "fgsm_pgi": "tune_cure.regularizers.fgsm_pgi:FgsmPgi",
        "none": "tune_cure.regularizers.regularizer:NoRegularizer",
    },
    accepts=lambda part: isinstance(part, type) and issubclass(part, Regularizer),
    expected="a subclass of Regularizer",
)
