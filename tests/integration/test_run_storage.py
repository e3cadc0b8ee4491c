import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.spaces import tiny
from tune_cure.cli.main import main
from tune_cure.ray_backend import tuner
from tune_cure.reports import tables
from tune_cure.search import results
from tune_cure.search.journal import Event, Journal
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.storage import run_storage
from tune_cure.search.storage.run_storage import ObjectStore, UriStorage


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path}/store/run")


def test_resume_where_there_is_no_search_gives_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(tmp_path)
    uri = f"file://{tmp_path}/store/run"
    assert main(["search", "--space", str(tmp_path / "spec.yaml"), "--output", uri, "--resume"]) == 2
    assert capsys.readouterr().err == f"tune-cure: --output {uri}: holds no search: there is no journal.jsonl in it\n"


def run_interrupted(
    store: ObjectStore, tmp_path: Path, interrupt: Callable[[Event], None]
) -> tuple[SearchSpec, Path, Path]:
    """Run a search in an object store until `interrupt` ends it; return it, its folder and an empty one."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    spec = tiny(first, "search.trials=3", "asha.grace_period=4")
    storage = UriStorage(store, first)
    assert tuner.run(spec, storage, on_event=interrupt).outcome == "interrupted"
    storage.finish_copies()
    return spec, first, second


@pytest.mark.usefixtures("ray_session")
def test_a_search_whose_machine_was_lost_long_after_the_last_copy_goes_on_from_what_the_copy_names(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_storage, "INTERVAL", 0.0)

    def stop_copying_then_interrupt(event: Event) -> None:
        if event["event"] == "checkpoint" and (event["trial"], event["epoch"]) == (1, 1):
            monkeypatch.setattr(run_storage, "INTERVAL", 3600.0)
        if event["event"] == "checkpoint" and (event["trial"], event["epoch"]) == (1, 3):
            signal.raise_signal(signal.SIGINT)

    spec, _, second = run_interrupted(store, tmp_path, stop_copying_then_interrupt)
    store.get_run(second)
    before = Journal(second).read()
    assert max(event["epoch"] for event in before if event["event"] == "epoch" and event["trial"] == 1) < 3
    assert tuner.run(spec, UriStorage(store, second), tuner.RunOptions(resume=True)).finished
    assert list(results.trials(second)["status"]) == ["completed"] * 3


@pytest.mark.usefixtures("ray_session")
def test_a_search_is_resumed_from_its_copy_in_the_object_store_alone(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_storage, "INTERVAL", 0.0)

    def interrupt(event: Event) -> None:
        if event["event"] == "checkpoint" and (event["trial"], event["epoch"]) == (1, 2):
            signal.raise_signal(signal.SIGINT)

    spec, first, second = run_interrupted(store, tmp_path, interrupt)
    assert not (first / "trials").exists()  # checkpoints are in the store, and nowhere else
    first.rename(tmp_path / "lost")

    store_again = ObjectStore(store.uri)
    store_again.get_run(second)
    again = UriStorage(store_again, second)
    saved = {event["trial"]: event["epoch"] for event in Journal(second).read() if event["event"] == "checkpoint"}
    before = len(Journal(second).read())
    assert tuner.run(spec, again, tuner.RunOptions(resume=True)).finished
    later = [event for event in Journal(second).read()[before:] if event["event"] == "epoch" and event["trial"] == 1]
    assert later[0]["epoch"] == saved[1] + 1 > 1
    trials = results.trials(second)
    assert list(trials["status"]) == ["completed"] * 3
    assert list(trials["epochs_trained"]) == [4] * 3

    leader = results.best(second)
    assert leader is not None
    path = SearchResult(second).checkpoint
    assert path is not None
    assert again.fetch_checkpoint(path) == Journal(second).checkpoint_file(path)
    tables.write_tables(SearchResult(second))
    tables.write_best_model(SearchResult(second))
    assert (second / "best_model.pt").exists()
    again.copy_all()
    assert again.exists("trials.csv") and again.exists("best_model.pt")
