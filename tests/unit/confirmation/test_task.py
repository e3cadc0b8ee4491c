import json
from pathlib import Path

import pytest

from tests.support.exported_models import write_bundle, write_confirmed_runs, write_search_with_model
from tests.support.leagues import write_league
from tune_cure.confirmation.task import Task, choose_task, find_task
from tune_cure.reports.export.bundle import collect_search_model
from tune_cure.training.run import RunSpec
from tune_cure.utils.errors import TuneCureError


def test_the_folder_of_a_search_its_confirmation_and_its_export_say_what_for(tmp_path: Path) -> None:
    result = write_search_with_model(tmp_path / "run")
    job = write_confirmed_runs(result, 1)[0]
    exported = write_bundle(collect_search_model(result), result, tmp_path / "out")
    for path in (result.directory, result.directory / "best_model.pt", job.folder / "model.pt", exported):
        task = find_task(path)
        assert task is not None
        assert task.data.dataset == "digits" and task.evaluation == result.spec.evaluation, path


def test_an_export_says_which_images_its_search_held_out(tmp_path: Path) -> None:
    result = write_search_with_model(tmp_path / "run", "data.validation=200", "data.split_seed=3")
    exported = write_bundle(collect_search_model(result), result, tmp_path / "out")
    task = find_task(exported)
    assert task is not None
    assert (task.data.num_validation, task.data.split_seed) == (200, 3)


def test_an_export_of_an_earlier_version_takes_the_data_sets_own_number_of_images(tmp_path: Path) -> None:
    result = write_search_with_model(tmp_path / "run", "data.validation=200")
    exported = write_bundle(collect_search_model(result), result, tmp_path / "out")
    config = json.loads((exported / "config.json").read_text())
    config["data"] = {key: config["data"][key] for key in ("dataset", "source", "train_images")}
    (exported / "config.json").write_text(json.dumps(config))
    task = find_task(exported)
    assert task is not None and task.data.num_validation == 360


def test_the_folder_of_a_training_run_says_what_for(tmp_path: Path) -> None:
    content = {"data": {"dataset": "digits", "validation": 360}, "evaluation": {"epsilon": 0.2}}
    spec = RunSpec.model_validate(content)
    (tmp_path / "config.yaml").write_text(spec.to_yaml())
    (tmp_path / "best_model.pt").touch()
    task = find_task(tmp_path)
    assert task is not None and task.evaluation.epsilon == 0.2 and task.data.dataset == "digits"


def test_other_folders_and_files_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("a file of another program")
    assert find_task(tmp_path) is None
    assert find_task(tmp_path / "missing" / "weights.pt") is None


def chosen(tmp_path: Path, **asked: object) -> Task:
    evaluation = {key: asked.pop(key) for key in ("norm", "epsilon") if key in asked}
    result = write_search_with_model(tmp_path / "run")
    return choose_task([tmp_path / "nowhere", result.directory], data=asked, evaluation=evaluation)


def test_what_is_asked_for_comes_before_what_is_recorded(tmp_path: Path) -> None:
    task = chosen(tmp_path, image_size=16, epsilon=0.3)
    assert (task.data.dataset, task.data.image_size, task.evaluation.epsilon) == ("digits", 16, 0.3)


def test_another_data_set_takes_nothing_of_the_recorded_one(tmp_path: Path) -> None:
    task = chosen(tmp_path, dataset="cifar10")
    assert task.data.dataset == "cifar10" and task.data.image_size is None
    assert task.evaluation.epsilon == pytest.approx(8 / 255)


def test_without_any_record_it_is_cifar10_at_its_radius() -> None:
    task = choose_task([], data={"dataset": None}, evaluation={"epsilon": None})
    assert task.data.dataset == "cifar10" and task.evaluation.epsilon == pytest.approx(8 / 255)


def test_the_case_of_a_norm_makes_no_difference(tmp_path: Path) -> None:
    asked = chosen(tmp_path, norm="LINF")
    assert asked == find_task(tmp_path / "run")
    assert choose_task([], data={"dataset": "digits"}, evaluation={"norm": "Linf"}).evaluation.epsilon == 0.15


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"dataset": "cifar11"}, "--dataset: 'cifar11' is not one of"),
        ({"norm": "l2"}, "--epsilon: is needed with norm l2: its default is a radius in linf"),
        ({"norm": "l3", "epsilon": 0.1}, "--norm: "),
        ({"epsilon": 3.0}, "--epsilon: must be at most 1 with norm linf"),
        ({"image_size": 2}, "--image-size: "),
    ],
)
def test_what_is_not_possible_is_one_line(tmp_path: Path, asked: dict[str, object], message: str) -> None:
    with pytest.raises(TuneCureError) as caught:
        chosen(tmp_path, **asked)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"image_size": 3, "data": {}, "evaluation": {}})])
def test_a_damaged_export_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(TuneCureError, match="does not say what the network was trained for"):
        find_task(tmp_path)


def test_the_networks_of_a_league_were_trained_for_what_its_searches_say(tmp_path: Path) -> None:
    league = write_league(tmp_path, {"cure": "cure", "pgd": "pgd"})
    model = league.folder / "confirm" / "cure" / "seed-1" / "model.pt"
    model.parent.mkdir(parents=True)
    model.touch()
    task = find_task(model)
    spec = league.results()["cure"].spec
    assert task == Task(spec.data, spec.evaluation)
    assert task.data.dataset == "digits"
