import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest

from tune_cure.utils.folder_watch import FolderWatch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "journal.jsonl").write_text("{}\n")
    return folder


@pytest.fixture
def watch(folder: Path) -> FolderWatch:
    return FolderWatch(folder / "journal.jsonl")


def delete(folder: Path) -> None:
    (folder / "journal.jsonl").unlink()
    folder.rmdir()


def test_a_folder_that_is_written_to_has_no_fault(folder: Path, watch: FolderWatch) -> None:
    with (folder / "journal.jsonl").open("a") as file:
        file.write("{}\n")
    (folder / "report.html").write_text("")
    assert watch.find_fault() == ""
    assert not watch.is_lost()


def test_a_folder_that_was_deleted_is_lost(folder: Path, watch: FolderWatch) -> None:
    delete(folder)
    assert watch.is_lost()
    assert watch.find_fault() == f"{folder} was deleted or moved away"


def test_a_folder_that_was_made_anew_without_the_file_is_lost(folder: Path, watch: FolderWatch) -> None:
    delete(folder)
    folder.mkdir()
    assert watch.is_lost()


def test_a_folder_in_whose_place_is_another_one_with_such_a_file_is_lost(folder: Path, watch: FolderWatch) -> None:
    folder.rename(folder.with_name("moved"))
    folder.mkdir()
    (folder / "journal.jsonl").write_text("{}\n")
    assert watch.is_lost()


def test_a_folder_in_whose_place_is_a_file_is_lost(folder: Path, watch: FolderWatch) -> None:
    delete(folder)
    folder.write_text("")
    assert watch.is_lost()


def test_a_folder_that_is_back_is_not_lost(folder: Path, watch: FolderWatch) -> None:
    folder.rename(folder.with_name("moved"))
    assert watch.is_lost()
    folder.with_name("moved").rename(folder)
    assert watch.find_fault() == ""


def test_a_file_that_is_not_there_yet_is_not_missed(tmp_path: Path) -> None:
    watch = FolderWatch(tmp_path / "journal.jsonl")
    assert watch.find_fault() == ""


def test_a_folder_that_cannot_be_written_to_says_why(
    folder: Path, watch: FolderWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**options: object) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write whatever the mode of the folder is
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert watch.find_fault() == f"{folder} cannot be written to: Read-only file system"
    assert not watch.is_lost()


def test_a_system_that_denies_what_it_then_does_is_not_believed(
    watch: FolderWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert watch.find_fault() == ""
