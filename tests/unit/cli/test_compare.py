import errno
import os
from pathlib import Path

import pandas as pd
import pytest

from tests.support.command_line import failed
from tests.support.comparisons import one_trial
from tune_cure.cli import compare, main as cli


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    return [str(one_trial(tmp_path / name, pgd).directory) for name, pgd in (("good", 0.8), ("bad", 0.3))]


def wide(monkeypatch: pytest.MonkeyPatch, width: int = 120) -> None:
    monkeypatch.setenv("COLUMNS", str(width))


def test_the_searches_stand_side_by_side_with_a_verdict(
    folders: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide(monkeypatch)
    assert cli.main(["compare", *folders]) == 0
    said = capsys.readouterr().out
    lines = {line[:24].strip(): line[24:].split("  ") for line in said.splitlines()}
    assert [cell.strip() for cell in lines["its objective"] if cell.strip()] == ["80.0 ± 4.0%", "30.0 ± 4.6%"]
    assert "good against bad, pgd_accuracy_best: better (+50.0 points, 95% interval +38.1 to +61.9)" in said


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_of_the_table_is_wider_than_the_terminal(
    width: int, folders: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide(monkeypatch, width)
    assert cli.main(["compare", *folders]) == 0
    table = capsys.readouterr().out.split("±: one standard")[0]
    assert max(map(len, table.splitlines())) <= width
    assert table.count("trials ended") == (2 if width == 60 else 1)  # blocks that fit


def test_a_search_of_something_else_gets_no_verdict(
    tmp_path: Path, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    other = one_trial(tmp_path / "other", 0.1, "evaluation.epsilon=0.2")
    assert cli.main(["compare", folders[0], str(other.directory)]) == 0
    said = capsys.readouterr().out
    assert "good against other: no verdict: different evaluation" in said
    assert "warning: different evaluation" in said


def test_the_files_are_written(tmp_path: Path, folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "table.csv", tmp_path / "page.html"]
    assert cli.main(["compare", *folders, "--csv", str(files[0]), "--html", str(files[1])]) == 0
    table = pd.read_csv(files[0])
    assert table["search"].tolist() == ["good", "bad"]
    assert table["objective"].tolist() == [0.8, 0.3]
    assert "good" in files[1].read_text()
    assert all(f"wrote {file}" in capsys.readouterr().out for file in files[:1])


def test_files_of_an_earlier_comparison_are_replaced_and_no_others(
    tmp_path: Path, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    table, page = tmp_path / "table.csv", tmp_path / "page.html"
    for _ in range(2):
        assert cli.main(["compare", *folders, "--csv", str(table), "--html", str(page)]) == 0
    capsys.readouterr()
    for file, content in ((table, "model,clean\n"), (page, "<!DOCTYPE html><title>Mine</title>")):
        file.write_text(content)
        said = failed(capsys, "compare", *folders, f"--{file.suffix[1:]}", str(file))
        assert f"{file}: is a file of another kind, and is not replaced" in said
        assert file.read_text() == content


def test_what_is_no_search_is_left_out_if_two_searches_remain(
    tmp_path: Path, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("league/cure", "train"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "league" / "cure" / "journal.jsonl").touch()
    others = [str(tmp_path / name) for name in ("league", "train")]
    assert cli.main(["compare", *folders, *others]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"left out, since they hold no search: {others[0]} and {others[1]}\n")
    assert "good against bad, pgd_accuracy_best: better" in out
    (tmp_path / "bad" / "journal.jsonl").unlink()  # a damaged search is not left out
    assert "bad: holds no search: there is no journal.jsonl in it" in failed(capsys, "compare", *folders, *others)
    assert "holds no search" in failed(capsys, "compare", folders[0], *others)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["good"], "two folders or more are needed, but found 1"),
        (["good", "bad", "good"], "good: is given twice"),
        (["good", "."], ".: holds no search itself, but these: bad, good; name one"),
        (["good", "nowhere"], "nowhere: holds no search: there is no such folder"),
        (["good", "bad", "--csv", "missing/table.csv"], "--csv missing/table.csv: there is no folder"),
        (["good", "bad", "--csv", "page.html", "--html", "."], "--html .: is a folder"),
        (["good", "bad", "--csv", "x", "--html", "./x"], "--csv and --html: x cannot be both"),
        (["good", "bad", "--csv", "bad/journal.jsonl"], "lies in the folder of a search; name another place"),
        (["good", "bad", "--cvs", "x"], "unknown argument --cvs; did you mean '--csv'?"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    folders: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    try:
        code = cli.main(["compare", *arguments])
    except SystemExit as exit_:  # argparse's way
        code = int(str(exit_.code))
    assert code == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_name_that_no_file_can_have_is_one_line(
    tmp_path: Path, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / ("x" * 300 + ".csv")  # longer than a name can be
    assert cli.main(["compare", *folders, "--csv", str(file)]) == 2
    assert "cannot be written: File name too long" in capsys.readouterr().err


def test_a_disk_that_is_full_is_one_line(
    tmp_path: Path, folders: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(compare, "replace_text", full)
    file = tmp_path / "table.csv"
    assert cli.main(["compare", *folders, "--csv", str(file)]) == 2
    assert capsys.readouterr().err == f"tune-cure: {file}: cannot be written: No space left on device\n"
