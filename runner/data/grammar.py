"""A language of its own: a small seeded grammar of English sentences, so that text needs no file.

What there is to learn, from the nearest to the farthest: spelling, which words follow which, agreement of
subject and verb across an adjective or a relative clause, and which pronoun stands for the last subject.
"""

from typing import NamedTuple, TypeVar

import torch

from runner.numerics.generators import generator

Choice = TypeVar("Choice")
_BLOCK = 4096
"""Draws made at a time."""


class Subject(NamedTuple):
    """Who a sentence is about: its words, whether they are plural, and the pronoun that stands for it."""

    words: str
    plural: bool
    pronoun: str


NAMES = (
    ("Anna", "she"), ("Tom", "he"), ("Clara", "she"), ("Ben", "he"), ("Nora", "she"), ("Emil", "he"),
    ("Ida", "she"), ("Hugo", "he"),
)  # fmt: skip
NOUNS = (
    ("dog", "dogs"), ("girl", "girls"), ("bird", "birds"), ("child", "children"), ("farmer", "farmers"),
    ("horse", "horses"), ("mouse", "mice"), ("baker", "bakers"), ("fox", "foxes"), ("king", "kings"),
    ("goose", "geese"), ("fish", "fish"),
)  # fmt: skip
ADJECTIVES = ("old", "small", "young", "quiet", "brown", "happy", "clever")
ALONE = (
    ("sleeps", "sleep"), ("waits", "wait"), ("sings", "sing"), ("runs", "run"), ("laughs", "laugh"),
    ("is tired", "are tired"), ("has time", "have time"),
)  # fmt: skip
WITH_OBJECT = (
    ("sees", "see"), ("likes", "like"), ("follows", "follow"), ("finds", "find"), ("hears", "hear"),
    ("knows", "know"),
)  # fmt: skip
PLACES = ("in the garden", "near the river", "under the tree", "behind the house", "on the hill")
TIMES = ("today", "every morning", "at night", "in winter")


def write(seed: int, size: int) -> str:
    """Return the first ``size`` characters of the text of a seed; a longer one extends a shorter one.

    The same on every platform: all choices are remainders of whole numbers that torch's generator draws.
    """
    writer = _Writer(seed)
    parts: list[str] = []
    length = 0
    while length < size:
        parts.append(writer.sentence())
        length += len(parts[-1])
    return "".join(parts)[:size]


class _Writer:
    """Writes sentence after sentence, and remembers who the last one was about."""

    def __init__(self, seed: int) -> None:
        self._stream = generator(seed, "text/grammar")
        self._draws: list[int] = []
        self._last: Subject | None = None

    def sentence(self) -> str:
        """Return a sentence and what separates it from the next: a space, or a new line."""
        first = self._subject(may_stand_for=self._last)
        words = self._clause(first)
        if self._once_in(5):
            second = self._subject()
            words = f"{words}, {self._pick(('and', 'but'))} {self._clause(second)}"
        elif self._once_in(6):
            name, pronoun = self._pick(NAMES)
            first = Subject(name, False, pronoun)
            words = f'"{words[0].upper()}{words[1:]}", {self._pick(("says", "thinks"))} {name}'
        self._last = None if self._once_in(6) else first
        end = " " if self._last else "\n"
        return f"{words[0].upper()}{words[1:]}{'!' if self._once_in(12) else '.'}{end}"

    def _clause(self, subject: Subject) -> str:
        """A subject, what it does, and sometimes where or when."""
        if self._once_in(2):
            words = f"{subject.words} {self._pick(ALONE)[subject.plural]}"
        else:
            words = f"{subject.words} {self._pick(WITH_OBJECT)[subject.plural]} {self._noun().words}"
        if self._once_in(3):
            words = f"{words} {self._pick(PLACES)}"
        return f"{words} {self._pick(TIMES)}" if self._once_in(5) else words

    def _subject(self, may_stand_for: Subject | None = None) -> Subject:
        """A pronoun for the last subject, a name, or a noun with or without a relative clause."""
        if may_stand_for and self._once_in(2):
            return may_stand_for._replace(words=may_stand_for.pronoun)
        if self._once_in(3):
            name, pronoun = self._pick(NAMES)
            return Subject(name, False, pronoun)
        noun = self._noun()
        if self._once_in(5):
            verb = self._pick(WITH_OBJECT)[noun.plural]
            return noun._replace(words=f"{noun.words} that {verb} {self._noun().words}")
        return noun

    def _noun(self) -> Subject:
        """A noun with its article, and sometimes an adjective."""
        plural = self._once_in(3)
        adjective = f"{self._pick(ADJECTIVES)} " if self._once_in(3) else ""
        return Subject(f"the {adjective}{self._pick(NOUNS)[plural]}", plural, "they" if plural else "it")

    def _pick(self, choices: tuple[Choice, ...]) -> Choice:
        """The smaller of two places: what comes first is more frequent."""
        return choices[min(self._draw() % len(choices), self._draw() % len(choices))]

    def _once_in(self, count: int) -> bool:
        return self._draw() % count == 0

    def _draw(self) -> int:
        if not self._draws:
            self._draws = torch.randint(1 << 30, (_BLOCK,), generator=self._stream).tolist()[::-1]
        return self._draws.pop()
