from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from tests.spaces import tiny
from tune_cure import results, spec as specs
from tune_cure.files import FolderError
from tune_cure.journal import CHECKPOINT_FILE, Journal, JournalError
from tune_cure.training import EPOCH_METRICS

VALUES = {"lambda": 0.5, "h": 1.0, "lr_max": 0.02, "epsilon": 0.1}


def epoch(journal: Journal, trial: int, number: int, pgd: float | None, best: float, **more: object) -> None:
    """Writes an epoch's line; the clean accuracy is half of the way from the PGD accuracy to 1."""
    metrics = dict.fromkeys(EPOCH_METRICS) | {"epoch": number, "train_seconds": 2.0, "eval_seconds": 0.5}
    metrics |= {"skipped_steps": 1, "pgd_accuracy_best": best, "catastrophic_overfitting": False}
    if pgd is not None:
        metrics |= {"pgd_accuracy": pgd, "clean_accuracy": (1 + pgd) / 2, "fgsm_accuracy": pgd, "curvature": 0.1}
    journal.append("epoch", trial, **{"ended": "", **metrics, **more}, objective=best, host="a", pid=1)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Trial 0 (start_from) completed at 0.3; 1 peaked at 0.5, then stopped; 2 overfitted at 0.8; 3 diverged; 4 runs."""
    tiny(tmp_path)
    journal = Journal(tmp_path)
    for number in range(5):
        origin = "sampler" if number else "start_from"
        journal.append("trial", number, origin=origin, hyperparameters={**VALUES, "lambda": 0.5 + number / 10})
    epoch(journal, 0, 1, 0.3, 0.3)
    epoch(journal, 1, 1, 0.5, 0.5)
    epoch(journal, 1, 2, 0.4, 0.5)
    epoch(journal, 1, 2, 0.4, 0.5)  # a crash made it run twice
    epoch(journal, 2, 1, 0.8, 0.8)
    epoch(journal, 2, 2, 0.0, 0.8, catastrophic_overfitting=True)
    epoch(journal, 3, 1, None, 0.0)
    for number, status in enumerate(("completed", "stopped", "catastrophic_overfitting", "diverged")):
        journal.append("end", number, status=status, reason="")
    return tmp_path


def test_an_epoch_that_ran_twice_counts_once(run: Path) -> None:
    frame = results.epochs(run)
    assert frame[["trial", "epoch"]].to_numpy().tolist() == [[0, 1], [1, 1], [1, 2], [2, 1], [2, 2], [3, 1]]


def test_a_trial_has_its_best_and_its_last_accuracies_each_of_one_epoch(run: Path) -> None:
    row = results.trials(run).set_index("trial").loc[1]
    assert row["status"] == "stopped"
    assert (row["best_epoch"], row["pgd_accuracy_best"], row["clean_accuracy_best"]) == (1, 0.5, 0.75)
    assert (row["pgd_accuracy"], row["clean_accuracy"]) == (0.4, 0.7)
    assert row["pgd_accuracy_best_se"] == pytest.approx(0.05)  # √(0.5 · 0.5 / 100)
    assert (row["epochs_trained"], row["train_seconds"], row["skipped_steps"]) == (2, 4.0, 2)


def test_an_end_that_spoils_a_trial_ranks_it_last_and_is_marked(run: Path) -> None:
    frame, spec = results.trials(run), results.read_spec(run)
    assert results.ranked(frame, spec)["trial"].tolist() == [1, 0, 2]  # 3 was never judged, 4 has no epoch
    assert frame.set_index("trial").loc[2, "catastrophic_overfitting_epoch"] == 2
    best = results.best(run)
    assert best is not None
    assert (best.trial, best.hyperparameters["lambda"]) == (1, 0.6)


def test_less_is_better_where_the_mode_says_so(run: Path) -> None:
    spec = specs.load(run / "spec.yaml", ["search.mode=min"])
    assert results.ranked(results.trials(run), spec)["trial"].tolist() == [0, 1, 2]


def test_trials_that_violate_a_constraint_rank_behind_those_that_keep_it(run: Path) -> None:
    spec = tiny(run, "search.constraints=[clean_accuracy_best <= 0.7]")  # 1 reached 0.75
    frame = results.trials(run).set_index("trial")
    assert frame["feasible"].tolist()[:3] == [True, False, False]
    assert results.ranked(frame.reset_index(), spec)["trial"].tolist() == [0, 1, 2]
    best = results.best(run)
    assert best is not None
    assert best.trial == 0
    assert results.summary(run)["trials_feasible"] == 1


def test_the_pareto_front_is_of_sound_trials_that_keep_the_constraints(run: Path) -> None:
    metric = "search.metric=[pgd_accuracy_best, clean_accuracy]"  # 0 has (0.3, 0.65), 1 has (0.5, 0.7)
    tiny(run, metric)
    assert results.trials(run)["pareto_front"].tolist() == [False, True, False, False, False]
    epoch(Journal(run), 0, 2, 0.2, 0.3, clean_accuracy=0.9)
    assert results.pareto_front(run)["trial"].tolist() == [1, 0]
    assert results.summary(run)["pareto_front"] == [1, 0]
    tiny(run, metric, "search.constraints=[clean_accuracy >= 0.8]")
    assert results.pareto_front(run)["trial"].tolist() == [0]
    tiny(run)
    assert results.pareto_front(run)["trial"].tolist() == [1]  # of one metric, the best
    assert "pareto_front" not in results.trials(run)


def test_a_trial_without_an_end_is_unfinished(run: Path) -> None:
    assert results.trials(run).set_index("trial").loc[4, "status"] == "unfinished"


def test_a_searched_number_of_epochs_stands_beside_the_number_trained(tmp_path: Path) -> None:
    tiny(tmp_path, "space={epochs: {int: [2, 9]}}", "training={}", "start_from=[]")
    journal = Journal(tmp_path)
    journal.append("trial", 0, origin="sampler", hyperparameters={"epochs": 7})
    epoch(journal, 0, 1, 0.3, 0.3)
    row = results.trials(tmp_path).iloc[0]
    assert (row["epochs"], row["epochs_trained"]) == (7, 1)


def test_the_files_name_the_winner_its_accuracies_and_its_weights(run: Path) -> None:
    folder = run / "trials" / "trial_00001" / "checkpoint_000001"
    folder.mkdir(parents=True)
    saved = {"model": {"name": "small_cnn"}, "weights": {"w": torch.ones(2)}, "epoch": 1}
    torch.save({"best_model": saved}, folder / CHECKPOINT_FILE)
    Journal(run).append("checkpoint", 1, epoch=2, path=str(folder.relative_to(run)))
    results.write(run)
    row = pd.read_csv(run / "best_config.csv").iloc[0]
    assert (row["trial"], row["lambda"], row["epoch"], row["pgd_accuracy"], row["clean_accuracy"]) == (
        1, 0.6, 1, 0.5, 0.75
    )  # fmt: skip
    assert row["evaluation_epsilon"] == 0.05
    model = torch.load(run / "best_model.pt", weights_only=True)
    assert model["metrics"] == {"clean_accuracy": 0.75, "pgd_accuracy": 0.5}
    assert yaml.safe_load((run / "best_config.yaml").read_text())["lambda"] == 0.6
    start = specs.load(run / "spec.yaml", [f"start_from=[{run / 'best_config.yaml'}]"]).start_from
    assert start == [{**VALUES, "lambda": 0.6}]


def test_tables_of_a_running_search_do_without_a_checkpoint_that_is_being_replaced(run: Path) -> None:
    Journal(run).append("checkpoint", 1, epoch=2, path="trials/trial_00001/gone")
    results.write(run)
    assert (run / "best_config.csv").exists()
    assert not (run / "best_model.pt").exists()


def test_a_search_that_has_only_begun_has_tables_and_no_winner(tmp_path: Path) -> None:
    tiny(tmp_path)
    (tmp_path / "journal.jsonl").touch()
    results.write(tmp_path)
    assert results.best(tmp_path) is None
    assert results.write_summary(tmp_path)["best"] is None
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 0


def test_the_summary_counts_and_compares(run: Path) -> None:
    summary = results.summary(run)
    assert summary["trials_by_status"] == {
        "completed": 1, "stopped": 1, "catastrophic_overfitting": 1, "diverged": 1, "unfinished": 1
    }  # fmt: skip
    assert (summary["epochs"], summary["epochs_without_early_stopping"]) == (6, 32)
    assert summary["best"]["pgd_accuracy_best"] - summary["baseline"]["pgd_accuracy_best"] == pytest.approx(0.2)


def test_a_folder_without_a_search_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(results.ResultsError, match=r"holds no search: there is no spec\.yaml in it"):
        results.trials(tmp_path)


def test_every_column_is_described(run: Path) -> None:
    described = Path("docs/columns.md").read_text()
    tiny(run, "search.metric=[pgd_accuracy_best, clean_accuracy]")
    for name in [*results.trials(run).columns.drop(list(VALUES)), *results.epochs(run).columns]:
        assert name in described


def test_a_run_that_somebody_sent_has_no_files_elsewhere_read(run: Path) -> None:
    Journal(run).append("checkpoint", 1, epoch=2, path="/")
    with pytest.raises(JournalError, match="is not in the run's folder"):
        results.write(run)
    assert not (run / "best_model.pt").exists()


@pytest.mark.parametrize("name", ["trials.csv.partial", "best_model.pt", "journal.jsonl", "trials"])
def test_a_run_that_somebody_sent_has_no_files_elsewhere_written(
    name: str, run: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    precious = tmp_path_factory.mktemp("home") / "precious"
    precious.write_bytes((run / name).read_bytes() if (run / name).exists() else b"mine")
    before = precious.read_bytes()
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(precious)
    with pytest.raises(results.ResultsError, match="is a link that leads out of the run's folder"):
        results.write(run)
    assert precious.read_bytes() == before


def test_a_checkpoint_runs_no_code(run: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (run / "pwned").mkdir, ()

    folder = run / "trials" / "sent"
    folder.mkdir(parents=True)
    torch.save({"best_model": Attack()}, folder / CHECKPOINT_FILE)
    Journal(run).append("checkpoint", 1, epoch=2, path="trials/sent")
    with pytest.raises(FolderError, match="cannot be read as a checkpoint") as raised:
        results.write(run)
    assert "\n" not in str(raised.value)
    assert not (run / "pwned").exists()
