from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tune_cure.data import splits as data
from tune_cure.evaluation.metrics import evaluate
from tune_cure.evaluation.names import ACCURACIES
from tune_cure.models import checkpoints
from tune_cure.search.space.trial_config import read
from tune_cure.training.run import BEST, COLUMNS, LAST, LOG, TEST, Run, RunSpec, add_dataset_defaults, resolve
from tune_cure.utils.files import FolderError
from tune_cure.utils.yaml_config import ProblemError, SpecError

SECTIONS = {
    "data": {"dataset": "digits", "validation": 100, "train_examples": 256},
    "model": {"name": "small_cnn", "width": 4},
    "training": {"epochs": 3, "batch_size": 64, "epsilon": "0.1", "lr_schedule": "cyclic", "lambda": 0.02},
    "evaluation": {"epsilon": 0.1, "steps": 3, "examples": 50},
}
SPEC = """
name: searched
data: {dataset: digits, validation: 100, train_examples: 256}
model: {name: small_cnn, width: 4}
training: {epochs: 3, batch_size: 64}
space:
  lambda: {loguniform: [0.001, 1]}
  delta: {choice: [classic, none]}
evaluation: {epsilon: 0.1, steps: 3, examples: 50}
search: {seed: 7}
"""


@pytest.fixture(scope="module")
def spec() -> RunSpec:
    return resolve(SECTIONS)


def run_in(folder: Path, spec: RunSpec) -> Run:
    return Run(spec, data.load(spec.data), folder, "cpu")


def test_absent_sections_have_the_defaults_of_a_search() -> None:
    spec = resolve({})
    assert (spec.data.dataset, spec.model.name, spec.training.epochs) == ("cifar10", "preact_resnet18", 30)


@pytest.mark.parametrize(
    ("dataset", "validation", "network", "epsilon", "examples"),
    [
        ("cifar10", 5000, "preact_resnet18", 8 / 255, 1000),
        ("cifar100", 5000, "preact_resnet18", 8 / 255, 1000),
        ("svhn", 5000, "preact_resnet18", 8 / 255, 1000),
        ("digits", 360, "small_cnn", 0.15, 360),
        ("image_folder", None, "preact_resnet18", 8 / 255, 1000),
    ],
)
def test_a_data_set_brings_defaults_for_absent_keys(
    dataset: str, validation: int | None, network: str, epsilon: float, examples: int
) -> None:
    content = {"data": {"dataset": dataset}}
    added = add_dataset_defaults(content)
    spec = resolve(content)
    assert spec.data.validation == validation
    assert spec.model.name == network
    assert spec.training.epsilon == spec.evaluation.epsilon == epsilon
    assert spec.evaluation.examples == examples
    assert added.pop("data.validation", None) == validation
    assert added == {
        "model.name": network,
        "training.epsilon": epsilon,
        "evaluation.epsilon": epsilon,
        "evaluation.examples": examples,
    }


def test_without_a_data_set_the_defaults_are_those_of_cifar10_and_of_the_schema() -> None:
    content: dict[str, Any] = {}
    add_dataset_defaults(content)
    assert resolve(content) == resolve({})


def test_an_explicit_value_wins_over_the_data_sets_default() -> None:
    content = {key: dict(section) for key, section in SECTIONS.items()}
    assert add_dataset_defaults(content) == {}
    assert content == SECTIONS


@pytest.mark.parametrize("section", ["training", "evaluation"])
def test_a_norm_other_than_linf_needs_a_radius_of_its_own(section: str) -> None:
    content: dict[str, Any] = {"data": {"dataset": "digits"}, section: {"norm": "L2"}}
    assert f"{section}.epsilon" not in add_dataset_defaults(content)
    with pytest.raises(ProblemError) as caught:
        resolve(content)
    assert caught.value.path == f"{section}.epsilon"
    assert caught.value.message == "is needed with norm l2: its default is a radius in linf"
    content[section]["epsilon"] = 0.5
    assert getattr(resolve(content), section).epsilon == 0.5


def test_a_norm_without_an_attack_needs_no_radius() -> None:
    clean = {"norm": "l2", "attack": "none", "regularizer": "none"}
    assert resolve({"training": clean}).training.norm == "l2"


