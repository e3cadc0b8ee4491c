import json
import re
from pathlib import Path

import pytest

from tests.support import journal_lines
from tests.support.spaces import tiny
from tune_cure.search import run_files
from tune_cure.search.journal import Journal, JournalContent, JournalError
from tune_cure.search.proposals.warm_start import keep_prior_trials
from tune_cure.search.resume import ResumeError, prepare
from tune_cure.utils.yaml_config import SpecError


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    tiny(tmp_path)
    (tmp_path / run_files.JOURNAL).touch()
    return tmp_path


def said(begun: Path, *overrides: str, force: bool = False) -> list[str]:
    other = begun / "other"
    other.mkdir(exist_ok=True)
    lines: list[str] = []
    prepare(begun, tiny(other, *overrides), force=force, say=lines.append)
    return lines


def test_the_same_search_is_continued_without_a_word(begun: Path) -> None:
    assert said(begun) == []


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("search.trials=12", "search.trials was 8 and is 12"),
        ("search.patience=5", "search.patience was None and is 5"),
        ("resources.concurrent=2", "resources.concurrent was 1 and is 2"),
        ("data.root=/elsewhere", "data.root was"),
    ],
)
def test_what_leaves_trials_comparable_may_change_and_is_said(override: str, line: str, begun: Path) -> None:
    assert line in said(begun, override)[0]
    assert Journal(begun).load().search_events == []


@pytest.mark.parametrize(
    ("override", "change", "restart"),
    [
        ("training.epochs=5", "training.epochs was 4 and is 5", True),
        ("evaluation.epsilon=0.1", "evaluation.epsilon was 0.05 and is 0.1", True),
        ("search.seed=3", "search.seed was 0 and is 3", True),
        ("asha.grace_period=2", "asha.grace_period was 1 and is 2", False),
        ("space.h={uniform: [0.5, 3]}", "space.h was uniform [0.5, 2] and is uniform [0.5, 3]", False),
    ],
)
def test_what_does_not_needs_force_and_is_recorded(override: str, change: str, restart: bool, begun: Path) -> None:
    with pytest.raises(ResumeError, match="is of another search") as raised:
        said(begun, override)
    assert change in str(raised.value)
    assert "\n" not in str(raised.value)
    (begun / "other" / "spec.yaml").unlink()
    (begun / "other").rmdir()
    lines = said(begun, override, force=True)
    assert change in lines[0]
    assert (lines[1:] == ["trials that were under way begin anew"]) == restart
    (recorded,) = Journal(begun).load().search_events
    assert change in recorded["settings"]
    assert recorded["restart"] == restart


@pytest.mark.parametrize(
    ("before", "now", "change"),
    [
        (
            "{uniform: [0.5, 2.00001]}",
            "{uniform: [0.5, 2.00002]}",
            "uniform [0.5, 2.00001] and is uniform [0.5, 2.00002]",
        ),
        ("{choice: [1, 1.23451]}", "{choice: [1, 1.23452]}", "choice [1, 1.23451] and is choice [1, 1.23452]"),
    ],
)
def test_a_space_that_differs_in_a_late_digit_is_another_one_and_both_are_shown_with_it(
    before: str, now: str, change: str, begun: Path
) -> None:
    tiny(begun, f"space.h={before}", "start_from=[]")
    assert said(begun, f"space.h={before}", "start_from=[]") == []
    with pytest.raises(ResumeError, match=re.escape(f"space.h was {change}; begin a new one")):
        said(begun, f"space.h={now}", "start_from=[]")


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("space.h={uniform: [0.5, 0.9]}", "h 1.0 of trial 0 is outside of space.h, uniform [0.5, 0.9]"),
        ("space={lambda: {loguniform: [0.001, 1]}}", "h 1.0 of trial 0 is outside of space, which"),
    ],
)
def test_a_space_that_no_longer_has_a_trial_is_refused_even_with_force(
    override: str, problem: str, begun: Path
) -> None:
    journal_lines.begin(Journal(begun), 0)
    with pytest.raises(ResumeError, match=re.escape(problem)) as raised:
        said(begun, "start_from=[]", override, force=True)
    assert "search.warm_start" in str(raised.value)
    assert Journal(begun).load().search_events == []


