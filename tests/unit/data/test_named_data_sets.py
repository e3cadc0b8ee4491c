"""Tiny ImageNet, MedMNIST and data sets of the Hugging Face Hub, from files in their own formats; no network."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

from tune_cure.data.config import DataSpec
from tune_cure.data.datasets import DATASETS
from tune_cure.data.prepared import prepared
from tune_cure.data.source import DataError, NotHereError
from tune_cure.utils.registry import PartError

WNIDS = ("n01443537", "n01629819")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_CURE_CACHE", str(tmp_path / "cache"))


def picture(shade: int, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (8, 8), shade if mode == "L" else (shade, shade, shade))


def write_tiny_imagenet(root: Path) -> Path:
    """The folder of the archive, with two classes; one picture is gray, as some are there."""
    folder = root / "tiny-imagenet-200"
    for index, name in enumerate(WNIDS):
        (folder / "train" / name / "images").mkdir(parents=True, exist_ok=True)
        (folder / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t0\t62\t62\n")
        for number in range(3):
            mode = "L" if number == 0 else "RGB"
            picture(40 * index + number, mode).save(folder / "train" / name / "images" / f"{name}_{number}.JPEG")
    (folder / "val" / "images").mkdir(parents=True)
    lines = []
    for number in range(4):
        picture(40 * (number % 2)).save(folder / "val" / "images" / f"val_{number}.JPEG")
        lines.append(f"val_{number}.JPEG\t{WNIDS[number % 2]}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return folder


def test_tiny_imagenet_is_read_with_its_validation_images_as_test_set(tmp_path: Path) -> None:
    write_tiny_imagenet(tmp_path)
    content = prepared("tiny_imagenet", tmp_path, None, download=False)
    assert content["classes"] == list(WNIDS)
    assert content["train_images"].shape == (6, 3, 8, 8)
    assert content["train_labels"].tolist() == [0, 0, 0, 1, 1, 1]
    assert sorted(content["test_labels"].tolist()) == [0, 0, 1, 1]
    shades = content["test_images"].float().mean(dim=(1, 2, 3))
    assert (shades - 40 * content["test_labels"]).abs().max() < 3  # each picture has its own label


def test_annotations_of_tiny_imagenet_that_name_no_class_are_one_line(tmp_path: Path) -> None:
    folder = write_tiny_imagenet(tmp_path)
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn99\t0\t0\t1\t1\n")
    with pytest.raises(DataError, match=r"val_annotations\.txt: names the class 'n99'"):
        prepared("tiny_imagenet", tmp_path, None, download=False)


def test_files_of_tiny_imagenet_that_are_no_pictures_are_left_out_and_a_missing_folder_is_one_line(
    tmp_path: Path,
) -> None:
    folder = write_tiny_imagenet(tmp_path)
    images = folder / "train" / WNIDS[0] / "images"
    (images / ".DS_Store").write_bytes(b"of a Mac")
    assert len(prepared("tiny_imagenet", tmp_path, None, download=False)["train_images"]) == 6
    images.rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"data set .tiny_imagenet.: cannot be read: .*No such file") as error:
        prepared("tiny_imagenet", tmp_path, 16, download=False)
    assert "\n" not in str(error.value)


def write_medmnist(file: Path, *, gray: bool = False, labels: int = 1) -> None:
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, count in {"train": 9, "val": 3, "test": 6}.items():
        shape = (count, 28, 28) if gray else (count, 28, 28, 3)
        arrays[f"{part}_images"] = random.integers(0, 256, shape).astype(np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count * labels).reshape(count, labels) % 3).astype(np.uint8)
    np.savez(file, **arrays)


@pytest.mark.parametrize("gray", [False, True])
def test_medmnist_is_read_from_its_file_without_its_package(
    gray: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "medmnist", None)
    write_medmnist(tmp_path / "pathmnist.npz", gray=gray)
    content = prepared("medmnist:pathmnist", tmp_path, None, download=False)
    assert content["train_images"].shape == (9, 1 if gray else 3, 28, 28)
    with np.load(tmp_path / "pathmnist.npz") as arrays:
        first = arrays["test_images"][0] if gray else arrays["test_images"][0, :, :, 1]
    assert torch.equal(content["test_images"][0, 0 if gray else 1], torch.from_numpy(first))
    assert content["test_labels"].tolist() == [0, 1, 2, 0, 1, 2]
    assert content["classes"] == ["0", "1", "2"]


def test_a_data_set_with_several_labels_for_a_picture_is_refused(tmp_path: Path) -> None:
    write_medmnist(tmp_path / "chestmnist.npz", labels=14)
    with pytest.raises(DataError, match="a picture has 14 labels; data sets with one are taken"):
        prepared("medmnist:chestmnist", tmp_path, None, download=False)


def test_medmnist_is_downloaded_by_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    class PathMNIST:
        available_sizes = (28, 64)

        def __init__(self, *, split: str, download: bool, root: str, size: int) -> None:
            assert download
            asked.append((split, size))
            write_medmnist(Path(root) / ("pathmnist.npz" if size == 28 else f"pathmnist_{size}.npz"))

    package = SimpleNamespace(INFO={"pathmnist": {"python_class": "PathMNIST"}}, PathMNIST=PathMNIST)
    monkeypatch.setitem(sys.modules, "medmnist", package)
    for _ in range(2):  # the second time, the prepared file is found
        assert len(prepared("medmnist:pathmnist_64", tmp_path / "data", None)["train_labels"]) == 9
    assert asked == [("train", 64)]
    assert len(prepared("medmnist:pathmnist_28", tmp_path / "data", None)["train_labels"]) == 9  # has no suffix there
    assert asked[1:] == [("train", 28)]
    with pytest.raises(DataError, match="data set 'medmnist:pathmnits': MedMNIST has pathmnist"):
        prepared("medmnist:pathmnits", tmp_path / "data", None)
    with pytest.raises(DataError, match="data set 'medmnist:pathmnist_65': MedMNIST has pathmnist in sizes 28, 64"):
        prepared("medmnist:pathmnist_65", tmp_path / "data", None)
    with pytest.raises(PartError, match="data set 'medmnist:pathmnist_big': a name such as pathmnist or pathmnist_64"):
        prepared("medmnist:pathmnist_big", tmp_path / "data", None)


FEATURES = {
    "img": {"_type": "Image"},
    "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
    "other": {"dtype": "string", "_type": "Value"},
}


def write_parquet(
    file: Path, shades: list[int], features: dict[str, Any] = FEATURES, *, labels: list[int | None] | None = None
) -> None:
    """A file as the Hub makes it: pictures as PNG bytes, and the features in the schema."""
    pictures = []
    for shade in shades:
        with io.BytesIO() as stream:
            picture(shade).save(stream, format="PNG")
            pictures.append({"bytes": stream.getvalue(), "path": None})
    values = labels or [shade % 2 for shade in shades]
    columns = {name: values for name, kind in features.items() if kind["_type"] != "Image"}
    table = pa.table({"img": pa.array(pictures), **columns})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table.replace_schema_metadata(metadata), file)


@pytest.mark.parametrize(
    "names",
    [
        ("default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"),
        ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"),
    ],
    ids=["the Hub's own branch", "a repository's files"],
)
def test_a_data_set_of_the_hub_is_read_from_its_parquet_files(names: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "hf" / "someone--pets"
    for name, shades in zip(names, ([10, 11, 12], [13], [20, 21]), strict=True):
        write_parquet(folder / name, shades)
    content = prepared("hf:someone/pets", tmp_path, None, download=False)
    assert content["classes"] == ["cat", "dog"]
    assert content["train_images"][:, 0, 0, 0].tolist() == [10, 11, 12, 13]
    assert content["train_labels"].tolist() == [0, 1, 0, 1]
    assert content["test_images"].shape == (2, 3, 8, 8)


@pytest.mark.parametrize("secret", [-1, None])
@pytest.mark.parametrize("other", ["validation", None])
def test_a_test_split_whose_labels_the_hub_keeps_secret_is_not_the_test_set(
    other: str | None, secret: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "hf" / "pets" / "default"
    write_parquet(folder / "train" / "0000.parquet", [10, 11])
    write_parquet(folder / "test" / "0000.parquet", [20, 21, 22], labels=[secret] * 3)
    if other:
        write_parquet(folder / other / "0000.parquet", [30])
    content = prepared("hf:pets", tmp_path, None, download=False)
    assert content["train_labels"].tolist() == [0, 1]
    assert ("test_images" in content) == bool(other)
    assert ("no picture of test has a label; images held out of train are the test set" in caplog.text) != bool(other)
    if other:
        assert content["test_images"][:, 0, 0, 0].tolist() == [30]


def test_what_the_hub_has_several_of_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "hf" / "x"
    write_parquet(folder / "de" / "train" / "0000.parquet", [1, 2])
    write_parquet(folder / "en" / "train" / "0000.parquet", [1, 2])
    with pytest.raises(DataError, match=r"has several configurations \(de, en\)"):
        prepared("hf:x", tmp_path, None, download=False)
    labels = dict.fromkeys(("coarse", "fine"), FEATURES["label"])
    write_parquet(tmp_path / "hf" / "y" / "default" / "train" / "0.parquet", [1], {"img": FEATURES["img"], **labels})
    with pytest.raises(DataError, match="found pictures in img and labels in coarse, fine"):
        prepared("hf:y", tmp_path, None, download=False)


def test_a_data_set_of_the_hub_is_downloaded_by_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def snapshot_download(name: str, **options: Any) -> None:
        asked.append((name, options))
        write_parquet(Path(options["local_dir"]) / "default" / "train" / "0000.parquet", [1, 2, 3])

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    for _ in range(2):
        assert len(prepared("hf:someone/pets", tmp_path, None)["train_labels"]) == 3
    ((name, options),) = asked
    assert name == "someone/pets"
    assert (options["repo_type"], options["revision"]) == ("dataset", "refs/convert/parquet")


def replace_download(name: str, download: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the package that downloads a data set call a function of the folder into which it downloads."""

    class PathMNIST:
        available_sizes = (28,)

        def __init__(self, *, root: str, **_: Any) -> None:
            download(Path(root))

    info = {"pathmnist": {"python_class": "PathMNIST"}}
    hub = SimpleNamespace(snapshot_download=lambda _, **options: download(Path(options["local_dir"])))
    monkeypatch.setitem(sys.modules, "medmnist", SimpleNamespace(INFO=info, PathMNIST=PathMNIST))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setattr(
        "torchvision.datasets.utils.download_and_extract_archive", lambda _, root, **__: download(Path(root))
    )


