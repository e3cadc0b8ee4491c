from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from tune_cure.cli.main import main
from tune_cure.data import splits as data
from tune_cure.search.space import bundled_spaces, loading as specs
from tune_cure.search.space.config import SearchSpec
from tune_cure.training.trainer import Trainer

BUNDLED = sorted(path.stem for path in Path("search_spaces").glob("*.yaml"))


def stand_in(spec: SearchSpec) -> dict[str, Any]:
    """Noise in the shape of a space's data set, as many images as its split needs."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, 8, 8) if spec.data.dataset == "digits" else (3, 32, 32)
    classes = 100 if spec.data.dataset == "cifar100" else 10
    content: dict[str, Any] = {"classes": [str(label) for label in range(classes)]}
    for part, count in {"train": spec.data.validation + 500, "test": 100}.items():
        content[f"{part}_images"] = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
        content[f"{part}_labels"] = torch.arange(count) % classes
    return content | {"mean": [0.5] * shape[0], "std": [0.25] * shape[0], "source": "noise"}


def draw(spec: SearchSpec, random: Random) -> dict[str, Any]:
    """A configuration of a space, an end or a choice of each hyperparameter."""
    return spec.propose(lambda key: random.choice(spec.space[key].values))


@pytest.mark.parametrize("name", BUNDLED)
def test_search_check_accepts_every_bundled_space(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_root = []
    if name == "image_folder":  # the one that can neither be there nor be downloaded
        data_root = ["--data-root", str(tmp_path), "--set", "model=small_cnn"]  # quick to measure
        for number in range(1010):
            picture = tmp_path / ("train" if number < 1006 else "test") / str(number % 2) / f"{number}.ppm"
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_bytes(b"P6 8 8 255 " + bytes(3 * 8 * 8))
    assert main(["search", "--space", name, "--check", *data_root]) == 0
    out, err = capsys.readouterr()
    assert "trials by" in out
    assert "makes no difference" not in err  # no value of a start is idle


@pytest.mark.parametrize("name", BUNDLED)
def test_trials_of_every_bundled_space_train(name: str) -> None:
    spec = specs.load(bundled_spaces.find(name), ["data.train_examples=260", "model.width=4", "evaluation.examples=20"])
    splits = data.split(spec.data, stand_in(spec))
    random = Random(0)
    for values in [*spec.start_from, draw(spec, random), draw(spec, random)]:
        trainer = Trainer(spec.training_config(values), splits, model=spec.model, evaluation=spec.evaluation)
        metrics = trainer.train_epoch() | trainer.evaluate()
        assert metrics["epoch"] == 1
        assert not metrics.get("diverged"), values
