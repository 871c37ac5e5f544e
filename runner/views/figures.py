"""Specifications to files: SVG, PNG and PDF by vl-convert, without a browser and with bytes that repeat."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import vl_convert

from runner.errors import UserError, unknown
from runner.views import alt
from runner.views.style import LEAST_HEIGHT, Layout

SUFFIXES = (".svg", ".png", ".pdf")
POINTS = 72.0
"""Points an inch; a unit of the specification is one."""
PNG_SCALE = 300 / POINTS
"""Pixels a point: 300 dots an inch."""
_FONT = 7
_LEAST_PANEL, _BEST_PANEL = 34.0, 105.0
_LABELS, _HEADING, _LEGEND = 30.0, 26.0, 40.0
"""About what labels beside a panel take, what stands above and below it, and legends and axis titles."""
_NEAR = 0.1
"""Share of the width that one correction sets right."""
_HIGHEST = 9.0 * POINTS
"""A page of text holds no higher figure."""

_REFERENCE = re.compile(rb"\b(\d+) 0 R\b")
_STREAM = b"\nstream\n"


def write_figure(chart: alt.ConcatChart, path: Path, inches: float | None = None) -> None:
    """Write a figure in the format of its suffix: svg, png or pdf.

    The same chart gives the same bytes.

    Args:
        inches: Width; a chart that is wider is made smaller as a whole. None leaves it as it is.

    Raises:
        UserError: If the suffix is another one or the file cannot be written.
    """
    check_figure_path(path)
    _write(path, render(chart, path.suffix.lower(), inches))


def write_text(path: Path, text: str) -> None:
    """Write a text beside a figure; raises as :func:`write_figure` does."""
    _write(path, text.encode())


def _write(path: Path, content: bytes) -> None:
    # Beside it first: a full disk must not cost the figure that was there.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise UserError(
            f"--out must be a file that can be written, got {path}: {error.strerror}; choose another place"
        ) from error


def check_figure_path(path: Path) -> None:
    """Refuse a figure of unknown format, before anything is drawn."""
    if path.suffix.lower() not in SUFFIXES:
        raise unknown("--out suffix", path.suffix, SUFFIXES)


def fitted_layout(make: Callable[[Layout], Any], panels: int, inches: float, across: int = 1) -> Layout:
    """Return the layout that fills a width: panels side by side of a size that reads well, none too small.

    Args:
        make: From a layout to the chart.
        panels: How many it has.
        inches: Width of the figure.
        across: How many panels belong side by side: a row holds whole rows of so many, or whole parts of one.
    """
    target = inches * POINTS
    choices = sorted(
        (columns for columns in range(1, min(8, panels) + 1) if not columns % across or not across % columns),
        key=lambda columns: _badness(columns, panels, target),
    )
    for columns in choices:
        panel = max(_LEAST_PANEL, (target - _LABELS) / columns - 8)
        layout = Layout(panel, columns, _FONT, True, target, _highest(panels, columns))
        for _ in range(2):
            off = target - _size_of(_svg(make(layout)))[0]
            panel = max(_LEAST_PANEL, int(2 * (panel + off / columns)) / 2)
            layout = replace(layout, panel=panel)
            if abs(off) < _NEAR * target:  # the width goes with the panels': it is right now
                break
        if panel > _LEAST_PANEL or off > -0.05 * target or columns == 1:
            break
    return layout


def _highest(panels: int, columns: int) -> float:
    """Return how high a panel may be for a figure that a page holds."""
    return max(LEAST_HEIGHT, (_HIGHEST - _LEGEND) / math.ceil(panels / columns) - _HEADING)


def _badness(columns: int, panels: int, target: float) -> float:
    """Return how far an arrangement is from panels of a good size, without gaps, as high as a page."""
    width, rows = (target - _LABELS) / columns - 8, math.ceil(panels / columns)
    beyond = rows * (max(LEAST_HEIGHT, 0.6 * width) + _HEADING) + _LEGEND - _HIGHEST
    small = max(0.0, _LEAST_PANEL - width)
    empty = (rows * columns - panels) / (rows * columns)
    return abs(math.log(max(width, 1) / _BEST_PANEL)) + empty + small + max(0.0, beyond) / 100


def render(chart: alt.ConcatChart, suffix: str, inches: float | None = None) -> bytes:
    """Return the figure in the format of a suffix, no wider than some inches."""
    svg = _svg(chart)
    width, height = _size_of(svg)
    if inches is not None and width > inches * POINTS:
        scale = inches * POINTS / width
        svg = svg.replace(_tag(width, height), _tag(round(scale * width, 2), round(scale * height, 2)), 1)
    if suffix == ".svg":
        return svg.encode()
    if suffix == ".png":
        return bytes(vl_convert.svg_to_png(svg, scale=PNG_SCALE, ppi=72))
    return _canonical_pdf(vl_convert.svg_to_pdf(svg))


def specification(chart: Any) -> dict[str, Any]:
    """Return the Vega-Lite specification of a chart, with its data however many rows they have.

    It is not compared with Vega-Lite's schema, which takes about as long as all else: tests do that.
    """
    with alt.data_transformers.enable("default", max_rows=None):
        found: dict[str, Any] = chart.to_dict(validate=False)
    return found


def _svg(chart: alt.ConcatChart) -> str:
    return _numbered_clips(vl_convert.vegalite_to_svg(specification(chart)))


def _size_of(svg: str) -> tuple[float, float]:
    """Return width and height of an SVG in points."""
    found = re.search(r'<svg[^>]* width="([\d.]+)" height="([\d.]+)"', svg)
    assert found, "vl-convert writes both"
    return float(found[1]), float(found[2])


def _tag(width: float, height: float) -> str:
    return f'width="{width:g}" height="{height:g}"'


def _numbered_clips(svg: str) -> str:
    """Return the SVG with its ids counted from 0: Vega counts on from figure to figure of a process."""
    names: dict[str, str] = {}

    def rename(match: re.Match[str]) -> str:
        return names.setdefault(match[0], f"{match[1]}{len(names)}")

    return re.sub(r"\b(clip|gradient_)\d+\b", rename, svg)


def _canonical_pdf(pdf: bytes) -> bytes:
    """Return the PDF with its objects numbered as they are met from the root.

    The writer's hash maps shuffle the references of a dictionary and the order of the fonts. Only classic
    cross-reference tables are read, which is what vl-convert writes; anything else is returned as it is.
    """
    before, found, table = pdf.rpartition(b"\nxref\n")
    if not found:
        return pdf
    trailer = table.partition(b"trailer")[2]
    offsets = sorted(int(line[:10]) for line in re.findall(rb"^\d{10} \d{5} n", table, re.MULTILINE))
    ends = [*offsets[1:], len(before) + 1]
    bodies: dict[bytes, bytes] = {}
    for start, end in zip(offsets, ends, strict=True):
        number, _, body = pdf[start:end].partition(b" 0 obj\n")
        bodies[number] = _sorted_references(body)
    order = _met_from(trailer, bodies)
    numbers = {number: b"%d" % place for place, number in enumerate(order, start=1)}
    out, places = bytearray(pdf[: offsets[0]]), []
    for number in order:
        places.append(len(out))
        out += numbers[number] + b" 0 obj\n" + _renumbered(bodies[number], numbers)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f\r\n" % (len(places) + 1)
    out += b"".join(b"%010d 00000 n\r\n" % place for place in places)
    trailer = re.sub(rb"/Size \d+", b"/Size %d" % (len(places) + 1), trailer[: trailer.index(b"startxref")])
    return bytes(out + b"trailer" + _renumbered(trailer, numbers) + b"startxref\n%d\n%%%%EOF" % start)


def _met_from(trailer: bytes, bodies: dict[bytes, bytes]) -> list[bytes]:
    """Return the numbers of the objects in the order in which a reader meets them."""
    order: list[bytes] = []
    waiting = _REFERENCE.findall(trailer)
    while waiting:
        number = waiting.pop(0)
        if number not in order:
            order.append(number)
            waiting += _REFERENCE.findall(bodies[number].partition(_STREAM)[0])
    return order


def _renumbered(body: bytes, numbers: dict[bytes, bytes]) -> bytes:
    """Return an object with its references renamed, its stream untouched."""
    head, stream, rest = body.partition(_STREAM)
    return _REFERENCE.sub(lambda match: numbers[match[1]] + b" 0 R", head) + stream + rest


def _sorted_references(body: bytes) -> bytes:
    """Return an object with neighbouring references of a dictionary sorted by their names."""
    head, stream, rest = body.partition(_STREAM)
    lines = re.compile(rb"(?:^ +/\w+ \d+ 0 R\n){2,}", re.MULTILINE)
    return lines.sub(lambda match: b"".join(sorted(match[0].splitlines(keepends=True))), head) + stream + rest
