"""Every column of every table: type, unit, meaning.

Columns of measures are declared with them, in :mod:`runner.measures.catalog`; the others are declared here.
This is data, free of pyarrow, pandas and torch, so that ``runner schema`` answers in a blink and the store,
the docs and the tests read the same declaration.
"""

from typing import Literal

from runner.measures.catalog import MEASURES
from runner.measures.declaration import Column, ColumnType

SCHEMA_VERSION = 2
"""Stored in the metadata of every part; a reader refuses a store with a newer one."""

__all__ = [
    "CELLS",
    "DERIVED",
    "EXTREMES",
    "KEYS",
    "LAYERS",
    "RENAMED",
    "SCHEMA_VERSION",
    "TABLES",
    "TRACE",
    "Column",
]

RENAMED: dict[int, dict[str, dict[str, str]]] = {}
"""What a version renamed, {version: {table: {old: new}}}: applied to older parts when they are read.

Columns that a version added are null in them; version 2 added those of keys, which are read from JSON."""


def _key(name: str, type: ColumnType, unit: str, meaning: str) -> Column:
    return Column(name, type, unit, meaning, nullable=False)


_RESULTS = (
    Column(
        "train_loss",
        "float64",
        "loss",
        "Loss on the whole training set, which with data.online=true is not trained on",
    ),
    Column("test_loss", "float64", "loss", "Loss on the test set"),
    Column("train_error", "float64", "fraction", "Misclassified training samples; null for regression"),
    Column("test_error", "float64", "fraction", "Misclassified test samples; null for regression"),
    Column("max_logit", "float64", "output", "Largest absolute output f of a training sample"),
    Column("margin", "float64", "output",
        "Smallest margin of a training sample: f of its class minus the largest other, y f for one output"),
    Column("wrong_margin", "float64", "output",
        "Mean margin of the misclassified training samples, 0 if none is: minus it is about their loss"),
    *(column for measure in MEASURES if measure.in_cells for column in measure.trace),
)  # fmt: skip
"""Measured along training; the last values are in ``cells``."""

CELLS = (
    _key("cell_id", "string", "", "Versioned hash of the resolved config values"),
    _key("launch", "string", "", "Launch that trained the cell"),
    _key("status", "string", "", "ok, diverged or failed"),
    Column("regime", "string", "", "lazy, crossover, rich, untrained or diverged; null if failed"),
    Column("catapult", "bool", "", "Whether the loss first rose well above its start, then trained"),
    Column("controlled_divergence", "bool", "",
        "Whether under cross-entropy logits came to saturate on misclassified samples, and features stayed"),
    Column("error", "string", "", "Last line of the traceback of a failed cell"),
    _key("model", "string", "", "Name of the model"),
    _key("data", "string", "", "Name of the data set"),
    _key("optimizer", "string", "", "Name of the optimizer"),
    _key("parameterization", "string", "", "Its name, and what differs from its file: `ntk with a.output=1`"),
    _key("width", "int64", "units", "Hidden units per layer; channels of a CNN, d_model of a transformer"),
    _key("depth", "int64", "layers", "Hidden layers; blocks of a ResNet or a transformer"),
    _key("lr", "float64", "lr_unit", "Learning rate as swept, in the unit that lr_unit names"),
    _key("lr_unit", "string", "", "absolute, or sharpness: lr is then lr_absolute * lambda_max_init"),
    Column("lr_absolute", "float64", "lr", "Base learning rate eta in force, before layer and gamma factors"),
    Column("lr_sharpness", "float64", "1",
        "lr_absolute * lambda_max_init; 2 is critical for MSE, full batch; null under Adam or signs"),
    _key("gamma", "float64", "1", "Richness: f = h / gamma, lr times gamma^2 under SGD"),
    _key("center_output", "bool", "", "Whether the output at init is subtracted"),
    _key("base_width", "int64", "units", "Width at which every parameterization is the same network"),
    Column("base_depth", "int64", "layers", "Depth at which it is; null is 1, or none"),
    Column("loss_limit", "float64", "1", "Multiple of the loss at init that is divergence; null: its own"),
    Column("sigma", "string", "JSON", "Factors on the init std of weights by role; null where all are 1"),
    Column("symmetric_init", "bool", "", "Whether units start in pairs whose parts of f cancel; null: no"),
    _key("seed", "int64", "", "Seed of the init, and of the batch order or of fresh samples"),
    Column("batch_size", "int64", "samples", "Samples per step; null for full batch"),
    _key("steps", "int64", "steps", "Optimizer steps asked for"),
    _key("loss", "string", "", "mse or cross_entropy"),
    _key("dtype", "string", "", "float32, float64, or tf32: float32 multiplied in TF32 by a GPU"),
    _key("exponents", "string", "JSON", "The parameterization's abc table"),
    _key("settings", "string", "JSON", "The other keys of the groups model, data, optimizer and measure"),
    *_RESULTS,
    Column("initial_train_loss", "float64", "loss", "Loss on the whole training set at init"),
    Column("best_test_loss", "float64", "loss", "Smallest test loss at a measured step"),
    Column("best_test_error", "float64", "fraction", "Smallest test error at a measured step"),
    *(
        Column(f"best_{column.name}", column.type, column.unit, f"Largest {column.name} at a measured step")
        for measure in MEASURES
        for column in measure.trace
        if column.name in measure.best
    ),
    # Stores have had them in this order since the first version.
    *(column for measure in reversed(MEASURES) for column in measure.init),
    Column("train_fit_step", "int64", "steps",
        "First measured step with a train error of at most 0.1; in regression, a tenth of the loss at init"),
    Column("test_fit_step", "int64", "steps", "The same of the test set; null if never"),
    Column("generalization_delay", "float64", "1",
        "test_fit_step / train_fit_step, large in grokking; inf if test never was, null if train never was"),
    Column("peak_loss_ratio", "float64", "1", "Largest loss met at any step over the loss at init"),
    Column("peak_logit", "float64", "output", "Largest max_logit at a measured step"),
    Column("worst_wrong_margin", "float64", "output", "Smallest wrong_margin at a measured step"),
    Column("peak_feature_movement", "float64", "1", "Largest feature_movement at a measured step"),
    Column("stopped_step", "int64", "steps", "Step at which a level of `stop` ended it; null if none did"),
    Column("stopped_by", "string", "", "Levels that it had come to: train_loss, train_error or margin"),
    Column("diverged_step", "int64", "steps", "First step whose loss was not finite or beyond the limit"),
    Column("precision", "string", "", "In which the cell was trained: dtype, or float64 for a small gamma"),
    Column("parameters", "int64", "", "Trainable parameters"),
    Column("train_seconds", "float64", "s", "Wall time of the cell's pack over the cells in it"),
    Column("device", "string", "", "cpu or the name of the CUDA device"),
    Column("trace_rows", "int64", "rows", "Rows of the cell in trace, for `runner verify`"),
    Column("layer_rows", "int64", "rows", "Rows of the cell in layers, likewise"),
    Column("output_rows", "int64", "rows", "Rows of the cell in outputs, likewise; null where none are kept"),
    Column("finished_at", "string", "UTC", "ISO 8601 time at which the cell's pack was written"),
)  # fmt: skip

