from pathlib import Path
from typing import Any, ClassVar

import pytest

import tune_cure
from tests.support.confirmations import write_quick_search
from tests.support.exported_models import write_best_model, write_confirmed_runs
from tune_cure.cli import main as cli
from tune_cure.reports import tables
from tune_cure.search.results import SearchResult
from tune_cure.utils import environment


@pytest.fixture
def result(tmp_path: Path) -> SearchResult:
    found = write_quick_search(tmp_path)
    tables.write_tables(found)
    write_best_model(found)
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    try:
        code = cli.main(["export", *map(str, arguments)])
    except SystemExit as exit_:  # argparse's way
        code = int(str(exit_.code))
    assert code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_search_is_exported(result: SearchResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert result.best
    before = {path: path.stat().st_mtime_ns for path in result.directory.rglob("*")}
    assert cli.main(["export", str(result.directory), "--to", str(tmp_path / "new" / "out")]) == 0
    said = capsys.readouterr().out
    assert f"wrote {tmp_path / 'new' / 'out'}: trial {result.best.trial} of the search digits-search" in said
    assert "its accuracies are those on the validation images that chose it" in said
    assert {path.name for path in (tmp_path / "new" / "out").iterdir()} == {
        "model.safetensors", "config.json", "model.py", "load.py", "README.md", "best_config.csv", "best_config.yaml",
    }  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in before if path != result.directory} == {
        path: time for path, time in before.items() if path != result.directory
    }


def test_the_folder_may_be_named_as_the_output(result: SearchResult, tmp_path: Path) -> None:
    assert cli.main(["export", str(result.directory), "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_a_confirmed_network_is_exported(
    result: SearchResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_confirmed_runs(result, 1, 2)
    to = tmp_path / "out"
    assert cli.main(["export", str(result.directory), "--to", str(to), "--confirmed", "fgsm", "--seed", "2"]) == 0
    said = capsys.readouterr().out
    assert "plain FGSM" in said and "with seed 2 on 200 training images" in said
    assert "validation images that chose it" not in said
    assert "# digits-search, fgsm, seed 2\n" in (to / "README.md").read_text()
    assert not (to / "best_config.csv").exists()


def test_bad_input_is_one_line_and_writes_nothing(
    result: SearchResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "out"
    assert "the following arguments are required: --to" in refused(capsys, result.directory)
    assert "holds no search" in refused(capsys, tmp_path / "nothing", "--to", to)
    assert "makes no difference without --confirmed" in refused(capsys, result.directory, "--to", to, "--seed", 1)
    assert "invalid int value: 'x'" in refused(capsys, result.directory, "--to", to, "--seed", "x")
    assert "holds no confirmation" in refused(capsys, result.directory, "--to", to, "--confirmed", "fgsm")
    assert "is not an empty folder" in refused(capsys, result.directory, "--to", result.directory)
    assert "unknown argument --two" in refused(capsys, result.directory, "--to", to, "--two")
    (result.directory / "best_model.pt").unlink()
    assert "there is nothing to export" in refused(capsys, result.directory, "--to", to)
    assert not to.exists()


class StandInHub:
    """Takes what `HfApi` is asked to do."""

    calls: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    error: ClassVar[Exception | None] = None

    def create_repo(self, name: str, **words: Any) -> str:
        self.calls.append((name, words))
        return f"https://hub/{name}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        if self.error:
            raise self.error
        files = {file.name: file.read_bytes() for file in folder_path.iterdir()}
        self.calls.append((repo_id, {"files": files, "message": commit_message}))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[StandInHub]:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", StandInHub)
    monkeypatch.setattr(StandInHub, "calls", [])
    monkeypatch.setattr(StandInHub, "error", None)
    return StandInHub


def test_what_is_pushed_is_the_folder_that_a_dry_run_writes(
    result: SearchResult, tmp_path: Path, hub: type[StandInHub], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(result.directory), "--push-to-hub", "me/net"]
    assert cli.main([*command, "--to", str(tmp_path / "dry"), "--dry-run"]) == 0
    assert hub.calls == []
    said = capsys.readouterr().out
    assert "dry run: nothing was sent; me/net would get README.md, best_config.csv, best_config.yaml, config" in said
    assert cli.main([*command, "--to", str(tmp_path / "real")]) == 0
    made, sent = hub.calls
    assert made == ("me/net", {"private": True, "exist_ok": True})
    assert sent[0] == "me/net"
    assert sent[1]["files"] == {file.name: file.read_bytes() for file in (tmp_path / "dry").iterdir()}
    assert "sent to https://hub/me/net" in capsys.readouterr().out


def test_a_push_in_python_sends_the_folder(result: SearchResult, tmp_path: Path, hub: type[StandInHub]) -> None:
    tune_cure.export(result, tmp_path / "out", push_to_hub="me/net")
    assert [name for name, _ in hub.calls] == ["me/net", "me/net"]


def test_a_push_that_fails_is_one_line_and_leaves_the_folder(
    result: SearchResult,
    tmp_path: Path,
    hub: type[StandInHub],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub, "error", ConnectionError("no route to the hub\nmore"))
    to = tmp_path / "out"
    error = refused(capsys, result.directory, "--to", to, "--push-to-hub", "me/net")
    assert error == f"tune-cure: --push-to-hub me/net: no route to the hub; {to} is complete\n"
    assert (to / "model.safetensors").exists()


def test_what_cannot_be_pushed_or_claimed_is_refused_before_anything_is_written(
    result: SearchResult, tmp_path: Path, hub: type[StandInHub], capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "out"
    command = (result.directory, "--to", to)
    assert "--push-to-hub a/b/c: " in refused(capsys, *command, "--push-to-hub", "a/b/c")
    assert "--dry-run: makes no difference without --push-to-hub" in refused(capsys, *command, "--dry-run")
    assert "`tune-cure confirm` makes some, and --confirmed NAME takes" in refused(capsys, *command, "--robustbench")
    assert not to.exists() and hub.calls == []


@pytest.mark.parametrize(
    ("hidden", "flag"), [("huggingface_hub", ["--push-to-hub", "me/net"]), ("onnxruntime", ["--onnx"])]
)
def test_a_missing_package_is_named_with_what_needs_it(
    hidden: str,
    flag: list[str],
    result: SearchResult,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environment, "is_installed", lambda name: name != hidden)
    error = refused(capsys, result.directory, "--to", tmp_path / "out", *flag)
    assert f"{flag[0]} needs the package " in error and "which is not installed: pip install " in error
