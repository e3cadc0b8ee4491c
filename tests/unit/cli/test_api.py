import importlib
import inspect
import logging
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import tune_cure
from tests.support.confirmations import write_quick_search
from tests.support.exported_models import write_best_model
from tests.support.journals import write_search
from tests.support.registered_parts import forget_afterwards
from tune_cure.cli import api
from tune_cure.cli.steps import search_run
from tune_cure.cli.views.live_view import PlainView
from tune_cure.models.registry import MODELS
from tune_cure.ray_backend import tuner
from tune_cure.search.journal import Journal
from tune_cure.search.results import SearchResult
from tune_cure.search.resume import ResumeError
from tune_cure.search.space import registration
from tune_cure.search.space.loading import load
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.yaml_config import SpecError

PROGRESS = "[24/24] trial 23 "
SMALL = {
    "data": {"dataset": "digits", "train_examples": 128, "validation": 100},
    "model": {"name": "small_cnn", "width": 4},
    "training": {"epochs": 2, "batch_size": 64, "epsilon": 0.1},
    "evaluation": {"epsilon": 0.1, "steps": 2, "examples": 50},
}
PARTS = """
from torch import nn

import tune_cure


def flat(num_classes: int, in_channels: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, num_classes))


tune_cure.register("network", "flat", flat)
"""


def test_every_public_name_is_there_and_listed() -> None:
    for name in tune_cure.__all__:
        assert getattr(tune_cure, name) is not None
        assert name in dir(tune_cure)
    assert tune_cure.train is api.train
    for name in ("compare", "export", "replay", "report"):
        assert inspect.isfunction(getattr(tune_cure, name))
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        tune_cure.serach  # type: ignore[attr-defined]  # noqa: B018


def test_search_is_a_package_that_can_be_called() -> None:
    package: Any = importlib.import_module("tune_cure.search")
    assert package is tune_cure.search
    assert importlib.import_module("tune_cure.search.results") is package.results
    assert inspect.signature(package) == inspect.signature(api.search)
    assert pickle.loads(pickle.dumps(package)) is package
    with pytest.raises(SpecError, match="there is no such file"):
        tune_cure.search("nothing_of_this_name")


