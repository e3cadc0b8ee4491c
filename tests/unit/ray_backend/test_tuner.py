from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune import TuneConfig

from tests.support.journal_lines import begin, end, judge_leader, write_ended_trial
from tests.support.spaces import tiny
from tune_cure.ray_backend import tuner
from tune_cure.ray_backend.guard import DeadRayError
from tune_cure.ray_backend.resources import ResourcePlan
from tune_cure.search.journal import Journal
from tune_cure.search.storage.run_storage import LocalStorage
from tune_cure.utils.signals import WorkLeftBehindError


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


def test_a_search_that_is_resumed_with_fewer_trials_than_have_begun_trains_these_to_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(trainable: object, plan: object, *, tune_config: TuneConfig, run_config: object) -> SimpleNamespace:
        def fit() -> None:
            samples.append(tune_config.num_samples)
            proposer = tune_config.search_alg.proposer
            while (proposal := proposer.propose()) is not None:
                proposed.append(proposal.number)
                end(search.journal, proposal.number)

        return SimpleNamespace(fit=fit)

    plan = ResourcePlan([], cpus_per_trial=1, gpus_per_trial=0, concurrent=1)
    samples: list[int] = []
    proposed: list[int] = []
    monkeypatch.setattr(tuner, "plan_devices", lambda *_: plan)
    monkeypatch.setattr(tuner, "TrialGauges", lambda name: Recorder())
    monkeypatch.setattr(tuner, "GuardedCall", Call)
    monkeypatch.setattr(tuner, "RayWatch", lambda: None)
    monkeypatch.setattr(tuner, "make_tuner", make)
    spec = tiny(tmp_path, "search.trials=2", "start_from=[]", "rescore.top=0")
    for number in range(4):
        begin(Journal(tmp_path), number)
        if number < 2:
            end(Journal(tmp_path), number)
    options = tuner.RunOptions(resume=True)
    search = tuner.begin(spec, LocalStorage(tmp_path), options, None)
    tuner._run_on_ray(search, options, lambda devices, url: None, lambda: None)
    assert (samples, proposed) == ([2], [2, 3])
    assert search.stopper.conclude(search.counts, search.record).outcome == "finished"


def test_a_ray_that_dies_while_a_trial_is_measured_ends_the_search_or_the_league_that_has_none_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuner.ray, "is_initialized", lambda: True)
    options = tuner.RunOptions()
    search = tuner.begin(tiny(tmp_path), LocalStorage(tmp_path), options, None)
    with tuner.ray_session(options, [], [search], lambda: None):
        raise DeadRayError("Ray has died")
    result = search.stopper.conclude(search.counts, search.record)
    assert (result.outcome, result.reason) == ("ray", "Ray has died")
    with pytest.raises(DeadRayError), tuner.ray_session(options, [], [], lambda: None):
        raise DeadRayError("Ray has died")


def test_a_second_ctrl_c_while_a_trial_is_measured_ends_the_command_and_not_the_search_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tuner.ray, "is_initialized", lambda: True)
    pressed: list[str] = []
    with (
        pytest.raises(WorkLeftBehindError),
        tuner.ray_session(tuner.RunOptions(), [], [], lambda: pressed.append("interrupt")),
    ):
        raise WorkLeftBehindError
    assert pressed == []
    with tuner.ray_session(tuner.RunOptions(), [], [], lambda: pressed.append("interrupt")):
        raise KeyboardInterrupt
    assert pressed == ["interrupt"]


class Recorder:
    """Gauges of trials that show nothing."""

    def on_event(self, event: object) -> None: ...
