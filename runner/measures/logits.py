"""How far attention logits moved."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from runner.layers import record
from runner.measures.snapshot import Measurement, Snapshot
from runner.models import TorchModule
from runner.numerics.logits import ListenToLogits


def update_logits(now: Snapshot, start: Snapshot) -> Measurement:
    """Return the RMS change of attention logits on probes, before the softmax: of its coordinate check.

    Logits are a sum over the features of a head. Queries and keys that have aligned add up as its size, not
    as its root: where the size grows with width, logits scaled by 1/sqrt(d_head) grow as width^(1/2).

    Returns:
        ``update_logits`` per cell, in the row of the layer that receives what attention returns; of a module
        that is attention as a whole, as torch's, in that of its last. Nothing where there is none.

    References:
        Yang et al. (2022), "Tensor Programs V", arXiv 2203.03466, definition 4.1 and appendix D.1.
    """
    before, origin = logits(start)
    sizes = {}
    for (name, after), then in zip(_logits(now).items(), before, strict=True):
        change = after - then[origin]
        seen = change.isfinite()  # a mask is no logit
        squares = torch.where(seen, change, 0.0).square().flatten(1).sum(1)
        sizes[name] = (squares / seen.flatten(1).sum(1)).sqrt()
    return Measurement(layers={"update_logits": sizes} if sizes else {})


def logits(start: Snapshot) -> tuple[tuple[Float[Tensor, "start ..."], ...], Int[Tensor, "cell"]]:
    """Return the logits at init, one tensor per attention, and which of them are each cell's."""
    nothing = start.raw_outputs("probe")[:, :0]
    found, origin = start.shared("logits", lambda: (nothing, *_logits(start).values()))
    return found[1:], origin


@torch.no_grad()
def _logits(snapshot: Snapshot) -> dict[str, Float[Tensor, "cell probe ..."]]:
    """The logits of every attention, under the name of the layer that is called next."""
    if isinstance(snapshot.ensemble.model, TorchModule):  # whose layers run inside vmap
        calls = snapshot.probed().calls
        return {call.layer.name: call.logits for call in calls if call.logits is not None}
    found: dict[int, Tensor] = {}
    with record() as tape, ListenToLogits(lambda x: found.__setitem__(len(tape), x.detach())):
        snapshot.call(snapshot.ensemble.inputs["probe"])
    return {tape[place].layer.name: x for place, x in found.items() if place < len(tape)}