def test_a_search_is_not_begun_in_the_folder_of_another_one(tmp_path: Path) -> None:
    write_search(tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    spec = load(tmp_path / "spec.yaml", ["evaluation.epsilon=0.2"])
    with pytest.raises(ResumeError, match=r"holds another search: evaluation\.epsilon was 0\.15 and is 0\.2"):
        tuner.run(spec, tmp_path)
    with pytest.raises(ResumeError, match="holds another search"):
        tune_cure.search(tmp_path / "spec.yaml", output=tmp_path, settings={"evaluation.epsilon": 0.2})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


def test_a_search_that_has_ended_is_read_where_it_is_asked_for_again(tmp_path: Path) -> None:
    write_search(tmp_path)
    space = load(tmp_path / "spec.yaml").to_yaml()
    trials = len(tune_cure.SearchResult(tmp_path).trials)
    result = tune_cure.search(tmp_path / "spec.yaml", output=tmp_path, settings=[f"search.trials={trials}"])
    assert result.outcome == "finished"
    assert result.directory == tmp_path
    assert (tmp_path / "spec.yaml").read_text() == space


def test_a_search_space_in_python_is_checked_as_a_file_is(tmp_path: Path) -> None:
    data = {"dataset": "digits", "validation": 100}
    space = {"name": "mine", "data": data, "model": "small_cnn", "space": {"lamda": {"uniform": [0, 1]}}}
    with pytest.raises(TuneCureError, match=r"^space: space\.lamda: .*did you mean 'lambda'"):
        tune_cure.search(space, output=tmp_path / "out")
    assert space["model"] == "small_cnn"
    assert not (tmp_path / "out").exists()


def test_training_returns_the_log_the_network_and_the_accuracies_on_the_test_set(tmp_path: Path) -> None:
    result = tune_cure.train(SMALL, output=tmp_path / "out", settings={"training.lr_max": 0.05}, test=True)
    assert result.log["epoch"].tolist() == [1, 2]
    assert pd.read_csv(tmp_path / "out" / "epochs.csv")["train_loss"].tolist() == result.log["train_loss"].tolist()
    assert result.test is not None
    assert result.test["weights"].tolist() == ["best", "last"]
    assert (tmp_path / "out" / "curves.html").exists()
    images = torch.rand(2, 1, 8, 8)
    assert result.network is not None
    saved = tune_cure.load_model(tmp_path / "out" / "best_model.pt")
    assert torch.equal(result.network(images), saved(images))
    again = tune_cure.train(output=tmp_path / "out", resume=True)
    assert again.log.equals(result.log)
    with pytest.raises(TuneCureError, match="is not empty"):
        tune_cure.train(SMALL, output=tmp_path / "out")


def test_training_on_other_threads_leaves_the_process_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on: list[int] = []
    monkeypatch.setattr(api, "train_epochs", lambda run, say: trained_on.append(torch.get_num_threads()))
    monkeypatch.setattr(api.train_run, "write_page", lambda run: None)
    before = torch.get_num_threads()
    tune_cure.train(SMALL, output=tmp_path / "out", settings={"threads": before + 1})
    assert trained_on == [before + 1]
    assert torch.get_num_threads() == before


def test_an_error_in_a_run_is_one_line_that_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(TuneCureError, match=r"^config: training\.epochs: "):
        tune_cure.train(SMALL, output=tmp_path / "out", settings={"training.epochs": 0})
    with pytest.raises(TuneCureError, match="leave out config"):
        tune_cure.train(SMALL, output=tmp_path / "out", resume=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", registration.REGISTRIES)
def test_each_kind_of_part_has_a_registry_of_this_name(kind: str) -> None:
    module, _, attribute = registration.REGISTRIES[kind].partition(":")
    assert getattr(importlib.import_module(module), attribute).kind == kind


def test_every_registry_of_the_package_can_be_registered_with() -> None:
    for file in Path("tune_cure").rglob("*.py"):
        assert (
            set(re.findall(r'Registry\(\s*"([^"]+)"', file.read_text(encoding="utf-8")))
            <= registration.REGISTRIES.keys()
        )


def test_a_registered_network_is_trained_by_its_name(tmp_path: Path) -> None:
    def tiny(num_classes: int, in_channels: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, num_classes))

    tune_cure.register("network", "tiny", tiny)
    try:
        result = tune_cure.train(SMALL | {"model": {"name": "tiny"}}, output=tmp_path / "out")
    finally:
        del MODELS["tiny"], registration._registered["network", "tiny"]
    assert isinstance(result.network, nn.Module)
    with pytest.raises(TuneCureError, match=r"'netwrk' is not one of .*did you mean 'network'"):
        tune_cure.register("netwrk", "tiny", tiny)


def test_a_run_whose_file_of_parts_has_moved_is_resumed_once_the_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, moved, folder = tmp_path / "parts_of_a_run.py", tmp_path / "moved_parts.py", tmp_path / "out"
    file.write_text(PARTS)
    with monkeypatch.context() as patch:
        forget_afterwards(patch)
        patch.setattr(api, "train_epochs", lambda run, say: run.train_epoch())
        tune_cure.train(SMALL | {"model": "flat", "parts": str(file)}, output=folder)
    file.rename(moved)
    forget_afterwards(monkeypatch)
    with pytest.raises(TuneCureError, match="there is no such file any more"):
        tune_cure.train(output=folder, resume=True)
    assert len(tune_cure.train(output=folder, resume=True, parts=moved).log) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top": 0}, "top: at least 1 is needed, but found 0"),
        ({"seeds": -1}, "seeds: at least 1 is needed, but found -1"),
        ({"examples": 1}, "examples: at least 2 is needed, but found 1"),
        ({"baselines": ["madry"]}, "baselines: 'madry' is not one of"),
        ({"epsilons": [0.1, -0.1]}, "epsilons: a radius above 0 is needed, but found -0.1"),
    ],
    ids=str,
)
def test_a_confirmation_that_cannot_be_is_one_line(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_search(tmp_path)
    with pytest.raises(TuneCureError, match=message):
        tune_cure.confirm(tmp_path, **arguments)
    assert not (tmp_path / "confirm").exists()


def test_report_makes_the_page_again(tmp_path: Path) -> None:
    write_search(tmp_path, 2, judged=False)  # a page without plots is quick
    page = tune_cure.report(tune_cure.SearchResult(tmp_path))
    assert page == tmp_path / "report.html"
    assert page.stat().st_size > 10_000
    with pytest.raises(TuneCureError, match="holds no search"):
        tune_cure.report(tmp_path / "none")


def test_replay_returns_the_table_that_it_writes_and_the_trade_off(tmp_path: Path) -> None:
    write_search(tmp_path)
    replay = tune_cure.replay(tmp_path, grace_period=[1, 3], reduction_factor=[2])
    assert replay.table[["grace_period", "reduction_factor"]].to_numpy().tolist() == [[1, 2], [3, 2]]
    assert pd.read_csv(tmp_path / "replay.csv")["epochs_saved"].tolist() == replay.table["epochs_saved"].tolist()
    assert replay.trade_off["recommended"].sum() == 1
    with pytest.raises(TuneCureError, match=r"^grace_period: 1 to 12 epochs are possible, but found 20"):
        tune_cure.replay(tmp_path, grace_period=[20])
    with pytest.raises(TuneCureError, match=r"^reduction_factor: must be at least"):
        tune_cure.replay(tmp_path, reduction_factor=[0.5])


def test_compare_returns_table_verdicts_and_warnings(tmp_path: Path) -> None:
    for name, trials in (("A", 24), ("B", 8)):
        (tmp_path / name).mkdir()
        write_search(tmp_path / name, trials)
    comparison = tune_cure.compare(tune_cure.SearchResult(tmp_path / "A"), tmp_path / "B")
    assert comparison.table["search"].tolist() == ["A", "B"]
    assert comparison.verdicts[["first", "second"]].to_numpy().tolist() == [["A", "B"]]
    assert any("B is unfinished" in warning for warning in comparison.warnings)
    with pytest.raises(TuneCureError, match="two folders or more are needed"):
        tune_cure.compare(tmp_path / "A")


def test_export_returns_what_it_has_written(tmp_path: Path) -> None:
    result = write_quick_search(tmp_path)
    write_best_model(result)
    exported = tune_cure.export(result, tmp_path / "out")
    assert result.best is not None
    assert f"trial {result.best.trial} of the search" in exported.description
    assert (tmp_path / "out" / "model.safetensors").exists()
    with pytest.raises(TuneCureError, match="seed: makes no difference without confirmed"):
        tune_cure.export(result, tmp_path / "other", seed=1)
    with pytest.raises(TuneCureError, match="is not an empty folder"):
        tune_cure.export(result, tmp_path / "out")


def test_a_time_budget_that_is_no_time_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TuneCureError, match=r"^time_budget: "):
        tune_cure.search("quickstart", output=tmp_path / "out", time_budget="soon")


