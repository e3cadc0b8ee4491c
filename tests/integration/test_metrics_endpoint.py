import time
import urllib.request

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from tune_cure.ray_backend.monitoring.metrics import GAUGES, PREFIX, TrialGauges

pytestmark = pytest.mark.usefixtures("ray_session")
PATIENCE = 120  # seconds; Ray hands on what is set every ten


def scrape(search: str) -> dict[tuple[str, str], float]:
    """What Prometheus would see of a search: (metric, trial) -> value."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples if sample.labels.get("search") == search]
    return {(sample.name, sample.labels["trial"]): sample.value for sample in samples}


def test_a_scrape_shows_every_gauge_of_running_and_ended_trials() -> None:
    gauges = TrialGauges("gauged")
    values = {"clean_accuracy": 0.75, "pgd_accuracy": 0.5, "curvature": 1.25, "epoch": 3, "device_memory_mb": 512.0}
    assert values.keys() == GAUGES.keys()
    gauges.on_event({"event": "trial", "trial": 17})
    gauges.on_event({"event": "epoch", "trial": 17, **values})
    gauges.on_event({"event": "trial", "trial": 18})
    gauges.on_event({"event": "epoch", "trial": 18, **dict.fromkeys(GAUGES), "epoch": 1})  # it diverged
    gauges.on_event({"event": "end", "trial": 18})
    expected = {(f"ray_{PREFIX}{name}", "17"): value for name, value in values.items()}
    expected |= {("ray_tune_cure_epoch", "18"): 1.0}
    expected |= {("ray_tune_cure_running", "17"): 1.0, ("ray_tune_cure_running", "18"): 0.0}
    deadline = time.time() + PATIENCE
    while (found := scrape("gauged")) != expected and time.time() < deadline:
        time.sleep(1)
    assert found == expected
