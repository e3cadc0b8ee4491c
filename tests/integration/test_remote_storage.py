import signal
from pathlib import Path

import pytest

from tests.support.journal_lines import begin
from tests.support.spaces import tiny
from tune_cure.cli.main import main
from tune_cure.ray_backend import remote_storage, tuner
from tune_cure.ray_backend.remote_storage import RemoteStorage
from tune_cure.reports import tables
from tune_cure.search import results
from tune_cure.search.journal import Event, Journal
from tune_cure.search.results import SearchResult
from tune_cure.utils import locking
from tune_cure.utils.files import FolderError


@pytest.fixture
def store(tmp_path: Path) -> RemoteStorage:
    return RemoteStorage(f"file://{tmp_path}/store/run")


@pytest.mark.parametrize("uri", ["nonsense://bucket/run", "file:///proc/none/run"])
def test_a_store_that_cannot_be_used_is_one_line(uri: str) -> None:
    with pytest.raises(FolderError, match=f"--output {uri}: cannot be used: ") as raised:
        RemoteStorage(uri)
    assert "\n" not in str(raised.value)


def test_what_was_put_is_got_back_but_for_the_trials(store: RemoteStorage, tmp_path: Path) -> None:
    run, back = tmp_path / "run", tmp_path / "back"
    (run / "trials").mkdir(parents=True)
    back.mkdir()
    begin(Journal(run), 0)
    (run / "trials.csv").write_text("trial\n0\n")
    (run / locking.LOCK_FILE).touch()
    assert not store.exists("journal.jsonl")
    with pytest.raises(FolderError, match="holds no search"):
        store.get(back)
    store.put(run)
    assert store.exists("journal.jsonl")
    assert not store.exists(locking.LOCK_FILE)
    store.get(back)
    assert Journal(back).read() == Journal(run).read()
    assert (back / "trials.csv").read_text() == "trial\n0\n"
    assert not (back / "trials").exists()


def test_to_continue_where_there_is_no_search_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny(tmp_path)
    uri = f"file://{tmp_path}/store/run"
    assert main(["search", "--space", str(tmp_path / "spec.yaml"), "--output", uri, "--resume"]) == 2
    assert capsys.readouterr().err == f"tune-cure: --output {uri}: holds no search: there is no journal.jsonl in it\n"


@pytest.mark.usefixtures("ray_session")
def test_a_search_goes_on_from_its_copy_alone(
    store: RemoteStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_storage, "INTERVAL", 0.0)

    def interrupt(event: Event) -> None:
        if event["event"] == "checkpoint" and (event["trial"], event["epoch"]) == (1, 2):
            signal.raise_signal(signal.SIGINT)

    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    spec = tiny(first, "search.trials=3", "asha.grace_period=4")
    assert tuner.run(spec, first, remote=store, on_event=interrupt).outcome == "interrupted"
    assert not (first / "trials").exists()  # checkpoints are in the store, and nowhere else
    store.uploader.shutdown()
    first.rename(tmp_path / "lost")

    again = RemoteStorage(store.uri)
    again.get(second)
    saved = {event["trial"]: event["epoch"] for event in Journal(second).read() if event["event"] == "checkpoint"}
    before = len(Journal(second).read())
    assert tuner.run(spec, second, remote=again, resume=True).finished
    later = [event for event in Journal(second).read()[before:] if event["event"] == "epoch" and event["trial"] == 1]
    assert later[0]["epoch"] == saved[1] + 1 > 1
    trials = results.trials(second)
    assert list(trials["status"]) == ["completed"] * 3
    assert list(trials["epochs_trained"]) == [4] * 3

    leader = results.best(second)
    assert leader is not None
    path = SearchResult(second).checkpoint
    assert path is not None
    again.get_checkpoint(second, path)
    tables.write_tables(SearchResult(second))
    tables.write_best_model(SearchResult(second))
    assert (second / "best_model.pt").exists()
    again.put(second)
    assert again.exists("trials.csv") and again.exists("best_model.pt")
