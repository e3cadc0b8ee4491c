import errno
import io
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tune_cure.utils.files import (
    FolderError,
    FolderWatch,
    describe_disk_fault,
    describe_path_fault,
    make_run_folder,
    read_tensors,
    refuse_foreign_links,
    replace_arrays,
    replace_tensors,
    replace_text,
    replace_weights,
)


def test_what_is_replaced_is_read_back(tmp_path: Path) -> None:
    replace_text(tmp_path / "a.csv", "é\n")
    replace_text(tmp_path / "a.csv", "è\n")
    assert (tmp_path / "a.csv").read_bytes() == "è\n".encode()
    replace_tensors(tmp_path / "a.pt", {"x": torch.ones(2), "n": 3})
    assert read_tensors(tmp_path / "a.pt", torch.device("cpu"))["x"].tolist() == [1, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.pt"]


class FullDisk(io.RawIOBase):
    """A file on a full disk."""

    def writable(self) -> bool:
        return True

    def write(self, content: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: replace_text(path, "x"),
        lambda path: replace_tensors(path, {"x": torch.ones(10_000)}),
        lambda path: replace_arrays(path, {"x": np.ones(10_000)}),
    ],
    ids=["text", "tensors", "arrays"],
)
def test_a_file_that_does_not_fit_on_the_disk_is_named(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "open", lambda path, mode: FullDisk())
    with pytest.raises(OSError, match="No space left on device") as caught:
        write(tmp_path / "a.pt")
    assert describe_disk_fault(caught.value) == f"{tmp_path}/a.pt: No space left on device"


def test_a_file_on_a_disk_that_is_read_only_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)  # Linux answers so although the file is not there
    with pytest.raises(OSError, match="Read-only") as caught:
        replace_text(tmp_path / "a.csv", "x")
    assert describe_disk_fault(caught.value) == f"{tmp_path}/a.csv: Read-only file system"


def test_a_path_that_no_file_can_have_is_named() -> None:
    fault = OSError(errno.ENAMETOOLONG, "File name too long", "a" * 300)
    assert describe_path_fault(fault) == f"{'a' * 300}: File name too long"
    assert describe_path_fault(OSError(errno.ELOOP, "Too many levels of symbolic links", "a")).startswith("a: Too many")
    assert describe_path_fault(OSError(errno.ENOSPC, "No space left on device", "a")) == ""


def test_only_errors_of_the_disk_are_its_faults() -> None:
    assert describe_disk_fault(OSError(errno.EDQUOT, "Disk quota exceeded")) == "Disk quota exceeded"
    assert describe_disk_fault(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")) == ""


def test_a_link_in_a_folder_that_somebody_sent_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "a").symlink_to(tmp_path / "precious")
    replace_text(tmp_path / "a", "theirs")
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / "a").read_text() == "theirs"


@pytest.mark.parametrize("link", ["a", "trials/x/y", "confirm/trial-1/seed-1", ".lock"])
@pytest.mark.parametrize("target", ["../mine", "../nowhere", "/etc", "../run-2", "", "loop"])
def test_a_link_at_any_depth_that_leads_out_of_a_run_is_refused(link: str, target: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    file = tmp_path / "run" / link
    file.parent.mkdir(parents=True)
    (tmp_path / "run" / "spec.yaml").write_text("")
    if target == "loop":
        file.symlink_to(file.name)
    else:
        file.symlink_to(target if target.startswith("/") else tmp_path / "run" / target)
    if not target:  # the folder itself is no place outside of it
        refuse_foreign_links(tmp_path / "run")
        return
    with pytest.raises(FolderError, match=f"{link}: is a link that leads out of the run's folder"):
        refuse_foreign_links(tmp_path / "run")


def test_a_pipe_in_a_run_is_refused_and_a_link_to_the_run_or_within_it_is_not(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "trials").mkdir(parents=True)
    (run / "last").symlink_to("trials")
    (tmp_path / "other name").symlink_to("run")
    refuse_foreign_links(tmp_path / "other name")
    os.mkfifo(run / "trials" / "environment.json")
    with pytest.raises(FolderError, match=r"environment\.json: is neither a file nor a folder"):
        refuse_foreign_links(run)


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk", pickle.dumps(Path("x")), pickle.dumps([1])])
def test_a_file_that_is_no_checkpoint_is_one_line_without_advice_to_trust_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(FolderError, match=r"a\.pt: (cannot be read as a|is no) checkpoint") as raised:
        read_tensors(tmp_path / "a.pt", torch.device("cpu"))
    assert "weights_only" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_default_name_that_is_taken_gets_a_number_even_by_a_link_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to(tmp_path / "nowhere")
    assert make_run_folder(tmp_path / "x", None) == tmp_path / "x-2"
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="file/x: cannot be made: Not a directory"):
        make_run_folder(tmp_path / "file" / "x", None)


def test_two_writers_of_one_file_leave_one_of_their_texts_and_nothing_else(tmp_path: Path) -> None:
    texts = ["a" * 200_000, "b" * 300_000]
    seen: set[str] = set()

    def write(text: str) -> None:
        for _ in range(30):
            replace_text(tmp_path / "x", text)
            seen.add((tmp_path / "x").read_text())

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, texts))  # raises what a thread raised
    assert seen <= set(texts)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_arrays_are_read_back_by_their_names_even_with_slashes(tmp_path: Path) -> None:
    file = tmp_path / "outcomes.npz"
    replace_arrays(file, {"trial-1/2/0.1/clean": np.array([True, False]), "seconds": 1.5})
    with np.load(file) as content:
        assert content["trial-1/2/0.1/clean"].tolist() == [True, False]
        assert float(content["seconds"]) == 1.5
    assert [path.name for path in tmp_path.iterdir()] == ["outcomes.npz"]


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


def test_weights_are_written_as_a_plain_state_dict(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    images = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    weights = {"a": shared, "b": shared, "images": images, "count": torch.tensor(3), "half": shared.half()}
    replace_weights(tmp_path / "w.safetensors", weights)
    read = load_file(tmp_path / "w.safetensors")
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], weights[name]) and read[name].dtype == weights[name].dtype for name in weights)


@pytest.mark.parametrize("tensor", [torch.eye(2).to_sparse(), torch.ones(2, dtype=torch.complex128), 3])
def test_weights_without_a_place_in_the_format_are_left_out_with_a_warning(
    tensor: torch.Tensor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "w.safetensors"
    replace_weights(file, {"a": torch.ones(1)})
    replace_weights(file, {"a": tensor})
    assert not list(tmp_path.iterdir())  # the older weights are not those of this network
    (message,) = caplog.messages
    assert message.startswith(f"{file}: left out: a tensor is of a kind that safetensors cannot hold: ")
