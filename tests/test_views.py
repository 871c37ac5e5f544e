import json
import re
import zlib

import numpy as np
import pandas as pd
import pytest
from stores import write_cells
from synthetic import LRS, WIDTHS, grid
from vega import compared_with_schema

from runner import load
from runner.analysis.transfer import transfer
from runner.cli import main
from runner.errors import UserError
from runner.views.figures import POINTS
from runner.views.sizes import COLUMN, PAGE

COMMANDS = {
    "phase": (),
    "fit": ("--where", "lr=1", "--metric", "ntk_change,movement_spectral"),
    "curves": ("--where", "lr=1", "--metric", "train_loss,movement_spectral"),
    "transfer": (),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("outputs") / "digits"
    write_cells(path, grid(width=WIDTHS, lr=LRS, parameterization=("ntk", "sp"), seed=(0, 1)))
    return load(path)


@pytest.fixture(scope="module")
def views(store):
    return {
        "phase": store.phase(),
        "fit": store.fit(["ntk_change", "movement_spectral"], where="lr=1"),
        "curves": store.curves(["train_loss", "movement_spectral"], where=["lr=1"]),
        "transfer": store.transfer(),
    }


# -- figures and captions ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def printed(views, tmp_path_factory):
    """Figures of one column, whose charts keep to Vega-Lite's schema, and where their captions are."""
    folder = tmp_path_factory.mktemp("printed")
    with compared_with_schema():
        return {name: (folder / f"{name}.svg", view.save(folder / f"{name}.svg", COLUMN))
                for name, view in views.items()}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_figures_have_their_width_and_the_same_bytes_again(views, printed, tmp_path, name):
    views[name].save(tmp_path / "page.svg", PAGE)
    for path, inches in ((printed[name][0], COLUMN), (tmp_path / "page.svg", PAGE)):
        width = float(re.search(r'width="([\d.]+)"', path.read_text())[1])
        assert 0.75 * inches * POINTS <= width <= inches * POINTS + 0.5
        sizes = [float(size) for size in re.findall(r'font-size="([\d.]+)px"', path.read_text())]
        assert min(sizes) >= 5
        assert np.median(sizes) >= 7
    views[name].save(tmp_path / "again.svg", COLUMN)
    assert (tmp_path / "again.svg").read_bytes() == printed[name][0].read_bytes()


def test_pdf_holds_its_fonts(views, tmp_path):
    views["phase"].save(tmp_path / "a.pdf")
    pdf = (tmp_path / "a.pdf").read_bytes()
    streams = re.findall(rb"stream\n(.*?)\nendstream", pdf, re.DOTALL)
    text = pdf + b"".join(zlib.decompress(part) for part in streams if part[:1] == b"\x78")
    described, embedded = (
        len(re.findall(rb"/FontDescriptor\b", text)),
        len(re.findall(rb"/FontFile[23]?\b", text)),
    )
    assert embedded >= 2  # regular and bold
    assert described >= embedded
    assert len(re.findall(rb"/Type /FontDescriptor", text)) == embedded


@pytest.mark.parametrize("name", COMMANDS)
def test_captions_say_sweep_cells_seeds_and_statistic(printed, name):
    _, caption = printed[name]
    assert caption.name == f"{name}.caption.txt"
    text = caption.read_text()
    assert "Sweep digits: digits, mlp of depth 2, sgd, mse, 200 steps" in text
    assert ("160 cells" if name in ("phase", "transfer") else "20 cells") in text
    assert "2 seeds (0, 1)" in text
    words = {"phase": "majority", "fit": "bootstrap", "curves": "medians", "transfer": "geometric means"}
    assert words[name] in text


def test_caption_of_a_fit_has_the_slopes(views):
    assert re.search(
        r"ntk_change: ntk: -(0\.9\d|1\.0\d) \[-[\d.]+, -[\d.]+\], theory -1", views["fit"].caption
    )


def test_theory_lines_are_drawn(views):
    spec = views["phase"].chart.to_dict()
    dashes = [
        layer["mark"]["strokeDash"] for layer in spec["concat"][0]["layer"] if layer["mark"]["type"] == "line"
    ]
    assert [5, 4] in dashes  # 2 / lambda_max
    assert [2, 2] in dashes  # 4 / lambda_max
    fit = views["fit"].chart.to_dict()["concat"][0]
    guides = [layer for layer in fit["layer"] if layer["mark"].get("strokeDash") == [2, 3]]
    data = views["fit"].chart.to_dict()["datasets"][guides[0]["data"]["name"]]
    slopes = {}
    for series in {row["series"] for row in data}:
        first, last = (row for row in data if row["series"] == series)
        rise = np.log(last["value"] / first["value"]) / np.log(last["x"] / first["x"])
        slopes[series] = round(rise, 3)
    assert slopes == {"ntk": -1.0}  # theory says nothing of sp at a fixed absolute lr


def test_sizes_are_checked(capsys, store, tmp_path):
    assert main(["phase", str(store.path), "--out", str(tmp_path / "a.svg"), "--size", "colum"]) == 2
    assert "--size must be one of" in capsys.readouterr().err
    assert main(["phase", str(store.path), "--out", str(tmp_path / "a.svg"), "--size", "0.1"]) == 2
    assert "must lie between 1 and 40 inches" in capsys.readouterr().err


# -- numbers -----------------------------------------------------------------------------------------


def test_curves_are_medians_and_ranges(store, views):
    table = views["curves"].table
    row = table[
        (table["metric"] == "movement_spectral") & (table["layer"] == "layer1") & (table["step"] == 200)
    ]
    row = row[(row["parameterization"] == "ntk") & (row["width"] == 64)].iloc[0]
    cells = store.cells.query("parameterization == 'ntk' and width == 64 and lr == 1")
    values = [
        store.layers.query("cell_id == @one and layer == 'layer1' and step == 200")[
            "movement_spectral"
        ].item()
        for one in cells["cell_id"]
    ]
    assert row["seeds"] == len(values) == 2
    assert (row["value"], row["low"], row["high"]) == pytest.approx(
        (np.median(values), min(values), max(values))
    )


def test_what_was_not_measured_has_no_curve(store):
    table = store.curves("cka", where="lr=1").table
    assert list(table.columns[-4:]) == ["value", "low", "high", "seeds"]
    assert table.empty


def test_transfer_finds_the_known_drift():
    rows = [
        {"parameterization": name, "width": width, "lr": 2.0**power, "seed": seed, "status": "ok",
         "train_loss": np.exp((power - 4 + slope * np.log2(width / 32)) ** 2 + 0.01 * seed)}
        for name, slope in (("mup", 0), ("sp", 1)) for width in (32, 64, 128, 256)
        for power in range(-1, 9) for seed in (0, 1)
    ]  # fmt: skip
    found = transfer(pd.DataFrame(rows).assign(lr_unit="absolute"))
    drift = found.groupby("parameterization")["drift"].first()
    assert dict(drift) == pytest.approx({"mup": 0, "sp": -1}, abs=1e-9)
    sp = found[found["parameterization"] == "sp"].set_index("width")
    assert list(sp["best_lr"]) == pytest.approx([16.0, 8.0, 4.0, 2.0])
    assert list(sp["low"]) == pytest.approx(list(sp["best_lr"]))
    assert list(sp["drift_low"]) == pytest.approx([-1] * 4)
    assert not sp[["at_end", "too_coarse"]].any(axis=None)


def _losses(best, powers, noise=0.0):
    """Losses exp((log2 lr - best)^2) at each width, for three seeds; it diverges beyond 2^(best + 1.5)."""
    rng = np.random.default_rng(1)
    return pd.DataFrame([
        {"parameterization": "mup", "width": width, "lr": 2.0**power, "seed": seed, "lr_unit": "absolute",
         "status": "ok" if power < center + 1.5 else "diverged",
         "train_loss": np.exp((power - center) ** 2 + noise * rng.standard_normal())}
        for width, center in best.items() for power in powers for seed in range(3)
    ])  # fmt: skip


def test_the_best_rate_lies_between_those_of_the_grid():
    """A drift of 0.1 doublings is no step of the grid at the last width."""
    found = transfer(_losses({32: 1.2, 64: 1.3, 128: 1.4, 256: 1.5}, range(-3, 6)))
    assert list(np.log2(found["best_lr"])) == pytest.approx([1.2, 1.3, 1.4, 1.5])
    assert found["drift"].iloc[0] == pytest.approx(0.1)


def test_a_seed_that_is_still_missing_does_not_hide_the_best_rate():
    losses = _losses({32: 1.2, 64: 1.3, 128: 1.4}, range(-3, 6))
    whole, part = transfer(losses), transfer(losses.drop(losses.index[(losses.seed == 2) & (losses.lr == 2)]))
    assert list(part["best_lr"]) == pytest.approx(list(whole["best_lr"]))
    assert part[["low", "high"]].notna().all(axis=None)


def test_a_grid_too_coarse_for_a_drift_says_so():
    """Steps of four doublings, the next one diverged: one step at the last width would read as a drift."""
    coarse = transfer(_losses({32: 0.5, 64: 0.5, 128: 0.5, 256: 2.7}, range(-4, 9, 4)))
    row = coarse.iloc[0]
    assert np.isnan(row["drift"])
    assert row["too_coarse"]
    noisy = {32: 1.2, 64: 1.3, 128: 1.25, 256: 1.2}
    assert transfer(_losses(noisy, range(-4, 9), noise=0.3)).iloc[0]["too_coarse"]
    assert not transfer(_losses({32: 0, 64: 1, 128: 2, 256: 3}, range(-4, 9))).iloc[0]["too_coarse"]


def test_transfer_says_whether_the_rate_stays_put(store, capsys):
    assert main(["transfer", str(store.path)]) == 0
    out = capsys.readouterr().out
    assert "95 % of seeds" in out
    table = store.transfer().table.drop_duplicates("parameterization").set_index("parameterization")
    assert table["stays_put"].notna().all()
    for name, word in table["stays_put"].items():
        assert re.search(rf"{name} .*[\]-] +{word}", out)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.transfer(where="lr=1"), "lr must have at least 3 values for a best one, got 1"),
        (lambda s: s.transfer("cka"), "--metric must have been measured, got cka"),
        (lambda s: s.transfer(facet="width"), "--facet must not be width or lr"),
        (lambda s: s.curves(), "lr varies"),
        (lambda s: s.curves("ntk", where="lr=1"), "--metric must be one of"),
        (lambda s: s.curves(by="widht", where="lr=1"), "--by must be a column or a group key of the cells"),
    ],
)
def test_mistakes_in_python(store, call, message):
    with pytest.raises(UserError, match=re.escape(message)):
        call(store)


