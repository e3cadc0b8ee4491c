from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.support.pictures import write_pictures
from tune_cure.data.batches import BatchStream, augment, cut_out, num_batches, num_trained, to_float
from tune_cure.data.config import DataSpec
from tune_cure.data.datasets import DATASETS
from tune_cure.data.source import Augmentation, DataError
from tune_cure.data.splits import Examples, Splits, load, split, with_validation


def digits(**options: object) -> DataSpec:
    return DataSpec.model_validate({"dataset": "digits", "validation": 200, **options})


def test_the_splits_are_disjoint_complete_and_stratified() -> None:
    splits = load(digits())
    train, validation = set(splits.train.indices.tolist()), set(splits.validation.indices.tolist())
    assert len(splits.validation) == 200
    assert not train & validation
    assert len(train | validation) == 1438
    counts = torch.bincount(splits.validation.labels[splits.validation.indices])
    shares = torch.bincount(splits.train.labels) * 200 / 1438
    assert (counts - shares).abs().max() < 1


def test_the_split_seed_alone_decides_which_images_are_held_out() -> None:
    held = [load(digits(split_seed=seed)).validation.indices for seed in (0, 0, 1)]
    assert torch.equal(held[0], held[1])
    assert not torch.equal(held[0], held[2])


def test_training_and_validation_share_one_tensor_and_moving_keeps_it_so() -> None:
    splits = load(digits()).to("cpu")
    assert splits.train.images.data_ptr() == splits.validation.images.data_ptr()
    moved = splits.to("meta")
    assert moved.train.images is moved.validation.images
    assert moved.test.images.device.type == "cpu"  # a search never reads it


def test_fewer_training_images_are_a_stratified_part_of_them() -> None:
    splits = load(digits(train_examples=100))
    assert len(splits.train) == 100
    assert set(splits.train.indices.tolist()) < set(load(digits()).train.indices.tolist())
    assert torch.bincount(splits.train.labels[splits.train.indices]).min() >= 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 1430}, "data.validation: 1430 images are to be held out of 1438 training images; between 10"),
        ({"validation": 9}, "between 10 (the number of classes) and 1428 can be"),
        ({"train_examples": 1300}, "data.train_examples: 1300, but only 1238 training images remain"),
    ],
)
def test_a_split_that_cannot_be_made_is_one_line(options: dict[str, int], message: str) -> None:
    with pytest.raises(DataError) as caught:
        load(digits(**options))
    assert message in str(caught.value)


@pytest.mark.parametrize(("pictures", "held_out"), [(6, 2), (50, 10)])
def test_a_tenth_of_a_folders_pictures_is_held_out_by_default_and_one_per_class_at_least(
    pictures: int, held_out: int, tmp_path: Path
) -> None:
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(pictures):
                Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / part / name / f"{index}.png")
    spec = DataSpec(dataset="image_folder", root=str(tmp_path))
    splits = load(spec)
    assert (len(splits.validation), len(splits.train)) == (held_out, 2 * pictures - held_out)
    assert spec.validation is None
    assert with_validation(spec, splits).num_validation == held_out


def test_at_most_5000_images_are_a_share_of_a_data_set() -> None:
    assert DATASETS["image_folder"].num_validation(200_000, 10) == 5000


@pytest.mark.parametrize(("name", "validation"), [("digits", 360), ("cifar10", 5000), ("svhn", 5000)])
def test_a_data_set_brings_the_number_of_validation_images(name: str, validation: int) -> None:
    assert DataSpec(dataset=name).num_validation == validation
    assert DataSpec(dataset=name, validation=77).num_validation == 77


def test_validation_that_a_folder_without_test_pictures_cannot_give_twice_names_the_key(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(5):
            Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / name / f"{index}.png")
    load(DataSpec(dataset="image_folder", root=str(tmp_path), validation=4))
    with pytest.raises(DataError) as caught:
        load(DataSpec(dataset="image_folder", root=str(tmp_path), validation=5))
    assert str(caught.value) == (
        "data.validation: 5 images are to be held out of 10 training images, and as many for a test set, as there is "
        "none; between 2 (the number of classes) and 4 can be"
    )


