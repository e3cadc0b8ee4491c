"""Commands without the packages that they can do without: they go on, and say in a line what is left out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.journals import write_search
from tests.support.spaces import QUICK_RUN, TINY
from tune_cure.data import splits
from tune_cure.data.config import DataSpec
from tune_cure.training.run import LOG

PAGES = ("plotly", "matplotlib", "sklearn", "tensorboardX")
DASHBOARD = ("aiohttp_cors", "colorful", "opencensus", "opentelemetry")
HIDE = """
import sys
sys.modules.update(dict.fromkeys({names}))
"""


@pytest.fixture(autouse=True)
def digits() -> None:
    """The images of digits in the cache, for which scikit-learn is needed."""
    splits.load(DataSpec(dataset="digits", validation=100))


def run(folder: Path, hidden: tuple[str, ...], *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process that cannot import the `hidden` packages, nor can those that it starts."""
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(HIDE.format(names=hidden))
    environment = {**os.environ, "PYTHONPATH": f"{folder / 'site'}{os.pathsep}{os.getcwd()}"}
    command = [sys.executable, "-m", "tune_cure", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.ray
def test_a_search_without_packages_for_pages_and_dashboard_ends_with_its_tables(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY.replace("trials: 8", "trials: 1").replace("epochs: 4", "epochs: 2"))
    out = tmp_path / "out"
    words = ("search", str(tmp_path / "tiny.yaml"), "--output", str(out))
    process = run(tmp_path, PAGES + DASHBOARD, *words)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[0].startswith("without plotly: no pages with plots")
    assert process.stdout.splitlines()[0].endswith("(pip install plotly matplotlib scikit-learn tensorboardX)")
    (line,) = process.stderr.splitlines()
    assert line.startswith("without Ray's dashboard: ") and line.endswith("(pip install 'ray[default]')")
    assert "Ray dashboard" not in process.stdout
    assert {"trials.csv", "epochs.csv", "best_config.csv", "best_model.pt"} <= {path.name for path in out.iterdir()}
    assert not (out / "report.html").exists() and "report.html" not in process.stdout.split("wrote in")[1]


def test_training_without_packages_for_pages_ends_with_its_table(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = run(tmp_path, PAGES, "train", *QUICK_RUN, "--epochs", "1", "--output", str(out))
    assert process.returncode == 0, process.stderr
    assert "without plotly: no pages with plots" in process.stdout
    assert (out / LOG).exists() and not (out / "curves.html").exists()


def test_what_only_makes_a_page_is_an_error_of_one_line_without_plotly(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_search(tmp_path / name)
    folders = (str(tmp_path / "a"), str(tmp_path / "b"))
    for words, purpose in (
        (("report", folders[0]), "the report"),
        (("compare", *folders, "--html", str(tmp_path / "page.html")), "--html"),
    ):
        process = run(tmp_path, PAGES, *words)
        assert (process.returncode, process.stdout) == (2, "")
        assert process.stderr == (
            f"tune-cure: {purpose} needs the package plotly, which is not installed: pip install plotly\n"
        )
    assert run(tmp_path, PAGES, "compare", *folders).returncode == 0


def test_an_export_without_safetensors_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write_search(tmp_path / "a")
    process = run(tmp_path, ("safetensors",), "export", str(tmp_path / "a"), "--to", str(tmp_path / "b"))
    assert process.returncode == 2
    assert process.stderr.endswith("which is not installed: pip install safetensors\n")
