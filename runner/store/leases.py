"""Leases: which cells are being trained now, so that launches into one store at once train none twice.

::

    launches/<id>/leases/<shard>-<unique>.cells   ids, one a line; locked by the process that trains them
    launches/<id>/leases/shard-<shard>            locked by the job that runs the shard

The lock is the lease. It ends with the process, in whatever way that ends, so that no lease has to expire.
Where the file system knows no locks there are no leases: cells may be trained twice, and still count once.
"""

import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from runner.store.files import disk_errors, locked, try_lock

FOLDER = "leases"


@dataclass(frozen=True, slots=True)
class Leases:
    """The leases of one shard."""

    store: Path
    launch: str
    shard: int

    @contextmanager
    def take(self, cell_ids: Collection[str]) -> Iterator[set[str]]:
        """Hold, in this block, those of the cells that nobody else is training, and yield them."""
        folder = self.store / "launches" / self.launch / FOLDER
        with locked(self.store, ".leases.lock") as can_lock:
            taken = self.taken_by_others() if can_lock else set()
            free = {cell_id for cell_id in cell_ids if cell_id not in taken}
            path = folder / f"{self.shard}-{uuid.uuid4().hex}.cells"
            with disk_errors(folder):
                folder.mkdir(exist_ok=True)
                file = path.open("xb")
                file.write("\n".join(sorted(free)).encode())
                file.flush()
            try_lock(file)
        try:
            yield free
        finally:
            with suppress(OSError):
                path.unlink()
            file.close()

    def taken_by_others(self) -> set[str]:
        """Return the cells that other processes train; other shards of this launch share no cell with it."""
        taken: set[str] = set()
        for path in (self.store / "launches").glob(f"*/{FOLDER}/*.cells"):
            launch, shard = path.parts[-3], path.name.partition("-")[0]
            if launch == self.launch and shard != str(self.shard):
                continue
            with suppress(FileNotFoundError), path.open("rb") as file:
                if try_lock(file) is False:
                    taken.update(file.read().decode("utf-8", "replace").split())
                else:  # its process was killed
                    path.unlink()
        return taken


@contextmanager
def presence(path: Path) -> Iterator[None]:
    """Hold a lock in this block by which others see that the process lives."""
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        try_lock(file)
        yield


def is_present(path: Path) -> bool | None:
    """Return whether a process holds the lock of :func:`presence`; None where that cannot be seen."""
    try:
        with path.open("rb") as file:
            held = try_lock(file)
    except OSError:
        return None
    return None if held is None else not held
