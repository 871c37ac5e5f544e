"""Text for causal language models: windows of a file, or of a text that the package writes itself."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from runner.data import grammar
from runner.data.dataset import Dataset, Split, at_least
from runner.data.files.limits import opened, refuse
from runner.errors import UserError, unknown
from runner.numerics.generators import generator

MOST_BYTES = 1 << 26
"""Of a file: 67 MB, far more than the windows that a kernel is computed of."""
MOST_SYMBOLS = 1024
"""Of a vocabulary: a network has as many outputs at every position."""
_CONTROL = [*range(9), *range(14, 32), 127]
"""Bytes that no text holds; of the control characters it has tabs, ends of lines and of pages."""


def text(
    seed: int = 0, path: str | None = None, tokens: str = "characters", context: int = 32,
    size: int = 200_000, held_out: float = 0.2,
    train_size: int = 512, test_size: int = 256, probe_size: int = 16,
) -> Dataset:  # fmt: skip
    """Return windows of a text, each position to predict the symbol that follows it.

    The text is divided by position, so that no symbol is in two splits: the training windows lie before the
    last ``held_out`` of it, the test windows in the first half of that, the probes in the second. Windows are
    drawn independently and evenly; more of them extend fewer. There is no second labelling.

    Args:
        seed: Of the windows and, without a file, of the text.
        path: File to read, plain or compressed by gzip; None for a text of :mod:`runner.data.grammar`.
        tokens: What a symbol is, ``characters`` of UTF-8 or ``bytes``. The vocabulary is those that occur.
        context: Symbols of a sample, which sees as many and predicts as many.
        size: Characters of the text that is written; a file is read whole.
        held_out: Share of the text, at its end, for tests and probes.
        train_size: Training windows.
        test_size: Test windows.
        probe_size: Windows on which kernel and features are measured.

    Raises:
        UserError: If there is no such file, it is not text, or a split is too small for its windows.
    """
    at_least("data.context", context, 1, "give a number of symbols")
    if tokens not in _READERS:
        raise unknown("data.tokens", tokens, _READERS)
    number = isinstance(held_out, int | float) and not isinstance(held_out, bool)
    if not number or not 0 < held_out < 1:
        raise UserError(f"data.held_out must be between 0 and 1, got {held_out!r}; e.g. 0.2")
    if path is None:
        at_least("data.size", size, 1, "give a number of characters")
        if size > MOST_BYTES:
            raise UserError(f"data.size must be at most {MOST_BYTES}, got {size}; give a smaller one")
        symbols, vocabulary = _written(seed, size)
    elif not isinstance(path, str) or not path:
        raise UserError(f"data.path must be null or the name of a file, got {path!r}; see the docs on text")
    else:
        symbols, vocabulary = _read(path, tokens)
    kept = len(symbols) - round(held_out * len(symbols))
    middle = (kept + len(symbols)) // 2
    parts = {"train": symbols[:kept], "test": symbols[kept:middle], "probe": symbols[middle:]}
    sizes = {"train": train_size, "test": test_size, "probe": probe_size}
    splits = {}
    for name, part in parts.items():
        places = len(part) - context
        if places < sizes[name]:
            raise UserError(
                f"data.{name}_size must be at most {max(places, 0)}, the windows of data.context + 1 = "
                f"{context + 1} symbols in the {len(part)} of {len(symbols)} that data.held_out leaves for "
                f"{name}, got {sizes[name]}; "
                + ("give a longer text" if path else "raise data.size")
                + " or lower data.context"
            )
        splits[name] = windows(part, context, sizes[name], generator(seed, f"text/{name}"))

    def fresh(count: int, stream: torch.Generator) -> Split:
        return windows(parts["train"], context, count, stream)

    return Dataset(
        splits["train"], splits["test"], splits["probe"],
        task="classification", vocabulary=vocabulary, fresh=fresh,
    )  # fmt: skip


def windows(symbols: Int64[Tensor, "symbol"], context: int, count: int, stream: torch.Generator) -> Split:
    """Return windows drawn evenly from a text: their symbols, and at every position the one that follows.

    Args:
        stream: Where places are drawn from, one after the other.
    """
    first = torch.randint(len(symbols) - context, (count, 1), generator=stream)
    places = first + torch.arange(context + 1)
    drawn = symbols[places]
    return Split(drawn[:, :-1].contiguous(), drawn[:, 1:].contiguous())


@lru_cache(maxsize=4)
def _written(seed: int, size: int) -> tuple[Int64[Tensor, "symbol"], int]:
    codes = np.frombuffer(grammar.write(seed, size).encode("utf-32-le"), np.uint32)
    if codes.min() == codes.max():
        raise UserError(f"data.size must give a text of two different characters, got {size}; raise it")
    return _numbered(codes)


@lru_cache(maxsize=2)
def _read(path: str, tokens: str) -> tuple[Int64[Tensor, "symbol"], int]:
    """Return the symbols of a file as numbers, and how many different ones there are."""
    place = Path(path).expanduser()
    with opened(place) as file:
        content = file.read(MOST_BYTES + 1)
    if not content:
        raise refuse("hold text", "an empty file", place, "name another file")
    if len(content) > MOST_BYTES:
        raise refuse(f"hold at most {MOST_BYTES} bytes", "more", place, "cut the file")
    control = np.isin(np.frombuffer(content, np.uint8), _CONTROL)
    if control.any():
        first = int(control.argmax())
        raise refuse(
            "hold text", f"binary data, byte {content[first]} at {first},", place, "name a text file"
        )
    codes = _READERS[tokens](content, place)
    numbers, vocabulary = _numbered(codes)
    if not 2 <= vocabulary <= MOST_SYMBOLS:
        remedy = "use data.tokens=bytes" if tokens == "characters" and vocabulary > 1 else "name another file"
        raise refuse(
            f"hold from 2 to {MOST_SYMBOLS} different {tokens}", f"{vocabulary} different", place, remedy
        )
    return numbers, vocabulary


def _characters(content: bytes, path: Path) -> NDArray[np.uint32]:
    try:
        decoded = content.decode("utf-8")
    except UnicodeDecodeError as error:
        got = f"bytes that are not UTF-8 ({error.reason} at {error.start})"
        raise refuse("hold text in UTF-8", got, path, "convert it, or use data.tokens=bytes") from error
    return np.frombuffer(decoded.encode("utf-32-le"), np.uint32)


def _bytes(content: bytes, path: Path) -> NDArray[np.uint8]:
    return np.frombuffer(content, np.uint8)


_READERS: dict[str, Callable[[bytes, Path], NDArray[np.uint32] | NDArray[np.uint8]]] = {
    "characters": _characters,
    "bytes": _bytes,
}
"""What a symbol is, and how a file is read as a row of them."""


def _numbered(codes: NDArray[np.uint32] | NDArray[np.uint8]) -> tuple[Int64[Tensor, "symbol"], int]:
    """Return the place of every symbol among those that occur, in order, and how many those are."""
    distinct, numbers = np.unique(codes, return_inverse=True)
    return torch.from_numpy(numbers.astype(np.int64)), len(distinct)
