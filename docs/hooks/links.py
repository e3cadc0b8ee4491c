"""Links between docs/ and the rest of the repository, in the site as in the repository.

Pages link to files as they lie in the repository (`../examples/cluster.yaml`), so that they can be read there. MkDocs
knows docs/ alone: what lies outside and is linked to, or stands in the navigation, is taken into the site under
repository/, and the links are changed to match.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

OUTSIDE = "repository/"
DOCS = "docs/"
LINK = re.compile(r"(?<=\]\()([^)\s:#]+)(?=[#)])")  # of a relative link, all but its anchor


def _place(uri: str) -> str:
    """Where a file of the site lies in the repository."""
    return uri.removeprefix(OUTSIDE) if uri.startswith(OUTSIDE) else DOCS + uri


def _uri(place: str) -> str:
    """Where a file of the repository lies in the site."""
    return place.removeprefix(DOCS) if place.startswith(DOCS) else OUTSIDE + place


def _target(uri: str, link: str) -> str:
    """Where in the repository a link of the page `uri` leads."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(_place(uri)), link))


def _linked(nav: Any) -> set[str]:
    """The pages of the navigation."""
    if isinstance(nav, str):
        return {nav}
    parts = nav.values() if isinstance(nav, dict) else nav
    return {uri for part in parts for uri in _linked(part)}


def on_files(files: Files, config: Any) -> Files:
    """Adds what the pages link to outside of docs/, and what those link to in turn."""
    root = Path(config.config_file_path).parent
    found = {file.src_uri for file in files}
    waiting = [file.src_uri for file in files.documentation_pages()]
    waiting += [uri for uri in _linked(config.nav) if uri.startswith(OUTSIDE)]
    while waiting:
        uri = waiting.pop()
        path = root / _place(uri)
        if uri not in found and path.is_file():
            files.append(File.generated(config, uri, abs_src_path=str(path)))
            found.add(uri)
        if uri.endswith(".md") and path.is_file():
            targets = {_uri(_target(uri, link)) for link in LINK.findall(path.read_text())}
            waiting += [target for target in targets - found if not target.startswith(OUTSIDE + "..")]
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Changes the links of a page to where the files lie in the site."""
    here = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        return posixpath.relpath(_uri(_target(here, match[1])), posixpath.dirname(here) or ".")

    return LINK.sub(moved, markdown)
