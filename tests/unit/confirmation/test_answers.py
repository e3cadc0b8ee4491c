from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.confirmations import NUM_IMAGES, finish, plan_quick_jobs, write_best_outcomes, write_outcomes
from tune_cure.confirmation.answers import answer, chance_warnings, divergence_warnings
from tune_cure.confirmation.outcomes import read_outcomes
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.evaluation.names import ATTACKS
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.utils.files import replace_arrays

BASELINES = ("start_from", "ablation", "fgsm", "pgd")


@pytest.mark.parametrize(
    ("leader", "ablation", "words"),
    [
        (0.6, 0.4, "CURE helped: trial-2 has "),
        (0.4, 0.6, "CURE did not help, it hurt: trial-2 has "),
        (0.5, 0.5, "Whether CURE helped cannot be told: trial-2 has "),
    ],
)
def test_the_first_sentence_says_whether_the_penalty_helped(
    leader: float, ablation: float, words: str, tmp_path: Path
) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES)
    confirmation = finish(jobs, leader=leader, ablation=ablation, fgsm=0.1)
    first = answer(confirmation, SearchResult(tmp_path))[0]
    row = confirmation.comparisons().query("second == 'ablation' and metric == 'autoattack'").iloc[0]
    assert first.startswith(words)
    interval = f"(95% interval {100 * row['low']:+.1f} to {100 * row['high']:+.1f})".replace("-", "−")
    assert interval in first
    assert " and ablation, the same without it, " in first
    assert "under AutoAttack at epsilon 0.15 (38.2/255)" in first
    assert "with 3 seeds and 400 test images." in first


def test_the_answer_stands_by_itself_and_the_other_pairs_are_adjusted_together(tmp_path: Path) -> None:
    comparisons = finish(plan_quick_jobs(tmp_path, BASELINES), leader=0.52).comparisons()
    rows = comparisons[comparisons["metric"].eq("autoattack")]
    is_question = rows["first"].eq("trial-2") & rows["second"].eq("ablation")
    assert (rows["p_value_holm"] == rows["p_value"])[is_question].all()
    others = rows[~is_question]
    assert len(others) == 8  # two leaders against four baselines and each other, without the question
    assert others["p_value_holm"].min() == pytest.approx(min(1, 8 * others["p_value"].min()))


def test_what_the_penalty_cost_in_time_comes_next(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES)
    for job in jobs:
        write_outcomes(job, 0.5, seconds={"ablation": 40.0, "pgd": 120.0}.get(job.candidate.name, 100.0))
    sentences = answer(Confirmation(jobs), SearchResult(tmp_path))
    assert sentences[1] == (
        "The shortest training run of trial-2 took 1 min 40 s, that of ablation 40 s, 2.5 times as long."
    )
    assert sentences[2].startswith("Against PGD adversarial training (pgd), it cannot be told which is better: ")
    assert sentences[2].endswith("took 1 min 40 s, that of pgd 2 min 0 s, 0.8 times as long.")


def test_short_training_runs_have_the_digits_that_their_ratio_needs(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES)
    for job in jobs:
        write_outcomes(job, 0.5, seconds={"ablation": 1.68}.get(job.candidate.name, 5.87))
    assert answer(Confirmation(jobs), SearchResult(tmp_path))[1] == (
        "The shortest training run of trial-2 took 5.9 s, that of ablation 1.7 s, 3.5 times as long."
    )


def test_a_run_that_diverged_early_is_not_the_shortest(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES)
    for job in jobs:
        write_outcomes(job, 0.5, seconds=100.0)
    diverged = next(job for job in jobs if job.candidate.name == "trial-2")
    model = torch.load(diverged.folder / run_files.JOB_MODEL, weights_only=True)
    torch.save({**model, "weights": {}, "train_seconds": 4.0}, diverged.folder / run_files.JOB_MODEL)
    confirmation = Confirmation(jobs)
    assert answer(confirmation, SearchResult(tmp_path))[1].startswith(
        "The shortest training run of trial-2 took 1 min 40 s, "
    )
    assert divergence_warnings(confirmation) == ["trial-2, seed 1, diverged. All its images count as misclassified."]


