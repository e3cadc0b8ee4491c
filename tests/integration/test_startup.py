import subprocess
import sys
from pathlib import Path

BASE = sorted(Path("search_spaces").glob("*.yaml"))[0].read_text(encoding="utf-8")


def test_an_error_in_a_space_is_printed_before_ray_is_imported(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(BASE.replace("lambda", "lamda"))
    code = (
        "import sys\nfrom tune_cure.cli.main import main\ncode = main(sys.argv[1:])\nprint('ray' in sys.modules, code)"
    )
    command = [sys.executable, "-c", code, "search", "--space", str(tmp_path / "space.yaml")]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert process.stdout == "False 2\n"
