"""A paper as an experiment's YAML has it: citation, finding, published figures, and how each is measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.errors import UserError
from runner.grid.rules import number, shown, unknown_key
from runner.schema import TABLES
from runner.views.pictures import PICTURES, picture_of

_PAPER = {"cite", "finding", "published", "figure"}
_JUDGED = ("value", "within", "above", "below", "rival")
_FIGURE = {"what", "source", "from", "only", *_JUDGED}
_OF_PICTURE = {"table", "row", "take", "column", "over"}
"""Which number of a picture's tables is meant."""
_OF_TABLE = {"where", "rows", "take", "share", "mean", "rank", "against", "within_key"}
PER_CELL = {"mean": "mean", "largest": "max", "smallest": "min", "last": "last", "first": "first"}
"""What ``take`` makes of the rows of a cell, to pandas' name of it."""
STATISTICS = ("share", "mean", "rank")


@dataclass(frozen=True, slots=True)
class Published:
    """A number that a paper published, or derives, and how it is measured.

    Attributes:
        what: What it is of, in words.
        source: Where the paper says so: figure, table, equation or section.
        origin: The command whose table has it, ``fit``, or a table of the store, ``trace``.
        how: What the command is asked for and which number is taken; see the recipe on papers.
        value: The published number; None where the paper gives a bound.
        low: Lower end of what agrees with it; None where there is none.
        high: Upper end.
        rival: What the number would be if the paper were wrong, where that is one number.
        only: Conditions ``key=value`` without which the number is not judged: it is of other data.
    """

    what: str
    source: str
    origin: str
    how: Mapping[str, Any]
    value: float | None
    low: float | None
    high: float | None
    rival: float | None
    only: Sequence[str]


@dataclass(frozen=True, slots=True)
class Paper:
    """What a paper found, as far as it is put to the test.

    Attributes:
        name: Of its experiment.
        cite: Authors, year and place.
        finding: What it found, in a few words.
        published: The numbers.
        figure: A picture in the shape of the published one: ``from``, its command, and what that is asked.
    """

    name: str
    cite: str
    finding: str
    published: Sequence[Published]
    figure: Mapping[str, Any] | None = None


def read_paper(name: str, section: Any) -> Paper:
    """Return the paper of an experiment's section ``paper``.

    Raises:
        UserError: If a key is unknown or missing, or a value breaks its rule.
    """
    found = _mapping("paper", section, name)
    _require_known("paper", found, _PAPER, name)
    entries = found.get("published")
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise UserError(f"paper.published must be a list of figures, got {shown(entries)}, in {name}.yaml")
    published = [_read_published(f"paper.published[{place}]", one, name) for place, one in enumerate(entries)]
    figure = found.get("figure")
    if figure is not None:
        figure = _mapping("paper.figure", figure, name)
        if figure.get("from") not in PICTURES:
            raise _must("paper.figure.from", f"be one of {', '.join(PICTURES)}", figure.get("from"), name)
        _require_known("paper.figure", figure, {"from", "inches"} | _options(figure["from"]), name)
    cite, finding = (_text(f"paper.{key}", found.get(key), name) for key in ("cite", "finding"))
    return Paper(name, cite, finding, published, figure)


def _read_published(key: str, entry: Any, name: str) -> Published:
    """Return one number of the list."""
    found = _mapping(key, entry, name)
    origin = found.get("from")
    if origin not in (*PICTURES, *TABLES):
        raise _must(f"{key}.from", f"be one of {', '.join((*PICTURES, *TABLES))}", origin, name)
    how = {one: value for one, value in found.items() if one not in _FIGURE}
    if origin in TABLES:
        _require_known(key, found, _FIGURE | _OF_TABLE, name)
        if len([one for one in STATISTICS if one in how]) != 1 or ("rank" in how) != ("against" in how):
            raise _must(key, f"have one of {', '.join(STATISTICS)}, rank with against", ", ".join(how), name)
        takes: Sequence[str] = tuple(PER_CELL)
    else:
        options = _OF_PICTURE | _options(origin)
        _require_known(key, found, _FIGURE | options, name)
        _require_known(f"{key}.over", _mapping(f"{key}.over", found.get("over") or {}, name), options, name)
        takes = ("first", "last")
    if "take" in how and how["take"] not in takes:
        raise _must(f"{key}.take", f"be one of {', '.join(takes)}", how["take"], name)
    judged = {
        one: None
        if found.get(one) is None
        else number(f"{key}.{one}", found[one], "a number", f"in {name}.yaml")
        for one in _JUDGED
    }
    low, high = _band(key, judged, name)
    what, source = (_text(f"{key}.{one}", found.get(one), name) for one in ("what", "source"))
    only = found.get("only") or ()
    only = (only,) if isinstance(only, str) else tuple(map(str, only))
    return Published(what, source, str(origin), how, judged["value"], low, high, judged["rival"], only)


def _options(picture: str) -> set[str]:
    """Return the names of a picture's options."""
    return {parameter.name for parameter, *_ in picture_of(picture).parameters()}


def _band(key: str, judged: Mapping[str, float | None], name: str) -> tuple[float | None, float | None]:
    """Return the ends of what agrees: around a value, above or below a bound."""
    value, within, above, below = (judged[one] for one in ("value", "within", "above", "below"))
    if value is not None and within is not None and within > 0 and above is None and below is None:
        return value - within, value + within
    if within is None and (above is None) != (below is None):
        return above, below
    raise _must(
        key, "have a value and how far from it agrees (within), or a bound (above or below)",
        ", ".join(one for one in _JUDGED if judged[one] is not None) or "none of them", name,
    )  # fmt: skip


def _mapping(key: str, value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _must(key, "be a map of keys", value, name)
    return {str(one): item for one, item in value.items()}


def _text(key: str, value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise _must(key, "be text", value, name)
    return value


def _require_known(key: str, found: Mapping[str, Any], known: set[str], name: str) -> None:
    for one in found:
        if one not in known:
            raise UserError(f"{unknown_key(f'{key}.{one}', found[one], known)}, in {name}.yaml")


def _must(key: str, rule: str, value: Any, name: str) -> UserError:
    return UserError(f"{key} must {rule}, got {shown(value)}, in {name}.yaml")
