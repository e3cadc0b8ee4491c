from pathlib import Path

import plotly.graph_objects as go
import pytest

from tune_cure.reports.figures import files, static
from tune_cure.reports.figures.catalog import Plot
from tune_cure.reports.figures.style import blank_figure


def plot(name: str, height: float) -> Plot:
    figure = blank_figure("x", "y")
    figure.add_trace(go.Scatter(name="a", mode="lines", x=[0, 1], y=[0, height], line={"color": "#000000", "width": 1}))
    return Plot(name, "curves", figure, "")


def test_only_a_figure_that_would_look_different_is_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[go.Figure] = []
    draw_files = static.draw_files

    def draw(source: go.Figure, size: tuple[float, float], kinds: tuple[str, ...]) -> dict[str, bytes]:
        drawn.append(source)
        return draw_files(source, size, kinds)

    monkeypatch.setattr(static, "draw_files", draw)
    folder = files.write_figures(tmp_path, [plot("one", 1.0), plot("two", 2.0)])
    assert len(drawn) == 2
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    files.write_figures(tmp_path, [plot("one", 1.0), plot("two", 2.0)])
    assert len(drawn) == 2
    (folder / "one.png").write_bytes(before["one.png"][:100])  # a disk that was full
    files.write_figures(tmp_path, [plot("one", 1.0), plot("two", 2.0)])
    assert len(drawn) == 3
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    files.write_figures(tmp_path, [plot("one", 1.0), plot("two", 2.5)])
    assert len(drawn) == 4
    assert (folder / "two.svg").read_bytes() != before["two.svg"]
    files.write_figures(tmp_path, [plot("one", 1.0)])
    assert {path.name for path in folder.iterdir()} == {"one.svg", "one.png"}
