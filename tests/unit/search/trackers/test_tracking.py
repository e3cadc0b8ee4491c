import json
import shutil
from pathlib import Path

import pytest

from tests.support.spaces import tiny
from tune_cure.search.trackers import tracking
from tune_cure.search.trackers.tracking import fresh_numbers_of, numbers_of, read_memory, write_memory
from tune_cure.utils.errors import TuneCureError


def test_a_search_keeps_its_id_and_a_copy_of_its_folder_gets_another(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    memory = read_memory(tmp_path / "a" / ".store")
    write_memory(tmp_path / "a" / ".store", **memory, whole=[1, 2])
    again = read_memory(tmp_path / "a" / ".store")
    assert (again["id"], again["whole"]) == (memory["id"], [1, 2])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    copied = read_memory(tmp_path / "b" / ".store")
    assert copied["id"] != memory["id"]
    assert list(copied) == ["id"]


@pytest.mark.parametrize("name", ["", "../x", "0123456", "ABCDEF01", None, 7])
def test_an_id_that_could_name_other_files_is_not_taken(name: object, tmp_path: Path) -> None:
    content = {"id": name, "folder": str(tmp_path.absolute())}
    (tmp_path / ".store").write_text(json.dumps(content))
    assert read_memory(tmp_path / ".store")["id"] != name


def test_numbers_of_an_epoch_are_sent_and_what_only_locates_it_is_not() -> None:
    event = {"event": "epoch", "time": 5.0, "trial": 3, "pid": 7, "epoch": 2, "pgd_accuracy": 0.5, "host": "a"}
    assert numbers_of(event) == {"epoch": 2.0, "pgd_accuracy": 0.5}
    fresh = {"clean_accuracy": 0.9, "pgd_accuracy": 0.4, "pgd_accuracy_se": 0.1}
    assert fresh_numbers_of({"event": "leader", **fresh}) == {f"fresh_{name}": value for name, value in fresh.items()}


def test_a_tracker_that_is_not_known_or_not_installed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny(tmp_path)
    with pytest.raises(TuneCureError, match="track: 'neptune' is not one of mlflow, wandb, trackio"):
        tracking.track(["neptune"], spec, tmp_path, []).__enter__()
    monkeypatch.setattr("tune_cure.utils.environment.is_installed", lambda name: False)
    for name in tracking.TRACKERS:
        with pytest.raises(TuneCureError, match=f"--track {name} needs the package {name}, which is not installed"):
            tracking.track([name], spec, tmp_path, []).__enter__()
