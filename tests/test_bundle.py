"""The bundle of Vega: made once on a machine, and made again where it cannot be kept or was damaged."""

import gzip

import pytest

from runner.views import bundle


@pytest.fixture
def bundled(monkeypatch, tmp_path):
    """What has been bundled, by a stand-in for the two seconds that it takes."""
    asked = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def stand_in(exported):
        asked.append(exported)
        return f"vega; {exported}"

    monkeypatch.setattr("vl_convert.javascript_bundle", stand_in)
    return asked


def in_another_process(exported):
    bundle.packed_vega.cache_clear()
    return bundle.vega(exported)


def test_one_process_bundles_for_all(bundled):
    for _ in range(2):
        assert in_another_process("window.a = 1;") == "vega; window.a = 1;"
        assert in_another_process("window.b = 1;") == "vega; window.b = 1;"
    assert bundled == ["window.a = 1;", "window.b = 1;"]


def test_another_version_is_another_bundle(bundled, monkeypatch):
    in_another_process("a;")
    monkeypatch.setattr(bundle, "version", lambda name: "0.0.1")
    in_another_process("a;")
    assert bundled == ["a;", "a;"]


@pytest.mark.parametrize("damage", [b"", b"\x1f\x8b", None, b"<html>"], ids=["empty", "head", "cut", "other"])
def test_a_damaged_one_is_made_again(bundled, tmp_path, damage):
    in_another_process("a;")
    (file,) = (tmp_path / "cache" / "regime-runner").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-6] if damage is None else damage)
    assert in_another_process("a;") == "vega; a;"
    assert file.read_bytes() == whole
    flipped = bytearray(gzip.compress(b"vega; a;" * 100))
    flipped[20] ^= 0xFF
    file.write_bytes(flipped)
    assert in_another_process("a;") == "vega; a;"


def test_where_nothing_can_be_kept_the_script_is_there(bundled, tmp_path, capsys):
    (tmp_path / "cache").write_text("a file where the folder should be")
    for _ in range(2):
        assert in_another_process("a;") == "vega; a;"
    assert bundled == ["a;", "a;"]
    assert capsys.readouterr() == ("", "")
