"""Specifications to files: SVG, PNG and PDF by vl-convert, without a browser and with bytes that repeat."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import UserError, unknown

if TYPE_CHECKING:
    import altair as alt

SUFFIXES = (".svg", ".png", ".pdf")
PNG_SCALE = 3.0
"""Pixels per unit of the specification, which is a point: 216 dots an inch."""

_REFERENCE = re.compile(rb"\b(\d+) 0 R\b")
_STREAM = b"\nstream\n"


def write_figure(chart: alt.ConcatChart, path: Path) -> None:
    """Write a figure in the format of its suffix: svg, png or pdf.

    The same chart gives the same bytes.

    Raises:
        UserError: If the suffix is another one or the file cannot be written.
    """
    check_figure_path(path)
    content = render(chart, path.suffix.lower())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise UserError(
            f"--out must be a file that can be written, got {path}: {error.strerror}; choose another place"
        ) from error


def check_figure_path(path: Path) -> None:
    """Refuse a figure of unknown format, before anything is drawn."""
    if path.suffix.lower() not in SUFFIXES:
        raise unknown("--out suffix", path.suffix, SUFFIXES)


def render(chart: alt.ConcatChart, suffix: str) -> bytes:
    """Return the figure in the format of a suffix."""
    import vl_convert

    svg = _numbered_clips(vl_convert.vegalite_to_svg(chart.to_json()))
    if suffix == ".svg":
        return svg.encode()
    if suffix == ".png":
        return bytes(vl_convert.svg_to_png(svg, scale=PNG_SCALE, ppi=72))
    return _canonical_pdf(vl_convert.svg_to_pdf(svg))


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
