"""Many cells as columns: a million points of a grid in tens of megabytes.

A grid has few distinct values per field. Each field is kept as these values and one code per cell, so that
expanding, sorting and hashing a grid is arithmetic on arrays; a :class:`Cell` is made where one is looked at.
"""

from __future__ import annotations

import binascii
import hashlib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa

from runner.grid.cell import FIELDS, ID_VERSION, OPTIONAL, Cell, encoded, imprecise, table_name

_ID_HEX = 20
_ID_CHUNK = 1 << 16


class Column(NamedTuple):
    """One field of many cells.

    Attributes:
        values: Distinct values, in any order.
        codes: Place in ``values``, one per cell; int32.
    """

    values: tuple[Any, ...]
    codes: np.ndarray

    def ranks(self) -> np.ndarray:
        """Return the code that each value would have if they were sorted; None comes first."""
        # The smallest type that holds them: NumPy sorts short integers in linear time.
        ranks = np.empty(len(self.values), np.min_scalar_type(len(self.values)))
        places = sorted(range(len(self.values)), key=lambda place: _orderable(self.values[place]))
        ranks[places] = np.arange(len(self.values))
        return ranks.take(self.codes)

    def recoded(self, place: dict[Any, int]) -> np.ndarray:
        """Return the codes by the places of another set of values, to which missing ones are added."""
        codes = np.array([place.setdefault(value, len(place)) for value in self.values], np.int32)
        return codes.take(self.codes)