def test_a_hyperparameter_that_is_searched_from_now_on_is_refused_even_with_force(begun: Path) -> None:
    tiny(begun, "training.momentum=0.5")
    journal_lines.begin(Journal(begun), 0)
    with pytest.raises(ResumeError, match=r"trial 0 was trained without a value for space\.momentum, which"):
        said(begun, "space.momentum={uniform: [0.3, 0.95]}", "start_from=[]", force=True)
    assert Journal(begun).load().search_events == []


def test_a_hyperparameter_without_effect_in_the_trials_so_far_may_be_searched_from_now_on(begun: Path) -> None:
    tiny(begun, "training.optimizer=adam", "start_from=[]")
    journal_lines.begin(Journal(begun), 0)
    momentum = "space.momentum={uniform: [0.3, 0.95]}"
    lines = said(begun, "training.optimizer=adam", "start_from=[]", momentum, force=True)
    assert "space.momentum was absent" in lines[0]


def test_a_start_that_would_come_after_other_trials_is_refused_even_with_force(begun: Path) -> None:
    tiny(begun, "start_from=[]")
    for number in range(4):
        journal_lines.begin(Journal(begun), number)
    with pytest.raises(ResumeError, match="start_from has 1 configuration, but the search began with 0"):
        said(begun, force=True)


def test_a_start_that_takes_the_place_of_a_trained_one_is_refused_even_with_force(begun: Path) -> None:
    start = tiny(begun).start_from[0]
    Journal(begun).append("trial", 0, origin="start_from", hyperparameters=start)
    said(begun, "search.trials=30", f"start_from=[{start}]", force=True)
    other = start | {"lambda": start["lambda"] / 2}
    with pytest.raises(ResumeError, match=r"start_from\[0\] is not what trial 0 was trained with"):
        said(begun, f"start_from=[{other}]", force=True)


def test_a_trained_start_that_is_taken_away_is_refused_even_with_force(begun: Path) -> None:
    Journal(begun).append("trial", 0, origin="start_from", hyperparameters=tiny(begun).start_from[0])
    with pytest.raises(ResumeError, match="start_from has 0 configurations, but the search began with 1"):
        said(begun, "start_from=[]", force=True)


def test_another_warm_start_that_cannot_be_read_leaves_the_prior_trials_that_are_kept(begun: Path) -> None:
    row = "lambda,h,lr_max,epsilon,pgd_accuracy_best\n0.5,1.0,0.02,0.1,"
    (begun / "first.csv").write_text(f"{row}0.25\n")
    (begun / "second.csv").write_text(f"{row}0.75\n")
    spec = tiny(begun, "start_from=[]", f"search.warm_start={begun / 'first.csv'}")
    keep_prior_trials(spec, begun, is_begun=False)
    journal_lines.begin(Journal(begun), 0)
    with pytest.raises(SpecError, match=r"search\.warm_start: .*secnod\.csv: cannot be read"):
        said(begun, "start_from=[]", f"search.warm_start={begun / 'secnod.csv'}", force=True)
    assert Journal(begun).load().search_events == []
    kept = begun / run_files.PRIOR_TRIALS
    assert json.loads(kept.read_text())[0]["pgd_accuracy_best"] == 0.25
    said(begun, "start_from=[]", f"search.warm_start={begun / 'second.csv'}", force=True)
    assert json.loads(kept.read_text())[0]["pgd_accuracy_best"] == 0.75
    assert said(begun, "start_from=[]", force=True)
    assert not kept.exists()


def reach_rung(begun: Path, *settings: str) -> None:
    """Write a search whose first trial has trained an epoch, the first rung."""
    tiny(begun, "start_from=[]", *settings)
    journal_lines.begin(Journal(begun), 0)
    journal_lines.epoch(Journal(begun), 0)


