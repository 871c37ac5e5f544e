"""One optimizer step of a pack: the loss of its cells, its gradient and the update."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from runner import layers
from runner.data.order import Batch
from runner.layers import CompiledSteps, Task
from runner.models.build import has_compiled_form, is_built_in
from runner.models.ensemble import Ensemble, take
from runner.models.mlp import MLP
from runner.numerics import losses
from runner.numerics.operations import Operation, Step
from runner.optim import Flow, Optimizer, has_compiled_steps

_WARM_UP = 3
"""Steps before one is recorded: libraries choose their kernels and find their memory in the first."""


AT_ONCE = 16
"""Steps that compiled code takes in one go at most; losses are followed, and signals heard, after them."""
_HEARD = 2e10
"""Multiplications of a pack until then: some seconds on an old core."""


class Descent:
    """Takes steps with the present cells of an ensemble; after a selection, another one must."""

    at_once = 1
    """How many steps it takes in one go."""
    optimizer: Optimizer

    def __call__(self, batch: Batch) -> Float[Tensor, "cell"]:
        """Take one step, which the optimizer has begun.

        Args:
            batch: What every cell descends on.

        Returns:
            Loss of every cell on its batch before the step.
        """
        raise NotImplementedError

    def several(self, batches: Sequence[Batch]) -> Float[Tensor, "step cell"]:
        """Begin and take a step on each batch; returns the losses before each."""
        found = []
        for batch in batches:
            self.optimizer.begin()
            found.append(self(batch))
        return torch.stack(found)


Origin = Callable[[Batch], Float[Tensor, "#cell sample output"] | None]
"""Raw outputs h_0 at init on a batch, where they are subtracted: f = (h - h_0) / gamma."""


def descent_on(
    ensemble: Ensemble, optimizer: Optimizer, origin: Origin | None = None, *, graphed: bool = True
) -> Descent:
    """Return the fastest way to take steps: without autograd where the model is a dense chain.

    Clipping needs the gradients of all parameters before it changes any, so it is left to autograd. On a
    GPU, steps of this package's own models and optimizers are recorded and replayed.

    Args:
        origin: On any batch that comes; by default only on samples of the training set.
        graphed: Whether to record where that is possible.
    """
    model = ensemble.model
    if origin is None:
        origin = ensemble.origin
    descent: Descent
    sample = ensemble.inputs["train"][0, 0]
    # A class derived from it may compute something else.
    if has_compiled_steps(type(optimizer), vars(optimizer)) and has_compiled_form(model, sample):
        descent = CompiledDescent(ensemble, optimizer, origin)
    elif type(model) is not MLP or optimizer.clip is not None:
        descent = AutogradDescent(ensemble, optimizer, origin)
    else:
        descent = ChainDescent(ensemble, optimizer, origin, model)
    # Code of others may do at a step what a recording would not repeat.
    ours = is_built_in(model) and type(optimizer).__module__.startswith("runner.optim.")
    if graphed and ours and ensemble.device.type == "cuda":
        descent = GraphedDescent(descent)
    return FlowDescent(ensemble, optimizer, descent) if isinstance(optimizer, Flow) else descent


class AutogradDescent(Descent):
    """Steps of any model."""

    def __init__(self, ensemble: Ensemble, optimizer: Optimizer, origin: Origin) -> None:
        self._ensemble, self.optimizer, self._origin = ensemble, optimizer, origin
        self._parameters = list(self._ensemble.parameters.values())
        self._loss = losses.LOSSES[self._ensemble.cells[0].loss]
        # A class derived from one of ours may use what an activation returns in another way.
        self._ours = is_built_in(ensemble.model)

    def __call__(self, batch: Batch) -> Float[Tensor, "cell"]:
        """Take one step; see :class:`Descent`."""
        ensemble = self._ensemble
        x = take(ensemble.inputs["train"], batch.places) if batch.inputs is None else batch.inputs
        with layers.gains_in_weights() if self._ours else nullcontext():
            raw = ensemble.model(x)
        loss = self._loss(ensemble.scaled(raw, self._origin(batch)), ensemble.batch_targets(batch))
        # Cells do not interact, so the gradient of the sum is each cell's own.
        self.optimizer.descend(self._parameters, torch.autograd.grad(loss.sum(), self._parameters))
        return loss.detach()


class ChainDescent(Descent):
    """Steps of a dense chain, each layer updated as soon as its gradient is known.

    Args:
        optimizer: Updates one parameter at a time; must not clip.
    """

    def __init__(self, ensemble: Ensemble, optimizer: Optimizer, origin: Origin, model: MLP) -> None:
        self._ensemble, self.optimizer, self._origin = ensemble, optimizer, origin
        self._flat = model.flat
        shape = ensemble.cells[0]
        self._inputs = model.flat(ensemble.inputs["train"])
        if shape.batch_size is None:
            # What all cells share would be copied for each of them at every step: oneDNN wants dense batches.
            self._inputs = self._inputs.expand(len(ensemble.cells), -1, -1).contiguous()
        self._chain = model.chain(shape.batch_size or self._inputs.shape[1])
        self._slots = {slot.path: slot for slot in optimizer.slots}
        self._parameters = ensemble.parameters
        self._loss, self._loss_gradient = losses.LOSSES[shape.loss], losses.GRADIENTS[shape.loss]

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Float[Tensor, "cell"]:
        """Take one step; see :class:`Descent`."""
        x = take(self._inputs, batch.places) if batch.inputs is None else self._flat(batch.inputs)
        f = self._ensemble.scaled(self._chain.forward(x), self._origin(batch))
        targets = self._ensemble.batch_targets(batch)
        above = self._loss_gradient(f, targets).div_(self._ensemble.gamma)
        for path, gradient in self._chain.backward(above):
            slot, parameter = self._slots[path], self._parameters[path]
            if isinstance(gradient, Tensor):
                self.optimizer.apply(slot, parameter, gradient)
            else:
                self.optimizer.apply_product(slot, parameter, gradient)
        return self._loss(f, targets)


class CompiledDescent(Descent):
    """Steps by compiled code, several in one go.

    Args:
        ensemble: Of a model that has a compiled form.
        optimizer: One that has compiled steps.
    """

    def __init__(self, ensemble: Ensemble, optimizer: Optimizer, origin: Origin) -> None:
        self._ensemble, self.optimizer, self._origin = ensemble, optimizer, origin
        model: Any = ensemble.model
        self._flat = model.flat
        shape = ensemble.cells[0]
        self._train = self._task(Batch())
        inputs = self._train.inputs
        self._steps = CompiledSteps(
            model.lower, ensemble.gamma, inputs.shape[2], shape.batch_size or inputs.shape[1], shape.loss,
            _Update(optimizer, ensemble.parameters),
        )  # fmt: skip
        work = len(ensemble.cells) * self._steps.multiplications
        self.at_once = max(1, min(AT_ONCE, int(_HEARD // max(work, 1))))

    @torch.no_grad()
    def several(self, batches: Sequence[Batch]) -> Float[Tensor, "step cell"]:
        """Begin and take steps; see :class:`Descent`."""
        ahead = self.optimizer.ahead(len(batches))
        places = [batch.places for batch in batches if batch.places is not None]
        inputs = [batch.inputs for batch in batches if batch.inputs is not None]
        scores = [batch.scores for batch in batches if batch.scores is not None]
        if inputs:
            # Fresh samples: one table of all steps, of which each takes its own.
            fresh = Batch(inputs=torch.cat(inputs, 1), scores=torch.cat(scores, 1))
            cells, size = inputs[0].shape[:2]
            own = torch.arange(len(batches) * size).view(len(batches), 1, size).expand(-1, cells, -1)
            return self._steps.fit(self._task(fresh), ahead, own)
        chosen = torch.stack(places) if places else None
        return self._steps.fit(self._train, ahead, chosen)

    def _task(self, batch: Batch) -> Task:
        """What is fitted on a batch."""
        ensemble = self._ensemble
        inputs = ensemble.inputs["train"] if batch.inputs is None else batch.inputs
        targets = ensemble.batch_targets(batch)
        targets = targets.to(ensemble.gamma)  # symbols are counted by numbers of the same type
        return Task(self._flat(inputs), targets, self._origin(batch), ensemble.gamma, ensemble.vocabulary)


class _Update:
    """What an optimizer does with gradients; see :class:`runner.layers.Update`."""

    def __init__(self, optimizer: Optimizer, parameters: Mapping[str, Tensor]) -> None:
        self._optimizer = optimizer
        self._held = {slot.path: (slot, parameters[slot.path].detach()) for slot in optimizer.slots}

    def product(self, path: str, gradient: Operation) -> Sequence[Step]:
        return self._optimizer.compiled_product(*self._held[path], gradient)

    def formed(self, path: str, gradient: Float[Tensor, "cell ..."]) -> Sequence[Step]:
        return self._optimizer.compiled(*self._held[path], gradient)


class GraphedDescent(Descent):
    """Replays a recording of another descent's step: on a GPU, narrow nets run faster than they launch.

    The first steps are taken as they are, on a stream of their own, as a recording asks for; then one is
    recorded as a CUDA graph. Whatever changes from step to step lies in tensors that are overwritten: the
    optimizer's rates, and the places or the samples of the batch.

    References:
        "CUDA Graphs" in PyTorch's notes on CUDA semantics.
    """

    def __init__(self, descent: Descent) -> None:
        self._descent, self.optimizer = descent, descent.optimizer
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._left = _WARM_UP
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch = Batch()
        self._loss = torch.empty(0)

    def __call__(self, batch: Batch) -> Float[Tensor, "cell"]:
        """Take one step; see :class:`Descent`."""
        if self._left:
            self._left -= 1
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                loss = self._descent(batch)
            torch.cuda.current_stream().wait_stream(self._stream)
            return loss
        if self._graph is None:
            self._batch = Batch(*(None if part is None else part.clone() for part in batch))
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._loss = self._descent(self._batch)
        for held, part in zip(self._batch, batch, strict=True):
            if held is not None and part is not None:
                held.copy_(part)
        self._graph.replay()
        return self._loss.clone()


class FlowDescent(Descent):
    """Steps along gradient flow: another descent evaluates the gradient, wherever the integrator goes.

    Args:
        descent: Of the same ensemble and optimizer, which leaves the weights as they are.
    """

    def __init__(self, ensemble: Ensemble, optimizer: Flow, descent: Descent) -> None:
        self._descent, self.optimizer = descent, optimizer
        self._solver = optimizer.solver(list(ensemble.parameters.values()))

    def __call__(self, batch: Batch) -> Float[Tensor, "cell"]:
        """Take one step; see :class:`Descent`."""
        return self._solver.advance(lambda: self._descent(batch))
