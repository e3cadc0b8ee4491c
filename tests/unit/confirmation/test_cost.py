import dataclasses
from pathlib import Path

import pytest

from tests.support.confirmations import NUM_IMAGES, PLAN, write_outcomes, write_quick_search
from tune_cure.confirmation.candidates import choose_candidates
from tune_cure.confirmation.cost import Cost, estimate_costs, leave_out_done
from tune_cure.confirmation.plan import Plan, plan_jobs
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult

BASELINES = ["start_from", "ablation", "pgd"]


@pytest.fixture
def result(tmp_path: Path) -> SearchResult:
    """A search each of whose epochs trained 0.5 s: 0.1 s of attack, 0.2 s of penalty."""
    return write_quick_search(tmp_path)


def costs(result: SearchResult, plan: Plan = PLAN, num_classes: int = 10) -> dict[str, Cost]:
    jobs = plan_jobs(result, choose_candidates(result, 1, BASELINES), plan)
    return estimate_costs(result, jobs, num_searched=100, num_classes=num_classes)


def test_training_takes_what_the_search_took_without_the_penalty_and_with_the_steps_of_the_attack(
    result: SearchResult,
) -> None:
    train = {name: cost.training for name, cost in costs(result).items()}
    scale = 2 * PLAN.train_images / 100  # epochs, and images for each of the search's
    assert train["trial-2"] == pytest.approx(0.5 * scale)
    assert train["start_from"] == pytest.approx(0.5 * scale)
    assert train["ablation"] == pytest.approx(0.3 * scale)
    assert train["pgd"] == pytest.approx((0.2 + 7 * 0.1) * scale)


def test_judging_grows_with_images_and_radii_and_autoattack_takes_a_multiple(result: SearchResult) -> None:
    without = costs(result)["trial-2"]
    assert without.autoattack == 0
    assert without.total == without.training + without.pgd
    plan = dataclasses.replace(PLAN, examples=60, epsilons=(0.15, 0.05), autoattack=True)
    whole = costs(result, plan)["trial-2"]
    assert whole.pgd == pytest.approx(4 * without.pgd)
    assert whole.autoattack == pytest.approx(11 * whole.pgd)
    assert costs(result, plan, num_classes=3)["trial-2"].autoattack == pytest.approx(3.5 * whole.pgd)


def test_a_search_that_recorded_no_times_has_no_costs(result: SearchResult) -> None:
    file = result.directory / run_files.JOURNAL
    file.write_text(file.read_text().replace('"eval_seconds": 0.1', '"eval_seconds": null'))
    assert costs(SearchResult(result.directory)) == {}


def test_best_weights_take_an_evaluation_an_epoch_and_a_second_judgement_unless_the_last_epoch_was_best(
    result: SearchResult,
) -> None:
    with_best = costs(result, dataclasses.replace(PLAN, held_out=50))
    for name, cost in costs(result).items():
        assert with_best[name].training == pytest.approx(cost.training + 2 * 0.1)  # two epochs
        trial = 0 if name == "start_from" else 2
        epochs = result.epochs[result.epochs["trial"].eq(trial)]["pgd_accuracy"]
        times = 1 if epochs.idxmax() == epochs.index[-1] else 2
        assert with_best[name].pgd == pytest.approx(times * cost.pgd)


def test_what_a_run_has_done_already_takes_no_time_again(result: SearchResult) -> None:
    plan = dataclasses.replace(PLAN, autoattack=True, examples=NUM_IMAGES)
    job = plan_jobs(result, choose_candidates(result, 1, []), plan)[0]
    whole = Cost(training=10.0, pgd=2.0, autoattack=20.0)
    assert leave_out_done(whole, job) == whole
    write_outcomes(job, 0.5, autoattack=False)
    assert leave_out_done(whole, job) == Cost(training=0.0, pgd=0.0, autoattack=20.0)
