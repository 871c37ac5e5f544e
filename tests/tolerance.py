"""One table of relative tolerances, by device and dtype."""

TOLERANCE = {
    ("cpu", "float64"): 1e-10,
    ("cpu", "float32"): 1e-4,
    ("cuda", "float64"): 1e-9,
    ("cuda", "float32"): 1e-3,
}
