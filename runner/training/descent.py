"""One optimizer step of a pack: the loss of its cells, its gradient and the update."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from runner.models import MLP, is_built_in
from runner.models.ensemble import Ensemble, take
from runner.numerics import losses
from runner.optim import Optimizer

_WARM_UP = 3
"""Steps before one is recorded: libraries choose their kernels and find their memory in the first."""

Batch = Int[Tensor, "cell batch"]


@runtime_checkable
class Descent(Protocol):
    """Takes steps with the present cells of an ensemble; after a selection, another one must."""

    def __call__(self, index: Batch | None) -> Float[Tensor, "cell"]:
        """Take one step, which the optimizer has begun.

        Args:
            index: Samples of every cell's batch; all of them if None.

        Returns:
            Loss of every cell on its batch before the step.
        """
        ...


def descent_of(ensemble: Ensemble, optimizer: Optimizer, *, graphed: bool = True) -> Descent:
    """Return the fastest way to take steps: without autograd where the model is a dense chain.

    Clipping needs the gradients of all parameters before it changes any, so it is left to autograd. On a
    GPU, steps of this package's own models and optimizers are recorded and replayed.

    Args:
        graphed: Whether to record where that is possible.
    """
    model = ensemble.model
    descent: Descent
    # A class derived from it may compute something else.
    if type(model) is MLP and optimizer.clip is None:
        descent = ChainDescent(ensemble, model, optimizer)
    else:
        descent = AutogradDescent(ensemble, optimizer)
    # Code of others may do at a step what a recording would not repeat.
    ours = is_built_in(model) and type(optimizer).__module__.startswith("runner.optim.")
    if graphed and ours and ensemble.device.type == "cuda":
        return GraphedDescent(descent)
    return descent


class AutogradDescent:
    """Steps of any model."""

    def __init__(self, ensemble: Ensemble, optimizer: Optimizer) -> None:
        self._ensemble, self._optimizer = ensemble, optimizer
        self._parameters = list(ensemble.parameters.values())
        self._loss = losses.LOSSES[ensemble.cells[0].loss]

    def __call__(self, index: Batch | None) -> Float[Tensor, "cell"]:
        """Take one step; see :class:`Descent`."""
        ensemble = self._ensemble
        raw = ensemble.model(take(ensemble.inputs["train"], index))
        f = ensemble.function(raw, "train", index)
        loss = self._loss(f, take(ensemble.targets["train"], index))
        # Cells do not interact, so the gradient of the sum is each cell's own.
        self._optimizer.descend(self._parameters, torch.autograd.grad(loss.sum(), self._parameters))
        return loss.detach()


class ChainDescent:
    """Steps of a dense chain, each layer updated as soon as its gradient is known.

    Args:
        optimizer: Updates one parameter at a time; must not clip.
    """

    def __init__(self, ensemble: Ensemble, model: MLP, optimizer: Optimizer) -> None:
        self._ensemble, self._optimizer = ensemble, optimizer
        shape = ensemble.cells[0]
        self._inputs = model.flat(ensemble.inputs["train"])
        # What all cells share would be copied for each of them at every step: oneDNN wants dense batches.
        if shape.batch_size is None:
            self._inputs = self._inputs.expand(len(ensemble.cells), -1, -1).contiguous()
        self._chain = model.chain(shape.batch_size or self._inputs.shape[1])
        self._slots = {slot.path: slot for slot in optimizer.slots}
        self._parameters = ensemble.parameters
        self._loss, self._loss_gradient = losses.LOSSES[shape.loss], losses.GRADIENTS[shape.loss]

    @torch.no_grad()
    def __call__(self, index: Batch | None) -> Float[Tensor, "cell"]:
        """Take one step; see :class:`Descent`."""
        targets = take(self._ensemble.targets["train"], index)
        f = self._ensemble.function(self._chain.forward(take(self._inputs, index)), "train", index)
        loss = self._loss(f, targets)
        for path, gradient in self._chain.backward(
            self._loss_gradient(f, targets).div_(self._ensemble.gamma)
        ):
            slot, parameter = self._slots[path], self._parameters[path]
            if isinstance(gradient, Tensor):
                self._optimizer.apply(slot, parameter, gradient)
            else:
                self._optimizer.apply_product(slot, parameter, gradient)
        return loss


class GraphedDescent:
    """Replays a recording of another descent's step: on a GPU, narrow nets run faster than they launch.

    The first steps are taken as they are, on a stream of their own, as a recording asks for; then one is
    recorded as a CUDA graph. Whatever changes from step to step lies in tensors that are overwritten: the
    optimizer's rates and the indices of the batch.

    References:
        "CUDA Graphs" in PyTorch's notes on CUDA semantics.
    """

    def __init__(self, descent: Descent) -> None:
        self._descent = descent
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._left = _WARM_UP
        self._graph: torch.cuda.CUDAGraph | None = None
        self._index: Batch | None = None
        self._loss = torch.empty(0)

    def __call__(self, index: Batch | None) -> Float[Tensor, "cell"]:
        """Take one step; see :class:`Descent`."""
        if self._left:
            self._left -= 1
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                loss = self._descent(index)
            torch.cuda.current_stream().wait_stream(self._stream)
            return loss
        if self._graph is None:
            self._index = None if index is None else index.clone()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._loss = self._descent(self._index)
        if self._index is not None and index is not None:
            self._index.copy_(index)
        self._graph.replay()
        return self._loss.clone()
