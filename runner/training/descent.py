"""How the cells of a run take steps: what outputs at init are, also on samples that no split holds."""

import torch
from jaxtyping import Float
from torch import Tensor

from runner.data.order import Batch
from runner.measures.snapshot import Snapshot
from runner.models.descent import Descent, descent_on
from runner.optim import Optimizer


def descent_of(start: Snapshot, optimizer: Optimizer, *, graphed: bool = True) -> Descent:
    """Return the fastest way to take steps, see :func:`runner.models.descent.descent_on`.

    Args:
        start: The pack at init, whose ensemble has the present weights.
        graphed: Whether to record where that is possible.
    """
    return descent_on(start.ensemble, optimizer, OriginOfBatch(start), graphed=graphed)


class OriginOfBatch:
    """Outputs at init of the present cells on batches.

    Of samples that no split holds nobody keeps them. They are computed with the weights of then, once for
    cells that start alike, which see the same samples.
    """

    def __init__(self, start: Snapshot) -> None:
        self._ensemble, self._whole = start.ensemble, start
        self._start: Snapshot | None = None

    def __call__(self, batch: Batch) -> Float[Tensor, "cell sample output"] | None:
        """Return the raw outputs at init, where they are subtracted."""
        if batch.inputs is None or not self._ensemble.offset:
            return self._ensemble.origin(batch)
        if self._start is None:
            self._places, self._which = self._whole.distinct(gamma=False)
            self._start = self._whole.some(self._places)
        with torch.no_grad():
            return self._start.call(batch.inputs[self._places])[self._which]
