"""How a plain network is called and trained: batches of any usual form, or a training function."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from runner.errors import UserError
from runner.numerics.outputs import tensor_of

Loss = Callable[[Any, Any], Tensor]
TARGETS = "labels"
"""Key of the targets in a batch that is a mapping, as transformers have it."""
_SIGN_LIKE = ("adam", "lion", "sign", "rmsprop", "adagrad", "muon", "lamb", "sophia")


def call(model: nn.Module, inputs: Any) -> Any:
    """Call a model on inputs: a mapping gives keywords, a tuple or list several arguments."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def outputs_of(returned: Any) -> Tensor:
    """Return the outputs of a model.

    Raises:
        UserError: If it returned no tensor.
    """
    outputs = tensor_of(returned)
    if outputs is None:
        raise UserError(f"make_model must give modules that return a tensor, got {type(returned).__name__}")
    return outputs


def inputs_of(batch: Any) -> Any:
    """Return what the model is given of a batch on probes.

    Raises:
        UserError: If the batch is of no known form.
    """
    if isinstance(batch, Mapping):
        return {key: value for key, value in batch.items() if key != TARGETS}
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0]
    raise UserError(
        f"batches must hold pairs (inputs, targets) or mappings of keywords, got {type(batch).__name__}; "
        "or give a function that trains the model"
    )


def taken(batches: Iterable[Any], steps: int) -> list[Any]:
    """Return as many batches as there are steps, from the start again where there are fewer.

    Raises:
        UserError: If there are none.
    """
    found = list(itertools.islice(batches, steps))
    if not found:
        raise UserError("batches must hold at least one batch, got none; give a list of (inputs, targets)")
    return list(itertools.islice(itertools.cycle(found), steps))


def loss_of(model: nn.Module, batch: Any, loss: Loss | None) -> Tensor:
    """Return the loss of a batch.

    Args:
        loss: From what the model returns and the targets; by default what the model says itself,
            cross-entropy for targets that are whole numbers and the mean squared error for others.

    Raises:
        UserError: If there is no such loss.
    """
    if isinstance(batch, Mapping):
        if loss is not None:
            return loss(call(model, inputs_of(batch)), batch)
        own = getattr(call(model, batch), "loss", None)
        if own is None:
            raise UserError(
                f"loss must be given for batches without {TARGETS}, got nothing; "
                "add loss=function(outputs, batch)"
            )
        given: Tensor = own
        return given
    inputs, targets = batch
    outputs = call(model, inputs)
    return loss(outputs, targets) if loss is not None else _usual_loss(outputs_of(outputs), targets)


def _usual_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    if targets.is_floating_point():
        if outputs.numel() != targets.numel():
            raise UserError(
                f"targets must have the shape of the outputs, got {tuple(targets.shape)} for "
                f"{tuple(outputs.shape)}; reshape them, or give loss="
            )
        return functional.mse_loss(outputs, targets.reshape(outputs.shape))
    return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def train(
    model: nn.Module,
    optimizer: Callable[[nn.Module], Optimizer],
    batches: Iterable[Any],
    loss: Loss | None,
    after: Callable[[Optimizer], bool],
) -> None:
    """Train on each batch, for as long as a function that is called after each step wants it.

    Raises:
        UserError: If ``optimizer`` returns something else.
    """
    stepper = optimizer(model)
    if not callable(getattr(stepper, "step", None)):
        raise UserError(
            f"optimizer must return a torch optimizer, got {type(stepper).__name__}; "
            "e.g. lambda model: torch.optim.SGD(model.parameters(), lr=0.1)"
        )
    for batch in batches:
        model.train()
        stepper.zero_grad()
        loss_of(model, batch, loss).backward()  # type: ignore[no-untyped-call]
        stepper.step()
        if not after(stepper):
            return


def train_with(
    train: Callable[[nn.Module], object], model: nn.Module, after: Callable[[Optimizer | None], object]
) -> None:
    """Call a training function, and another after each step of an optimizer of the model, else at the end."""
    own = {id(parameter) for parameter in model.parameters()}
    seen = 0

    def hook(stepper: Optimizer, *_: object) -> None:
        nonlocal seen
        if any(id(p) in own for group in stepper.param_groups for p in group["params"]):
            seen += 1
            after(stepper)

    handle = register_optimizer_step_post_hook(hook)
    try:
        train(model)
    finally:
        handle.remove()
    if not seen:
        after(None)


def is_adam(optimizer: Optimizer | None) -> bool | None:
    """Tell whether an optimizer's updates are sign-like, None if nobody knows."""
    names = [kind.__name__.lower() for kind in type(optimizer).__mro__]
    if any(word in name for name in names for word in _SIGN_LIKE):
        return True
    return False if isinstance(optimizer, torch.optim.SGD) else None
