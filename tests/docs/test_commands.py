"""Commands of README, CONTRIBUTING and docs/ that end within seconds are run; the others are only parsed.

They run on a finished search whose numbers are made up, in the folders that they name. A search is run with `--check`,
training for one epoch: what they would do is checked, not what they would find.
"""

import itertools
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.documents import SHELL, blocks, checked_blocks, sessions
from tests.support.exported_models import write_best_model
from tests.support.journals import write_search
from tune_cure.cli import main as cli
from tune_cure.reports import tables
from tune_cure.search.results import SearchResult
from tune_cure.search.space import bundled_spaces
from tune_cure.search.space.loading import load

ONLY_PARSED = {  # of what begins so: why it is not run here
    "tune-cure confirm": "trains for minutes; tests/integration/test_confirm_command.py runs it",
    "tune-cure league --resume": "needs a league; tests/integration/test_league.py resumes one",
    "tune-cure league cifar10_cpu": "needs CIFAR-10",
    "tune-cure train --delta": "needs CIFAR-10",
    "tune-cure train --dataset image_folder": "needs pictures",
    "tune-cure evaluate ours": "needs another project's weights; see tests/unit/cli/test_evaluate.py",
    "tune-cure export results/NAME --to FOLDER --confirmed": "see tests/unit/cli/test_export.py",
    "tune-cure export results/NAME --to FOLDER --onnx": "needs an extra; see tests/integration/test_export_onnx.py",
    "tune-cure export results/NAME --to FOLDER --push-to-hub": "sends; see tests/unit/cli/test_export.py",
    "python benchmarks": "takes minutes to hours",
    "tune-cure search --space own_parts.yaml": "needs the folder of its parts; tests/docs/test_own_parts.py runs it",
    "examples": "needs a cluster",
    "make": "sets up an environment; .ci/run runs most of them",
    ".venv/bin": "is not of this project",
    "ray": "is not of this project",
    "git": "is not of this project",
    "export": "is the shell's",
    "sbatch": "needs Slurm",
    "pip": "installs",
    "optuna-dashboard": "is not of this project",
    "mlflow": "is not of this project",
    "tune-cure search quickstart --track": "needs extras; see tests/integration/test_mlflow.py and test_trackers.py",
    "wandb": "is not of this project",
    "trackio": "is not of this project",
    "tensorboard": "is not of this project",
}
SHORT = ["--epochs", "1", "--set", "evaluation.steps=1", "--set", "evaluation.examples=20"]

(RUN_YAML,) = (block.text for block in blocks(Path("docs/training.md")) if block.language == "yaml")

COMMANDS = {
    shlex.join(words): words for block in SHELL if not block.text.startswith("$ ") for words, _ in sessions(block)
}


def why_only_parsed(command: str) -> str:
    if command.startswith("tune-cure confirm") and "--check" in command:
        return ""
    return next((why for beginning, why in ONLY_PARSED.items() if re.match(rf"{re.escape(beginning)}\b", command)), "")


RUN = [command for command in COMMANDS if not why_only_parsed(command)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished search."""
    folder = tmp_path_factory.mktemp("finished")
    write_search(folder)
    tables.write_tables(SearchResult(folder))
    write_best_model(SearchResult(folder))
    return folder


def write_shapes(folder: Path) -> None:
    """Write the search space of docs/first_search.md with pictures of one's own, and some such pictures."""
    (block,) = (block for block in checked_blocks("yaml") if block.text.startswith("name: shapes\n"))
    (folder / "shapes.yaml").write_text(block.text)
    pixels = np.random.default_rng(0).integers(0, 256, (110, 16, 20, 3), dtype=np.uint8)
    for part, name in itertools.product(("train", "test"), ("circle", "square", "triangle")):
        pictures = folder / "pictures" / part / name
        pictures.mkdir(parents=True)
        for number, picture in enumerate(pixels):
            Image.fromarray(picture).save(pictures / f"{number}.png")


@pytest.mark.parametrize("command", RUN)
def test_a_documented_command_that_ends_within_seconds_succeeds(
    command: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = COMMANDS[command]
    repository = Path.cwd()
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"results/(\w+)", command) or ["A", "B"]:
        shutil.copytree(finished, tmp_path / "results" / name)
    for name in ("FILE", "my_space.yaml"):
        if f"--resolved {name}" not in command:  # it is written there
            shutil.copy(bundled_spaces.find("quickstart"), name)
    if "shapes.yaml" in command:
        write_shapes(tmp_path)
    if "run.yaml" in command:
        Path("run.yaml").write_text(RUN_YAML)
    (tmp_path / "search_spaces").symlink_to(repository / "search_spaces")
    if words[:2] == ["python", "run_search.py"]:
        words = ["tune-cure", "search", *words[2:]]
    words = [str(file) for word in words for file in (sorted(Path().glob(word)) if "*" in word else [word])]
    begin = [] if "--resume" in words else ["--output", "new"]  # results/NAME is there for the commands that read it
    also = {"search": ["--check", *begin], "league": ["--check", *begin], "train": SHORT}.get(words[1], [])
    assert cli.main([*words[1:], *also]) == 0


@pytest.mark.parametrize("space", sorted(bundled_spaces.bundled()))
def test_every_bundled_space_can_be_made_small_as_its_page_says(space: str) -> None:
    (words,) = (
        words for command, words in COMMANDS.items() if "--space cure_full" in command and "width: 8" in command
    )
    settings = [value for flag, value in itertools.pairwise(words) if flag == "--set"]
    assert load(bundled_spaces.find(space), settings).max_epochs == 4


def test_most_documented_commands_are_run_and_each_exception_exists() -> None:
    ours = [command for command in COMMANDS if command.startswith(("tune-cure", "python run_search.py"))]
    assert len(RUN) > len(ours) / 2
    assert set(RUN) <= set(ours)
    for beginning in ONLY_PARSED:
        assert any(re.match(rf"{re.escape(beginning)}\b", command) for command in COMMANDS), (
            f"no command is {beginning}"
        )
