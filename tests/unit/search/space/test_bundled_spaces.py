from pathlib import Path

import pytest

from tune_cure.cli import main as cli
from tune_cure.cli.main import main
from tune_cure.search.space import bundled_spaces, loading as specs
from tune_cure.training.config import hyperparameter_value
from tune_cure.training.interactions import inactive_hyperparameters
from tune_cure.training.presets import METHODS, NO_METHOD
from tune_cure.utils.yaml_config import SpecError

BUNDLED = sorted(path.stem for path in Path("search_spaces").glob("*.yaml"))


@pytest.mark.parametrize("name", ["quickstart", "cifar10_cpu", "cure", "cifar100", "svhn", "image_folder"])
def test_a_space_of_cure_alone_searches_its_four_hyperparameters(name: str) -> None:
    assert set(specs.load(bundled_spaces.find(name)).space) == {"lambda", "h", "lr_max", "epsilon"}


def test_the_spaces_of_methods_that_are_to_be_compared_differ_in_the_method_alone() -> None:
    cure, *others = (
        specs.load(bundled_spaces.find(name)) for name in ("cure", "fgsm_baseline", "gradalign", "cure_full")
    )
    for other in others:
        assert (other.data, other.model, other.evaluation) == (cure.data, cure.model, cure.evaluation)
        assert other.max_epochs == cure.max_epochs
        assert [other.training[key] for key in ("averaging", "ema_decay")] == ["ema", 0.9995]


def test_the_space_of_the_fastat_benchmark_keeps_its_rules_with_any_method() -> None:
    rules = {
        "epochs": 100,
        "batch_size": 128,
        "optimizer": "sgd",
        "lr_schedule": "onecycle",
        "lr_max": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "averaging": "ema",
        "ema_decay": 0.9995,
        "label_smoothing": 0.4,
        "epsilon": 8 / 255,
    }
    for method, preset in METHODS.items():
        if method == NO_METHOD:
            continue
        spec = specs.load(bundled_spaces.find("fastat"), [f"training.method={method}"])
        assert {key: spec.training[key] for key in rules} == rules
        assert (spec.model.name, spec.data.validation, spec.data.train_examples) == ("resnet18", 1000, None)
        assert spec.space.keys() == preset.space.keys()
        assert spec.start_from == [{key: preset.keys[key] for key in preset.space}]


@pytest.mark.parametrize(
    ("name", "number", "method"),
    [("gradalign", 0, "gradalign"), ("fgsm_baseline", 0, "fgsm_rs"), ("cure_full", 1, "n_fgsm")],
)
def test_a_start_that_names_a_paper_is_the_method_of_that_paper(name: str, number: int, method: str) -> None:
    spec = specs.load(bundled_spaces.find(name))
    config = spec.training_config(spec.start_from[number])
    inactive = inactive_hyperparameters(config)  # where lambda is 0, the regularizer
    expected = {key: value for key, value in METHODS[method].keys.items() if key not in inactive}
    assert {key: hyperparameter_value(config, key) for key in expected} == expected


@pytest.mark.parametrize("name", BUNDLED)
def test_commands_in_a_spaces_comments_could_be_typed(name: str) -> None:
    for line in bundled_spaces.find(name).read_text(encoding="utf-8").splitlines():
        words = line.removeprefix("#").split()
        if words[:1] == ["tune-cure"]:
            parsed = cli.build_parser().parse_args(words[1:])
            if words[1] == "search":
                specs.load(bundled_spaces.find(parsed.space), parsed.settings)


def test_a_bundled_space_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path("search_spaces").resolve()
    monkeypatch.chdir(tmp_path)
    assert list(bundled_spaces.bundled()) == BUNDLED
    assert bundled_spaces.find("cure") == bundled_spaces.find("cure.yaml") == here / "cure.yaml"


def test_a_file_comes_before_a_bundled_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cure.yaml").touch()
    assert bundled_spaces.find("cure.yaml") == Path("cure.yaml")
    assert bundled_spaces.find("cure") != Path("cure")


@pytest.mark.parametrize("name", ["cur", "cur.yaml", "folder/cure.yml", "search_spaces/cur.yaml"])
def test_an_unknown_space_is_answered_with_the_bundled_ones_and_the_nearest(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["search", "--space", name, "--check"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"tune-cure: {name}: there is no such file, nor a bundled space of this name; "
        f"bundled are {', '.join(BUNDLED)}; did you mean 'cure'?\n"
    )


def test_a_name_like_no_other_has_no_nearest() -> None:
    with pytest.raises(SpecError, match=f"bundled are {', '.join(BUNDLED)}$"):
        bundled_spaces.find("xyz")
