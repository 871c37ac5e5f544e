"""Parquet tables of images: a column of labels, and the pixels as one column each or as one of lists."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from runner.data.files.limits import check_size, refuse
from runner.data.labelled import Samples

LABELS = ("label", "class", "target")
PIXELS = "hold numbers or lists of numbers as pixels"


def read(path: Path) -> Samples:
    """Return the samples of a table, ``[row, pixel]``.

    Args:
        path: A file with one column named ``label``, ``class`` or ``target``, and either a column per pixel,
            in order, or one column with a list of pixels; channels come first, then rows.

    Raises:
        UserError: If it is no Parquet file, or its columns are others.
    """
    try:
        with pq.ParquetFile(path) as file:
            groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
            # A byte each, at the least.
            check_size(sum(g.column(i).num_values for g in groups for i in range(g.num_columns)), path)
            table = file.read()
    except (OSError, pa.ArrowException) as error:
        raise refuse("name a Parquet file", error, path) from error
    place = next((i for i, name in enumerate(table.column_names) if name in LABELS), None)
    if place is None or table.num_columns < 2:
        rule = f"hold a column {' or '.join(LABELS)} beside pixels"
        raise refuse(rule, _few(table.column_names), path, "rename the columns")
    pixels = table.remove_column(place)
    if pixels.num_columns == 1 and pa.types.is_nested(pixels.schema.types[0]):
        inputs = _lists(pixels.column(0), path)
    else:
        inputs = np.column_stack([_numbers(column, path) for column in pixels.columns])
    return Samples(inputs, table.column(place).to_numpy())


def _lists(column: pa.ChunkedArray, path: Path) -> NDArray[Any]:
    """One row per list."""
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise refuse(PIXELS, kind, path, "decode the images first")
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(lengths) != 1 or not lengths[0]:
        raise refuse("hold lists of one length", f"lengths {_few(lengths)}", path, "pad or drop the others")
    return _numbers(pc.list_flatten(column), path).reshape(len(column), lengths[0])


def _numbers(column: pa.ChunkedArray, path: Path) -> NDArray[Any]:
    """Missing ones become NaN."""
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise refuse(PIXELS, column.type, path, "decode the images first")
    numbers: NDArray[Any] = column.to_numpy()
    return numbers


def _few(values: Sequence[object]) -> str:
    shown = ", ".join(map(str, values[:5]))
    return shown + (", ..." if len(values) > 5 else "")
