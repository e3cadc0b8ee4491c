import pickle
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch

from tests.support.journal_lines import begin
from tests.support.spaces import tiny
from tune_cure.search.journal import Event, Journal, JournalError
from tune_cure.search.proposals.recorded_trials import find_checkpoint, recorded_trials
from tune_cure.search.recorder import TrialRecorder
from tune_cure.search.stopping import SearchStopper
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
    for path in ("figures/accuracies.png", "tensorboard/trial_00000/events", "confirm/confirm.csv"):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(path)
    (folder / locking.LOCK_FILE).touch()
    assert not store.exists("journal.jsonl")
    with pytest.raises(FolderError, match="holds no search"):
        store.get_run(back)
    UriStorage(store, folder).copy_all()
    assert store.exists("journal.jsonl")
    assert not store.exists(locking.LOCK_FILE)
    copied = [str(file.relative_to(store.path)) for file in sorted(Path(store.path).rglob("*")) if file.is_file()]
    assert copied == ["figures/accuracies.png", "journal.jsonl", "tensorboard/trial_00000/events", "trials.csv"]
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


def test_a_file_of_a_local_run_is_deleted_at_once(folder: Path) -> None:
    storage = LocalStorage(folder)
    file = write_checkpoint(storage)
    storage.delete_file(f"{CHECKPOINT}/trainer.pt")
    assert not file.exists()
    with pytest.raises(OSError, match=r"trainer\.pt"):
        storage.delete_file(f"{CHECKPOINT}/trainer.pt")


