from pathlib import Path

import pandas as pd
import pytest

from tests.support.confirmations import write_quick_search
from tests.support.pictures import write_pictures
from tune_cure.cli import main as cli
from tune_cure.confirmation.plan import Job
from tune_cure.ray_backend import confirmation
from tune_cure.search import run_files

QUICK = ["--top", "1", "--seeds", "2", "--baselines", "fgsm", "--examples", "40", "--train-images", "200",
         "--no-autoattack"]  # fmt: skip


@pytest.mark.smoke
@pytest.mark.usefixtures("ray_session")
def test_confirm_trains_and_judges_each_seed_once_also_when_seeds_are_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = write_quick_search(tmp_path)
    leader = f"trial-{result.leaders['trial'].iloc[0]}"
    assert cli.main(["confirm", str(tmp_path), *QUICK, "--seeds", "1"]) == 0
    said = capsys.readouterr().out
    assert "[1/2] " in said
    assert f"{leader} against fgsm, PGD-50-10 at epsilon 0.15 (38.2/255): " in said
    assert (tmp_path / run_files.CONFIRM / "confirm.html").exists()

    times = {path: path.stat().st_mtime_ns for path in (tmp_path / run_files.CONFIRM).rglob("model.pt")}
    assert cli.main(["confirm", str(tmp_path), *QUICK]) == 0
    assert "2 of 4 runs are done already" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / run_files.CONFIRM / "confirm.csv")
    assert table[["contender", "seed"]].to_numpy().tolist() == [[leader, 1], ["fgsm", 1], [leader, 2], ["fgsm", 2]]
    assert table["autoattack"].isna().all()
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


def test_three_classes_are_confirmed_by_autoattack_without_its_targeted_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_here(jobs: list[Job], *_: object, **__: object) -> dict[str, str]:
        for job in jobs:
            confirmation.work(job)
        return {}

    monkeypatch.setattr(confirmation, "run", run_here)
    write_pictures(tmp_path / "pictures", ("cat", "dog", "owl"), count=9)
    data = f"data={{dataset: image_folder, root: {tmp_path / 'pictures'}, validation: 6}}"
    write_quick_search(tmp_path, data, "evaluation={epsilon: 0.5, examples: 6}", "training.epochs=1")
    quick = ["--top", "1", "--seeds", "1", "--examples", "3", "--data-root", str(tmp_path / "pictures"), "--baselines"]
    assert cli.main(["confirm", str(tmp_path), *quick]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "APGD-T and FAB-T, need 4 classes, and there are 3: they are left out, and APGD-CE + Square remain" in printed
    )
    assert "seeds clean ± PGD-50-10 ± APGD-CE + Square ±" in printed
    assert "Not clearly above chance" in printed
    table = pd.read_csv(tmp_path / run_files.CONFIRMED)
    assert table["apgd_t"].isna().all() and table["autoattack"].notna().all()
    assert table["chance"].tolist() == pytest.approx([1 / 3])
    page = (tmp_path / run_files.REPORT).read_text()
    assert "APGD-CE + Square (AutoAttack without its targeted parts, which need four classes)" in page
