import numpy as np
import pytest

from tune_cure.evaluation import gradient_masking
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.evaluation.names import ATTACKS, TARGETED_PARTS, WITHOUT_AUTOATTACK
from tune_cure.evaluation.outcomes import Outcomes

EVALUATION = EvaluationConfig(epsilon=0.1)
SOUND = {"clean": 950, "fgsm": 600, "pgd_10": 520, "pgd_50_10": 510, "apgd_ce": 505, "apgd_t": 480, "fab_t": 480,
         "autoattack": 480}  # fmt: skip


def outcomes(images: int = 1000, zero_gradient: float = 0.0, **right: int) -> Outcomes:
    """Of networks that get so many of 1,000 images right."""
    shares = SOUND | right
    correct = {name: np.arange(images) < shares[name] * images // 1000 for name in ATTACKS}
    return Outcomes(correct, zero_gradient)


def test_a_sound_network_shows_no_sign() -> None:
    assert gradient_masking.find_masking_signs(outcomes()) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fgsm": 720}, "FGSM accuracy is 20.0 points above PGD-10's"),
        ({"fgsm": 450}, "FGSM, the weaker attack, breaks 7.0 points more than PGD-10"),
        ({"pgd_10": 700, "fgsm": 750}, "PGD-10 accuracy is 19.0 points above PGD-50-10's"),
        ({"autoattack": 400, "apgd_ce": 400, "apgd_t": 400, "fab_t": 400}, "PGD-50-10 accuracy is 11.0 points above"),
        ({"autoattack": 465}, "Square, which sees no gradients, breaks 1.5 points more"),
        ({"zero_gradient": 0.3}, "exactly zero at 30.0% of the images"),
    ],
)
def test_each_sign_states_its_size(changed: dict[str, float], message: str) -> None:
    (sign,) = gradient_masking.find_masking_signs(outcomes(**changed))  # type: ignore[arg-type]
    assert message in str(sign)


@pytest.mark.parametrize(("by_restarts", "by_square", "num_signs"), [(510, 440, 1), (440, 440, 0), (510, 475, 0)])
def test_without_targeted_parts_what_neither_apgd_nor_restarts_of_pgd_but_square_breaks_is_a_sign(
    by_restarts: int, by_square: int, num_signs: int
) -> None:
    some = outcomes(pgd_10=520, pgd_50_10=by_restarts, autoattack=by_square)
    found = Outcomes({name: some.correct[name] for name in ATTACKS if name not in TARGETED_PARTS}, 0.0)
    signs = [str(sign) for sign in gradient_masking.find_masking_signs(found)]
    assert len(signs) == num_signs
    assert all("Square, which sees no gradients, breaks 6.5 points more" in sign for sign in signs)


def without_autoattack(some: Outcomes) -> Outcomes:
    return Outcomes({name: some.correct[name] for name in WITHOUT_AUTOATTACK}, some.zero_gradient)


def test_few_steps_that_find_less_are_a_sign_unless_autoattack_confirms_the_many() -> None:
    some = outcomes(pgd_10=610, fgsm=650)  # 10 points above PGD-50-10
    assert gradient_masking.find_masking_signs(some) == []
    (sign,) = gradient_masking.find_masking_signs(without_autoattack(some))
    assert "PGD-10 accuracy is 10.0 points above PGD-50-10's" in str(sign)
    weaker = outcomes(pgd_10=610, fgsm=650, apgd_ce=400, apgd_t=400, fab_t=400, autoattack=400)
    assert ["above PGD-50-10's" in str(sign) for sign in gradient_masking.find_masking_signs(weaker)] == [True, False]
    assert gradient_masking.find_masking_signs(without_autoattack(outcomes())) == []  # one point


@pytest.mark.parametrize(("pgd_10", "is_sign"), [(600, False), (680, True)])  # 12 and 20 points above AutoAttack
def test_few_steps_that_find_far_less_than_autoattack_are_a_sign_though_neither_stage_between_them_is(
    pgd_10: int, is_sign: bool
) -> None:
    signs = gradient_masking.find_masking_signs(outcomes(fgsm=700, pgd_10=pgd_10, pgd_50_10=535))
    assert [sign.observation() for sign in signs] == ["PGD-10 accuracy is 20.0 points above AutoAttack's"] * is_sign


def test_few_images_do_not_warn_by_chance() -> None:
    few = outcomes(20, fgsm=720)  # 14 of 20 against 10: 20 points, and as many again of standard error
    assert gradient_masking.find_masking_signs(few) == []


def test_signs_of_autoattack_need_its_outcomes() -> None:
    some = outcomes(autoattack=0, apgd_ce=0, apgd_t=0, fab_t=0)
    assert gradient_masking.find_masking_signs(without_autoattack(some)) == []
