"""Whole searches on the fake backend: what becomes of trials, study, checkpoints and tables."""

import builtins
import io
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from tests.support.fake_backend import FakeBackend, KilledError, Script, run_scripted, scripted
from tests.support.sampler_studies import make_proposer
from tests.support.spaces import tiny
from tune_cure.reports import tables
from tune_cure.search import ranking, results, run_files
from tune_cure.search.journal import Event, Journal
from tune_cure.search.proposals.distinct_sampler import ORIGIN
from tune_cure.search.proposals.proposer import Proposal
from tune_cure.search.results import SearchResult

LEVELS = [0.1, 0.5, 0.3, 0.6, 0.2, 0.7, 0.4, 0.65]  # PGD accuracy of each trial after its first epoch


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def rising(proposal: Proposal) -> Script:
    """A trial whose accuracy rises by 0.02 with each epoch."""
    level = LEVELS[proposal.number % len(LEVELS)]
    return Script([level + 0.02 * epoch for epoch in range(4)])


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Path, optuna.Study]:
    result, study = run_scripted(tiny(tmp_path), tmp_path, rising)
    assert result.finished
    return tmp_path, study


def test_every_trial_ends_and_the_first_is_that_of_start_from(finished: tuple[Path, optuna.Study]) -> None:
    trials = results.trials(finished[0])
    assert list(trials["trial"]) == list(range(8))
    assert set(trials["status"]) == {"completed", "stopped"}
    assert list(trials["origin"]) == ["start_from"] + ["sampler"] * 7
    assert trials.iloc[0][["lambda", "h", "lr_max", "epsilon"]].tolist() == [0.5, 1.0, 0.02, 0.1]
    assert trials.iloc[0]["status"] == "completed"  # a baseline is never stopped, even if it is the worst of all


def test_asha_stops_trials_at_its_rungs(finished: tuple[Path, optuna.Study]) -> None:
    trials = results.trials(finished[0])
    assert set(trials.loc[trials["status"] == "stopped", "epochs_trained"]) <= {1, 2}
    assert (trials.loc[trials["status"] == "completed", "epochs_trained"] == 4).all()
    epochs = results.epochs(finished[0])
    assert len(epochs) == trials["epochs_trained"].sum() < 8 * 4


def test_only_leaders_keep_their_checkpoints(finished: tuple[Path, optuna.Study]) -> None:
    folder = finished[0]
    spec, trials = results.read_spec(folder), results.trials(folder)
    kept = {int(file.parts[-3].removeprefix("trial_")) for file in folder.glob("trials/*/*/trainer.pt")}
    assert kept == set(ranking.rank_trials(trials, spec).head(spec.rescore.top)["trial"])


def test_the_study_has_stopped_trials_as_pruned_at_their_last_epoch_and_the_others_as_complete(
    finished: tuple[Path, optuna.Study],
) -> None:
    folder, study = finished
    trials = results.trials(folder).set_index("trial")
    curves = results.epochs(folder)
    assert len(study.trials) == 8
    for told in study.trials:
        row, curve = trials.loc[told.number], curves[curves["trial"] == told.number]
        assert told.state == (TrialState.COMPLETE if row["status"] == "completed" else TrialState.PRUNED)
        assert told.value == row["objective"]
        assert told.intermediate_values == dict(zip(curve["epoch"], curve["pgd_accuracy_best"], strict=True))
        assert told.params == {key: row[key] for key in ("lambda", "h", "lr_max", "epsilon")}


def test_the_same_seed_proposes_the_same(finished: tuple[Path, optuna.Study], tmp_path: Path) -> None:
    folder = tmp_path / "again"
    folder.mkdir()
    assert run_scripted(tiny(folder, "search.trials=4"), folder, rising)[0].finished
    keys = ["lambda", "h", "lr_max", "epsilon"]
    assert results.trials(folder)[keys].equals(results.trials(finished[0]).head(4)[keys])


