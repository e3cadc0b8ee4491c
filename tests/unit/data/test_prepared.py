"""What is measured and checked of a data set when it is prepared."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from tune_cure.data.datasets import DATASETS
from tune_cure.data.prepared import prepared, received
from tune_cure.data.source import DataError, Dataset, DataSource
from tune_cure.models.networks import Normalize


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_CURE_CACHE", str(tmp_path / "cache"))


def prepare(content: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch, side: int | None = None) -> Any:
    """Return the prepared data set whose function reads `content`."""
    source = DataSource("made up", "1", lambda: dict(content))
    monkeypatch.setitem(DATASETS, "made_up", Dataset(lambda root, image_size, download: source))
    return prepared("made_up", folder, side)


@pytest.mark.parametrize("rest", ["0", "255", "nearly 200"])
def test_a_channel_that_hardly_varies_is_not_scaled_up(
    rest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 8, 8), generator=generator, dtype=torch.uint8)
    images[:, 2] = int(rest.split()[-1])
    images[0, 2, 0, 0] += "nearly" in rest
    content = {"train_images": images, "train_labels": torch.arange(40) % 2, "classes": ["a", "b"]}
    result = prepare(content, tmp_path, monkeypatch)
    normalize = Normalize(result["mean"], result["std"])
    pixels = images / 255
    assert (normalize(pixels + 8 / 255) - normalize(pixels)).abs().max() < 0.5
    assert normalize(torch.zeros(1, 3, 8, 8)).abs().max() < 3  # the zero padding of the crops
    assert normalize(pixels)[:, :2].std(dim=(0, 2, 3), correction=0).tolist() == pytest.approx([1, 1], abs=1e-4)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 8, 6), "has training images of 3 channels, but test images of 1; the same number is needed"),
        (
            (3, 9, 6),
            "has training images of 6×8, but test images of 6×9; images of different sizes need data.image_size",
        ),
    ],
)
def test_test_images_of_another_shape_are_one_line(
    shape: tuple[int, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = torch.arange(4) % 2
    parts = {"train": torch.zeros(4, 3, 8, 6, dtype=torch.uint8), "test": torch.zeros(4, *shape, dtype=torch.uint8)}
    content: dict[str, Any] = {"classes": ["a", "b"]}
    for part, images in parts.items():
        content |= {f"{part}_images": images, f"{part}_labels": labels}
    with pytest.raises(DataError) as error:
        prepare(content, tmp_path, monkeypatch)
    assert str(error.value) == f"data set 'made_up': {message}"


def test_images_of_different_sizes_are_taken_once_they_are_resized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content: dict[str, Any] = {"classes": ["a", "b"]}
    for part, side in (("train", 8), ("test", 9)):
        content |= {f"{part}_images": torch.zeros(4, 1, side, side, dtype=torch.uint8)}
        content |= {f"{part}_labels": torch.arange(4) % 2}
    assert prepare(content, tmp_path, monkeypatch, side=10)["test_images"].shape == (4, 1, 10, 10)


def test_states_of_a_data_set_are_received_one_after_another_and_the_last_one_is_kept(tmp_path: Path) -> None:
    content = {"train_images": torch.zeros(2, 1, 2, 2, dtype=torch.uint8), "train_labels": torch.tensor([0, 1])}
    statistics = {"mean": [0.0], "std": [1.0], "classes": ["a", "b"], "source": "made up"}
    torch.save(content | statistics, tmp_path / "sent.pt")
    begun: list[str] = []
    found: list[Any] = []

    def fetch(state: str) -> memoryview:
        begun.append(state)
        if state == "first":
            other.start()
            other.join(0.2)  # it would delete this file before it is opened
            assert begun == ["first"]
        return memoryview((tmp_path / "sent.pt").read_bytes())

    def receive(state: str) -> None:
        found.append(received(f"made_up-origin-{state}.pt", lambda: fetch(state)))

    other = threading.Thread(target=receive, args=["second"])
    receive("first")
    other.join()
    assert [content["classes"] for content in found] == [["a", "b"]] * 2
    assert [file.name for file in (tmp_path / "cache" / "received").glob("*.pt")] == ["made_up-origin-second.pt"]
