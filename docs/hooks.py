"""What the build of the docs adds to MkDocs: generated references, plain docstrings, no network.

Nothing of the site may come from another host, neither when it is built nor when it is read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from generated import expand

# Addresses in the theme's program that serve features which this site does not use.
UNUSED = (
    "https://unpkg.com/mermaid@",  # diagrams in Mermaid
    "https://unpkg.com/resize-observer-polyfill",  # browsers from before 2020
)
_AWAY = r"""["']?(?:https?:)?//[^"'>) ]+"""
_LOADS = (
    re.compile(rf"<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*?\b(?:src|data)={_AWAY}"),
    re.compile(rf"<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|pre\w+|(?:shortcut )?icon))[^>]*\bhref={_AWAY}"),
    re.compile(rf"url\(\s*{_AWAY}"),
    re.compile(rf"@import\s+{_AWAY}"),
)
_SCRIPT_LOADS = re.compile(r"https?://[\w./@-]*(?:unpkg|jsdelivr|cdnjs|googleapis|gstatic|polyfill)[\w./@-]*")
_ROLE = re.compile(r":(?:class|func|meth|attr|mod|data|exc):<code>~?([^<]*)</code>")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the generated parts of a page."""
    return expand(markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Show the roles of docstrings, ``:class:`Name```, as the name."""
    return _ROLE.sub(r"<code>\1</code>", html)


def on_post_build(config: Any, **_: Any) -> None:
    """Refuse a site that would load anything from another host."""
    from mkdocs.exceptions import PluginError

    site = Path(config["site_dir"])
    (site / "404.html").unlink(missing_ok=True)  # its links need a server's root; the site may lie anywhere
    if found := foreign(site):
        raise PluginError("the site must load nothing from another host, got:\n" + "\n".join(found))


def foreign(site: Path) -> list[str]:
    """Return what the pages, style sheets and scripts of a site would load from another host.

    Args:
        site: Folder of a built site.
    """
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix not in {".html", ".css", ".js", ".svg"}:
            continue
        text = path.read_text("utf-8")
        patterns = (_SCRIPT_LOADS,) if path.suffix == ".js" else _LOADS
        matches = [match[0] for pattern in patterns for match in pattern.finditer(text)]
        found += [f"{path.relative_to(site)}: {match}" for match in matches if not match.startswith(UNUSED)]
    return found
