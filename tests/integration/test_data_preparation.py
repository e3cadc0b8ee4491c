import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pictures import write_pictures


def test_of_two_processes_only_one_prepares_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_CURE_CACHE", str(tmp_path / "cache"))
    write_pictures(tmp_path / "d", count=40)
    code = (
        "import logging, sys; logging.basicConfig(level=logging.INFO); from pathlib import Path;"
        "from tune_cure.data.prepared import prepared; prepared('image_folder', Path(sys.argv[1]), None)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "d")]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    logs = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted("reading 80 pictures" in log for log in logs) == [False, True]
