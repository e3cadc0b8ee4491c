import time
from pathlib import Path

import pytest

from tune_cure.utils.yaml_config import SpecError, read_mapping
from tune_cure.utils.yaml_parser import parse


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.mkdir [pwned]",
        "a: !!python/object/apply:os.mkdir [pwned]",
        "? !!python/object/apply:os.mkdir [pwned]\n: 1",
        "a: !!python/name:os.mkdir ''",
    ],
)
def test_yaml_runs_no_code(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(SpecError, match="could not determine a constructor for the tag"):
        read_mapping("x.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["x.yaml"]


def test_aliases_that_make_billions_of_values_out_of_a_few_lines_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (tmp_path / "x.yaml").write_text("\n".join(lines))
    with pytest.raises(SpecError, match="more than 10000 values, those of aliases counted"):
        read_mapping(tmp_path / "x.yaml")


def test_a_file_longer_than_any_configuration_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: [1]\n" * 3_000_000)  # 20 MB
    start = time.process_time()
    with pytest.raises(SpecError, match=r"x\.yaml: is not valid YAML: it is longer than 524,288 characters"):
        read_mapping(tmp_path / "x.yaml")
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [*a]", "an alias stands within what it is an alias of"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: !!timestamp x", "'x' is no timestamp"),
        ("a: !!bool x", "'x' is no bool"),
        ("a: !!map x", "expected a mapping"),
    ],
)
def test_hostile_yaml_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(SpecError, match=said) as raised:
        read_mapping(tmp_path / "x.yaml")
    assert str(raised.value).isprintable()


def test_what_only_looks_like_a_number_or_a_date_is_text_and_so_are_keys() -> None:
    values = {"a": "0x_", "b": "2001-99-99", "c": str(2**60), "1": "x", "null": "y"}
    assert parse(f"{{a: 0x_, b: 2001-99-99, c: {2**60}, 1: x, null: y}}") == values
    assert parse("a: &one 1\n*one : *one") == {"a": 1, "1": 1}
