import ast
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.support.confirmations import write_quick_search
from tests.support.exported_models import (
    IMAGE_FIELDS,
    NETWORK,
    card_rows,
    random_network,
    run_card_code,
    write_best_model,
    write_bundle,
    write_confirmed_runs,
    write_search_with_model,
)
from tune_cure.attacks.registry import NORMS
from tune_cure.confirmation.plan import find_left_out
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.models import checkpoints
from tune_cure.reports.export import bundle
from tune_cure.reports.export.measurements import ExportError
from tune_cure.reports.export.model_card import build_model_card
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.utils.files import replace_arrays, replace_tensors


@pytest.fixture
def result(tmp_path: Path) -> SearchResult:
    return write_search_with_model(tmp_path)


def test_weights_are_the_same_bit_for_bit(result: SearchResult, tmp_path: Path) -> None:
    folder = write_bundle(bundle.collect_search_model(result), result, tmp_path / "out")
    expected, exported = random_network().state_dict(), load_file(folder / "model.safetensors")
    assert list(exported) and set(exported) == set(expected)
    for name, tensor in expected.items():
        assert exported[name].dtype == tensor.dtype
        assert torch.equal(exported[name], tensor), name


def test_model_py_imports_torch_and_the_standard_library_alone(result: SearchResult, tmp_path: Path) -> None:
    folder = write_bundle(bundle.collect_search_model(result), result, tmp_path / "out")
    for file in ("model.py", "load.py"):
        imported = set()
        for node in ast.walk(ast.parse((folder / file).read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                assert node.module and node.level == 0
                imported.add(node.module.split(".")[0])
        assert imported - sys.stdlib_module_names <= {"torch", "model"}


def test_config_json_says_what_the_network_is_and_how_it_was_trained(result: SearchResult, tmp_path: Path) -> None:
    content = json.loads(
        (write_bundle(bundle.collect_search_model(result), result, tmp_path / "out") / "config.json").read_text()
    )
    assert result.best
    assert content["network"] == NETWORK
    assert content["classes"] == IMAGE_FIELDS["classes"]
    assert content["image_size"] == [8, 8]
    assert content["training"]["lambda"] == result.best.hyperparameters["lambda"]
    assert content["training"]["epochs"] == 2
    assert content["evaluation"]["epsilon"] == 0.15
    assert content["data"]["dataset"] == "digits"


def test_the_best_configuration_is_copied(result: SearchResult, tmp_path: Path) -> None:
    folder = write_bundle(bundle.collect_search_model(result), result, tmp_path / "out")
    for name in ("best_config.csv", "best_config.yaml"):
        assert (folder / name).read_bytes() == (result.directory / name).read_bytes()


def test_the_card_of_a_search_has_the_numbers_of_its_tables_and_says_that_they_are_optimistic(
    result: SearchResult,
) -> None:
    card = build_model_card(bundle.collect_search_model(result))
    assert result.best
    row = result.best.row
    names = {"clean": "clean_accuracy_best", "FGSM": "fgsm_accuracy_best", "PGD-10": "pgd_accuracy_best"}
    for attack, name in names.items():
        ((_, images, accuracy),) = card_rows(card, attack)
        assert images == "360 validation"
        assert accuracy.split(" ± ")[0] == f"{100 * row[name]:.2f}"
    assert card_rows(card, "PGD-10")[0][2].split(" ± ")[1] == f"{100 * row['pgd_accuracy_best_se']:.2f}"
    assert "validation accuracies of the winner of 8 trials, and so are optimistic" in card
    assert "has not been confirmed" in card
    assert "AutoAttack has not been run on these weights" in card


def test_measurements_on_fresh_images_have_their_own_rows(result: SearchResult) -> None:
    from tune_cure.search.journal import Journal

    assert result.best
    judgment = {"pgd_accuracy": 0.25, "pgd_accuracy_se": 0.03, "clean_accuracy": 0.5, "examples": 200}
    epoch = int(result.best.row["best_epoch"])
    Journal(result.directory).append("leader", result.best.trial, epoch=epoch, **judgment)
    card = build_model_card(bundle.collect_search_model(SearchResult(result.directory)))
    assert card_rows(card, "PGD-20-10")[0][1:] == ["200 fresh validation", "25.00 ± 3.06"]
    assert card_rows(card, "clean")[1][1:] == ["200 fresh validation", "50.00 ± 3.54"]


def test_the_card_of_a_winner_that_autoattack_judged_again_names_its_version(tmp_path: Path) -> None:
    from tune_cure.search.journal import Journal
    from tune_cure.search.trial_table import rescoring_attack

    result = write_search_with_model(tmp_path / "run", "rescore.attack=autoattack")
    assert result.best
    epoch = int(result.best.row["best_epoch"])
    judged = {"pgd_accuracy": 0.25, "pgd_accuracy_se": 0.03, "clean_accuracy": 0.5, "examples": 200}
    event = {**judged, "attack": rescoring_attack(result.spec), "autoattack_version": "0.2.0"}
    Journal(result.directory).append("leader", result.best.trial, epoch=epoch, **event)
    card = build_model_card(bundle.collect_search_model(SearchResult(result.directory)))
    assert card_rows(card, "AutoAttack")[0][1:] == ["200 fresh validation", "25.00 ± 3.06"]
    assert "AutoAttack is that of the package pyautoattack 0.2.0." in card
    assert "has not been run" not in card


def test_the_first_seed_is_exported_unless_another_is_asked_for(result: SearchResult) -> None:
    name = write_confirmed_runs(result, 1, 2)[0].candidate.name
    assert bundle.collect_confirmed_model(result, name, None).title.endswith("seed 1")


def test_only_the_winner_is_accompanied_by_the_best_configuration(result: SearchResult) -> None:
    name = write_confirmed_runs(result, 1)[0].candidate.name
    assert bundle.collect_confirmed_model(result, name, None).best_config
    assert not bundle.collect_confirmed_model(result, "fgsm", None).best_config


def test_the_card_names_the_seeds_of_each_mean_and_the_version_of_autoattack(result: SearchResult) -> None:
    jobs = write_confirmed_runs(result, 1, 2, 3)
    leader = [job for job in jobs if job.candidate.kind == "leader"]
    for job in leader[:2]:
        file = job.outcome_folder(0.15) / run_files.OUTCOMES
        with np.load(file) as content:
            arrays = {name: content[name] for name in content.files}
        parts = dict.fromkeys(("apgd_ce", "apgd_t", "fab_t", "autoattack"), arrays["pgd_50_10"])
        replace_arrays(file, arrays | parts | {"autoattack_version": np.array("0.2.0")})
    model = bundle.collect_confirmed_model(result, leader[0].candidate.name, 1)
    card = build_model_card(model)
    ((*_, of_pgd),), ((*_, of_autoattack),) = card_rows(card, "PGD-50-10"), card_rows(card, "AutoAttack")
    assert (of_pgd, of_autoattack) == ("1, 2 and 3", "1 and 2")
    versions = {measurement.attack: measurement.autoattack_version for measurement in model.measured}
    assert (versions["PGD-50-10"], versions["APGD-CE"], versions["AutoAttack"]) == ("", "0.2.0", "0.2.0")
    assert "AutoAttack is that of the package pyautoattack 0.2.0." in card
    elsewhere = build_model_card(bundle.collect_search_model(result))
    assert "AutoAttack is that of the package pyautoattack 0.2.0." in elsewhere


def test_only_of_a_trial_the_card_says_which_hyperparameters_the_search_chose(result: SearchResult) -> None:
    name = write_confirmed_runs(result, 1)[0].candidate.name
    trial, baseline = (build_model_card(bundle.collect_confirmed_model(result, it, None)) for it in (name, "fgsm"))
    assert "The search chose `lambda`" in trial
    assert "The search chose" not in baseline


def test_the_card_of_a_search_gives_the_means_of_its_confirmation_separately(result: SearchResult) -> None:
    jobs = write_confirmed_runs(result, 1, 2)
    means = Confirmation(jobs).means()
    mean = means[means["contender"] == jobs[0].candidate.name].iloc[0]
    card = build_model_card(bundle.collect_search_model(result))
    accuracy = f"{100 * mean['pgd_50_10']:.2f} ± {100 * mean['pgd_50_10_sd']:.2f}"
    assert card_rows(card, "PGD-50-10") == [["epsilon 0.15 (38.2/255)", "30", "1 and 2", accuracy]]
    assert "These accuracies are not those of the weights here" in card
    assert "has not been confirmed" not in card


def test_warnings_of_masked_gradients_are_in_the_card(result: SearchResult) -> None:
    job = write_confirmed_runs(result, 1)[0]
    file = job.outcome_folder(0.15) / run_files.OUTCOMES
    right, wrong = np.ones(30, dtype=bool), np.zeros(30, dtype=bool)
    outcomes = {"clean": right, "fgsm": right, "pgd_10": wrong, "pgd_50_10": wrong, "zero_gradient": 0.0}
    replace_arrays(file, {**outcomes, "seconds": 1.0})
    exported = bundle.collect_confirmed_model(result, job.candidate.name, 1)
    assert len(exported.warnings) == 1
    assert "**Warning.** at epsilon 0.15: FGSM accuracy is 100.0 points above PGD-10's" in build_model_card(exported)
    assert "**Warning.** Trained again with seed 1: at epsilon 0.15: FGSM accuracy" in build_model_card(
        bundle.collect_search_model(result)
    )


@pytest.mark.parametrize(
    ("clean", "robust", "words"),
    [
        (0.7, 0.7, "its accuracy of 70.0% without attack is not clearly above chance: one fixed answer has 70.0%, "),
        (1.0, 0.5, "its accuracy of 50.0% under PGD-50-10 is not clearly above chance: one fixed answer has 70.0%, "),
        (1.0, 0.9, ""),
    ],
)
def test_a_network_at_chance_has_a_warning_in_its_card(
    clean: float, robust: float, words: str, result: SearchResult
) -> None:
    job = write_confirmed_runs(result, 1)[0]
    file = job.outcome_folder(0.15) / run_files.OUTCOMES
    right, withstood = (np.arange(30) < 30 * share for share in (clean, robust))
    outcomes = {"clean": right, **dict.fromkeys(("fgsm", "pgd_10", "pgd_50_10"), withstood), "zero_gradient": 0.0}
    replace_arrays(file, {**outcomes, "seconds": 1.0, "chance": 0.7})
    exported = bundle.collect_confirmed_model(result, job.candidate.name, 1)
    assert len(exported.warnings) == bool(words)
    assert f"**Warning.** at epsilon 0.15: {words}" in build_model_card(exported) or not words
    trained_again = build_model_card(bundle.collect_search_model(result))
    assert f"**Warning.** Trained again with seed 1: at epsilon 0.15: {words}" in trained_again or not words


def test_the_best_model_of_a_search_at_chance_has_a_warning_in_its_card(result: SearchResult) -> None:
    file = result.directory / run_files.ENVIRONMENT
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | {"chance_level": 0.99}))
    exported = bundle.collect_search_model(result)
    assert "**Warning.** No trial is clearly above chance. One fixed answer is right on 99.0%" in build_model_card(
        exported
    )