def test_only_the_baseline_pgd_stands_for_pgd_training(tmp_path: Path) -> None:
    confirmation = finish(plan_quick_jobs(tmp_path, ("ablation", "pgd")))
    assert any("Against PGD adversarial training" in text for text in answer(confirmation, SearchResult(tmp_path)))
    is_pgd = confirmation.table["contender"].eq("pgd")
    confirmation.table.loc[is_pgd, "kind"] = "candidate"  # a trained network of this name
    assert not any("Against PGD adversarial training" in text for text in answer(confirmation, SearchResult(tmp_path)))


@pytest.mark.parametrize("kind", ["leader", "baseline", "candidate", "winner"])
def test_robust_accuracy_at_chance_is_warned_of_for_each_kind_of_candidate(kind: str, tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path)
    for job in jobs:
        write_outcomes(job, 0.05 if job.candidate.name == "fgsm" else 0.8, chance=0.1)
    confirmation = Confirmation(jobs)
    confirmation.table["clean"] = 0.9
    confirmation.table.loc[confirmation.table["contender"].eq("fgsm"), "kind"] = kind
    (warning,) = chance_warnings(confirmation)
    assert warning.startswith("Not clearly above chance under AutoAttack: fgsm. Chance is 10.0%, ")


def test_without_an_ablation_the_answer_is_not_known_and_the_baseline_that_gives_it_is_named(tmp_path: Path) -> None:
    first = answer(finish(plan_quick_jobs(tmp_path)), SearchResult(tmp_path))[0]
    assert first == (
        "Whether CURE helped is not known: no run without it has been judged. tune-cure confirm with the baseline "
        "ablation measures it."
    )


def test_networks_at_chance_answer_nothing(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES)
    for job in jobs:
        write_outcomes(job, 0.34 if job.candidate.name in ("trial-2", "ablation") else 0.8, chance=1 / 3)
    confirmation = Confirmation(jobs)
    assert answer(confirmation, SearchResult(tmp_path))[0].startswith(
        "Whether CURE helped cannot be told, because neither trial-2 nor ablation is clearly above chance without "
        "attack: trial-2 has 3"
    )
    (warning,) = chance_warnings(confirmation)
    assert warning.startswith("Not clearly above chance without attack: trial-2 and ablation. Chance is 33.3%, ")


@pytest.mark.parametrize("fixed", ["trial-2", "ablation"])
def test_a_network_that_always_gives_one_answer_is_not_better_than_one_that_has_learned(
    fixed: str, tmp_path: Path
) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES)
    for job in jobs:
        write_outcomes(job, 0.7 if job.candidate.name == fixed else 0.5, chance=0.7)
    confirmation = Confirmation(jobs)
    confirmation.table.loc[confirmation.table["contender"].ne(fixed), "clean"] = 0.9
    (row,) = (
        confirmation.comparisons()
        .query("second == 'ablation' and metric == 'autoattack' and first == 'trial-2'")
        .to_dict("records")
    )
    assert row["verdict"] != "cannot tell"
    first, _, pgd = answer(confirmation, SearchResult(tmp_path))
    doubt = f", because {fixed} is not clearly above chance without attack: trial-2 has "
    assert first.startswith(f"Whether CURE helped cannot be told{doubt}")
    assert ("it cannot be told which is better" + doubt in pgd) == (fixed == "trial-2")


def test_networks_that_withstand_less_than_one_fixed_answer_under_attack_answer_nothing(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES)
    for job in jobs:
        write_outcomes(job, 0.5 if job.candidate.name == "trial-2" else 0.2, chance=0.7)
    confirmation = Confirmation(jobs)
    confirmation.table["clean"] = 0.9
    assert answer(confirmation, SearchResult(tmp_path))[0].startswith(
        "Whether CURE helped cannot be told, because neither trial-2 nor ablation is clearly above chance under "
        "AutoAttack: trial-2 has "
    )


