from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tune_cure.data import splits
from tune_cure.data.config import DataSpec
from tune_cure.data.prepared import prepare_and_map, received
from tune_cure.data.source import DataError
from tune_cure.ray_backend.data_broadcast import DataBroadcast, load

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def spec(tmp_path: Path) -> DataSpec:
    """Forty pictures of two classes, black and white."""
    for shade, name in ((0, "black"), (255, "white")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            picture = Image.fromarray(np.full((8, 8, 3), shade + (number if shade == 0 else -number), dtype=np.uint8))
            picture.save(tmp_path / "pictures" / name / f"{number}.png")
    return DataSpec(dataset="image_folder", root=str(tmp_path / "pictures"), validation=4)


def test_a_machine_without_the_data_receives_it_once_and_splits_it_like_the_driver(
    spec: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broadcast = DataBroadcast(spec)
    here = splits.load(spec)
    monkeypatch.setenv("TUNE_CURE_CACHE", str(tmp_path / "elsewhere"))  # as on another machine,
    (tmp_path / "pictures").rename(tmp_path / "moved")  # where there are no pictures
    with pytest.raises(DataError):
        load(spec, None)
    there = load(spec, broadcast)
    for ours, theirs in ((here.train, there.train), (here.validation, there.validation), (here.test, there.test)):
        assert torch.equal(ours.indices, theirs.indices)
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)
    assert (here.mean, here.classes) == (there.mean, there.classes)

    def again() -> memoryview:
        raise AssertionError("fetched twice")

    assert received(broadcast.name, again)["classes"] == list(here.classes)


def test_a_machine_with_the_data_reads_its_own(spec: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broadcast = DataBroadcast(spec)
    monkeypatch.setenv("TUNE_CURE_CACHE", str(tmp_path / "elsewhere"))
    load(spec, broadcast)
    assert not (tmp_path / "elsewhere" / "received").exists()
    file, _ = prepare_and_map(spec.dataset, spec.folder, None, True)
    assert file.is_relative_to(tmp_path / "elsewhere" / "prepared")


def test_a_machine_with_other_data_takes_what_the_driver_sends_and_keeps_its_last_state_alone(
    spec: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broadcast = DataBroadcast(spec)
    here = splits.load(spec)
    monkeypatch.setenv("TUNE_CURE_CACHE", str(tmp_path / "elsewhere"))
    received_folder = tmp_path / "elsewhere" / "received"
    received_folder.mkdir(parents=True)
    stale = received_folder / f"{broadcast.name.rpartition('-')[0]}-{'0' * 12}.pt"
    stale.write_bytes(b"of an earlier state")
    (received_folder / "other-0-0.pt").write_bytes(b"of another data set")
    picture = tmp_path / "pictures" / "black" / "0.png"
    Image.fromarray(np.full((8, 8, 3), 99, dtype=np.uint8)).save(picture)
    there = load(spec, broadcast)
    assert torch.equal(there.train.images, here.train.images)
    assert "is not what the search's driver has; taking what it sends" in caplog.text
    assert sorted(file.name for file in received_folder.glob("*.pt")) == sorted([broadcast.name, "other-0-0.pt"])
