import signal
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.support.spaces import tiny
from tune_cure.data import splits as data
from tune_cure.evaluation.metrics import evaluate
from tune_cure.evaluation.names import ACCURACIES
from tune_cure.models import checkpoints
from tune_cure.ray_backend import tuner
from tune_cure.ray_backend.tuner import RunOptions
from tune_cure.search import ranking, results
from tune_cure.search.journal import Event, Journal
from tune_cure.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.mark.smoke
def test_every_trial_ends_and_the_first_is_that_of_start_from(finished_search: Path) -> None:
    trials = results.trials(finished_search)
    assert list(trials["trial"]) == list(range(8))
    assert set(trials["status"]) == {"completed", "stopped"}
    assert list(trials["origin"]) == ["start_from"] + ["sampler"] * 7
    assert trials.iloc[0][["lambda", "h", "lr_max", "epsilon"]].tolist() == [0.5, 1.0, 0.02, 0.1]
    assert trials.iloc[0]["status"] == "completed"  # a baseline is never stopped


def test_asha_stops_trials_at_its_rungs(finished_search: Path) -> None:
    trials = results.trials(finished_search)
    assert set(trials.loc[trials["status"] == "stopped", "epochs_trained"]) <= {1, 2}
    assert (trials.loc[trials["status"] == "completed", "epochs_trained"] == 4).all()
    epochs = results.epochs(finished_search)
    assert len(epochs) == trials["epochs_trained"].sum() < 8 * 4


def test_only_leaders_keep_their_checkpoints(finished_search: Path) -> None:
    spec, trials = results.read_spec(finished_search), results.trials(finished_search)
    kept = {int(file.parts[-3].removeprefix("trial_")) for file in finished_search.glob("trials/*/*/trainer.pt")}
    assert kept == set(ranking.rank_trials(trials, spec).head(spec.rescore.top)["trial"])


def test_the_study_has_stopped_trials_as_pruned_at_their_last_epoch_and_the_others_as_complete(
    finished_search: Path,
) -> None:
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{finished_search / 'study.db'}")
    trials = results.trials(finished_search).set_index("trial")
    curves = results.epochs(finished_search)
    for told in study.trials:
        row, curve = trials.loc[told.number], curves[curves["trial"] == told.number]
        assert told.state == (TrialState.COMPLETE if row["status"] == "completed" else TrialState.PRUNED)
        assert told.value == row["objective"]
        assert told.intermediate_values == dict(zip(curve["epoch"], curve["pgd_accuracy_best"], strict=True))
        assert told.params == {key: row[key] for key in ("lambda", "h", "lr_max", "epsilon")}


def test_a_trial_in_a_reused_actor_has_the_numbers_of_a_new_trainer(finished_search: Path) -> None:
    spec = results.read_spec(finished_search)
    splits = data.load(spec.data)
    epochs = results.epochs(finished_search).set_index(["trial", "epoch"])
    for _, row in results.trials(finished_search).iterrows():
        config = spec.training_config({key: row[key] for key in spec.space})
        trainer = Trainer(config, splits, model=spec.model, evaluation=spec.evaluation, seed=spec.search.seed)
        metrics = trainer.train_epoch() | trainer.evaluate()
        recorded = epochs.loc[(row["trial"], 1)]
        for name in ("train_loss", "curvature", "clean_accuracy", "pgd_accuracy"):
            assert metrics[name] == recorded[name]


def test_the_best_model_has_the_accuracies_in_best_config_to_the_last_digit(finished_search: Path) -> None:
    import pandas as pd

    spec = results.read_spec(finished_search)
    row = pd.read_csv(finished_search / "best_config.csv").iloc[0]
    trials = results.trials(finished_search)
    assert row["pgd_accuracy"] == trials["pgd_accuracy_best"].max()
    assert row["lambda"] == trials.set_index("trial").loc[row["trial"], "lambda"]  # lambda keeps its name to the end
    judged_on = data.load(spec.data).validation.subset(spec.evaluation.examples, seed=0)
    again = evaluate(checkpoints.load(finished_search / "best_model.pt"), judged_on, spec.evaluation)
    assert all(again[name] == row[name] for name in ACCURACIES)


def test_the_same_seed_gives_the_same_proposals_and_results(finished_search: Path, tmp_path: Path) -> None:
    assert tuner.run(tiny(tmp_path, "search.trials=4"), tmp_path).finished
    columns = ["trial", "epoch", "train_loss", "clean_accuracy", "pgd_accuracy"]
    ours, theirs = (results.trials(folder).head(4) for folder in (tmp_path, finished_search))
    keys = ["lambda", "h", "lr_max", "epsilon"]
    assert ours[keys].equals(theirs[keys])
    ours, theirs = (results.epochs(folder).query("trial < 4")[columns] for folder in (tmp_path, finished_search))
    assert ours.equals(theirs)


@pytest.mark.smoke
def test_an_interrupted_search_is_resumed_where_it_stopped(finished_search: Path, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if event["event"] == "checkpoint" and (event["trial"], event["epoch"]) == (0, 2):
            signal.raise_signal(signal.SIGINT)

    spec = tiny(tmp_path, "search.trials=4")
    assert tuner.run(spec, tmp_path, on_event=interrupt).outcome == "interrupted"
    before = results.trials(tmp_path)
    assert "unfinished" in set(before["status"])
    events = len(Journal(tmp_path).read())

    assert tuner.run(spec, tmp_path, RunOptions(resume=True)).finished
    later = Journal(tmp_path).read()[events:]
    assert [e["epoch"] for e in later if e["event"] == "epoch" and e["trial"] == 0] == [3, 4]  # no epoch twice
    columns = ["epoch", "train_loss", "clean_accuracy", "pgd_accuracy", "pgd_accuracy_best"]
    ours, theirs = (results.epochs(folder).query("trial == 0")[columns] for folder in (tmp_path, finished_search))
    assert ours.equals(theirs)
    trials = results.trials(tmp_path)
    assert list(trials["trial"]) == [0, 1, 2, 3]
    assert not trials[["lambda", "h"]].duplicated().any()
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert all(told.state.is_finished() for told in study.trials)
    assert tuner.run(spec, tmp_path, RunOptions(resume=True)).finished  # nothing is left to do
    assert len(results.trials(tmp_path)) == 4


def test_no_gpu_is_requested_on_a_machine_without_one(tmp_path: Path) -> None:
    ready = []
    spec = tiny(tmp_path, "search.trials=1", "resources.gpus_per_trial=0.5")
    assert tuner.run(spec, tmp_path, on_ready=lambda devices, dashboard: ready.append((devices, dashboard))).finished
    assert ready[0][0].gpus_per_trial == 0
    assert ready[0][1].startswith("http://127.0.0.1:")
