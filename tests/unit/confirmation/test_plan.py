import dataclasses
import math
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from tests.support.confirmations import (
    NUM_IMAGES,
    PLAN,
    finish,
    judge_at,
    plan_quick_jobs,
    write_outcomes,
    write_quick_search,
)
from tests.support.old_runs import copy_run
from tune_cure.confirmation import plan as plan_module
from tune_cure.confirmation.candidates import Candidate, choose_candidates
from tune_cure.confirmation.job_config import read_job_config
from tune_cure.confirmation.outcomes import read_outcomes
from tune_cure.confirmation.plan import Job, Plan
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.data import splits as data
from tune_cure.evaluation import autoattack_version, robustness
from tune_cure.evaluation.autoattack_version import read_version
from tune_cure.evaluation.names import ATTACKS, METRICS, WITHOUT_AUTOATTACK
from tune_cure.evaluation.outcomes import Outcomes
from tune_cure.models import checkpoints
from tune_cure.ray_backend import confirmation
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.training import trainer as trainer_module
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


def test_runs_that_a_smaller_command_does_not_ask_for_are_named(result: SearchResult) -> None:
    plan = dataclasses.replace(PLAN, seeds=(1, 2, 3), examples=NUM_IMAGES)
    candidates = choose_candidates(result, 2, [])
    own = Candidate("net", "candidate", None, "a trained network", trained="net.pt", digest="abc")
    jobs = plan_module.plan_jobs(result, [*candidates, own], plan)
    finish(jobs)
    wider = judge_at(jobs[:1], 0.1)
    assert plan_module.find_left_out(jobs) == [("trial-2", 1, 0.1)]
    assert plan_module.find_left_out(wider + jobs[1:]) == []
    fewer = plan_module.plan_jobs(result, candidates[:1], dataclasses.replace(plan, seeds=(1, 2)))
    (sentence,) = plan_module.explain_left_out(plan_module.find_left_out(fewer), "linf")
    assert sentence.startswith("Judged in the same folder, but not asked for by the command, and therefore in no table")
    assert sentence.partition(": ")[2] == (
        "net at epsilon 0.15 (38.2/255); trial-2 with seed 1 at epsilon 0.1 (25.5/255); trial-2 with seed 3 at epsilon "
        "0.15 (38.2/255); trial-7 with seeds 1, 2 and 3 at epsilon 0.15 (38.2/255)."
    )


def test_runs_that_were_judged_on_another_number_of_images_are_not_named(result: SearchResult) -> None:
    plan = dataclasses.replace(PLAN, seeds=(1, 2), examples=NUM_IMAGES)
    candidates = choose_candidates(result, 1, [])
    finish(plan_module.plan_jobs(result, candidates, plan))
    fewer = dataclasses.replace(plan, seeds=(1,))
    assert plan_module.find_left_out(plan_module.plan_jobs(result, candidates, fewer)) == [("trial-2", 2, 0.15)]
    other = dataclasses.replace(fewer, examples=30)
    assert plan_module.find_left_out(plan_module.plan_jobs(result, candidates, other)) == []


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


