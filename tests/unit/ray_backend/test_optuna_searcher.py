from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.support import journal_lines
from tests.support.spaces import tiny
from tune_cure.ray_backend.optuna_searcher import OptunaSearcher
from tune_cure.search import results
from tune_cure.search.journal import Journal
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.stopping import SearchStopper

DIRECTIONS = ["space.delta={choice: [classic, random]}", "start_from=[]", "search.trials=40"]


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def searcher(spec: SearchSpec, folder: Path) -> OptunaSearcher:
    journal = Journal(folder)
    return OptunaSearcher(
        spec, journal, journal.read(), SearchStopper(spec, folder, None, []), optuna.storages.InMemoryStorage()
    )


def end(search: OptunaSearcher, name: str, objective: float, *, ended: str = "completed", epoch: int = 4) -> None:
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


def test_a_study_of_several_metrics_ranks_stopped_trials_behind_those_that_ran_to_their_end(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.metric=[pgd_accuracy_best, clean_accuracy]", "start_from=[]")
    search = searcher(spec, tmp_path)
    for name, ended, epoch, accuracy in (
        ("0", "completed", 4, 0.4),
        ("1", "", 1, 0.5),
        ("2", "", 2, 0.3),
        ("3", "catastrophic_overfitting", 4, 0.6),
        ("4", "diverged", 1, None),
    ):
        search.suggest(name)
        metrics = {"pgd_accuracy_best": accuracy, "clean_accuracy": accuracy, "objective": accuracy or 0.0}
        search.on_trial_complete(name, {**metrics, "training_iteration": epoch, "ended": ended})
    search.suggest("5")
    search.on_trial_complete("5", None, error=True)
    told = search._ot_study.trials
    assert [trial.state for trial in told] == [TrialState.COMPLETE] * 4 + [TrialState.FAIL] * 2
    assert [trial.values for trial in told[:2]] == [[0.4, 0.4], [0.5, 0.5]]
    assert [trial.constraints["untrained"] for trial in told[:4]] == [0.0, 1.0, 0.75, 0.25]
    assert [trial.number for trial in search._ot_study.best_trials] == [0]


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "nsga2", "qmc"])
def test_samplers_of_several_metrics_go_on_proposing(tmp_path: Path, sampler: str) -> None:
    metrics = "search.metric=[pgd_accuracy_best, clean_accuracy]"
    constraint = "search.constraints=[clean_accuracy >= 0.3]"
    spec = tiny(tmp_path, metrics, constraint, f"search.sampler={sampler}", "start_from=[]", "search.trials=30")
    search = searcher(spec, tmp_path)
    for number in range(25):
        config = search.suggest(str(number))
        values = {"pgd_accuracy_best": 2 - config["h"], "clean_accuracy": config["h"] / 2, "objective": 0.0}
        done = {"training_iteration": 1, "ended": ""} if number % 3 else {"training_iteration": 4, "ended": "completed"}
        search.on_trial_complete(str(number), {**values, **done})
    assert results.trials(tmp_path)["h"].nunique() > 15  # genes of parents come again


def test_a_constraint_is_told_to_the_study_and_a_stopped_trial_stays_pruned(tmp_path: Path) -> None:
    search = searcher(tiny(tmp_path, "search.constraints=[clean_accuracy >= 0.5]", "start_from=[]"), tmp_path)
    for name, ended, clean in (("0", "completed", 0.3), ("1", "completed", 0.75), ("2", "", 0.25)):
        search.suggest(name)
        result = {"objective": 0.5, "clean_accuracy": clean, "training_iteration": 2, "ended": ended}
        search.on_trial_complete(name, result)
    told = search._ot_study.trials
    assert [trial.state for trial in told] == [TrialState.COMPLETE] * 2 + [TrialState.PRUNED]
    assert [trial.constraints["clean_accuracy >= 0.5"] for trial in told] == pytest.approx([0.2, -0.25, 0.25])
    assert search._ot_study.best_trial.number == 1


def test_a_diverged_trial_whose_end_was_lost_is_ended_with_its_reason(tmp_path: Path) -> None:
    spec = tiny(tmp_path)
    searcher(spec, tmp_path).suggest("0")
    journal = Journal(tmp_path)
    journal_lines.epoch(journal, 0, epoch=2, ended="diverged")
    searcher(spec, tmp_path)
    end = journal.read()[-1]
    assert (end["event"], end["status"]) == ("end", "diverged")
    assert end["reason"] == "the loss became NaN or infinite in epoch 2"


def test_a_trial_whose_epochs_are_lost_is_one_that_failed(tmp_path: Path) -> None:
    spec, journal = tiny(tmp_path, "start_from=[]"), Journal(tmp_path)
    for number, status in enumerate(("completed", "stopped")):
        journal_lines.begin(journal, number)
        journal_lines.end(journal, number, status)
    states = [trial.state for trial in searcher(spec, tmp_path)._ot_study.trials]
    assert states == [TrialState.FAIL, TrialState.PRUNED]


def test_an_end_that_a_crash_kept_from_the_journal_is_told_to_all_who_follow_it(tmp_path: Path) -> None:
    spec, journal = tiny(tmp_path, "search.patience=1"), Journal(tmp_path)
    for number in range(2):
        journal_lines.begin(journal, number)
        accuracies = {"clean_accuracy": 0.6, "pgd_accuracy": 0.3, "objective": 0.3 - 0.1 * number}
        journal_lines.epoch(journal, number, epoch=4, **accuracies, ended="completed")
    history = journal.read()
    endings = SearchStopper(spec, tmp_path, None, history)
    OptunaSearcher(spec, journal, history, endings, optuna.storages.InMemoryStorage())
    assert [event["trial"] for event in history if event["event"] == "end"] == [0, 1]
    assert history == journal.read()
    assert endings.exhausted
