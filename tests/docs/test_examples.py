import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tune_cure.ray_backend.monitoring.metrics import GAUGES, PREFIX

EXAMPLES = Path("examples")
GRAFANA = EXAMPLES / "grafana"
SCRIPTS = [EXAMPLES / "ray_job/submit.sh", EXAMPLES / "slurm/search.sbatch"]


def test_the_grafana_dashboard_draws_every_gauge_and_no_other() -> None:
    dashboard = json.loads((GRAFANA / "tune_cure.json").read_text())
    drawn = {name for panel in dashboard["panels"] for target in panel["targets"]
             for name in re.findall(r"ray_\w+", target["expr"])}  # fmt: skip
    assert drawn == {f"ray_{PREFIX}{name}" for name in (*GAUGES, "running")}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_grafana_dashboard_lets_its_user_choose_a_prometheus() -> None:
    dashboard = json.loads((GRAFANA / "tune_cure.json").read_text())
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    assert all(panel["datasource"]["uid"] == "${source}" for panel in dashboard["panels"])


def test_prometheus_reads_the_ports_from_the_file_that_ray_writes() -> None:
    (job,) = yaml.safe_load((GRAFANA / "prometheus.yml").read_text())["scrape_configs"]
    assert job["file_sd_configs"] == [{"files": ["/tmp/ray/prom_metrics_service_discovery.json"]}]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_batch_script_is_valid_bash_and_names_a_missing_argument(script: Path) -> None:
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
