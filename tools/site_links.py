"""For mkdocs: files beside docs/ that its pages link to become part of the site, below repository/."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md")
WITHIN = "repository"
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")
_CODE = re.compile(r"^(```|~~~).*?^\1$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the top level, and whatever a page of docs/ or of these links to."""
    sources = [*Path(config.docs_dir).glob("*.md"), *(ROOT / name for name in PAGES)]
    linked = {target for source in sources for target in _outside(source)} | {ROOT / name for name in PAGES}
    for target in sorted(linked):
        if target.is_file():
            files.append(File.generated(config, f"{WITHIN}/{target.relative_to(ROOT)}", abs_src_path=str(target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points a page's links to where these files lie in the site; of a link to a folder only the words stay."""
    outside = page.file.src_uri.startswith(f"{WITHIN}/")

    def moved(link: re.Match[str]) -> str:
        text, target = link.groups()
        if not outside and (ROOT / "docs" / target).is_dir():
            return text
        if outside and target.startswith("docs/"):
            target = f"../{target.removeprefix('docs/')}"
        elif not outside and target.startswith("../"):
            target = f"{WITHIN}/{target.removeprefix('../')}"
        return f"[{text}]({target})"

    pieces, at = [], 0
    for code in _CODE.finditer(markdown):
        pieces += [_LINK.sub(moved, markdown[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*pieces, _LINK.sub(moved, markdown[at:])])


def _outside(source: Path) -> set[Path]:
    """The files of the repository outside of docs/ that a page links to."""
    targets = {
        (source.parent / link.partition("#")[0]).resolve() for _, link in _LINK.findall(source.read_text("utf-8"))
    }
    docs = (ROOT / "docs").resolve()
    return {target for target in targets if target.is_relative_to(ROOT.resolve()) and not target.is_relative_to(docs)}
