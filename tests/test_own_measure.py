"""A measure of one's own: files outside the package, as the docs show them."""

import sys

from pages import copy_examples

from runner import cli, store


def test_the_example_of_the_docs_is_measured(tmp_path, monkeypatch):
    copy_examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    small = "data.train_size=16 data.test_size=16 data.probe_size=10 width=8 lr=0.1,0.2 steps=2 workers=1"
    words = ["--config-dir", "my_conf", "measure=[basic,feature_rank]", "store=out", *small.split()]
    try:
        assert cli.main(["sweep", *words]) == 0
    finally:
        sys.modules.pop("my_measures", None)
    opened = store.load("out")
    assert opened.cells["feature_rank"].between(1, 8).all()
    assert opened.trace["feature_rank"].notna().all()
    assert cli.main(["phase", "out", "--color", "feature_rank"]) == 0
