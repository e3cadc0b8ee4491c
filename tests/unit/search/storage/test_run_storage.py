import pickle
from pathlib import Path

import pytest

from tests.support.journal_lines import begin
from tune_cure.search.journal import Event, Journal, JournalError
from tune_cure.search.storage import run_storage
from tune_cure.search.storage.run_storage import LocalStorage, ObjectStore, RunStorage, UriStorage
from tune_cure.utils import locking
from tune_cure.utils.files import FolderError

CHECKPOINT = "trials/trial_00000/checkpoint_000000"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path}/store/run")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    return path


@pytest.fixture(params=["local", "uri"])
def storage(request: pytest.FixtureRequest, folder: Path, store: ObjectStore) -> RunStorage:
    return LocalStorage(folder) if request.param == "local" else UriStorage(store, folder)


def write_checkpoint(storage: RunStorage) -> Path:
    """Write a checkpoint where Ray would, and return its file."""
    file = Path(storage.checkpoint_root) / CHECKPOINT / "trainer.pt"
    file.parent.mkdir(parents=True)
    file.write_text("weights")
    return file


@pytest.mark.parametrize("uri", ["nonsense://bucket/run", "file:///proc/none/run"])
def test_a_store_that_cannot_be_used_is_one_line(uri: str) -> None:
    with pytest.raises(FolderError, match=f"--output {uri}: cannot be used: ") as raised:
        ObjectStore(uri)
    assert "\n" not in str(raised.value)


def test_what_was_copied_comes_back_but_for_the_trials(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    (folder / "trials").mkdir()
    back.mkdir()
    begin(Journal(folder), 0)
    (folder / "trials.csv").write_text("trial\n0\n")
    (folder / locking.LOCK_FILE).touch()
    assert not store.exists("journal.jsonl")
    with pytest.raises(FolderError, match="holds no search"):
        store.get_run(back)
    UriStorage(store, folder).copy_all()
    assert store.exists("journal.jsonl")
    assert not store.exists(locking.LOCK_FILE)
    store.get_run(back)
    assert Journal(back).read() == Journal(folder).read()
    assert (back / "trials.csv").read_text() == "trial\n0\n"
    assert not (back / "trials").exists()


def test_a_checkpoint_is_a_file_in_the_runs_folder_wherever_it_is_kept(storage: RunStorage, folder: Path) -> None:
    write_checkpoint(storage)
    file = storage.fetch_checkpoint(CHECKPOINT)
    assert file == folder.resolve() / CHECKPOINT / "trainer.pt"
    assert file.read_text() == "weights"


def test_a_checkpoint_outside_of_the_runs_folder_is_refused(storage: RunStorage, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="is not in the run's folder"):
        storage.fetch_checkpoint("../elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_is_deleted_where_checkpoints_are_kept(storage: RunStorage) -> None:
    file = write_checkpoint(storage)
    storage.delete_file(f"{CHECKPOINT}/trainer.pt")
    assert not file.exists()
    with pytest.raises(OSError, match=r"trainer\.pt"):
        storage.delete_file(f"{CHECKPOINT}/trainer.pt")


def test_a_storage_can_be_pickled_as_ray_does(storage: RunStorage) -> None:
    copy = pickle.loads(pickle.dumps(storage))
    assert (copy.folder, copy.output, copy.checkpoint_root) == (storage.folder, storage.output, storage.checkpoint_root)


def test_each_session_has_a_folder_of_its_own_for_its_trials(storage: RunStorage) -> None:
    names = []
    for _ in range(3):
        names.append(storage.unused_name("trials"))
        (Path(storage.checkpoint_root) / names[-1]).mkdir()
    assert names == ["trials", "trials-2", "trials-3"]


def test_a_local_run_keeps_no_copies(folder: Path) -> None:
    def listener(event: Event) -> None: ...

    storage = LocalStorage(folder)
    assert storage.copy_while_running(listener) is listener
    storage.copy_all()
    assert list(folder.iterdir()) == []


def test_the_journal_is_copied_between_two_events_while_the_search_runs(
    store: ObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    storage = UriStorage(store, folder)
    journal = Journal(folder, storage.copy_while_running(events.append))
    begin(journal, 0)
    assert not store.exists("journal.jsonl")  # it is not yet time
    monkeypatch.setattr(run_storage, "INTERVAL", 0.0)
    begin(journal, 1)
    storage.finish_copies()
    assert [event["trial"] for event in events] == [0, 1]
    assert Path(storage.checkpoint_root, "journal.jsonl").read_bytes() == journal.path.read_bytes()
