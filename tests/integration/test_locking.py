import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.spaces import tiny
from tune_cure.cli.main import main
from tune_cure.search.journal import Journal
from tune_cure.utils import locking
from tune_cure.utils.files import FolderError

HOLD = """
import sys, pathlib
from tune_cure.utils import locking
with locking.hold_run_lock(pathlib.Path(sys.argv[1])):
    print(flush=True)
    input()
"""


@pytest.fixture
def holder(tmp_path: Path) -> "subprocess.Popen[str]":
    """Another process that holds the lock of `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "\n"
    return process


def test_one_process_at_a_time_holds_the_lock_and_kill_9_releases_it(
    tmp_path: Path, holder: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "LOCK_TIMEOUT_SECONDS", 0.1)
    assert not locking.is_unlocked(tmp_path)
    with pytest.raises(FolderError, match="another process is writing in it"), locking.hold_run_lock(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert locking.is_unlocked(tmp_path)
    with locking.hold_run_lock(tmp_path):
        assert not locking.is_unlocked(tmp_path)
    assert locking.is_unlocked(tmp_path)


def test_resume_refuses_a_search_that_is_running(
    tmp_path: Path,
    holder: "subprocess.Popen[str]",
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(locking, "LOCK_TIMEOUT_SECONDS", 0.1)
    tiny(tmp_path)
    Journal(tmp_path).path.touch()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    changed = ["--set", "search.trials=9", "--set", "asha.grace_period=2", "--force"]
    code = main(["search", "--space", str(tmp_path / "spec.yaml"), "--output", str(tmp_path), "--resume", *changed])
    assert code == 2
    said = f"tune-cure: {tmp_path}: its search is running already; to see it: tune-cure watch {tmp_path}\n"
    assert capsys.readouterr().err == said
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    holder.kill()
    holder.communicate()