@pytest.mark.parametrize(
    ("dataset", "shown"),
    [("cifar10", "from robustbench import benchmark"), ("digits", "from pyautoattack import AutoAttack")],
)
def test_the_card_says_how_to_evaluate(dataset: str, shown: str, tmp_path: Path) -> None:
    search = write_quick_search(tmp_path, f"data.dataset={dataset}", "evaluation.epsilon=8/255")
    write_best_model(search, image_size=[32, 32])
    card = build_model_card(bundle.collect_search_model(search))
    assert shown in card
    assert "eps=8 / 255" in card
    assert ("RobustBench has no test images of digits, but" in card) == (dataset == "digits")


def test_the_card_of_a_network_of_another_image_size_says_that_robustbench_has_none_of_it(tmp_path: Path) -> None:
    search = write_quick_search(tmp_path, "data={dataset: cifar10, image_size: 16}", "evaluation.epsilon=8/255")
    write_best_model(search, image_size=[16, 16])
    card = build_model_card(bundle.collect_search_model(search))
    assert "RobustBench has no test images of cifar10 of this size, but AutoAttack takes the network as it is" in card


def test_the_card_of_a_network_judged_in_a_norm_of_the_users_own_names_it_and_no_attack_that_does_not_know_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NORMS, "l1", NORMS["l2"])
    card = build_model_card(bundle.collect_search_model(write_search_with_model(tmp_path, "evaluation.norm=l1")))
    assert "within the l1 ball of epsilon 0.15 in l1" in card
    assert "RobustBench and AutoAttack attack in Linf and L2, not in `l1`." in card
    assert "import AutoAttack" not in card
    assert "judges it on test images.\n" in card


