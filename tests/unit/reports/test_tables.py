from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.support.comparisons import write_epochs
from tests.support.journals import VALUES, write_clean_search, write_run
from tests.support.spaces import tiny
from tune_cure.reports import tables
from tune_cure.search import results, run_files
from tune_cure.search.journal import Journal, JournalError
from tune_cure.search.results import SearchResult
from tune_cure.search.space import loading as specs
from tune_cure.utils.csv_tables import read_csv


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path)
    return tmp_path


def test_the_files_name_the_winner_its_accuracies_and_its_weights(run: Path) -> None:
    folder = run / "trials" / "trial_00001" / "checkpoint_000001"
    folder.mkdir(parents=True)
    saved = {"model": {"name": "small_cnn"}, "weights": {"w": torch.ones(2)}, "epoch": 1}
    torch.save({"best_model": saved}, folder / run_files.CHECKPOINT)
    Journal(run).append("checkpoint", 1, epoch=2, path=str(folder.relative_to(run)))
    tables.write_tables(SearchResult(run))
    tables.write_best_model(SearchResult(run))
    row = pd.read_csv(run / "best_config.csv").iloc[0]
    assert (row["trial"], row["lambda"], row["epoch"], row["pgd_accuracy"], row["clean_accuracy"]) == (
        1, 0.6, 1, 0.5, 0.75
    )  # fmt: skip
    assert row["evaluation_epsilon"] == 0.05
    model = torch.load(run / "best_model.pt", weights_only=True)
    assert model["metrics"] == {"clean_accuracy": 0.75, "pgd_accuracy": 0.5}
    plain = run / "best_model.safetensors"
    assert {name: tensor.tolist() for name, tensor in load_file(plain).items()} == {"w": [1.0, 1.0]}
    plain.unlink()  # a run of version 0.1.0 has none
    tables.write_best_model(SearchResult(run))
    assert plain.exists()
    assert yaml.safe_load((run / "best_config.yaml").read_text())["lambda"] == 0.6
    start = specs.load(run / "spec.yaml", [f"start_from=[{run / 'best_config.yaml'}]"]).start_from
    assert start == [{**VALUES, "lambda": 0.6}]


def test_tables_can_be_written_while_a_checkpoint_is_being_replaced(run: Path) -> None:
    Journal(run).append("checkpoint", 1, epoch=2, path="trials/trial_00001/gone")
    tables.write_best_model(SearchResult(run))
    assert not (run / "best_model.pt").exists()


def test_a_search_that_has_only_begun_has_tables_and_no_winner(tmp_path: Path) -> None:
    tiny(tmp_path)
    (tmp_path / "journal.jsonl").touch()
    tables.write_tables(SearchResult(tmp_path))
    assert results.best(tmp_path) is None
    assert SearchResult(tmp_path).summary["best"] is None
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 0


def test_no_file_outside_a_received_run_is_read(run: Path) -> None:
    Journal(run).append("checkpoint", 1, epoch=2, path="/")
    with pytest.raises(JournalError, match="is not in the run's folder"):
        tables.write_best_model(SearchResult(run))
    assert not (run / "best_model.pt").exists()