WHOLE_DOWNLOADS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "hf:pets": ("default/train/0.parquet", lambda root: write_parquet(root / "default/train/0.parquet", [1, 2])),
    "medmnist:pathmnist": ("pathmnist.npz", lambda root: write_medmnist(root / "pathmnist.npz")),
    "tiny_imagenet": (f"tiny-imagenet-200/train/{WNIDS[0]}/images/{WNIDS[0]}_0.JPEG", write_tiny_imagenet),
}
"""The first file of each data set that is downloaded, in its folder, and the function that writes all files."""


@pytest.mark.parametrize("name", WHOLE_DOWNLOADS)
def test_an_interrupted_download_is_not_taken_for_the_data_set_and_goes_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_file, write_all = WHOLE_DOWNLOADS[name]
    found: list[bool] = []

    def download(folder: Path) -> None:
        found.append((folder / first_file).exists())
        if len(found) > 1:
            write_all(folder)
            return
        (folder / first_file).parent.mkdir(parents=True, exist_ok=True)
        (folder / first_file).write_bytes(b"half of it")
        raise KeyboardInterrupt

    replace_download(name, download, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        prepared(name, tmp_path / "data", None)
    with pytest.raises(NotHereError):
        prepared(name, tmp_path / "data", None, download=False)
    assert "train_images" in prepared(name, tmp_path / "data", None)
    assert found == [False, True]
    assert not list(tmp_path.rglob("*.partial"))


def test_a_folder_without_the_data_is_not_replaced_by_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_download("hf:pets", lambda folder: pytest.fail("it was downloaded"), monkeypatch)
    (tmp_path / "hf" / "pets").mkdir(parents=True)
    (tmp_path / "hf" / "pets" / "notes.txt").touch()
    with pytest.raises(DataError, match=r"hf/pets: is there without the data set; move it away, .*"):
        prepared("hf:pets", tmp_path, None)
    assert (tmp_path / "hf" / "pets" / "notes.txt").exists()


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("medmnist:pathmnist", "medmnist", "medmnist"), ("hf:someone/pets", "huggingface_hub", "hf")],
)
def test_data_that_is_not_there_is_said_with_what_would_bring_it(
    name: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotHereError, match="on first use it is downloaded into the default folder"):
        prepared(name, tmp_path, None, download=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=rf"pip install 'tune-cure\[{extra}\]'"):
        prepared(name, tmp_path, None)
    with pytest.raises(NotHereError, match="Tiny ImageNet is not in"):
        prepared("tiny_imagenet", tmp_path, None, download=False)


def test_names_of_families_are_taken_in_a_search_space_and_others_are_not() -> None:
    assert DataSpec(dataset="hf:someone/pets").dataset == "hf:someone/pets"
    with pytest.raises(PartError, match="a name such as hf:OWNER/NAME is needed"):
        DATASETS.resolve("hf:../x")
    with pytest.raises(PartError, match="a name such as pathmnist"):
        DATASETS.resolve("medmnist:../x")


@pytest.mark.parametrize("metadata", ["[]", '{"info": {"features": [1]}}', "{", '{"info": {"features": {"x": 3}}}'])
def test_a_parquet_file_whose_metadata_is_of_another_kind_is_one_line(metadata: str, tmp_path: Path) -> None:
    file = tmp_path / "hf" / "x" / "default" / "train" / "0000.parquet"
    file.parent.mkdir(parents=True)
    table = pa.table({"label": [0, 1]}).replace_schema_metadata({"huggingface": metadata})
    parquet.write_table(table, file)
    with pytest.raises(DataError, match=r"0000\.parquet: cannot be read as a Parquet file of the Hub") as error:
        prepared("hf:x", tmp_path, None, download=False)
    assert "\n" not in str(error.value)
