"""What is measured: pure functions ``measure(now, start) -> Measurement``, one file per family."""

from runner.measures.features import feature_movement
from runner.measures.kernel import empirical_ntk, kernel_distance, lambda_max, ntk_change
from runner.measures.movement import layer_movement, param_movement
from runner.measures.snapshot import Measure, Measurement, Snapshot

__all__ = [
    "Measure",
    "Measurement",
    "Snapshot",
    "empirical_ntk",
    "feature_movement",
    "kernel_distance",
    "lambda_max",
    "layer_movement",
    "ntk_change",
    "param_movement",
]
