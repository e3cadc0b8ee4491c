from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.support.spaces import tiny
from tune_cure.data import splits as data
from tune_cure.evaluation.autoattack_version import installed_version
from tune_cure.evaluation.metrics import evaluate
from tune_cure.models import checkpoints as models
from tune_cure.ray_backend import rescoring, tuner
from tune_cure.ray_backend.tuner import RunOptions
from tune_cure.reports import tables
from tune_cure.search import ranking, results
from tune_cure.search.journal import Event, Journal
from tune_cure.search.results import SearchResult
from tune_cure.utils.files import read_tensors

RESCORE = ["evaluation.examples=60", "rescore={top: 2, steps: 6, restarts: 2, examples: 30}"]


@pytest.mark.smoke
@pytest.mark.usefixtures("ray_session")
def test_leaders_are_rescored_once_with_their_best_weights(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.trials=4", *RESCORE)
    assert tuner.run(spec, tmp_path).finished
    tables.write_tables(SearchResult(tmp_path))
    trials = results.trials(tmp_path)
    judged = trials.dropna(subset=["fresh_pgd_accuracy"])
    assert set(judged["trial"]) == set(ranking.rank_trials(trials, spec)["trial"].head(2))
    examples = rescoring.fresh_examples(spec, data.load(spec.data))
    journal = Journal(tmp_path)
    checkpoints = {event["trial"]: event["path"] for event in journal.read() if event["event"] == "checkpoint"}
    for _, row in judged.iterrows():
        saved = read_tensors(journal.checkpoint_file(checkpoints[row["trial"]]), torch.device("cpu"))
        metrics = evaluate(models.rebuild(saved["best_model"]), examples, spec.rescoring)
        assert row["fresh_pgd_accuracy"] == metrics["pgd_accuracy"]
        assert row["fresh_examples"] == 30
    best = results.best(tmp_path)
    assert best is not None
    assert best.row["fresh_pgd_accuracy"] == judged["fresh_pgd_accuracy"].max()
    assert pd.read_csv(tmp_path / "best_config.csv")["fresh_pgd_accuracy"].item() == best.row["fresh_pgd_accuracy"]
    lines = len(journal.read())
    assert tuner.run(spec, tmp_path, RunOptions(resume=True)).finished
    assert len(journal.read()) == lines


@pytest.mark.usefixtures("ray_session")
def test_a_failed_rescoring_leaves_the_search_finished_and_is_repeated_on_resume(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = tiny(tmp_path, "search.trials=2", "training.epochs=1", *RESCORE)
    journal = Journal(tmp_path)

    def damage(event: Event) -> None:
        if event["event"] == "end" and event["trial"] == 1:
            for line in journal.read():
                if line["event"] == "checkpoint":
                    journal.checkpoint_file(line["path"]).write_bytes(b"torn")

    assert tuner.run(spec, tmp_path, on_event=damage).finished
    said = [record.getMessage() for record in caplog.records if record.name == "tune_cure.ray_backend.rescoring"]
    assert len(said) == 2
    assert all("could not be judged again" in line and "cannot be read as a checkpoint" in line for line in said)
    assert all("\n" not in line for line in said)
    assert not [event for event in journal.read() if event["event"] == "leader"]


@pytest.mark.usefixtures("ray_session")
def test_a_changed_attack_of_rescore_rescores_the_leaders(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.trials=2", "training.epochs=1", *RESCORE)
    assert tuner.run(spec, tmp_path).finished
    before = results.trials(tmp_path)["fresh_pgd_accuracy"]
    stronger = tiny(tmp_path, "search.trials=2", "training.epochs=1", *RESCORE, "rescore.steps=20")
    assert results.trials(tmp_path)["fresh_pgd_accuracy"].isna().all()  # no number under an attack that was not run
    assert tuner.run(stronger, tmp_path, RunOptions(resume=True)).finished
    leaders = [event for event in Journal(tmp_path).read() if event["event"] == "leader"]
    assert [event["attack"]["steps"] for event in leaders] == [6, 6, 20, 20]
    assert (results.trials(tmp_path)["fresh_pgd_accuracy"] <= before).all()


@pytest.mark.usefixtures("ray_session")
def test_leaders_that_a_part_of_autoattack_judges_have_its_version(tmp_path: Path) -> None:
    rescore = "rescore={top: 1, attack: apgd_t, examples: 5}"
    spec = tiny(tmp_path, "search.trials=1", "training.epochs=1", "evaluation.examples=60", rescore)
    assert tuner.run(spec, tmp_path).finished
    assert results.trials(tmp_path)["fresh_autoattack_version"].tolist() == [installed_version()]
    assert installed_version() in SearchResult(tmp_path).autoattack