def test_an_interrupted_search_is_resumed_where_it_stopped(tmp_path: Path) -> None:
    def is_second_checkpoint(event: Event) -> bool:
        return event["event"] == "checkpoint" and (event["trial"], event["epoch"]) == (0, 2)

    spec = tiny(tmp_path, "search.trials=4")
    result, _ = run_scripted(spec, tmp_path, rising, interrupt_at=is_second_checkpoint)
    assert result.outcome == "interrupted"
    before = results.trials(tmp_path)
    assert "unfinished" in set(before["status"])
    events = len(Journal(tmp_path).load().trial_events)

    result, study = run_scripted(spec, tmp_path, rising, resume=True)
    assert result.finished
    later = Journal(tmp_path).load().trial_events[events:]
    assert [e["epoch"] for e in later if e["event"] == "epoch" and e["trial"] == 0] == [3, 4]  # no epoch twice
    trials = results.trials(tmp_path)
    assert list(trials["trial"]) == [0, 1, 2, 3]
    assert not trials[["lambda", "h"]].duplicated().any()
    assert all(told.state.is_finished() for told in study.trials)
    assert run_scripted(spec, tmp_path, rising, resume=True)[0].finished  # nothing is left to do
    assert len(results.trials(tmp_path)) == 4


@pytest.mark.parametrize("concurrent", [1, 2])
@pytest.mark.parametrize("part", range(6))
def test_a_search_that_is_killed_after_any_event_ends_as_an_undisturbed_one(
    part: int, concurrent: int, tmp_path: Path
) -> None:
    columns = ["trial", "origin", "status", "epochs_trained", "objective", "best_epoch"]
    settings = ("search.trials=5", f"resources.concurrent={concurrent}")
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    run_scripted(tiny(undisturbed, *settings), undisturbed, rising)
    expected = results.trials(undisturbed)[columns]
    num_events = len(Journal(undisturbed).load().trial_events)
    for last in range(1 + part, num_events + 1, 6):
        folder, seen = tmp_path / str(last), list[Event]()
        folder.mkdir()
        spec = tiny(folder, *settings)

        def is_last(event: Event, seen: list[Event] = seen, last: int = last) -> bool:
            seen.append(event)
            return len(seen) == last

        with pytest.raises(KilledError):
            run_scripted(spec, folder, rising, kill_at=is_last)
        result, study = run_scripted(spec, folder, rising, resume=True)
        assert result.finished
        trials = results.trials(folder)
        if concurrent == 1:
            assert trials[columns].equals(expected), last
        assert trials["trial"].tolist() == expected["trial"].tolist()
        assert set(trials["status"]) <= {"completed", "stopped"}
        assert [told.number for told in study.trials if told.state.is_finished()] == list(range(5))
        files = [file.parts[-3].removeprefix("trial_") for file in folder.glob("trials*/*/*/trainer.pt")]
        leaders = set(ranking.rank_trials(trials, spec).head(spec.rescore.top)["trial"])
        if seen[-1]["event"] != "checkpoint":  # else the process died before Tune deleted the checkpoint before
            assert {int(number) for number in files} == leaders
        assert leaders <= {int(number) for number in files}


def test_a_trial_that_diverges_ends_at_once_and_the_search_goes_on(tmp_path: Path) -> None:
    def scripts(proposal: Proposal) -> Script:
        return Script([0.0], ends={1: "diverged"}) if proposal.number == 0 else rising(proposal)

    starts = [{"lambda": 0.1, "h": 1.0, "lr_max": rate, "epsilon": 0.1} for rate in (0.4, 0.1)]
    spec = tiny(tmp_path, "start_from=[]", "search.trials=3").model_copy(update={"start_from": starts})
    result, study = run_scripted(spec, tmp_path, scripts)
    assert result.finished
    trials = results.trials(tmp_path)
    assert list(trials["status"])[:2] == ["diverged", "completed"]
    assert trials.iloc[0]["epochs_trained"] == 1
    assert trials.iloc[0]["reason"] == "the loss became NaN or infinite in epoch 1"
    assert results.epochs(tmp_path).iloc[0].isna()["train_loss"]
    best = results.best(tmp_path)
    assert best is not None
    assert best.trial != 0
    assert study.trials[0].state == TrialState.PRUNED


def told(study: optuna.Study) -> list[tuple[object, ...]]:
    """Return what a study was told of its trials; a study that is rebuilt has the origin of each trial, too."""
    attributes = [{**trial.user_attrs, ORIGIN: ""} for trial in study.trials]
    values = [(trial.state, trial.value, trial.intermediate_values, trial.constraints) for trial in study.trials]
    return list(zip(values, attributes, strict=True))


