"""What is measured: pure functions ``measure(now, start) -> Measurement``, one file per family."""

from runner.measures.alignment import cka, target_alignment
from runner.measures.features import feature_movement, update_size
from runner.measures.kernel import empirical_ntk, kernel_distance, lambda_max, ntk_change
from runner.measures.kernel_descent import kernel_gd_error
from runner.measures.limit import limit_kernels, ntk_limit_distance
from runner.measures.linearization import linearization_error
from runner.measures.movement import layer_movement, param_movement
from runner.measures.regression import kernel_regression, ntk_gain
from runner.measures.sharpness import sharpness
from runner.measures.snapshot import Measure, Measurement, Snapshot
from runner.measures.spectrum import spectrum
from runner.measures.transfer import transfer_gain

__all__ = [
    "Measure",
    "Measurement",
    "Snapshot",
    "cka",
    "empirical_ntk",
    "feature_movement",
    "kernel_distance",
    "kernel_gd_error",
    "kernel_regression",
    "lambda_max",
    "layer_movement",
    "limit_kernels",
    "linearization_error",
    "ntk_change",
    "ntk_gain",
    "ntk_limit_distance",
    "param_movement",
    "sharpness",
    "spectrum",
    "target_alignment",
    "transfer_gain",
    "update_size",
]
