from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.journal_lines import judge_leader, write_ended_trial
from tests.support.spaces import tiny
from tune_cure.ray_backend import tuner
from tune_cure.search.journal import Journal
from tune_cure.search.storage.run_storage import LocalStorage


class Call:
    """A guarded call without Ray, which nothing guards."""

    def __init__(self, work: Callable[[], None], *_: object) -> None:
        self.run = work


@pytest.mark.parametrize("ends", [True, False], ids=["before its end", "later"])
def test_a_time_budget_ends_the_second_judgement_of_the_leaders(
    ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rescore(leaders: object, plan: object, broadcast: object, is_stopped: Callable[[], bool]) -> None:
        if ends:
            assert search.stopper.deadline is not None
            search.stopper.deadline -= 3600
        if not is_stopped():
            judge_leader(search.journal, spec)

    monkeypatch.setattr(tuner, "plan_devices", lambda *_: None)
    monkeypatch.setattr(tuner, "TrialGauges", lambda name: Recorder())
    monkeypatch.setattr(tuner, "GuardedCall", Call)
    monkeypatch.setattr(tuner.rescoring, "run", rescore)
    spec = tiny(tmp_path, "search.trials=1", "evaluation.examples=60")
    write_ended_trial(Journal(tmp_path))
    options = tuner.RunOptions(resume=True, seconds=3600)
    search = tuner.begin(spec, LocalStorage(tmp_path), options, None)
    tuner._run_on_ray(search, options, lambda devices, url: None, lambda: None)
    assert search.stopper.conclude(search.counts, search.record).outcome == ("time" if ends else "finished")
    last = Journal(tmp_path).load().search_events[-1]
    assert last["event"] == ("pause" if ends else "resume")


class Recorder:
    """Gauges of trials that show nothing."""

    def on_event(self, event: object) -> None: ...
