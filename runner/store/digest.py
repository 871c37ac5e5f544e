"""A digest of a part's content: page checksums guard the pages of a Parquet file, nothing guards its footer.

The digest covers names, types and values of all columns and the part's identity. It is kept in the footer,
and is the same however the rows are cut into pages, row groups or batches.
"""

import hashlib
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

KEY = "digest"
_COVERED = (b"schema_version", b"part", b"written", b"supersedes")


class ContentDigest:
    """The digest of rows that are added one table at a time."""

    def __init__(self) -> None:
        self._columns: dict[str, list[hashlib._Hash]] = {}

    def update(self, rows: pa.Table) -> None:
        """Add rows, in order."""
        for field, column in zip(rows.schema, rows.columns, strict=True):
            name = f"{field.name} {field.type}"
            streams = self._columns.setdefault(name, [hashlib.sha256() for _ in range(3)])
            for chunk in column.chunks:
                for stream, content in zip(streams, _bytes_of(chunk), strict=True):
                    stream.update(content)

    def hexdigest(self, metadata: Mapping[bytes, bytes]) -> str:
        """Return the digest of all rows so far and of a footer's metadata."""
        total = hashlib.sha256()
        for name, streams in self._columns.items():
            total.update("\n".join([name, *(stream.hexdigest() for stream in streams), ""]).encode())
        for key in _COVERED:
            total.update(key + b"=" + metadata.get(key, b"") + b"\n")
        return total.hexdigest()


def _bytes_of(values: pa.Array) -> tuple[bytes, bytes, bytes]:
    """Return validity, lengths and data of an array; the data of a null are taken for zero."""

    def raw(array: pa.Array) -> bytes:
        array = pa.concat_arrays([array])  # a copy, which starts where its buffer does
        width = array.type.byte_width
        return bytes(memoryview(array.buffers()[1])[: len(array) * width]) if len(array) else b""

    valid = raw(pc.is_valid(values).cast(pa.int8()))
    if pa.types.is_string(values.type):
        filled = pc.fill_null(values, "")
        text = "".join(filled.to_pylist()).encode("utf-8", "surrogatepass")
        return valid, raw(pc.binary_length(filled)), text
    if pa.types.is_boolean(values.type):
        return valid, b"", raw(pc.fill_null(values, False).cast(pa.int8()))
    return valid, b"", raw(pc.fill_null(values, 0))
