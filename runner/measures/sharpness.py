"""The curvature of the loss where training is."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from runner import layers, losses
from runner.lanczos import top_eigenvalue
from runner.measures.kernel import TOP, separable
from runner.measures.snapshot import Measurement, Snapshot

_MAX_STEPS = 60


def sharpness(now: Snapshot, start: Snapshot) -> Measurement:
    """Return the top eigenvalue of the lr-weighted Hessian D^(1/2) H D^(1/2) of the train loss.

    H is the Hessian in raw parameters and D = gamma^2 r^(-c) the factors of their learning rates under SGD,
    so that lr * sharpness = 2 is the edge of stability in every parameterization, and ``lambda_max`` its
    Gauss-Newton part for the MSE. By Lanczos iteration on Hessian-vector products, from J^T u, with u the
    kernel's own top eigenvector, where it is known: for the MSE that is one of the Gauss-Newton part.

    Args:
        now: The moment.
        start: Init; its guess at the kernel's eigenvector is taken.

    Returns:
        ``sharpness`` per cell.

    References:
        Cohen et al. (2021), "Gradient descent on neural networks typically occurs at the edge of stability",
        arXiv 2103.00065.
    """
    vectors = start.guesses.get(TOP)
    which = None
    if not now.step:  # cells that differ in lr alone are alike
        few, which = now.distinct()
        now, vectors = now.some(few), None if vectors is None else vectors[few]
    top = torch.cat(
        [
            _sharpness(piece, None if vectors is None else vectors[index])
            for index, piece in now.pieces(*separable(now))
        ]
    )
    return Measurement(trace={"sharpness": top if which is None else top[which]})


def _sharpness(now: Snapshot, vector: Float[Tensor, "cell _"] | None) -> Float[Tensor, "cell"]:
    """Top eigenvalue of the Hessian; the vector is the kernel's."""
    ensemble = now.ensemble
    gamma = ensemble.gamma[:, 0, 0]
    roots = [
        (factor.sqrt() * gamma.view(-1, *(1,) * (factor.dim() - 1))).to(ensemble.dtype)
        for factor in layers.kernel_weights(ensemble.model).values()
    ]
    parameters = {path: value.clone().requires_grad_() for path, value in now.parameters.items()}
    leaves = list(parameters.values())
    f = ensemble.function(functional_call(ensemble.model, parameters, (ensemble.inputs["train"],)), "train")
    loss = losses.LOSSES[ensemble.cells[0].loss](f, ensemble.targets["train"])
    # Cells do not interact, so the gradient of the sum is each cell's own; so is the Hessian.
    gradients = torch.autograd.grad(loss.sum(), leaves, create_graph=True)
    sizes = [leaf[0].numel() for leaf in leaves]

    def weigh(parts: Iterable[Tensor]) -> Tensor:
        return torch.cat([(part * root).flatten(1) for part, root in zip(parts, roots, strict=True)], 1)

    guess = None
    if vector is not None:
        guess = weigh(torch.autograd.grad(f, leaves, vector.view_as(f), retain_graph=True))

    def product(vector: Tensor) -> Tensor:
        parts = torch.split(vector, sizes, 1)
        weighted = [
            part.view_as(root_of) * root for part, root_of, root in zip(parts, leaves, roots, strict=True)
        ]
        products = torch.autograd.grad(
            gradients, leaves, weighted, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return weigh(products)

    like = torch.cat([leaf.detach().flatten(1) for leaf in leaves], 1)
    return top_eigenvalue(product, like, guess=guess, max_steps=_MAX_STEPS)
