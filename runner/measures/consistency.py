"""Whether the layers of a model account for all of its gradient."""

from collections.abc import Mapping

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.func import functional_call

from runner.data import Dataset
from runner.errors import UserError
from runner.layers import Pairing, allocate, parameters_of
from runner.measures.kernel import contract
from runner.measures.passes import forward
from runner.measures.probe_kernel import project
from runner.measures.requirements import EXACT_OUTPUTS
from runner.models import is_built_in
from runner.models.check import BATCHED, RANDOM

_TOLERANCE = 1e-6
_SAMPLES = 5
_VECTORS = 8
"""Random combinations of the outputs that stand for them where they are many."""
PEEPING = (
    "what it predicts at a position depends on later symbols, which it is to predict; mask them, as "
    "model=transformer does with model.causal=true"
)


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
    are therefore tried once, with one random cell in float64, before they are trained. One that continues a
    text must also predict every symbol from those before it alone.

    Args:
        model: Built; the cells that it has are lost.

    Raises:
        UserError: If the two differ, derivatives fail, or a prediction depends on later symbols.
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
    passed = forward(model, parameters, x)
    together, again = (functional_call(model, parameters, (several,))[:, :1] for _ in range(2))
    _require_equal(together, again, RANDOM)
    _require_equal(passed.outputs, together, BATCHED)
    if dataset.vocabulary is not None:
        _require_causal(model, parameters, x, dataset.vocabulary)
    if passed.outputs.shape[2] > EXACT_OUTPUTS:
        passed = project(passed, _VECTORS)
    outputs, leaves = passed.outputs, passed.leaves
    expected, used = 0.0, set[str]()
    _require_derivatives(model, parameters, x)
    for k in range(outputs.shape[2]):
        gradients = torch.autograd.grad(
            outputs[0, 0, k], list(leaves.values()), retain_graph=True, allow_unused=True
        )
        used |= {path for path, g in zip(leaves, gradients, strict=True) if g is not None}
        squares = sum(float(g.square().sum()) for g in gradients if g is not None)
        expected += squares / outputs.shape[2]
    if unused := [path for path in leaves if path not in used]:
        raise UserError(
            f"model must use all of its parameters, got {unused[0]} on which no output depends; "
            "call its layer in forward, or leave it out"
        )
    found = float(contract(passed, Pairing(), precise=False)[0, 0, 0, 0, 0])
    if abs(found - expected) > _TOLERANCE * abs(expected):
        raise UserError(
            f"model must use its parameters by calling their layers only, got a kernel of {found:.6g} from "
            f"the layers and {expected:.6g} from the gradient; call every layer, check jacobians of your own"
        )


def _require_causal(
    model: nn.Module, parameters: dict[str, Tensor], x: Int64[Tensor, "1 1 position"], vocabulary: int
) -> None:
    """Raise UserError if what is predicted at a position depends on later symbols."""
    positions = x.shape[2]
    for place in {positions // 2, positions - 1} - {0}:
        other = torch.cat([x[:, :, :place], (x[:, :, place:] + 1) % vocabulary], 2)
        before, after = (
            functional_call(model, parameters, (symbols,)).unflatten(2, (positions, -1))[:, :, :place]
            for symbols in (x, other)
        )
        _require_equal(before, after, PEEPING)
