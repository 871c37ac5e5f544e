"""An executed notebook as Markdown: its text, its code, and what that showed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parent / "examples" / "notebook.ipynb"


def markdown(path: Path = NOTEBOOK) -> str:
    """Return a notebook as the site shows it; its first heading is the page's own."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    parts = [part for cell in cells for part in _parts(cell)]
    return "\n\n".join(part for part in parts if part).removeprefix("# ").partition("\n")[2].strip()


def _parts(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```py\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {"text/plain": output.get("text", [])})
        if "image/svg+xml" in data:
            # A picture and not the markup itself, whose ids would meet those of another.
            packed = base64.b64encode("".join(data["image/svg+xml"]).encode()).decode()
            yield f'<img alt="What the cell shows" src="data:image/svg+xml;base64,{packed}">'
        else:
            yield f"```text\n{''.join(data['text/plain']).rstrip()}\n```"
