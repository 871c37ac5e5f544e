"""A picture, declared once: its command, its method of a store and its section of the page follow from it.

A picture is a function from a store to a :class:`runner.views.view.View`. Its signature holds the names and
defaults of its parameters, its docstring says what they mean; what neither can say is declared beside it.
Only a figure needs Altair, so it is imported inside the functions that draw.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from runner.analysis.phase import Axes
    from runner.store import Store
    from runner.views.view import View


@dataclass(frozen=True, slots=True)
class Option:
    """How a parameter is written on the command line.

    Attributes:
        metavar: What stands for its value in the help.
        several: Whether it takes comma-separated names, over repetitions, too.
        read: From the text of a value to the value.

    A parameter that is False by default is a flag without a value.
    """

    metavar: str = "KEY"
    several: bool = False
    read: Callable[[str], Any] = str


COLUMN = Option("COLUMN")
METRICS = Option("M[,M]", several=True)
PIECES = Option("1|2|3|auto")
THRESHOLDS = Option("NAME|FILE")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a section of the page says in short of each panel of the diagram: a column of its first table.

    Attributes:
        heading: Of the column.
        words: By the heading of a panel, :func:`runner.analysis.selection.facet_label`.
        rule: What decides the words, or must be known of them, below the table.
    """

    heading: str
    words: Mapping[str, str]
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """What a section of the page shows.

    Attributes:
        chart: The chart; None where a table says all.
        note: What must be known of its numbers, below it.
        command: What draws it in a terminal; one a line, where there are several.
        head: Headings of its numbers as a table.
        rows: The numbers, each with its interval, as text.
        at: What must stay in view beside the heading: of which cells the chart is, and how verdicts are made.
        lead: What must be read before the chart: of which cells it is, and which of them are the same.
        answers: What it says in short; no more than its numbers do.
    """

    chart: Any
    note: str = ""
    command: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    at: str = ""
    lead: str = ""
    answers: Sequence[Answer] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A picture's section of the page.

    Attributes:
        name: Id of the chart on the page.
        title: Heading.
        text: What the chart shows, in plain text.
        draw: From a store, the cells of the page and its axes to the chart; None leaves the section out, and
            the message of a UserError stands in place of a chart.
        room: In pixels: what axes and labels take beside a panel, then the least and the most width of one.
        lacking: What begins the sentence that gives the reason why there is no chart.
    """

    name: str
    title: str
    text: str
    draw: Callable[[Store, pd.DataFrame, Axes], Part | None]
    room: tuple[int, int, int]
    lacking: str = "Nothing to show"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as a command and a method.

    Attributes:
        make: From a store and the parameters to the view; its name is the command's.
        examples: Command lines.
        options: How its parameters are written, where a name and a KEY do not say it.
    """

    make: Callable[..., View]
    examples: Sequence[str]
    options: Mapping[str, Option] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The command and the method."""
        return self.make.__name__

    @property
    def description(self) -> str:
        """The first sentence of the docstring, as a noun."""
        words = (inspect.getdoc(self.make) or "").partition("\n\n")[0].removeprefix("Return ")
        return " ".join((words[:1].upper() + words[1:]).split())

    def parameters(self) -> list[tuple[inspect.Parameter, Option, str]]:
        """Return the parameters after the store, how each is written, and what it means."""
        _, *found = inspect.signature(self.make).parameters.values()
        meanings = _arguments(inspect.getdoc(self.make) or "")
        options = {"facet": Option("KEY[,KEY]", several=True), "at": Option("M=LEVEL"), **self.options}
        return [(one, options.get(one.name, Option()), meanings.get(one.name, "")) for one in found]


def names(text: str | Sequence[str]) -> tuple[str, ...]:
    """Return comma-separated names, each once; ``none`` is no name.

    >>> names("width, depth,width"), names("none"), names(["width"])
    (('width', 'depth'), (), ('width',))
    """
    parts = text.split(",") if isinstance(text, str) else text
    found = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    return () if found == ("none",) else found


def conditions(where: str | Sequence[str]) -> tuple[str, ...]:
    """Return one or several conditions as several."""
    return (where,) if isinstance(where, str) else tuple(where)


def _arguments(doc: str) -> dict[str, str]:
    """Return what a Google docstring says of each argument, as the help of an option has it."""
    _, _, section = doc.partition("\nArgs:\n")
    section = section.partition("\n\n")[0]
    found = {}
    for name, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
        words = " ".join(text.split()).replace("``", "`").removesuffix(".")
        found[name] = words[:1].lower() + words[1:]
    return found
