"""Takes the pictures of README and docs anew: `make pictures`. A quarter of an hour on two cores; needs chromium.

The search and the confirmation of the README's tour run in results/pictures. If they are there already, their pages
alone are written anew, so that a change of a page is pictured within a minute. The terminal's picture is the live view
at the moment when half of the trials have ended, as the journal has it.
"""

import argparse
import io
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

from PIL import Image
from rich.console import Console

from tune_cure.cli.views.live_view import LiveView
from tune_cure.search import results
from tune_cure.search.journal import Journal
from tune_cure.search.progress import SearchState

ROOT = Path(__file__).parent.parent
RUN = Path("results", "quickstart")  # relative, because the pages name it
SEARCH = ["search", "--space", "quickstart"]
CONFIRM = ["confirm", str(RUN), "--top", "1", "--seeds", "2"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PAGES = [  # picture, page in the run's folder, width and height in pixels
    ("report.png", "report.html", (1000, 1400)),
    ("confirm.png", "confirm/confirm.html", (1000, 1790)),
]


def run_search_and_confirmation(folder: Path) -> Path:
    """Run what `folder` lacks of the quick start's search and of its confirmation; return the run, with new pages."""
    folder.mkdir(parents=True, exist_ok=True)
    is_there = (folder / RUN).exists()
    search = ["report", str(RUN)] if is_there else [*SEARCH, "--output", str(RUN)]
    for arguments in (search, CONFIRM):
        subprocess.run([sys.executable, "-m", "tune_cure", *arguments], cwd=folder, check=True)
    return folder / RUN


def find_browser() -> str:
    """Return the path of a browser that takes screenshots; exit where there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    return found or sys.exit(f"pictures: none of {', '.join(BROWSERS)} is installed")


def take_screenshot(browser: str, page: Path, picture: Path, size: tuple[int, int]) -> None:
    """Write what a browser shows of a page, in 256 colors; `size` is the window's width and height in pixels."""
    window = f"--window-size={size[0]},{size[1]}"
    command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=10000", window]
    subprocess.run([*command, f"--screenshot={picture}", page.resolve().as_uri()], check=True)
    with Image.open(picture) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(picture, optimize=True)


def draw_terminal(run: Path, picture: Path) -> None:
    """Write the live view at the moment when half of the trials have ended, as SVG."""
    events = Journal(run).read()
    state = SearchState(results.read_spec(run), started=events[0]["time"])
    console = Console(record=True, width=108, file=io.StringIO(), force_terminal=True)
    view = LiveView(state, console)
    most_at_once = 0
    for event in events:
        state.update(event)
        most_at_once = max(most_at_once, len(state.running))
        is_busy = len(state.running) == most_at_once and all(trial.last for trial in state.running)
        if is_busy and state.ends.total() >= state.spec.search.trials // 2:
            break
    console.print(f"$ tune-cure {' '.join(SEARCH)}")
    with mock.patch.object(time, "time", return_value=event["time"]):
        console.print(view.render())
    console.save_svg(str(picture), title="tune-cure")


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "results" / "pictures", help="the folder of the search")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="the folder of the pictures")
    options = parser.parse_args()
    browser = find_browser()
    run = run_search_and_confirmation(options.work)
    for picture, page, size in PAGES:
        take_screenshot(browser, run / page, options.output / picture, size)
    draw_terminal(run, options.output / "terminal.svg")


if __name__ == "__main__":
    main()
