"""How aligned theory takes a weight and its inputs to be: exponents that can be measured.

A sum of n products is n^A of one, A between 1/2 (independent) and 1 (aligned). Wherever it passes a change
through a weight, :mod:`runner.scaling.derivation` decides on an A, for every parameterization alike.

References:
    Everett et al. (2024), "Scaling Exponents Across Parameterizations and Optimizers", arXiv 2407.05872.
"""

ASSUMED: dict[tuple[str, str], tuple[float, str]] = {
    ("alignment_alpha", "hidden"): (1.0, "an update is made of the inputs that it meets again"),
    ("alignment_alpha", "output"): (1.0, "an update is made of the inputs that it meets again"),
    ("alignment_omega", "hidden"): (
        0.5,
        "a random matrix: it has the gain of a vector that it knows nothing of",
    ),
    ("alignment_omega", "output"): (1.0, "features move along the row that reads them out"),
}
"""Measure and role to the exponent, and why.

None for input weights, whose fan-in does not grow, nor for ``alignment_u``: what a weight's change makes of
the change of its inputs is no more than what it makes of them."""


def assumed_alignment(metric: str, role: str | None) -> float | None:
    """Return the exponent that theory takes a measured alignment to have, None where it needs none."""
    found = ASSUMED.get((metric, role or ""))
    return None if found is None else found[0]