@pytest.mark.parametrize(
    ("autoattack", "square_breaks", "zero_gradient", "is_doubted"),
    [(True, 60, 0.0, True), (True, 0, 0.6, True), (False, 0, 0.6, True), (True, 0, 0.0, False)],
)
def test_a_winner_whose_gradients_may_be_masked_is_not_better(
    autoattack: bool, square_breaks: int, zero_gradient: float, is_doubted: bool, tmp_path: Path
) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES)
    for job in jobs:
        write_outcomes(job, 0.8 if job.candidate.name == "trial-2" else 0.4, autoattack=autoattack)
        if job.candidate.name == "trial-2":
            file = job.outcome_folder(0.15) / run_files.OUTCOMES
            arrays = read_outcomes(file, NUM_IMAGES)
            if autoattack:
                arrays["autoattack"][np.flatnonzero(arrays["autoattack"])[:square_breaks]] = False
            replace_arrays(file, arrays | {"zero_gradient": np.array(zero_gradient)})
    confirmation = Confirmation(jobs)
    assert bool(confirmation.masking_warnings()) == is_doubted
    first, _, pgd = answer(confirmation, SearchResult(tmp_path))
    doubt = ", because trial-2 has signs of masked gradients and may be less robust than it seems: trial-2 has "
    assert first.startswith(f"Whether CURE helped cannot be told{doubt}" if is_doubted else "CURE helped: trial-2 has ")
    assert (f"it cannot be told which is better{doubt}" in pgd) == is_doubted


def test_a_sign_that_autoattack_settles_leaves_the_verdict(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES)
    for job in jobs:
        write_outcomes(job, 0.8 if job.candidate.name == "trial-2" else 0.4)
        if job.candidate.name == "trial-2":
            file = job.outcome_folder(0.15) / run_files.OUTCOMES
            arrays = read_outcomes(file, NUM_IMAGES)
            strong = ("apgd_ce", "apgd_t", "fab_t", "autoattack")
            weaker = arrays["autoattack"] & (np.arange(NUM_IMAGES) % 5 > 0)
            replace_arrays(file, arrays | dict.fromkeys(strong, weaker))
    confirmation = Confirmation(jobs)
    (warning,) = [text for _, text in confirmation.masking_warnings()]
    assert warning.startswith("PGD-50-10 accuracy is up to ")
    assert answer(confirmation, SearchResult(tmp_path))[0].startswith("CURE helped: trial-2 has ")


def test_a_learned_winner_is_better_than_an_ablation_that_always_gives_one_answer(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES)
    for job in jobs:
        write_outcomes(job, 0.1 if job.candidate.name == "ablation" else 0.5, chance=0.1)
    assert answer(Confirmation(jobs), SearchResult(tmp_path))[0].startswith("CURE helped: trial-2 has ")


def test_a_leader_is_not_taken_for_the_winner_whose_first_seed_is_missing(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES)
    winner, other = dict.fromkeys(job.candidate.name for job in jobs if job.candidate.kind == "leader")
    confirmation = finish(jobs[1:], **{other: 0.9})
    confirmation = Confirmation(jobs)
    assert confirmation.table["contender"].iloc[0] == other
    assert confirmation.question == (winner, "ablation")
    assert not any(other in sentence for sentence in answer(confirmation, SearchResult(tmp_path)))
    rows = confirmation.comparisons().query("metric == 'autoattack'").set_index(["first", "second"])
    assert (winner, other) in rows.index
    assert rows.loc[(winner, "ablation"), "seeds"] == 2
    alone = rows["p_value_holm"].eq(rows["p_value"])
    assert alone[winner, "ablation"] and not alone[other, "ablation"]


def test_without_a_run_of_the_winner_nothing_is_said_of_another_leader(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES)
    winner = jobs[0].candidate.name
    finish([job for job in jobs if job.candidate.name != winner])
    confirmation = Confirmation(jobs)
    assert confirmation.question is None
    assert answer(confirmation, SearchResult(tmp_path)) == [
        f"Whether CURE helped is not known: no run of the winner, {winner}, has been judged yet."
    ]


