import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tune_cure.data import datasets, splits as data
from tune_cure.models import registry
from tune_cure.ray_backend.monitoring.metrics import GAUGES, PREFIX
from tune_cure.regularizers import cure, penalties
from tune_cure.search.proposals import samplers
from tune_cure.search.results import SearchResult
from tune_cure.search.space.loading import load
from tune_cure.training.trainer import Trainer
from tune_cure.utils.yaml_config import SpecError

EXAMPLES = Path("examples")
GRAFANA = EXAMPLES / "grafana"
SCRIPTS = [EXAMPLES / "ray_job/submit.sh", EXAMPLES / "slurm/search.sbatch"]


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


@pytest.fixture
def own_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """examples/own_parts/whole_search.py, and dictionaries that are as they were when the test is over."""
    monkeypatch.setenv("TUNE_CURE_CACHE", str(tmp_path / "cache"))
    source = importlib.util.spec_from_file_location("own_parts", EXAMPLES / "own_parts/whole_search.py")
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    registries: list[dict[str, object]] = [
        datasets.DATASETS, registry.MODELS, cure.DIRECTIONS, penalties.OTHER_PENALTIES, samplers.SAMPLERS,
    ]  # fmt: skip
    before = [dict(parts) for parts in registries]
    yield module
    for parts, content in zip(registries, before, strict=True):
        parts.clear()
        parts.update(content)


def test_parts_of_ones_own_can_be_named_and_trained_once_they_are_registered(
    own_parts: ModuleType, tmp_path: Path
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(own_parts.SPACE)
    with pytest.raises(SpecError, match="'stripes' is not one of"):
        load(space)
    own_parts.register()
    spec = load(space)
    assert type(samplers.make_sampler(spec.search.sampler, 3, 0)).__name__ == "RandomSampler"
    splits = data.load(spec.data)
    for delta in spec.space["delta"].values:
        config = spec.training_config({"delta": delta, "lambda": 0.01})
        trainer = Trainer(config, splits, model=spec.model, evaluation=spec.evaluation)
        assert trainer.train_epoch()["curvature"] > 0
        assert trainer.evaluate()["clean_accuracy"] > 0.5


@pytest.mark.ray
def test_the_example_of_ones_own_parts_searches_with_them(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    subprocess.run([sys.executable, EXAMPLES / "own_parts/whole_search.py", folder], check=True, timeout=300)
    # The parts are known in that process alone: here only the tables can be read.
    with pytest.raises(SpecError, match="'stripes' is not one of"):
        SearchResult(folder)
    rows = (folder / "journal.jsonl").read_text()
    assert rows.count('"status": "completed"') == 4
