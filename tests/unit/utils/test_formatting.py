import math
from pathlib import Path

import pytest

from tune_cure.search.event_schemas import STATUSES
from tune_cure.utils.formatting import (
    STATUS_WORDS,
    escape_markdown,
    format_duration,
    format_hyperparameters,
    format_percent,
    format_points,
    format_radius,
    format_value,
    one_line,
    path_word,
    quote_path,
    shorten_repr,
    spell_out,
)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (45.2, "45 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert format_duration(seconds) == said


@pytest.mark.parametrize(
    ("norm", "said"),
    [("linf", "epsilon 0.03137 (8/255)"), ("l2", "epsilon 0.03137 in L2"), ("l1", "epsilon 0.03137 in l1")],
)
def test_a_radius_is_said_in_its_norm_also_in_one_of_the_users_own(norm: str, said: str) -> None:
    assert format_radius(8 / 255, norm) == said


def test_hyperparameters_are_one_line_with_numbers_to_four_digits() -> None:
    assert format_hyperparameters({"lambda": 0.123456, "init": "zero", "batch_size": 128}) == (
        "lambda 0.1235  init zero  batch_size 128"
    )


def test_there_are_words_for_every_status() -> None:
    assert set(STATUS_WORDS) == {*STATUSES, "unfinished"}


def test_a_hyperparameter_that_makes_no_difference_is_a_dash() -> None:
    assert format_value(None) == "–"


def test_one_line_is_one_line_whatever_is_in_it() -> None:
    text = one_line("a\nb\r\u2028c\x00\x1b[31m\ud800é")
    assert text == r"a\nb\r\u2028c\x00\x1b[31m\ud800é"
    assert len(one_line("\n" * 10_000)) == 2000


def test_a_long_value_is_shown_by_its_beginning() -> None:
    assert shorten_repr([1, "a"]) == "[1, 'a']"
    assert shorten_repr("x" * 1000) == "'" + "x" * 96 + "..."


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0.4731,), "47.3%"),
        ((0.4731, 0.0158), "47.3 ± 1.6%"),
        ((0.4731, math.nan), "47.3%"),
        ((0.0,), "0.0%"),
        ((None,), "–"),
        ((math.nan, 0.1), "–"),
    ],
)
def test_a_percentage_has_its_error_if_there_is_one_and_is_a_dash_if_missing(
    arguments: tuple[float | None, ...], text: str
) -> None:
    assert format_percent(*arguments) == text


def test_a_percentage_in_a_table_of_percentages_has_no_sign() -> None:
    assert format_percent(0.4731, 0.0158, digits=2, unit="") == "47.31 ± 1.58"


def test_what_is_invisible_or_turns_text_around_is_spelled_out() -> None:
    assert spell_out("a\x1b[31m\x00\x9b\u202eb\u200b\ufeff\ud800") == r"a\x1b[31m\x00\x9b\u202eb\u200b\ufeff\ud800"
    assert (
        spell_out("two\nlines,\ttab, café, 漢字, ±, 💥, no\u00a0break")
        == "two\nlines,\ttab, café, 漢字, ±, 💥, no\u00a0break"
    )


def test_nothing_in_escaped_text_is_markdown_or_html() -> None:
    assert escape_markdown("# <b>[x](y)|`z`*\n") == r"\# \<b\>\[x\](y)\|\`z\`\*\\n"


def test_a_path_that_begins_like_a_flag_is_typed_with_its_folder() -> None:
    assert path_word("-a b") == "./-a b"
    assert quote_path(Path("-a b")) == "'./-a b'"
    assert quote_path("results/-a") == "results/-a"


@pytest.mark.parametrize(
    ("difference", "said"), [(0.0153, "+1.5"), (-0.003, "−0.3"), (-0.0003, "+0.0"), (-0.0, "+0.0"), (0.0003, "+0.0")]
)
def test_points_have_a_sign_and_zero_is_never_negative(difference: float, said: str) -> None:
    assert format_points(difference) == said
