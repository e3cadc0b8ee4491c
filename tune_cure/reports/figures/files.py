"""Files of the report's figures for papers, as SVG and PNG. Those that would look the same are not drawn again."""

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from tune_cure.reports.figures.catalog import Plot
from tune_cure.reports.made_files import MadeFiles, digest
from tune_cure.search import run_files
from tune_cure.utils.files import replace_bytes

KINDS = ("svg", "png")


def write_figures(directory: Path, plots: Iterable[Plot]) -> Path:
    """Write figures/NAME.svg and figures/NAME.png for each plot, and delete those of an earlier report's other plots.

    Args:
        directory: The search's folder.
        plots: `catalog.build_plots` of the search.

    Returns:
        The folder `figures`.
    """
    folder = directory / run_files.FIGURES
    folder.mkdir(exist_ok=True)
    made = MadeFiles(directory / run_files.MADE)
    drawn_by = digest(Path(__file__).with_name("static.py"), version("matplotlib"))
    current: set[Path] = set()
    for plot in plots:
        files = {kind: folder / f"{plot.name}.{kind}" for kind in KINDS}
        current.update(files.values())
        source = digest(drawn_by, plot.small, plot.figure.to_json())
        if all(made.is_current(file, source) for file in files.values()):
            continue
        from tune_cure.reports.figures import static  # matplotlib takes a second

        for kind, content in static.draw_files(plot.figure, static.SMALL if plot.small else static.WIDE, KINDS).items():
            replace_bytes(files[kind], content)
            made.add(files[kind], source)
    made.remove_others(folder, current)
    made.write()
    return folder
