"""Completion of command lines: scripts that real shells load, and whose Tab starts no Python."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tune_cure.cli.main import COMMANDS, SHELLS

pytest.importorskip("shtab")

ASK = """
source {script}
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _shtab_tune_cure; printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The script of each shell, of processes that import none of the slow libraries."""
    folder, scripts = tmp_path_factory.mktemp("completion"), {}
    code = (
        "import sys; from tune_cure.cli.main import main\n"
        "try: main(['--print-completion', sys.argv[1]])\n"
        "except SystemExit as error: assert not error.code\n"
        "assert not {'torch', 'ray', 'optuna', 'plotly', 'matplotlib'} & sys.modules.keys(), sys.modules.keys()"
    )
    for shell in SHELLS:
        command = [sys.executable, "-c", code, shell]
        process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert process.returncode == 0, process.stderr
        scripts[shell] = folder / f"tune-cure.{shell}"
        scripts[shell].write_text(process.stdout)
    return scripts


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_can_read_its_script(shell: str, scripts: dict[str, Path]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    process = subprocess.run([shell, "-n", str(scripts[shell])], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("tune-cure ''", set(COMMANDS)),
        ("tune-cure search qu", {"quickstart"}),
        ("tune-cure search spaces/m", {"spaces/mine.yaml"}),
        ("tune-cure search --dr", {"--dry-run"}),
        ("tune-cure train --attack z", {"zerograd"}),
        ("tune-cure train --method elle", {"elle", "elle_a"}),
        ("tune-cure report res", {"results"}),
    ],
)
def test_bash_completes_commands_flags_names_and_files(
    words: str, completed: set[str], scripts: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces" / "mine.yaml").touch()
    (tmp_path / "spaces" / "mine.txt").touch()
    ask = ASK.format(script=scripts["bash"], words=words)
    found = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True, cwd=tmp_path).stdout.split()
    assert set(found) >= completed
    assert all(name.startswith(words.split()[-1].strip("'")) for name in found)
    assert len(found) == len(completed) or words == "tune-cure ''"
