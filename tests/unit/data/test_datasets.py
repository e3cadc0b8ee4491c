import hashlib
import http.client
import logging
import os
import pickle
import shutil
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from scipy.io import savemat
from torch import Tensor

from tests.support.pictures import write_pictures
from tune_cure.data import datasets, image_folder
from tune_cure.data.datasets import DATASETS
from tune_cure.data.prepared import prepared
from tune_cure.data.source import DataError, stratified


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("TUNE_CURE_CACHE", str(folder))
    return folder


def error(*arguments: object, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        prepared(*arguments, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_digits_are_8_by_8_with_a_fixed_stratified_test_set(tmp_path: Path) -> None:
    content = prepared("digits", tmp_path, None)
    assert content["train_images"].shape == (1438, 1, 8, 8)
    assert content["test_images"].shape == (359, 1, 8, 8)
    assert content["train_images"].dtype == torch.uint8
    assert (content["train_images"].min(), content["train_images"].max()) == (0, 255)
    fifth = torch.bincount(torch.cat([content["train_labels"], content["test_labels"]])) / 5
    assert (torch.bincount(content["test_labels"]) - fifth).abs().max() < 1


def test_mean_and_deviation_are_those_of_the_training_images(tmp_path: Path) -> None:
    content = prepared("digits", tmp_path, None)
    pixels = content["train_images"].double() / 255
    assert content["mean"] == pytest.approx([pixels.mean().item()])
    assert content["std"] == pytest.approx([pixels.std(correction=0).item()])


def test_stratified_takes_each_class_in_its_share() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    chosen = stratified(labels, 11, seed=0)
    assert torch.bincount(labels[chosen]).tolist() == [6, 3, 2]  # shares 5.5, 3.3, 2.2
    assert len(chosen.unique()) == 11
    assert torch.equal(chosen, stratified(labels, 11, seed=0))
    assert not torch.equal(chosen, stratified(labels, 11, seed=1))


def test_an_image_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    colours = write_pictures(tmp_path / "d" / "train") | write_pictures(tmp_path / "d" / "test", count=1)
    (tmp_path / "d" / "train" / ".hidden").mkdir()
    (tmp_path / "d" / "train" / "cat" / "notes.txt").write_text("no picture")
    content = prepared("image_folder", tmp_path / "d", None)
    assert content["classes"] == ["cat", "dog"]
    assert content["train_labels"].tolist() == [0, 0, 0, 1, 1, 1]
    assert content["test_labels"].tolist() == [0, 1]
    expected = [colours[tmp_path / "d" / "train" / c / f"{i}.png"] for c in ("cat", "dog") for i in range(3)]
    assert content["train_images"][:, :, 0, 0].tolist() == [list(colour) for colour in expected]


def test_a_folder_is_decoded_once_and_again_when_it_changes(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "d"
    write_pictures(folder)
    decoded: list[Path] = []
    decode = image_folder._decode
    monkeypatch.setattr(image_folder, "_decode", lambda file, side: decoded.append(file) or decode(file, side))
    prepared("image_folder", folder, None)
    assert decoded
    decoded.clear()
    prepared("image_folder", folder, None)
    assert not decoded
    Image.new("RGB", (8, 8), (1, 2, 3)).save(folder / "cat" / "new.png")
    assert len(prepared("image_folder", folder, None)["train_labels"]) == 7
    assert decoded
    decoded.clear()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(folder / "cat" / "new.png")
    os.utime(folder / "cat" / "new.png", ns=(1, 1))
    assert prepared("image_folder", folder, None)["train_images"][3, :, 0, 0].tolist() == [9, 9, 9]
    assert len(list((own_cache / "prepared").glob("*.pt"))) == 1  # stale ones are gone


def test_pictures_are_resized_and_cut_to_a_square_on_request(tmp_path: Path) -> None:
    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "d" / "b").mkdir()
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 255  # the middle third is white
    Image.fromarray(wide).save(tmp_path / "d" / "a" / "wide.png")
    Image.new("RGB", (7, 9), (5, 6, 7)).save(tmp_path / "d" / "b" / "tall.png")
    content = prepared("image_folder", tmp_path / "d", 10)
    assert content["train_images"].shape == (2, 3, 10, 10)
    assert content["train_images"][0].min() == 255
    assert content["train_images"][1, :, 5, 5].tolist() == [5, 6, 7]
    message = error("image_folder", tmp_path / "d", None)
    assert "is 7×9, but" in message
    assert "data.image_size" in message


def test_other_data_is_resized_too(tmp_path: Path) -> None:
    assert prepared("digits", tmp_path, 12)["train_images"].shape[-2:] == (12, 12)


def test_an_unusable_folder_is_an_error_of_one_line(tmp_path: Path) -> None:
    assert error("image_folder", tmp_path / "none", None).endswith("name one of class folders with --data-root")
    (tmp_path / "empty").mkdir()
    assert "has 0 class folders; a folder for each" in error("image_folder", tmp_path / "empty", None)
    write_pictures(tmp_path / "a")
    (tmp_path / "a" / "bird").mkdir()
    assert "bird: has no pictures" in error("image_folder", tmp_path / "a", None)
    write_pictures(tmp_path / "b" / "train")
    write_pictures(tmp_path / "b" / "test", classes=("cat", "cow"))
    assert "must have the same class folders" in error("image_folder", tmp_path / "b", None)
    write_pictures(tmp_path / "c")
    (tmp_path / "c" / "cat" / "1.png").write_bytes(b"not a picture")
    assert error("image_folder", tmp_path / "c", None).endswith("1.png: cannot be read as a picture")


def test_a_truncated_prepared_file_is_made_anew_with_a_warning(
    tmp_path: Path, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = prepared("digits", tmp_path, None)["train_images"].clone()
    (file,) = (own_cache / "prepared").glob("*.pt")
    for size in (file.stat().st_size // 2, 0):
        os.truncate(file, size)
        with caplog.at_level(logging.WARNING):
            assert torch.equal(prepared("digits", tmp_path, None)["train_images"], before)
        assert "is made anew" in caplog.text
        caplog.clear()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_images_are_mapped_from_the_prepared_file_not_copied(tmp_path: Path, own_cache: Path) -> None:
    images = prepared("digits", tmp_path, None)["train_images"]
    (file,) = (own_cache / "prepared").glob("*.pt")
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(file)):
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if start <= images.data_ptr() < end:
                return
    pytest.fail("the images do not lie in the mapped file")


def test_the_lock_is_free_again_after_success_and_after_an_error(tmp_path: Path, own_cache: Path) -> None:
    prepared("digits", tmp_path, None)
    error("image_folder", tmp_path / "none", None)
    locks = [FileLock(file, timeout=0) for file in (own_cache / "prepared").glob("*.lock")]
    assert len(locks) == 2
    for lock in locks:
        lock.acquire()  # a Timeout if it is held
        lock.release()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address on this machine under which it is served."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


Site = tuple[Path, str]


def publish(site: Site, name: str, files: dict[str, dict[str, object]], patch: pytest.MonkeyPatch) -> Path:
    """Serves a tiny archive in the layout of CIFAR-10 or CIFAR-100, and has torchvision believe in it."""
    from torchvision import datasets as vision

    cls = getattr(vision, name)
    source = site[0] / cls.base_folder
    source.mkdir()
    sums = {}
    for file, content in files.items():
        (source / file).write_bytes(pickle.dumps(content))
        sums[file] = hashlib.md5((source / file).read_bytes()).hexdigest()
    archive = site[0] / cls.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source, cls.base_folder)
    patch.setattr(cls, "url", f"{site[1]}/{cls.filename}")
    patch.setattr(cls, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    for part in ("train_list", "test_list"):
        patch.setattr(cls, part, [[file, sums[file]] for file, _ in getattr(cls, part)])
    patch.setattr(cls, "meta", {**cls.meta, "md5": sums[cls.meta["filename"]]})
    return archive


def rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def cifar10(site: Site, patch: pytest.MonkeyPatch) -> Path:
    batches = {f"data_batch_{i}": {"data": rows(10, i), "labels": list(range(10))} for i in range(1, 6)}
    test = {"test_batch": {"data": rows(10, 6), "labels": list(range(10))}}
    meta = {"batches.meta": {"label_names": list("abcdefghij")}}
    return publish(site, "CIFAR10", batches | test | meta, patch)


def check_cifar(content: dict[str, object], first: np.ndarray) -> None:
    images = content["train_images"]
    assert isinstance(images, Tensor)
    assert torch.equal(images[: len(first)], torch.from_numpy(first.reshape(-1, 3, 32, 32)))


def test_cifar10_is_downloaded_checked_and_then_found(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    archive = cifar10(site, monkeypatch)
    root = tmp_path / "root"
    assert "CIFAR-10 is not in" in error("cifar10", root, None, download=False)
    content = prepared("cifar10", root, None)
    assert "%" in capfd.readouterr().err  # torchvision's progress bar
    check_cifar(content, rows(10, 1))
    assert content["train_images"].shape == (50, 3, 32, 32)
    assert content["classes"] == list("abcdefghij")
    assert content["source"] == f"CIFAR-10, canonical files in {root}"
    archive.unlink()
    prepared("cifar10", root, None, download=False)  # found


def test_cifar100_is_read(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "train": {"data": rows(100, 0), "fine_labels": list(range(100))},
        "test": {"data": rows(100, 1), "fine_labels": list(range(100))},
        "meta": {"fine_label_names": [str(i) for i in range(100)]},
    }
    publish(site, "CIFAR100", files, monkeypatch)
    content = prepared("cifar100", tmp_path / "root", None)
    check_cifar(content, rows(100, 0))
    assert len(content["classes"]) == 100


def test_svhn_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import SVHN

    root = tmp_path / "root"
    root.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
    splits = {}
    for part in ("train", "test"):
        file = root / f"{part}_32x32.mat"
        savemat(file, {"X": images, "y": np.arange(1, 21)[:, None] % 10 + (np.arange(1, 21)[:, None] % 10 == 0) * 10})
        splits[part] = [file.as_uri(), file.name, hashlib.md5(file.read_bytes()).hexdigest()]
    monkeypatch.setattr(SVHN, "split_list", splits)
    content = prepared("svhn", root, None)
    assert content["train_labels"].tolist() == [i % 10 for i in range(1, 21)]  # SVHN writes 0 as 10
    assert torch.equal(content["train_images"][3], torch.from_numpy(images[:, :, :, 3].transpose(2, 0, 1).copy()))


def test_pictures_stand_in_for_the_canonical_files(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_pictures(tmp_path / "jpeg" / part, classes=tuple("abcdefghij"), size=(32, 32))
    content = prepared("cifar10", tmp_path / "jpeg", None)
    assert content["source"] == f"CIFAR-10, pictures in {tmp_path / 'jpeg'}"
    assert content["train_images"].shape == (30, 3, 32, 32)


def test_missing_data_is_one_line_with_the_folder_and_both_ways_out(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = cifar10(site, monkeypatch)
    archive.write_bytes(b"damaged on the way")
    ways = "put cifar-10-batches-py/ (from https://www.cs.toronto.edu/~kriz/cifar.html) there, or name a folder that "
    ways += "has them, or train/CLASS and test/CLASS pictures, with --data-root"
    for spoil in (lambda: None, archive.unlink):  # a wrong checksum; an address that does not answer
        spoil()
        message = error("cifar10", tmp_path / "root", None)
        assert message.startswith(f"CIFAR-10 is not in {tmp_path / 'root'} and cannot be downloaded")
        assert message.endswith(ways)


def test_a_cache_that_cannot_be_made_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUNE_CURE_CACHE", str(tmp_path / "file"))
    assert "TUNE_CURE_CACHE" in error("digits", tmp_path, None)


def test_a_relative_cache_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_CURE_CACHE", "cache")
    assert error("digits", tmp_path, None) == "TUNE_CURE_CACHE: 'cache' is relative; an absolute path is needed"


def test_a_cache_without_room_is_one_line_and_leaves_nothing_behind(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(content: object, path: Path) -> None:
        path.write_bytes(b"the first bytes")
        raise RuntimeError("PytorchStreamWriter failed writing file\nbacktrace")

    monkeypatch.setattr(torch, "save", save)
    message = error("digits", tmp_path, None)
    assert "cannot be written (PytorchStreamWriter failed writing file); free some space" in message
    assert [file.suffix for file in (own_cache / "prepared").iterdir()] == [".lock"]


def test_a_folder_by_another_path_is_not_decoded_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "d")
    (tmp_path / "link").symlink_to(tmp_path / "d")
    prepared("image_folder", tmp_path / "d", None)
    monkeypatch.setattr(image_folder, "_decode", lambda file, side: pytest.fail(f"decodes {file}"))
    prepared("image_folder", tmp_path / "link", None)


def test_folders_of_another_number_of_classes_are_not_taken_for_cifar10(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_pictures(tmp_path / "three" / part, classes=("a", "b", "c"))
    message = error("cifar10", tmp_path / "three", None, download=False)
    assert message.startswith(
        f"CIFAR-10 is not in {tmp_path / 'three'}, or damaged there; on first use it is downloaded "
    )


def test_nothing_is_downloaded_where_that_is_not_allowed(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar10(site, monkeypatch)
    (tmp_path / "root" / "cifar-10-batches-py").mkdir(parents=True)  # as after an interrupted extraction
    assert "or damaged there" in error("cifar10", tmp_path / "root", None, download=False)
    assert not list((tmp_path / "root" / "cifar-10-batches-py").iterdir())


def test_prepared_data_no_longer_needs_the_original_files(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar10(site, monkeypatch)
    prepared("cifar10", tmp_path / "root", None)
    shutil.rmtree(tmp_path / "root")
    assert len(prepared("cifar10", tmp_path / "root", None, download=False)["train_labels"]) == 50


@pytest.mark.parametrize("trouble", [TimeoutError(), http.client.BadStatusLine("?")])
def test_an_error_of_the_network_is_one_line_whatever_it_says(tmp_path: Path, trouble: Exception) -> None:
    def read(root: Path, download: bool) -> dict[str, object]:
        raise trouble

    with pytest.raises(DataError, match=r"cannot be downloaded \((TimeoutError|\?)\); put its files there"):
        datasets._read_or_explain("CIFAR-10", "its files", tmp_path, read, True)
    with pytest.raises(DataError, match=r"or into the one that --data-root names; by hand: its files$"):
        datasets._read_or_explain("CIFAR-10", "its files", tmp_path, read, False)


@pytest.mark.parametrize("damaged", [b"P6 2\xe2 8 255\n", b"P6 99999 99999 255\n"])
def test_a_picture_with_a_damaged_header_is_named(tmp_path: Path, damaged: bytes) -> None:
    write_pictures(tmp_path / "d")
    (tmp_path / "d" / "cat" / "x.ppm").write_bytes(damaged)
    assert error("image_folder", tmp_path / "d", None).endswith("x.ppm: cannot be read as a picture")


def test_digits_are_never_mirrored() -> None:
    assert [name for name, dataset in DATASETS.items() if dataset.augmentation and not dataset.augmentation.flip] == [
        "digits",
        "svhn",
    ]


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    assert "x: cannot be read (" in error("cifar10", tmp_path / ("x" * 300), None)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "loop: " in error("image_folder", tmp_path / "loop", None)
    write_pictures(tmp_path / "gone")
    (tmp_path / "gone" / "cat" / "9.png").symlink_to(tmp_path / "nowhere")
    assert "gone: cannot be read (" in error("image_folder", tmp_path / "gone", None)


def test_a_pipe_among_pictures_is_not_waited_for(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a")
    os.mkfifo(tmp_path / "a" / "cat" / "9.png")
    assert error("image_folder", tmp_path / "a", None).endswith("9.png: cannot be read as a picture")


def test_canonical_files_that_are_not_the_published_ones_are_not_unpickled(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (tmp_path / "pwned").mkdir, ()

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(Attack()))
    assert "or damaged there" in error("cifar10", tmp_path, None, download=False)
    assert not (tmp_path / "pwned").exists()
