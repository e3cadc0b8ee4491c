from pathlib import Path

import pytest

from tests.support import journal_lines
from tests.support.leagues import write_league
from tests.support.spaces import TINY
from tune_cure.league.cost import EpochCost
from tune_cure.league.folder import League, LeagueConfig, find_given_up, is_league, is_searched
from tune_cure.league.methods import Entry, take_shared
from tune_cure.search.journal import Journal
from tune_cure.search.results import ResultsError
from tune_cure.utils.yaml_config import SpecError
from tune_cure.utils.yaml_parser import parse

METHODS = {"cure": "cure", "fgsm": "fgsm_rs"}


@pytest.fixture
def league(tmp_path: Path) -> League:
    entries = {
        "cure": Entry(training={"method": "cure"}),
        "slow": Entry(training={"method": "fgsm_rs", "lr_max": "1e-4"}, space={"alpha": {"uniform": [1, 2]}}),
    }
    league = League(
        tmp_path, LeagueConfig(space="tiny.yaml", methods=entries, trials=4, shared=take_shared(parse(TINY))[0])
    )
    league.write()
    return league


def test_a_league_is_read_back_as_it_was_written(league: League) -> None:
    assert is_league(league.folder)
    read = League.read(league.folder)
    assert read.config == league.config
    assert read.methods == ["cure", "slow"]
    assert read.run_folder("slow") == league.folder / "slow"
    assert read.compose() == league.compose()


def test_the_budget_is_kept_and_given_to_each_search(league: League) -> None:
    costs = {
        "cure": EpochCost(train_seconds=1.0, eval_seconds=0.2),
        "slow": EpochCost(train_seconds=0.25, eval_seconds=0.2),
    }
    league.set_budget(league.compose(), costs)
    read = League.read(league.folder)
    assert read.config.costs == costs
    assert [spec.search.budget_seconds for spec in read.compose().values()] == [10.0, 10.0]  # 4 trials of 4 × 0.625 s
    assert [spec.search.trials for spec in read.compose().values()] == [20, 80]  # a limit that is not reached


def test_each_method_has_the_results_of_an_ordinary_search(league: League) -> None:
    assert league.results() == {}
    folder = league.run_folder("cure")
    folder.mkdir()
    (folder / "spec.yaml").write_text(league.compose()["cure"].to_yaml())
    journal_lines.begin(Journal(folder), 0)
    (result,) = league.results().values()
    assert result.directory == folder
    assert league.spec("cure").to_yaml() == league.compose()["cure"].to_yaml()
    with pytest.raises(ResultsError, match="slow"):
        league.spec("slow")


def test_a_search_of_a_league_without_its_preset_is_refused_in_one_line(league: League) -> None:
    folder = league.run_folder("cure")
    folder.mkdir()
    spec = league.compose()["cure"].model_copy(update={"start_from": []})
    (folder / "spec.yaml").write_text(spec.to_yaml())
    journal_lines.begin(Journal(folder), 0)
    with pytest.raises(SpecError) as raised:
        league.results()
    file = folder / "spec.yaml"
    assert str(raised.value) == f"{file}: start_from: the preset of cure is needed, but nothing is given"


def test_a_search_whose_trials_all_failed_alike_is_given_up(tmp_path: Path) -> None:
    league = write_league(tmp_path, METHODS, failing=["fgsm"])
    assert find_given_up(league.results()) == {"fgsm": "all of its 4 trials failed: broken"}
    assert is_searched(league.results(), league)


def test_a_league_whose_trials_all_failed_is_tried_again(tmp_path: Path) -> None:
    league = write_league(tmp_path, METHODS, failing=METHODS)
    assert find_given_up(league.results()) == {}
    assert not is_searched(league.results(), league)


@pytest.mark.parametrize(
    ("event", "old", "new"),
    [
        ('"event": "end", "trial": 1,', '"reason": "broken"', '"reason": "another"'),
        ('"event": "end", "trial": 2,', '"status": "failed"', '"status": "diverged"'),
    ],
    ids=["for two reasons", "one diverged"],
)
def test_a_search_that_may_yet_find_something_is_not_given_up(event: str, old: str, new: str, tmp_path: Path) -> None:
    league = write_league(tmp_path, METHODS, failing=["fgsm"])
    journal = league.run_folder("fgsm") / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    (index,) = [index for index, line in enumerate(lines) if event in line]
    assert old in lines[index]
    journal.write_text("".join([*lines[:index], lines[index].replace(old, new), *lines[index + 1 :]]))
    assert find_given_up(league.results()) == {}
    assert not is_searched(league.results(), league)


def test_a_folder_without_a_league_is_refused_in_one_line(tmp_path: Path) -> None:
    assert not is_league(tmp_path)
    with pytest.raises(ResultsError, match=r"holds no league: there is no league\.yaml in it"):
        League.read(tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("trials: 4", "trials: many", r"league\.yaml: trials: "),
        (
            "  slow:\n",
            "  ../slow:\n",
            r"league\.yaml: methods.*: letters, digits, .* are needed, but found '\.\./slow'",
        ),
        ("budget: null", "budget: 3", r"league\.yaml: costs: a cost of each method is needed: cure and slow"),
    ],
)
def test_a_damaged_league_is_refused_in_one_line(league: League, before: str, after: str, message: str) -> None:
    file = league.folder / "league.yaml"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))
    with pytest.raises(SpecError, match=message):
        League.read(league.folder)
