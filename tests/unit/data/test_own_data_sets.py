"""Data sets of the user's own, named `module:name`."""

import sys
from pathlib import Path

import pytest
import torch

from tune_cure.data import splits
from tune_cure.data.config import DataSpec
from tune_cure.data.datasets import DATASETS
from tune_cure.data.source import Augmentation
from tune_cure.utils.errors import TuneCureError

MODULE = """
import torch

from tune_cure.data.source import Augmentation, Dataset, DataSource


def content():
    labels = torch.arange(60) % 2
    images = (100 * labels[:, None, None, None]).expand(60, 1, 8, 8).to(torch.uint8)
    return {"train_images": images, "train_labels": labels, "classes": ["dark", "bright"]}


def load(root, image_size, download):
    return DataSource("made up", "1", content)


entry = Dataset(load, Augmentation(padding=2, flip=False), validation=12)


def changed(**changes):
    def find(root, image_size, download):
        return DataSource("made up", repr(sorted(changes)), lambda: content() | changes)

    return find


def no_source(root, image_size, download):
    return {}


def broken(root, image_size, download):
    raise KeyError("images.npz\\nsecond line")


def unreadable(root, image_size, download):
    return DataSource("made up", "1", lambda: 1 / 0)


floats = changed(train_images=torch.zeros(60, 1, 8, 8))
few_labels = changed(train_labels=torch.zeros(59, dtype=torch.int64))
far_labels = changed(train_labels=torch.full((60,), 2))
half_a_test_set = changed(test_images=torch.zeros(3, 1, 8, 8, dtype=torch.uint8))
nothing = changed(classes=[])
shades = changed(train_images=(4 * torch.arange(60))[:, None, None, None].expand(60, 1, 8, 8).to(torch.uint8))
"""


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_data.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TUNE_CURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(DATASETS, "_imported", {})
    monkeypatch.delitem(sys.modules, "my_data", raising=False)


def test_a_function_is_a_data_set_with_the_general_defaults() -> None:
    spec = DataSpec(dataset="my_data:load")
    assert spec.validation is None
    loaded = splits.load(spec)
    assert [len(part) for part in (loaded.train, loaded.validation, loaded.test)] == [48, 6, 6]
    assert loaded.classes == ("dark", "bright")
    assert loaded.augmentation == Augmentation(padding=1, flip=True)


def test_without_a_test_set_the_images_held_out_as_one_enter_mean_and_deviation() -> None:
    found = splits.load(DataSpec(dataset="my_data:shades", validation=12))
    assert not found.has_own_test
    assert (len(found.train), len(found.validation), len(found.test)) == (36, 12, 12)
    of_all, of_train = (
        pixels.double() / 255 for pixels in (found.train.images, found.train.gather(torch.arange(36))[0])
    )
    assert found.mean == pytest.approx([of_all.mean().item()])
    assert found.std == pytest.approx([of_all.std(correction=0).item()])
    assert found.mean != pytest.approx([of_train.mean().item()], rel=1e-3)


def test_an_entry_brings_its_own_defaults() -> None:
    loaded = splits.load(DataSpec(dataset="my_data:entry"))
    assert [len(part) for part in (loaded.train, loaded.validation, loaded.test)] == [36, 12, 12]
    assert loaded.augmentation == Augmentation(padding=2, flip=False)


def test_a_name_in_a_file_imports_nothing() -> None:
    DataSpec(dataset="my_data:load", validation=10)
    assert "my_data" not in sys.modules


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_source", "a DataSource is needed, but its function returned {}"),
        ("broken", "cannot be read: KeyError: 'images.npz"),
        ("unreadable", "cannot be read: ZeroDivisionError: division by zero"),
        ("floats", "its function must read train_images as a tensor (M, C, H, W) of uint8"),
        ("few_labels", "its function must read train_labels as a tensor (M,) of int64, one for each image"),
        ("far_labels", "its function must read train_labels from 0 to 1, the index of a class"),
        ("half_a_test_set", "its function must read test_labels as a tensor (M,) of int64, one for each image"),
        ("nothing", "its function must read the names of two classes or more, but read 0"),
        ("content", "cannot be read: TypeError: content() takes 0 positional arguments but 3 were given"),
        ("torch", "a Dataset, or a function that finds one, is needed, but found <module"),
        ("lode", "module my_data has no lode; did you mean 'load'?"),
    ],
)
def test_a_data_set_that_cannot_be_used_is_one_line(name: str, message: str) -> None:
    with pytest.raises(TuneCureError) as caught:
        splits.load(DataSpec(dataset=f"my_data:{name}", validation=10))
    assert str(caught.value).startswith(f"data set 'my_data:{name}': {message}")
    assert "\n" not in str(caught.value)


def test_a_digits_reader_that_fails_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = DATASETS["digits"]
    monkeypatch.setitem(DATASETS, "digits", type(digits)(lambda *arguments: torch.zeros(1).nonsense))
    with pytest.raises(AttributeError):
        splits.load(DataSpec(dataset="digits"))