# -- the commands ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_json_and_csv_hold_the_same_table(capsys, store, views, name):
    outputs = []
    for form in ("--json", "--csv"):
        assert main([name, str(store.path), *COMMANDS[name], form]) == 0
        outputs.append(capsys.readouterr().out)
    rows = json.loads(outputs[0])["rows"]
    from io import StringIO

    table = pd.read_csv(StringIO(outputs[1]))
    assert len(rows) == len(table) == len(views[name].table)
    assert list(rows[0]) == list(table.columns)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_terminal_needs_neither_colour_nor_unicode_nor_room(capsys, monkeypatch, store, name, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main([name, str(store.path), *COMMANDS[name]]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= columns


# -- in a notebook -----------------------------------------------------------------------------------


def test_a_view_shows_its_chart(views):
    bundle = views["phase"]._repr_mimebundle_()
    bundle = bundle[0] if isinstance(bundle, tuple) else bundle
    assert any("vegalite" in kind or kind == "text/html" for kind in bundle)
    json.dumps(bundle, allow_nan=False)


def test_a_store_shows_itself(store, tmp_path):
    html = store._repr_html_()
    assert "160 cells" in html
    assert "<svg" in html
    write_cells(tmp_path / "<b>", grid(width=(32, 64), lr=(0.1, 1.0), model__activation=("relu", "tanh")))
    html = load(tmp_path / "<b>")._repr_html_()
    assert "<b>:" not in html
    assert "model.activation varies" in html


def test_report_from_python(store, tmp_path):
    page = store.report(tmp_path / "page.html", where=["parameterization=ntk", "lr=0.1,0.3"])
    assert page.path.stat().st_size == page.size
