"""Which cells of a store need no training."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from runner.store.parts import file_of, read_part, read_table

_ATTEMPTS = 12
_BACKOFF_SECONDS = 0.02


def finished(store: Path, retry_failed: bool = False) -> set[str]:
    """Return the ids of the cells that need no training.

    Args:
        store: Folder of the store; need not exist.
        retry_failed: Whether failed cells are to be trained again.

    Raises:
        UserError: A part is corrupt or from a newer schema.
    """
    import pyarrow.compute as pc

    rows = read_table(store, "cells", ["cell_id", "status"])
    if retry_failed:
        rows = rows.filter(pc.not_equal(rows["status"], "failed"))
    return set(rows["cell_id"].to_pylist())


class Settled:
    """Cells that have a result, kept up to date by reading only the parts that are new.

    Parts of one's own launch are left out, for its shards share no cell; but for the one asked for.

    Args:
        store: Folder of the store.
        launch: Id of one's own launch.
        retry_failed: Whether a failure is no result.
    """

    def __init__(self, store: Path, launch: str, retry_failed: bool = False) -> None:
        self._store, self._own, self._retry_failed = store, f"part-{launch}-", retry_failed
        self._seen: set[tuple[str, int, int]] = set()
        self._status: dict[str, str] = {}

    def skip(self) -> None:
        """Take all parts that are there for read: for who knows their cells already; none of them is kept."""
        for path in (self._store / "cells").glob("part-*.parquet"):
            with suppress(FileNotFoundError):
                self._seen.add((path.name, *file_of(path)))

    def refresh(self, part: str = "") -> dict[str, str]:
        """Return the status by cell.

        Args:
            part: Name of a part that another job of one's own shard may have written.

        Raises:
            UserError: A part is corrupt or from a newer schema.
        """
        for attempt in range(_ATTEMPTS):
            time.sleep(_BACKOFF_SECONDS * attempt)
            try:
                for path in sorted((self._store / "cells").glob("part-*.parquet")):
                    known = path.name.startswith(self._own) and path.name != f"part-{part}.parquet"
                    if not known and (path.name, *file_of(path)) not in self._seen:
                        self._read(path)
                break
            except FileNotFoundError:
                continue  # compacted under our eyes
        return self._status

    def _read(self, path: Path) -> None:
        part = read_part(path, "cells", ["cell_id", "status"])
        for row in part.rows.to_pylist():
            if row["status"] != "failed" or not self._retry_failed:
                self._status[row["cell_id"]] = row["status"]
        self._seen.add((path.name, *part.file))
