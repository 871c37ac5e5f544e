"""What theory says of an exponent, to stand beside the measured one: read off the derived sizes.

A prediction belongs to the *exponents* of a parameterization, not to its name; see
:mod:`runner.scaling.derivation` for how it follows. Predictions are of networks that trained to a loss of
O(1). They hold at a fixed ``lr * lambda_max``, and at a fixed absolute lr where ``lambda_max`` does not
depend on width; where it does, as under ``sp``, only the kernel at init is predicted.
"""

import json
from dataclasses import dataclass
from typing import Any

from runner.scaling.boundaries import crossover_gamma, stable_lr
from runner.scaling.derivation import (
    TINY,
    WIDE,
    Limit,
    Network,
    Sizes,
    derive,
    network,
)
from runner.scaling.optimizers import OPTIMIZERS, orthogonalized
from runner.scaling.root import Silent

HOMOGENEOUS = ("relu", "linear")
"""Activations that may outgrow their init: phi(s z) = s phi(z)."""
SMOOTH = ("tanh", "erf", "gelu", "linear")
"""Activations without a kink, which adds a term of its own to the distance from the linearization."""

OF_ANY_RANK = "the rank of an orthogonalized step is that of samples and steps, up to the width"

_OF_ROLES = ("movement_frobenius", "movement_spectral", "update_size", "update_own", "update_passed")
_OF_KERNEL = ("ntk_change", "kernel_distance", "linearization_error")


def network_of(cell: dict[str, Any], *, adam: bool | None = None) -> Network:
    """Return a cell's network as exponents.

    Args:
        cell: ``exponents``, ``depth``, ``optimizer`` and, where known, ``model.activation`` are read.
        adam: Whether updates are sign-like; by default as the cell's optimizer has them.

    Raises:
        Silent: If the table, or the optimizer, is none that theory speaks of.
    """
    if adam is None:
        if cell["optimizer"] not in OPTIMIZERS:
            raise Silent(f"the optimizer {cell['optimizer']} is none that theory speaks of")
        adam = OPTIMIZERS[cell["optimizer"]] == "adam"
    homogeneous = cell.get("model.activation") in HOMOGENEOUS
    table = json.loads(cell["exponents"])
    if adam and cell["optimizer"] == "muon":
        table = orthogonalized(table, cell.get("optimizer.scale"))
    return network(table, int(cell["depth"]), adam=adam, homogeneous=homogeneous)


def predicted_slope(
    metric: str, role: str | None, cell: dict[str, Any], key: str = "width", *, rich: bool = False
) -> float | None:
    """Return the slope of log metric against log key that theory predicts, None where it predicts nothing.

    Args:
        role: Role of the layer for a metric per layer, else None.
        cell: Any cell of the fit: ``exponents``, ``optimizer``, ``depth``, ``lr_unit``,
            ``model.activation`` and, against gamma, ``center_output`` are read.
        key: ``width``, to infinity, or ``gamma``, to zero; theory is silent on others.
        rich: Gamma to infinity instead.

    References:
        Jacot et al., arXiv 1806.07572; Yang & Hu, arXiv 2011.14522, section 3 and appendix; for gamma Chizat
        et al., arXiv 1812.07956, and Atanasov et al., arXiv 2410.04642.
    """
    limit = _limit(key, rich)
    lazy = key == "gamma" and not rich
    if limit is None or (lazy and metric != "lambda_max_init" and not cell.get("center_output")):
        # Outputs at init grow as gamma falls, and undoing them moves the features as far as ever.
        return None
    if lazy and metric in _OF_KERNEL and cell.get("model.activation") not in SMOOTH:
        # Few units cross a kink: their number scatters by the root of its mean, which is gamma^(1/2).
        return None
    try:
        if metric == "lambda_max_init":
            # The kernel is that of gradient descent, whatever the optimizer.
            slope: float | None = derive(network_of(cell, adam=False), limit).lambda_max
        else:
            sizes = trained_sizes(network_of(cell), cell["lr_unit"], limit)
            adam = OPTIMIZERS[cell["optimizer"]] == "adam"
            if cell["optimizer"] == "muon" and metric == "movement_frobenius" and role == "hidden":
                slope = None  # OF_ANY_RANK
            elif role is not None:
                slope = _of_role(metric, role, sizes)
            elif adam or metric in _OF_ROLES:
                slope = None
            else:
                slope = _of_cell(metric, sizes, cell.get("model.activation"))
    except Silent:
        return None
    return None if slope is None else (-slope if lazy else slope) + 0.0


