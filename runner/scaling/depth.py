r"""What follows from a table when depth grows: sizes as exponents of the number of blocks L, at fixed width.

A residual network h_{l+1} = h_l + L^(-alpha) B(W_l, h_l) of L blocks, trained for O(1) steps. The rules are
those of :mod:`runner.scaling.derivation`: L independent terms sum up to L^(1/2), L aligned ones to L::

    h at init        the branches are independent:      L^(1/2 - alpha), beside an O(1) input
    a step of Adam   changes W_l by eta L^(-c)
    a step of SGD    by eta L^(-c) times the gradient, which is L^(-alpha) through the branch
    change of h      the branches' changes are aligned: L^(1 - alpha) times that of one of them

With alpha < 1/2 and without norms, activations grow by a factor in each block: no power of L. With a norm at
the start of each branch they grow as L^(1/2 - alpha), and what is passed back through a norm shrinks by that.

References:
    Bordelon et al. (2024), arXiv 2309.16620; Yang et al. (2024), "Tensor Programs VI", arXiv 2310.02244; Dey
    et al. (2025), "Don't be lazy: CompleteP enables compute-efficient deep transformers", arXiv 2505.01618.
"""

from dataclasses import dataclass

from runner.scaling.root import Silent


@dataclass(frozen=True, slots=True)
class Blocks:
    """A residual network's table seen by one optimizer, as exponents of the depth.

    Attributes:
        branch: alpha: a branch is multiplied by L^(-alpha).
        rate: c of hidden weights in blocks, of the optimizer.
        sgd_rate: The same of SGD, whatever the optimizer: the tangent kernel is weighted so.
        adam: Whether the updates are sign-like.
        normalized: Whether a branch begins with a norm.
    """

    branch: float
    rate: float
    sgd_rate: float
    adam: bool
    normalized: bool


@dataclass(frozen=True, slots=True)
class DepthSizes:
    """Exponents of the depth of what is measured at a fixed learning rate.

    Attributes:
        start: Of hidden representations at init, at the end of the network.
        update: Of the change of a weight in a block, and of what it makes of its inputs.
        change: Of the change of hidden representations, relative to those at init; so do the outputs change.
        kernel: Of the top eigenvalue of the tangent kernel at init.
    """

    start: float
    update: float
    change: float
    kernel: float


def derive_in_depth(blocks: Blocks, lr: float = 0.0) -> DepthSizes:
    """Return the sizes after O(1) steps.

    Args:
        lr: Exponent of the learning rate.

    Raises:
        Silent: Where activations at init grow by a factor in each block.
    """
    start = max(0.0, 0.5 - blocks.branch)
    if start and not blocks.normalized:
        raise Silent(
            "branches are larger than depth^(-1/2): activations at init grow by a factor in each block"
        )
    gradient = -blocks.branch - start
    update = lr - blocks.rate + (0.0 if blocks.adam else gradient)
    # Of L blocks, beside an input and a readout that do not scale.
    kernel = max(0.0, 1.0 - blocks.sgd_rate + 2 * gradient)
    return DepthSizes(start, update, 1.0 - blocks.branch + update - start, kernel)
