from pathlib import Path

import pytest

from tune_cure.reports.made_files import MadeFiles, digest


def test_a_file_is_current_while_it_and_its_inputs_are_as_they_were(tmp_path: Path) -> None:
    record, file = tmp_path / ".made.json", tmp_path / "figures" / "a.svg"
    file.parent.mkdir()
    file.write_text("drawn")
    made = MadeFiles(record)
    assert not made.is_current(file, "one")
    made.add(file, "one")
    made.write()
    assert MadeFiles(record).is_current(file, "one")
    assert not MadeFiles(record).is_current(file, "two")
    file.write_text("changed by hand, or cut off")
    assert not MadeFiles(record).is_current(file, "one")
    file.unlink()
    assert not MadeFiles(record).is_current(file, "one")


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 1}', "[" * 100_000, '{"a": ["x"]}'])
def test_a_damaged_record_knows_of_no_file(content: str, tmp_path: Path) -> None:
    (tmp_path / ".made.json").write_text(content)
    (tmp_path / "a").write_text("a")
    made = MadeFiles(tmp_path / ".made.json")
    assert not made.is_current(tmp_path / "a", "x")
    made.add(tmp_path / "a", "x")
    made.write()
    assert MadeFiles(tmp_path / ".made.json").is_current(tmp_path / "a", "x")


def test_a_record_that_is_no_text_knows_of_no_file(tmp_path: Path) -> None:
    (tmp_path / ".made.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "a").write_text("a")
    assert not MadeFiles(tmp_path / ".made.json").is_current(tmp_path / "a", "x")


def test_a_file_that_is_not_made_any_more_is_deleted_unless_somebody_has_changed_it(tmp_path: Path) -> None:
    made = MadeFiles(tmp_path / ".made.json")
    folder = tmp_path / "figures"
    (folder / "mine").mkdir(parents=True)
    for name in ("a.svg", "b.svg", "changed.svg", "mine/c.svg", "../d.svg"):
        (folder / name).write_text("drawn")
        made.add(folder / name, "one")
    (folder / "own.svg").write_text("mine")
    (folder / "changed.svg").write_text("changed")
    made.remove_others(folder, {folder / "a.svg"})
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.svg")}
    assert names == {"a.svg", "changed.svg", "own.svg", "mine/c.svg"}
    assert (tmp_path / "d.svg").exists()
    made.write()
    assert not MadeFiles(tmp_path / ".made.json").is_current(folder / "b.svg", "one")


def test_a_digest_tells_inputs_apart(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("ab")
    assert digest("a", "b") != digest("ab") == digest(tmp_path / "a")
    assert digest("a", "b") != digest("b", "a")
