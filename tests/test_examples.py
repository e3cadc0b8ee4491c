import subprocess
from pathlib import Path

import pytest
import yaml

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = [EXAMPLES / "ray_job/submit.sh", EXAMPLES / "slurm/search.sbatch"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_valid_and_says_what_is_missing(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    told = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    assert told.returncode != 0
    assert "SPACE.yaml is missing" in told.stderr


def test_the_cluster_of_the_launcher_has_a_head_and_workers() -> None:
    content = yaml.safe_load((EXAMPLES / "cluster.yaml").read_text())
    assert content["head_node_type"] in content["available_node_types"]
    assert content["available_node_types"]["worker"]["max_workers"] <= content["max_workers"]


def test_the_slurm_script_stops_before_its_time_is_up() -> None:
    assert "#SBATCH --signal=B:TERM@120" in SCRIPTS[1].read_text().splitlines()
