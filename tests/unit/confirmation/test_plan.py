import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.confirmations import PLAN, write_quick_search
from tune_cure.confirmation import plan as plan_module
from tune_cure.confirmation.candidates import choose_candidates
from tune_cure.confirmation.job_config import read_job_config
from tune_cure.confirmation.plan import Job, Plan
from tune_cure.data import splits as data
from tune_cure.evaluation import robustness
from tune_cure.evaluation.names import WITHOUT_AUTOATTACK
from tune_cure.models import checkpoints
from tune_cure.ray_backend import confirmation
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.training.trainer import Trainer
from tune_cure.utils.files import FolderError


@pytest.fixture
def result(tmp_path: Path) -> SearchResult:
    return write_quick_search(tmp_path)


def one_job(result: SearchResult, plan: Plan = PLAN) -> Job:
    return plan_module.plan_jobs(result, choose_candidates(result, 1, []), plan)[0]


def outcomes(job: Job) -> dict[str, Any]:
    with np.load(job.outcome_folder(0.15) / run_files.OUTCOMES) as content:
        return {name: content[name] for name in content.files}


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff", b"[" * 100_000, b'"done"', b'{"stage": "lost"}', b'{"stage": "training", "epoch": "x"}',
     b'{"stage": "judging", "accuracy": []}', b'{"stage": ["done"]}'],
)  # fmt: skip
def test_a_damaged_status_is_none_until_the_job_writes_it_anew(content: bytes, result: SearchResult) -> None:
    job = one_job(result)
    job.folder.mkdir(parents=True)
    (job.folder / run_files.JOB_STATUS).write_bytes(content)
    assert job.status() == {}
    assert not job.is_done


def test_all_candidates_of_a_seed_come_before_the_next_seed(result: SearchResult) -> None:
    chosen = choose_candidates(result, 2, ["fgsm"])
    jobs = plan_module.plan_jobs(result, chosen, dataclasses.replace(PLAN, seeds=(1, 2)))
    assert [job.seed for job in jobs] == [1] * 3 + [2] * 3
    assert [job.candidate for job in jobs] == chosen * 2
    assert len({job.folder for job in jobs}) == 6


def test_training_uses_the_images_that_the_search_held_out(result: SearchResult) -> None:
    splits = data.load(result.spec.data)
    everything = splits.all_training_images()
    assert len(everything) == len(splits.train) + len(splits.validation)
    assert everything.indices.unique().numel() == len(everything)


def test_the_last_weights_of_the_whole_schedule_are_judged_on_test_images(result: SearchResult) -> None:
    job = one_job(result)
    confirmation.work(job)
    splits = data.load(result.spec.data)
    trainer = Trainer(
        job.candidate.config,
        dataclasses.replace(splits, train=splits.all_training_images().subset(200, seed=0)),
        model=job.model,
        evaluation=job.evaluation,
        seed=1,
    )
    for _ in range(2):
        trainer.train_epoch()
    expected = robustness.evaluate_robustness(
        trainer.model, splits.test.subset(30, seed=0), job.evaluation, autoattack=False
    )
    actual = outcomes(job)
    for name in WITHOUT_AUTOATTACK:
        np.testing.assert_array_equal(actual[name], expected.correct[name])
    assert job.status() == {"stage": "done"}
    assert not (job.folder / run_files.JOB_STATE).exists()


def test_an_interrupted_job_continues_from_its_last_epoch_to_the_same_weights(
    result: SearchResult, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = one_job(write_quick_search(tmp_path_factory.mktemp("whole")))
    confirmation.work(whole)
    job, trained = one_job(result), []
    train_epoch = Trainer.train_epoch

    def interrupted(trainer: Trainer) -> dict[str, Any]:
        trained.append(trainer.epoch)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train_epoch(trainer)

    monkeypatch.setattr(Trainer, "train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        confirmation.work(job)
    confirmation.work(job)
    assert trained == [0, 1, 1]
    one, other = (torch.load(of.folder / run_files.JOB_MODEL, weights_only=True)["weights"] for of in (whole, job))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_finished_work_is_not_repeated(result: SearchResult, monkeypatch: pytest.MonkeyPatch) -> None:
    job = one_job(result)
    confirmation.work(job)
    monkeypatch.setattr(Trainer, "train_epoch", None)
    monkeypatch.setattr(robustness, "evaluate_robustness", None)
    confirmation.work(one_job(result))


def test_more_radii_are_judged_without_training_again(result: SearchResult, monkeypatch: pytest.MonkeyPatch) -> None:
    confirmation.work(one_job(result))
    monkeypatch.setattr(Trainer, "train_epoch", None)
    job = one_job(result, dataclasses.replace(PLAN, epsilons=(0.15, 0.05)))
    confirmation.work(job)
    with np.load(job.outcome_folder(0.05) / run_files.OUTCOMES) as content:
        assert content["pgd_50_10"].sum() >= outcomes(job)["pgd_50_10"].sum()


def test_a_folder_of_a_version_with_fewer_hyperparameters_is_accepted(result: SearchResult) -> None:
    job = one_job(result)
    confirmation.work(job)
    file = job.folder / run_files.JOB_CONFIG
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if "attack_statistics" not in line))
    assert file.read_text() != "".join(lines)
    one_job(result)


def test_the_config_of_a_job_is_read_back(result: SearchResult) -> None:
    job = one_job(result)
    job.folder.mkdir(parents=True)
    (job.folder / run_files.JOB_CONFIG).write_text(job.config.to_yaml())
    config = read_job_config(job.folder)
    assert config.dump() == job.config.dump()
    assert config.training == job.candidate.config


@pytest.mark.parametrize(
    "content", ["", "[1, 2", "train_images: 200", "\0", "contender: x\nseed: 1\ntrain_images: 2\ndata: 3"]
)
def test_a_damaged_config_of_a_job_is_refused_in_one_line(content: str, result: SearchResult) -> None:
    job = one_job(result)
    job.folder.mkdir(parents=True)
    (job.folder / run_files.JOB_CONFIG).write_text(content)
    with pytest.raises(FolderError, match=r"config\.yaml: does not say how the run was trained: ") as raised:
        one_job(result)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changed", "message"), [({"train_images": 100}, "train_images was 200"), ({"seeds": (1, 2)}, "")]
)
def test_a_folder_of_another_run_is_refused(result: SearchResult, changed: dict[str, Any], message: str) -> None:
    confirmation.work(one_job(result))
    plan = dataclasses.replace(PLAN, **changed)
    if not message:
        assert (
            len(plan_module.plan_jobs(result, choose_candidates(result, 1, []), plan)) == 2
        )  # more seeds add to what is there
        return
    with pytest.raises(FolderError, match=message):
        one_job(result, plan)


def test_all_images_of_a_diverged_network_are_misclassified(tmp_path: Path) -> None:
    job = one_job(write_quick_search(tmp_path))
    config = job.candidate.config.model_copy(update={"lr_max": 1e30, "lr_min": 1e30, "lr_schedule": "fixed"})
    job = dataclasses.replace(job, candidate=dataclasses.replace(job.candidate, config=config))
    confirmation.work(job)
    assert not any(outcomes(job)[name].any() for name in WITHOUT_AUTOATTACK)
    assert torch.load(job.folder / run_files.JOB_MODEL, weights_only=True)["weights"] == {}


def test_the_model_is_kept(result: SearchResult) -> None:
    job = one_job(result)
    confirmation.work(job)
    network = checkpoints.rebuild(torch.load(job.folder / run_files.JOB_MODEL, weights_only=True))
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
