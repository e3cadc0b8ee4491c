"""Damaged journals, thousands of them where asked: TUNE_CURE_FUZZ=5000 makes that many.

Whatever is in a journal, the commands that read it do what they do, or exit with 2 and one line.
"""

import io
import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
from rich.console import Console

pytest.importorskip("hypothesis")
from hypothesis import given, strategies as st

from tests.support import journal_lines
from tests.support.fuzzing import fuzzed
from tests.support.spaces import tiny
from tune_cure.cli.main import main
from tune_cure.cli.views.live_view import LiveView
from tune_cure.search import results, resume
from tune_cure.search.event_schemas import EVENT_SCHEMAS
from tune_cure.search.journal import SEARCH_EVENTS, Journal, JournalError, JournalFollower
from tune_cure.search.progress import SearchState
from tune_cure.search.proposals.proposer import StudyProposer
from tune_cure.search.stopping import SearchStopper


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder whose journal has every kind of line."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder = tmp_path_factory.mktemp("run")
    tiny(folder, "search.trials=4", "search.constraints=[clean_accuracy >= 0.2]")
    journal = Journal(folder)
    for number, status in enumerate(("completed", "stopped", "failed", "")):
        journal_lines.begin(
            journal, number, **{"lambda": 0.1 * (number + 1)}, origin="sampler" if number else "start_from"
        )
        for at in (1, 2):
            metrics = {
                "clean_accuracy": 0.6,
                "fgsm_accuracy": 0.5,
                "pgd_accuracy": 0.1 * (number + at),
                "curvature": 2.0,
            }
            metrics |= {"train_seconds": 1.0, "eval_seconds": 0.5, "lr": 0.1, "train_loss": 1.5}
            reached = {"pgd_accuracy_best": 0.1 * (number + at), "objective": 0.1 * (number + at)}
            journal_lines.epoch(journal, number, **metrics, **reached, epoch=at, catastrophic_overfitting=False)
            journal.append("checkpoint", number, epoch=at, path=f"trials/trial_{number:05d}/checkpoint")
        if status == "failed":
            journal.append("retry", number, attempt=1, reason="it was killed")
        if status:
            journal_lines.end(journal, number, status, "it was killed" * (status == "failed"))
    journal.append("change", None, settings="asha.grace_period was 1 and is 2", restart=False)
    journal.append("resume", None)
    again = {"clean_accuracy": 0.6, "clean_accuracy_se": 0.05, "pgd_accuracy": 0.3, "pgd_accuracy_se": 0.05}
    journal.append("leader", 1, epoch=2, examples=100, **again)
    return folder


junk = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-2, 5),
        st.sampled_from([2**31, 2**63, 10**30, 10**400, -1, 1e308, -1e308, 5e-324, 0.5, float("nan"), float("inf")]),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(
            [*EVENT_SCHEMAS, "completed", "sampler", "../..", "/", "\0", "\ud800", "\x1b[2J", "<b>", "x" * 5000, "0.1"]
        ),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=4), inner, max_size=2)),
    max_leaves=4,
)
line_numbers = st.integers(0, 40)
keys = st.integers(0, 30)
damages = st.one_of(
    st.tuples(st.just("lose a key"), line_numbers, keys),
    st.tuples(st.just("set a key"), line_numbers, keys, junk),
    st.tuples(st.just("set a hyperparameter"), line_numbers, keys, junk),
    st.tuples(st.just("lose a line"), line_numbers),
    st.tuples(st.just("repeat a line"), line_numbers, line_numbers),
    st.tuples(st.just("write"), line_numbers, junk),
)


def damaged(lines: list[Any], damage: tuple[Any, ...]) -> None:
    kind, at, *more = damage
    at %= max(len(lines), 1)
    line = lines[at] if lines else None
    match kind:
        case "lose a key" if isinstance(line, dict) and line:
            line.pop(sorted(line)[more[0] % len(line)])
        case "set a key" if isinstance(line, dict) and line:
            line[sorted(line)[more[0] % len(line)]] = more[1]
        case "set a hyperparameter" if isinstance(line, dict) and isinstance(line.get("hyperparameters"), dict):
            names = ["lambda", "h", "lr_max", "epsilon", "delta", "trial", "status", "epochs"]
            line["hyperparameters"][names[more[0] % len(names)]] = more[1]
        case "lose a line" if lines:
            lines.pop(at)
        case "repeat a line" if lines:
            lines.insert(more[0] % len(lines), json.loads(json.dumps(line)))
        case "write":
            lines.insert(at, more[0])


def check_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    code = main(arguments)
    errors = capsys.readouterr().err
    assert code in (0, 2)
    if code == 2:
        assert errors.startswith("tune-cure: ")
        assert errors.count("\n") == 1


@fuzzed(40)
@given(damage=st.lists(damages, min_size=1, max_size=3))
def test_a_damaged_journal_is_read_or_gives_an_error_of_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], damage: list[tuple[Any, ...]]
) -> None:
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    for one in damage:
        damaged(lines, one)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copy(run / "spec.yaml", folder)
        (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        check_command(["report", str(folder)], capsys)
        check_command(["replay", str(folder), "--grace-period", "1", "--reduction-factor", "2"], capsys)
        spec = results.read_spec(folder)
        console = Console(file=io.StringIO(), force_terminal=True, width=120)
        view = LiveView(SearchState(spec), console)
        with suppress(JournalError, resume.ResumeError):  # which `main` prints, as above
            for event in JournalFollower(folder / "journal.jsonl").read():
                if event["event"] not in SEARCH_EVENTS:
                    view.on_event(event)
            console.print(view.render())
            resume.prepare(folder, spec, force=False, say=print)
            journal = Journal(folder)
            history = journal.load(repair=True).trial_events
            storage = optuna.storages.InMemoryStorage()
            stopper = SearchStopper(spec, folder, None, history)
            StudyProposer(spec, journal, history, stopper, storage=storage).propose()
