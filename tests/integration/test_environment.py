import shutil
import subprocess
import sys
from pathlib import Path

import tune_cure

GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
SAY = "from tune_cure.utils import environment; print(environment.describe('')['git_commit'])"


def commit_said_from(folder: Path) -> str:
    """What a copy of the package in `folder` takes for its commit."""
    done = subprocess.run([sys.executable, "-c", SAY], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_recorded_commit_is_that_of_the_packages_checkout_and_not_of_the_current_folder(tmp_path: Path) -> None:
    package = Path(tune_cure.__file__).parent
    shutil.copytree(package, tmp_path / "tune_cure", ignore=shutil.ignore_patterns("__pycache__"))
    assert commit_said_from(tmp_path) == "None"
    subprocess.run([*GIT, "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text("tune_cure\n__pycache__\n")
    subprocess.run([*GIT, "add", ".gitignore"], cwd=tmp_path, check=True)
    subprocess.run([*GIT, "commit", "-qm", "another project"], cwd=tmp_path, check=True)
    assert commit_said_from(tmp_path) == "None"
    subprocess.run([*GIT, "add", "--force", "tune_cure"], cwd=tmp_path, check=True)
    subprocess.run([*GIT, "commit", "-qm", "this one"], cwd=tmp_path, check=True)
    head = subprocess.run([*GIT, "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert commit_said_from(tmp_path) == head.stdout.strip()