@pytest.mark.parametrize(
    ("before", "changed", "line"),
    [
        ("asha.control=0.2", ["asha.adapt=true"], "asha.adapt was False and is True"),
        ("asha={control: 0.2, adapt: true}", ["asha.adapt=false"], "asha.adapt was True and is False"),
        ("asha.control=0.2", ["asha.control=0.5"], "asha.control was 0.2 and is 0.5"),
        ("asha.control=0", ["asha.control=0.2"], "asha.control was 0.0 and is 0.2"),
        ("asha.control=0.2", ["asha.grace_period=2"], "asha.grace_period was 1 and is 2"),
        ("asha.control=0.2", ["search.seed=3"], "search.seed was 0 and is 3"),
        ("asha.control=0.2", ["training.epochs=9"], "training.epochs was 4 and is 9"),
        ("asha.control=0.2", ["search.on_collapse=continue"], "search.on_collapse was end and is continue"),
        (
            "asha.control=0.2",
            ["search.scheduler=hyperband", "training.batch_size=25"],
            "search.scheduler was asha and is hyperband",
        ),
    ],
)
def test_what_the_control_group_reads_rungs_by_cannot_change_after_a_rung_even_with_force(
    before: str, changed: list[str], line: str, begun: Path
) -> None:
    reach_rung(begun, before)
    with pytest.raises(
        ResumeError, match=re.escape(f"journal.jsonl: {line}, but trials have reached a rung")
    ) as raised:
        said(begun, "start_from=[]", before, *changed, force=True)
    assert "search.warm_start" in str(raised.value)
    assert Journal(begun).load().search_events == []


@pytest.mark.parametrize(
    "settings",
    [
        ["asha.control=0", "asha.grace_period=2"],
        ["asha.control=0.2", "search.scheduler=none"],
        ["asha.control=0.2", "training.batch_size=25"],
    ],
)
def test_settings_by_which_no_group_reads_rungs_may_change_after_a_rung(settings: list[str], begun: Path) -> None:
    reach_rung(begun, "asha.control=0.2")
    said(begun, "start_from=[]", *settings, force=True)
    assert len(Journal(begun).load().search_events) == 1


def test_a_control_group_may_change_before_a_trial_has_reached_a_rung(begun: Path) -> None:
    settings = ("training.epochs=9", "asha.control=0.2", "asha.grace_period=2")
    reach_rung(begun, *settings)
    said(begun, "start_from=[]", *settings, "asha.adapt=true", force=True)
    assert len(Journal(begun).load().search_events) == 1


def test_a_journal_that_lacks_a_trial_is_refused(begun: Path) -> None:
    journal_lines.begin(Journal(begun), 1)
    with pytest.raises(JournalError, match="trial 0 was never begun, but trial 1 was"):
        said(begun)


def test_what_is_optimised_cannot_be_changed_even_with_force(begun: Path) -> None:
    with pytest.raises(ResumeError, match=r"search\.metric was pgd_accuracy_best and is clean_accuracy") as raised:
        said(begun, "search.metric=clean_accuracy", force=True)
    assert "search.warm_start" in str(raised.value)
    assert Journal(begun).load().search_events == []


def test_a_change_is_recorded_behind_whole_lines_where_a_crash_left_half_of_one(begun: Path) -> None:
    journal = Journal(begun)
    journal_lines.begin(journal, 0)
    with journal.path.open("a") as file:
        file.write('{"event": "epoch", "trial": 0, "ti')
    said(begun, "training.batch_size=25", "start_from=[]", force=True)
    (change,) = journal.load().search_events
    assert "training.batch_size was 50 and is 25" in change["settings"]
    assert change["restart"]


@pytest.mark.parametrize("override", ["search.trials=12", "training.epochs=5", "asha.grace_period=2"])
def test_the_history_that_is_resumed_is_what_the_journal_then_holds_from_one_reading(
    override: str, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(begun)
    for number in (0, 1):
        journal_lines.begin(journal, number)
        journal_lines.epoch(journal, number)
    journal_lines.end(journal, 0)
    readings: list[bool] = []
    load = Journal.load

    def counted(self: Journal, *, repair: bool = False) -> JournalContent:
        readings.append(repair)
        return load(self, repair=repair)

    monkeypatch.setattr(Journal, "load", counted)
    (begun / "other").mkdir()
    spec = tiny(begun / "other", override, "start_from=[]")
    record = prepare(begun, spec, force=True, say=lambda line: None)
    assert readings == [True]
    content = journal.load()
    assert record.history == content.trial_events
    assert record.search_events == content.search_events


def test_another_method_is_another_search(begun: Path) -> None:
    with pytest.raises(ResumeError) as refused:
        said(begun, "training.method=gat")
    assert "training.method was none and is gat" in str(refused.value)
    assert "training.regularizer was cure and is gat" in str(refused.value)


def test_prior_trials_are_kept_where_no_others_are_named(begun: Path) -> None:
    kept = begun / run_files.PRIOR_TRIALS
    kept.write_text("[]")
    said(begun, "asha.grace_period=2", force=True)
    assert kept.read_text() == "[]"
