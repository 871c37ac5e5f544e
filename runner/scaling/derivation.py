r"""What follows from an abc table when something grows: sizes as exponents, layer by layer.

A network of L hidden layers, f = h_{L+1} / gamma, trained on O(1) samples to a loss of O(1). Every
size is a power of what grows in a :class:`Limit`, and is written as its exponent here: a product of sizes is
a sum, a sum of sizes their largest. With the effective weight
W = r^(-a) w and the learning rate eta r^(-c), the rules are two facts and the chain rule::

    a sum over n independent terms is n^(1/2) of them, over n aligned terms n            (CLT, LLN)
    a step of SGD changes W by gamma eta r^(-c - 2a) times delta x^T                     (update)
    a step of Adam changes W by gamma eta r^(-c - a) times a sign matrix, aligned with x (update)

where x is what the layer is given and delta = dh_{L+1}/dh what is passed back to it.

References:
    Yang & Hu (2021), "Tensor Programs IV", arXiv 2011.14522, section 3 and appendix H; Yang & Littwin (2023),
    "Tensor Programs IVb", arXiv 2308.01814, for Adam; Luo et al. (2021), arXiv 2007.07497, and Atanasov et
    al. (2024), arXiv 2410.04642, for what happens when outputs are small; Yang, Simon & Bernstein (2023),
    arXiv 2310.17813, for the spectral norms.
"""

from dataclasses import dataclass
from typing import Any

from runner.scaling.root import Silent, root

TINY = 1e-6
"""Below it an exponent is rounding."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What grows: width as n^width, richness as n^gamma; ``Limit(0, -1)`` is gamma -> 0 at fixed width."""

    width: float = 1.0
    gamma: float = 0.0


WIDE = Limit()
"""Width to infinity, all else fixed."""


@dataclass(frozen=True, slots=True)
class Network:
    """A table seen by one optimizer, as exponents of the width for each of the L + 1 weights, input first.

    Attributes:
        scale: a + b: the size of the effective weight at init is n^(-scale), but for a fixed fan-in.
        rate: Of the effective weight's learning rate: c + 2a under SGD, c + a under Adam.
        raw: a: between the effective weight and the raw one, whose norms are reported.
        sgd_rate: c + 2a of SGD, whatever the optimizer: the tangent kernel is weighted so.
        adam: Whether the updates are sign-like.
        homogeneous: Whether phi(s z) = s phi(z), as of relu and linear: activations may then grow.
    """

    scale: tuple[float, ...]
    rate: tuple[float, ...]
    raw: tuple[float, ...]
    sgd_rate: tuple[float, ...]
    adam: bool
    homogeneous: bool


@dataclass(frozen=True, slots=True)
class Sizes:
    """Exponents of what is measured, one per layer where there are several, input first.

    Attributes:
        lambda_max: Of the top eigenvalue of the tangent kernel at init.
        kernel_terms: Its summands by layer; the largest is lambda_max.
        outputs: Of f at init; where it is positive, outputs at init grow.
        feature_change: Change of a hidden layer's activations, relative to those at init; L of them.
        updates: Change of what each layer returns; the last is that of f, in units of the targets.
        parts: Of it, what the weight's own change and that of its inputs do; none where weights outgrew.
        frobenius: Change of a weight over the weight at init, in Frobenius norm.
        spectral: The same in spectral norm.
        movement: norm(theta - theta_0) / norm(theta_0) of all raw weights together.
        kernel_change: Relative change of the tangent kernel.
        critical: Of the kernel's top eigenvalue in the end: 2 over it is the largest stable lr under the MSE.
        grown: Whether weights outgrew their init, as they must where outputs are small.
        reasons: Name of a size to the term that is the largest in it, in words.
        rivals: Name of a size to the exponent of the next largest term, which widths must outgrow.
    """

    lambda_max: float
    kernel_terms: tuple[float, ...]
    outputs: float
    feature_change: tuple[float, ...]
    updates: tuple[float, ...]
    parts: tuple[tuple[float, float], ...]
    frobenius: tuple[float, ...]
    spectral: tuple[float, ...]
    movement: float
    kernel_change: float
    critical: float
    grown: bool
    reasons: dict[str, str]
    rivals: dict[str, float]


