r"""What a fault does to the first change of every layer: the exponents that theory gives, and their inverse.

A layer is the maximal update parameterization's, but for the size of its weight at init, n^s too large, and
of its update, n^u too large. With x what it is given and delta what is passed back to it, after one step::

    own    = u + sum of s below, twice under SGD, where x enters twice    (+ sum of s above, under SGD)
    passed = s + the change of the layer below

in exponents of the width n: under SGD an update is delta x^T and feels the layers above through delta, under
Adam it is a matrix of signs and does not. All of it is 0 without a fault. What a layer is given includes the
change of the layers below, which may have outgrown it within the step: then own is larger by that. Outputs at
init are n^(-1/2) under maximal update; where they are n^s larger and grow, so does the gradient of a squared
loss, unless they are subtracted: then own under SGD is larger by s - 1/2. Layers stand in forward order, one
after the other; branches side by side change sizes by factors, not by powers.

References:
    Yang & Hu (2021), "Tensor Programs IV", arXiv 2011.14522, section 3 and theorem 3.2; Haas et al. (2025),
    arXiv 2505.22491, refined coordinate check.
"""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from runner.grid.config import load_exponents, parameterizations

Kind = Literal["rate", "multiplier", "init", "between", "table"]
LOGITS = ".logits"
"""How the names of the rows of attention logits end."""
REFERENCE = "mup"
STEPS = (0.5, 1.0, 1.5, 2.0)
"""By which powers of the width something is wrong: exponents of tables are halves."""
_QUERY = re.compile(r"(?:^|[._])(?:q|k|wq|wk|to_q|to_k|query|key)(?:_?proj|_?lin|_?weight)?(?:[._]|$)")
_FAR = 1.0
"""A slope that is further off than this from what a fault explains is no further evidence against it."""
_CLEARER = 0.75
"""A fault is named if it leaves less than this share of what is there without one."""
_LESS_PLAUSIBLE = 0.02
"""What a fault of several layers must explain better than one of a single layer."""
_RARE = 0.06
"""The same of one by more than the width."""
_UNSEEN = 0.1
"""The same of one that does not show in its own layer: the first one's init, which shows in those above."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What is known of a layer's first change.

    Attributes:
        role: Of its weight; empty if nobody knows it.
        own: Slope of what its own weight changed; NaN if it is not known.
        passed: Slope of what the change of its inputs did, likewise.
    """

    name: str
    role: str
    own: float
    passed: float


@dataclass(frozen=True, slots=True)
class Fault:
    """An explanation of the slopes.

    Attributes:
        kind: What is wrong: the learning rate, the multiplier, the init, what lies between this layer and
            the one before it, or all of it, as under another table.
        power: By which power of the width it is too large.
        layers: Places of the layers that are wrong, the first one first.
        table: Name of the table.
    """

    kind: Kind
    power: float
    layers: tuple[int, ...]
    table: str = ""


def is_query(name: str) -> bool:
    """Tell by its name whether a layer makes queries or keys of attention.

    Their gradient passes through the logits. At init values and what is passed back to them are independent,
    so that under SGD it starts a factor of n^(-1/2) small, and grows as features form.

    >>> is_query("blocks.0.attention.query"), is_query("layers.1.self_attn.k_proj"), is_query("head")
    (True, True, False)
    """
    return bool(_QUERY.search(name))


def explain(layers: Sequence[Layer], adam: bool | None) -> Fault | None:
    """Return the fault whose signature is nearest to the slopes; None if none is much nearer than no fault.

    Args:
        layers: In forward order.
        adam: Whether updates are sign-like; None if nobody knows: both are tried.
    """
    best: tuple[float, Fault] | None = None
    families = (False, True) if adam is None else (adam,)
    nothing = min(_distance(layers, _none(layers), _none(layers), 0, family) for family in families)
    for family in families:
        for fault, scale, rate, more in _faults(layers, family):
            distance = _distance(layers, scale, rate, more, family)
            distance += _LESS_PLAUSIBLE * (len(fault.layers) > 1) + _RARE * (abs(fault.power) > 1)
            distance += _UNSEEN * (fault.kind == "init" and fault.layers[0] == 0)
            if best is None or distance < best[0] - 1e-9:
                best = distance, fault
    return best[1] if best and best[0] < _CLEARER * nothing else None


