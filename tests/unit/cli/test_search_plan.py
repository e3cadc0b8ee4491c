"""The rows of a search's plan."""

from pathlib import Path

import pytest
from rich.console import Console

from tests.support.spaces import TINY
from tune_cure.cli.main import main
from tune_cure.cli.steps import search_run
from tune_cure.cli.views.search_plan import explain_judgements, explain_other_radius, print_plan
from tune_cure.ray_backend.resources import Machine, plan_resources
from tune_cure.search.space import bundled_spaces
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.loading import load


def read_plan(spec: SearchSpec, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Print the plan of a search, and return its rows by their titles."""
    plan = plan_resources(spec, [Machine(cpus=2, gpus=0)])
    print_plan(spec, plan, "images", "folder", Console(width=400))
    rows: dict[str, str] = {}
    title = ""
    for line in capsys.readouterr().out.splitlines():
        name, text = line[:13].strip(), line[13:].strip()
        title = name or title
        rows[title] = f"{rows[title]}\n{text}" if title in rows else text
    return rows


def bundled(name: str, *overrides: str) -> SearchSpec:
    """Return a bundled search, with overrides, on two CPUs."""
    return load(bundled_spaces.find(name), ["resources={cpus_per_trial: 1}", *overrides])


@pytest.mark.parametrize(
    ("space", "overrides", "said"),
    [
        ("cifar10_cpu", (), "3 leaders by PGD-20 with 10 starts on 1,000 fresh validation images"),
        ("cure", (), "3 leaders by PGD-20 with 10 starts on 2,500 fresh validation images"),
        ("cure", ("rescore={top: 1, steps: 5, restarts: 1}",), "1 leader by PGD-5 with 1 start on 2,500 fresh"),
        ("cure", ("rescore.attack=autoattack",), "3 leaders by AutoAttack on 2,500 fresh validation images"),
        ("cure", ("search.trials=2",), "2 leaders by PGD-20"),
        (
            "quickstart",
            (),
            "no leader: all 360 validation images judge the trials; to keep some for the leaders, set data.validation "
            "above evaluation.examples",
        ),
    ],
)
def test_the_plan_says_by_what_the_leaders_are_judged_again(
    space: str, overrides: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_plan(bundled(space, *overrides), capsys)["then judged"].startswith(said)


def test_the_plan_of_a_search_without_a_second_judgement_does_not_mention_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "then judged" not in read_plan(bundled("cure", "rescore.top=0"), capsys)


def test_data_that_is_not_here_yet_and_has_no_number_of_validation_images_has_a_plan(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = read_plan(bundled("cifar10_cpu", "data={dataset: 'hf:someone/pictures'}"), capsys)
    assert rows["judged by"].endswith(" on at most 1,000 validation images")
    assert rows["then judged"].endswith(" on at most 2,500 fresh validation images")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("asha.control=0.1",), "about 10% of the trials, drawn by the seed, run to the end and judge the rungs"),
        (("asha.control=0.1", "search.scheduler=median"), "about 10% of the trials, drawn by the seed, run to the end"),
        (("asha.control=0.1", "search.scheduler=none"), ""),
        ((), ""),
    ],
)
def test_the_plan_says_how_many_trials_are_in_the_control_group(
    overrides: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler = read_plan(bundled("quickstart", *overrides), capsys)["scheduler"]
    assert scheduler.split("\n")[1:] == [said] * bool(said)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["evaluation.epsilon=8/255"],
            "trains at epsilon 0.05 (12.8/255) to epsilon 0.25 (63.8/255), but is judged at epsilon 0.03137 (8/255): "
            "set evaluation.epsilon?",
        ),
        (["evaluation.epsilon=0.3"], "but is judged at epsilon 0.3 (76.5/255)"),
        (["evaluation.epsilon=0.05"], ""),
        (["evaluation.epsilon=0.25"], ""),
        (["evaluation.epsilon=8/255", "training.attack=none"], ""),
        (["evaluation={norm: l2, epsilon: 0.5}"], ""),
        (
            ["space.epsilon={choice: [0.05, 0.1]}"],
            "trains at epsilon 0.05 (12.8/255) to epsilon 0.1 (25.5/255), but is",
        ),
        (
            ["space={lambda: {uniform: [0.1, 1]}}", "training.epsilon=0.3"],
            "trains at epsilon 0.3 (76.5/255), but is judged",
        ),
        (["space={lambda: {uniform: [0.1, 1]}}", "training.epsilon=0.2"], ""),
    ],
)
def test_the_plan_warns_where_no_trial_trains_at_the_radius_that_all_are_judged_at(
    overrides: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = bundled("quickstart", "start_from=[]", *overrides)
    judged = read_plan(spec, capsys)["judged by"]
    assert ("but is judged at" in judged) == bool(said)
    assert said in judged
    assert any(said in line for line in explain_judgements(spec))


def test_no_bundled_space_is_warned_of_its_radius() -> None:
    for name in bundled_spaces.bundled():
        assert explain_other_radius(bundled(name)) == [], name


@pytest.mark.parametrize("examples", [100, 60])
def test_a_search_without_fresh_images_says_so_when_it_starts(
    examples: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(search_run, "run_trials", interrupt)
    monkeypatch.setattr("tune_cure.cli.views.duration.say_search_duration", lambda *_: None)  # takes seconds
    (tmp_path / "tiny.yaml").write_text(TINY)
    command = ["search", str(tmp_path / "tiny.yaml"), "--output", str(tmp_path / "out")]
    assert main([*command, "--set", f"evaluation.examples={examples}"]) == 130
    said = "no leader will be judged again: all 100 validation images judge the trials; to keep some for the leaders, "
    assert (said in capsys.readouterr().out) == (examples == 100)
