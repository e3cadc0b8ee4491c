from pathlib import Path

import pytest

from tune_cure.data.config import DataSpec
from tune_cure.data.folders import cache_folder, data_folder, is_default
from tune_cure.data.source import DataError


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TUNE_CURE_DATA", "TUNE_CURE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_the_default_folder_of_data_is_told_from_others(tmp_path: Path) -> None:
    assert is_default("~/.cache/tune_cure")
    assert is_default(str(Path("~/.cache/tune_cure/cifar").expanduser()))
    for other in ("~", "~/.cache/tune_cure/..", "~/.cache/tune_cure2", str(tmp_path)):
        assert not is_default(other)


def test_data_and_prepared_files_go_to_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_folder() == cache_folder() == Path("~/.cache/tune_cure").expanduser()
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch/cache")
    assert data_folder() == cache_folder() == Path("/scratch/cache/tune_cure")
    assert DataSpec(dataset="digits").folder == Path("/scratch/cache/tune_cure")
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")  # its standard says to ignore a relative path
    assert data_folder() == cache_folder() == Path("~/.cache/tune_cure").expanduser()


def test_variables_of_the_project_name_either_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch/cache")
    monkeypatch.setenv("TUNE_CURE_DATA", "~/datasets")
    monkeypatch.setenv("TUNE_CURE_CACHE", "/fast")
    assert data_folder() == Path("~/datasets").expanduser()
    assert cache_folder() == Path("/fast")


def test_a_file_that_names_the_default_folder_means_the_one_of_each_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_CURE_DATA", "/datasets")
    spec = DataSpec(dataset="digits", root="~/.cache/tune_cure")
    assert (spec.root, spec.folder) == ("~/.cache/tune_cure", Path("/datasets"))  # what a run's spec.yaml keeps
    assert is_default("~/.cache/tune_cure") and is_default("/datasets/cifar")
    assert not is_default(str(Path("~/.cache/tune_cure/cifar").expanduser()))
    assert DataSpec(dataset="digits", root="/mine").folder == Path("/mine")


@pytest.mark.parametrize("name", ["TUNE_CURE_DATA", "TUNE_CURE_CACHE"])
def test_a_relative_folder_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "folder")
    with pytest.raises(DataError, match=f"^{name}: 'folder' is relative; an absolute path is needed$"):
        (data_folder if name == "TUNE_CURE_DATA" else cache_folder)()
