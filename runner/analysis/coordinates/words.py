"""What is likely wrong, in words: the table of symptoms."""

import re

from runner.analysis.coordinates.signature import Fault

_ATTENTION = re.compile("attention|attn", re.IGNORECASE)
_NAMES = {"input": "an input weight", "hidden": "a hidden weight", "output": "a readout", "vector": "a gain"}
_RATES = {
    ("hidden", True): "too large for a hidden weight (its fan-in grows): is it treated as an input weight?",
    ("hidden", False): "too small for a hidden weight: is it divided by the width once too often, as in NTK?",
    ("input", True): "too large for an input weight (its fan-in is fixed)",
    (
        "input",
        False,
    ): "too small for an input weight (its fan-in is fixed): is it treated as a hidden weight?",
    ("vector", True): "too large for a gain or bias, over which nothing is summed",
    ("vector", False): "too small for a gain or bias, over which nothing is summed: is it treated as hidden?",
    ("output", True): "too large for a readout: does it lack its 1/width multiplier?",
    ("output", False): "too small for a readout: is it divided by the width once too often?",
}
_INITS = {
    "hidden": "the standard deviation of a hidden weight must fall as fan_in^(-1/2)",
    "output": "that of a readout, its multiplier included, must fall as 1/fan_in",
}


def fault_words(fault: Fault, name: str, role: str) -> str:
    """Return what is seen of a fault and what is likely wrong.

    Args:
        name: Of its first layer.
        role: Of this layer; empty if nobody knows it.
    """
    power, up = power_of(fault.power), fault.power > 0
    several = len(fault.layers) > 1
    if fault.kind == "table":
        return _table_words(fault)
    if fault.kind == "rate":
        seen = f"all {role} layers' updates" if several else "its update"
        verb = ("grow" if up else "shrink") + ("" if several else "s")
        likely = _RATES.get((role, up), "too large" if up else "too small")
        return f"{seen} {verb} as {power}: learning rate or multiplier {likely}"
    if fault.kind == "multiplier":
        if role == "output":
            lack = (
                "a readout without its 1/width multiplier" if up else "a readout with a multiplier too many"
            )
            return f"{lack}: its weight and update are off by {power}"
        of = _NAMES.get(role, "this weight")
        size = "large" if up else "small"
        return f"the multiplier is too {size} for {of}: its weight and update are off by {power}"
    if fault.kind == "init":
        rule = _INITS.get(role, "that of a weight with a fixed fan-in must not depend on the width")
        return f"W_0 is too {'large' if up else 'small'}, by {power}: {rule}"
    if _ATTENTION.search(name):
        return logits_words(fault.power)
    return (
        f"it passes on {power} more than the layer before it changed: W_0 is too large, or what lies "
        "between sums over the width without a factor"
    )


def depth_words(power: float, own: bool) -> str:
    """Return what is likely wrong where changes scale with depth.

    Args:
        own: Whether it is what the layer's own weight changed.
    """
    what, verb = "its update" if own else "what it passes on", "grows" if power > 0 else "shrinks"
    seen = f"{what} {verb} as L^{power:+g}"
    if power > 0:
        return (
            f"{seen}: the changes of all blocks add up; branches or learning rates lack a power of the depth"
        )
    return f"{seen}: blocks are lazy in depth, as with branches over its root (depth_mup)"


def logits_words(power: float) -> str:
    """Return what is likely wrong where attention logits scale."""
    if power > 0:
        return (
            f"the logits of attention grow as {power_of(power)}: 1/sqrt(d_head) in place of 1/d_head, while "
            "the head size grows?"
        )
    return f"the logits of attention shrink as {power_of(power)}: divided by the head size once too often?"


def _table_words(fault: Fault) -> str:
    """Return what holds of a network all of whose layers scale otherwise."""
    if fault.table == "ntk":
        return (
            "lazy: the layers below the readout change less and less, as n^-0.5, as under the NTK "
            "parameterization"
        )
    kind = {"sp": "the standard parameterization, PyTorch's"}.get(fault.table, fault.table)
    return f"unstable at a fixed learning rate: changes scale with the width as under {kind}"


def in_halves(slope: float) -> float:
    """Return the nearest exponent that a table has, halves, but never 0.

    >>> in_halves(0.93), in_halves(-0.2)
    (1.0, -0.5)
    """
    return round(2 * slope) / 2 or (0.5 if slope > 0 else -0.5)


def power_of(exponent: float) -> str:
    """Return a power of the width.

    >>> power_of(0.5)
    'n^+0.5'
    """
    return f"n^{exponent:+g}"