@pytest.mark.parametrize("norm", ["Linf", "LINF"])
def test_a_data_set_brings_its_radius_whatever_the_case_of_the_norm(norm: str) -> None:
    specs = []
    for name in (norm, "linf"):
        content = {"data": {"dataset": "digits"}, "training": {"norm": name}, "evaluation": {"norm": name}}
        add_dataset_defaults(content)
        specs.append(resolve(content))
    assert specs[0] == specs[1]
    assert specs[0].training.epsilon == specs[0].evaluation.epsilon == 0.15


@pytest.mark.parametrize("content", [{"data": 3}, {"data": {"dataset": 3}}, {"data": {}, "model": 3, "training": []}])
def test_sections_of_the_wrong_type_are_left_to_the_schema(content: dict[str, Any]) -> None:
    add_dataset_defaults(content)
    with pytest.raises(ProblemError):
        resolve(content)


def test_an_unknown_data_set_is_one_line_with_its_key() -> None:
    with pytest.raises(ProblemError) as caught:
        add_dataset_defaults({"data": {"dataset": "digitz"}})
    assert caught.value.path == "data.dataset"
    assert caught.value.message.endswith("did you mean 'digits'?")


def test_a_resolved_run_written_and_read_is_the_same_run(spec: RunSpec, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(spec.to_yaml())
    assert resolve(read(tmp_path / "config.yaml")) == spec


@pytest.mark.parametrize(
    ("training", "path", "message"),
    [
        ({"lamda": 1}, "training.lamda", "did you mean 'lambda'?"),
        ({"lambda": -1}, "training.lambda", "greater than or equal to 0"),
        ({"lr_max": 0.1, "lr_min": 0.2}, "training.lr_min", "must be at most lr_max"),
        ({"epsilon": 2}, "training.epsilon", "must be at most 1 with norm linf"),
        ({"attack": "none", "hat_weight": 1}, "training.hat_weight", "goes with an attack"),
        ({"adversarial_weight": 0}, "training.adversarial_weight", "nothing would be learnt from labels"),
    ],
)
def test_what_is_wrong_is_said_with_its_path(training: dict[str, object], path: str, message: str) -> None:
    with pytest.raises(ProblemError) as raised:
        resolve({"training": training})
    assert raised.value.path == path
    assert message in raised.value.message


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "trials.csv").write_text(
        "trial,status,lambda,delta,pgd_accuracy\n0,completed,0.25,none,0.5\n3,stopped,1e-05,classic,0.4\n"
    )
    (tmp_path / "best_config.csv").write_text("trial,status,lambda,delta,epoch\n0,completed,0.25,none,2\n")
    (tmp_path / "best_config.yaml").write_text("epochs: 3\nbatch_size: 64\nlambda: 0.25\ndelta: none\n")
    return tmp_path


@pytest.mark.parametrize("file", ["best_config.csv", "best_config.yaml", "."])
def test_the_winner_of_a_search_is_trained_as_its_trial_was(searched: Path, file: str) -> None:
    spec = resolve(read(searched / file))
    assert (spec.training.lambda_, spec.training.regularizer, spec.training.batch_size) == (0.25, "none", 64)
    assert (spec.data.validation, spec.model.width, spec.evaluation.steps, spec.seed) == (100, 4, 3, 7)


