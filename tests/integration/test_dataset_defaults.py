"""`tune-cure train --dataset NAME` with nothing else said about data, network, radius and evaluation."""

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from torchvision.utils import save_image

from tune_cure.cli import main as cli


def write_pictures(folder: Path, num_classes: int, per_class: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for part in ("train", "test"):
        for label in range(num_classes):
            pictures = folder / part / f"{label:03}"
            pictures.mkdir(parents=True)
            for index in range(per_class):
                save_image(torch.rand(3, 8, 8, generator=generator), pictures / f"{index}.png")


def train(*arguments: str, output: Path) -> dict[str, dict[str, object]]:
    assert cli.main(["train", "--epochs", "1", "--output", str(output), *arguments]) == 0
    assert len(pd.read_csv(output / "epochs.csv")) == 1
    return yaml.safe_load((output / "config.yaml").read_text())


def test_training_on_digits_needs_no_other_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = train("--dataset", "digits", output=tmp_path / "run")
    assert config["data"]["validation"] == 360
    assert config["model"]["name"] == "small_cnn"
    assert config["training"]["epsilon"] == config["evaluation"]["epsilon"] == 0.15
    assert "defaults of digits: model.name small_cnn  data.validation 360" in " ".join(
        capsys.readouterr().out.split("\n")
    )


def test_a_small_image_folder_can_be_trained_on_and_config_yaml_says_how_many_images_are_held_out(
    tmp_path: Path,
) -> None:
    write_pictures(tmp_path / "pictures", num_classes=2, per_class=12)
    folder = ["--dataset", "image_folder", "--data-root", str(tmp_path / "pictures")]
    config = train(*folder, "--model", "small_cnn", output=tmp_path / "run")
    assert config["data"]["validation"] == 2
    assert cli.main(["train", "--output", str(tmp_path / "run"), "--resume"]) == 0


@pytest.mark.parametrize(("dataset", "num_classes"), [("svhn", 10), ("cifar100", 100)])
def test_a_folder_that_is_smaller_than_its_data_set_needs_data_validation(
    dataset: str, num_classes: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path / "pictures", num_classes, per_class=3)
    folder = ["--dataset", dataset, "--data-root", str(tmp_path / "pictures"), "--model", "small_cnn"]
    assert cli.main(["train", *folder, "--output", str(tmp_path / "none")]) == 2
    assert "data.validation: 5000 images are to be held out of" in capsys.readouterr().err
    config = train(*folder, "--set", f"data.validation={num_classes}", output=tmp_path / "run")
    assert config["training"]["epsilon"] == config["evaluation"]["epsilon"] == 8 / 255
    assert config["evaluation"]["examples"] == 1000
