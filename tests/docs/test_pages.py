"""Every link, command and block of code in README, CONTRIBUTING and docs/ is checked here, or says why not.

Commands are parsed; those that end within seconds are also run, by tests/docs/test_commands.py.

Above a block that cannot be: `<!-- not run: WHY -->`. Above Python that reads a search's folder:
`<!-- needs a run: FOLDER -->`. Blocks in which commands begin with `$ ` show what they print.
"""

import argparse
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.support.documents import BLOCKS, PAGES, SHELL, Block, anchors, checked_blocks, inline, links, sessions
from tests.support.exported_models import write_best_model
from tests.support.journals import write_search
from tests.support.registered_parts import forget_afterwards
from tune_cure.cli import main as cli
from tune_cure.data import splits
from tune_cure.search.results import SearchResult
from tune_cure.search.space import bundled_spaces, loading as specs
from tune_cure.training.run import resolve
from tune_cure.utils.yaml_config import ProblemError, override

OTHERS = {
    "pip",
    "ray",
    "sbatch",
    "optuna-dashboard",
    "mlflow",
    "wandb",
    "trackio",
    "tensorboard",
    "prometheus",
    "export",
    "git",
    "curl",
    "ssh",
    "cat",
}
"""Programs that are not this project's: that they are called so is all that is checked."""
SUFFIXES = (".py", ".yaml", ".yml", ".sh", ".sbatch", ".csv")
FOLDERS = ("benchmarks/", "docs/", "examples/", "search_spaces/", "tests/", "tools/")

LEAST = """
name: ok
data: {dataset: digits, validation: 360}
model: small_cnn
space:
  lambda: {loguniform: [0.001, 1]}
"""


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_lines_of_text_fit_a_narrow_window(page: Path) -> None:
    text = re.sub(r"<!-- written by .*?<!-- end of ", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE).splitlines()
    exempt = ("|", "    ", "![")  # tables, code and pictures
    assert [line for line in lines if len(line) > 120 and not line.startswith(exempt)] == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_somewhere(page: Path) -> None:
    for line, target in links(page):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{page}:{line}: {target}: there is no such file"
        assert not anchor or anchor in anchors(file), f"{page}:{line}: {target}: there is no such heading"


