"""The training attacks by name. To add one: write its class in a file of its own, and add a line here."""

from tune_cure.attacks.attack import Attack, NoAttack
from tune_cure.attacks.fgsm import Fgsm, ZeroGrad
from tune_cure.attacks.pgd import Pgd
from tune_cure.utils.registry import Registry

ATTACKS: Registry[type[Attack]] = Registry(
    "attack",
    {"fgsm": Fgsm, "zerograd": ZeroGrad, "pgd": Pgd, "none": NoAttack},
    accepts=lambda part: isinstance(part, type) and issubclass(part, Attack),
    expected="a subclass of Attack",
)