@pytest.fixture
def _finished_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search writes its trials without training them."""

    def run_trials(
        spec: object,
        folder: search_run.RunFolder,
        options: object,
        view: PlainView,
        on_ready: Callable[[str, str], None],
    ) -> SearchResult:
        on_ready("2 CPUs, no GPU", "")
        write_search(folder.directory)
        for event in Journal(folder.directory).read():
            view.on_event(event)
        return SearchResult(folder.directory, "finished")

    monkeypatch.setattr(search_run, "run_trials", run_trials)
    monkeypatch.setattr(search_run, "write_results", lambda result, folder: folder.directory)


@pytest.mark.usefixtures("_finished_at_once")
def test_a_search_prints_its_progress_unless_it_is_to_be_quiet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="tune_cure")
    space = {
        "name": "digits-search",
        **SMALL,
        "space": {"lambda": {"loguniform": [0.001, 1]}},
        "search": {"trials": 24},
    }
    tune_cure.search(space, output=tmp_path / "loud")
    lines = capsys.readouterr().out.splitlines()
    assert f"results go to {tmp_path / 'loud'}" in lines
    assert "2 CPUs, no GPU" in lines
    assert any(line.startswith(PROGRESS) for line in lines)
    tune_cure.search(space, output=tmp_path / "quiet", quiet=True)
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("_finished_at_once")
def test_a_search_logs_its_progress_where_the_logger_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    space = {
        "name": "digits-search",
        **SMALL,
        "space": {"lambda": {"loguniform": [0.001, 1]}},
        "search": {"trials": 24},
    }
    with caplog.at_level(logging.INFO, logger="tune_cure"):
        tune_cure.search(space, output=tmp_path / "run")
    assert any(message.startswith(PROGRESS) for message in caplog.messages)
    assert capsys.readouterr().out == ""