@pytest.mark.parametrize("held_out", [0, 100])
def test_an_interrupted_job_continues_from_its_last_epoch_to_the_same_weights(
    held_out: int,
    result: SearchResult,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = dataclasses.replace(PLAN, held_out=held_out)
    script_validation(monkeypatch, 0.3, 0.5, 0.3, 0.5)
    script_judging(monkeypatch)
    whole = one_job(write_quick_search(tmp_path_factory.mktemp("whole")), plan)
    confirmation.work(whole)
    job, trained = one_job(result, plan), []
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
    for name in [run_files.JOB_MODEL] + [run_files.JOB_BEST] * bool(held_out):
        one, other = (torch.load(of.folder / name, weights_only=True)["weights"] for of in (whole, job))
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert len(pd.read_csv(job.folder / run_files.JOB_EPOCHS)) == 2


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


def test_a_damaged_config_of_a_job_is_refused_with_the_path_of_its_key(result: SearchResult) -> None:
    job = one_job(result)
    job.folder.mkdir(parents=True)
    content = {**job.config.dump(), "evaluation": {"step": 3}}
    (job.folder / run_files.JOB_CONFIG).write_text(yaml.safe_dump(content))
    with pytest.raises(FolderError, match=r"trained: evaluation\.step: unknown key; allowed are .*steps"):
        one_job(result)


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


WITH_BEST = dataclasses.replace(PLAN, held_out=100)


def script_validation(monkeypatch: pytest.MonkeyPatch, *accuracies: float) -> None:
    """Let the trainer measure these PGD accuracies after its epochs, in the place of what its networks have."""
    remaining = list(accuracies)

    def evaluate(*_: object) -> dict[str, float]:
        measured = {"clean_accuracy": 0.9, "fgsm_accuracy": 0.6, "pgd_accuracy": remaining.pop(0)}
        return dict.fromkeys(METRICS, 0.02) | measured | {"gradient_alignment": 0.9}

    monkeypatch.setattr(trainer_module, "evaluate", evaluate)


def script_judging(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """Let each network that is judged withstand one image more than the one before, and return their weights."""
    judged: list[dict[str, torch.Tensor]] = []

    def evaluate_robustness(
        network: torch.nn.Module, examples: data.Examples, *_: object, autoattack: bool, **__: object
    ) -> Outcomes:
        judged.append({name: value.clone() for name, value in network.state_dict().items()})
        right = np.arange(len(examples)) < 10 + len(judged)
        names = ATTACKS if autoattack else WITHOUT_AUTOATTACK
        return Outcomes(dict.fromkeys(names, right), 0.0, "0.2.0" if autoattack else "")

    monkeypatch.setattr(robustness, "evaluate_robustness", evaluate_robustness)
    return judged


def test_the_images_that_the_search_judged_on_choose_the_epoch_and_all_others_are_trained_on(
    result: SearchResult,
) -> None:
    splits = data.load(result.spec.data)
    assert plan_module.count_held_out(result, splits, None) == 360
    count = len(splits.all_training_images()) - 100
    held = confirmation.hold_out(splits, dataclasses.replace(WITH_BEST, train_images=count))
    judged = splits.validation.subset(100, seed=0)
    assert sorted(held.validation.indices.tolist()) == sorted(judged.indices.tolist())
    assert len(held.train) == count
    assert not set(held.train.indices.tolist()) & set(judged.indices.tolist())
    assert held.test is splits.test


def test_the_weights_of_the_best_epoch_are_judged_beside_the_last_ones(
    result: SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_validation(monkeypatch, 0.5, 0.3)
    judged, job = script_judging(monkeypatch), one_job(result, WITH_BEST)
    confirmation.work(job)
    assert job.is_done
    trainer = Trainer(
        job.training, confirmation.hold_out(data.load(result.spec.data), WITH_BEST), model=job.model, seed=1
    )
    of_epochs = []
    for _ in range(2):
        trainer.train_epoch()
        of_epochs.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
    for weights, expected in zip(judged, of_epochs[::-1], strict=True):  # the last ones come first
        assert all(torch.equal(weights[name], value) for name, value in expected.items())
    best = torch.load(job.folder / run_files.JOB_BEST, weights_only=True)
    assert best["epoch"] == 1
    assert checkpoints.rebuild(best)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    row = Confirmation([job]).table.iloc[0]
    assert (row["pgd_50_10"], row["best_pgd_50_10"]) == (11 / 30, 12 / 30)
    assert row["robust_overfitting"] == pytest.approx(1 / 30)
    assert (row["best_epoch"], row["held_out"]) == (1, 100)
    assert pd.read_csv(job.folder / run_files.JOB_EPOCHS)["pgd_accuracy"].tolist() == [0.5, 0.3]


def test_a_judged_job_whose_network_was_deleted_is_not_done(tmp_path: Path) -> None:
    job = plan_quick_jobs(tmp_path)[0]
    write_outcomes(job, 0.5)
    assert job.is_done
    (job.folder / run_files.JOB_MODEL).unlink()
    assert not job.is_done


def test_a_last_epoch_that_is_the_best_is_judged_once(result: SearchResult, monkeypatch: pytest.MonkeyPatch) -> None:
    script_validation(monkeypatch, 0.3, 0.5)
    judged, job = script_judging(monkeypatch), one_job(result, WITH_BEST)
    confirmation.work(job)
    assert len(judged) == 1
    assert job.is_done
    row = Confirmation([job]).table.iloc[0]
    assert (row["best_epoch"], row["robust_overfitting"], row["best_pgd_50_10"]) == (2, 0, row["pgd_50_10"])


def test_the_best_weights_of_a_run_that_diverges_later_are_judged_as_they_are(
    result: SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_validation(monkeypatch, 0.5, math.nan)
    judged, job = script_judging(monkeypatch), one_job(result, WITH_BEST)
    confirmation.work(job)
    assert len(judged) == 1
    row = Confirmation([job]).table.iloc[0]
    assert (row["diverged"], row["best_epoch"], row["clean"], row["best_clean"]) == (True, 1, 0, 11 / 30)


def test_a_job_that_diverged_and_ended_before_its_network_was_written_does_not_train_on(
    result: SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs: list[int] = []
    train_epoch, replace_tensors = Trainer.train_epoch, confirmation.replace_tensors

    def diverge(trainer: Trainer) -> dict[str, Any]:
        row = train_epoch(trainer)
        epochs.append(trainer.epoch)
        return {**row, "diverged": True}

    def end(path: Path, content: dict[str, Any]) -> None:
        if path.name == run_files.JOB_MODEL:
            raise KeyboardInterrupt
        replace_tensors(path, content)

    monkeypatch.setattr(Trainer, "train_epoch", diverge)
    job = one_job(result)
    with monkeypatch.context() as killed:
        killed.setattr(confirmation, "replace_tensors", end)
        with pytest.raises(KeyboardInterrupt):
            confirmation.work(job)
    confirmation.work(job)
    assert epochs == [1]
    assert Confirmation([job]).table["diverged"].all()


def test_outcomes_have_the_version_of_autoattack_also_those_of_a_run_that_diverged(
    result: SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_validation(monkeypatch, 0.5, math.nan)
    script_judging(monkeypatch)
    monkeypatch.setattr(autoattack_version, "installed_version", lambda: "0.3.0")
    job = one_job(result, dataclasses.replace(WITH_BEST, autoattack=True))
    confirmation.work(job)
    last, best = (
        read_outcomes(job.outcome_folder(0.15, weights) / run_files.OUTCOMES, 30) for weights in ("last", "best")
    )
    assert (read_version(last), read_version(best)) == ("0.3.0", "0.2.0")


def test_evaluating_each_epoch_changes_no_last_weight(result: SearchResult, monkeypatch: pytest.MonkeyPatch) -> None:
    script_judging(monkeypatch)
    job = one_job(result, WITH_BEST)
    confirmation.work(job)
    splits = data.load(result.spec.data)
    trainer = Trainer(job.candidate.config, confirmation.hold_out(splits, WITH_BEST), model=job.model, seed=1)
    for _ in range(2):
        trainer.train_epoch()
    weights = torch.load(job.folder / run_files.JOB_MODEL, weights_only=True)["weights"]
    assert all(torch.equal(weights[name], value) for name, value in trainer.model.state_dict().items())


def test_an_epoch_that_overfitted_catastrophically_is_in_the_table(
    result: SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_validation(monkeypatch, 0.5, 0.0)
    script_judging(monkeypatch)
    job = one_job(result, WITH_BEST)
    confirmation.work(job)
    row = Confirmation([job]).table.iloc[0]
    assert (row["best_epoch"], row["catastrophic_overfitting_epoch"]) == (1, 2)


def test_a_confirmation_of_version_0_1_0_goes_on_with_the_last_weights(tmp_path: Path) -> None:
    result = SearchResult(copy_run("finished", tmp_path))
    splits = data.load(result.spec.data)
    assert plan_module.count_held_out(result, splits, None) == 0
    assert plan_module.count_held_out(result, splits, "last") == 0
    held_out = plan_module.count_held_out(result, splits, "both")
    assert held_out == min(result.spec.evaluation.examples, len(splits.validation))
    begun = read_job_config(tmp_path / "finished" / run_files.CONFIRM / "trial-1" / "seed-1")
    plan = Plan(seeds=(1,), epsilons=(0.15,), examples=40, train_images=begun.train_images, autoattack=False)
    assert one_job(result, plan).is_done
    with pytest.raises(FolderError, match=f"held_out was 0 there, and is {held_out} now; move "):
        one_job(result, dataclasses.replace(plan, held_out=held_out))


def test_a_job_says_what_may_name_parts_of_the_users_own(tmp_path: Path) -> None:
    job = one_job(write_quick_search(tmp_path))
    assert job.candidate.config is not None
    config = job.candidate.config.model_copy(update={"attack": "my_attacks:Mine"})
    own = dataclasses.replace(job, candidate=dataclasses.replace(job.candidate, config=config))
    assert {"my_attacks:Mine", job.model.name} <= set(own.named_parts)
    trained = dataclasses.replace(job.candidate, config=None, trained="weights.pth@their_nets:resnet18")
    assert "their_nets:resnet18" in dataclasses.replace(job, candidate=trained).named_parts


@pytest.mark.parametrize(("kind", "advice"), [("candidate", ", or give the candidate another name"), ("leader", "")])
def test_another_configuration_under_a_name_moves_that_folder_alone(kind: str, advice: str, tmp_path: Path) -> None:
    result = write_quick_search(tmp_path)
    job = one_job(result)
    job.folder.mkdir(parents=True)
    (job.folder / run_files.JOB_CONFIG).write_text(job.config.to_yaml())
    assert job.candidate.config is not None
    changed = job.candidate.config.model_copy(update={"lr_max": 0.123})
    candidate = dataclasses.replace(job.candidate, config=changed, kind=kind)
    with pytest.raises(FolderError) as caught:
        plan_module.plan_jobs(result, [candidate], PLAN)
    text = str(caught.value)
    assert "training.lr_max was " in text and f"move {job.folder.parent} away{advice}" in text


def test_the_status_of_an_earlier_command_is_not_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = write_quick_search(tmp_path)
    job = one_job(result)
    job.folder.mkdir(parents=True)
    confirmation._write_status(job, "done")
    told: list[dict[str, Any]] = []
    devices = SimpleNamespace(cpus_per_trial=1, gpus_per_trial=0, concurrent=1)
    task = SimpleNamespace(remote=lambda *_: object())
    monkeypatch.setattr(confirmation, "_ray", lambda *_: nullcontext())
    monkeypatch.setattr(confirmation, "_plan", lambda *_: devices)
    monkeypatch.setattr(confirmation.ray, "remote", lambda **_: lambda work: task)
    monkeypatch.setattr(confirmation.ray, "wait", lambda running, timeout: (running, []))
    monkeypatch.setattr(confirmation.ray, "get", lambda _: None)
    confirmation.run([job], result, on_status=lambda _, status: told.append(status))
    assert told == []
