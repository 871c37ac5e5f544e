"""Whether the layers of a model account for all of its gradient."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from runner.data import Dataset
from runner.errors import UserError
from runner.layers import allocate, parameters_of
from runner.measures.kernel import empirical_ntk
from runner.measures.passes import forward
from runner.models import is_built_in
from runner.models.check import BATCHED, RANDOM

_TOLERANCE = 1e-6
_SAMPLES = 5


def _require_equal(one: Tensor, other: Tensor, why: str) -> None:
    one, other = one.detach(), other.detach()
    size = float(one.abs().max())
    if float((one - other).abs().max()) > _TOLERANCE * size:
        raise UserError(f"model must compute a function of each sample, got one that does not: {why}")


def _require_derivatives(model: nn.Module, parameters: Mapping[str, Tensor], x: Tensor) -> None:
    """Raise UserError where a first or second derivative of the outputs fails."""
    passed, which = forward(model, parameters, x), "first"
    try:
        leaves = list(passed.leaves.values())
        gradients = torch.autograd.grad(passed.outputs.sum(), leaves, create_graph=True, allow_unused=True)
        which = "second"
        # Through all of the graph: what can be differentiated once says so only where a pass comes by.
        again = [g.square().sum() for g in gradients if g is not None and g.requires_grad]
        if again:
            torch.autograd.backward(again)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"model must have first and second derivatives, got no {which}: {reason}; kernel and curvature "
            "ask for them, use functions of torch that have both"
        ) from error


def check_layers(model: nn.Module, dataset: Dataset) -> None:
    """Raise UserError if the kernel that follows from the layers is not that of the network.

    The kernel of one sample with itself is the squared norm of the gradient. A weight used without calling
    its layer, or a layer that misstates its gradients, makes the two differ; models that are not built in
    are therefore tried once, with one random cell in float64, before they are trained.

    Args:
        model: Built; the cells that it has are lost.

    Raises:
        UserError: If the two differ, or there are no first or second derivatives.
    """
    if is_built_in(model):
        return
    allocate(model, 1, "cpu", torch.float64)
    generator = torch.Generator().manual_seed(0)
    for _, spec, parameter, _ in parameters_of(model):
        draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = draw * max(spec.sigma, 0.1) / spec.fan_in**0.5 + spec.mean
    parameters: dict[str, Tensor] = {path: parameter for path, _, parameter, _ in parameters_of(model)}
    several = dataset.probe.inputs[None, :_SAMPLES]
    x = several[:, :1]
    outputs = functional_call(model, parameters, (x,))
    together, again = (functional_call(model, parameters, (several,))[:, :1] for _ in range(2))
    _require_equal(together, again, RANDOM)
    _require_equal(outputs, together, BATCHED)
    expected, used = 0.0, set[str]()
    _require_derivatives(model, parameters, x)
    for k in range(outputs.shape[2]):
        gradients = torch.autograd.grad(
            outputs[0, 0, k], list(parameters.values()), retain_graph=True, allow_unused=True
        )
        used |= {path for path, g in zip(parameters, gradients, strict=True) if g is not None}
        squares = sum(float(g.square().sum()) for g in gradients if g is not None)
        expected += squares / outputs.shape[2]
    if unused := [path for path in parameters if path not in used]:
        raise UserError(
            f"model must use all of its parameters, got {unused[0]} on which no output depends; "
            "call its layer in forward, or leave it out"
        )
    found = float(empirical_ntk(model, parameters, x)[0, 0, 0])
    if abs(found - expected) > _TOLERANCE * abs(expected):
        raise UserError(
            f"model must use its parameters by calling their layers only, got a kernel of {found:.6g} from "
            f"the layers and {expected:.6g} from the gradient; call every layer, check jacobians of your own"
        )
