"""Derivatives of a chain that are written out equal autograd's, in float64."""

import pytest
import torch
from cells import DIGITS
from test_descent import EXACT, NETS, pack, run_of
from torch import nn

from runner import layers
from runner.layers import ACTIVATIONS, convolution
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


@pytest.mark.parametrize(("size", "stride", "padding", "groups"), [(3, 1, 1, 1), (3, 2, 0, 2), (2, 3, 1, 2)])
def test_a_recorded_convolution_has_torchs_derivatives(size, stride, padding, groups):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 4, 8, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    kernels = torch.randn(6, 4 // groups, size, size, generator=generator, dtype=torch.float64)
    kernels.requires_grad_()

    def all_of(convolve):
        """Outputs, both gradients, and the gradients of their squares: every second derivative."""
        outputs = convolve(images, kernels)
        first = torch.autograd.grad(outputs.square().sum(), (images, kernels), create_graph=True)
        loss = first[0].square().sum() + first[1].pow(3).sum()
        return outputs, *first, *torch.autograd.grad(loss, (images, kernels))

    found = all_of(lambda x, w: convolution.convolve(x, w, stride, padding, groups))
    expected = all_of(lambda x, w: nn.functional.conv2d(x, w, None, stride, padding, 1, groups))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12 * float(other.detach().abs().max()))


def test_gradients_of_kernels_that_nobody_asked_for_are_not_computed(monkeypatch):
    images, kernels = (torch.randn(2, 3, 5, 5, requires_grad=True) for _ in range(2))
    outputs = convolution.convolve(images * 1, kernels, 1, 1, 1)
    monkeypatch.setattr(convolution.grad, "conv2d_weight", None)
    assert torch.autograd.grad(outputs.sum(), images, retain_graph=True)[0].shape == images.shape
    with pytest.raises(TypeError):
        torch.autograd.grad(outputs.sum(), kernels)