@pytest.mark.parametrize("page", sorted(Path("docs").glob("*.md")), ids=str)
def test_every_page_is_in_the_navigation_of_the_site(page: Path) -> None:
    assert re.search(rf": {page.name}$", Path("mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)


def test_a_block_that_is_not_checked_says_why() -> None:
    for block in BLOCKS:
        assert block.language in ("", "bash", "sh", "console", "python", "yaml") or block.not_run, (
            f"{block}: a block of {block.language} cannot be checked; say why above it: <!-- not run: WHY -->"
        )


@pytest.mark.parametrize("block", [block for block in SHELL if not block.text.startswith("$ ")], ids=str)
def test_every_command_is_parsed(block: Block) -> None:
    for words, _ in sessions(block):
        try:
            check(words)
        except (SystemExit, AssertionError, ProblemError, ValueError) as error:
            pytest.fail(f"{block}: {shlex.join(words)}: {error}")


def check(words: list[str]) -> None:
    """That a command exists and takes these options, and that the files which it names are in the repository."""
    program, *options = words
    for word in words:
        if word.startswith(FOLDERS) and word.endswith(SUFFIXES):
            assert Path(word).exists(), f"there is no {word}"
    if words[:2] == ["python", "run_search.py"]:
        check_ours("search", options[1:])
    elif program == "tune-cure":
        check_ours(options[0], options[1:])
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", Path("Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert options[0] in targets, f"make has no target {options[0]}"
    elif program in ("python", ".venv/bin/python"):
        check_script(options)
    elif program.removeprefix(".venv/bin/") in ("pytest", "pre-commit", "ruff", "mkdocs"):
        assert program.startswith(".venv/bin/"), f"{program} is in .venv/bin"
    elif program.startswith("examples/"):
        assert Path(program).exists()
    else:
        assert program in OTHERS, "is this a command? If not, say so above the block: <!-- not run: WHY -->"


def check_script(options: list[str]) -> None:
    """That a script is there and knows the flags: each stands in its text, or in that of a script that it imports."""
    script, *rest = options
    if script == "-m":
        assert rest[0] in ("build", "hatchling", "pytest")
        return
    text = Path(script).read_text(encoding="utf-8")
    for name in re.findall(r"^import (\w+)", text, re.MULTILINE):
        beside = Path(script).with_name(f"{name}.py")
        text += beside.read_text(encoding="utf-8") if beside.exists() else ""
    own = rest[: rest.index("--")] if "--" in rest else rest  # what follows is for the searches that it starts
    if own != rest:
        space = own[own.index("--space") + 1] if "--space" in own else "quickstart"
        check_ours("search", ["--space", space, *rest[len(own) + 1 :]])
    for word in own:
        assert not word.startswith("--") or f'"{word.partition("=")[0]}"' in text, f"{script} has no {word}"


def check_ours(command: str, options: list[str]) -> None:
    """By the parser itself; a search's overrides are applied to its space, or the quick start's where it names none."""
    parsed, unknown = cli.build_parser().parse_known_args([command, *(option for option in options if option != "…")])
    assert not unknown, f"{command} does not take {unknown[0]}"
    if command == "search":
        known = parsed.space in bundled_spaces.bundled() or parsed.space.startswith("search_spaces/")
        assert known or parsed.space.isupper() or parsed.space.endswith(".yaml"), f"there is no space {parsed.space}"
        specs.load(bundled_spaces.find(parsed.space if known else "quickstart"), parsed.settings)
    elif command == "train":
        content = {"data": {"dataset": parsed.dataset or "cifar10"}, "model": {"name": parsed.model or "small_cnn"}}
        for assignment in parsed.settings:
            override(content, assignment)
        run = resolve(content)
        if run.data.dataset == "digits":  # the one data set that is there without a network
            splits.load(run.data)


@pytest.mark.parametrize(
    "line",
    [
        "tune-cure confirm results/NAME --tops 3",
        "tune-cure serach --space cure",
        "tune-cure search --space cur",
        "tune-cure search --space cure --set training.epoch=5",
        "tune-cure train --set training.epochs=many",
        "tune-cure train --dataset digits --set data.validation=5000",
        "python run_search.py --space search_spaces/cur.yaml",
        "python benchmarks/nothing.py",
        "python benchmarks/attacks.py best_model.pt --nothing",
        "make searches",
        "pytest tests/docs/test_pages.py",
        "trial 11 won",
    ],
)
def test_the_check_of_commands_finds_one_that_cannot_be_typed(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((SystemExit, AssertionError, ProblemError, ValueError)):
        check(shlex.split(line))


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=str)
def test_commands_within_sentences_have_flags_that_exist(page: Path) -> None:
    (commands,) = (action for action in cli.build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    for line, code in inline(page, "code_inline"):
        words = code.content.replace("\n", " ").split()
        if words[:2] == ["python", "run_search.py"]:
            words[:2] = ["tune-cure", "search"]
        if words[0] != "tune-cure" or len(words) == 1 or words[1].startswith("-"):
            continue
        assert words[1] in commands.choices, f"{page}:{line}: {code.content}: there is no such command"
        for word in words[2:]:
            flag = word.partition("=")[0]
            assert not flag.startswith("--") or flag in commands.choices[words[1]]._option_string_actions, (
                f"{page}:{line}: {code.content}: there is no {flag}"
            )


@pytest.mark.parametrize("block", checked_blocks("yaml"), ids=str)
def test_every_search_space_can_be_loaded(block: Block, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(block.text, encoding="utf-8")
    specs.load(tmp_path / "space.yaml")


@pytest.mark.parametrize("block", checked_blocks("python"), ids=str)
def test_every_piece_of_python_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.run:
        folder = tmp_path / block.run
        folder.mkdir(parents=True)
        write_search(folder)
        write_best_model(SearchResult(folder))
    monkeypatch.chdir(tmp_path)
    forget_afterwards(monkeypatch)
    exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that docs/troubleshooting.md was written in."""
    monkeypatch.chdir(tmp_path)
    Path("ok.yaml").write_text(LEAST)
    Path("zero.yaml").write_text(LEAST.replace("0.001", "0"))
    Path("fixed.yaml").write_text(
        LEAST.replace("space:", "training: {batch_size: 32}\nspace:").replace(
            "lambda: {loguniform: [0.001, 1]}", "batch_size: {int: [32, 128]}"
        )
    )
    Path("used").mkdir()
    Path("used/notes.txt").touch()


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("block", [block for block in SHELL if block.text.startswith("$ ")], ids=str)
def test_a_command_prints_what_the_page_shows(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    for words, printed in sessions(block):
        assert words[0] == "tune-cure"
        try:
            code = cli.main(words[1:])
        except SystemExit as exit_:
            code = exit_.code
        assert (code, capsys.readouterr().err.strip()) == (2, printed), f"{block}: {shlex.join(words)}"


def test_the_citation_has_the_version_of_the_package() -> None:
    version = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert yaml.safe_load(Path("CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    assert f"Version {version}." in Path("docs/citing.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", sorted(Path(".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda file: file.name)
def test_an_issue_template_can_be_read(file: Path) -> None:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert file.name == "config.yml" or {"name", "description", "body"} <= content.keys()
    assert all(item["type"] == "textarea" and item["attributes"]["label"] for item in content.get("body", []))
