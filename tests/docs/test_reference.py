import re

from tools import marked_page, reference
from tune_cure.regularizers.registry import REGULARIZERS
from tune_cure.search.proposals.samplers import SAMPLERS
from tune_cure.training.config import HYPERPARAMETERS, TrainingConfig
from tune_cure.training.interactions import inactive_hyperparameters
from tune_cure.training.presets import METHOD
from tune_cure.training.run import RunSpec


def test_the_reference_is_what_the_models_generate() -> None:
    page = reference.PAGE.read_text(encoding="utf-8")
    assert page == reference.written(page), "run: make reference"


def test_every_hyperparameter_and_sampler_has_its_row() -> None:
    tables = reference.tables()
    training = tables.partition("## training\n")[2].partition("\n###")[0]
    assert re.findall(r"^\| `(\w+)`", training, re.MULTILINE) == [METHOD, *HYPERPARAMETERS]
    samplers = tables.partition("### Names of search.sampler\n")[2].partition("\n##")[0]
    assert re.findall(r"^\| `(\w+)` \| \w", samplers, re.MULTILINE) == list(SAMPLERS)


def test_the_page_on_training_has_every_key_of_a_run() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (marked_page.DOCS / "training.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows[: len(RunSpec.model_fields)] == list(RunSpec.model_fields)


def test_the_check_of_the_reference_finds_a_stale_row() -> None:
    page = reference.PAGE.read_text(encoding="utf-8")
    stale = page.replace("| `epochs` | 30 |", "| `epochs` | 31 |")
    assert stale != page
    assert reference.written(stale) == page


def test_the_reference_names_inactive_hyperparameters_as_the_code_does() -> None:
    (row,) = re.findall(r"^\| `h` \| (`regularizer`.*) \|$", reference.tables(), re.MULTILINE)
    *others, last = (name for name in REGULARIZERS if name != "cure")
    assert row == (
        f"`regularizer` is {', '.join(others)} or {last}; or `direction` is random, fgsm or linf; or `lambda` is 0"
    )
    assert "h" in inactive_hyperparameters(TrainingConfig(direction="random"))
    assert "h" not in inactive_hyperparameters(TrainingConfig(direction="gradient"))
