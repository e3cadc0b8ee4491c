"""Exported ONNX files, run by the real onnxruntime; skipped without the extra."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.exported_models import NETWORK, random_network, write_best_model, write_search_with_model
from tune_cure.cli.main import main
from tune_cure.reports.export import bundle, onnx_file
from tune_cure.reports.export.measurements import ExportError
from tune_cure.search.results import SearchResult

for name in ("onnx", "onnxscript"):
    pytest.importorskip(name)
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter


@pytest.fixture
def result(tmp_path: Path) -> SearchResult:
    return write_search_with_model(tmp_path)


def test_an_export_with_onnx_gives_the_logits_of_the_network(result: SearchResult, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["export", str(result.directory), "--to", str(out), "--onnx"]) == 0
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    images = torch.rand(7, 1, 8, 8)
    (logits,) = session.run(None, {"images": images.numpy()})
    expected = random_network()(images).detach().numpy()
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert "`model.onnx` is the same network" in (out / "README.md").read_text()


def test_a_file_with_other_logits_is_refused(result: SearchResult, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = bundle.collect_search_model(result)
    monkeypatch.setattr(onnx_file.torch, "allclose", lambda *_, **__: False)
    with pytest.raises(ExportError, match="--onnx: the file gives other logits than the network, for 1 random images"):
        onnx_file.build_onnx(exported)


def test_a_network_that_onnx_cannot_express_is_refused_in_one_line(
    result: SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Undecided(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images if images.sum() > 3 else -images

    exported = bundle.collect_search_model(result)
    monkeypatch.setattr(onnx_file.checkpoints, "rebuild", lambda *_, **__: Undecided())
    with pytest.raises(ExportError, match="--onnx: small_cnn cannot be written as ONNX: ") as refused:
        onnx_file.build_onnx(exported)
    assert "\n" not in str(refused.value)


def test_a_residual_network_of_three_channels_is_written(result: SearchResult) -> None:
    sizes = {"name": "preact_resnet18", "in_channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3}
    write_best_model(result, model={**NETWORK, **sizes}, weights=random_network(**sizes).state_dict())
    exported = dataclasses.replace(bundle.collect_search_model(SearchResult(result.directory)), image_size=(16, 16))
    assert onnx_file.build_onnx(exported)
