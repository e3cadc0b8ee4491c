import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.experiment import Trial

from tests.support import journal_lines
from tests.support.spaces import tiny
from tune_cure.ray_backend.guard import RayWatch
from tune_cure.ray_backend.journal_callback import JournalCallback
from tune_cure.ray_backend.trainable import WAITED
from tune_cure.search.journal import Journal
from tune_cure.search.recorder import TrialRecorder
from tune_cure.search.stopping import SearchStopper


@pytest.mark.parametrize("call", ["on_trial_recover", "on_trial_error"])
@pytest.mark.parametrize("fault", ["", "Ray cannot go on: /tmp/ray/session_7 was deleted"])
def test_a_trial_that_fails_because_ray_cannot_go_on_is_not_recorded_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, fault: str
) -> None:
    journal = Journal(tmp_path)
    journal_lines.begin(journal, 0)
    stopper = SearchStopper(tiny(tmp_path), tmp_path, None, [])
    monkeypatch.setattr(RayWatch, "find_fault", lambda self: fault)
    recorder = TrialRecorder(stopper.spec, journal, stopper, lambda path: None)
    callback = JournalCallback(recorder, tmp_path, RayWatch())
    trial = SimpleNamespace(config={"trial": 0}, num_failures=1, error_file=None)
    getattr(callback, call)(1, [], trial)
    assert stopper.outcome == ("ray" if fault else "")
    assert stopper.reason == fault
    kinds = [event["event"] for event in journal.read()]
    assert kinds == (["trial"] if fault else ["trial", "retry" if call == "on_trial_recover" else "end"])


def test_the_terminal_says_that_a_trial_had_to_wait_for_the_memory_of_its_gpu(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorded: list[int] = []
    recorder = SimpleNamespace(on_epoch=lambda number, result: recorded.append(number))
    callback = JournalCallback(recorder, tmp_path, RayWatch())
    trial = SimpleNamespace(config={"trial": 3})
    with caplog.at_level(logging.WARNING):
        callback.on_trial_result(1, [], trial, {WAITED: "waited 2 s for 9 GiB of the GPU's memory"})
        callback.on_trial_result(2, [], trial, {WAITED: ""})
    assert caplog.messages == ["trial 3 waited 2 s for 9 GiB of the GPU's memory"]
    assert recorded == [3, 3]


@pytest.mark.parametrize("is_local", [True, False])
def test_in_an_object_store_the_recorder_deletes_a_trials_checkpoint_in_place_of_tune(
    is_local: bool, tmp_path: Path
) -> None:
    journal, deleted = Journal(tmp_path), list[str]()
    journal_lines.begin(journal, 0)
    stopper = SearchStopper(tiny(tmp_path), tmp_path, None, [])
    recorder = TrialRecorder(stopper.spec, journal, stopper, deleted.append)
    callback = JournalCallback(recorder, Path("bucket/run"), RayWatch(), may_tune_delete=is_local)
    trial = Trial("unknown", stub=True, config={"trial": 0})
    callback.on_trial_start(1, [], trial)
    assert trial.run_metadata.checkpoint_manager.checkpoint_config.num_to_keep == (1 if is_local else None)
    for epoch in (1, 2):
        trial.update_last_result({"training_iteration": epoch})
        callback.on_checkpoint(1, [], trial, SimpleNamespace(path=f"bucket/run/trials/trial_00000/{epoch}"))
    assert deleted == ([] if is_local else ["trials/trial_00000/1/trainer.pt"])
