import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import FloatDistribution
from optuna.samplers import GPSampler
from optuna.trial import TrialState

from tests.support.sampler_studies import make_proposer, propose
from tests.support.spaces import tiny
from tune_cure.search.proposals import samplers
from tune_cure.search.proposals.gp_sampler import StoppedTrialsGPSampler, fit_process
from tune_cure.search.proposals.outcome import REACHED, STATUS

SPACE = {"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)}
STOP, LAST = 3, 9
NUMBERS = np.array([False, False])


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def curve(x: float) -> dict[int, float]:
    """A learning curve that begins worse and ends better with a larger x."""
    return {STOP: 0.5 - 0.2 * x, LAST: 0.5 + 0.3 * x}


def add(
    study: optuna.Study,
    x: float,
    y: float,
    status: str,
    values: dict[int, float] | None = None,
    *,
    reached: float | None = None,
) -> None:
    """Add an ended trial to a study; a stopped one has its values up to `STOP`."""
    values = values or curve(x)
    if status != "completed":
        values = {epoch: value for epoch, value in values.items() if epoch <= STOP}
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.COMPLETE if status == "completed" else TrialState.PRUNED,
            value=values[LAST] if status == "completed" else None,
            params={"x": x, "y": y},
            distributions=SPACE,
            intermediate_values=values,
            user_attrs={STATUS: status} if reached is None else {STATUS: status, REACHED: reached},
        )
    )


def make_study(sampler: optuna.samplers.BaseSampler, direction: str = "maximize") -> optuna.Study:
    return optuna.create_study(direction=direction, sampler=sampler)


def predicted(study: optuna.Study, sign: float = 1.0) -> Any:
    """The final values of a study's trials, complete ones first."""
    space = samplers_space()
    ended = {state: study.get_trials(states=[state]) for state in (TrialState.COMPLETE, TrialState.PRUNED)}
    return study.sampler._predict_all(space, *ended.values(), sign)  # type: ignore[attr-defined]


def samplers_space() -> Any:
    from optuna._gp.search_space import SearchSpace

    return SearchSpace(SPACE)


POINTS = [(0.05, 0.4), (0.2, 0.9), (0.35, 0.1), (0.5, 0.6), (0.65, 0.3), (0.8, 0.8), (0.95, 0.2)]


def test_the_final_value_of_a_stopped_trial_is_predicted_from_the_gains_of_trials_like_it() -> None:
    study = make_study(StoppedTrialsGPSampler(0))
    for x, y in POINTS:
        add(study, x, y, "completed")
    for x in (0.3, 0.7):
        add(study, x, 0.5, "stopped")
    finals = predicted(study)
    assert finals.means[: len(POINTS)] == pytest.approx([curve(x)[LAST] for x, _ in POINTS])
    assert not finals.variances[: len(POINTS)].any()
    assert finals.means[len(POINTS) :] == pytest.approx([curve(0.3)[LAST], curve(0.7)[LAST]], abs=0.03)
    assert curve(0.7)[STOP] < curve(0.3)[STOP], "although the better one had less when it was stopped"


def test_a_predicted_value_is_the_less_certain_the_farther_the_trial_is_from_complete_ones() -> None:
    study = make_study(StoppedTrialsGPSampler(0))
    for x, y in POINTS[:5]:
        add(study, x / 2, y, "completed")
    for x in (0.2, 1.0):
        add(study, x, 0.5, "stopped")
    near, far = predicted(study).variances[-2:]
    assert 0 < near < far


def test_less_is_better_where_the_study_says_so() -> None:
    up, down = make_study(StoppedTrialsGPSampler(0)), make_study(StoppedTrialsGPSampler(0), "minimize")
    for study, sign in ((up, 1), (down, -1)):
        for x, y in POINTS:
            add(study, x, y, "completed", {epoch: sign * value for epoch, value in curve(x).items()})
        add(study, 0.3, 0.5, "stopped", {epoch: sign * value for epoch, value in curve(0.3).items()})
    assert predicted(down, -1.0).means == pytest.approx(predicted(up).means)


def test_trials_that_overfitted_count_at_most_as_the_worst_complete_one() -> None:
    study = make_study(StoppedTrialsGPSampler(0))
    for x, y in POINTS[:4]:
        add(study, x, y, "completed")
    add(study, 0.9, 0.5, "catastrophic_overfitting", {1: 0.9, STOP: 0.9})
    add(study, 0.9, 0.6, "diverged", {1: 0.1})
    worst = curve(POINTS[0][0])[LAST]
    finals = predicted(study)
    assert finals.means[4:] == pytest.approx([worst, 0.1])
    assert not finals.variances.any()


