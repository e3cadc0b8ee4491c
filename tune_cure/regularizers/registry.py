"""The penalties by name. To add one: write its class in a file of its own, and add a line here."""

from tune_cure.regularizers.cure import Cure
from tune_cure.regularizers.gradalign import GradAlign
from tune_cure.regularizers.local_linearity import LocalLinearity
from tune_cure.regularizers.regularizer import NoRegularizer, Regularizer
from tune_cure.utils.registry import Registry

REGULARIZERS: Registry[type[Regularizer]] = Registry(
    "regularizer",
    {"cure": Cure, "gradalign": GradAlign, "llr": LocalLinearity, "none": NoRegularizer},
    accepts=lambda part: isinstance(part, type) and issubclass(part, Regularizer),
    expected="a subclass of Regularizer",
)