def test_winner_and_ablation_without_a_common_seed_are_not_compared(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES)
    finish([job for job in jobs if (job.candidate.name == "ablation") == (job.seed == 1)])
    assert answer(Confirmation(jobs), SearchResult(tmp_path))[0] == (
        "Whether CURE helped is not known: no seed of both trial-2 and ablation has been judged yet."
    )


def test_a_verdict_that_the_other_pairs_undo_says_so(tmp_path: Path) -> None:
    confirmation = finish(plan_quick_jobs(tmp_path, BASELINES), leader=0.5225, pgd=0.5)
    row = confirmation.comparisons().query("second == 'pgd' and metric == 'autoattack' and first == 'trial-2'").iloc[0]
    assert (row["low"] > 0, row["verdict"]) == (True, "cannot tell")
    pgd = answer(confirmation, SearchResult(tmp_path))[2]
    assert "it cannot be told which is better, adjusted for all pairs compared: trial-2 has " in pgd


def test_without_a_recorded_chance_level_nothing_is_said_of_chance(tmp_path: Path) -> None:
    confirmation = finish(plan_quick_jobs(tmp_path, BASELINES), leader=0.01, baseline=0.01)
    assert chance_warnings(confirmation) == []


def test_the_answer_ends_with_the_robust_overfitting_of_the_winner(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES, held_out=50)
    finish(jobs)
    for job in jobs:
        write_best_outcomes(job, 40, best_epoch=1)
    confirmation = Confirmation(jobs)
    row = confirmation.robust_overfitting().iloc[0]
    last, best = (f"{100 * row[name]:.1f}%" for name in ("last", "best"))
    interval = f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}".replace("-", "−")
    assert answer(confirmation, SearchResult(tmp_path))[-1] == (
        "Robust overfitting of trial-2: under AutoAttack, its best weights (epoch 1, 1 and 1 of 2, chosen on 50 "
        f"held-out images) have {best} and its last ones {last}, "
        f"a difference of +10.0 points (95% interval {interval})."
    )


@pytest.mark.parametrize("num_more", [0, 8])
def test_a_run_that_diverged_is_no_robust_overfitting(num_more: int, tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES, held_out=50)
    finish(jobs)
    for job in jobs:
        write_best_outcomes(job, num_more, best_epoch=1 if num_more else 2)
    (diverged,) = (job for job in jobs if job.candidate.name == "trial-2" and job.seed == 3)
    outcomes = diverged.outcome_folder(0.15) / run_files.OUTCOMES
    arrays = read_outcomes(outcomes, NUM_IMAGES)
    replace_arrays(outcomes, arrays | {name: np.zeros(NUM_IMAGES, dtype=bool) for name in ATTACKS})
    model = torch.load(diverged.folder / run_files.JOB_MODEL, weights_only=True)
    torch.save({**model, "weights": {}}, diverged.folder / run_files.JOB_MODEL)
    confirmation = Confirmation(jobs)
    row = confirmation.robust_overfitting().query("contender == 'trial-2'").iloc[0]
    assert (row["seeds"], row["difference"]) == (2, pytest.approx(num_more / NUM_IMAGES))
    found = confirmation.table.query("contender == 'trial-2'").set_index("seed")["robust_overfitting"]
    assert found.isna().tolist() == [False, False, True]
    *_, sentence, left_out = answer(confirmation, SearchResult(tmp_path))
    assert ("a difference of +2.0 points" in sentence) == bool(num_more)
    assert left_out == "Runs that diverged are left out."


def test_a_winner_whose_last_epochs_are_the_best_has_no_robust_overfitting(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES, held_out=50)
    finish(jobs)
    for job in jobs:
        write_best_outcomes(job, 0, best_epoch=2)
    assert answer(Confirmation(jobs), SearchResult(tmp_path))[-1] == (
        "Best and last weights of trial-2 are the same: in each run, the last epoch was the best."
    )