def test_runs_that_were_judged_in_a_norm_of_the_users_own_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NORMS, "my_norms:l1", NORMS["l2"])
    jobs = write_confirmed_runs(write_search_with_model(tmp_path, "evaluation.norm=my_norms:l1"), 1, 2)
    assert find_left_out(jobs[:1]) == [("fgsm", 1, 0.15), ("fgsm", 2, 0.15), ("trial-2", 2, 0.15)]
    model = bundle.collect_confirmed_model(SearchResult(tmp_path), jobs[0].candidate.name, 1)
    assert "PGD-50-10" in {measurement.attack for measurement in model.measured}


@pytest.mark.parametrize("num_classes", [10, 5, 2])
def test_the_lines_of_the_card_run(
    num_classes: int, result: SearchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"num_classes": num_classes}
    write_best_model(result, model=NETWORK | sizes, weights=random_network(**sizes).state_dict())
    folder = write_bundle(bundle.collect_search_model(result), result, tmp_path / "out")
    classes = run_card_code(folder, 1, monkeypatch)["classes"]
    assert classes.shape == (2,) and classes.max() < num_classes
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    wrong = (
        checkpoints.load(result.directory / "best_model.pt")(images).argmax(dim=1) + 1
    ) % num_classes  # so that there is nothing to attack
    names = run_card_code(folder, 2, monkeypatch, images=images, labels=wrong)
    assert names["attack"].epsilon == 0.15
    if num_classes == 2:
        assert names["attack"].attacks_to_run == ["apgd-ce", "square"]
    else:
        assert names["attack"].apgd_targeted.n_target_classes == min(9, num_classes - 1)


