from pathlib import Path
from typing import Any

import pytest

from tests.support.spaces import TINY
from tune_cure.league.methods import Entry, LeagueError, compose_spec, describe_left_out, read_entries, take_shared
from tune_cure.search.space.config import SearchSpec
from tune_cure.training.presets import METHODS, NO_METHOD
from tune_cure.utils.yaml_config import ProblemError, SpecError
from tune_cure.utils.yaml_parser import parse

NAMES = [name for name in METHODS if name != NO_METHOD]


def shared(**sections: Any) -> dict[str, Any]:
    return take_shared(parse(TINY) | sections)[0]


def compose(entry: Entry, name: str = "mine", **sections: Any) -> SearchSpec:
    return compose_spec(shared(**sections), name, entry, "tiny.yaml")


def test_methods_are_named_by_themselves_under_another_name_or_by_a_file(tmp_path: Path) -> None:
    file = tmp_path / "slow.yaml"
    file.write_text("training: {method: cure, lr_max: 1e-4}\n")
    entries = read_entries(["cure", "again=cure", f"slow={file}"])
    assert entries == {
        "cure": Entry(training={"method": "cure"}),
        "again": Entry(training={"method": "cure"}),
        "slow": Entry(training={"method": "cure", "lr_max": "1e-4"}),
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cure", "n_fgms"], "--methods: 'n_fgms' is not one of .*; did you mean 'n_fgsm'"),
        (["cure", "cure"], "--methods: cure is given twice; a copy gets a name of its own: cure2=cure"),
        (["cure", "cure=pgd"], "--methods: cure is given twice; a copy gets a name of its own: cure2=pgd"),
        (["cure"], "--methods: a league needs at least two methods, but found 1"),
        (["cure", "none"], "--methods: none stands for no method; NAME=FILE.yaml describes one of your own"),
        (["cure", "a/b=pgd"], "--methods: a name of letters, .* is needed, .* but found 'a/b'; NAME=pgd gives one"),
        (["cure", "confirm=pgd"], "--methods: a name .* and not confirm, but found 'confirm'"),
        (["cure", "cure-preset=pgd"], "--methods: cure-preset: a name that ends in -preset is that of an "),
        (["cure", "x.yaml"], "--methods: x.yaml needs a name: NAME=x.yaml"),
    ],
)
def test_wrong_methods_are_refused_in_one_line(words: list[str], message: str) -> None:
    with pytest.raises(LeagueError, match=message):
        read_entries(words)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("trainings: {method: cure}", "trainings: unknown key; allowed are training, space; did you mean 'training'"),
        ("training: 3", "training: a mapping is needed, but found 3"),
        ("space: {lambda: {uniform: [0, 1]}}", "training.method: is needed: it names the method"),
        ("training: {method: curr}", "training.method: 'curr' is not one of"),
    ],
)
def test_a_file_that_describes_no_method_is_refused(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(SpecError, match=message):
        read_entries(["cure", f"mine={file}"])


@pytest.mark.parametrize("name", NAMES)
def test_each_method_has_its_own_space_and_the_shared_keys_and_begins_with_its_preset(name: str) -> None:
    spec, preset = compose(Entry(training={"method": name}), name), METHODS[name]
    assert list(spec.space) == [*preset.space, "lr_max", "epsilon"]
    (start,) = spec.start_from
    assert {key: start[key] for key in preset.space} == {key: preset.keys[key] for key in preset.space}
    assert start["lr_max"] == 0.02  # as the search space begins
    assert spec.training_config(start).method == name
    assert (spec.name, spec.training["epochs"], spec.search.seed) == (name, 4, 0)


def test_keys_of_a_method_in_the_search_space_are_left_out_and_named() -> None:
    content, left_out = take_shared(parse(TINY) | {"training": {"epochs": 4, "regularizer": "cure", "alpha": 1.0}})
    assert left_out == ["training.regularizer", "training.alpha", "space.lambda", "space.h"]
    assert content["training"] == {"epochs": 4}
    assert list(content["space"]) == ["lr_max", "epsilon"]
    assert content["start_from"] == [{"lr_max": 0.02, "epsilon": 0.1}]
    assert describe_left_out(left_out).startswith("training.regularizer, training.alpha, space.lambda and space.h are")
    assert describe_left_out([]) == ""


def test_a_key_that_a_method_fixes_is_not_searched() -> None:
    spec = compose(Entry(training={"method": "cure", "lr_max": "1e-4", "lambda": 0.2}))
    assert list(spec.space) == ["h", "epsilon"]
    assert spec.training_config(spec.start_from[0]).lr_max == 1e-4
    assert spec.training_config(spec.start_from[0]).lambda_ == 0.2


def test_a_method_can_have_ranges_of_its_own_and_begins_within_them() -> None:
    spec = compose(Entry(training={"method": "cure"}, space={"lambda": {"uniform": [2, 4]}}))
    assert spec.space["lambda"].values == [2.0, 4.0]
    assert spec.start_from[0]["lambda"] == 3.0  # the paper's value lies outside


def test_shared_keys_begin_with_their_usual_value_where_the_search_space_gives_none() -> None:
    far = {"epsilon": 0.3, "examples": 40, "steps": 2}
    spec = compose(Entry(training={"method": "cure"}), start_from=[], evaluation=far)
    assert spec.start_from[0]["lr_max"] == 0.1  # the default
    assert spec.start_from[0]["epsilon"] == pytest.approx(0.125)  # the middle: the default lies outside


def test_a_preset_trains_at_the_radius_that_it_is_judged_at_whatever_the_search_space_begins_with() -> None:
    at = {"epsilon": 0.15, "examples": 40, "steps": 2}
    spec = compose(Entry(training={"method": "cure"}), evaluation=at, start_from=[{"lr_max": 0.02, "epsilon": 0.1}])
    assert spec.start_from[0]["epsilon"] == 0.15
    l2 = {"norm": "l2", "epsilon": 0.15, "examples": 40, "steps": 2}  # of another norm than training
    assert compose(Entry(training={"method": "cure"}), evaluation=l2).start_from[0]["epsilon"] == 0.1


@pytest.mark.parametrize("section", ["training", "space"])
@pytest.mark.parametrize("value", [5, [1], None, "x"])
def test_a_shared_section_that_is_no_mapping_is_one_line(section: str, value: Any) -> None:
    message = rf"tiny\.yaml \(method mine\): {section}: a mapping is needed, but found "
    with pytest.raises(SpecError, match=message):
        compose_spec({**shared(), section: value}, "mine", Entry(training={"method": "cure"}), "tiny.yaml")


def test_errors_of_a_search_space_name_the_method() -> None:
    with pytest.raises(SpecError, match=r"tiny\.yaml \(method mine\): training\.lr_mx: unknown key"):
        compose(Entry(training={"method": "cure", "lr_mx": 0.1}))


@pytest.mark.parametrize("key", ["patience", "warm_start", "budget_seconds"])
def test_what_would_make_the_searches_unequal_is_refused(key: str) -> None:
    with pytest.raises(ProblemError, match="is not for a league, which gives each method the same budget"):
        shared(search={"trials": 8, key: 3})


def test_the_preset_takes_shared_values_as_a_search_space_may_spell_them(tmp_path: Path) -> None:
    entry, near = Entry(training={"method": "cure"}), {"lr_max": "5e-2"}
    assert compose(entry, start_from=[near]).start_from[0]["lr_max"] == 0.05
    file = tmp_path / "best_config.yaml"
    file.write_text("lr_max: 0.03\nlambda: 0.7\n")
    start = compose(entry, start_from=[str(file)]).start_from[0]
    assert start["lr_max"] == 0.03
    assert start["lambda"] == compose(entry).start_from[0]["lambda"] != 0.7  # the paper's: it is the method's own


def test_what_methods_share_holds_in_another_folder_and_without_the_file_that_it_was_read_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    Path("start.yaml").write_text("lr_max: 0.03\nlambda: 0.7\n")
    content = shared(start_from=["start.yaml"], data={"dataset": "digits", "root": "data"})
    Path("start.yaml").unlink()
    monkeypatch.chdir("elsewhere")
    spec = compose_spec(content, "mine", Entry(training={"method": "cure"}), "tiny.yaml")
    assert spec.start_from[0]["lr_max"] == 0.03
    assert spec.data.folder == tmp_path / "data"


@pytest.mark.parametrize(
    ("sections", "path", "message"),
    [
        ({"start_from": ["nowhere.yaml"]}, "start_from[0]", r"nowhere\.yaml: there is no such file"),
        ({"data": {"dataset": "digits", "root": "a\0b"}}, "data.root", "a path is needed, but found"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(sections: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(ProblemError, match=message) as caught:
        shared(**sections)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ([{"lr_max": {"a": []}}], r"tiny\.yaml \(method mine\): start_from\[0\]\.lr_max: "),
        ({"lr_max": 0.1}, "start_from: a list of configurations or of files is needed, but found "),
        ([[0.1]], "start_from: a list of configurations or of files is needed, but found "),
    ],
)
def test_shared_values_that_are_none_are_one_line(starts: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        compose(Entry(training={"method": "cure"}), start_from=starts)
    assert "\n" not in str(caught.value)
