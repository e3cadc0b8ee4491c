import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.confirmations import NUM_IMAGES, PLAN, write_outcomes, write_quick_search
from tests.support.exported_models import NETWORK, random_network
from tune_cure.confirmation import own_candidates
from tune_cure.confirmation.candidates import Candidate, choose_candidates
from tune_cure.confirmation.own_candidates import explain_differences, read_own_candidates
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


def test_a_folder_with_a_dot_in_its_name_keeps_all_of_it(result: SearchResult) -> None:
    for name in ("epsilon0.1", "model.v2"):
        Path(name).mkdir()
        save_network(f"{name}/best_model.pt")
    assert [own_candidates._default_name(name) for name in ("epsilon0.1", "model.v2")] == ["epsilon0.1", "model.v2"]
    assert own_candidates._default_name("epsilon0.1/best_model.pt") == "epsilon0.1"


def test_a_yaml_file_is_retrained_with_its_own_network_if_it_names_one(result: SearchResult) -> None:
    Path("plain.yaml").write_text("training: {epochs: 1, lambda: 0.5}\n")
    Path("other.yaml").write_text("training: {epochs: 1}\nmodel: {name: small_cnn, width: 8}\n")
    plain, other = read(result, "plain.yaml", "other.yaml")
    assert plain.config is not None and (plain.config.epochs, plain.config.lambda_, plain.model) == (1, 0.5, None)
    assert other.model is not None and other.model.width == 8
    jobs = plan_jobs(result, [plain, other], PLAN)
    assert [job.model.width for job in jobs] == [4, 8]


def test_a_yaml_file_may_name_its_network_in_a_word(result: SearchResult) -> None:
    Path("other.yaml").write_text("model: small_vit\n")
    (other,) = read(result, "other.yaml")
    assert other.model is not None and other.model.name == "small_vit"


def test_what_a_yaml_file_leaves_open_is_the_searchs(result: SearchResult) -> None:
    Path("rival.yaml").write_text("data: {dataset: digits}\ntraining: {method: pgd, lr_max: 0.3}\n")
    (rival,) = read(result, "rival.yaml")
    winner = choose_candidates(result, 1, [])[0].config
    assert rival.config is not None and winner is not None
    assert (rival.config.norm, rival.config.epsilon) == ("linf", result.spec.evaluation.epsilon)
    assert (rival.config.epochs, rival.config.batch_size, rival.config.lr_schedule) == (2, 64, "cyclic")
    assert (rival.config.momentum, rival.config.lr_max) == (winner.momentum, 0.3)
    assert (rival.config.attack, rival.config.attack_steps, rival.config.regularizer) == ("pgd", 7, "none")


@pytest.mark.parametrize("training", ["{method: pgd}", "{norm: L2}", "{norm: l2, epochs: 2}"])
def test_a_yaml_file_has_the_ball_that_it_is_judged_in(tmp_path: Path, training: str) -> None:
    result = write_quick_search(tmp_path, "evaluation.norm=l2", "evaluation.epsilon=0.5")
    file = tmp_path / "rival.yaml"
    file.write_text(f"training: {training}\n")
    (rival,) = read(result, str(file))
    assert rival.config is not None and (rival.config.norm, rival.config.epsilon) == ("l2", 0.5)


def test_a_yaml_file_with_another_norm_gets_no_radius(result: SearchResult) -> None:
    Path("rival.yaml").write_text("training: {norm: l2}\n")
    with pytest.raises(TuneCureError, match=r"rival.yaml: training.epsilon: is needed with norm l2"):
        read(result, "rival.yaml")


def test_a_trial_of_another_search_is_trained_as_there(result: SearchResult, tmp_path: Path) -> None:
    (tmp_path / "B").mkdir()
    other = write_quick_search(tmp_path / "B", "training.epochs=1", "training.epsilon=0.1", "evaluation.epsilon=0.1")
    spec = other.directory / run_files.SPEC
    kept = [line for line in spec.read_text().splitlines() if "batch_size" not in line]  # as before there was the key
    spec.write_text("\n".join(kept))
    tables.write_tables(other)
    (rival,) = read(result, "B/best_config.csv")
    assert rival.config is not None
    assert (rival.config.epochs, rival.config.epsilon, rival.config.batch_size) == (1, 0.1, 128)


