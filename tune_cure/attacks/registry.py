"""The training attacks and the norms by name.

To add an attack: declare its hyperparameters in declarations.py, write its class in a file of its own, and add a line
here. To add a norm: write its functions in norms.py, and add a line here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tune_cure.attacks.declarations import (
    AttackDeclaration,
    FgsmDeclaration,
    FgsmPgiDeclaration,
    FreeDeclaration,
    GuidedDeclaration,
    PgdDeclaration,
    SsatDeclaration,
    ZeroGradDeclaration,
)
from tune_cure.utils.registry import Declared, Registry

if TYPE_CHECKING:
    from tune_cure.attacks.attack import Attack
    from tune_cure.attacks.norms import Norm


def _is_attack(part: object) -> bool:
    from tune_cure.attacks.attack import Attack

    return isinstance(part, type) and issubclass(part, Attack)


def _is_norm(part: object) -> bool:
    from tune_cure.attacks.norms import Norm

    return isinstance(part, Norm)


ATTACKS: Registry[type[Attack]] = Registry(
    "attack",
    {
        "fgsm": Declared("tune_cure.attacks.fgsm:Fgsm", FgsmDeclaration),
        "zerograd": Declared("tune_cure.attacks.fgsm:ZeroGrad", ZeroGradDeclaration),
        "pgd": Declared("tune_cure.attacks.pgd:Pgd", PgdDeclaration),
        "free": Declared("tune_cure.attacks.free:Free", FreeDeclaration),
        "guided": Declared("tune_cure.attacks.guided:Guided", GuidedDeclaration),
        "fgsm_pgi": Declared("tune_cure.attacks.fgsm_pgi:FgsmPgi", FgsmPgiDeclaration),
        "ssat": Declared("tune_cure.attacks.ssat:Ssat", SsatDeclaration),
        "none": Declared("tune_cure.attacks.attack:NoAttack", AttackDeclaration),
    },
    accepts=_is_attack,
    expected="a subclass of Attack",
)
NORMS: Registry[Norm] = Registry(
    "norm",
    {"linf": "tune_cure.attacks.norms:LINF", "l2": "tune_cure.attacks.norms:L2"},
    accepts=_is_norm,
    expected="a Norm",
)
