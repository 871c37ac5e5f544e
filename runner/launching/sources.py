"""The user's own code in a sweep: which files it is in, and whether they are what trained earlier cells.

A cell is told by its config, which names code and does not hold it.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from runner.errors import UserError
from runner.grid.cells import Cells
from runner.grid.instantiate import resolve
from runner.store import launches, read_table
from runner.store.arrow import arrow_mask, is_in


def targets_of(cells: Cells) -> list[str]:
    """Return what the configs of cells call by ``_target_``."""
    texts = cells.column("settings").values
    return sorted({target for text in texts for target in _targets(json.loads(text))})


def sources(cells: Cells) -> dict[str, dict[str, str]]:
    """Return the file and its digest of each target that is neither this package's nor installed."""
    found = {}
    for target in targets_of(cells):
        if target.startswith("runner."):
            continue
        with suppress(UserError, OSError):  # what cannot be called is refused elsewhere
            module = sys.modules.get(resolve("", {"_target_": target}).__module__)
            path = Path(getattr(module, "__file__", None) or "")
            if path.is_file() and "site-packages" not in path.parts:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                found[target] = {"file": str(path), "digest": digest}
    return found


def changes(store: Path, ids: pa.Array, now: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield a line for each file that is not what it was when cells that are finished were trained.

    Args:
        ids: Ids of the cells that are asked for.
        now: As :func:`sources` gives it.
    """
    if not now:
        return
    rows = read_table(store, "cells", ["cell_id", "launch", "settings"])
    rows = rows.filter(arrow_mask(is_in(rows["cell_id"], ids)))
    for launch in rows["launch"].unique().to_pylist():
        with suppress(UserError):  # a launch whose record is damaged says nothing
            then = launches.read_launch(store, launch).get("sources") or {}
            for target, source in now.items():
                if target in then and then[target]["digest"] != source["digest"]:
                    uses = pc.and_(
                        pc.equal(rows["launch"], launch), pc.match_substring(rows["settings"], f'"{target}"')
                    )
                    if count := pc.sum(uses).as_py():
                        yield (
                            f"{source['file']} has changed since launch {launch} trained {count} of these "
                            "cells, which stay as they are; retry=all trains them again"
                        )


def _targets(section: Any) -> Iterator[str]:
    if isinstance(section, Mapping) and "_target_" in section:
        yield str(section["_target_"])
    parts: Iterable[Any] = section.values() if isinstance(section, Mapping) else section
    for value in parts if isinstance(section, (Mapping, list)) else ():
        yield from _targets(value)
