from pathlib import Path

import pytest

from tests.support.journals import BEST, write_search
from tune_cure.confirmation.candidates import BASELINES, CandidateError, choose_candidates
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.search.space.loading import load


@pytest.fixture
def result(tmp_path: Path) -> SearchResult:
    write_search(tmp_path)
    return SearchResult(tmp_path)


def test_the_leaders_come_first_and_then_the_baselines(result: SearchResult) -> None:
    chosen = choose_candidates(result, 2, ["start_from", "fgsm", "ablation"])
    assert [one.name for one in chosen] == [f"trial-{BEST}", chosen[1].name, "start_from", "fgsm", "ablation"]
    assert [one.kind for one in chosen] == ["leader"] * 2 + ["baseline"] * 3
    leader, _, start, fgsm, ablation = (one.config for one in chosen)
    row = result.trials.set_index("trial").loc[BEST]
    assert leader.lambda_ == row["lambda"]
    assert (leader.h, leader.lr_max, leader.momentum) == (row["h"], row["lr_max"], row["momentum"])
    assert (start.lambda_, start.h, start.lr_max) == (10, 1, 0.1)
    assert fgsm == start.model_copy(update={"lambda_": 0.0})
    assert ablation == leader.model_copy(update={"lambda_": 0.0})


def test_trials_that_did_not_end_soundly_are_no_leaders(result: SearchResult) -> None:
    names = [one.name for one in choose_candidates(result, 100, [])]
    assert not {"trial-5", "trial-9", "trial-13"} & set(names)
    assert len(names) == 21


def test_a_baseline_equal_to_a_leader_is_left_out(result: SearchResult) -> None:
    names = [one.name for one in choose_candidates(result, 100, list(BASELINES))]
    assert "trial-0" in names  # the configuration of start_from
    assert "start_from" not in names
    assert {"fgsm", "ablation"} <= set(names)


def test_without_start_from_the_winner_takes_its_place(tmp_path: Path) -> None:
    write_search(tmp_path)
    (tmp_path / run_files.SPEC).write_text(load(tmp_path / "space.yaml", ["start_from=[]"]).to_yaml())
    chosen = choose_candidates(SearchResult(tmp_path), 1, ["start_from", "fgsm", "ablation"])
    assert [one.name for one in chosen] == [f"trial-{BEST}", "fgsm"]
    assert chosen[1].config == chosen[0].config.model_copy(update={"lambda_": 0.0})


def test_a_search_without_a_sound_trial_has_no_candidates(tmp_path: Path) -> None:
    write_search(tmp_path, 2, judged=False)
    with pytest.raises(CandidateError, match="nothing to confirm"):
        choose_candidates(SearchResult(tmp_path), 3, ["fgsm"])
