from pathlib import Path

import optuna
import pytest

from tests.spaces import tiny
from tune_cure import results
from tune_cure.journal import Journal
from tune_cure.spec import SearchSpec
from tune_cure.study import StudySearch

DIRECTIONS = ["space.delta={choice: [classic, random]}", "start_from=[]", "search.trials=40"]


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def searcher(spec: SearchSpec, folder: Path) -> StudySearch:
    journal = Journal(folder)
    return StudySearch(spec, journal, journal.read(), optuna.storages.InMemoryStorage())


def end(search: StudySearch, name: str, objective: float, *, ended: str = "completed", epoch: int = 4) -> None:
    search.on_trial_complete(name, {"objective": objective, "training_iteration": epoch, "ended": ended})


def test_h_is_proposed_only_to_trials_whose_direction_has_that_length(tmp_path: Path) -> None:
    search = searcher(tiny(tmp_path, *DIRECTIONS), tmp_path)
    for number in range(40):
        config = search.suggest(str(number))
        assert ("h" in config) == (config["delta"] == "classic")
        end(search, str(number), config["lambda"])
    frame = results.trials(tmp_path)
    assert set(frame["delta"]) == {"classic", "random"}
    assert frame.loc[frame["delta"] == "random", "h"].isna().all()
    assert frame.loc[frame["delta"] == "classic", "h"].between(0.5, 2).all()


def test_tpe_learns_the_best_length_of_the_direction_that_has_one(tmp_path: Path) -> None:
    search = searcher(tiny(tmp_path, *DIRECTIONS), tmp_path)
    lengths = []
    for number in range(40):
        config = search.suggest(str(number))
        lengths.append(config.get("h"))
        end(search, str(number), 1 - abs(config["h"] - 0.7) if "h" in config else 0.1)
    early, late = ([abs(h - 0.7) for h in part if h is not None] for part in (lengths[:10], lengths[-10:]))
    assert sum(late) / len(late) < 0.5 * sum(early) / len(early)
    assert len(late) > len(early)


def test_a_whole_number_that_some_trials_lack_stays_whole_in_the_table(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "space={attack: {choice: [fgsm, pgd]}, attack_steps: {int: [2, 9]}}", "start_from=[]")
    search = searcher(spec, tmp_path)
    configs = [search.suggest(str(number)) for number in range(8)]
    rows = results.trials(tmp_path).to_csv(index=False).splitlines()[1:]
    steps = [row.split(",")[4] for row in rows]
    assert steps == [str(config.get("attack_steps", "")) for config in configs]
    assert "" in steps