def signature(
    scale: np.ndarray, rate: np.ndarray, more: np.ndarray | int = 0, *, adam: bool,
    outgrown: bool = False, loud: bool = False,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return the slopes of own and passed that follow from what is wrong, per layer.

    Args:
        scale: s of every layer.
        rate: u of every layer.
        more: What lies between a layer and the one before it adds to the change.
        outgrown: Whether changes that grow have outgrown what they are changes of.
        loud: Whether outputs that grow at init make the gradient of the loss grow.
    """
    below = np.concatenate([[0.0], np.cumsum(scale)[:-1]])
    above = np.cumsum(scale[::-1])[::-1] - scale
    own = rate + below if adam else rate + 2 * below + above
    if loud and not adam:
        own = own + max(0.0, float(scale.sum()) - 0.5)
    passed = np.full(len(own), np.nan)
    gain = scale + more
    change = own[0]
    for place in range(1, len(own)):
        if outgrown:
            own[place] += max(0.0, change - below[place])
        passed[place] = gain[place] + change
        change = max(own[place], passed[place])
    return own, passed


def _none(layers: Sequence[Layer]) -> np.ndarray:
    return np.zeros(len(layers))


def _faults(
    layers: Sequence[Layer], adam: bool
) -> Iterator[tuple[Fault, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield every fault that is thought of, with its s, u and what it adds between layers."""
    times = 1 if adam else 2
    nothing = _none(layers)
    groups: list[tuple[int, ...]] = [(place,) for place in range(len(layers))]
    for role in dict.fromkeys(layer.role for layer in layers):
        places = tuple(place for place, layer in enumerate(layers) if layer.role == role)
        groups += [places] if role and len(places) > 1 else []
    for places in groups:
        here = nothing.copy()
        here[list(places)] = 1.0
        for power in (sign * size for size in STEPS for sign in (1, -1)):
            yield Fault("rate", power, places), nothing, power * here, nothing
            if len(places) > 1:
                continue
            yield Fault("multiplier", power, places), power * here, times * power * here, nothing
            yield Fault("init", power, places), power * here, nothing, nothing
            if power > 0:
                yield Fault("between", power, places), nothing, nothing, power * here
    everywhere = tuple(range(len(layers)))
    for name in parameterizations():
        scale, rate = _beside(layers, name, adam)
        if scale.any() or rate.any():
            yield Fault("table", float(rate.min()), everywhere, name), scale, rate, nothing


def _beside(layers: Sequence[Layer], name: str, adam: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return s and u of every layer under a table; of layers without a role none."""
    family = "adam" if adam else "sgd"
    times = 1 if adam else 2
    of, reference = (json.loads(load_exponents(table)) for table in (name, REFERENCE))
    scale, rate = _none(layers), _none(layers)
    for place, layer in enumerate(layers):
        role = "input" if layer.role == "vector" else layer.role
        if role in of["a"]:
            a, b, c = (
                reference_row[role] - row[role]
                for row, reference_row in (
                    (of["a"], reference["a"]),
                    (of["b"], reference["b"]),
                    (of["c"][family], reference["c"][family]),
                )
            )
            scale[place], rate[place] = a + b, c + times * a
    return scale, rate


def _distance(
    layers: Sequence[Layer], scale: np.ndarray, rate: np.ndarray, more: np.ndarray | int, adam: bool
) -> float:
    """Return how far the slopes are from a signature, on average; 0 if there are none."""
    # At init queries and keys learn slower under SGD, without any fault.
    usual = np.array([0.0 if adam or not is_query(layer.name) else -0.5 for layer in layers])
    found = np.array([[layer.own, layer.passed] for layer in layers]).T
    distances = []
    for outgrown, loud in itertools.product((False, True), repeat=2):
        own, passed = signature(scale, rate, more, adam=adam, outgrown=outgrown, loud=loud)
        gaps = np.abs(found - np.stack([own + usual, passed]))
        gaps = np.minimum(gaps[np.isfinite(gaps)], _FAR)
        distances.append(float(gaps.mean()) if gaps.size else 0.0)
    return min(distances)
