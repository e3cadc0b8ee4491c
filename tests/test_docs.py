"""What the documentation says is so: links lead somewhere, commands are understood, blocks of YAML and Python work."""

import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.journals import write_search
from tune_cure import cli, cli_train, data, spec

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(DOCS.glob("*.md"))
MKDOCS = ROOT / "mkdocs.yml"
NOT_RUN = re.compile(r"<!-- not run: .+ -->\n$")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MADE_UP = re.compile(r"results/|FILE$|mine\.yaml$")  # spaces in commands that only a user's machine has

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub names them."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(page: Path) -> list[str]:
    """The lines of indented code, and of fenced code that is neither Python nor YAML nor what was printed."""
    text = page.read_text()
    fenced = [code for language, code in FENCE.findall(text) if language in ("", "bash", "sh", "console")]
    indented = re.findall(r"^ {4}(.+)$", FENCE.sub("", text), re.MULTILINE)
    lines = "\n".join([*indented, *fenced]).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith(("tune-cure ", "python run_search.py", "make "))]


EVERY_COMMAND = [(page.name, line) for page in PAGES for line in commands(page)]


def arguments(line: str) -> list[str]:
    """Of tune-cure."""
    words = shlex.split(line, comments=True)
    return ["search", *words[2:]] if words[0] == "python" else words[1:]


@each_page
def test_every_relative_link_leads_to_a_file_and_an_anchor_that_are_there(page: Path) -> None:
    missing = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            missing.append(link)
    assert not missing


def test_every_page_is_in_the_sites_navigation_once() -> None:
    entries = re.findall(r"^ +- [^:\n]+: (\S+\.md)$", MKDOCS.read_text(), re.MULTILINE)
    assert sorted(entry for entry in entries if "/" not in entry) == sorted(page.name for page in DOCS.glob("*.md"))
    assert all((ROOT / entry.removeprefix("repository/")).is_file() for entry in entries if "/" in entry)


def test_every_command_is_shown_somewhere() -> None:
    (known,) = (action.choices for action in cli.parser()._actions if isinstance(action.choices, dict))
    assert {arguments(line)[0] for _, line in EVERY_COMMAND if not line.startswith("make ")} == set(known)


@pytest.mark.parametrize(("page", "line"), EVERY_COMMAND, ids=[f"{page}: {line[:60]}" for page, line in EVERY_COMMAND])
def test_every_command_is_understood(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if line.startswith("make "):
        targets = set(re.findall(r"^([a-z]+):", Path("Makefile").read_text(), re.MULTILINE))
        assert {word for word in shlex.split(line, comments=True)[1:] if "=" not in word} <= targets
        return
    options, unknown = cli.parser().parse_known_args(arguments(line))
    assert not unknown
    if "space" in options and not MADE_UP.match(options.space):
        spec.load(options.space, options.set)
    if options.run is cli_train.train and not options.resume and options.config is None:
        run = cli_train.asked_for(options, Console(file=io.StringIO()))
        if run.data.dataset == "digits":
            data.load(run.data)


def whole_spaces() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for language, code in FENCE.findall(page.read_text()):
            if language == "yaml" and re.search(r"^name:", code, re.MULTILINE) and "\nspace:" in code:
                yield page.name, code


SPACES = list(whole_spaces())


@pytest.mark.parametrize(("page", "code"), SPACES, ids=[page for page, _ in SPACES])
def test_every_whole_space_can_be_searched(page: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(code)
    spec.load(tmp_path / "space.yaml")


def python_blocks(page: Path) -> list[str]:
    """Those that have no comment before them that says why they are not run."""
    text = page.read_text()
    blocks = [match for match in FENCE.finditer(text) if match[1] == "python"]
    return [match[2] for match in blocks if not NOT_RUN.search(text[: match.start()])]


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=lambda page: page.name)
def test_the_python_of_a_page_runs_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results/quickstart").mkdir(parents=True)
    write_search(tmp_path / "results/quickstart")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in python_blocks(page):
        exec(compile(block, page.name, "exec"), names)


def test_what_is_cited_is_this_version() -> None:
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    own = re.search(r'^version = "(\S+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert cited is not None
    assert own is not None
    assert cited[1] == own[1]
