"""How wide texts are, so that headings are broken and legends wrapped before anything is drawn."""

import math
import re
from collections.abc import Iterable

# Thousandths of the size, for Helvetica's glyphs, whose widths Arial and Liberation Sans share.
_NARROW = {
    **dict.fromkeys("ijl'|", 222), **dict.fromkeys(" .,:;/\\!fIt[]", 278), **dict.fromkeys("r()-`", 333),
    **dict.fromkeys('"', 355), **dict.fromkeys("cksvxyzJ", 500), **dict.fromkeys("mM", 833),
    **dict.fromkeys("wCDHNRU", 722), **dict.fromkeys("ABEKPSVXY&", 667), **dict.fromkeys("GOQ", 778),
    **dict.fromkeys("FTZ", 611), "W": 944, "@": 1015, "%": 889,
}  # fmt: skip
_USUAL = 556
_BOLD = 1.07
_BROKEN = re.compile(r"[^_]*_+|[^_]+")
"""Parts of a long word."""
_SYMBOL = 21.0
"""Points that the symbol of a legend and the room around a label take."""


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Return the width of a text in points.

    >>> round(text_width("mup", 10), 2)
    19.45
    """
    return sum(_NARROW.get(letter, _USUAL) for letter in text) * size / 1000 * (_BOLD if bold else 1)


def fitting(labels: Iterable[str], room: float, size: float) -> int:
    """Return in how many columns the labels of a legend fit into some points, the rows about equally long.

    >>> fitting(["32", "64", "128", "256", "512"], 120, 7), fitting(["a name as long as the figure"], 20, 7)
    (3, 1)
    """
    widths = [_SYMBOL + text_width(text, size) for text in labels]
    for rows in range(1, len(widths)):
        columns = math.ceil(len(widths) / rows)
        if sum(max(widths[place::columns]) for place in range(columns)) <= room:
            return columns
    return 1


def wrapped(text: str, room: float, size: float) -> list[str]:
    """Return a text in lines no wider than some points.

    It is broken at spaces, a longer word behind an underscore, and what is longer still cut short.

    >>> wrapped("movement spectral, hidden.0 (input)", 80, 8), wrapped("mean_field", 30, 8)
    (['movement spectral,', 'hidden.0 (input)'], ['mean_', 'field'])
    >>> wrapped("anamewithnospaceinit", 60, 8)
    ['anamewithnos…']
    """
    lines: list[str] = []
    for word in text.split():
        parts = [word] if text_width(word, size) <= room else _BROKEN.findall(word)
        for place, part in enumerate(parts):
            longer = part if not lines else f"{lines[-1]}{'' if place else ' '}{part}"
            if lines and text_width(longer, size) <= room:
                lines[-1] = longer
            else:
                lines.append(_shortened(part, room, size))
    return lines


def _shortened(word: str, room: float, size: float) -> str:
    if text_width(word, size) <= room:
        return word
    kept = word
    while len(kept) > 1 and text_width(kept + "…", size) > room:
        kept = kept[:-1]
    return kept + "…"


def letter_of(place: int) -> str:
    """Return the letters of a panel: (a) to (z), then (aa).

    >>> letter_of(0), letter_of(25), letter_of(26)
    ('(a)', '(z)', '(aa)')
    """
    found = ""
    place += 1
    while place:
        place, rest = divmod(place - 1, 26)
        found = chr(ord("a") + rest) + found
    return f"({found})"
