import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.confirmations import NUM_IMAGES, PLAN, write_outcomes, write_quick_search
from tests.support.exported_models import NETWORK, random_network
from tune_cure.confirmation.candidates import Candidate, choose_candidates
from tune_cure.confirmation.own_candidates import read_own_candidates
from tune_cure.confirmation.plan import AS_IS, plan_jobs
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.data import splits as splits_module
from tune_cure.ray_backend import confirmation
from tune_cure.reports import tables
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.utils import significance
from tune_cure.utils.errors import TuneCureError
from tune_cure.utils.files import replace_arrays, replace_tensors


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchResult:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    found = write_quick_search(tmp_path / "run")
    tables.write_tables(found)
    return found


def save_network(file: str, seed: int = 0) -> None:
    replace_tensors(Path(file), {"model": NETWORK, "weights": random_network(seed).state_dict()})


def read(result: SearchResult, *texts: str) -> list[Candidate]:
    splits = splits_module.load(result.spec.data)
    leaders = choose_candidates(result, 1, ["fgsm"])
    return read_own_candidates(texts, result, leaders, splits.test, splits.num_classes)


def test_a_row_of_a_table_is_retrained_with_its_hyperparameters(result: SearchResult) -> None:
    seventh, best = read(result, "run/trials.csv:7", "mine=run/best_config.csv")
    assert (seventh.name, seventh.kind, best.name) == ("run-7", "candidate", "mine")
    assert seventh.config == result.spec.training_config(result.proposals[7])
    assert result.best is not None
    assert best.config == result.spec.training_config(result.best.hyperparameters)
    assert seventh.model is None and "trials.csv, trial 7" in seventh.description


def test_a_yaml_file_is_retrained_with_its_own_network_if_it_names_one(result: SearchResult) -> None:
    Path("plain.yaml").write_text("training: {epochs: 1, lambda: 0.5}\n")
    Path("other.yaml").write_text("training: {epochs: 1}\nmodel: {name: small_cnn, width: 8}\n")
    plain, other = read(result, "plain.yaml", "other.yaml")
    assert plain.config is not None and (plain.config.epochs, plain.config.lambda_, plain.model) == (1, 0.5, None)
    assert other.model is not None and other.model.width == 8
    jobs = plan_jobs(result, [plain, other], PLAN)
    assert [job.model.width for job in jobs] == [4, 8]


def test_a_trained_network_has_a_single_job_and_other_weights_have_another_folder(result: SearchResult) -> None:
    save_network("net.pt")
    (first,) = read(result, "net.pt")
    save_network("net.pt", seed=1)
    (second,) = read(result, "net.pt")
    assert first.trained == second.trained == str(Path("net.pt").absolute())
    folders = []
    for candidate in (first, second):
        (job,) = plan_jobs(result, [candidate], dataclasses.replace(PLAN, seeds=(1, 2)))
        assert job.seed == AS_IS and job.name == "net"
        folders.append(job.folder)
    assert folders[0] != folders[1] and folders[0].parent == folders[1].parent


