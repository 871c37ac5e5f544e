"""The state of a pack in training, in a safetensors file: what a job that was stopped goes on from.

A file holds numbers and one JSON text, never code: safetensors instead of pickle. It is named after the
cells of the pack, so that any later launch that trains the same pack finds it, and carries a digest of its
content. One that does not fit (another version, another device, damage) is not used: the pack starts over.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from runner.errors import UserError
from runner.grid.cell import Cell
from runner.preemption import Stopped
from runner.store.files import atomic
from runner.version import __version__

_log = logging.getLogger(__name__)
FOLDER = "checkpoints"
_FORMAT = "3"


@dataclass(frozen=True, slots=True)
class State:
    """A pack between two steps.

    Attributes:
        step: Optimizer steps done; what is measured at this step is still to be measured.
        seconds: Wall time so far.
        active: Places in the pack of the cells that are still training.
        rows: What has been recorded, plain values.
        tensors: Parameters, optimizer state, batch order, guesses and peaks of the active cells.
    """

    step: int
    seconds: float
    active: Sequence[int]
    rows: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


@dataclass
class Checkpoint:
    """The checkpoint of one pack.

    Attributes:
        store: Folder of the store.
        cells: Cells of the pack, in order.
        device: Device that the pack trains on.
        minutes: Time between two checkpoints; None for one only when told to stop.
        stop: Says whether the job was told to stop.
        launch: Who trains.
        own: Go on only with what this launch left, for its cells are to be trained anew.
    """

    store: Path
    cells: Sequence[Cell]
    device: torch.device
    minutes: float | None = None
    stop: Callable[[], object] = bool
    launch: str = ""
    own: bool = False
    _saved_at: float = field(default_factory=time.monotonic, init=False)

    @property
    def path(self) -> Path:
        """Where it is kept."""
        names = "\n".join(cell.cell_id for cell in self.cells)
        return self.store / FOLDER / f"{hashlib.sha256(names.encode()).hexdigest()[:24]}.safetensors"

    def visit(self, step: int, state: Callable[[], State]) -> None:
        """Save the pack if it is time to, or if the job was told to stop.

        Raises:
            Stopped: The job was told to stop.
        """
        stop = bool(self.stop())
        late = self.minutes is not None and time.monotonic() - self._saved_at >= 60 * self.minutes
        if step and (stop or late):
            # A full disk shows when results are written; a missed checkpoint must not end a training.
            with suppress(OSError, UserError):
                self.save(state())
            self._saved_at = time.monotonic()
        if stop:
            raise Stopped

    def save(self, state: State) -> None:
        """Write the state, whole or not at all."""
        tensors = {name: value.detach().cpu().clone().contiguous() for name, value in state.tensors.items()}
        content = {
            "step": state.step,
            "seconds": state.seconds,
            "active": list(state.active),
            "rows": state.rows,
        }
        text = json.dumps(content)
        made = {**self._made_with(), "launch": self.launch}
        metadata = {**made, "state": text, "digest": _digest(text, tensors)}
        with atomic(self.path) as file:
            file.write(save(tensors, metadata))

    def load(self) -> State | None:
        """Return the state to go on from; None if there is none that fits, with a line in the log why."""
        read = read_checkpoint(self.path)
        if read is None:
            if self.path.exists():
                self.give_up("it is damaged")
            return None
        metadata, state = read
        now = self._made_with() | ({"launch": self.launch} if self.own else {})
        changed = [
            f"{name} was {metadata.get(name)} and is {value}"
            for name, value in now.items()
            if metadata.get(name) != value
        ]
        if changed:
            self.give_up(", ".join(changed))
            return None
        return state

    def give_up(self, reason: str) -> None:
        """Say why the pack starts over."""
        _log.warning("%d cells start over, their checkpoint does not fit: %s", len(self.cells), reason)

    def remove(self) -> None:
        """Remove the file: the pack is written."""
        with suppress(OSError):
            self.path.unlink()

    def _made_with(self) -> dict[str, str]:
        """What must be the same for the numbers to be the same."""
        return {
            "format": _FORMAT,
            "runner": __version__,
            "torch": str(torch.__version__),
            "device": self.device.type,
        }


def read_checkpoint(path: Path) -> tuple[dict[str, str], State] | None:
    """Return metadata and state of a checkpoint; None if there is none, or it is not what was written."""
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        text = metadata["state"]
        if metadata["digest"] != _digest(text, tensors):
            return None
        content = json.loads(text)
        state = State(content["step"], content["seconds"], content["active"], content["rows"], tensors)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return metadata, state


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
