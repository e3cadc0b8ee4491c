from pathlib import Path

import pandas as pd
import pytest

from tests.support.confirmations import write_quick_search
from tune_cure.cli import main as cli
from tune_cure.search import run_files

QUICK = ["--top", "1", "--seeds", "2", "--baselines", "fgsm", "--examples", "40", "--train-images", "200",
         "--no-autoattack"]  # fmt: skip


@pytest.mark.smoke
@pytest.mark.ray
def test_confirm_trains_and_judges_each_seed_once_also_when_seeds_are_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = write_quick_search(tmp_path)
    leader = f"trial-{result.leaders['trial'].iloc[0]}"
    assert cli.main(["confirm", str(tmp_path), *QUICK]) == 0
    said = capsys.readouterr().out
    assert "[1/4] " in said
    assert f"{leader} against fgsm, PGD-50-10 at epsilon 0.15 (38.2/255): " in said
    table = pd.read_csv(tmp_path / run_files.CONFIRM / "confirm.csv")
    assert table[["contender", "seed"]].to_numpy().tolist() == [[leader, 1], ["fgsm", 1], [leader, 2], ["fgsm", 2]]
    assert table["autoattack"].isna().all()
    assert (tmp_path / run_files.CONFIRM / "confirm.html").exists()

    times = {path: path.stat().st_mtime_ns for path in (tmp_path / run_files.CONFIRM).rglob("model.pt")}
    assert cli.main(["confirm", str(tmp_path), *QUICK, "--seeds", "3"]) == 0
    assert "4 of 6 runs are done already" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / run_files.CONFIRM / "confirm.csv")) == 6
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.ray
def test_confirm_prints_why_a_run_failed_and_continues_with_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_quick_search(tmp_path)
    (tmp_path / run_files.CONFIRM / "fgsm" / "seed-1").mkdir(parents=True)
    (tmp_path / run_files.CONFIRM / "fgsm" / "seed-1" / "last.pt").write_bytes(b"damaged")
    assert cli.main(["confirm", str(tmp_path), *QUICK, "--seeds", "1"]) == 1
    said = capsys.readouterr().out
    assert "cannot be read as a checkpoint" in said
    assert len(pd.read_csv(tmp_path / run_files.CONFIRM / "confirm.csv")) == 1
