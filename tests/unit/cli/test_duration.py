"""What is said of a search's and a run's duration before they start."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.spaces import tiny
from tune_cure.cli import main as cli
from tune_cure.cli.views import duration
from tune_cure.data import splits as splits_module
from tune_cure.ray_backend.resources import Machine, plan_resources
from tune_cure.search.space.config import SearchSpec
from tune_cure.training.speed import Speed
from tune_cure.utils.yaml_config import read_mapping

FAST = Speed(trained_image=1e-4, judged_image=1e-5, attacked_image=1e-6)
SLOW = Speed(trained_image=1.0, judged_image=0.1, attacked_image=0.01)
QUICK = ["--dataset", "digits", "--epochs", "1", "--set", "data.train_examples=100", "--set", "evaluation.steps=1"]


def say(spec: SearchSpec, speed: Speed, monkeypatch: pytest.MonkeyPatch, gpus: int = 0) -> str:
    """What is said of a search on a machine with two CPUs and this speed."""
    monkeypatch.setattr(duration, "measure_trial_speed", lambda *_: speed)
    lines: list[str] = []
    plan = plan_resources(spec, [Machine(2, gpus)])
    duration.say_search_duration(spec, splits_module.load(spec.data), plan, lines.append)
    return "\n".join(lines)


def test_a_search_made_for_cpus_says_how_long_all_of_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = say(tiny(tmp_path), FAST, monkeypatch)
    assert said.startswith("an epoch of small_cnn takes about 0.061 s on 1 CPU here (measured); the search, about ")
    assert said.endswith("1 at a time, takes about 17 s")


def test_images_that_no_batch_has_take_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [say(tiny(tmp_path, f"data.train_examples={count}"), FAST, monkeypatch) for count in (500, 507)]
    assert said[0] == said[1]  # batches have 50 images


def test_nothing_is_said_of_a_search_on_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert say(tiny(tmp_path, "resources.gpus_per_trial=1"), SLOW, monkeypatch, gpus=1) == ""


def test_the_advice_for_a_long_search_fits_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = say(tiny(tmp_path, "resources.gpus_per_trial=1"), SLOW, monkeypatch)
    assert said.startswith("no GPU found: an epoch of small_cnn takes about 10 min 1")
    few = int(said.partition("data.train_examples=")[2].split()[0])
    assert 20 * 10 <= few < 600
    assert "--set evaluation.examples=100 takes about " in said
    assert "--time-budget 1h" in said
    assert "narrower network" in said  # 200 images still take more than an hour
    assert "cifar10_cpu" not in said  # the data is not CIFAR-10


def test_the_advice_takes_half_an_hour_where_images_alone_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = Speed(trained_image=0.4, judged_image=0.0, attacked_image=0.0)
    said = say(tiny(tmp_path, "search.scheduler=none", "rescore.top=0"), speed, monkeypatch)
    assert "takes about 2 h 8 min" in said
    assert "shorter: --set data.train_examples=" in said
    assert "takes about 42 min 56 s" in said  # 20 images a class are the least
    assert "narrower" not in said


def test_no_advice_is_given_that_a_budget_of_seconds_makes_useless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = say(tiny(tmp_path, "search.budget_seconds=3700"), SLOW, monkeypatch)
    assert "about 6 epochs" in said
    assert "shorter" not in said


@pytest.fixture
def _two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_two_threads")
def test_train_chooses_its_threads_records_them_and_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tune_cure.cli.steps.train_run.choose_threads", lambda *_, **__: 1)
    monkeypatch.setattr(duration, "measure_speed", lambda *_, **__: FAST)
    folder = tmp_path / "out"
    assert cli.main(["train", *QUICK, "--output", str(folder)]) == 0
    assert read_mapping(folder / "config.yaml")["threads"] == 1
    out = capsys.readouterr().out
    assert "1 CPU thread(s)" in out
    assert "an epoch takes about 0.014 s here (measured), 1 epoch about 0 s" in out
    monkeypatch.setattr("tune_cure.cli.steps.train_run.choose_threads", lambda *_, **__: 2)
    assert cli.main(["train", "--resume", "--output", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "1 CPU thread(s)" in out
    assert "an epoch takes" not in out  # none is left


@pytest.mark.usefixtures("_two_threads")
def test_threads_that_are_given_are_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_cure.cli.steps.train_run.choose_threads", lambda *_, **__: pytest.fail("measured"))
    monkeypatch.setattr(duration, "measure_speed", lambda *_, **__: FAST)
    assert cli.main(["train", *QUICK, "--threads", "2", "--output", str(tmp_path / "out")]) == 0
    assert read_mapping(tmp_path / "out" / "config.yaml")["threads"] == 2