def test_a_relative_folder_is_that_of_the_process_that_named_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = DataSpec(dataset="digits", root="pictures")
    monkeypatch.chdir("/")  # as Ray does to a trial's process
    assert spec.root == str(tmp_path / "pictures")
    assert DataSpec(dataset="digits", root="~/pictures").root == "~/pictures"  # each machine's own


def test_a_folder_without_test_pictures_gives_up_as_many_as_for_validation(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(10):
            Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / name / f"{index}.png")
    splits = load(DataSpec(dataset="image_folder", root=str(tmp_path), validation=4))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (12, 4, 4)
    rows = torch.cat([part.indices for part in (splits.train, splits.validation, splits.test)])
    assert torch.equal(rows.sort().values, torch.arange(20))
    assert splits.augmentation == Augmentation(padding=1, flip=True)
    other = load(DataSpec(dataset="image_folder", root=str(tmp_path), validation=4, split_seed=1))
    assert torch.equal(splits.test.indices, other.test.indices)  # the test set does not depend on the split


def split_of_classes(sizes: list[int], **options: object) -> Splits:
    """Return the splits of a folder without test pictures and with this many pictures of each class."""
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    content = {"train_images": torch.zeros(len(labels), 3, 8, 8, dtype=torch.uint8), "train_labels": labels}
    content |= {"classes": list("abcdefghijk"[: len(sizes)]), "mean": [0.5] * 3, "std": [0.2] * 3, "source": "pictures"}
    return split(DataSpec.model_validate({"dataset": "image_folder", **options}), content)


