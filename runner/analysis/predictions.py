"""All that follows from a parameterization, as `runner theory` prints it: slopes, boundaries, reasons."""

from dataclasses import dataclass
from typing import Any

from runner.analysis.theory import (
    OF_ANY_RANK,
    blocks_of,
    network_of,
    predicted_crossover,
    predicted_edge,
    predicted_slope,
    slope_of_cell,
    trained_sizes,
)
from runner.scaling.alignment import ASSUMED
from runner.scaling.depth import derive_in_depth
from runner.scaling.derivation import TINY, Sizes, derive
from runner.scaling.optimizers import OPTIMIZERS
from runner.scaling.root import Silent


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
            slope = slope_of_cell(metric, sizes, cell.get("model.activation"))
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
    found += [
        Prediction(name, layer, "fan_in", exponent, why)
        for layer, role in zip(layers, roles, strict=True)
        for (name, of), (exponent, why) in ASSUMED.items()
        if of == role
    ]
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


def verdict_in_depth(cell: dict[str, Any]) -> str:
    """Return what training at a fixed absolute learning rate becomes as depth grows, in a sentence.

    References:
        Dey et al., arXiv 2505.01618: what is lazy in depth.
    """
    try:
        sizes = derive_in_depth(blocks_of(cell))
    except Silent as error:
        return f"theory is silent: {error}"
    if sizes.change > TINY:
        return f"no stable limit: a step changes outputs by depth^{sizes.change:g}"
    if sizes.change < -TINY:
        return f"trivial: a step changes outputs by depth^{sizes.change:g}, the learning rate is too small"
    if sizes.update < -TINY:
        return f"stable, with lazy blocks: each is linear in its weights but for depth^{sizes.update:g}"
    return "stable, and every block learns features at any depth"


def predictions_in_depth(cell: dict[str, Any]) -> list[Prediction]:
    """Return every slope against depth that follows from a table, of a residual network, and why."""
    absolute = cell | {"lr_unit": "absolute"}
    adam = OPTIMIZERS.get(cell["optimizer"]) == "adam"
    gradient = "" if adam else " times the gradient, as small as the branch"
    whys = {
        "movement_frobenius": ("hidden", f"the learning rate in a block{gradient}"),
        "branch_linearization_error": ("hidden", "relative to the linear change: the update of the weight"),
        "feature_movement": (None, "the sum of what as many blocks change"),
        "lambda_max_init": (
            None,
            "as many blocks, each by the squared branch and its learning rate under SGD",
        ),
    }
    found = [
        Prediction(
            metric,
            f"{role} in blocks" if role else "",
            "depth",
            predicted_slope(metric, role, absolute, "depth"),
            why,
        )
        for metric, (role, why) in whys.items()
    ]
    edge = "what all blocks change together must not grow" if adam else "2 / lambda_max"
    return [*found, Prediction("largest stable lr", "", "depth", predicted_edge(absolute, "depth"), edge)]


def _with_rival(sizes: Sizes, name: str) -> str:
    """Return the term that decides, and the exponent of the next one."""
    rival = sizes.rivals.get(name)
    return sizes.reasons[name] + ("" if rival is None else f"; the next term goes as width^{rival + 0.0:g}")
