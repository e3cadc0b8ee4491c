"""Folders of pictures and their classes, and pictures of hostile sizes; test_datasets reads sound ones."""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.pictures import write_pictures
from tune_cure.data import image_folder
from tune_cure.data.prepared import prepared
from tune_cure.data.source import DataError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_CURE_CACHE", str(tmp_path / "cache"))


def refused(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        prepared("image_folder", folder, None)
    return str(caught.value)


def test_training_pictures_need_no_test_pictures_beside_them(tmp_path: Path) -> None:
    write_pictures(tmp_path / "d" / "train")
    content = prepared("image_folder", tmp_path / "d", None)
    assert content["classes"] == ["cat", "dog"]
    assert "test_images" not in content


def test_train_and_test_can_be_names_of_classes(tmp_path: Path) -> None:
    write_pictures(tmp_path / "d", classes=("bus", "test", "train"))
    content = prepared("image_folder", tmp_path / "d", None)
    assert content["classes"] == ["bus", "test", "train"]
    assert len(content["train_images"]) == 9


def png_header(width: int, height: int) -> bytes:
    """Return the beginning of a PNG file of that size, up to its pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + b"\0\0\0\x09IDAT"
    )


@pytest.mark.parametrize(("width", "height"), [(30_000_000, 1), (1, 30_000_000), (9000, 9000), (2100, 100), (21, 1)])
def test_a_picture_of_extreme_size_or_shape_is_refused_before_it_is_decoded(
    width: int, height: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object, **__: object) -> None:
        raise AssertionError("it was decoded")

    (tmp_path / "x.png").write_bytes(png_header(width, height))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    with pytest.raises(
        DataError, match=rf"x\.png: is {width}×{height}; at most 50,000,000 pixels are read, and a longer"
    ):
        image_folder._decode(tmp_path / "x.png", 32)


def test_pictures_that_do_not_fit_into_memory_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    write_pictures(tmp_path / "d")
    monkeypatch.setattr("numpy.empty", full)
    assert "6 pictures of 8×8, the size of" in refused(tmp_path / "d")


@pytest.mark.parametrize("fails", [SyntaxError("broken PNG file"), struct.error("unpack"), IndexError(), MemoryError()])
def test_a_decoder_that_fails_in_any_way_names_the_picture(
    fails: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise fails

    write_pictures(tmp_path / "d")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    assert refused(tmp_path / "d").endswith("0.png: cannot be read as a picture")


def test_a_picture_that_pillow_warns_of_is_refused_without_its_warning(tmp_path: Path) -> None:
    write_pictures(tmp_path / "d")
    (tmp_path / "d" / "cat" / "x.png").write_bytes(png_header(10_000, 10_000))
    with warnings.catch_warnings(record=True) as caught:
        assert "x.png: is 10000×10000" in refused(tmp_path / "d")
    assert not caught


@pytest.mark.parametrize(
    ("name", "dtype", "mode"), [("x.png", "uint16", "I;16"), ("x.tif", "int32", "I"), ("x.tif", "float32", "F")]
)
def test_a_picture_of_more_than_8_bits_a_channel_is_refused(name: str, dtype: str, mode: str, tmp_path: Path) -> None:
    write_pictures(tmp_path / "d")
    Image.fromarray(np.full((8, 8), 1000, dtype=dtype)).save(tmp_path / "d" / "cat" / name)
    message = f"{name}: its pixels are of Pillow's mode {mode}; pictures of 8 bits a channel are needed"
    assert refused(tmp_path / "d").endswith(message)