@pytest.mark.parametrize("sizes", [[90] + [1] * 10, [20] + [2] * 10, [9, 1, 1]])
def test_each_class_keeps_a_training_image_however_rare_it_is(sizes: list[int]) -> None:
    for seed in range(3):
        splits = split_of_classes(sizes, split_seed=seed, validation=(sum(sizes) - len(sizes)) // 2)
        assert splits.train.own_labels.bincount(minlength=len(sizes)).min() >= 1
        assert len(splits.train) + len(splits.validation) + len(splits.test) == sum(sizes)


def test_classes_without_a_validation_or_a_test_image_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    split_of_classes([95, 5])
    assert caplog.messages == ["pictures: 1 of 2 classes have no test image: b"]
    caplog.clear()
    split_of_classes([90] + [1] * 10)
    missing = "10 of 11 classes have no {} image: b, c, d, e, f, …"
    assert caplog.messages == [f"pictures: {missing.format(part)}" for part in ("validation", "test")]


def test_training_images_without_one_of_some_class_are_one_line() -> None:
    with pytest.raises(DataError) as caught:
        split_of_classes([90, 3, 90], train_examples=20)
    assert str(caught.value) == "data.train_examples: none of 20 is of class 'b'; more are needed"


@pytest.mark.parametrize("flip", [True, False])
def test_mirroring_can_be_turned_on_and_off_and_the_crops_stay(flip: bool, tmp_path: Path) -> None:
    write_pictures(tmp_path, count=10)
    assert load(digits(flip=flip)).augmentation == Augmentation(padding=1, flip=flip)
    spec = DataSpec(dataset="image_folder", root=str(tmp_path), validation=4, flip=flip)
    assert load(spec).augmentation == Augmentation(padding=1, flip=flip)


def test_splits_know_the_shape_of_their_images() -> None:
    splits = load(digits(image_size=12))
    assert (splits.num_classes, splits.in_channels, splits.image_size) == (10, 1, (12, 12))


@pytest.mark.parametrize("augmentation", [Augmentation(2, True), Augmentation(1, False), Augmentation(0, True)])
def test_augmentation_equals_cutting_and_mirroring_image_by_image(augmentation: Augmentation) -> None:
    images = torch.randint(0, 256, (64, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    result = augment(images, augmentation=augmentation, generator=torch.Generator().manual_seed(1))
    again = torch.Generator().manual_seed(1)
    padding = augmentation.padding
    offsets = torch.randint(0, 2 * padding + 1, (2, 64, 1), generator=again)
    mirrored = torch.randint(0, 2, (64, 1), generator=again).bool() if augmentation.flip else torch.zeros(64, 1).bool()
    for index, image in enumerate(images):
        top, left = offsets[0, index].item(), offsets[1, index].item()
        window = F.pad(image, (padding,) * 4)[:, top : top + 6, left : left + 5]
        assert torch.equal(result[index], window.flip(2) if mirrored[index] else window)
    assert mirrored.any() == augmentation.flip


def test_no_augmentation_is_the_identity() -> None:
    images = torch.randint(0, 256, (2, 1, 4, 4), dtype=torch.uint8)
    assert augment(images, augmentation=Augmentation(0, flip=False), generator=torch.Generator()) is images


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (100, 100, [100]),
        (100, 64, [64, 36]),
        (100, 50, [50, 50]),
        (100, 33, [33, 33, 33]),  # one image is left
        (72, 32, [32, 32, 8]),
        (71, 32, [32, 32]),
        (15, 4, [4, 4, 4]),
        (7, 32, [7]),  # no full batch: the images that there are
        (2, 32, [2]),
        (1, 32, []),
    ],
)
def test_an_epoch_shows_every_image_once_but_for_those_of_a_small_last_batch(
    count: int, size: int, expected: list[int]
) -> None:
    images = torch.arange(count, dtype=torch.uint8).view(count, 1, 1, 1)
    examples = Examples(images, torch.arange(count), torch.arange(count))
    seen = list(
        BatchStream(
            examples, size, augmentation=Augmentation(0, flip=False), order=torch.Generator().manual_seed(0),
            generator=torch.Generator(),
        ).epoch()
    )  # fmt: skip
    assert [len(labels) for _, labels, _ in seen] == expected
    assert num_batches(count, size) == len(expected)
    assert num_trained(count, size) == sum(expected)
    labels = torch.cat([labels for _, labels, _ in seen]) if seen else torch.tensor([])
    assert len(labels.unique()) == len(labels)
    for batch, names, positions in seen:
        assert torch.equal(batch.flatten(), names / 255)
        assert torch.equal(positions, names)


def test_pixels_become_floats_between_0_and_1() -> None:
    assert to_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0.0, 0.2, 1.0])


@pytest.mark.parametrize("side", [1, 3, 4, 20])
def test_cutout_fills_a_square_around_a_pixel_of_each_image_with_the_mean(side: int) -> None:
    images = torch.rand(64, 2, 6, 5, generator=torch.Generator().manual_seed(0))
    result = cut_out(images, side, [0.25, 0.75], generator=torch.Generator().manual_seed(1))
    again = torch.Generator().manual_seed(1)
    tops, lefts = ((torch.randint(0, size, (64, 1), generator=again) - side // 2).flatten().tolist() for size in (6, 5))
    for image, cut, top, left in zip(images, result, tops, lefts, strict=True):
        expected = image.clone()
        window = (slice(max(top, 0), top + side), slice(max(left, 0), left + side))
        expected[0][window], expected[1][window] = 0.25, 0.75
        assert torch.equal(cut, expected)
    assert len(set(tops)) > 1


def test_cutout_follows_the_augmentation_and_leaves_the_images_of_the_data_alone() -> None:
    images = torch.full((8, 1, 6, 6), 255, dtype=torch.uint8)
    examples = Examples(images, torch.arange(8), torch.arange(8))
    ((cut, _, _),) = BatchStream(
        examples, 8, augmentation=Augmentation(0, flip=False), order=torch.Generator().manual_seed(0),
        generator=torch.Generator().manual_seed(0), cutout=2, mean=[0.5],
    ).epoch()  # fmt: skip
    assert (images == 255).all()
    assert {1.0, 0.5} == set(cut.unique().tolist())
    assert (cut == 0.5).flatten(1).sum(dim=1).max() == 4
