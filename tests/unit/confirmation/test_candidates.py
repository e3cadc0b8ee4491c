import re
from pathlib import Path

import pytest

from tests.support.journals import BEST, write_search
from tune_cure.confirmation import job_config
from tune_cure.confirmation.candidates import BASELINES, CandidateError, choose_candidates, explain_baselines
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.search.space.loading import load
from tune_cure.training.config import TrainingConfig


@pytest.fixture
def result(tmp_path: Path) -> SearchResult:
    write_search(tmp_path)
    return SearchResult(tmp_path)


def test_the_leaders_come_first_and_then_the_baselines(result: SearchResult) -> None:
    chosen = choose_candidates(result, 2, ["start_from", "fgsm", "ablation"])
    assert [one.name for one in chosen] == [f"trial-{BEST}", chosen[1].name, "start_from", "fgsm", "ablation"]
    assert [one.kind for one in chosen] == ["leader"] * 2 + ["baseline"] * 3
    leader, _, start, fgsm, ablation = (one.config for one in chosen)
    at_the_judged_radius = {"epsilon": result.spec.evaluation.epsilon}
    row = result.trials.set_index("trial").loc[BEST]
    assert leader.lambda_ == row["lambda"]
    assert (leader.h, leader.lr_max, leader.momentum) == (row["h"], row["lr_max"], row["momentum"])
    assert (start.lambda_, start.h, start.lr_max) == (10, 1, 0.1)
    assert fgsm == start.model_copy(update={"lambda_": 0.0, **at_the_judged_radius})
    assert ablation == leader.model_copy(update={"lambda_": 0.0})


def test_trials_that_did_not_end_soundly_are_no_leaders(result: SearchResult) -> None:
    names = [one.name for one in choose_candidates(result, 100, [])]
    assert not {"trial-5", "trial-9", "trial-13"} & set(names)
    assert len(names) == 21


def test_a_configuration_that_the_search_trained_twice_is_one_leader(result: SearchResult) -> None:
    before = [one.name for one in choose_candidates(result, 3, [])]
    copied = int(before[1].removeprefix("trial-"))
    result.proposals[copied] = dict(result.proposals[BEST])
    names = [one.name for one in choose_candidates(result, 2, [])]
    assert names == [before[0], before[2]]


def test_a_baseline_equal_to_a_leader_is_left_out(result: SearchResult) -> None:
    names = [one.name for one in choose_candidates(result, 100, list(BASELINES))]
    assert "trial-0" in names  # the configuration of start_from
    assert "start_from" not in names
    assert {"fgsm", "ablation"} <= set(names)
    omitted = explain_baselines(result, choose_candidates(result, 100, ["start_from"]), ["start_from"])
    assert omitted == ["start_from is left out: its configuration is that of trial-0"]


def test_the_ablation_is_not_left_out_for_a_baseline_that_equals_it(result: SearchResult) -> None:
    start = result.proposals[BEST] | {"lambda": 0.0}
    result.spec = result.spec.model_copy(update={"start_from": [start]})
    chosen = choose_candidates(result, 1, ["start_from", "ablation"])
    assert [one.name for one in chosen] == [f"trial-{BEST}", "ablation"]
    omitted = explain_baselines(result, chosen, ["start_from", "ablation"])
    assert omitted == ["start_from is left out: its configuration is that of ablation"]


def test_a_leader_that_is_the_winner_without_its_penalty_is_the_ablation(result: SearchResult) -> None:
    second = int(choose_candidates(result, 2, [])[1].name.removeprefix("trial-"))
    result.proposals[second] = result.proposals[BEST] | {"lambda": 0.0}
    chosen = choose_candidates(result, 3, ["ablation"])
    names = [one.name for one in chosen]
    assert names[0] == f"trial-{BEST}" and names[-1] == "ablation" and len(names) == 3
    assert f"trial-{second}" not in names
    assert chosen[-1].description == f"the winner without the penalty, as trial {second}"


