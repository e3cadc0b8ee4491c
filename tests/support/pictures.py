"""Folders of pictures, for tests of the data set `image_folder`."""

from pathlib import Path

from PIL import Image


def write_pictures(
    folder: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 3, size: tuple[int, int] = (8, 8)
) -> dict[Path, tuple[int, int, int]]:
    """Write `count` pictures of each class, each of a single color, and return the color by file."""
    colors = {}
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            color = (10 * label, 20 * index, 200)
            Image.new("RGB", size, color).save(folder / name / f"{index}.png")
            colors[folder / name / f"{index}.png"] = color
    return colors
