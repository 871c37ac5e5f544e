"""Reading files that may lie about themselves: what a header claims is held against what is there.

No reader allocates more than `MOST_BYTES` on the word of a header, and none executes what a file holds.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from runner.errors import UserError

MOST_BYTES = 1 << 30
"""Of one array; CIFAR-10 takes 184 MB."""
_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"


def refuse(rule: str, got: object, path: Path, remedy: str = "download the file again") -> UserError:
    """Return the error for a file: ``data.path must <rule>, got <got> in <path>; <remedy>``."""
    shown = " ".join(str(got).split())
    return UserError(f"data.path must {rule}, got {shown} in {path}; {remedy}")


def check_size(size: int, path: Path) -> None:
    """Raise UserError if an array of this many bytes is more than a data set should need."""
    if size > MOST_BYTES:
        raise refuse(f"hold arrays of at most {MOST_BYTES} bytes", size, path, "give a smaller file")


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, decompressing it if it is gzip's; what goes wrong while it is open is a UserError."""
    try:
        with path.open("rb") as file:
            compressed = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            if compressed:
                with gzip.open(file) as content:
                    yield content  # type: ignore[misc]
            else:
                yield file
    except (OSError, EOFError, zlib.error) as error:
        raise refuse("name a file that can be read", f"{type(error).__name__} ({error})", path) from error


def read_exactly(file: IO[Any], size: int, path: Path) -> bytes:
    """Return the rest of a file, which is to be this many bytes; memory grows only with what is there.

    Raises:
        UserError: If there are more or fewer.
    """
    check_size(size, path)
    content = bytearray()
    while len(content) <= size and (chunk := file.read(_CHUNK)):
        content += chunk
    if len(content) != size:
        got = f"more than {size}" if len(content) > size else len(content)
        raise refuse(f"hold {size} bytes after its header, as that says", got, path)
    return bytes(content)
