import os
import subprocess
import sys
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from tune_cure.cli import main as cli
from tune_cure.cli.main import main
from tune_cure.data import splits as data
from tune_cure.search.space import bundled_spaces, loading as specs
from tune_cure.search.space.config import SearchSpec
from tune_cure.training.trainer import Trainer
from tune_cure.utils.yaml_config import SpecError

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
def test_every_space_passes_its_check(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


@pytest.mark.parametrize("name", ["quickstart", "cifar10_cpu", "cure", "cifar100", "svhn", "image_folder"])
def test_a_space_of_cure_alone_searches_its_four_hyperparameters(name: str) -> None:
    assert set(specs.load(bundled_spaces.find(name)).space) == {"lambda", "h", "lr_max", "epsilon"}


@pytest.mark.parametrize("name", BUNDLED)
def test_trials_of_every_space_train(name: str) -> None:
    spec = specs.load(bundled_spaces.find(name), ["data.train_examples=260", "model.width=4", "evaluation.examples=20"])
    splits = data.split(spec.data, stand_in(spec))
    random = Random(0)
    for values in [*spec.start_from, draw(spec, random), draw(spec, random)]:
        trainer = Trainer(spec.training_config(values), splits, model=spec.model, evaluation=spec.evaluation)
        metrics = trainer.train_epoch() | trainer.evaluate()
        assert metrics["epoch"] == 1
        assert not metrics.get("diverged"), values


def test_the_spaces_of_methods_that_are_to_be_compared_differ_in_the_method_alone() -> None:
    cure, *others = (
        specs.load(bundled_spaces.find(name)) for name in ("cure", "fgsm_baseline", "gradalign", "cure_full")
    )
    for other in others:
        assert (other.data, other.model, other.evaluation) == (cure.data, cure.model, cure.evaluation)
        assert other.max_epochs == cure.max_epochs


@pytest.mark.parametrize("name", BUNDLED)
def test_commands_in_a_spaces_comments_could_be_typed(name: str) -> None:
    for line in bundled_spaces.find(name).read_text(encoding="utf-8").splitlines():
        words = line.removeprefix("#").split()
        if words[:1] == ["tune-cure"]:
            parsed = cli.build_parser().parse_args(words[1:])
            if words[1] == "search":
                specs.load(bundled_spaces.find(parsed.space), parsed.settings)


def test_a_bundled_space_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path("search_spaces").resolve()
    monkeypatch.chdir(tmp_path)
    assert list(bundled_spaces.bundled()) == BUNDLED
    assert bundled_spaces.find("cure") == bundled_spaces.find("cure.yaml") == here / "cure.yaml"


def test_a_file_comes_before_a_bundled_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cure.yaml").touch()
    assert bundled_spaces.find("cure.yaml") == Path("cure.yaml")
    assert bundled_spaces.find("cure") != Path("cure")


@pytest.mark.parametrize("name", ["cur", "cur.yaml", "folder/cure.yml", "search_spaces/cur.yaml"])
def test_an_unknown_space_is_answered_with_the_bundled_ones_and_the_nearest(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["search", "--space", name, "--check"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"tune-cure: {name}: there is no such file, nor a bundled space of this name; "
        f"bundled are {', '.join(BUNDLED)}; did you mean 'cure'?\n"
    )


def test_a_name_like_no_other_has_no_nearest() -> None:
    with pytest.raises(SpecError, match=f"bundled are {', '.join(BUNDLED)}$"):
        bundled_spaces.find("xyz")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist as pip builds it; no network."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    subprocess.run([*build, "--target", "sdist"], check=True, capture_output=True)
    (archive,) = folder.glob("*.tar.gz")
    subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)
    source = folder / archive.name.removesuffix(".tar.gz")
    subprocess.run([*build, "--target", "wheel"], check=True, capture_output=True, cwd=source)
    (built,) = folder.glob("*.whl")
    return built


def test_a_search_runs_from_the_wheel_by_a_spaces_name(wheel: Path, tmp_path: Path) -> None:
    unpacked, elsewhere = tmp_path / "site-packages", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(unpacked)
    assert {"tune_cure/py.typed", *(f"tune_cure/search_spaces/{name}.yaml" for name in BUNDLED)} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "search_spaces/"))]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tune_cure", *arguments],
            cwd=elsewhere,
            env=os.environ | {"PYTHONPATH": str(unpacked)},
            capture_output=True,
            text=True,
            check=False,
        )

    found = run("search", "--space", "quickstart", "--check")
    assert found.returncode == 0, found.stderr
    assert "quickstart: 24 trials by tpe" in found.stdout
    sent_on = run("train", "--config", str(unpacked / "tune_cure/search_spaces/cure.yaml"))
    assert "to search it: tune-cure search --space" in sent_on.stderr