@pytest.mark.parametrize("name", ["trials.csv.partial", "best_model.pt", "journal.jsonl", "trials"])
def test_no_file_outside_a_received_run_is_written(
    name: str, run: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    precious = tmp_path_factory.mktemp("home") / "precious"
    precious.write_bytes((run / name).read_bytes() if (run / name).exists() else b"mine")
    before = precious.read_bytes()
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(precious)
    with pytest.raises(results.ResultsError, match="is a link that leads out of the run's folder"):
        tables.write_tables(SearchResult(run))
    assert precious.read_bytes() == before


def test_a_checkpoint_runs_no_code(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (run / "pwned").mkdir, ()

    folder = run / "trials" / "sent"
    folder.mkdir(parents=True)
    torch.save({"best_model": Attack()}, folder / run_files.CHECKPOINT)
    Journal(run).append("checkpoint", 1, epoch=2, path="trials/sent")
    tables.write_best_model(SearchResult(run))
    (warning,) = caplog.messages
    assert "cannot be read as a checkpoint" in warning
    assert "\n" not in warning
    assert "weights_only" not in warning
    assert not (run / "pwned").exists()
    assert not (run / "best_model.pt").exists()


@pytest.mark.parametrize("content", [{"best_model": 3}, {"best_model": {"weights": 3}}, {"epoch": 1}, [1], {1: 2}])
def test_a_checkpoint_without_weights_is_left_out_with_a_warning(
    content: object, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = run / "trials" / "sent"
    folder.mkdir(parents=True)
    torch.save(content, folder / run_files.CHECKPOINT)
    (run / "best_model.pt").write_bytes(b"damaged, too")
    Journal(run).append("checkpoint", 1, epoch=2, path="trials/sent")
    tables.write_best_model(SearchResult(run))
    assert "checkpoint" in caplog.messages[0]
    assert (run / "best_model.pt").read_bytes() == b"damaged, too"


def test_text_that_a_spreadsheet_takes_for_a_formula_is_none_and_is_read_back(run: Path) -> None:
    reason = '=HYPERLINK("http://x", A1)'
    Journal(run).append("end", 4, status="failed", reason=reason)
    tables.write_tables(SearchResult(run))
    assert f"'{reason}" in pd.read_csv(run / "trials.csv")["reason"].tolist()
    assert reason in read_csv(run / "trials.csv")["reason"].tolist()


def test_csv_and_parquet_hold_the_same(run: Path) -> None:
    result = SearchResult(run)
    tables.write_tables(result)
    for name, frame in (("trials", result.trials), ("epochs", result.epochs)):
        read = pd.read_parquet(run / f"{name}.parquet")
        assert len(read) == len(frame) > 0
        assert read.to_csv(index=False) == (run / f"{name}.csv").read_text()


def test_a_choice_of_mixed_kinds_is_text_in_parquet(tmp_path: Path) -> None:
    tiny(tmp_path, "space={attack_steps: {choice: [1, 2]}, penalty_fraction: {choice: [1, 0.5]}}", "start_from=[]")
    journal = Journal(tmp_path)
    for number, of in enumerate((1, 0.5)):
        values = {"attack_steps": 1, "penalty_fraction": of}
        journal.append("trial", number, origin="sampler", hyperparameters=values)
    frame = SearchResult(tmp_path).trials
    frame["mixed"] = pd.Series([1, "auto"], dtype=object)
    written = tables._with_uniform_types(frame)
    assert written["mixed"].tolist() == ["1", "auto"]
    assert written["penalty_fraction"].tolist() == [1, 0.5]


def test_the_top_configurations_are_tables_for_papers(run: Path) -> None:
    tables.write_top_configurations(SearchResult(run))
    titles, rule, first, *_ = (run / "top_configurations.md").read_text().splitlines()
    assert titles == "| trial | lambda | h | lr_max | epsilon | epochs | clean (%) | PGD (%) |"
    assert len(rule.split("|")) == len(titles.split("|"))
    assert first == "| 1 | 0.6 | 1 | 0.02 | 0.1 | 2 | 75.0 | 50.0 ± 5.0 |"
    latex = (run / "top_configurations.tex").read_text()
    assert r"trial & lambda & h & lr\_max & epsilon & epochs & clean (\%) & PGD (\%) \\" in latex
    assert r"1 & 0.6 & 1 & 0.02 & 0.1 & 2 & 75.0 & 50.0 $\pm$ 5.0 \\" in latex
    assert latex.startswith(r"\begin{tabular}{rrrrrrrr}")


def test_the_top_configurations_leave_out_trials_that_collapsed_unless_all_did(tmp_path: Path) -> None:
    collapsed = "catastrophic_overfitting"
    for name, ends in {"mixed": ["completed", collapsed], "all": [collapsed, collapsed]}.items():
        result = write_epochs(tmp_path / name, [(0, 1, 0.4), (1, 1, 0.6)], statuses=dict(enumerate(ends)))
        tables.write_top_configurations(result)
        _, _, *rows = (tmp_path / name / "top_configurations.md").read_text().splitlines()
        assert [row.split("|")[1].strip() for row in rows] == (["0"] if name == "mixed" else ["1", "0"])


def test_the_top_configurations_name_the_metric_that_ranks_them(tmp_path: Path) -> None:
    write_clean_search(tmp_path)
    tables.write_top_configurations(SearchResult(tmp_path))
    titles, _, first, *_ = (tmp_path / "top_configurations.md").read_text().splitlines()
    assert titles.endswith("| epochs | objective: clean_accuracy (%) | clean (%) | PGD (%) |")
    assert first == "| 0 | 0.5 | 1 | 0.02 | 0.1 | 1 | 90.0 | 90.0 | 10.0 ± 3.0 |"
    assert r"objective: clean\_accuracy (\%)" in (tmp_path / "top_configurations.tex").read_text()


def test_weights_of_a_former_leader_are_removed(run: Path) -> None:
    torch.save({"trial": 0, "weights": {}}, run / "best_model.pt")
    Journal(run).append("checkpoint", 1, epoch=2, path="trials/trial_00001/gone")
    tables.write_best_model(SearchResult(run))
    assert not (run / "best_model.pt").exists()
    torch.save({"trial": 1, "weights": {}}, run / "best_model.pt")
    tables.write_best_model(SearchResult(run))
    assert (run / "best_model.pt").exists()