def test_without_start_from_the_winner_takes_its_place(tmp_path: Path) -> None:
    write_search(tmp_path)
    (tmp_path / run_files.SPEC).write_text(load(tmp_path / "space.yaml", ["start_from=[]"]).to_yaml())
    chosen = choose_candidates(SearchResult(tmp_path), 1, ["start_from", "fgsm", "ablation"])
    assert [one.name for one in chosen] == [f"trial-{BEST}", "fgsm", "ablation"]
    assert chosen[1].config == chosen[0].config.model_copy(update={"lambda_": 0.0, "epsilon": 0.15})
    assert chosen[2].config == chosen[0].config.model_copy(update={"lambda_": 0.0})
    omitted = explain_baselines(SearchResult(tmp_path), chosen, ["start_from", "fgsm", "ablation"])
    assert omitted == ["start_from is left out: the search has none"]


def test_a_search_without_a_sound_trial_has_no_candidates(tmp_path: Path) -> None:
    write_search(tmp_path, 2, judged=False)
    with pytest.raises(CandidateError, match="nothing to confirm"):
        choose_candidates(SearchResult(tmp_path), 3, ["fgsm"])


def test_the_pgd_baseline_trains_as_the_winner_does_by_madrys_attack_at_the_judged_radius(result: SearchResult) -> None:
    winner, pgd = choose_candidates(result, 1, ["pgd"])
    assert pgd.config == winner.config.model_copy(
        update={"lambda_": 0.0, "attack": "pgd", "attack_steps": 7, "epsilon": result.spec.evaluation.epsilon}
    )
    assert pgd.description.startswith("PGD adversarial training at epsilon 0.15 (38.2/255), 7 steps")


def test_other_losses_and_norms_of_the_search_are_not_those_of_the_pgd_baseline(tmp_path: Path) -> None:
    write_search(tmp_path)
    changed = ["training.trades_weight=6", "training.clean_weight=1", "evaluation.norm=l2", "evaluation.epsilon=0.5"]
    (tmp_path / run_files.SPEC).write_text(load(tmp_path / "space.yaml", changed).to_yaml())
    _, pgd = choose_candidates(SearchResult(tmp_path), 1, ["pgd"])
    assert (pgd.config.trades_weight, pgd.config.clean_weight, pgd.config.adversarial_weight) == (0, 0, 1)
    assert (pgd.config.norm, pgd.config.epsilon) == ("l2", 0.5)


@pytest.mark.parametrize("baseline", ["fgsm", "pgd"])
@pytest.mark.parametrize("weight", ["clean", "trades", "boosted", "mart", "hat"])
def test_plain_baselines_train_on_the_cross_entropy_alone_also_in_a_search_without_a_method(
    weight: str, baseline: str, tmp_path: Path
) -> None:
    write_search(tmp_path)
    changed = [f"training.{weight}_weight=1", "training.attack=guided", "training.awp_gamma=0.01"]
    changed += ["training.adversarial_weight=0"] if weight == "clean" else []
    (tmp_path / run_files.SPEC).write_text(load(tmp_path / "space.yaml", changed).to_yaml())
    _, plain = choose_candidates(SearchResult(tmp_path), 1, [baseline])
    assert (plain.config.attack, plain.config.lambda_, plain.config.adversarial_weight) == (baseline, 0, 1)
    assert getattr(plain.config, f"{weight}_weight") == 0
    assert plain.config.awp_gamma == 0


def test_a_step_in_pixel_units_grows_with_the_radius_of_the_fgsm_baseline(tmp_path: Path) -> None:
    write_search(tmp_path)
    changed = ["training.epsilon=0.05", "training.step_size=0.06"]
    (tmp_path / run_files.SPEC).write_text(load(tmp_path / "space.yaml", changed).to_yaml())
    _, fgsm = choose_candidates(SearchResult(tmp_path), 1, ["fgsm"])
    assert (fgsm.config.epsilon, fgsm.config.step_size) == (0.15, pytest.approx(0.18))


