"""The page's own script: modules with one purpose each, joined to one for the page."""

import re
from importlib.resources import files

MODULES = (
    "state", "table", "raster", "charts", "places", "letters", "lines", "diagram", "describe", "extremes",
    "curves", "explore", "filters", "keys", "panel", "sections", "scrolling", "jumps", "controls", "page",
)  # fmt: skip
"""Files ``NAME.js`` of this folder, each below those that it imports; the last one runs."""
_IMPORT = re.compile(r"^import (\{[^}]*\}) from \"\./(\w+)\.js\";$", re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function|const) (\w+))", re.MULTILINE)


def script() -> str:
    """Return the modules as one, each in a function of its own: a file of its own has no address to load."""
    folder = files(__name__)
    *modules, last = [(name, _bound((folder / f"{name}.js").read_text("utf-8"))) for name in MODULES]
    return "\n".join([*(_closed(name, text) for name, text in modules), last[1]])


def _bound(text: str) -> str:
    return _IMPORT.sub(r"const \1 = module_\2;", text)


def _closed(name: str, text: str) -> str:
    """Return a module as a constant that holds what it exports."""
    exports = ", ".join(match[2] for match in _EXPORT.finditer(text))
    body = _EXPORT.sub(r"\1", text)
    return f"const module_{name} = (() => {{\n{body}\nreturn {{ {exports} }};\n}})();"