def next_slope(metric: str, cell: dict[str, Any]) -> float | None:
    """Return the slope against width of the largest term that theory leaves out of a measure of a whole cell.

    None where it leaves out none. At widths that its power does not set apart from the kept one, measured
    slopes are of both.
    """
    try:
        sizes = trained_sizes(network_of(cell), cell["lr_unit"])
    except Silent:
        return None
    names = {"ntk_change": "kernel_change", "feature_movement": f"feature_change.{int(cell['depth']) - 1}"}
    kept, rival = _of_cell(metric, sizes, None), sizes.rivals.get(names.get(metric, ""))
    return None if kept is None or rival is None or rival >= kept - TINY else rival + 0.0


def _limit(key: str, rich: bool) -> Limit | None:
    """Return where theory speaks of a key; where gamma falls, slopes against it have the other sign."""
    return {"width": WIDE, "gamma": Limit(0.0, 1.0 if rich else -1.0)}.get(key)


def trained_sizes(net: Network, lr_unit: str, limit: Limit = WIDE) -> Sizes:
    """Return the sizes of networks whose learning rates are the same number in this unit everywhere.

    Raises:
        Silent: If at that learning rate the outputs change by more or less as what grows does.
    """
    if lr_unit == "sharpness":
        return derive(net, limit)
    sizes = derive(net, limit, lr=0.0)
    if sizes.grown or (abs(sizes.updates[-1]) < TINY and max(sizes.feature_change) < TINY):
        return sizes
    raise Silent("at a fixed learning rate there is no limit in which outputs change by O(1)")


def _of_cell(metric: str, sizes: Sizes, activation: str | None) -> float | None:
    """Slope of a metric of the whole network."""
    if metric == "feature_movement":
        return sizes.feature_change[-1]
    if metric == "param_movement":
        return sizes.movement
    if metric not in _OF_KERNEL or (metric == "linearization_error" and activation not in SMOOTH):
        return None
    if metric == "ntk_change":
        return sizes.kernel_change
    # One minus a cosine and a relative error: where the kernel outgrows its init they are of order one.
    return min(0.0, sizes.kernel_change * (2 if metric == "kernel_distance" else 1))


def _of_role(metric: str, role: str, sizes: Sizes) -> float | None:
    """Slope of a metric of the layers of a role; None where they differ in it."""
    values = {
        "movement_frobenius": sizes.frobenius,
        "movement_spectral": sizes.spectral,
        "update_size": sizes.updates,
        "update_own": tuple(own for own, _ in sizes.parts),
        "update_passed": (None, *(passed for _, passed in sizes.parts[1:])),
        "feature_movement": (*sizes.feature_change, None),
    }.get(metric)
    if values is None:
        return None
    places = {"input": slice(0, 1), "vector": slice(0, 1), "hidden": slice(1, -1), "output": slice(-1, None)}
    found = set(values[places[role]]) if role in places else set()
    return found.pop() if len(found) == 1 else None


def predicted_edge(cell: dict[str, Any], key: str, *, rich: bool = False) -> float | None:
    """Return the slope of the largest stable learning rate against a key, None where theory gives none.

    Args:
        cell: As for :func:`predicted_slope`, and ``loss``; the rate is in its ``lr_unit``.
        key: ``width`` or ``gamma``.
        rich: Against gamma, beyond the crossover rather than before it.

    References:
        Lewkowycz et al., arXiv 2003.02218, for 2 / lambda_max; Atanasov et al., arXiv 2410.04642, section 3,
        for gamma; Haas et al., arXiv 2505.22491, for the cross-entropy.
    """
    limit = _limit(key, rich)
    if limit is None:
        return None
    try:
        net = network_of(cell)
        sign = -1.0 if limit.gamma < 0 else 1.0
        slope = sign * stable_lr(net, limit, bounded_gradient=cell.get("loss", "mse") != "mse")
        if cell["lr_unit"] == "sharpness":
            slope += sign * derive(network_of(cell, adam=False), limit).lambda_max
    except Silent:
        return None
    return slope + 0.0


def predicted_crossover(cell: dict[str, Any]) -> float | None:
    """Return the slope against width of the richness at which features begin to change, None if not derived.

    References:
        Geiger et al., arXiv 1906.08034; Yang & Hu, arXiv 2011.14522.
    """
    try:
        return crossover_gamma(network_of(cell))
    except Silent:
        return None


@dataclass(frozen=True, slots=True)
class Prediction:
    """One line of what follows from a table.

    Attributes:
        quantity: A column of the tables, or a place in the diagram.
        of: Layer by its role and number, empty for the whole network.
        against: Key against which the slope is.
        slope: Of the logarithms; None where theory is silent.
        why: The term that decides, or why theory is silent.
    """

    quantity: str
    of: str
    against: str
    slope: float | None
    why: str