@pytest.mark.parametrize(("cpus", "threads"), [(1, 1), (3, 3), (64, 4)])
def test_a_trial_has_its_threads_again_as_far_as_the_process_may_use_cpus(
    cpus: int, threads: int, searched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    (searched / "spec.yaml").write_text(f"{SPEC}resources: {{cpus_per_trial: {cpus}}}\n")
    assert resolve(read(searched / "best_config.csv")).threads == threads


def test_any_trial_can_be_named(searched: Path) -> None:
    spec = resolve(read(searched / "trials.csv", trial=3))
    assert (spec.training.lambda_, spec.training.regularizer, spec.training.direction) == (1e-5, "cure", "classic")
    assert resolve(read(searched, trial=3)) == spec


def test_an_empty_cell_of_a_table_is_not_read_as_a_value(searched: Path) -> None:
    (searched / "trials.csv").write_text("trial,status,lambda,delta\n0,completed,,none\n")
    spec = resolve(read(searched / "trials.csv"))
    assert (spec.training.regularizer, spec.training.lambda_) == ("none", 0.1)


def test_a_table_with_several_rows_needs_a_trial(searched: Path) -> None:
    with pytest.raises(SpecError, match=r"has 2 rows to choose from; name one with --trial \(0 to 3\)"):
        read(searched / "trials.csv")
    with pytest.raises(SpecError, match="has no trial 1; there are 0 to 3"):
        read(searched / "trials.csv", 1)


def test_a_configuration_without_its_search_says_what_is_missing(searched: Path) -> None:
    (searched / "spec.yaml").unlink()
    with pytest.raises(SpecError, match=r"lies beside no spec\.yaml"):
        read(searched / "best_config.yaml")


def test_a_search_space_is_sent_to_the_search(searched: Path) -> None:
    with pytest.raises(SpecError, match=r"python run_search\.py --space"):
        read(searched / "spec.yaml")


def test_an_epoch_is_logged_and_saved(spec: RunSpec, tmp_path: Path) -> None:
    run = run_in(tmp_path, spec)
    steps: list[int] = []
    row = run.train_epoch(steps.append)
    assert steps == [1, 2, 3, 4]
    log = pd.read_csv(tmp_path / LOG)
    assert list(log.columns) == list(COLUMNS)
    assert log["pgd_accuracy"].tolist() == [row["pgd_accuracy"]]
    assert (tmp_path / BEST).exists()
    assert (tmp_path / LAST).exists()
    assert not run.finished


def test_a_restored_run_ends_as_one_that_never_stopped(spec: RunSpec, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    run = run_in(whole, spec)
    while not run.finished:
        run.train_epoch()
    for _ in range(spec.training.epochs):  # anew for every epoch
        run = run_in(stopped, spec)
        run.restore()
        run.train_epoch()
    assert run.finished
    ours, theirs = (torch.load(folder / LAST, weights_only=True)["trainer"] for folder in (whole, stopped))
    assert all(torch.equal(value, theirs["model"][name]) for name, value in ours["model"].items())
    seconds = ["train_seconds", "attack_seconds", "penalty_seconds", "eval_seconds", "images_per_second"]
    logs = [pd.read_csv(folder / LOG).drop(columns=[*seconds, "device_memory_mb"]) for folder in (whole, stopped)]
    assert logs[0].equals(logs[1])


def test_a_run_without_a_finished_epoch_is_restored_at_its_start(spec: RunSpec, tmp_path: Path) -> None:
    run = run_in(tmp_path, spec)
    run.restore()
    assert run.trainer.epoch == 0


def edit_saved(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    saved = torch.load(file, weights_only=True)
    edit(saved)
    torch.save(saved, file)


def replace_best_weight(saved: dict[str, Any], value: object) -> None:
    weights = saved["trainer"]["best_model"]["weights"]
    weights[next(iter(weights))] = value


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.write_bytes(b"junk"), "cannot be read as a checkpoint"),
        (lambda file: file.write_bytes(file.read_bytes()[:1000]), "cannot be read as a checkpoint"),
        (lambda file: torch.save([1], file), "is no checkpoint"),
        (lambda file: torch.save({"epoch": 1}, file), "the run cannot go on from it"),
        (lambda file: edit_saved(file, lambda saved: saved["log"][0].pop("gradient_alignment")), "its log is not that"),
        (lambda file: edit_saved(file, lambda saved: saved["log"][0].update(lr="fast")), "its log is not that"),
        (lambda file: edit_saved(file, lambda saved: saved["log"].clear()), "its log is not that"),
        (lambda file: edit_saved(file, lambda saved: replace_best_weight(saved, "x")), "its best weights are not"),
        (lambda file: edit_saved(file, lambda saved: replace_best_weight(saved, torch.zeros(1))), "its best weights"),
    ],
    ids=[
        "junk",
        "truncated",
        "list",
        "other",
        "a column is missing",
        "a number is text",
        "no log",
        "no weight",
        "other weight",
    ],
)
def test_a_damaged_checkpoint_is_one_line(damage: Callable[[Path], None], said: str, spec: RunSpec, tmp_path) -> None:
    run_in(tmp_path, spec).train_epoch()
    damage(tmp_path / LAST)
    with pytest.raises(FolderError, match=said) as raised:
        run_in(tmp_path, spec).restore()
    assert "\n" not in str(raised.value)


def test_a_run_whose_configuration_was_changed_is_not_restored(spec: RunSpec, tmp_path: Path) -> None:
    run_in(tmp_path, spec).train_epoch()
    changed = resolve({**SECTIONS, "training": {**SECTIONS["training"], "lr_max": 0.2}})
    with pytest.raises(FolderError, match=r"training.lr_max is 0.2 now, but was 0.1 when the run was begun"):
        run_in(tmp_path, changed).restore()
    moved = resolve({**SECTIONS, "data": {**SECTIONS["data"], "root": str(tmp_path)}})
    run = run_in(tmp_path, moved)
    run.restore()
    assert run.trainer.epoch == 1


