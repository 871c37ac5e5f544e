"""How far attention logits moved."""

import torch
from jaxtyping import Int
from torch import Tensor

from runner.layers import record
from runner.measures.snapshot import Measurement, Snapshot
from runner.models import TorchModule
from runner.numerics.logits import ListenToLogits, Logits


def update_logits(now: Snapshot, start: Snapshot) -> Measurement:
    """Return how far attention logits moved on probes, before the softmax, and how far they can be.

    Logits are a sum over the features of a head. Queries and keys that have aligned add up as its size, not
    as its root: where the size grows with width, logits scaled by 1/sqrt(d_head) grow as width^(1/2). Early
    in training little has aligned; the bound tells what logits will scale as.

    Returns:
        ``update_logits``, the RMS change, and ``logits_bound``, the RMS of factor * norm(query) * norm(key)
        (NaN where they are not known), per cell, in the row of the layer that receives what attention
        returns; of a module that is attention as a whole, as torch's, in that of its last. Nothing where
        there is none.

    References:
        Yang et al. (2022), "Tensor Programs V", arXiv 2203.03466, definition 4.1 and appendix D.1.
    """
    before, origin = logits(start)
    changes, bounds = {}, {}
    for (name, after), then in zip(_logits(now).items(), before, strict=True):
        changes[name] = _rms(after.values - then[origin], after.seen)
        bounds[name] = _rms(after.bound, after.seen)
    return Measurement(layers={"update_logits": changes, "logits_bound": bounds} if changes else {})


def _rms(x: Tensor, seen: Tensor) -> Tensor:
    """Return the root mean square per cell of what no mask hides, ``[cell]``."""
    squares = torch.where(seen, x, 0.0).square().flatten(1).sum(1)
    return (squares / seen.flatten(1).sum(1)).sqrt()


def logits(start: Snapshot) -> tuple[tuple[Tensor, ...], Int[Tensor, "cell"]]:
    """Return the logits at init, one tensor per attention, and which of them are each cell's."""
    nothing = start.raw_outputs("probe")[:, :0]
    found, origin = start.shared("logits", lambda: (nothing, *(x.values for x in _logits(start).values())))
    return found[1:], origin


@torch.no_grad()
def _logits(snapshot: Snapshot) -> dict[str, Logits]:
    """The logits of every attention, ``[cell, probe, ...]``, under the name of the layer called next."""
    if isinstance(snapshot.ensemble.model, TorchModule):  # whose layers run inside vmap
        calls = snapshot.probed().calls
        return {call.layer.name: call.logits for call in calls if call.logits is not None}
    found: dict[int, Logits] = {}
    with record() as tape, ListenToLogits(lambda x: found.__setitem__(len(tape), x)):
        snapshot.call(snapshot.ensemble.inputs["probe"])
    return {tape[place].layer.name: x for place, x in found.items() if place < len(tape)}
