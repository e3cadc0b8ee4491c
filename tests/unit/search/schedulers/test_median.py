from pathlib import Path

from tests.support.spaces import tiny
from tune_cure.search.schedulers.median import MedianRule


def test_the_median_rule_stops_what_never_reached_the_others_median_mean(tmp_path: Path) -> None:
    rule = MedianRule(tiny(tmp_path, "search.scheduler=median", "asha.grace_period=2"))
    for number, level in ((1, 0.2), (2, 0.4), (3, 0.6)):
        for epoch in (1, 2, 3):
            assert rule.report(number, epoch, level)
    assert rule.report(4, 1, 0.0)  # grace
    assert rule.report(4, 2, 0.41)
    assert not rule.report(5, 2, 0.39)


def test_an_epoch_that_runs_twice_counts_once(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.scheduler=median", "asha.grace_period=1")
    rule, once = MedianRule(spec), MedianRule(spec)
    for number, level in ((1, 0.2), (2, 0.4), (3, 0.6)):
        for epoch in (1, 2):
            for _ in range(2):
                rule.report(number, epoch, level)
            once.report(number, epoch, level)
    assert rule.curves == once.curves
