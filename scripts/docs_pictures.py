"""Draw the pictures of the docs, small enough to be compared line by line, with their captions.

runner sweep                                        # the phase diagram's store
runner sweep ... name=lr_transfer                   # as docs/pages/tutorial.md has it
runner sweep +experiment=layer_imbalance            # that of the ready experiments
python scripts/docs_pictures.py [OUTPUTS]           # outputs/ by default
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from xml.etree import ElementTree

import runner

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "pages" / "images"
SVG = "{http://www.w3.org/2000/svg}"
# What only programs read, and what is the default anyway.
_DROPPED = ("role", "class", "version", "pointer-events", "cursor")
_DEFAULTS = {
    "opacity": "1", "fill-opacity": "1", "stroke-opacity": "1", "font-weight": "normal", "stroke-width": "1",
    "x": "0", "y": "0", "x2": "0", "y2": "0", "text-anchor": "start", "transform": "translate(0,0)",
}  # fmt: skip
_INHERITED = (
    "fill", "fill-opacity", "font-size", "font-weight", "stroke", "stroke-dasharray", "stroke-linecap",
    "stroke-linejoin", "stroke-opacity", "stroke-width", "text-anchor",
)  # fmt: skip
_GEOMETRY = ("transform", "d", "x", "y", "x1", "y1", "x2", "y2", "width", "height")


def main() -> None:
    """Draw the pictures of the stores ``default``, ``lr_transfer`` and ``layer_imbalance`` in ``outputs``."""
    runner.load("outputs/default").phase().save(IMAGES / "phase.svg", inches=9)
    runner.load("outputs/lr_transfer").transfer().save(IMAGES / "transfer.svg", inches=6.75)
    runner.load("outputs/layer_imbalance").phase(
        x="model.sigma_weight", y="model.sigma.input", color="kernel_distance"
    ).save(IMAGES / "layer_imbalance.svg", inches=5)
    runpy.run_path(str(ROOT / "docs" / "examples" / "collapse.py"))
    Path("collapse.svg").replace(IMAGES / "collapse.svg")
    for path in sorted(IMAGES.glob("*.svg")):
        path.write_text(compact(path.read_text("utf-8")), encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1024:.0f} KB")


def compact(svg: str) -> str:
    """Return an SVG file that looks the same in a tenth of the bytes, an element a line.

    Coordinates have one decimal. Labels for screen readers go: the page describes the picture as a whole.
    """
    ElementTree.register_namespace("", SVG[1:-1])
    root = ElementTree.fromstring(svg)
    fonts = {element.get("font-family") for element in root.iter() if element.get("font-family")}
    if len(fonts) == 1:
        for element in root.iter():
            element.attrib.pop("font-family", None)
        root.set("font-family", fonts.pop() or "")
    for element in root.iter():
        for name in list(element.attrib):
            if name.startswith("aria-") or name in _DROPPED:
                del element.attrib[name]
            elif name in _GEOMETRY:
                element.set(name, _rounded(element.attrib[name]))
            if _DEFAULTS.get(name) == element.attrib.get(name):
                element.attrib.pop(name, None)
    _shorten(root)
    _share_clips(root)
    _prune(root)
    _hoist(root)
    _prune(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return re.sub(r"(?<=>)(?=<(?!/text|tspan))", "\n", text).replace(" />", "/>") + "\n"


def _shorten(root: ElementTree.Element) -> None:
    """Place texts by x and y, and draw lines as paths, in place of a transform for each."""
    for element in root.iter():
        place = re.fullmatch(r"translate\(([^,()]+),([^,()]+)\)", element.get("transform", ""))
        if element.tag == f"{SVG}text" and place and not {"x", "y"} & set(element.attrib):
            del element.attrib["transform"]
            element.attrib = {"x": place[1], "y": place[2], **element.attrib}
        elif element.tag == f"{SVG}line":
            x, y = place.groups() if place else ("0", "0")
            attributes = element.attrib
            across, down = attributes.pop("x2", "0"), attributes.pop("y2", "0")
            attributes.pop("transform", None)
            element.tag = f"{SVG}path"
            element.attrib = {"d": f"M{x},{y}l{across},{down}", **attributes}


def _share_clips(root: ElementTree.Element) -> None:
    """Keep one of all clip paths that are the same."""
    first: dict[bytes, str] = {}
    same: dict[str, str] = {}
    for parent in root.iter():
        for clip in [child for child in parent if child.tag == f"{SVG}clipPath"]:
            name = clip.attrib.pop("id")
            shape = ElementTree.tostring(clip)
            same[f"url(#{name})"] = f"url(#{first.setdefault(shape, name)})"
            clip.set("id", name)
            if first[shape] != name:
                parent.remove(clip)
    for element in root.iter():
        if "clip-path" in element.attrib:
            element.set("clip-path", same[element.attrib["clip-path"]])


def _hoist(parent: ElementTree.Element) -> None:
    """Write once, on the group, what all of its elements share."""
    for child in parent:
        _hoist(child)
    if parent.tag != f"{SVG}g" or len(parent) < 2:
        return
    for name in _INHERITED:
        values = {child.get(name) for child in parent}
        if len(values) == 1 and None not in values:
            parent.set(name, values.pop() or "")
            for child in parent:
                del child.attrib[name]


def _prune(parent: ElementTree.Element) -> None:
    """Take out what draws nothing, and groups that say nothing."""
    kept: list[ElementTree.Element] = []
    for child in parent:
        _prune(child)
        if child.tag == f"{SVG}g" and not child.attrib and len(child) < 2:
            kept += list(child)
        elif not _draws_nothing(child):
            kept.append(child)
    parent[:] = kept


def _draws_nothing(element: ElementTree.Element) -> bool:
    if element.tag == f"{SVG}g":
        return not len(element)
    return element.get("d", "-") in ("", "M0,0h0v0h0Z") or element.get("display") == "none"


def _rounded(text: str) -> str:
    """Round every number to one decimal."""
    return re.sub(
        r"-?\d+\.\d+(?:e-?\d+)?|-?\d+e-?\d+",
        lambda number: f"{float(number[0]):.1f}".removesuffix(".0"),
        text,
    )


if __name__ == "__main__":
    main()
