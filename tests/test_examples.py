import json
import re
from pathlib import Path

import yaml

from tune_cure.gauges import GAUGES, PREFIX

GRAFANA = Path("examples/grafana")


def test_the_grafana_dashboard_draws_every_gauge_and_no_other() -> None:
    dashboard = json.loads((GRAFANA / "tune_cure.json").read_text())
    drawn = {name for panel in dashboard["panels"] for target in panel["targets"]
             for name in re.findall(r"ray_\w+", target["expr"])}  # fmt: skip
    assert drawn == {f"ray_{PREFIX}{name}" for name in (*GAUGES, "running")}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_grafana_dashboard_asks_which_prometheus_and_not_for_one_of_ours() -> None:
    dashboard = json.loads((GRAFANA / "tune_cure.json").read_text())
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    assert all(panel["datasource"]["uid"] == "${source}" for panel in dashboard["panels"])


def test_prometheus_is_told_of_rays_ports_by_rays_own_file() -> None:
    (job,) = yaml.safe_load((GRAFANA / "prometheus.yml").read_text())["scrape_configs"]
    assert job["file_sd_configs"] == [{"files": ["/tmp/ray/prom_metrics_service_discovery.json"]}]
