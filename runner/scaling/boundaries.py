"""Where training breaks and where features begin to change, as exponents of what grows.

References:
    Lewkowycz et al. (2020), arXiv 2003.02218, for 2 / lambda_max; Haas et al. (2025), arXiv 2505.22491, for
    the cross-entropy; Geiger et al. (2020), arXiv 1906.08034, for the crossover.
"""

from runner.scaling.derivation import (
    WIDE,
    Limit,
    Network,
    at_init,
    changes,
    derive,
    kernel_terms,
)
from runner.scaling.root import Silent, root


def stable_lr(net: Network, limit: Limit = WIDE, *, bounded_gradient: bool = False) -> float:
    """Return the exponent of the largest learning rate at which training is stable.

    Args:
        bounded_gradient: Under the cross-entropy the gradient of the loss is bounded and outputs may grow:
            only the activations must not (Haas et al., arXiv 2505.22491). Under the MSE it is 2 over the top
            eigenvalue of the tangent kernel, at init or, where weights outgrow it, in the end.

    Raises:
        Silent: As :func:`derive`.
    """
    if not net.adam and not bounded_gradient:
        return -derive(net, limit).critical
    first = at_init(net, limit)

    def excess(lr: float) -> float:
        _, change, _ = changes(net, limit, first, lr)
        of_features = max(moved - size for moved, size in zip(change[:-1], first.x[1:], strict=True))
        return of_features if bounded_gradient else max(of_features, change[-1])

    return root(excess)


def crossover_gamma(net: Network) -> float:
    """Return the exponent of the width by which the richness at which features begin to change grows.

    Raises:
        Silent: As :func:`derive`, and where features of some layer change at any gamma or none.
    """

    def change(gamma: float) -> float:
        limit = Limit(1.0, gamma)
        first = at_init(net, limit)
        _, top = kernel_terms(net, limit, first.x, first.delta)
        _, moved, _ = changes(net, limit, first, -top)
        return max(a - b for a, b in zip(moved[:-1], first.x[1:], strict=True))

    if net.adam:
        raise Silent("under Adam lr * lambda_max means nothing")
    return root(change)
