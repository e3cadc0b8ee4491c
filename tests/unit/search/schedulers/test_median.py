from pathlib import Path

from tests.support import journal_lines
from tests.support.spaces import tiny
from tune_cure.search.journal import Journal
from tune_cure.search.schedulers.early_stopper import EarlyStopper
from tune_cure.search.schedulers.median import MedianRule


def test_the_median_rule_stops_what_never_reached_the_others_median_mean(tmp_path: Path) -> None:
    rule = MedianRule(tiny(tmp_path, "search.scheduler=median", "asha.grace_period=2"))
    for number, level in ((1, 0.2), (2, 0.4), (3, 0.6)):
        for epoch in (1, 2, 3):
            assert rule.report(number, epoch, level)
    assert rule.report(4, 1, 0.0)  # grace
    assert rule.report(4, 2, 0.41)
    assert not rule.report(5, 2, 0.39)


def test_a_resumed_search_weighs_the_last_epoch_of_a_stopped_trial_as_an_uninterrupted_one(
    tmp_path: Path,
) -> None:
    spec, journal = tiny(tmp_path, "search.scheduler=median", "start_from=[]"), Journal(tmp_path)
    live = EarlyStopper(spec)
    for number, level in enumerate((0.5, 0.6, 0.7, 0.1)):
        journal_lines.begin(journal, number)
        for epoch in (1, 2):
            goes_on = live.report(number, epoch, {"objective": level})
            ended = "" if goes_on else "stopped"
            journal_lines.epoch(journal, number, epoch=epoch, objective=level, ended=ended)
            if not goes_on:
                live.complete(number, epoch, {"objective": level})
                break
    resumed = EarlyStopper(spec, journal.read())
    for stopper in (live, resumed):
        assert isinstance(stopper.rule, MedianRule)
        assert stopper.rule.stopped == {3}
    assert live.rule.curves == resumed.rule.curves  # type: ignore[attr-defined]


def test_an_epoch_that_runs_twice_counts_once(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.scheduler=median", "asha.grace_period=1")
    rule, once = MedianRule(spec), MedianRule(spec)
    for number, level in ((1, 0.2), (2, 0.4), (3, 0.6)):
        for epoch in (1, 2):
            for _ in range(2):
                rule.report(number, epoch, level)
            once.report(number, epoch, level)
    assert rule.curves == once.curves