def verdict(cell: dict[str, Any]) -> str:
    """Return what training at a fixed absolute learning rate becomes as width grows, in a sentence.

    References:
        Yang & Hu, arXiv 2011.14522, theorem 3.4 and corollary 3.9 (dynamical dichotomy).
    """
    try:
        sizes = derive(network_of(cell), lr=0.0)
    except Silent as error:
        return f"theory is silent: {error}"
    features, outputs = max(sizes.feature_change), sizes.updates[-1]
    if sizes.outputs > TINY:
        return f"no stable limit: outputs at init grow as width^{sizes.outputs:g} (center_output helps)"
    if (features > TINY and not sizes.grown) or outputs > TINY:
        most = max(features, outputs)
        return f"no stable limit: a step changes what it should not by width^{most:g}"
    if sizes.grown:
        return "weights outgrow their init before outputs are of order one: rich at any width"
    if outputs < -TINY:
        return f"trivial: outputs change by width^{outputs:g}, the learning rate is too small"
    regime = "kernel regime" if features < -TINY else "feature learning"
    return f"stable, {regime}: features change by width^{features + 0.0:g}, outputs by order one"


def predictions(cell: dict[str, Any]) -> list[Prediction]:
    """Return every slope and boundary that follows from a cell's table, and why.

    Args:
        cell: As for :func:`predicted_edge`.
    """
    found: list[Prediction] = []
    roles = ("input", *["hidden"] * (int(cell["depth"]) - 1), "output")
    layers = [f"{role} {place}" for place, role in enumerate(roles)]
    adam = OPTIMIZERS.get(cell["optimizer"]) == "adam"
    try:
        init = derive(network_of(cell, adam=False))
        most = layers[init.kernel_terms.index(init.lambda_max)]
        shown = ", ".join(f"{role} {term:g}" for role, term in zip(roles, init.kernel_terms, strict=True))
        found.append(
            Prediction("lambda_max_init", "", "width", init.lambda_max, f"the part of {most} of: {shown}")
        )
        sizes = trained_sizes(network_of(cell), cell["lr_unit"])
    except Silent as error:
        found.append(Prediction("all after training", "", "width", None, str(error)))
    else:
        why = _with_rival(sizes, "kernel_change")
        for metric in () if adam else ("ntk_change", "kernel_distance", "linearization_error"):
            slope = _of_cell(metric, sizes, cell.get("model.activation"))
            kinks = "kinks add a term of their own" if slope is None else why
            found.append(Prediction(metric, "", "width", slope, kinks))
        if not adam:
            of_all = "all raw weights together: the largest change over the largest init"
            found.append(Prediction("param_movement", "", "width", sizes.movement, of_all))
        for place, slope in enumerate(sizes.feature_change):
            why = _with_rival(sizes, f"feature_change.{place}")
            found.append(Prediction("feature_movement", layers[place], "width", slope, why))
        for name, values in {
            "movement_frobenius": sizes.frobenius,
            "movement_spectral": sizes.spectral,
        }.items():
            why = "an update has rank one, a random matrix full rank" if name.endswith("frobenius") else ""
            for layer, slope in zip(layers, values, strict=True):
                if why and "hidden" in layer and cell["optimizer"] == "muon":
                    found.append(Prediction(name, layer, "width", None, OF_ANY_RANK))
                else:
                    found.append(Prediction(name, layer, "width", slope, why if "hidden" in layer else ""))
    gradient = "2 / lambda_max" if cell.get("loss", "mse") == "mse" else "activations must not grow"
    if adam:
        gradient = "neither activations nor outputs may grow"
    absolute = cell | {"lr_unit": "absolute"}
    edge = predicted_edge(absolute, "width")
    found.append(Prediction("largest stable lr", "", "width", edge, gradient))
    if not adam:
        lazy, rich = (predicted_edge(absolute, "gamma", rich=rich) for rich in (False, True))
        balanced = "weights grow together, each by an equal part of gamma"
        found += [
            Prediction("largest stable lr", "", "gamma, lazy", lazy, "the kernel at init has no gamma in it"),
            Prediction(
                "largest stable lr", "", "gamma, rich", rich,
                balanced if rich is not None else "activations that saturate: no derivation",
            ),
            Prediction(
                "gamma of the crossover", "", "width", predicted_crossover(cell),
                "where features change by order one",
            ),
        ]  # fmt: skip
    return found


def _with_rival(sizes: Sizes, name: str) -> str:
    """Return the term that decides, and the exponent of the next one."""
    rival = sizes.rivals.get(name)
    return sizes.reasons[name] + ("" if rival is None else f"; the next term goes as width^{rival + 0.0:g}")


def r_exponent(exponents: str, faster: float = 0.0, depth: int = 2) -> float | None:
    """Return r of an abc table under SGD: features change by width^-r; 0 learns features, above is lazy.

    Args:
        exponents: JSON of the table, as in the ``exponents`` column.
        faster: How much faster the learning rate falls with width than the table says.

    Returns:
        None if it cannot be derived.

    References:
        Yang & Hu, arXiv 2011.14522, definition 3.2 and appendix H.
    """
    try:
        return -max(derive(network(json.loads(exponents), depth), lr=-faster).feature_change)
    except Silent:
        return None
