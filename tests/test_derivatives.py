"""Derivatives of a chain that are written out equal autograd's, in float64."""

import pytest
import torch
from cells import DIGITS
from test_descent import EXACT, NETS, pack, run_of

from runner import layers
from runner.layers import ACTIVATIONS
from runner.measures.kernel import empirical_ntk_full, kernel_product
from runner.measures.passes import forward
from runner.numerics import losses


def chain_of(activation, net, **changes):
    """An ensemble, a pass of its training set, and the derivatives there."""
    changes = NETS[net] | changes
    changes = changes | {"model": {"activation": activation, **changes.get("model", {})}}
    ensemble = run_of(pack(**changes)).ensemble
    passed = forward(ensemble.model, ensemble.parameters, ensemble.inputs["train"])
    assert layers.is_chain(passed.tape, passed.outputs)
    return ensemble, passed, layers.ChainDerivatives(passed.tape, passed.weights)


def random_like(tensors, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(v.shape, generator=generator, dtype=v.dtype) for k, v in tensors.items()}


def assert_equal(found, expected):
    for path, one in zip(found, expected, strict=True):
        torch.testing.assert_close(found[path], one, rtol=EXACT, atol=EXACT * float(one.abs().max()))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("net", NETS)
def test_products_with_the_jacobian_equal_autograd(activation, net):
    _, passed, derivatives = chain_of(activation, net)
    leaves = list(passed.leaves.values())
    vector = torch.randn(passed.outputs.shape, generator=torch.Generator().manual_seed(1)).to(passed.outputs)
    into = {path: torch.empty_like(leaf) for path, leaf in passed.leaves.items()}
    derivatives.pull(vector, into)
    assert_equal(into, torch.autograd.grad(passed.outputs, leaves, vector, retain_graph=True))
    # <v, J u> = <J^T v, u> for every u and v.
    direction = random_like(passed.leaves)
    expected = sum((into[path] * direction[path]).flatten(1).sum(1) for path in into)
    found = (vector * derivatives.push(direction)).sum((1, 2))
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT * float(expected.abs().max()))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_products_with_the_hessian_equal_autograd(activation, net, loss):
    classes = {"data": DIGITS if net == "ten outputs" else {"linear": 0.0, "standardize": False}}
    ensemble, passed, derivatives = chain_of(activation, net, **classes, loss=loss)
    leaves, targets = list(passed.leaves.values()), ensemble.targets["train"]

    def total(raw):
        return losses.LOSSES[loss](ensemble.function(raw, "train"), targets).sum()

    raw = passed.outputs.detach().requires_grad_()
    gradient = torch.autograd.grad(total(raw), raw, create_graph=True)[0]
    multiply = derivatives.hessian_product(
        gradient.detach(), lambda u: torch.autograd.grad(gradient, raw, u, retain_graph=True)[0]
    )
    direction = random_like(passed.leaves)
    into = {path: torch.full_like(leaf, torch.nan) for path, leaf in passed.leaves.items()}
    multiply(direction, into)
    gradients = torch.autograd.grad(total(passed.outputs), leaves, create_graph=True)
    assert_equal(into, torch.autograd.grad(gradients, leaves, list(direction.values())))


@pytest.mark.parametrize("columns", [None, 5])
@pytest.mark.parametrize("net", NETS)
def test_products_with_the_kernel_are_those_of_the_matrix(net, columns):
    ensemble = run_of(pack(**NETS[net])).ensemble
    x, parameters = ensemble.inputs["train"], dict(ensemble.parameters)
    product, outputs = kernel_product(ensemble.model, parameters, x, columns)
    kernel = empirical_ntk_full(ensemble.model, parameters, x, columns).permute(0, 2, 1, 4, 3)
    matrix = kernel.flatten(1, 2).flatten(2)
    vector = torch.randn(len(matrix), matrix.shape[2], generator=torch.Generator().manual_seed(2)).double()
    torch.testing.assert_close(product(vector), (matrix @ vector[:, :, None])[:, :, 0])
    torch.testing.assert_close(outputs, ensemble.model(x).detach())
