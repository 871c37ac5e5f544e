"""Whether the layers of a model account for all of its gradient."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from runner.data import Dataset
from runner.errors import UserError
from runner.layers import allocate, parameters_of
from runner.measures.kernel import empirical_ntk
from runner.models import is_built_in

_TOLERANCE = 1e-6


def check_layers(model: nn.Module, dataset: Dataset) -> None:
    """Raise UserError if the kernel that follows from the layers is not that of the network.

    The kernel of one sample with itself is the squared norm of the gradient. A weight used without calling
    its layer, or a layer that misstates its gradients, makes the two differ; models that are not built in
    are therefore tried once, with one random cell in float64, before they are trained.

    Args:
        model: Built; the cells that it has are lost.

    Raises:
        UserError: If the two differ.
    """
    if is_built_in(model):
        return
    allocate(model, 1, "cpu", torch.float64)
    generator = torch.Generator().manual_seed(0)
    for _, spec, parameter, _ in parameters_of(model):
        draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = draw * max(spec.sigma, 0.1) / spec.fan_in**0.5 + spec.mean
    parameters: dict[str, Tensor] = {path: parameter for path, _, parameter, _ in parameters_of(model)}
    x = dataset.probe.inputs[None, :1]
    outputs = functional_call(model, parameters, (x,))
    expected = 0.0
    for k in range(outputs.shape[2]):
        gradients = torch.autograd.grad(
            outputs[0, 0, k], list(parameters.values()), retain_graph=True, materialize_grads=True
        )
        expected += float(sum(g.square().sum() for g in gradients)) / outputs.shape[2]
    found = float(empirical_ntk(model, parameters, x)[0, 0, 0])
    if abs(found - expected) > _TOLERANCE * abs(expected):
        raise UserError(
            f"model must use its parameters by calling their layers only, got a kernel of {found:.6g} from "
            f"the layers and {expected:.6g} from the gradient; call every layer, check jacobians of your own"
        )