@pytest.mark.parametrize(("mode", "worst"), [("max", 0.0), ("min", 1.0)])
def test_the_study_alone_is_told_the_worst_of_trials_that_end_unsoundly_live_and_resumed(
    mode: str, worst: float, tmp_path: Path
) -> None:
    ends = {
        0: Script([0.5, 0.6, 0.0], ends={3: "catastrophic_overfitting"}),
        1: Script([0.5, 0.7], ends={2: "diverged"}),
        2: Script([0.2, 0.3, 0.3, 0.4], overfitted=[2]),  # recovers
    }
    spec = tiny(tmp_path, "start_from=[]", "search.trials=3", "search.scheduler=none", f"search.mode={mode}")
    spec = spec.model_copy(update={"search": spec.search.model_copy(update={"on_collapse": "continue"})})
    result, study = run_scripted(spec, tmp_path, lambda proposal: ends[proposal.number])
    assert result.trials["status"].tolist() == ["catastrophic_overfitting", "diverged", "completed"]
    assert result.trials["objective"].tolist() == [0.6, 0.5, 0.4]
    assert [trial.value for trial in study.trials] == [worst, worst, 0.4]
    assert [trial.intermediate_values for trial in study.trials] == [
        {1: 0.5, 2: 0.6, 3: worst},
        {1: 0.5, 2: worst},
        {1: 0.2, 2: 0.3, 3: 0.3, 4: 0.4},
    ]
    assert told(make_proposer(spec, tmp_path).study) == told(study)


def test_a_trial_that_is_stopped_while_it_is_overfitted_is_the_worst_for_the_study_live_and_resumed(
    tmp_path: Path,
) -> None:
    spec = tiny(tmp_path, "start_from=[]", "search.trials=2", "search.on_collapse=continue", "asha.grace_period=2")
    scripts = {0: Script([0.8]), 1: Script([0.6, 0.0], overfitted=[2])}
    result, study = run_scripted(spec, tmp_path, lambda proposal: scripts[proposal.number])
    assert result.trials["status"].tolist() == ["completed", "catastrophic_overfitting"]
    assert study.trials[1].intermediate_values == {1: 0.6, 2: 0.0}
    assert study.trials[1].value == 0.0
    assert told(make_proposer(spec, tmp_path).study) == told(study)


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median", "none"])
def test_every_scheduler_searches_a_conditional_space_for_several_metrics(tmp_path: Path, scheduler: str) -> None:
    space = [
        "space.delta={choice: [classic, random]}",
        "start_from=[{delta: random, lambda: 0.5, lr_max: 0.02, epsilon: 0.1}]",
    ]
    metrics = ["search.metric=[pgd_accuracy_best, clean_accuracy_best]", "search.constraints=[clean_accuracy >= 0.2]"]
    spec = tiny(tmp_path, *space, *metrics, f"search.scheduler={scheduler}", "search.trials=8")
    result, study = run_scripted(spec, tmp_path, rising)
    assert result.finished
    trials = results.trials(tmp_path)
    assert trials.iloc[0]["status"] == "completed"
    assert set(trials["status"]) <= ({"completed"} if scheduler == "none" else {"completed", "stopped"})
    assert (trials["h"].isna() == (trials["delta"] == "random")).all()
    front = SearchResult(tmp_path).pareto_front
    assert len(front) >= 1
    for told, (_, row) in zip(study.trials, trials.iterrows(), strict=True):
        assert told.values == [row["pgd_accuracy_best"], row["clean_accuracy_best"]]
        assert told.constraints["clean_accuracy >= 0.2"] == pytest.approx(0.2 - row["clean_accuracy"])


