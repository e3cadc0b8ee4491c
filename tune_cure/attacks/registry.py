"""The training attacks by name. To add one: write its class in a file of its own, and add a line here."""

from tune_cure.attacks.attack import Attack
from tune_cure.utils.registry import Registry

ATTACKS: Registry[type[Attack]] = Registry(
    "attack",
    {
        "fgsm": "tune_cure.attacks.fgsm:Fgsm",
        "zerograd": "tune_cure.attacks.fgsm:ZeroGrad",
        "pgd": "tune_cure.attacks.pgd:Pgd",
        "guided": "tune_cure.attacks.guided:Guided",
        "ssat": "tune_cure.attacks.ssat:Ssat",
        "none": "tune_cure.attacks.attack:NoAttack",
    },
    accepts=lambda part: isinstance(part, type) and issubclass(part, Attack),
    expected="a subclass of Attack",
)
