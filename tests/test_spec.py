from pathlib import Path

import pytest
import yaml

from tune_cure.spec import SearchSpec, SpecError, load

BASE = """
name: test
data: {dataset: digits, validation: 300}
model: small_cnn
training: {epochs: 9, alpha: 5/4, weight_decay: 1e-4}
space:
  lambda:  {loguniform: [0.01, 10]}
  h:       {uniform: [0.5, 5.0]}
  lr_max:  {loguniform: [0.01, 0.5]}
  epsilon: {uniform: [4/255, 12/255]}
start_from:
  - {lambda: 10, h: 3, lr_max: 0.1, epsilon: 8/255}
evaluation: {epsilon: 8/255}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(BASE)
    return path


def error(path: Path, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        load(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_fractions_and_exponents_are_numbers(base: Path) -> None:
    spec = load(base)
    assert spec.evaluation.epsilon == 8 / 255
    assert spec.space["epsilon"].values == [4 / 255, 12 / 255]
    assert spec.start_from[0]["epsilon"] == 8 / 255
    config = spec.training_config({})
    assert (config.alpha, config.weight_decay) == (1.25, 1e-4)


def test_the_path_of_lambda_from_yaml_to_training_config(base: Path) -> None:
    assert load(base).training_config({"lambda": 0.37}).lambda_ == 0.37


def test_overrides_replace_or_add_by_path(base: Path) -> None:
    spec = load(
        base,
        [
            "training.epochs=5",
            "search.trials=8",
            "space.momentum={uniform: [0, 0.9]}",
            "model.width=4",
            "start_from=[]",
        ],
    )
    assert spec.space["momentum"].values == [0.0, 0.9]
    assert (spec.max_epochs, spec.search.trials, spec.model.width) == (5, 8, 4)


def test_off_is_a_word_not_a_boolean(base: Path) -> None:
    assert load(base, ["training.amp=off"]).training_config({}).amp == "off"


def test_a_resolved_spec_reads_back_as_the_same_search(base: Path, tmp_path: Path) -> None:
    added = ["space.optimizer={choice: [sgd, adam]}", "space.batch_size={int: [32, 128], step: 32}"]
    spec = load(base, [*added, "start_from=[]"])
    (tmp_path / "resolved.yaml").write_text(spec.to_yaml())
    again = load(tmp_path / "resolved.yaml")
    assert again.model_dump(exclude={"training"}) == spec.model_dump(exclude={"training"})
    assert again.training_config({}) == spec.training_config({})
    assert yaml.safe_load(spec.to_yaml())["training"]["momentum"] == 0.9  # defaults are written out


def test_rungs_and_most_epochs_follow_from_asha(base: Path) -> None:
    spec = load(base, ["training.epochs=30", "asha.grace_period=3"])
    assert (spec.rungs, spec.max_epochs) == ([3, 9, 27], 30)
    assert load(base, ["space.epochs={int: [2, 12]}", "training={}", "start_from=[]"]).max_epochs == 12


def test_a_best_config_file_is_a_start(base: Path, tmp_path: Path) -> None:
    best = tmp_path / "best_config.yaml"
    best.write_text("epochs: 9\nlambda: 0.5\nh: 1.0\nlr_max: 0.2\nepsilon: 0.03\n")
    spec = load(base, [f"start_from=[{best}]"])
    assert spec.start_from == [{"lambda": 0.5, "h": 1.0, "lr_max": 0.2, "epsilon": 0.03}]
    assert error(base, "start_from=[nowhere.yaml]").startswith("start_from[0]: nowhere.yaml: cannot be read")


@pytest.mark.parametrize(
    ("override", "where", "said"),
    [
        ("trainng.epochs=5", "trainng", "unknown key; allowed are name, data, model, training"),
        ("trainng.epochs=5", "trainng", "did you mean 'training'?"),
        ("training.epochss=5", "training.epochss", "did you mean 'epochs'?"),
        ("space.lamda={uniform: [0, 1]}", "space.lamda", "did you mean 'lambda'?"),
        ("data.datset=digits", "data.datset", "did you mean 'dataset'?"),
        ("space.h.unifrom=[0, 1]", "space.h.unifrom", "did you mean 'uniform'?"),
        ("evaluation.epsilonn=0.1", "evaluation.epsilonn", "did you mean 'epsilon'?"),
        ("training.delta=clasic", "training.delta", "'clasic' is not one of classic, gradient, random, fgsm, linf"),
        ("training.delta=clasic", "training.delta", "did you mean 'classic'?"),
        ("training={delta: fgsm, attack: none}", "training.delta", "fgsm needs the adversarial examples of an attack"),
        ("training={nesterov: true, momentum: 0}", "training.nesterov", "needs a momentum above 0"),
        ("training.nesterov=1", "training.nesterov", "a valid boolean, but found 1 (int)"),
        ("model=preact_resnet81", "model.name", "did you mean 'preact_resnet18'?"),
        ("data.dataset=cifar", "data.dataset", "'cifar' is not one of digits, cifar10"),
        ("search.sampler=tpee", "search.sampler", "did you mean 'tpe'?"),
        ("training.lr_schedule=cyclical", "training.lr_schedule", "did you mean 'cyclic'?"),
        ("training.epochs=five", "training.epochs", "a whole number is needed, but found 'five' (str)"),
        ("training.epochs=2.5", "training.epochs", "a whole number is needed, but found 2.5 (float)"),
        ("training.epochs=true", "training.epochs", "a whole number is needed, but found True (bool)"),
        ("training.alpha=quick", "training.alpha", "'quick' is not a number or a fraction such as 8/255"),
        ("training.alpha=[1]", "training.alpha", "a number is needed, but found [1] (list)"),
        ("training.alpha=", "training.alpha", "a number is needed, but found nothing"),
        ("evaluation.epsilon=8/0", "evaluation.epsilon", "'8/0' divides by zero"),
        ("evaluation.epsilon=8", "evaluation.epsilon", "must be at most 1 with norm linf, but found 8"),
        ("training.momentum=1", "training.momentum", "less than 1, but found 1"),
        ("search.trials=0", "search.trials", "greater than or equal to 1, but found 0"),
        ("space.h={uniform: [5, 0.5]}", "space.h", "uniform: low < high must hold, but got [5, 0.5]"),
        ("space.h={uniform: [1, 1]}", "space.h", "uniform: low < high must hold, but got [1, 1]"),
        ("space.lambda={loguniform: [0, 10]}", "space.lambda", "loguniform: 0 < low must hold, but got [0, 10]"),
        ("space.h={uniform: [1]}", "space.h.uniform", "at least 2 items"),
        ("space.h={uniform: [1, 2], choice: [1]}", "space.h", "but found uniform and choice"),
        ("space.h={}", "space.h", "exactly one of uniform, loguniform, int, choice is needed, but found none"),
        ("space.h={choice: []}", "space.h.choice", "at least 1 item"),
        ("space.h={choice: [1, 1]}", "space.h", "listed twice"),
        ("space.h={loguniform: [1, 2], step: 1}", "space.h", "step: goes with uniform and int"),
        ("space.h={uniform: [1, 2], step: 3}", "space.h", "at most high - low = 1, but got 3"),
        ("space.h=3", "space.h", "a mapping of keys is needed, but found 3 (int)"),
        ("space.h={uniform: [-1, 2]}", "space.h.uniform[0]", "greater than 0, but found -1"),
        ("space.init={choice: [zero, unifrm]}", "space.init.choice[1]", "did you mean 'uniform'?"),
        ("space.init={uniform: [0, 1]}", "space.init", "takes names: use choice, not uniform"),
        ("space.batch_size={uniform: [32, 64]}", "space.batch_size", "use int or choice, not uniform"),
        ("space.alpha={uniform: [1, 2]}", "space.alpha", "is also fixed under training"),
        ("space={}", "space", "at least 1 item"),
        ("start_from=[{lambda: 1}]", "start_from[0]", "gives no value for h, lr_max, epsilon"),
        ("start_from=[{lambda: 99, h: 3, lr_max: 0.1, epsilon: 0.03}]", "start_from[0].lambda", "99.0 is outside of"),
        ("start_from=[{lambda: 9, h: 3, lr_max: 0.1, eps: 0.03}]", "start_from[0].eps", "unknown key; allowed are"),
        ("asha.grace_period=10", "asha.grace_period", "must be at most training.epochs (9), but got 10"),
        ("asha.reduction_factor=1", "asha.reduction_factor", "greater than 1"),
        (
            "training.lr_min=0.05",
            "training.lr_min",
            "at most lr_max, but lr_min can be 0.05 where lr_max is 0.01",
        ),
        ("resources.concurrent=many", "resources.concurrent", "at least 1, or auto, is needed, but found 'many'"),
        (
            "resources.gpus_per_trial=all",
            "resources.gpus_per_trial",
            "'all' is not a number or a fraction such as 8/255, or auto",
        ),
        (
            "resources.gpus_per_trial=-1",
            "resources.gpus_per_trial",
            "at least 0, or auto, is needed, but found -1 (int)",
        ),
        ("search.metric=accuracy", "search.metric", "is not one of pgd_accuracy_best"),
        ("name=a/b", "name", "pattern"),
        ("training.epochs.x=3", "training.epochs", "is 9 (int), not a section"),
        ("nonsense", "", "KEY.PATH=VALUE is needed"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_its_path(base: Path, override: str, where: str, said: str) -> None:
    message = error(base, override)
    assert message.startswith(f"{where}: " if where else "--set")
    assert said in message


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("name: x\ndata: {dataset: digits}\nspace: {h: {uniform: [1, 2]}}\n")
    assert error(path) == "model: is needed, but not given"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "is not valid YAML"),
        ("- a list", "a mapping of keys is needed, but found ['a list'] (list)"),
        ("", "a mapping of keys is needed, but found nothing"),
        ("name: a\nname: b", "the key 'name' is given twice"),
        ("name: !!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_search_space_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    assert said in error(path)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    assert error(tmp_path / "none.yaml") == "cannot be read: No such file or directory"


@pytest.mark.parametrize("path", sorted(Path("search_spaces").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_bundled_space_is_valid_and_searches_the_four_hyperparameters(path: Path) -> None:
    spec = load(path)
    assert isinstance(spec, SearchSpec)
    assert set(spec.space) >= {"lambda", "h", "lr_max", "epsilon"}
