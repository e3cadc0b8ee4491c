from pathlib import Path

import pytest
import yaml

from tests.support.spaces import tiny
from tune_cure.search.space.loading import load
from tune_cure.utils.yaml_config import SpecError

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

ONE_OF = "(one of uniform, loguniform, int, choice)"


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
    assert error(base, "start_from=[nowhere.yaml]").startswith("start_from[0]: nowhere.yaml: there is no such file")


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
        ("training.nesterov=1", "training.nesterov", "true or false is needed, but found 1 (int)"),
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
        ("space.h={uniform: [1]}", "space.h.uniform", "two numbers [low, high] are needed, but found [1]"),
        ("space.h={uniform: 0.5}", "space.h.uniform", "two numbers [low, high] are needed, but found 0.5"),
        (
            "space.batch_size={int: [3]}",
            "space.batch_size.int",
            "two whole numbers [low, high] are needed, but found [3]",
        ),
        ("space.h={uniform: [1, 2], choice: [1]}", "space.h", "but found uniform and choice"),
        ("space.h={}", "space.h", "exactly one of uniform, loguniform, int, choice is needed, but found none"),
        ("space.h={choice: []}", "space.h.choice", "a list of one or more values is needed, but found []"),
        ("space.init={choice: zero}", "space.init.choice", "a list of one or more values is needed, but found 'zero'"),
        ("space.h={choice: [1, 1]}", "space.h", "listed twice"),
        ("space.h={loguniform: [1, 2], step: 1}", "space.h", "step: goes with uniform and int"),
        ("space.h={uniform: [1, 2], step: 3}", "space.h", "at most high - low = 1, but got 3"),
        ("space.h=[0.001, 1]", "space.h", f"needed, such as {{loguniform: [0.001, 1]}} {ONE_OF}, but found [0.001, 1]"),
        ("space.h=[0.5, 2]", "space.h", "such as {uniform: [0.5, 2]} (one of"),
        ("space.h=[0, 1]", "space.h", "such as {uniform: [0, 1]} (one of"),
        ("space.epsilon=[6/255, 12/255]", "space.epsilon", "such as {uniform: ['6/255', '12/255']} (one of"),
        ("space.batch_size=[32, 64]", "space.batch_size", "such as {int: [32, 64]} (one of"),
        ("space.optimizer=[sgd, adam]", "space.optimizer", "such as {choice: ['sgd', 'adam']} (one of"),
        ("space.h=3", "space.h", f"{ONE_OF}, but found 3; a fixed value belongs under training"),
        ("space.h=", "space.h", f"{ONE_OF}, but found nothing"),
        ("space.model.width={int: [4, 8]}", "space.model.width", "only keys of training can be searched"),
        ("space={model.width: {int: [4, 8]}}", "space.model.width", "only keys of training can be searched"),
        ("space.model={choice: [a, b]}", "space.model", "only keys of training can be searched"),
        ("space.width={int: [4, 8]}", "space.width", "only keys of training can be searched, and this is model.width"),
        (
            "space.training.h={uniform: [1, 2]}",
            "space.training.h",
            "only keys of training can be searched; did you mean",
        ),
        ("start_from={h: 1}", "start_from", "a list is needed, but found {'h': 1} (dict)"),
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
        ("asha.reduction_factor=1", "asha.reduction_factor", "greater than or equal to 1.5"),
        (
            "training.lr_min=0.05",
            "training.lr_min",
            "at most lr_max, but lr_min can be 0.05 where lr_max is 0.01",
        ),
        ("resources.concurrent=many", "resources.concurrent", "at least 1, or auto, is needed, but found 'many'"),
        ("asha.steps=0", "asha.steps", "greater than or equal to 1"),
        (
            "search.scheduler=false",
            "search.scheduler",
            "one of asha, hyperband, median, none is needed, but found False",
        ),
        ("training.attack=3", "training.attack", "one of fgsm, zerograd, pgd, "),
        ("name=3", "name", "a text is needed, but found 3 (int)"),
        ("search.scheduler=ahsa", "search.scheduler", "'ahsa' is not one of asha, hyperband, median, none"),
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
        ("search.metric=[pgd_accuracy, accuracy]", "search.metric", "is not one of pgd_accuracy_best"),
        ("search.metric=[]", "search.metric", "a metric or a list of metrics is needed, but found []"),
        (
            "search.constraints=[pgd_accuracy >= 0.3, clean_accuracy >= 80]",
            "search.constraints[1]",
            "between 0 and 1 is",
        ),
        ("search.constraints=[clean_accuracy <= -0.5]", "search.constraints[0]", "is needed, but found -0.5"),
        ("search.constraints=[clean_accuracy > 1]", "search.constraints[0]", "METRIC >= NUMBER or METRIC <= NUMBER"),
        ("search={sampler: cmaes, metric: [pgd_accuracy, clean_accuracy]}", "search.sampler", "cmaes takes one metric"),
        ("name=a/b", "name", "pattern"),
        ("name=..", "name", "pattern"),
        ("name=" + "a" * 101, "name", "at most 100 characters"),
        ("data.root=~nobody-of-this-name/x", "data.root", "the home of somebody who is not known here"),
        ('data.root="a\\0b"', "data.root", "a path is needed, but found 'a\\x00b'"),
        ('data.root="\\ud800"', "data.root", "a path is needed, but found '\\ud800'"),
        ("search.warm_start=~nobody-of-this-name/x", "search.warm_start", "the home of somebody who is not known here"),
        ('search.warm_start="a\\0b"', "search.warm_start", "a path is needed, but found 'a\\x00b'"),
        ("data.split_seed=2147483648", "data.split_seed", "less than or equal to 2147483647"),
        ("training.batch_size=" + "1" * 5000, "training.batch_size", "a whole number is needed, but found '1111"),
        ("resources.gpus_per_trial=1.5", "resources.gpus_per_trial", "or a fraction between 0.0001 and 1, is needed"),
        ("start_from=[/dev/zero]", "start_from[0]", "/dev/zero: there is no such file"),
        ("training.1=2", "training.1", "unknown key; allowed are"),
        ("training.epochs.x=3", "training.epochs", "is 9 (int), not a section"),
        ("nonsense", "", "KEY.PATH=VALUE is needed"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_its_path(base: Path, override: str, where: str, said: str) -> None:
    message = error(base, override)
    assert message.startswith(f"{where}: " if where else "--set")
    assert said in message


def test_brackets_and_hyperband_do_not_go_together(base: Path) -> None:
    said = error(base, "search.scheduler=hyperband", "asha.brackets=2")
    assert said.startswith("asha.brackets: goes with search.scheduler asha")


@pytest.mark.parametrize("scheduler", ["median", "none"])
def test_only_asha_and_hyperband_have_rungs(base: Path, scheduler: str) -> None:
    assert load(base, ["search.scheduler=hyperband"]).rungs == load(base).rungs == [1, 3]
    assert load(base, [f"search.scheduler={scheduler}"]).rungs == []


def test_a_space_that_the_sampler_cannot_search_is_one_line(base: Path) -> None:
    changes = ["search.sampler=cmaes", "space.optimizer={choice: [sgd, adam]}", "start_from=[]"]
    assert error(base, *changes) == "search.sampler: cmaes searches numbers, but space.optimizer is a choice"


def test_several_metrics_and_constraints_survive_being_written(base: Path, tmp_path: Path) -> None:
    both = "search={metric: [pgd_accuracy_best, clean_accuracy], constraints: [clean_accuracy >= 4/5]}"
    (tmp_path / "resolved.yaml").write_text(load(base, [both]).to_yaml())
    search = load(tmp_path / "resolved.yaml").search
    assert search.metrics == ["pgd_accuracy_best", "clean_accuracy"]
    assert search.constraints == ["clean_accuracy >= 0.8"]
    assert load(base).search.metrics == ["pgd_accuracy_best"]


DIRECTIONS = "space.delta={choice: [classic, random, none]}"


@pytest.mark.parametrize(
    ("delta", "proposed"),
    [
        ("classic", ["lambda", "h", "lr_max", "epsilon", "delta"]),
        ("random", ["lambda", "lr_max", "epsilon", "delta"]),
        ("none", ["lr_max", "epsilon", "delta"]),
    ],
)
def test_only_what_makes_a_difference_beside_the_rest_is_proposed(base: Path, delta: str, proposed: list[str]) -> None:
    spec = load(base, [DIRECTIONS, "start_from=[]"])
    values = spec.propose(lambda key: delta if key == "delta" else spec.space[key].values[0])
    assert list(values) == proposed
    assert spec.inactive_keys() == {"lambda": False, "h": False}


@pytest.mark.parametrize(
    ("distribution", "inactive"),
    [
        ("{choice: [0, 0.5]}", {"h": False}),
        ("{uniform: [0, 1], step: 0.25}", {"h": False}),
        ("{int: [0, 3]}", {"h": False}),
        ("{uniform: [0, 1]}", {}),
        ("{uniform: [0.5, 1], step: 0.25}", {}),
    ],
)
def test_a_grid_from_0_on_decides_as_a_choice_with_0_does(
    base: Path, distribution: str, inactive: dict[str, bool]
) -> None:
    space = [f"space.lambda={distribution}", "start_from=[]"]
    assert load(base, space).inactive_keys() == inactive
    if inactive:
        said = error(base, "search.sampler=cmaes", *space)
        assert said.startswith("search.sampler: cmaes needs every hyperparameter in every trial, but space.h makes a")


@pytest.mark.parametrize(
    ("deciding", "decided", "values"),
    [("weight_decay", "decay_vectors", "[true, false]"), ("guide_weight", "guide_every", "[1, 2]")],
)
def test_a_weight_of_0_leaves_out_what_it_weighs(base: Path, deciding: str, decided: str, values: str) -> None:
    space = [f"space.{deciding}={{choice: [0, 0.001]}}", f"space.{decided}={{choice: {values}}}"]
    spec = load(base, ["training={epochs: 9, attack: guided}", *space, "start_from=[]"])
    assert spec.inactive_keys() == {decided: False}
    assert decided not in spec.propose(lambda key: spec.space[key].values[0])
    assert decided in spec.propose(lambda key: spec.space[key].values[-1])


def test_a_fixed_value_can_leave_searched_keys_out_for_good(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = load(base, ["training.delta=random"])
    assert spec.inactive_keys() == {"h": True}
    assert "h" not in spec.propose(lambda key: spec.space[key].values[0])
    assert spec.start_from == [{"lambda": 10.0, "lr_max": 0.1, "epsilon": 8 / 255}]
    assert caplog.messages == [
        "start_from[0].h: left out, for it makes no difference: direction is random",
        "training.delta: random is now regularizer: cure, direction: random",
    ]
    said = error(base, "training.delta=none", "space={h: {uniform: [1, 2]}}", "start_from=[]")
    assert said == "space.h: makes no difference, and nothing else is searched: regularizer is none"


def test_a_start_gives_what_makes_a_difference_in_it(base: Path) -> None:
    start = "start_from=[{delta: random, lambda: 1, lr_max: 0.1, epsilon: 0.03}]"
    assert "h" not in load(base, [DIRECTIONS, start]).start_from[0]
    said = error(base, DIRECTIONS, start.replace("random", "classic"))
    assert said == "start_from[0]: gives no value for h; every key of space that counts needs one"


def test_a_sampler_that_needs_all_keys_in_all_trials_does_not_get_fewer(base: Path) -> None:
    said = error(base, "search.sampler=gp", DIRECTIONS, "start_from=[]")
    assert said.startswith(
        "search.sampler: gp needs every hyperparameter in every trial, but space.lambda makes a diff"
    )
    unpenalised = ["space.lambda={uniform: [0, 1]}", "start_from=[{lambda: 0, lr_max: 0.1, epsilon: 0.03}]"]
    assert "but space.h makes a difference only" in error(base, "search.sampler=gp", *unpenalised)
    assert load(base, unpenalised).start_from[0]["lambda"] == 0


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


def test_contradictions_are_found_among_many_choices_at_once(base: Path) -> None:
    """Every combination of them would be 200⁴."""
    many = "{choice: [" + ", ".join(str(n / 200) for n in range(200)) + "]}"
    keys = ("clean_weight", "trades_weight", "hat_weight", "momentum")
    assert len(load(base, [f"space.{key}={many}" for key in keys] + ["start_from=[]"]).space) == 8
    message = error(base, *(f"space.{key}={many}" for key in keys), "start_from=[]", "training.attack=none")
    assert "_weight: goes with an attack, but attack can be none" in message


@pytest.mark.parametrize("other", ["search.metric=clean_accuracy", "search.scheduler=median", "search.scheduler=none"])
def test_a_stronger_attack_at_the_rungs_needs_rungs_and_pgd(tmp_path: Path, other: str) -> None:
    for key, value in {"steps": "20", "attack": "apgd_t"}.items():
        tiny(tmp_path, f"asha.{key}={value}")
        with pytest.raises(SpecError, match=rf"asha\.{key}: goes with a PGD accuracy as first metric"):
            tiny(tmp_path, f"asha.{key}={value}", other)


def test_the_steps_of_pgd_at_the_rungs_go_with_no_other_attack(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"asha\.steps: are those of PGD, but asha\.attack is apgd_t; leave out one"):
        tiny(tmp_path, "asha.steps=20", "asha.attack=apgd_t")


@pytest.mark.parametrize(
    ("settings", "judgement"),
    [
        ([], None),
        (["asha.steps=20"], "PGD-20 with 1 start at epsilon 0.05 (12.8/255)"),
        (["asha.attack=apgd_t"], "APGD-T at epsilon 0.05 (12.8/255)"),
    ],
)
def test_trials_are_judged_at_rungs_by_the_epochs_evaluation_or_by_the_attack_of_asha(
    tmp_path: Path, settings: list[str], judgement: str | None
) -> None:
    found = tiny(tmp_path, *settings).rung_judgement
    assert (None if found is None else str(found)) == judgement


def test_rungs_that_adapt_need_a_control_group_and_rungs(tmp_path: Path) -> None:
    assert tiny(tmp_path, "asha.control=1/10", "asha.adapt=true").asha.control == pytest.approx(0.1)
    with pytest.raises(SpecError, match=r"asha\.adapt: needs a control group, .*: asha\.control above 0"):
        tiny(tmp_path, "asha.adapt=true")
    with pytest.raises(SpecError, match=r"asha\.adapt: judges rungs, which median has none of; use asha or hyperband"):
        tiny(tmp_path, "asha.adapt=true", "asha.control=0.1", "search.scheduler=median")
    with pytest.raises(SpecError, match=r"asha\.control: .*less than or equal to 1"):
        tiny(tmp_path, "asha.control=1.5")


def test_a_grid_ends_at_its_last_step_and_a_start_beside_it_is_refused(
    base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grid = "space.h={uniform: [0.2, 2.0], step: 0.25}"
    spec = load(base, [grid, "start_from=[{lambda: 1, h: 0.45, lr_max: 0.1, epsilon: 0.03}]"])
    assert spec.space["h"].values == pytest.approx([0.2, 1.95])
    assert caplog.messages == ["space.h: 2 is no multiple of step 0.25 above 0.2; the highest value is 1.95"]
    said = error(base, grid, "start_from=[{lambda: 1, h: 1.13, lr_max: 0.1, epsilon: 0.03}]")
    assert said.startswith("start_from[0].h: 1.13 is outside of space.h, uniform [0.2, 1.95] step 0.25")


def test_more_brackets_than_rungs_are_refused(base: Path) -> None:
    assert load(base, ["asha.brackets=3"]).asha.brackets == 3
    said = error(base, "asha.brackets=4")
    assert said == "asha.brackets: must be at most 3, one more than the rungs (after epoch [1, 3]), but got 4"


@pytest.mark.parametrize("factor", [1.5, 1.7, 2, 3.3])
@pytest.mark.parametrize("grace_period", [1, 2, 5])
def test_no_two_rungs_fall_on_one_epoch(factor: float, grace_period: int, base: Path) -> None:
    settings = [f"asha={{grace_period: {grace_period}, reduction_factor: {factor}}}", "training.epochs=200"]
    rungs = load(base, settings).rungs
    assert len(set(rungs)) == len(rungs) > 2


def test_a_recorded_search_is_read_with_what_is_refused_now_and_only_what_is_set_now_is_checked(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").touch()
    path = tmp_path / "spec.yaml"
    recorded = yaml.safe_load(tiny(tmp_path).to_yaml())
    recorded["search"]["constraints"] = ["clean_accuracy >= 80"]
    recorded["asha"] |= {"grace_period": 2, "reduction_factor": 2.5, "brackets": 4}  # the third rung was the last epoch
    recorded["training"]["epochs"] = 13
    path.write_text(yaml.safe_dump(recorded))
    for settings in ([], ["search.trials=30", "asha.control=0.1"]):
        spec = load(path, settings)
        assert (spec.search.constraints, spec.asha.brackets) == (["clean_accuracy >= 80"], 4)
    bound = "search.constraints[0]: clean_accuracy >= 90: a fraction between 0 and 1 is needed, but found 90"
    assert error(path, "search.constraints=[clean_accuracy >= 90]") == bound
    assert error(path, "search={constraints: [clean_accuracy >= 90]}") == bound
    for setting in ("asha.brackets=5", "asha.grace_period=3", "asha={brackets: 9}", "training.epochs=6"):
        assert error(path, setting).startswith("asha.brackets: must be at most ")
    assert load(path, ["search.constraints=[]", "asha.brackets=2"]).asha.brackets == 2


def test_no_rung_falls_on_the_last_epoch_which_every_trial_ends_with(base: Path) -> None:
    for epochs in range(5, 28):
        settings = [f"training.epochs={epochs}", "asha.grace_period=2", "asha.reduction_factor=2.5"]
        rungs = load(base, settings).rungs  # the third is at epoch 12.5
        assert rungs[0] == 2
        assert max(rungs) < epochs