def test_a_trial_that_ends_as_a_new_best_after_patience_was_used_up_lets_the_search_go_on(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.patience=1", "search.scheduler=none", "resources.concurrent=2")

    def scripts(proposal: Proposal) -> Script:
        is_slow_and_best = proposal.number == 0
        return Script([0.9 if is_slow_and_best else 0.3], seconds=5.0 if is_slow_and_best else 1.0)

    result, _ = run_scripted(spec, tmp_path, scripts)
    trials = results.trials(tmp_path)
    assert result.outcome == "patience"
    assert list(trials["status"]) == ["completed"] * 5  # three, and two more after the slow one
    order = [event["trial"] for event in Journal(tmp_path).read() if event["event"] == "end"]
    assert order == [1, 2, 0, 3, 4]


def test_of_trials_that_run_at_the_same_time_the_quicker_reports_first(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "resources.concurrent=2", "search.trials=2", "search.scheduler=none")
    order: list[int] = []

    def note(event: Event) -> None:
        if event["event"] == "epoch":
            order.append(event["trial"])

    backend = FakeBackend(
        spec,
        tmp_path,
        scripted(spec, rising),
        seconds=lambda proposal: 3.0 if proposal.number == 0 else 1.0,
        on_event=note,
    )
    assert backend.run().finished
    assert order == [1, 1, 0, 1, 1, 0, 0, 0]  # at equal times the lower number


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modes in which journals are opened for reading, one for each time."""
    modes: list[str] = []
    opened = open

    def counted(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if Path(str(file)).name == run_files.JOURNAL and not {"a", "w", "x"} & set(mode):
            modes.append(mode)
        return opened(file, mode, *arguments, **options)

    monkeypatch.setattr(builtins, "open", counted)
    monkeypatch.setattr(io, "open", counted)  # which pathlib uses
    return modes


def written_tables(result: SearchResult) -> dict[str, bytes]:
    tables.write_tables(result)
    files = [run_files.TRIALS_TABLE, run_files.EPOCHS_TABLE, run_files.TRIALS_PARQUET, run_files.EPOCHS_PARQUET]
    return {name: (result.directory / name).read_bytes() for name in [*files, run_files.SUMMARY]}


def unsteady(proposal: Proposal) -> Script:
    """Trials that fail, diverge and overfit among those that rise."""
    ends = {3: {2: "diverged"}, 5: {3: "catastrophic_overfitting"}}
    failures = {1: {2: ["it was killed"]}, 6: {1: ["no"] * 9}}
    return Script(
        rising(proposal).accuracies, ends=ends.get(proposal.number, {}), failures=failures.get(proposal.number, {})
    )


@pytest.mark.parametrize("overrides", [[], ["search.metric=[pgd_accuracy, clean_accuracy]"]])
def test_a_new_search_makes_its_tables_without_reading_its_journal(
    overrides: list[str], tmp_path: Path, readings: list[str]
) -> None:
    result, _ = run_scripted(tiny(tmp_path, "resources.concurrent=3", *overrides), tmp_path, unsteady)
    in_memory = written_tables(result)
    assert readings == []
    from_file = SearchResult(tmp_path)
    assert in_memory == written_tables(from_file)
    assert len(readings) == 1
    pd.testing.assert_frame_equal(result.trials, from_file.trials)
    pd.testing.assert_frame_equal(result.epochs, from_file.epochs)
    assert result.events == from_file.events


def test_a_resumed_search_reads_its_journal_once(tmp_path: Path, readings: list[str]) -> None:
    spec = tiny(tmp_path, "resources.concurrent=3")
    ends: list[Event] = []

    def is_half_done(event: Event) -> bool:
        ends.extend([event] * (event["event"] == "end"))
        return len(ends) == 4

    assert run_scripted(spec, tmp_path, unsteady, interrupt_at=is_half_done)[0].outcome == "interrupted"
    assert readings == []
    result, _ = run_scripted(spec, tmp_path, unsteady, resume=True)
    in_memory = written_tables(result)
    assert len(readings) == 1
    assert in_memory == written_tables(SearchResult(tmp_path))
    assert len(result.trials) == 8


def test_a_line_that_never_reached_the_disk_is_in_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(event: Event) -> None:
        if event["event"] == "epoch" and event["trial"] == 3:
            monkeypatch.setattr("os.fsync", full)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    result, _ = run_scripted(tiny(tmp_path), tmp_path, rising, on_event=fill)
    assert result.outcome == "disk"
    from_file = SearchResult(tmp_path)
    pd.testing.assert_frame_equal(result.trials, from_file.trials)
    pd.testing.assert_frame_equal(result.epochs, from_file.epochs)