def test_another_ball_and_another_schedule_than_the_searchs_are_named(result: SearchResult) -> None:
    Path("rival.yaml").write_text("training: {epsilon: 8/255, epochs: 30, lr_schedule: piecewise}\n")
    Path("same.yaml").write_text("training: {method: pgd}\n")
    Path("clean.yaml").write_text("training: {attack: none, regularizer: none, epsilon: 0.1}\n")
    save_network("net.pt")
    own = read(result, "rival.yaml", "same.yaml", "clean.yaml", "net.pt")
    leaders = choose_candidates(result, 2, ["pgd"])
    assert explain_differences([*leaders, *own], result) == [
        "rival is trained at epsilon 0.03137 (8/255), and judged at epsilon 0.15 (38.2/255)",
        f"rival has epochs 30  lr_schedule piecewise; {leaders[0].name} has epochs 2  lr_schedule cyclic",
    ]


def test_a_configuration_of_other_data_is_trained_on_the_searchs_and_its_description_says_so(
    result: SearchResult, tmp_path: Path
) -> None:
    Path("rival.yaml").write_text("data: {dataset: svhn, root: elsewhere}\ntraining: {method: pgd}\n")
    Path("same.yaml").write_text(f"data: {{dataset: digits, split_seed: {result.spec.data.split_seed}}}\n")
    (tmp_path / "B").mkdir()
    tables.write_tables(write_quick_search(tmp_path / "B", "data.split_seed=5"))
    rival, same, row = read(result, "rival.yaml", "same.yaml", "B/best_config.csv")
    assert rival.description == "the configuration in rival.yaml, on the search's data instead of dataset svhn"
    assert same.description == "the configuration in same.yaml"
    assert row.description == "the configuration in B/best_config.csv, on the search's data instead of split_seed 5"


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


def test_a_trained_network_is_called_after_its_file_although_a_folder_has_an_at_sign(result: SearchResult) -> None:
    Path("me@corp.org/A").mkdir(parents=True)
    save_network("me@corp.org/A/best_model.pt")
    (candidate,) = read(result, "me@corp.org/A")
    assert (candidate.name, candidate.trained) == ("A", str(Path("me@corp.org/A").absolute()))


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
        ("ä.yaml", "the name 'ä' must begin with a letter or a digit, and may have only these, _, . and -"),
        ("..", "the name '..' must begin with a letter or a digit"),
        ("..=run/trials.csv:7", "must begin with a letter or a digit"),
        ("_a=run/trials.csv:7", "must begin with a letter or a digit"),
        ("missing.yaml", "missing.yaml"),
        ("run/trials.csv", "rows to choose from"),
        ("run/trials.csv:99", "has no trial 99"),
        ("bad.yaml", "bad.yaml: training.epoch: unknown key"),
        ("missing.pt", "missing.pt: is no trained network"),
        ("tradez", "--candidates tradez: is no file or folder, and no method: fgsm_rs, n_fgsm, "),
        ("mine=tradez", "; did you mean 'trades'?"),
        ("none", "is no file or folder, and no method: fgsm_rs, "),
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


def test_a_presets_name_is_its_method_trained_as_the_winner_is_within_the_judged_ball(result: SearchResult) -> None:
    trades, named = read(result, "trades", "NuAT=nuat")
    assert (trades.name, trades.kind, trades.model, named.name) == ("trades", "candidate", None, "NuAT")
    assert trades.config is not None and named.config is not None
    assert (trades.config.attack_steps, trades.config.clean_weight, trades.config.trades_weight) == (10, 1, 6)
    assert (trades.config.epochs, trades.config.lr_schedule, trades.config.batch_size) == (2, "cyclic", 64)
    assert (trades.config.epsilon, named.config.epsilon, named.config.regularizer) == (0.15, 0.15, "nuat")
    winner = choose_candidates(result, 1, [])[0].config
    assert winner is not None and trades.config.lr_max == winner.lr_max != 0.1
    assert trades.description.startswith("the preset trades (TRADES) at epsilon 0.15 (38.2/255): ")


def test_a_folder_with_the_name_of_a_method_is_a_trained_network(result: SearchResult) -> None:
    Path("trades").mkdir()
    save_network("trades/best_model.pt")
    (candidate,) = read(result, "trades")
    assert candidate.config is None and candidate.trained == str(Path("trades").absolute())


def test_a_method_of_a_candidate_stands_for_its_hyperparameters(result: SearchResult) -> None:
    Path("trades.yaml").write_text("training: {method: trades, epochs: 1, trades_weight: 3}\n")
    (candidate,) = read(result, "trades.yaml")
    assert candidate.config is not None
    assert (candidate.config.attack, candidate.config.clean_weight, candidate.config.trades_weight) == ("pgd", 1, 3)
