"""What theory says of an exponent, to stand beside the measured one: read off the derived sizes.

A prediction belongs to the *exponents* of a parameterization, not to its name; see
:mod:`runner.scaling.derivation` for how it follows. Predictions are of networks that trained to a loss of
O(1). They hold at a fixed ``lr * lambda_max``, and at a fixed absolute lr where ``lambda_max`` does not
depend on width; where it does, as under ``sp``, only the kernel at init is predicted.
"""

import json
from typing import Any

from runner.scaling.boundaries import crossover_gamma, stable_lr
from runner.scaling.depth import Blocks, DepthSizes, derive_in_depth
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

NORMALIZED = {"resmlp": False, "resnet": False, "transformer": True}
"""Models with residual branches, and whether these begin with a norm."""
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
            ``model.activation`` and, against gamma, ``center_output`` and ``symmetric_init`` are read.
        key: ``width`` or ``depth``, to infinity, or ``gamma``, to zero; theory is silent on others.
        rich: Gamma to infinity instead.

    References:
        Jacot et al., arXiv 1806.07572; Yang & Hu, arXiv 2011.14522, section 3 and appendix; for gamma Chizat
        et al., arXiv 1812.07956, and Atanasov et al., arXiv 2410.04642; for depth
        :mod:`runner.scaling.depth`.
    """
    if key == "depth":
        return _slope_in_depth(metric, role, cell)
    limit = _limit(key, rich)
    lazy = key == "gamma" and not rich
    from_zero = cell.get("center_output") or cell.get("symmetric_init")
    if limit is None or (lazy and metric != "lambda_max_init" and not from_zero):
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
                slope = slope_of_cell(metric, sizes, cell.get("model.activation"))
    except Silent:
        return None
    return None if slope is None else (-slope if lazy else slope) + 0.0


def blocks_of(cell: dict[str, Any]) -> Blocks:
    """Return a cell's residual blocks as exponents of the depth.

    Args:
        cell: ``model``, ``exponents``, ``optimizer`` and, where known, ``model.depth_scaling`` are read.

    Raises:
        Silent: If its model has none that are known, or theory does not speak of its optimizer.
    """
    if cell.get("model") not in NORMALIZED:
        raise Silent(f"the model {cell.get('model')} has no residual branches that are known")
    if cell["optimizer"] not in OPTIMIZERS:
        raise Silent(f"the optimizer {cell['optimizer']} is none that theory speaks of")
    normalized, family = NORMALIZED[cell["model"]], OPTIMIZERS[cell["optimizer"]]
    table = json.loads(cell["exponents"]).get("depth")
    if not table:  # the model alone divides by the root of the depth
        root = not normalized and cell.get("model.depth_scaling", True) is not False
        return Blocks(0.5 if root else 0.0, 0.0, 0.0, family == "adam", normalized)
    try:
        own, sgd = (float(table["c"][name]["hidden"]) for name in (family, "sgd"))
    except KeyError as error:
        raise Silent(f"the table has no {error.args[0]} in depth") from None
    return Blocks(float(table["branch"]), own, sgd, family == "adam", normalized)


def _sizes_in_depth(cell: dict[str, Any]) -> DepthSizes:
    blocks = blocks_of(cell)
    return derive_in_depth(blocks, -derive_in_depth(blocks).kernel if cell["lr_unit"] == "sharpness" else 0.0)


def _slope_in_depth(metric: str, role: str | None, cell: dict[str, Any]) -> float | None:
    """Slope against depth, of the whole network or of the hidden weights of a block."""
    try:
        sizes = _sizes_in_depth(cell)
    except Silent:
        return None
    # A unit that crosses a kink changes by what it moved, and the share that does falls with that.
    kinks = 1.0 if cell.get("model.activation") in SMOOTH else 0.5
    if role is None:
        slope = {"lambda_max_init": sizes.kernel, "feature_movement": sizes.change}.get(metric)
    elif role == "hidden":
        slope = {
            "movement_frobenius": sizes.update,
            "movement_spectral": sizes.update,
            "branch_linearization_error": kinks * sizes.update if sizes.update <= TINY else None,
        }.get(metric)
    else:
        slope = None
    return None if slope is None else slope + 0.0


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
    kept, rival = slope_of_cell(metric, sizes, None), sizes.rivals.get(names.get(metric, ""))
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


def slope_of_cell(metric: str, sizes: Sizes, activation: str | None) -> float | None:
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


def predicted_variance(cell: dict[str, Any]) -> float | None:
    """Return the slope against width of the variance of outputs over seeds, None where theory gives none.

    Outputs follow from sums over n units, which scatter by n^(-1/2) around their means; outputs at init add
    their own size, unless they are subtracted. Batches in an order of the seed add what width does not take
    away, and theory is silent.

    Args:
        cell: As for :func:`predicted_slope`, and ``batch_size``; of a full batch where it is not there.

    References:
        Geiger et al., arXiv 1906.08034; Bordelon & Pehlevan, arXiv 2304.03408; Atanasov et al., arXiv
        2212.12147.
    """
    if OPTIMIZERS.get(cell["optimizer"]) != "sgd" or cell.get("batch_size") is not None:
        return None
    try:
        sizes = trained_sizes(network_of(cell), cell["lr_unit"])
    except Silent:
        return None
    from_zero = cell.get("center_output") or cell.get("symmetric_init")
    start = -1.0 if from_zero else 2 * sizes.outputs
    return None if sizes.grown or start > TINY else max(-1.0, start) + 0.0


def predicted_edge(cell: dict[str, Any], key: str, *, rich: bool = False) -> float | None:
    """Return the slope of the largest stable learning rate against a key, None where theory gives none.

    Args:
        cell: As for :func:`predicted_slope`, and ``loss``; the rate is in its ``lr_unit``.
        key: ``width``, ``depth`` or ``gamma``.
        rich: Against gamma, beyond the crossover rather than before it.

    References:
        Lewkowycz et al., arXiv 2003.02218, for 2 / lambda_max; Atanasov et al., arXiv 2410.04642, section 3,
        for gamma; Haas et al., arXiv 2505.22491, for the cross-entropy.
    """
    if key == "depth":
        return _edge_in_depth(cell)
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


def _edge_in_depth(cell: dict[str, Any]) -> float | None:
    """Slope of the largest stable learning rate against depth."""
    try:
        blocks = blocks_of(cell)
        sizes = derive_in_depth(blocks)
    except Silent:
        return None
    # Changes of hidden representations and outputs go as the learning rate; under the MSE 2 / lambda_max.
    slope = -sizes.kernel if cell.get("loss", "mse") == "mse" and not blocks.adam else -sizes.change
    return slope + (sizes.kernel if cell["lr_unit"] == "sharpness" else 0.0) + 0.0


def predicted_crossover(cell: dict[str, Any]) -> float | None:
    """Return the slope against width of the richness at which features begin to change, None if not derived.

    References:
        Geiger et al., arXiv 1906.08034; Yang & Hu, arXiv 2011.14522.
    """
    try:
        return crossover_gamma(network_of(cell))
    except Silent:
        return None


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
