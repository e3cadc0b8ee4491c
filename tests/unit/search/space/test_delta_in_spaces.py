"""`delta` in the files of searches: YAML, start_from, overrides, and what older runs left."""

from pathlib import Path

import pytest
import yaml

from tests.support.spaces import tiny
from tune_cure.search.space.loading import load
from tune_cure.utils.yaml_config import SpecError


def test_a_fixed_delta_becomes_regularizer_and_direction_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = tiny(tmp_path, "training.delta=fgsm")
    assert (spec.training["regularizer"], spec.training["direction"]) == ("cure", "fgsm")
    assert "delta" not in spec.training
    assert caplog.messages.count("training.delta: fgsm is now regularizer: cure, direction: fgsm") == 1
    written = yaml.safe_load(spec.to_yaml())["training"]
    assert (written["regularizer"], written["direction"]) == ("cure", "fgsm")


def test_a_searched_delta_stays_a_key_of_the_space(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = tiny(tmp_path, "space.delta={choice: [classic, random, gradalign, none]}", "start_from=[]")
    assert "space.delta is now space.regularizer and space.direction" in caplog.messages
    config = spec.training_config({"delta": "gradalign", "lambda": 0.1})
    assert config.regularizer == "gradalign"
    drawn = {key: distribution.values[0] for key, distribution in spec.space.items()} | {"delta": "none"}
    assert spec.propose(drawn.__getitem__).keys() == spec.space.keys() - {"lambda", "h"}
    (tmp_path / "spec.yaml").write_text(spec.to_yaml())
    (tmp_path / "journal.jsonl").touch()
    caplog.clear()
    read = load(tmp_path / "spec.yaml")
    assert not caplog.messages  # a run's own file is not the user's to change
    assert read == spec.model_copy(update={"training": read.training})
    assert read.training_config({"delta": "random"}) == spec.training_config({"delta": "random"})


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        (["training.delta=none", "training.regularizer=none"], "training.delta"),
        (["training.delta=none", "space.direction={choice: [classic, fgsm]}"], "training.delta"),
        (["space.delta={choice: [classic, fgsm]}", "training.direction=fgsm"], "training.direction"),
        (["training.alpha=1", "training.step_size=0.1"], "training.alpha"),
        (["training.alpha=1", "space.step_size={uniform: [0.01, 0.1]}"], "training.alpha"),
    ],
)
def test_two_words_for_one_thing_are_refused(overrides: list[str], path: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=f"{path}.*says the same as .* in other words; keep one of the two"):
        tiny(tmp_path, *overrides, "start_from=[]")


def test_a_start_in_the_older_word_is_understood(tmp_path: Path) -> None:
    space = "space={direction: {choice: [classic, fgsm]}, lambda: {uniform: [0.1, 1]}}"
    spec = tiny(tmp_path, space, "start_from=[{delta: fgsm, lambda: 0.5}]")
    assert spec.start_from == [{"direction": "fgsm", "lambda": 0.5}]
    with pytest.raises(SpecError, match=r"start_from\[0\]\.regularizer: unknown key"):
        tiny(tmp_path, space, "start_from=[{delta: none, lambda: 0.5}]")


def test_a_winner_in_either_word_starts_a_search_in_the_other(tmp_path: Path) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text("{delta: fgsm, lambda: 0.5}")
    new.write_text("{regularizer: cure, direction: fgsm, lambda: 0.6}")
    with_delta = "space={delta: {choice: [classic, fgsm]}, lambda: {uniform: [0.1, 1]}}"
    with_both = "space={direction: {choice: [classic, fgsm]}, lambda: {uniform: [0.1, 1]}}"
    for space, key in ((with_delta, "delta"), (with_both, "direction")):
        spec = tiny(tmp_path, space, f"start_from=[{old}, {new}]")
        assert spec.start_from == [{key: "fgsm", "lambda": 0.5}, {key: "fgsm", "lambda": 0.6}]


def test_a_step_in_pixels_is_searched_and_replaces_alpha(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "space.step_size={uniform: [4/255, 10/255]}", "start_from=[]")
    assert "alpha" not in yaml.safe_load(spec.to_yaml())["training"]
    (tmp_path / "spec.yaml").write_text(spec.to_yaml())
    read = load(tmp_path / "spec.yaml")
    assert read.space == spec.space
    assert "alpha" not in read.training_config({"step_size": 0.03}).model_dump()


@pytest.mark.parametrize("norm", ["Linf", "LINF", "L2", "l2"])
def test_the_case_of_a_norm_makes_no_difference(norm: str, tmp_path: Path) -> None:
    spec = tiny(tmp_path, f"training.norm={norm}", f"evaluation.norm={norm}", "start_from=[]")
    assert (spec.training["norm"], spec.evaluation.norm) == (norm.lower(), norm.lower())