def test_what_an_overfitted_trial_had_reached_counts_where_the_study_was_told_the_worst() -> None:
    study = make_study(StoppedTrialsGPSampler(0))
    for x, y in POINTS[:4]:
        add(study, x, y, "completed")
    add(study, 0.9, 0.5, "catastrophic_overfitting", {1: 0.4, STOP: 0.0}, reached=0.4)
    add(study, 0.9, 0.6, "diverged", {1: 0.0}, reached=0.9)
    assert predicted(study).means[4:] == pytest.approx([0.4, curve(POINTS[0][0])[LAST]])


def test_a_trial_that_was_stopped_where_no_gain_is_known_is_left_out() -> None:
    study = make_study(StoppedTrialsGPSampler(0))
    for x, y in POINTS[:6]:
        add(study, x, y, "completed")
    add(study, 0.3, 0.5, "stopped", {2: 0.4})
    assert len(predicted(study).means) == 6


def test_without_stopped_trials_the_proposals_are_those_of_optuna() -> None:
    proposals = []
    for sampler in (StoppedTrialsGPSampler(3), GPSampler(seed=3)):
        study = make_study(sampler)
        for _ in range(12):
            trial = study.ask(SPACE)
            proposals.append(trial.params)
            study.tell(trial, -((trial.params["x"] - 0.3) ** 2))
    assert proposals[:12] == proposals[12:]


def test_it_learns_from_four_complete_trials_where_others_were_stopped() -> None:
    """Optuna's sampler draws at random until ten trials have run to their end."""
    asked = []
    for sampler in (StoppedTrialsGPSampler(0), GPSampler(seed=0)):
        study = make_study(sampler)
        for x, y in POINTS[3:]:
            add(study, x, y, "completed")
        for x, y in POINTS:
            add(study, x / 3, y, "stopped")
        study.ask(SPACE)  # a running trial
        asked.append(study.ask(SPACE).params)
    assert asked[0]["x"] > 0.9
    assert asked[1]["x"] < 0.9


def test_an_observation_of_great_variance_changes_nothing_and_one_of_none_is_as_in_optuna() -> None:
    points = np.array([[0.1, 0.2], [0.5, 0.9], [0.9, 0.4]])
    values, at = np.array([-1.0, 0.0, 1.0]), torch.tensor([[0.3, 0.3], [0.8, 0.6]], dtype=torch.float64)
    start = fit_process(points, values, NUMBERS, np.zeros(3), None)
    known = type(start)(points, values, NUMBERS, np.zeros(3), start)
    more = type(start)(
        np.concatenate([points, [[0.3, 0.3]]]), np.append(values, 5.0), NUMBERS, np.array([0.0, 0, 0, 1e9]), start
    )
    optunas = type(start).__base__(
        torch.from_numpy(NUMBERS), torch.from_numpy(points), torch.from_numpy(values),
        start.inverse_squared_lengthscales, start.kernel_scale, start.noise_var,
    )  # fmt: skip
    for process in (known, more, optunas):
        process._cache_matrix()
    for moment, other, third in zip(known.posterior(at), more.posterior(at), optunas.posterior(at), strict=True):
        assert other.numpy() == pytest.approx(moment.numpy(), abs=1e-6)
        assert third.numpy() == pytest.approx(moment.numpy(), abs=1e-12)


def test_a_resumed_search_predicts_the_same_final_values(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.sampler=gp", "search.trials=30", "start_from=[]")
    proposer = make_proposer(spec, tmp_path)
    for number in range(12):
        x = propose(proposer).hyperparameters["h"]
        last, status = (4, "completed") if number < 6 else (2, "stopped" if number < 11 else "diverged")
        for epoch in range(1, last + 1):
            value = 0.3 + 0.02 * epoch * x
            metrics = {
                "objective": value, "pgd_accuracy": value, "pgd_accuracy_best": value, "clean_accuracy": value,
                "curvature": None, "catastrophic_overfitting": None, "train_seconds": 1.0, "eval_seconds": 1.0,
                "skipped_steps": 0, "host": "here", "pid": 1,
            }  # fmt: skip
            proposer.journal.append("epoch", number, epoch=epoch, ended="completed" * (epoch == 4), **metrics)
            if epoch < last:
                proposer.report(number, epoch, value)
        proposer.journal.append("end", number, status=status, reason="")
        proposer.tell(number, status, last, {"objective": value})
    resumed = make_proposer(spec, tmp_path)
    for before, after in zip(proposer.study.trials, resumed.study.trials, strict=True):
        assert (before.params, before.state, before.intermediate_values) == (
            after.params, after.state, after.intermediate_values,
        )  # fmt: skip
        assert before.user_attrs[STATUS] == after.user_attrs[STATUS]
        assert before.user_attrs.get(REACHED) == after.user_attrs.get(REACHED)


def test_an_optuna_without_the_private_names_leaves_stopped_trials_out_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "tune_cure.search.proposals.gp_sampler", None)
    assert type(samplers.make_sampler("gp", 0, 0)) is GPSampler
    assert "gp learns from trials that ran to their end alone" in caplog.text
