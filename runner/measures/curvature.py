"""The curvature of the loss where training is."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from runner import layers
from runner.layers import Direction
from runner.measures.kernel import TOP, search_pieces
from runner.measures.passes import Pass, forward
from runner.measures.snapshot import Measurement, Snapshot
from runner.numerics import losses
from runner.numerics.lanczos import top_eigenvalue

Pull = Callable[[Tensor, Direction], None]
Multiply = Callable[[Direction, Direction], None]
Loss = Callable[[Float[Tensor, "cell sample output"]], Tensor]

_MAX_STEPS = 60


def sharpness(now: Snapshot, start: Snapshot) -> Measurement:
    """Return the top eigenvalue of the lr-weighted Hessian D^(1/2) H D^(1/2) of the train loss.

    H is the Hessian in raw parameters and D = gamma^2 k r^(-c) the factors of their learning rates under SGD,
    so that lr * sharpness = 2 is the edge of stability in every parameterization, and ``lambda_max`` its
    Gauss-Newton part for the MSE. By Lanczos iteration on Hessian-vector products, from J^T u, with u the
    kernel's own top eigenvector, where it is known: for the MSE that is one of the Gauss-Newton part.

    Args:
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
            for index, piece in search_pieces(now)
        ]
    )
    return Measurement(trace={"sharpness": top if which is None else top[which]})


def _sharpness(now: Snapshot, vector: Float[Tensor, "cell _"] | None) -> Float[Tensor, "cell"]:
    """Top eigenvalue of the Hessian; the vector is the kernel's."""
    ensemble = now.ensemble
    passed = forward(ensemble.model, now.parameters, ensemble.inputs["train"], factored=False)
    gamma = ensemble.gamma[:, 0, 0]
    roots = {
        path: (factor.sqrt() * layers.per_cell(gamma, factor.dim())).to(ensemble.dtype)
        for path, factor in layers.kernel_weights(ensemble.model).items()
    }

    def loss(raw: Float[Tensor, "cell sample output"]) -> Tensor:
        f = ensemble.function(raw, "train")
        # Cells do not interact, so the derivatives of the sum are each cell's own.
        return losses.LOSSES[ensemble.cells[0].loss](f, ensemble.targets["train"]).sum()

    chain = layers.is_chain(passed.tape, passed.outputs)
    pull, multiply = (_of_chain if chain else _of_graph)(passed, loss)
    sizes = [leaf[0].numel() for leaf in passed.leaves.values()]
    like = passed.outputs.new_empty(1, sum(sizes)).expand(len(gamma), -1)

    def parts(flat: Tensor) -> dict[str, Tensor]:
        split = zip(passed.leaves.items(), torch.split(flat, sizes, 1), strict=True)
        return {path: part.view_as(leaf) for (path, leaf), part in split}

    def weighed(write: Callable[[dict[str, Tensor]], None]) -> Tensor:
        flat = torch.empty_like(like, memory_format=torch.contiguous_format)
        write(views := parts(flat))
        for path, view in views.items():
            view.mul_(roots[path])
        return flat

    def product(flat: Tensor) -> Tensor:
        direction = {path: part * roots[path] for path, part in parts(flat).items()}
        return weighed(lambda into: multiply(direction, into))

    guess = None
    if vector is not None:
        guess = weighed(lambda into: pull(vector.view(passed.outputs.shape), into))
    return top_eigenvalue(product, like, guess=guess, max_steps=_MAX_STEPS)


def _of_chain(passed: Pass, loss: Loss) -> tuple[Pull, Multiply]:
    """What writes J^T times a vector, and the Hessian times a direction."""
    raw = passed.outputs.detach().requires_grad_()
    gradient = torch.autograd.grad(loss(raw), raw, create_graph=True)[0]

    def curvature(change: Tensor) -> Tensor:
        return torch.autograd.grad((gradient * change).sum(), raw, retain_graph=True)[0]

    derivatives = layers.ChainDerivatives(passed.tape, passed.weights)
    return derivatives.pull, derivatives.hessian_product(gradient.detach(), curvature)


def _of_graph(passed: Pass, loss: Loss) -> tuple[Pull, Multiply]:
    """The same by autograd."""
    leaves = list(passed.leaves.values())
    gradients = torch.autograd.grad(loss(passed.outputs), leaves, create_graph=True)

    def pull(vector: Tensor, into: Direction) -> None:
        _copy(torch.autograd.grad(passed.outputs, leaves, vector, retain_graph=True), into)

    def multiply(direction: Direction, into: Direction) -> None:
        steps = [direction[path] for path in passed.leaves]
        products = torch.autograd.grad(
            gradients, leaves, steps, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        _copy(products, into)

    def _copy(parts: Iterable[Tensor], into: Direction) -> None:
        for path, part in zip(passed.leaves, parts, strict=True):
            into[path].copy_(part)

    return pull, multiply
