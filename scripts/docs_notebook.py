"""Execute the notebook of the docs, without Jupyter: its cells' code in order, in a folder of its own.

python scripts/docs_notebook.py                     # docs/examples/notebook.ipynb, in place
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import vl_convert

from docs_pictures import compact

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "examples" / "notebook.ipynb"


def main() -> None:
    """Execute the notebook and write what its cells show beside them."""
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        executed = execute(notebook, Path(folder))
    NOTEBOOK.write_text(json.dumps(executed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{NOTEBOOK.name}: {NOTEBOOK.stat().st_size / 1024:.0f} KB")


def execute(notebook: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a notebook with the outputs that its code gives in a folder.

    Args:
        notebook: As nbformat 4 has it.
        folder: Where its code runs.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, number = [], 0
    before = Path.cwd()
    os.chdir(folder)
    try:
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                number += 1
                outputs = _outputs("".join(cell["source"]), names, number)
                cell = cell | {"execution_count": number, "outputs": outputs}
            cells.append(cell)
    finally:
        os.chdir(before)
    return notebook | {"cells": cells}


def _outputs(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Return what a cell prints and what its last expression shows."""
    tree = ast.parse(source)
    end = tree.body[-1]
    last = None
    if isinstance(end, ast.Expr):
        last = ast.Expression(end.value)
        tree.body.pop()
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), names)
        value = eval(compile(last, "<cell>", "eval"), names) if last else None
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)})
    if value is not None:
        data = {kind: content.splitlines(keepends=True) for kind, content in _shown(value).items()}
        outputs.append({
            "data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result",
        })  # fmt: skip
    return outputs


def _shown(value: Any) -> dict[str, str]:
    """Return the forms of a value that the docs can show: a picture, or text.

    Jupyter shows no SVG of a notebook that it was not told to trust, but a PNG.
    """
    if hasattr(value, "_repr_mimebundle_"):
        svg = value._repr_mimebundle_()["image/svg+xml"]
        png = base64.b64encode(vl_convert.svg_to_png(svg, scale=1)).decode()
        return {"image/png": png, "image/svg+xml": compact(svg)}
    return {"text/plain": repr(value)}


if __name__ == "__main__":
    main()