def plain() -> torch.nn.Module:
    """Build a network that takes images as they are."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))


def doubling() -> torch.nn.Module:
    """Build a network with the layers of `plain` that doubles its images first."""
    network = plain()
    network.register_forward_pre_hook(lambda _, images: (2 * images[0],))
    return network


def test_equal_weights_in_another_network_have_another_folder(result: SearchResult) -> None:
    torch.save(plain().state_dict(), "net.pt")
    first, second = read(result, f"a=net.pt@{__name__}:plain", f"b=net.pt@{__name__}:doubling")
    assert first.digest != second.digest


def test_a_trained_network_is_judged_and_not_trained(result: SearchResult) -> None:
    save_network("net.pt")
    (job,) = plan_jobs(result, read(result, "net.pt"), PLAN)
    confirmation.work(job)
    assert job.is_done and not list(job.folder.glob("*.pt"))
    (row,) = Confirmation([job]).table.to_dict("records")
    assert (row["contender"], row["seed"], row["epochs"], row["train_images"]) == ("net", 0, 0, 0)
    assert row["description"].startswith("judged as it is: ") and not row["diverged"]
    splits = splits_module.load(result.spec.data)
    images, labels = splits.test.subset(PLAN.examples, seed=0).gather(torch.arange(PLAN.examples))
    with torch.no_grad():
        right = random_network()(images / 255).argmax(1) == labels
    assert row["clean"] == pytest.approx(float(right.float().mean()))


def test_a_trained_network_is_compared_with_every_seed_of_a_leader(result: SearchResult) -> None:
    save_network("net.pt")
    plan = dataclasses.replace(PLAN, seeds=(1, 2, 3), examples=NUM_IMAGES, autoattack=True)
    jobs = plan_jobs(result, [*choose_candidates(result, 1, []), *read(result, "net.pt")], plan)
    for job in jobs:
        write_outcomes(job, 0.6 if job.candidate.kind == "leader" else 0.4)
        (job.folder / run_files.JOB_MODEL).unlink() if job.seed == AS_IS else None
    found = Confirmation(jobs)
    row = found.comparisons().iloc[0]
    assert (row["second"], row["seeds"], row["verdict"]) == ("net", 3, "better")
    leader = np.stack([found.outcomes[row["first"], seed, 0.15]["autoattack"] for seed in (1, 2, 3)])
    net = found.outcomes["net", AS_IS, 0.15]["autoattack"][None]
    spread = significance.measure_seed_spread({"leader": leader})  # seeds say nothing of one fixed network
    expected = significance.pooled_difference({"leader": leader, "net": net}, spread)
    assert (row["difference"], row["p_value"]) == (expected.estimate, expected.p_value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fgsm=run/trials.csv:7", "the name 'fgsm' is taken; give another: NAME=run/trials.csv:7"),
        ("ä.yaml", "the name 'ä' has other characters than letters"),
        ("missing.yaml", "missing.yaml"),
        ("run/trials.csv", "rows to choose from"),
        ("run/trials.csv:99", "has no trial 99"),
        ("bad.yaml", "bad.yaml: training.epoch: unknown key"),
        ("missing.pt", "missing.pt: is no trained network"),
        ("wide.pt", "wide: returns values of shape (2, 7) for 2 images, where 10 classes are needed"),
    ],
)
def test_what_cannot_be_used_is_one_line(result: SearchResult, text: str, message: str) -> None:
    Path("bad.yaml").write_text("training: {epoch: 1}\n")
    network: dict[str, Any] = {**NETWORK, "num_classes": 7}
    replace_tensors(Path("wide.pt"), {"model": network, "weights": random_network(num_classes=7).state_dict()})
    with pytest.raises(TuneCureError) as caught:
        read(result, text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_outcomes_of_a_network_stay_where_only_its_training_is_unknown(result: SearchResult) -> None:
    save_network("net.pt")
    (job,) = plan_jobs(result, read(result, "net.pt"), PLAN)
    folder = job.outcome_folder(0.15)
    folder.mkdir(parents=True)
    right = np.ones(PLAN.examples, dtype=bool)
    names = ("clean", "fgsm", "pgd_10", "pgd_50_10")
    replace_arrays(folder / run_files.OUTCOMES, {**dict.fromkeys(names, right), "zero_gradient": 0.0, "seconds": 1.0})
    confirmation.work(job)  # judges nothing again
    assert Confirmation([job]).table["pgd_50_10"].tolist() == [1.0]


def test_a_method_of_a_candidate_stands_for_its_hyperparameters(result: SearchResult) -> None:
    Path("trades.yaml").write_text("training: {method: trades, epochs: 1, trades_weight: 3}\n")
    (candidate,) = read(result, "trades.yaml")
    assert candidate.config is not None
    assert (candidate.config.attack, candidate.config.clean_weight, candidate.config.trades_weight) == ("pgd", 1, 3)