class Cells(Sequence[Cell]):
    """Cells in some order, which may repeat; slices are views.

    Args:
        columns: Column of each field, all of one length.
    """

    __slots__ = ("_columns",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = {name: columns[name] for name in FIELDS}

    @classmethod
    def of(cls, cells: Iterable[Cell]) -> Cells:
        """Return cells as columns, in their order."""
        if isinstance(cells, Cells):
            return cells
        cells = list(cells)
        return cls({name: _column(list(map(operator.attrgetter(name), cells))) for name in FIELDS})

    @classmethod
    def product(cls, cell: Cell, axes: Mapping[str, Sequence[Any]]) -> Cells:
        """Return the product of fields' values, the last one varying fastest.

        Args:
            cell: Gives the fields that are no axis.
        """
        shape = tuple(map(len, axes.values()))
        columns = {name: _constant(getattr(cell, name), shape) for name in FIELDS}
        for place, (name, values) in enumerate(axes.items()):
            codes = np.arange(len(values), dtype=np.int32)
            along = codes.reshape([-1 if axis == place else 1 for axis in range(len(shape))])
            columns[name] = Column(tuple(values), np.broadcast_to(along, shape).reshape(-1))
        return cls(columns)

    @classmethod
    def join(cls, parts: Sequence[Cells]) -> Cells:
        """Return the cells of all parts, each once, in the order in which they first come."""
        columns = {}
        for name in FIELDS:
            place: dict[Any, int] = {}
            codes = [part.column(name).recoded(place) for part in parts]
            columns[name] = Column(tuple(place), np.concatenate([np.empty(0, np.int32), *codes]))
        joined = cls(columns)
        return joined.take(np.sort(joined.order(FIELDS))) if len(parts) > 1 else joined

    @classmethod
    def from_arrow(cls, rows: Mapping[str, Any] | pa.Table) -> Cells:
        """Return the cells of rows as :meth:`arrow` gave them, whether or not they are still encoded.

        Args:
            rows: Arrow's arrays by name, with at least the fields of a cell.
        """
        length = len(rows[FIELDS[0]])
        there = rows.column_names if hasattr(rows, "column_names") else rows
        return cls(
            {
                name: _from_arrow(rows[name]) if name in there else _constant(OPTIONAL[name], (length,))
                for name in FIELDS
            }
        )

    def column(self, name: str) -> Column:
        """Return a field, or ``precision``, which follows from several."""
        if name != "precision":
            return self._columns[name]
        width, gamma, dtype = (self._columns[key] for key in ("width", "gamma", "dtype"))
        widths, gammas = (np.array(column.values, float)[column.codes] for column in (width, gamma))
        coarse = imprecise(widths, gammas)
        if not coarse.any():
            return dtype
        values = tuple(dict.fromkeys((*dtype.values, "float64")))
        return Column(values, np.where(coarse, np.int32(values.index("float64")), dtype.codes))

    def __len__(self) -> int:
        return len(self._columns[FIELDS[0]].codes)

    @overload
    def __getitem__(self, place: int) -> Cell: ...
    @overload
    def __getitem__(self, place: slice) -> Cells: ...
    def __getitem__(self, place: int | slice) -> Cell | Cells:
        if isinstance(place, slice):
            return self.take(place)
        return Cell(*(values[codes[place]] for values, codes in self._columns.values()))

    def __iter__(self) -> Iterator[Cell]:
        columns = (map(values.__getitem__, codes.tolist()) for values, codes in self._columns.values())
        return (Cell(*row) for row in zip(*columns, strict=True))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(operator.eq, self, other))

    def take(self, places: np.ndarray | slice) -> Cells:
        """Return the cells at these places, or where a mask of all is true."""
        columns = {}
        for name, (values, codes) in self._columns.items():
            taken = codes[places]
            columns[name] = Column(values, taken) if len(values) > 1 else _constant(values[0], taken.shape)
        return Cells(columns)

    def order(self, names: Sequence[str]) -> np.ndarray:
        """Return the places that sort the cells by some fields; of cells that agree in them, the first."""
        keys = [column.ranks() for column in map(self.column, names) if len(column.values) > 1]
        order = np.lexsort(keys[::-1]) if keys else np.arange(len(self))
        return order.take(self.take(order).starts(names))

    def starts(self, names: Sequence[str]) -> np.ndarray:
        """Return the places at which one of these fields changes, and 0 before all."""
        changed = np.zeros(len(self), bool)
        changed[:1] = True
        for values, codes in map(self.column, names):
            if len(values) > 1:
                changed[1:] |= codes[1:] != codes[:-1]
        return np.flatnonzero(changed)

    def ids(self) -> pa.Array:
        """Return ``cell_id`` of each, as Arrow's strings."""
        texts = self._id_texts()
        found = np.empty((len(self), len(ID_VERSION) + 1 + _ID_HEX), np.uint8)
        found[:] = np.frombuffer(f"{ID_VERSION}-{'0' * _ID_HEX}".encode(), np.uint8)
        for start in range(0, len(self), _ID_CHUNK):
            stop = min(start + _ID_CHUNK, len(self))
            digests = b"".join([hashlib.sha256(text).digest() for text in texts(start, stop)])
            heads = np.frombuffer(digests, np.uint8).reshape(stop - start, -1)[:, : _ID_HEX // 2]
            hexadecimal = np.frombuffer(binascii.hexlify(heads.tobytes()), np.uint8)
            found[start:stop, -_ID_HEX:] = hexadecimal.reshape(stop - start, -1)
        offsets = np.arange(len(self) + 1, dtype=np.int32) * found.shape[1]
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(found)]
        return pa.Array.from_buffers(pa.string(), len(self), buffers)

    def _id_texts(self) -> Callable[[int, int], Iterable[bytes]]:
        """Return what gives the texts that ids are hashes of, by place: :attr:`Cell.cell_id` says which."""
        pieces: list[tuple[list[bytes], np.ndarray]] = []
        before = "{"
        for name in sorted(FIELDS):
            values, codes = self._columns[name]
            if name == "parameterization":
                values = tuple(map(table_name, values))
            if name in OPTIONAL and OPTIONAL[name] in values:  # which is left out
                words = ["" if value == OPTIONAL[name] else f'"{name}":{encoded(value)},' for value in values]
                pieces.append(([f"{before}{text}".encode() for text in words], codes))
                before = ""
                continue
            before += f'"{name}":'
            if len(values) > 1:
                pieces.append(([f"{before}{encoded(value)}".encode() for value in values], codes))
                before = ","
            else:  # the same in every cell: part of the text before the next field that varies
                before += f"{''.join(map(encoded, values))},"
        pieces.append(([f"{before.rstrip(',')}}}".encode()], _constant(None, (len(self),)).codes))

        def texts(start: int, stop: int) -> Iterable[bytes]:
            columns = (map(texts.__getitem__, codes[start:stop].tolist()) for texts, codes in pieces)
            return map(b"".join, zip(*columns, strict=True))

        return texts

    def arrow(self) -> dict[str, pa.Array]:
        """Return every field as Arrow's dictionary-encoded array."""
        arrays = {}
        for name, (values, codes) in self._columns.items():
            # By hand: handed a NumPy array, Arrow imports pandas to look at it.
            indices = pa.Array.from_buffers(
                pa.int32(), len(self), [None, pa.py_buffer(np.ascontiguousarray(codes))]
            )
            arrays[name] = pa.DictionaryArray.from_arrays(indices, pa.array(values))
        return arrays


def _orderable(value: Any) -> tuple[bool, Any]:
    return (value is not None, value)


def _constant(value: Any, shape: tuple[int, ...]) -> Column:
    return Column((value,), np.broadcast_to(np.int32(0), int(np.prod(shape))))


def _column(values: Sequence[Any]) -> Column:
    place: dict[Any, int] = {}
    codes = [place.setdefault(value, len(place)) for value in values]
    return Column(tuple(place), np.array(codes, np.int32))


def _from_arrow(values: pa.Array | pa.ChunkedArray) -> Column:
    if isinstance(values, pa.ChunkedArray):
        values = values.unify_dictionaries().combine_chunks()
    if not pa.types.is_dictionary(values.type):
        values = values.dictionary_encode()
    distinct = values.dictionary.to_pylist()
    if values.null_count:
        distinct.append(None)
    indices = values.indices.fill_null(len(distinct) - 1)
    return Column(tuple(distinct), np.from_dlpack(indices).astype(np.int32))