def test_a_file_in_a_store_is_deleted_when_the_search_ends_and_one_that_is_gone_already_is_no_error(
    store: ObjectStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage = UriStorage(store, folder)
    file = write_checkpoint(storage)
    for path in (f"{CHECKPOINT}/trainer.pt", "trials/trial_00001/checkpoint_000000/trainer.pt"):
        storage.delete_file(path)
    assert file.exists()
    storage.copy_all()
    assert not file.exists()
    assert not caplog.messages


def test_a_checkpoint_is_located_by_a_path_or_a_uri_only_if_it_is_there_and_in_the_runs_folder(
    storage: RunStorage, tmp_path: Path
) -> None:
    assert storage.locate_checkpoint(CHECKPOINT) is None
    torch.save({"epoch": 1}, write_checkpoint(storage))
    base = storage.checkpoint_uri or str(storage.folder)
    assert storage.locate_checkpoint(CHECKPOINT) == f"{base}/{CHECKPOINT}"
    with pytest.raises(JournalError, match="is not in the run's folder"):
        storage.locate_checkpoint("../elsewhere")


def test_the_options_of_a_uri_follow_the_path_of_a_checkpoint(store: ObjectStore, folder: Path) -> None:
    storage = UriStorage(store, folder)
    write_checkpoint(storage)
    store.uri = "s3://bucket/run?region=x"
    assert storage.locate_checkpoint(CHECKPOINT) == f"s3://bucket/run/{CHECKPOINT}?region=x"


class AtOnce:
    """Executor that runs everything at once, in this thread."""

    def submit(self, run: Callable[..., None], *arguments: object) -> Future[None]:
        run(*arguments)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def shutdown(self) -> None: ...


def test_the_checkpoints_that_the_stores_copy_of_the_journal_names_last_are_there_at_any_moment(
    store: ObjectStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_storage, "ThreadPoolExecutor", lambda workers: AtOnce())
    spec, storage, back = tiny(folder, "rescore.top=1"), UriStorage(store, folder), tmp_path / "back"
    back.mkdir()
    journal = Journal(folder, storage.copy_while_running(lambda event: None))
    recorder = TrialRecorder(spec, journal, SearchStopper(spec, folder, None, []), storage.delete_file)

    def save(number: int, at: int) -> None:
        path = f"trials/trial_{number:05d}/checkpoint_{at:06d}"
        file = Path(store.path, path, "trainer.pt")
        file.parent.mkdir(parents=True)
        file.touch()
        result = {"epoch": at, "training_iteration": at, "hostname": "here", "pid": 1, "skipped_steps": 0}
        result |= {"clean_accuracy": 0.9, "pgd_accuracy": 0.3 + 0.1 * number, "objective": 0.3 + 0.1 * number}
        recorder.on_epoch(number, {**result, "ended": "", "done": False})
        recorder.on_checkpoint(number, at, path, delete_previous=True)

    def remaining() -> list[str]:
        return [str(file.parent.relative_to(store.path)) for file in sorted(Path(store.path).rglob("trainer.pt"))]

    for number in (0, 1):
        begin(journal, number)
    for at in (1, 2, 3, 4):
        monkeypatch.setattr(run_storage, "INTERVAL", 0.0 if at == 2 else 60.0)
        for number in (0, 1):
            save(number, at)
        if at < 2:
            continue
        if at == 4:
            for number in (0, 1):
                recorder.on_end(number, {"ended": "completed", "training_iteration": 4, "objective": 0.3})
        store.get_run(back)
        for trial in recorded_trials(Journal(back).read()):
            assert find_checkpoint(trial, UriStorage(store, back)) == f"{store.uri}/{trial.checkpoints[-1]}"
    assert "trials/trial_00000/checkpoint_000001" not in remaining()  # the last copy names a newer one
    storage.copy_all()
    assert remaining() == ["trials/trial_00001/checkpoint_000004"]  # trial 0 is no leader


def test_after_a_copy_that_failed_no_file_is_deleted_before_the_next(
    store: ObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(path: Path) -> None:
        raise OSError("no connection")

    monkeypatch.setattr(run_storage, "ThreadPoolExecutor", lambda workers: AtOnce())
    monkeypatch.setattr(run_storage, "INTERVAL", 0.0)
    storage = UriStorage(store, folder)
    journal = Journal(folder, storage.copy_while_running(lambda event: None))
    file = write_checkpoint(storage)
    storage.delete_file(f"{CHECKPOINT}/trainer.pt")
    with monkeypatch.context() as context:
        context.setattr(store, "put", fail)
        begin(journal, 0)
    assert "a copy failed: no connection" in caplog.text
    assert file.exists()
    begin(journal, 1)
    assert not file.exists()


def test_the_original_of_a_copy_is_the_folder_whose_journal_goes_on_from_it(
    store: ObjectStore, folder: Path, tmp_path: Path
) -> None:
    journal, other = Journal(folder), Journal(tmp_path)
    journal.path.touch()
    UriStorage(store, folder).copy_all()
    assert store.find_original([folder]) is None  # an empty journal is the beginning of any
    begin(journal, 0)
    UriStorage(store, folder).copy_all()
    begin(other, 0)
    assert store.find_original([tmp_path, folder, tmp_path / "none"]) == folder
    begin(journal, 1)
    assert store.find_original([tmp_path, folder]) == folder
    UriStorage(store, tmp_path).copy_all()  # the search went on elsewhere
    assert store.find_original([folder]) is None


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
    monkeypatch.setattr(run_storage, "ThreadPoolExecutor", lambda workers: AtOnce())
    storage = UriStorage(store, folder)
    journal, copy = Journal(folder, storage.copy_while_running(events.append)), Path(store.path, "journal.jsonl")
    begin(journal, 0)
    first = journal.path.read_bytes()
    assert copy.read_bytes() == first  # at once: --resume needs it
    begin(journal, 1)
    assert copy.read_bytes() == first  # it is not yet time
    monkeypatch.setattr(run_storage, "INTERVAL", 0.0)
    begin(journal, 2)
    assert [event["trial"] for event in events] == [0, 1, 2]
    assert copy.read_bytes() == journal.path.read_bytes()


@pytest.mark.parametrize("function", ["tempfile.mkdtemp", "shutil.copy2"])
def test_a_folder_for_temporary_files_that_is_full_is_no_fault_of_the_journal(
    function: str, store: ObjectStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_storage, "ThreadPoolExecutor", lambda workers: AtOnce())
    monkeypatch.setattr(run_storage, "INTERVAL", 0.0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    storage = UriStorage(store, folder)
    journal = Journal(folder, storage.copy_while_running(lambda event: None))
    file = write_checkpoint(storage)
    storage.delete_file(f"{CHECKPOINT}/trainer.pt")
    with monkeypatch.context() as context:
        context.setattr(function, fail)
        begin(journal, 0)
    assert f"{store.uri}: a copy failed: [Errno 28] No space left on device" in caplog.text
    assert (file.exists(), [*(tmp_path / "temporary").iterdir()]) == (True, [])
    begin(journal, 1)
    assert not file.exists()
    assert Path(store.path, "journal.jsonl").read_bytes() == journal.path.read_bytes()