TRACE = (
    _key("cell_id", "string", "", "As in cells"),
    _key("step", "int64", "steps", "Optimizer steps done when measured; 0 is init"),
    *_RESULTS,
    *(column for measure in MEASURES if not measure.in_cells for column in measure.trace),
)

LAYERS = (
    _key("cell_id", "string", "", "As in cells"),
    _key("step", "int64", "steps", "As in trace"),
    _key("layer", "string", "", "Name of the layer in the model"),
    _key("layer_index", "int64", "", "Place of the layer in the forward pass, from 0"),
    _key("role", "string", "", "Role of the layer's weight: input, hidden, output or vector"),
    *(column for measure in MEASURES for column in measure.layers),
)

OUTPUTS = (
    _key("cell_id", "string", "", "As in cells"),
    _key("step", "int64", "steps", "As in trace"),
    _key("split", "string", "", "probe, test or train"),
    _key("sample", "int64", "", "Place of the sample in its split, from 0"),
    _key(
        "output",
        "int64",
        "",
        "Output of the network, from 0; in classification a class; of text, position * vocabulary + symbol",
    ),
    Column("value", "float64", "output", "f = (h - h at init if centred) / gamma on the sample"),
    Column(
        "target",
        "float64",
        "output",
        "What the loss compares it with; under cross-entropy, and of text, 1 for the class and 0 elsewhere",
    ),
)
"""Written by the measure ``predictions`` alone."""

DERIVED = (
    Column("lazy_exit_step", "int64", "steps",
        "First measured step at which the cell was crossover or rich by then; null if it never was"),
    Column("lazy_until_step", "int64", "steps",
        "Last measured step before it at which it was lazy or untrained: it left between the two"),
)  # fmt: skip
"""In no file: of each cell, read off ``trace`` by thresholds of the regimes, for ``phase`` and ``fit``."""

EXTREMES: dict[str, tuple[str, Literal["min", "max"]]] = {
    "best_test_loss": ("test_loss", "min"),
    "best_test_error": ("test_error", "min"),
    **{f"best_{name}": (name, "max") for measure in MEASURES for name in measure.best},
    "peak_logit": ("max_logit", "max"),
    "worst_wrong_margin": ("wrong_margin", "min"),
    "peak_feature_movement": ("feature_movement", "max"),
}
"""Columns of ``cells`` that keep the smallest or the largest value of one of ``trace`` at a measured step."""
TABLES: dict[str, tuple[Column, ...]] = {
    "cells": CELLS,
    "trace": TRACE,
    "layers": LAYERS,
    "outputs": OUTPUTS,
}
KEYS: dict[str, tuple[str, ...]] = {
    "cells": ("cell_id",),
    "trace": ("cell_id", "step"),
    "layers": ("cell_id", "step", "layer"),
    "outputs": ("cell_id", "step", "split", "sample", "output"),
}
"""What makes a row unique; of two rows with one key, the one written last counts.

A cell is taken whole from one part, and a failed row never replaces a trained one."""
