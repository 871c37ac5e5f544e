"""A store's tables made from known power laws, for the tests of analysis and report."""

import functools
import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml

from runner.analysis.regime import JUDGED, classify
from runner.grid.cell import Cell, canonical_json
from runner.grid.config import conf_dir, load_thresholds
from runner.schema import TABLES
from runner.store.arrow import arrow_schema, conform
from runner.store.keys import SOURCES, key_columns

THRESHOLDS = load_thresholds("default")
SLOPES = {
    # lambda_max, ntk_change, features, then Frobenius per role and the hidden layers' spectral norm
    "ntk": {
        "lambda": 0.0,
        "change": -1.0,
        "features": -0.5,
        "input": -0.5,
        "hidden": -1.0,
        "output": -0.5,
        "2": -0.5,
    },
    "mup": {
        "lambda": 0.0,
        "change": 0.0,
        "features": 0.0,
        "input": 0.0,
        "hidden": -0.5,
        "output": 0.0,
        "2": 0.0,
    },
    "sp": {
        "lambda": 1.0,
        "change": -1.0,
        "features": -0.5,
        "input": -1.5,
        "hidden": -1.0,
        "output": -0.5,
        "2": -0.5,
    },
}
SLOPES["mean_field"] = SLOPES["mup"]
WIDTHS = (32, 64, 128, 256, 512)
LRS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


@functools.cache
def exponents(parameterization):
    table = yaml.safe_load((conf_dir() / "parameterization" / f"{parameterization}.yaml").read_text())
    number = {"1/2": 0.5, "-1/2": -0.5}

    def resolve(value):
        if isinstance(value, dict):
            return {key: resolve(item) for key, item in value.items()}
        return number.get(value, value)

    return canonical_json({key: resolve(table[key]) for key in "abc"})


def cell(**changes):
    fields = {
        "width": 64, "depth": 2, "lr": 0.1, "lr_unit": "absolute", "gamma": 1.0, "center_output": False,
        "base_width": 1, "seed": 0, "steps": 200, "batch_size": None, "loss": "mse", "dtype": "float32",
        "model": "mlp", "data": "digits", "optimizer": "sgd", "parameterization": "ntk",
    }  # fmt: skip
    settings = {
        "model": {"activation": "relu", "bias": False},
        "data": {"seed": 0, "train_size": 512},
        "optimizer": {},
        "measure": {"points": 12},
    }
    for key, value in changes.items():
        group, dot, name = key.partition("__")
        if dot:
            settings[group][name] = value
        else:
            fields[key] = value
    table = exponents(fields["parameterization"])
    return Cell(**fields, exponents=table, settings=canonical_json(settings))


def grid(**axes):
    """Return the cells of a grid; ``model__activation=("relu", "tanh")`` is a group key."""
    axes = {key: value if isinstance(value, (tuple, list)) else (value,) for key, value in axes.items()}
    return [cell(**dict(zip(axes, values, strict=True))) for values in itertools.product(*axes.values())]


def frames(cells, noise=0.02, launch="20260101-000000-aaaa"):
    """Return the tables ``cells``, ``trace`` and ``layers`` that these cells would give."""
    rows, traces, layers = [], [], []
    for one in cells:
        rng = np.random.default_rng(abs(hash((one.width, one.seed, one.lr))) % 2**32)
        law = SLOPES[one.parameterization]

        def power(slope, size, rng=rng, one=one):
            return float(size * one.width**slope * np.exp(noise * rng.normal()))

        top = power(law["lambda"], 0.5)
        sharp = one.lr if one.lr_unit == "sharpness" else one.lr * top
        fate = "diverged" if sharp > 4 else "ok"
        moved = min(sharp, 1) / 2
        measures = {
            "train_loss": np.nan if fate == "diverged" else 0.5 * np.exp(-60 * sharp / 20),
            "test_loss": 0.3,
            "param_movement": power(law["hidden"], moved * 64 ** (-0.5 - law["hidden"])),
            "ntk_change": power(law["change"], moved * 64 ** -law["change"]),
            "kernel_distance": power(2 * law["change"], moved**2 / 2),
            "feature_movement": power(law["features"], 0.2 * moved * 64 ** -law["features"]),
        }
        result = measures | {
            "cell_id": one.cell_id, "launch": launch, "status": fate, "initial_train_loss": 0.5,
            "lr_absolute": sharp / top, "lr_sharpness": sharp, "lambda_max_init": top,
            "peak_loss_ratio": 3.0 if sharp > 2 else 1.0, "parameters": 10 * one.width, "device": "cpu",
            "train_seconds": 0.1, "finished_at": "2026-01-01T00:00:00+00:00",
            "diverged_step": 7 if fate == "diverged" else None,
        }  # fmt: skip
        rows.append(one.row() | result)
        for step in (0, one.steps):
            traces.append({"cell_id": one.cell_id, "step": step, "lambda_max": top} | measures)
            for index, role in enumerate(("input", *["hidden"] * (one.depth - 1), "output")):
                layers.append({
                    "cell_id": one.cell_id, "step": step,
                    "layer": f"layer{index}", "layer_index": index, "role": role,
                    "movement_frobenius": power(law[role], 1) if step else 0.0,
                    "movement_spectral": power(law["2" if role == "hidden" else role], 1) if step else 0.0,
                    "feature_movement": power(law["features"], 1) if step else 0.0,
                })  # fmt: skip
    table = _typed(rows, "cells")
    table[[*JUDGED]] = classify(table, THRESHOLDS)
    return table, _typed(traces, "trace"), _typed(layers, "layers")


def _typed(rows, table):
    """Return the rows with every column of the schema, typed as the store reads them."""
    frame = pd.DataFrame(rows, columns=[column.name for column in TABLES[table]])
    pandas = {"string": object, "int64": "Int64", "float64": "float64", "bool": "boolean"}
    for column in TABLES[table]:
        kind = pandas[column.type]
        frame[column.name] = frame[column.name].astype(
            "int64" if kind == "Int64" and not column.nullable else kind
        )
    return with_key_columns(frame) if table == "cells" else frame


def with_key_columns(cells):
    """Return cells with a column for each key of their groups, as a store reads them."""
    texts = pa.table({name: pa.array(cells[name].tolist(), from_pandas=True) for name in SOURCES})
    schema = arrow_schema(key_columns([texts]))
    keys = conform(texts, schema).to_pandas().set_index(cells.index)
    return pd.concat([cells[[name for name in cells if name not in keys]], keys], axis=1)
