"""The coordinate check as a view: how every layer's change scales with width, and which layer is to blame."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.text import Text

from runner.analysis.columns import plain, records
from runner.analysis.coordinates import BOUND, PARTS, Group, Judged, groups_of, judge
from runner.analysis.selection import choose
from runner.errors import UserError
from runner.store import Store
from runner.views import alt
from runner.views.captions import sweep_words
from runner.views.picture import conditions
from runner.views.scales import Scale, log_scale, value_scale
from runner.views.style import DASHES, Layout, concat, layered, legend, rows_of, series_scales
from runner.views.terminal import MISSING, plain_table
from runner.views.view import View

WORDS = {
    "pass": ("PASS", "green"), "fail": ("FAIL", "bold red"),
    "inconclusive": ("inconclusive", "yellow"), "still": ("-", "dim"),
}  # fmt: skip
_RANK = ("fail", "inconclusive", "pass")
_NAMES = dict(zip(PARTS, ("own", "passed on", "total"), strict=True))


def check(store: Store, where: str | Sequence[str] = (), all: bool = False) -> View:
    """Return the coordinate check of a store that ``runner check`` filled: is the network mu-P?

    Args:
        where: Conditions that choose cells, ``parameterization=mup`` or ``width=64,128,256``.
        all: Whether to take the cells of all launches, not only those of the newest.

    Raises:
        UserError: If the cells lack what is judged.
    """
    where = conditions(where)
    cells = choose(store, where, all)
    groups = groups_of(cells, store.layers)
    across = groups[0].key if groups else "width"
    return check_view(groups, sweep_words(cells, store.config, where, (across, "optimizer")))


def check_view(groups: Sequence[Group], what: str) -> View:
    """Return the verdicts on some groups as a view; ``asked["verdict"]`` is that of all together.

    Args:
        what: Which networks they are, for the caption.

    Raises:
        UserError: If there is nothing to judge.
    """
    if not groups:
        raise UserError("the check must have networks that trained a step, got none; see what failed")
    judged = [judge(group.points, group.adam, group.steps, group.key) for group in groups]
    key = groups[0].key
    labels = [group.label for group in groups]
    tables = [
        pd.concat([frame.assign(group=label) for label, frame in zip(labels, frames, strict=True)])
        for frames in ([one.layers for one in judged], [one.checks for one in judged])
    ]
    points = pd.concat([group.points.assign(group=group.label) for group in groups], ignore_index=True)
    verdict = min((one.verdict for one in judged), key=_RANK.index)
    sentences = [sentence(label, one) for label, one in zip(labels, judged, strict=True)]
    return View(
        tables[0].reset_index(drop=True),
        f"Coordinate check: RMS change of every layer's outputs on probes against {key}, what its own weight "
        f"did at its present input, what it passed on, and the total. {what} Points are geometric means over "
        f"seeds at the last step, bars their range. {' '.join(sentences)}",
        lambda layout: _chart(points, tables[0], labels, key, layout),
        points["layer"].nunique(),
        lambda out: _print(labels, judged, out),
        {
            "verdict": verdict,
            "groups": [_summary(label, one) for label, one in zip(labels, judged, strict=True)],
        },
        {"checks": tables[1]},
    )


def sentence(label: str, judged: Judged) -> str:
    """Return the verdict on a group in words."""
    layers = judged.layers["verdict"]
    word, _ = WORDS[judged.verdict]
    note = f" {judged.note[:1].upper()}{judged.note[1:]}." if judged.note else ""
    if judged.blame:
        return f"{label}: {word}. To blame is {judged.blame.layer}: {judged.blame.words}.{note}".replace(
            "?.", "?"
        )
    if judged.verdict == "pass":
        count = int((layers == "pass").sum())
        return f"{label}: {word}. All {count} layers change by the same amount at any {judged.key}."
    open_ = records(judged.layers[layers == "inconclusive"])
    if not open_:
        return f"{label}: {word}.{note}" if note else f"{label}: {word}. No layer changes."
    needs = "; ".join(dict.fromkeys(f"{row['layer']} needs {row['note']}" for row in open_[:3]))
    return f"{label}: {word}. {needs}{'; ...' if len(open_) > 3 else ''}.{note}"


def _summary(label: str, judged: Judged) -> dict[str, Any]:
    blame = judged.blame
    guilty = {} if blame is None else {
        "layer": blame.layer, "layers": list(blame.layers), "kind": blame.kind, "power": blame.power,
        "why": blame.words,
    }  # fmt: skip
    return {"group": label, "verdict": judged.verdict, "note": judged.note, "blame": guilty or None}


def _print(labels: Sequence[str], judged: Sequence[Judged], out: Console) -> None:
    """Print a table per group: layers downwards, the slopes of the parts across; then the verdicts."""
    for label, one in zip(labels, judged, strict=True):
        view = plain_table(label)
        view.add_column("layer", header_style="dim", overflow="fold")
        for name in _NAMES.values():
            view.add_column(name, justify="right", no_wrap=True, header_style="dim")
        view.add_column("verdict", no_wrap=True, header_style="dim")
        for row in records(one.layers):
            word, style = WORDS[row["verdict"]]
            texts = [_slope(row, part) for part in PARTS]
            if plain(row.get(BOUND)) is not None:  # of logits, which have neither of the first two
                texts[:2] = Text("bound", style="dim"), _slope(row, BOUND)
            view.add_row(str(row["layer"]), *texts, Text(word, style=style))
        out.print(view)
        out.print()
    bounded, key = any(BOUND in one.layers for one in judged), judged[0].key
    limit = "CompleteP" if key == "depth" else "maximal update"
    for label, one in zip(labels, judged, strict=True):
        out.print(Text(sentence(label, one), style=WORDS[one.verdict][1].removeprefix("bold ")))
    out.print(
        f"slopes of log change against log {key}, 0 under {limit} (what is passed on: at most 0), and half "
        "of their 95 % intervals; at the first step or the last, whichever decides"
        + ("; bound: of the logits' size where queries and keys are parallel" if bounded else ""),
        style="dim",
    )


def _slope(row: dict[str, Any], part: str) -> Text:
    """Return a slope and half of its interval, coloured by its own verdict."""
    slope, low, high = (plain(row.get(name)) for name in (part, f"{part}_low", f"{part}_high"))
    if slope is None:
        return Text(MISSING)
    text = f"{slope:+.2f}" + ("" if low is None else f" ±{max(high - slope, slope - low):.2f}")
    style = "" if row.get(f"{part}_verdict") != "fail" else "red"
    return Text(text, style=style)


def _chart(
    points: pd.DataFrame, layers: pd.DataFrame, labels: Sequence[str], key: str, layout: Layout
) -> Any:
    """Return one panel per layer: a colour per part, dashes per group."""
    rows = _lines(points)
    failing = set(layers.loc[layers["verdict"] == "fail", "layer"])
    names = points.sort_values("layer_index")["layer"].drop_duplicates()
    shown = [name for name in names if (rows["layer"] == name).any()]
    scales = log_scale(rows["size"], key), value_scale(rows[["value", "low", "high"]].stack(), "RMS change")
    panels = [
        _panel(
            rows[rows["layer"] == name],
            name + (": FAIL" if name in failing else ""),
            labels,
            key,
            scales,
            layout,
        )
        for name in shown
    ]
    return concat(panels, layout)


def _lines(points: pd.DataFrame) -> pd.DataFrame:
    """Return the geometric mean and the range over seeds of every part, at the last step of each size."""
    keys = ["group", "layer_index", "layer", "size"]
    last = points["step"] == points.groupby(["group", "size"])["step"].transform("max")
    long = points[last].melt([*keys, "seed"], [*PARTS], "part", "value")
    logs = np.log(pd.to_numeric(long["value"]).astype(float).where(lambda value: value > 0))
    long = long.assign(value=logs)[np.isfinite(logs)]
    found = long.groupby([*keys, "part"])["value"].agg(value="mean", low="min", high="max", seeds="size")
    found[["value", "low", "high"]] = np.exp(found[["value", "low", "high"]])
    rows: pd.DataFrame = found.reset_index()
    return rows.assign(part=rows["part"].map(_NAMES))


def _panel(
    rows: pd.DataFrame, title: str, labels: Sequence[str], key: str, scales: tuple[Scale, Scale],
    layout: Layout,
) -> Any:  # fmt: skip
    scale = series_scales([*_NAMES.values()], ordered=False)["color"]
    names = legend(scale.domain, layout, symbolType="stroke", symbolStrokeWidth=2, symbolOpacity=1)
    color = alt.Color("part:N", scale=scale, legend=names)
    dashes = alt.Scale(domain=list(labels), range=[DASHES[place % 6] for place in range(len(labels))])
    # Long enough for a dash to be one.
    dash_legend = legend(labels, layout, columns=1, symbolSize=300) if len(labels) > 1 else None
    dash = alt.StrokeDash("group:N", scale=dashes, legend=dash_legend)
    x = scales[0].encode(alt.X, "size")
    base = alt.Chart(rows_of(rows[["group", "part", "size", "value", "low", "high", "seeds"]]))
    base = base.encode(x=x, color=color)
    y, low = (scales[1].encode(alt.Y, field) for field in ("value", "low"))
    tooltip = [alt.Tooltip("group:N"), alt.Tooltip("part:N"), alt.Tooltip("size:N", title=key)]
    tooltip += [alt.Tooltip("value:Q", format=".3~g"), alt.Tooltip("seeds:Q")]
    bars = base.mark_rule(strokeWidth=1, opacity=0.5).encode(y=low, y2=alt.Y2("high"))
    line = base.mark_line(strokeWidth=1.6).encode(y=y, strokeDash=dash)
    dots = base.mark_point(filled=True, size=18, opacity=1).encode(y=y, tooltip=tooltip)
    return layered([bars, line, dots], title, *layout.size(usual=170))
