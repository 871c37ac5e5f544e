"""Which cells of a store need no training."""

from contextlib import suppress
from pathlib import Path

import pyarrow.compute as pc

from runner.store.parts import attempts, file_of, read_part, read_table


def finished(store: Path, retry: str | None = None, launch: str | None = None) -> set[str]:
    """Return the ids of the cells that need no training.

    Args:
        retry: ``failed``: failed cells need it; ``all``: all do but those that the launch has trained.
        launch: The launch that asks, if it has begun.

    Raises:
        UserError: A part is corrupt or from a newer schema.
    """
    rows = read_table(store, "cells", ["cell_id", "status", "launch"])
    if retry == "failed":
        rows = rows.filter(pc.not_equal(rows["status"], "failed"))
    if retry == "all":
        rows = rows.filter(pc.equal(rows["launch"], launch or ""))
    return set(rows["cell_id"].to_pylist())


class Settled:
    """Cells that have a result, kept up to date by reading only the parts that are new.

    Parts of ``launch``, the one that asks, are left out, because its shards share no cell. With ``retry``
    ``failed``, failed cells have no result; with ``all``, those of other launches have none.
    """

    def __init__(self, store: Path, launch: str, retry: str | None = None) -> None:
        self._store, self._own, self._retry = store, f"part-{launch}-", retry
        self._seen: set[tuple[str, int, int]] = set()
        self._status: dict[str, str] = {}

    def skip(self) -> None:
        """Never read the parts that are there now: their cells are known to the caller."""
        for path in (self._store / "cells").glob("part-*.parquet"):
            with suppress(FileNotFoundError):
                self._seen.add((path.name, *file_of(path)))

    def refresh(self, part: str = "") -> dict[str, str]:
        """Return the status by cell.

        Args:
            part: Name of a part of the launch that is read nonetheless: an earlier job of the same shard
                may have written it.

        Raises:
            UserError: A part is corrupt or from a newer schema.
        """
        for _ in attempts():
            try:
                for path in sorted((self._store / "cells").glob("part-*.parquet")):
                    known = path.name.startswith(self._own) or self._retry == "all"
                    if (not known or path.name == f"part-{part}.parquet") and (
                        path.name,
                        *file_of(path),
                    ) not in self._seen:
                        self._read(path)
                break
            except FileNotFoundError:
                continue  # a compaction removed it meanwhile
        return self._status

    def _read(self, path: Path) -> None:
        part = read_part(path, "cells", ["cell_id", "status"])
        for row in part.rows.to_pylist():
            if row["status"] != "failed" or self._retry != "failed":
                self._status[row["cell_id"]] = row["status"]
        self._seen.add((path.name, *part.file))
