import errno
import os
from pathlib import Path

import pytest

from tests.support.spaces import TINY
from tune_cure.cli.main import main
from tune_cure.utils import locking
from tune_cure.utils.files import FolderError


def test_where_there_never_was_a_lock_nothing_is_known(tmp_path: Path) -> None:
    assert not locking.is_unlocked(tmp_path)


@pytest.mark.parametrize(("number", "is_refused"), [(errno.ENOLCK, False), (errno.ENOTSUP, False), (errno.EROFS, True)])
def test_a_file_system_without_locks_refuses_nobody(
    number: int, is_refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, timeout: float) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr("filelock.FileLock.acquire", fail)
    if is_refused:
        with pytest.raises(FolderError, match=r"\.lock: cannot be written: no"), locking.hold_run_lock(tmp_path):
            pass
    else:
        with locking.hold_run_lock(tmp_path):
            pass


def test_where_no_search_is_none_is_continued_and_no_lock_left(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    out = tmp_path / "out"
    out.mkdir()
    assert main(["search", "--space", str(tmp_path / "tiny.yaml"), "--output", str(out), "--resume"]) == 2
    assert list(out.iterdir()) == []


def test_a_lock_that_is_a_link_is_refused_and_the_other_file_keeps_its_content(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    for link in (os.link, os.symlink):
        link(tmp_path / "mine", tmp_path / ".lock")
        with (
            pytest.raises(FolderError, match=r"\.lock: is a link to another file"),
            locking.hold_run_lock(tmp_path),
        ):
            pass
        (tmp_path / ".lock").unlink()
    assert (tmp_path / "mine").read_text() == "mine"
