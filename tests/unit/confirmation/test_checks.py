from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.confirmations import PLAN, write_outcomes, write_quick_search
from tune_cure.attacks.attack import Attack, Step
from tune_cure.attacks.registry import ATTACKS
from tune_cure.confirmation import checks
from tune_cure.confirmation.candidates import choose_candidates
from tune_cure.confirmation.checks import ConfirmError, check_attacks, check_disk, rehearse
from tune_cure.confirmation.plan import Job, plan_jobs
from tune_cure.data import splits as splits_module
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.models.registry import MODELS
from tune_cure.search.results import SearchResult

Usage = namedtuple("Usage", ["total", "used", "free"])  # as shutil.disk_usage returns


@pytest.fixture
def result(tmp_path: Path) -> SearchResult:
    return write_quick_search(tmp_path)


@pytest.fixture
def jobs(result: SearchResult) -> list[Job]:
    return plan_jobs(result, choose_candidates(result, 1, ["ablation", "pgd"]), PLAN)


def test_every_candidate_whose_runs_are_left_makes_a_step_and_is_rebuilt(result: SearchResult, jobs: list[Job]) -> None:
    state = torch.get_rng_state()
    sizes = rehearse(jobs, splits_module.load(result.spec.data))
    assert list(sizes) == ["trial-2", "ablation", "pgd"]
    assert all(0 < size.model < size.state for size in sizes.values())
    assert torch.equal(torch.get_rng_state(), state)
    write_outcomes(jobs[0], 0.5, autoattack=False)
    assert list(rehearse(jobs, splits_module.load(result.spec.data))) == ["ablation", "pgd"]
    assert not jobs[1].folder.exists()


@pytest.mark.parametrize("number", [-1, 0, 1])
def test_fewer_than_two_images_are_refused(number: int) -> None:
    with pytest.raises(ConfirmError, match=f"--examples {number}: at least 2 test images are needed"):
        checks.at_most(number, 100, "--examples", "test images")
    assert checks.at_most(2, 100, "--examples", "test images") == 2
    assert checks.at_most(None, 100, "--examples", "test images") == 100
    with pytest.raises(ConfirmError, match="--examples 1: at least 2 test images are needed"):
        checks.at_most(None, 1, "--examples", "test images")


def test_a_memory_of_each_image_counts_for_all_images_of_a_run(result: SearchResult, jobs: list[Job]) -> None:
    splits = splits_module.load(result.spec.data)
    states = []
    for attack in ("fgsm", "fgsm_pgi"):
        config = jobs[0].training.model_copy(update={"attack": attack, "lambda_": 0.0})
        job = replace(jobs[0], candidate=replace(jobs[0].candidate, config=config))
        states.append(rehearse([job], splits)["trial-2"].state)
    remembered = 8 * jobs[0].plan.train_images * splits.train.images[0].numel()
    assert states[1] - states[0] == pytest.approx(remembered, abs=4096)
    assert remembered > 2 * 4096


def test_a_candidate_that_cannot_be_trained_is_named_with_the_reason(
    result: SearchResult, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Attack):
        def __call__(self, step: Step) -> Tensor:
            raise RuntimeError("no such kernel\nand more")

    monkeypatch.setitem(ATTACKS, "pgd", Broken)
    with pytest.raises(ConfirmError) as raised:
        rehearse(jobs, splits_module.load(result.spec.data))
    assert str(raised.value) == "pgd cannot be trained: no such kernel; leave it out of --baselines"


def test_a_network_that_cannot_be_rebuilt_is_found_before_the_first_epoch(
    result: SearchResult, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    build, widths = MODELS["small_cnn"], iter((4, 6))  # another network each time it is built

    def unsteady(num_classes: int, in_channels: int, width: int) -> torch.nn.Module:
        return build(num_classes, in_channels, next(widths))

    monkeypatch.setitem(MODELS, "small_cnn", unsteady)
    with pytest.raises(ConfirmError, match="trial-2 cannot be trained: "):
        rehearse(jobs, splits_module.load(result.spec.data))


def test_a_disk_without_room_is_refused_with_what_is_needed(
    result: SearchResult, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {job.candidate.name: checks.Sizes(state=8 * 2**20, model=3 * 2**20) for job in jobs}
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage(0, 0, 24 * 2**20))
    with pytest.raises(ConfirmError, match=r"the runs take about 25 MiB on this disk, but 24 MiB are free"):
        check_disk(result.directory, jobs, sizes, concurrent=1)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage(0, 0, 26 * 2**20))
    check_disk(result.directory, jobs, sizes, concurrent=1)
    with pytest.raises(ConfirmError):
        check_disk(result.directory, jobs, sizes, concurrent=2)


@pytest.mark.parametrize(("epsilon", "is_refused"), [(1.0, False), (1.01, True)])
def test_a_radius_beyond_all_pixels_is_refused(epsilon: float, is_refused: bool) -> None:
    epsilons = (0.15, epsilon)
    check_attacks(epsilons, EvaluationConfig(norm="l2", epsilon=0.5), autoattack=False)
    if is_refused:
        with pytest.raises(ConfirmError, match="must be at most 1 with norm linf"):
            check_attacks(epsilons, EvaluationConfig(), autoattack=False)
    else:
        check_attacks(epsilons, EvaluationConfig(), autoattack=False)