@pytest.mark.parametrize("change", ["regularizer=none", "lambda=0"])
def test_a_winner_without_a_penalty_has_no_ablation(change: str, tmp_path: Path) -> None:
    write_search(tmp_path)
    changed = [f"training.{change}"]
    if change == "lambda=0":
        changed += ["space={h: {uniform: [0.1, 2.0]}, lr_max: {loguniform: [0.02, 0.5]}, momentum: {choice: [0, 0.9]}}"]
        changed += ["start_from=[]"]
        journal = (tmp_path / run_files.JOURNAL).read_text()
        (tmp_path / run_files.JOURNAL).write_text(re.sub(r'"lambda": [0-9.e-]+, ', "", journal))
    (tmp_path / run_files.SPEC).write_text(load(tmp_path / "space.yaml", changed).to_yaml())
    result = SearchResult(tmp_path)
    chosen = choose_candidates(result, 1, ["ablation", "pgd"])
    assert [one.name for one in chosen] == [f"trial-{BEST}", "pgd"]
    omitted = explain_baselines(result, chosen, ["ablation", "pgd"])
    assert omitted == [f"ablation is left out: trial {BEST}, the winner, trains without a penalty"]


def begin(result: SearchResult, name: str, config: TrainingConfig) -> None:
    """Write the config.yaml of a job that trains `config` under a name."""
    folder = result.directory / run_files.CONFIRM / name / "seed-1"
    folder.mkdir(parents=True)
    content = job_config.JobConfig(
        contender=name, seed=1, train_images=9, data=result.spec.data, model=result.spec.model, training=config
    )
    (folder / run_files.JOB_CONFIG).write_text(content.to_yaml())


def test_an_fgsm_baseline_that_version_0_1_0_began_goes_on_at_its_own_radius(result: SearchResult) -> None:
    start = result.spec.training_config(result.spec.start_from[0] | {"lambda": 0.0})
    begin(result, "fgsm", start)
    chosen = choose_candidates(result, 1, ["fgsm"])
    assert (chosen[1].name, chosen[1].config) == ("fgsm", start)
    (sentence,) = explain_baselines(result, chosen, ["fgsm"])
    assert sentence.startswith("fgsm goes on with epsilon 0.03137 (8/255) in training, as an earlier version began it")


@pytest.mark.parametrize("name", ["ablation", "pgd"])
def test_a_baseline_of_another_winner_keeps_its_folder_and_the_new_one_has_a_name_of_its_own(
    name: str, result: SearchResult
) -> None:
    winner, baseline = choose_candidates(result, 1, [name])
    begin(result, name, baseline.config)
    assert choose_candidates(result, 1, [name])[1] == baseline
    begin(result, f"{name}-of-trial-{BEST}", baseline.config)
    other = baseline.config.model_copy(update={"lr_max": 0.123})
    config = result.directory / run_files.CONFIRM / name / "seed-1" / run_files.JOB_CONFIG
    config.write_text(config.read_text().replace(f"lr_max: {baseline.config.lr_max}", f"lr_max: {other.lr_max}"))
    renamed = choose_candidates(result, 1, [name])[1]
    assert (renamed.name, renamed.config) == (f"{name}-of-{winner.name}", baseline.config)


def test_the_plain_baselines_of_a_method_are_those_of_the_papers(tmp_path: Path) -> None:
    """NuAT's loss has the clean cross-entropy alone; with it, FGSM would train on clean images."""
    write_search(tmp_path)
    (tmp_path / run_files.SPEC).write_text(load(tmp_path / "space.yaml", ["training.method=nuat"]).to_yaml())
    chosen = {one.name: one.config for one in choose_candidates(SearchResult(tmp_path), 1, list(BASELINES))}
    for name, attack in (("fgsm", "fgsm"), ("pgd", "pgd")):
        config = chosen[name]
        assert (config.attack, config.regularizer, config.lambda_) == (attack, "none", 0)
        assert (config.adversarial_weight, config.clean_weight) == (1, 0)
        assert config.epsilon == 0.15
    assert (chosen["fgsm"].method, chosen["fgsm"].init, chosen["fgsm"].alpha) == ("fgsm_rs", "uniform", 1.25)
    assert (chosen["pgd"].method, chosen["pgd"].attack_steps) == ("pgd", 7)
    assert chosen["ablation"].method == "nuat"