def network(table: dict[str, Any], depth: int, *, adam: bool = False, homogeneous: bool = True) -> Network:
    """Return a table as exponents per weight.

    Args:
        table: With ``a``, ``b`` and ``c`` by role, as in the ``exponents`` column.
        depth: Hidden layers L, at least 1.

    Raises:
        Silent: If it has no row for the optimizer.
    """
    roles = ("input", *["hidden"] * (depth - 1), "output")
    try:
        a, b, sgd, own = (
            tuple(float(row[role]) for role in roles)
            for row in (table["a"], table["b"], table["c"]["sgd"], table["c"]["adam" if adam else "sgd"])
        )
    except KeyError as error:
        raise Silent(f"the table has no {error.args[0]}") from None
    times = 1 if adam else 2
    return Network(
        tuple(x + y for x, y in zip(a, b, strict=True)),
        tuple(x + times * y for x, y in zip(own, a, strict=True)),
        a,
        tuple(x + 2 * y for x, y in zip(sgd, a, strict=True)),
        adam,
        homogeneous,
    )


def derive(net: Network, limit: Limit = WIDE, lr: float | None = None) -> Sizes:
    """Return the sizes after training to a loss of O(1).

    Args:
        lr: Exponent of the learning rate; by default that of a fixed lr * lambda_max.

    Raises:
        Silent: Where activations or outputs are not of a size at which the rules hold; says which.
    """
    first = at_init(net, limit)
    terms, top = kernel_terms(net, limit, first.x, first.delta)
    if lr is None:
        if net.adam:
            raise Silent("a step of Adam is not proportional to the kernel: lr * lambda_max means nothing")
        lr = -top
    delta, change, parts = changes(net, limit, first, lr)
    x = first.x
    relative = tuple(moved - size for moved, size in zip(change[:-1], first.x[1:], strict=True))
    if max(relative) > TINY and not net.adam and lr <= -top + TINY:
        return _grown(net, limit, first, terms, top)
    norms = [_outer(net, limit, layer, lr, x, delta) for layer in range(len(net.scale))]
    kernel, next_kernel, why = _kernel_change(net, limit, first, terms, top, relative, lr, delta)
    reasons, rivals = {"kernel_change": why}, {"kernel_change": next_kernel}
    for layer, (own, passed) in enumerate(parts[:-1]):
        from_below = passed > own + TINY
        reasons[f"feature_change.{layer}"] = (
            "what changed in the layer below" if from_below else "its own weight's updates"
        )
        rivals[f"feature_change.{layer}"] = min(own, passed) - first.x[layer + 1]
    critical = kernel_terms(net, limit, x, delta)[1]
    return _sizes(
        net, limit, first, terms, top, relative, change, parts, norms, kernel, critical, reasons, rivals,
        grown=False,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pass:
    """Sizes of entries: what each layer is given, what it passes back, and its spectral gain."""

    x: tuple[float, ...]  # x[l] enters weight l; x[0] are the inputs
    delta: tuple[float, ...]  # delta[l] = dh_{L+1} / dh of weight l's outputs; the last is 1
    gain: tuple[float, ...]  # of a vector of O(1) entries that is aligned with the weight
    outputs: float


def at_init(net: Network, limit: Limit) -> Pass:
    """Return sizes at init: forward x_l = W x_{l-1}, a sum of independent terms; backward W^T likewise."""
    w, last = limit.width, len(net.scale) - 1
    independent = [-scale * w + (w / 2 if layer else 0.0) for layer, scale in enumerate(net.scale)]
    x, delta = [0.0], [0.0]
    for layer in range(last):
        x.append(x[-1] + independent[layer])
        if not net.homogeneous and x[-1] > TINY:
            raise Silent(f"the activations of layer {layer} grow and saturate")
    # The readout's row is passed back as it is, hidden weights sum over n.
    delta.append(-net.scale[last] * w)
    for layer in range(last - 1, 0, -1):
        delta.append(delta[-1] + independent[layer])
    gain = [*independent[:last], -net.scale[last] * w + w]
    outputs = x[-1] + independent[last] - limit.gamma
    return Pass(tuple(x), tuple(reversed(delta)), tuple(gain), outputs)


def kernel_terms(
    net: Network, limit: Limit, x: tuple[float, ...], delta: tuple[float, ...]
) -> tuple[tuple[float, ...], float]:
    """Return each weight's r^(-c - 2a) |delta|^2 |x|^2, norms over n entries, and the largest."""
    w, last = limit.width, len(net.scale) - 1
    terms = tuple(
        -net.sgd_rate[layer] * w
        + 2 * (delta[layer] + (w / 2 if layer < last else 0.0))
        + 2 * (x[layer] + (w / 2 if layer else 0.0))
        for layer in range(last + 1)
    )
    return terms, max(terms)


def _entry(net: Network, limit: Limit, layer: int, lr: float, x: Any, delta: Any) -> float:
    """An entry of a weight's change: gamma eta r^(-c - 2a) delta x, or a sign instead of the product."""
    size = lr + limit.gamma - net.rate[layer] * limit.width
    return float(size if net.adam else size + delta[layer] + x[layer])


def _outer(net: Network, limit: Limit, layer: int, lr: float, x: Any, delta: Any) -> float:
    """Norm of a weight's change, Frobenius and spectral: it has rank O(1)."""
    w, last = limit.width, len(net.scale) - 1
    rows, columns = (w if layer < last else 0.0), (w if layer else 0.0)
    return _entry(net, limit, layer, lr, x, delta) + (rows + columns) / 2


def changes(
    net: Network, limit: Limit, first: Pass, lr: float
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[tuple[float, float], ...]]:
    """Return sizes of delta and of each layer's change, and of its two parts: its own and from below.

    Changes of the weights change each other's. Activations are taken as large as at init: where they would
    not be, nothing is stable.
    """
    w, last = limit.width, len(net.scale) - 1
    x, delta = first.x, first.delta
    for _ in range(last):  # a change of a weight reaches all below
        passed_back = [0.0]
        for layer in range(last, 0, -1):
            own = _entry(net, limit, layer, lr, x, delta) + delta[layer] + (w if layer < last else 0.0)
            passed_back.append(max(first.delta[layer - 1], own))
        delta = tuple(reversed(passed_back))
    change: list[float] = []
    parts: list[tuple[float, float]] = []
    for layer in range(last + 1):
        # Its own change sees what it was trained on: x x^T is aligned.
        own = _entry(net, limit, layer, lr, x, delta) + x[layer] + (w if layer else 0.0)
        # What changed below is along W^T delta, which W returns as W W^T delta: with the gain of a vector.
        passed = first.gain[layer] + change[-1] if change else own
        parts.append((own, passed))
        change.append(max(own, passed))
    change[-1] -= limit.gamma
    parts[-1] = parts[-1][0] - limit.gamma, parts[-1][1] - limit.gamma
    return delta, tuple(change), tuple(parts)


def _of_sum(weight: float, relative: float, width: float, what: str) -> list[tuple[float, str]]:
    """Parts of the change of a sum of n squares whose terms change by so much, in directions of their own."""
    return [(weight + size, what) for size in (relative - width / 2, 2 * relative)]


def _kernel_change(
    net: Network, limit: Limit, first: Pass, terms: tuple[float, ...], top: float,
    relative: tuple[float, ...], lr: float, delta: tuple[float, ...],
) -> tuple[float, float, str]:  # fmt: skip
    """Relative change of the kernel, the next smaller exponent in it, and the term that is the largest.

    Of |x|^2 and |delta|^2 in each summand, weighed by the summand.
    """
    w, last = limit.width, len(net.scale) - 1
    found = []
    for layer in range(last + 1):
        if layer:
            found += _of_sum(terms[layer] - top, relative[layer - 1], w, f"what weight {layer} is given")
        if layer < last:
            above = _entry(net, limit, layer + 1, lr, first.x, delta) + delta[layer + 1]
            by_weight = above + (w if layer + 1 < last else 0.0) - first.delta[layer]
            for part in (by_weight, relative[layer]):
                found += _of_sum(terms[layer] - top, part, w, f"what is passed back to weight {layer}")
    most, why = max(found, key=lambda one: one[0])
    rival = max((size for size, _ in found if size < most - TINY), default=most)
    return most, rival, f"the change of {why}"


def _grown(net: Network, limit: Limit, first: Pass, terms: tuple[float, ...], top: float) -> Sizes:
    """Sizes where outputs are so small that weights must outgrow their init for f to be O(1).

    Gradient flow conserves |w_l|^2 / lr_l - |w_{l+1}|^2 / lr_{l+1} of raw weights (homogeneous phi), so those
    that grow have one common size R in these units; a weight that is larger at init stays. The product of
    the gains is what f asks for: gamma.
    """
    if not net.homogeneous:
        raise Silent("outputs are small, so weights outgrow their init, and the activations would saturate")
    w, last = limit.width, len(net.scale) - 1
    unit = [
        rate / 2 * w + (w / 2 if layer == 0 else -w / 2 if layer == last else 0.0)
        for layer, rate in enumerate(net.rate)
    ]

    def gains(common: float) -> list[float]:
        return [max(gain, common - one) for gain, one in zip(first.gain, unit, strict=True)]

    common = root(lambda size: sum(gains(size)) - limit.gamma)
    gain = gains(common)
    moved = [common - one for one in unit]
    x = [0.0]
    for one in gain[:last]:
        x.append(x[-1] + one)
    delta = [gain[last] - w]
    for one in reversed(gain[1:last]):
        delta.append(delta[-1] + one)
    back = (*reversed(delta), 0.0)
    # Gains are of vectors with O(1) entries: norm(W) = gain * (rows / columns)^(1/2).
    norms = [
        size + (w / 2 if layer == 0 else -w / 2 if layer == last else 0.0) for layer, size in enumerate(moved)
    ]
    relative = tuple(now - size for now, size in zip(x[1:], first.x[1:], strict=True))
    _, critical = kernel_terms(net, limit, tuple(x), back)
    change = (*x[1:], 0.0)
    kernel = max(critical - top, 0.0)
    reasons: dict[str, str] = dict.fromkeys(
        ("kernel_change", *(f"feature_change.{layer}" for layer in range(last))),
        "weights outgrow their init: the product of their gains must be gamma",
    )
    return _sizes(
        net, limit, first, terms, top, relative, change, (), norms, kernel, critical, reasons, {}, grown=True
    )


def _sizes(
    net: Network, limit: Limit, first: Pass, terms: tuple[float, ...], top: float,
    relative: tuple[float, ...], change: tuple[float, ...], parts: tuple[tuple[float, float], ...],
    norms: list[float], kernel: float, critical: float, reasons: dict[str, str], rivals: dict[str, float],
    *, grown: bool,
) -> Sizes:  # fmt: skip
    """Divide the changes of weights by the weights at init."""
    w, last = limit.width, len(net.scale) - 1
    frobenius, spectral, raw, moved = [], [], [], []
    for layer, scale in enumerate(net.scale):
        entries = (w if layer < last else 0.0) + (w if layer else 0.0)
        start = -scale * w + entries / 2
        frobenius.append(norms[layer] - start)
        # Singular values of a random matrix are n^(1/2) of an entry.
        spectral.append(norms[layer] - (start if layer in (0, last) else -scale * w + w / 2))
        raw.append(start + net.raw[layer] * w)
        moved.append(norms[layer] + net.raw[layer] * w)
    return Sizes(
        top, terms, first.outputs, relative, change, parts, tuple(frobenius), tuple(spectral),
        max(moved) - max(raw), kernel, critical, grown, reasons, rivals,
    )  # fmt: skip
