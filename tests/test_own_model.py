"""Models of one's own: files outside the package, as the README shows them."""

import re
import sys
from pathlib import Path

import pytest

from runner import cli, store

README = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["my_model", "my_net"])
def test_the_example_of_the_readme_trains(name, tmp_path, monkeypatch):
    (text,) = re.findall(rf"^```\w+\n(# {name}\.py\n.*?)^```", README, re.MULTILINE | re.DOTALL)
    (line,) = re.findall(rf"^runner (sweep .*{name}\..*)$", README, re.MULTILINE)
    assert 7 <= len(text.splitlines()) <= 40
    (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    small = [
        "width=4,8", "steps=2", "workers=1", "store=out", "data.train_size=16", "data.test_size=16",
        "data.probe_size=10",
    ]  # fmt: skip
    words = [word for word in line.split() if not word.startswith(("width=", "steps=", "name="))]
    try:
        assert cli.main([*words, *small]) == 0
    finally:
        sys.modules.pop(name, None)
    cells = store.load("out").cells
    assert set(cells["status"]) == {"ok"}
    for column in ("param_movement", "ntk_change", "feature_movement", "lambda_max_init", "test_error"):
        assert cells[column].notna().all(), column
    layers = store.load("out").layers
    assert set(layers["role"]) >= {"input", "hidden", "output"}
    assert layers["movement_spectral"].notna().all()
