from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from tune_cure.utils.yaml_config import (
    ProblemError,
    SpecError,
    first_problem,
    override,
    parse_duration,
    parse_value,
    put,
    read_mapping,
)


def test_sections_on_the_way_to_a_key_are_made() -> None:
    content: dict[str, object] = {"training": {"epochs": 3}}
    put(content, "training.h", 1.5)
    put(content, "data.root", "x")
    assert content == {"training": {"epochs": 3, "h": 1.5}, "data": {"root": "x"}}


def test_a_path_through_a_value_is_refused() -> None:
    with pytest.raises(ProblemError) as raised:
        put({"data": 5}, "data.root", "x")
    assert (raised.value.path, raised.value.message) == (
        "data",
        "is 5 (int), not a section, so data.root cannot be set",
    )


@pytest.mark.parametrize(
    ("assignment", "value"),
    [("a.b=3", 3), ("a.b=off", "off"), ("a.b=8/255", "8/255"), ("a.b=[1, 2]", [1, 2]), ("a.b=x=y", "x=y")],
)
def test_an_override_is_a_yaml_value(assignment: str, value: object) -> None:
    content: dict[str, object] = {}
    override(content, assignment)
    assert content == {"a": {"b": value}}


@pytest.mark.parametrize("assignment", ["a.b", "=3", "a..b=3", ""])
def test_an_override_that_is_none_says_how_one_looks(assignment: str) -> None:
    with pytest.raises(ProblemError, match="is needed, for example"):
        override({}, assignment)


def test_a_value_that_is_not_yaml_names_its_place() -> None:
    with pytest.raises(ProblemError) as raised:
        parse_value("{", "--lambda")
    assert str(raised.value.within("command line")) == "command line: --lambda: '{' is not a valid YAML value"


class Attack(BaseModel):
    model_config = ConfigDict(extra="forbid")
    steps: int = 1


class Sections(BaseModel):
    needed: Attack = Attack()
    maybe: Attack | None = None
    several: list[Attack] = []
    by_name: dict[str, Attack] | None = None


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ({"needed": {"step": 1}}, "needed.step"),
        ({"maybe": {"step": 1}}, "maybe.step"),
        ({"several": [{}, {"step": 1}]}, "several[1].step"),
        ({"by_name": {"pgd": {"step": 1}}}, "by_name.pgd.step"),
    ],
    ids=str,
)
def test_an_unknown_key_in_a_section_of_any_kind_is_named_with_the_key_that_may_be_meant(
    content: dict[str, object], path: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        Sections.model_validate(content)
    problem = first_problem(raised.value, Sections)
    assert (problem.path, str(problem)) == (path, "unknown key; allowed are steps; did you mean 'steps'?")


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: 1\na: 2\n", "given twice"), ("[1]\n", "a mapping of keys is needed"), ("{", "is not valid YAML")],
)
def test_a_file_that_is_no_mapping_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(SpecError, match=message) as raised:
        read_mapping(tmp_path / "x.yaml")
    assert "\n" not in str(raised.value)
    assert str(tmp_path / "x.yaml") in str(raised.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("1h30m", 5400), ("45min", 2700), ("90s", 90), ("1.5h", 5400), ("1 h 5 m 1 s", 3901)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0h", "2", "-1h", "h", "1d", "30m2h"])
def test_what_is_no_duration_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration such as 2h"):
        parse_duration(text)


def test_a_terminal_is_shown_control_characters_spelled_out() -> None:
    assert str(SpecError("x.yaml: a\nb\x1b[2J: no")) == r"x.yaml: a\nb\x1b[2J: no"
    assert len(str(SpecError("x" * 10**6))) == 2000
