"""Damaged files of every kind that commands read, thousands of each where asked: TUNE_CURE_FUZZ=5000 makes that many.

Whatever is in a file, each command that reads it does what it does, with a warning where something is left out, or
exits with 2 and one line. It writes nothing outside of the folder that it was given.
"""

import io
import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest

pytest.importorskip("hypothesis")
from hypothesis import given, strategies as st

from tests.support.damage import Damage, damages
from tests.support.damaged_files import FILES, PLOTTED
from tests.support.damaged_runs import write_everything
from tests.support.fuzzing import fuzzed
from tune_cure.cli import watch
from tune_cure.cli.main import main
from tune_cure.cli.steps import confirm_run, league_confirmation, league_run, search_run
from tune_cure.ray_backend.league import tuner
from tune_cure.reports.figures import catalog, files, importance
from tune_cure.search.journal import Journal
from tune_cure.search.proposals.proposer import StudyProposer
from tune_cure.search.results import SearchResult
from tune_cure.search.stopping import SearchStopper
from tune_cure.training.trainer import Trainer


class Records(logging.Handler):
    """Keeps the messages that are logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder before any damage. Commands go as far as the data, the training or Ray."""

    def begin_search(spec: Any, folder: Any, *_: Any, **__: Any) -> SearchResult:
        stopper = SearchStopper(spec, folder.directory, None, folder.record.history)
        storage = optuna.storages.InMemoryStorage()
        StudyProposer(spec, Journal(folder.directory), folder.record.history, stopper, storage=storage).propose()
        raise KeyboardInterrupt

    def begin_league(prepared: league_run.Prepared, *_: Any) -> None:
        data = prepared.first.data
        session = tuner._Session(prepared.league, data, tuner.RunOptions(), tuner.Listeners())
        for method, spec in prepared.specs.items():
            tuner._begin(session, method, spec)
        raise KeyboardInterrupt

    def train(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder = tmp_path_factory.mktemp("everything")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_CURE_CACHE", str(folder / "cache"))
        write_everything(folder)
        patch.setattr(search_run, "run_trials", begin_search)
        patch.setattr(confirm_run, "run_jobs", lambda *_: {})
        patch.setattr(league_run, "run_searches", begin_league)
        patch.setattr(league_confirmation, "run_jobs", lambda *_, **__: {})
        patch.setattr(Trainer, "train_epoch", train)
        patch.setattr("time.sleep", train)  # who watches a search that does not end goes away
        patch.setattr(watch, "follow", partial(watch.follow, pause=train))
        yield folder


def run_command(command: str, folder: Path) -> tuple[int, str, str, list[str]]:
    """Run a command in a folder; return its exit code, what it printed, its errors and its warnings."""
    out, err, records = io.StringIO(), io.StringIO(), Records()
    logging.getLogger().addHandler(records)
    before = Path.cwd()
    os.chdir(folder)
    try:
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setenv("TUNE_CURE_CACHE", str(folder / "cache"))
            code = main(command.split(" "))
    finally:
        os.chdir(before)
        logging.getLogger().removeHandler(records)
    return code, out.getvalue(), err.getvalue(), records.messages


def check(command: str, folder: Path, *, plotted: bool, drawn: bool) -> None:
    """Run a command and check that it ends as every command ends."""
    with pytest.MonkeyPatch.context() as patch:
        if not plotted:
            patch.setattr(catalog, "build_plots", lambda *_: [])
            patch.setattr(importance, "write_importance", lambda *_: {})
        if not drawn:
            patch.setattr(files, "write_figures", lambda *_: None)
        code, out, err, warnings = run_command(command, folder)
    assert code in (0, 1, 2, 130), command
    for line in [*out.splitlines(), *err.splitlines(), *warnings]:
        assert line.replace("\t", "").isprintable(), (command, line)
        assert "weights_only" not in line
    if code == 2:
        assert err.startswith("tune-cure: "), (command, err)
        assert err.count("\n") == 1


def state(folder: Path) -> dict[str, int]:
    """Return a checksum of each file that lies beside the runs."""
    files = [path for path in folder.iterdir() if path.is_file()]
    return {path.name: zlib.crc32(path.read_bytes()) for path in files if path.name not in ("table.csv", "out")}


def damage_and_check(name: str, damage: Damage, chosen: int, pristine: Path) -> None:
    """Damage a file in a copy of everything, and run one of the commands that read it."""
    commands = FILES[name][1]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "box")
        shutil.copytree(pristine, folder)
        file = next(folder.glob(name))
        content = damage(file.read_bytes())
        file.write_bytes(content)
        before = state(folder)
        drawn = name in PLOTTED and zlib.crc32(content) % 10 == 0  # matplotlib takes two seconds
        check(commands[chosen % len(commands)], folder, plotted=name in PLOTTED, drawn=drawn)
        assert state(folder) == before
        assert {path.name for path in Path(temporary).iterdir()} == {"box"}


# torch's, of states that only damage can hold: a tensor in the place of a number, or of a dictionary
@pytest.mark.filterwarnings("ignore:Casting complex values", "ignore:Using a non-tuple sequence")
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_left_out_with_a_warning_or_is_one_line(name: str, pristine: Path) -> None:
    @fuzzed(12)
    @given(damage=damages(FILES[name][0]), chosen=st.integers(0, 100))
    def attempt(damage: Damage, chosen: int) -> None:
        damage_and_check(name, damage, chosen, pristine)

    attempt()
