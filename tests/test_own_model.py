"""Models of one's own: files outside the package, as the docs show them."""

import re
import sys

import pytest
from pages import ALL, EXAMPLES, copy_examples

from runner import cli, store


@pytest.mark.parametrize("name", ["my_model", "my_net"])
def test_the_example_of_the_docs_trains(name, tmp_path, monkeypatch):
    (line,) = re.findall(rf"^runner (sweep .*{name}\..*)$", ALL, re.MULTILINE)
    assert 7 <= len((EXAMPLES / f"{name}.py").read_text("utf-8").splitlines()) <= 40
    copy_examples(tmp_path)
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
