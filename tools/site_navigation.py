"""For mkdocs: the site's navigation stands beside the page from 1,100 pixels on; the theme hides it below 1,220."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

BREAKPOINTS = {"76.25em": "68.75em", "76.234375em": "68.734375em"}
"""Widths in the theme's media queries, and what replaces them: the narrowest page with it, the widest without."""


def on_post_build(config: MkDocsConfig) -> None:
    """Changes the widths in the style sheets of the built site; an error if the theme has others by now."""
    for file in Path(config.site_dir, "assets", "stylesheets").glob("*.css"):
        style = file.read_text(encoding="utf-8")
        missing = [width for width in BREAKPOINTS if width not in style]
        if missing:
            raise ValueError(f"{file}: the theme has no width of {' and '.join(missing)}")
        for width, replacement in BREAKPOINTS.items():
            style = style.replace(width, replacement)
        file.write_text(style, encoding="utf-8")
