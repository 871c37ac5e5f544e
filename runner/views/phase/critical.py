"""The critical learning rate in a phase diagram: theory's lines, and the second axis that they make."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.critical import PLAIN
from runner.analysis.phase import Axes
from runner.views import alt
from runner.views.phase.letters import Letters
from runner.views.scales import Scale
from runner.views.style import INK, PAPER, Layout, rows_of, theme

DASH = [3, 2]
"""Of the line in print."""
CATAPULT = 4.0
"""Up to this lr * lambda_max wide networks catapult instead of diverging, under plain descent."""


def critical_lines(
    part: pd.DataFrame, axes: Axes, letters: Letters, scales: tuple[Any, Any], layout: Layout
) -> tuple[list[Any], list[Any]]:
    """Return the lines of the critical learning rate in a panel, and their labels at its right or in it.

    Args:
        part: The points of the panel.
        letters: Its letters, which the line leaves out in print.
        scales: Channels of its axes.
        layout: In print there is one line, and no label, for the caption says what the dashes mean.

    References:
        Lewkowycz et al., arXiv 2003.02218, for 4 / lambda_max.
    """
    part = part.dropna(subset=["critical"])
    if part.empty:
        return [], []
    x, y = letters.axes
    known = part.groupby(axes.x, observed=True)["critical"].median()
    line = _to_borders(known.index.to_numpy(float), known.to_numpy(float), x)
    sharpness = critical_of(part)
    if layout.paper:
        return _dashed(letters.parted(line), scales, 1.1, DASH, casing=1.4), []
    # Where y is in units of 1/lambda_max already, the first axis says the same.
    second = (part["critical"] != part["critical_sharpness"]).any()
    drawn, tick_labels = _second_axis(line, sharpness, x, y, scales) if second else ([], [])
    if sharpness == PLAIN:
        drawn += _dashed(line.assign(y=CATAPULT / PLAIN * line["y"]), scales, 1.2, [2, 2])
    drawn += _dashed(line, scales, 1.8, [5, 4])
    inside = line[line["y"].between(*y.domain)]
    if inside.empty:
        return drawn, tick_labels
    at_border = inside["x"].iloc[-1] == x.domain[1]
    place: dict[str, Any] = {"align": "left", "dx": 3} if at_border else {"align": "left", "dx": 6, "dy": -12}
    base = alt.Chart(rows_of(inside.iloc[[-1]])).encode(x=scales[0], y=scales[1])
    text = critical_name(part)
    halo = base.mark_text(
        text=text, fontSize=10, stroke=theme("paper"), strokeWidth=4, strokeJoin="round", **place
    )
    return drawn, [*tick_labels, halo, base.mark_text(text=text, fontSize=10, color=theme("ink"), **place)]


def critical_of(part: pd.DataFrame) -> float:
    """Return the critical lr * lambda_max of some points: 2, or more with momentum."""
    return float(part["critical_sharpness"].median())


def critical_name(part: pd.DataFrame) -> str:
    """Return what the line of the critical learning rate is called."""
    return f"{critical_of(part):.3g}/λmax"


def _dashed(
    line: pd.DataFrame, scales: tuple[Any, Any], width: float, dash: Sequence[float], casing: float = 2.2
) -> list[Any]:
    """Return a dashed line over its casing, in pieces where it has some."""
    base = alt.Chart(rows_of(line))
    pieces = {"detail": alt.Detail("piece:N")} if "piece" in line else {}
    return [
        base.mark_line(
            clip=True, stroke=color, strokeWidth=thick, strokeDash=pattern
        ).encode(x=scales[0], y=scales[1], **pieces)
        for color, thick, pattern in ((PAPER, width + casing, [1, 0]), (INK, width, dash))
    ]  # fmt: skip


def _second_axis(
    critical: pd.DataFrame, sharpness: float, x: Scale, y: Scale, scales: tuple[Any, Any]
) -> tuple[list[Any], list[Any]]:
    """Return the second axis of an absolute lr, lr * lambda_max: thin lines in decades off 2, labelled."""
    lines, labels = [], []
    for decade in (-2, -1, 1, 2):
        line = critical.assign(y=critical["y"] * PLAIN / sharpness * 10.0**decade)
        base = alt.Chart(rows_of(line))
        lines.append(
            base.mark_line(
                clip=True, stroke=INK, strokeWidth=0.7, strokeDash=[1, 3]
            ).encode(x=scales[0], y=scales[1])
        )  # fmt: skip
        end = line.iloc[[-1]]
        if end["y"].between(*y.domain).all() and end["x"].iloc[0] == x.domain[1]:
            text = f"{PLAIN * 10.0**decade:g}/λmax"
            mark = alt.Chart(rows_of(end)).mark_text(
                text=text, fontSize=8, color=theme("ink"), align="left", dx=3
            )
            labels.append(mark.encode(x=scales[0], y=scales[1]))
    return lines, labels


def _to_borders(x: np.ndarray, y: np.ndarray, axis: Scale) -> pd.DataFrame:
    """Return a line through the points, carried on straight to the borders of the panel."""
    across, up = np.log(x) if axis.log else x, np.log(y)
    ends = np.log(axis.domain) if axis.log else np.asarray(axis.domain)
    slopes = np.diff(up) / np.diff(across) if len(x) > 1 else np.zeros(1)
    first, last = up[0] + slopes[0] * (ends[0] - across[0]), up[-1] + slopes[-1] * (ends[1] - across[-1])
    return pd.DataFrame({"x": [axis.domain[0], *x, axis.domain[1]], "y": np.exp([first, *up, last])})
