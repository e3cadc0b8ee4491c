import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

BUNDLED = sorted(path.stem for path in Path("search_spaces").glob("*.yaml"))


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
    assert {
        "tune_cure/py.typed",
        "tune_cure/search_spaces/schema.json",
        *(f"tune_cure/search_spaces/{name}.yaml" for name in BUNDLED),
    } <= set(names)
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