def test_text_from_the_run_is_escaped_in_markdown(result: SearchResult) -> None:
    command = "python `x`\n# not a title"
    (result.directory / "environment.json").write_text(json.dumps({"command": command, "data": "<b>[a](b)</b>"}))
    write_best_model(result, classes=["a`b", *"123456789"])
    card = build_model_card(bundle.collect_search_model(result))
    assert "\n# not a title" not in card
    assert "\\<b\\>\\[a\\](b)" in card
    assert "`a'b`" in card


def refused(call: Any) -> str:
    with pytest.raises(ExportError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_search_without_a_best_model_has_nothing_to_export(result: SearchResult) -> None:
    (result.directory / "best_model.pt").unlink()
    assert "there is no best_model.pt yet" in refused(lambda: bundle.collect_search_model(result))


@pytest.mark.parametrize("changes", [{"trial": 0}, {"epoch": 1000}, {"trial": None}])
def test_weights_of_another_trial_or_epoch_are_not_exported(changes: dict[str, Any], result: SearchResult) -> None:
    write_best_model(result, **changes)
    assert "brings it up to date" in refused(lambda: bundle.collect_search_model(result))


@pytest.mark.parametrize(
    "changes",
    [{"model": {}}, {"model": 3}, {"model": NETWORK | {"name": "x"}}, {"model": NETWORK | {"width": 5}},
     {"weights": []}, {"classes": 7}, {"image_size": [1]}, {"image_size": "ab"}],
)  # fmt: skip
def test_a_file_without_a_network_is_refused_in_one_line(changes: dict[str, Any], result: SearchResult) -> None:
    file = write_best_model(result, **changes)
    assert f"{file}: holds no network of this project" in refused(lambda: bundle.collect_search_model(result))


def test_an_unknown_candidate_or_seed_is_refused_with_the_known_ones(result: SearchResult) -> None:
    assert "holds no confirmation" in refused(lambda: bundle.collect_confirmed_model(result, "fgsm", None))
    name = write_confirmed_runs(result, 1)[0].candidate.name
    message = refused(lambda: bundle.collect_confirmed_model(result, "fgms", None))
    assert message == f"--confirmed fgms: was not confirmed; choose from fgsm and {name}; did you mean 'fgsm'?"
    assert "--seed 7: fgsm was trained with seeds 1" in refused(
        lambda: bundle.collect_confirmed_model(result, "fgsm", 7)
    )
    assert "was not confirmed; choose from" in refused(
        lambda: bundle.collect_confirmed_model(result, "../confirm/fgsm", None)
    )


def test_runs_that_diverged_or_were_not_judged_are_not_exported(result: SearchResult) -> None:
    job = write_confirmed_runs(result, 1)[0]
    outcomes = job.outcome_folder(0.15) / run_files.OUTCOMES
    content = outcomes.read_bytes()
    right = np.ones(30, dtype=bool)
    forged = {"clean": right, "zero_gradient": 0.0, "seconds": 1.0, "autoattack_version": np.array("[a](b)")}
    for damage in ({"clean": np.ones(30)}, {"clean": right, "zero_gradient": np.array(["x"])}, forged):
        replace_arrays(outcomes, damage)
        assert f"{outcomes}: is damaged" in refused(
            lambda: bundle.collect_confirmed_model(result, job.candidate.name, 1)
        )
    outcomes.write_bytes(b"PK damaged")
    assert f"{outcomes}: is damaged" in refused(lambda: bundle.collect_confirmed_model(result, job.candidate.name, 1))
    outcomes.unlink()
    assert "has not been judged yet" in refused(lambda: bundle.collect_confirmed_model(result, job.candidate.name, 1))
    outcomes.write_bytes(content)
    (job.folder / run_files.JOB_CONFIG).write_text("training: {epochs: -1}")
    assert "does not say how the run was trained" in refused(
        lambda: bundle.collect_confirmed_model(result, job.candidate.name, 1)
    )
    (job.folder / run_files.JOB_CONFIG).write_text(job.config.to_yaml())
    replace_tensors(job.folder / run_files.JOB_MODEL, {"model": NETWORK, "weights": {}, "epoch": 1})
    assert "the training diverged" in refused(lambda: bundle.collect_confirmed_model(result, job.candidate.name, 1))


@pytest.mark.parametrize("weights", [None, torch.zeros(2), "x"], ids=["none", "a tensor", "a word"])
def test_a_confirmed_network_whose_weights_are_no_mapping_is_refused(result: SearchResult, weights: object) -> None:
    job = write_confirmed_runs(result, 1)[0]
    replace_tensors(job.folder / run_files.JOB_MODEL, {"model": NETWORK, "weights": weights, "epoch": 1})
    said = refused(lambda: bundle.collect_confirmed_model(result, job.candidate.name, 1))
    assert said == f"{job.folder / run_files.JOB_MODEL}: holds no network of this project"


def test_a_network_whose_mean_is_no_number_that_an_export_can_hold_is_refused(result: SearchResult) -> None:
    job = write_confirmed_runs(result, 1)[0]
    file = job.folder / run_files.JOB_MODEL
    replace_tensors(file, {**torch.load(file), "model": {**NETWORK, "mean": [True]}})
    said = refused(lambda: bundle.collect_confirmed_model(result, job.candidate.name, 1))
    assert said == f"{file}: holds no network of this project: 0.mean is torch.bool, not torch.float32"


def test_a_link_out_of_the_run_is_no_confirmed_run(
    result: SearchResult, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = result.directory / run_files.CONFIRM / "fgsm" / "seed-1"
    run.mkdir(parents=True)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "model.pt"
    replace_tensors(elsewhere, {"model": NETWORK, "weights": random_network().state_dict()})
    (run / "model.pt").symlink_to(elsewhere)
    assert "holds no confirmation" in refused(lambda: bundle.collect_confirmed_model(result, "fgsm", None))


def test_a_folder_that_is_not_empty_is_not_written_to(result: SearchResult, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    for name in ("full", "file"):
        message = refused(lambda name=name: write_bundle(bundle.collect_search_model(result), result, tmp_path / name))
        assert message == f"{tmp_path / name}: is not an empty folder; name another one after --to"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]
    assert "cannot be written" in refused(
        lambda: write_bundle(bundle.collect_search_model(result), result, tmp_path / "file" / "x")
    )
    (tmp_path / "empty").mkdir()
    assert (write_bundle(bundle.collect_search_model(result), result, tmp_path / "empty") / "load.py").exists()


def test_names_and_descriptions_from_files_are_neither_markdown_nor_html_nor_escape_sequences(
    result: SearchResult, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write_confirmed_runs(result, 1)[-1]
    config = job.folder / run_files.JOB_CONFIG
    config.write_text(job.config.model_copy(update={"contender": "<b>\x1b]0;x\x07[x](y)\u202e"}).to_yaml())
    card = build_model_card(bundle.collect_confirmed_model(result, "fgsm", 1))
    assert "\\<b\\>" in card
    assert not set("\x1b\x07\u202e") & set(card)
    hostile = job.folder.parent.with_name("<script>\x1b[2J")
    job.folder.parent.rename(hostile)
    message = refused(lambda: bundle.collect_confirmed_model(result, hostile.name, None))
    assert "was not confirmed; choose from trial-" in message
    assert message.isprintable()


@pytest.mark.parametrize("changes", [{"trial": torch.zeros(0)}, {"epoch": [1]}, {"trial": None}], ids=str)
def test_a_file_that_does_not_say_whose_weights_it_holds_is_refused(
    changes: dict[str, Any], result: SearchResult
) -> None:
    write_best_model(result, **changes)
    assert "brings it up to date" in refused(lambda: bundle.collect_search_model(result))