def test_a_run_of_a_version_that_knew_fewer_hyperparameters_goes_on(spec: RunSpec, tmp_path: Path) -> None:
    run_in(tmp_path, spec).train_epoch()
    saved = torch.load(tmp_path / LAST, weights_only=True)
    del saved["run"]["training.attack_statistics"]
    torch.save(saved, tmp_path / LAST)
    run = run_in(tmp_path, spec)
    run.restore()
    assert run.trainer.epoch == 1
    changed = resolve({**SECTIONS, "training": {**SECTIONS["training"], "attack_statistics": "batch"}})
    with pytest.raises(FolderError, match=r"training.attack_statistics is batch now, but was running"):
        run_in(tmp_path, changed).restore()


def test_a_lost_best_model_is_written_again_from_the_last_checkpoint(spec: RunSpec, tmp_path: Path) -> None:
    run_in(tmp_path, spec).train_epoch()
    before = torch.load(tmp_path / BEST, weights_only=True)
    (tmp_path / BEST).unlink()
    run_in(tmp_path, spec).restore()
    after = torch.load(tmp_path / BEST, weights_only=True)
    assert all(torch.equal(value, after["weights"][name]) for name, value in before.pop("weights").items())
    after.pop("weights")
    assert after == before


def test_a_run_ended_by_early_stop_stays_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_cure.training.trainer.catastrophic_overfitting", lambda before, now: True)
    for early_stop in (True, False):
        spec = resolve({**SECTIONS, "early_stop": early_stop})
        folder = tmp_path / str(early_stop)
        folder.mkdir()
        run_in(folder, spec).train_epoch()
        resumed = run_in(folder, spec)
        resumed.restore()
        assert resumed.finished == early_stop


def test_test_results_go_when_training_goes_on(spec: RunSpec, tmp_path: Path) -> None:
    run = run_in(tmp_path, spec)
    run.train_epoch()
    run.evaluate_on_test()
    run.train_epoch()
    assert not (tmp_path / TEST).exists()


def test_a_network_ruined_by_the_last_step_is_diverged_and_not_kept(tmp_path: Path) -> None:
    wild = {**SECTIONS["training"], "lr_max": 1e38, "lr_schedule": "fixed", "momentum": 0, "batch_size": 256}
    run = run_in(tmp_path, resolve({**SECTIONS, "training": wild | {"lambda": 0}}))
    row = run.train_epoch()
    assert row["diverged"]
    assert row["train_loss"] is not None  # that of the step before it was made
    assert not (tmp_path / BEST).exists()


def test_a_diverged_run_is_over_and_was_not_judged(tmp_path: Path) -> None:
    wild = {**SECTIONS["training"], "lr_max": 1e30, "lr_schedule": "fixed", "momentum": 0.0}
    run = run_in(tmp_path, resolve({**SECTIONS, "training": wild}))
    row = run.train_epoch()
    assert row["diverged"]
    assert row["pgd_accuracy"] is None
    assert run.finished


def test_the_test_set_judges_the_best_and_the_last_network_on_all_its_images(spec: RunSpec, tmp_path: Path) -> None:
    run = run_in(tmp_path, spec)
    while not run.finished:
        run.train_epoch()
    frame = run.evaluate_on_test()
    assert frame["weights"].tolist() == ["best", "last"]
    assert frame["epoch"].tolist() == [run.trainer.best_epoch, 3]
    assert frame["examples"].tolist() == [359, 359]
    best = evaluate(checkpoints.load(tmp_path / BEST), run.trainer.splits.test, spec.evaluation)
    assert frame.loc[0, list(ACCURACIES)].tolist() == [best[name] for name in ACCURACIES]
    assert pd.read_csv(tmp_path / TEST).equals(frame)


def test_the_best_model_names_its_hyperparameters_and_what_it_reached(spec: RunSpec, tmp_path: Path) -> None:
    run = run_in(tmp_path, spec)
    row = run.train_epoch()
    saved = torch.load(tmp_path / BEST, weights_only=True)
    assert saved["hyperparameters"]["lambda"] == 0.02
    assert saved["metrics"]["pgd_accuracy"] == row["pgd_accuracy"]
    plain = load_file(tmp_path / "best_model.safetensors")
    assert plain.keys() == saved["weights"].keys()
    assert all(torch.equal(tensor, saved["weights"][name]) for name, tensor in plain.items())
