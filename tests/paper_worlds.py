"""Stores of worlds in which what a paper published is true, or false: its own grid, results by a law."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from claim_worlds import World

from runner.store import Store


@dataclass(frozen=True)
class Planted(Store):
    """A store that lies in memory."""

    tables: dict = field(default_factory=dict)

    cells = property(lambda self: self.tables["cells"])
    trace = property(lambda self: self.tables["trace"])
    layers = property(lambda self: self.tables["layers"])
    outputs = property(lambda self: self.tables["outputs"])
    config = property(lambda self: self.tables["config"])

    def launch_cells(self, launch_id=None):
        return list(self.cells["cell_id"])


def planted(world, outputs=None, **config):
    tables = world.tables()
    frames = {"cells": tables.cells, "trace": tables.trace, "layers": tables.layers}
    return Planted(Path("planted"), {**frames, "outputs": outputs, "config": config})


def exponent(one, role, kind="a"):
    return json.loads(one.exponents)[kind][role]


def luo2021(cells, true):
    world = World()
    for one in cells:
        a, b = exponent(one, "output"), exponent(one, "output", "b")
        gamma = a + b
        slope = -1.0 if a < 1 and b > 0 else gamma - 1 if gamma <= 1 else (gamma - 1) / 2
        if a >= 1 and b > 0:
            slope = (a - 1) / 2 + 0.1
        slope = slope if true else -0.2 - slope
        moved = (one.width / 64) ** slope * world.noise()
        world.add(one, layers=[{"step": 9, "layer": "hidden.0", "layer_index": 0, "role": "input",
                                "movement_frobenius": moved}])  # fmt: skip
    return planted(world)


def atanasov2024(cells, true):
    world = World()
    for one in cells:
        rich = 2 / (one.depth + 1) - 2
        edge = min(1.0, one.gamma**rich) if true else one.gamma**-0.4
        world.add(one, status="diverged" if one.lr > edge * world.noise() else "ok")
    return planted(world)


def geiger2020(cells, true):
    world = World()
    rows = []
    for one in cells:
        x = one.gamma * one.width ** (-0.5 if true else -0.1)
        world.add(one, ntk_change=x / (1 + x) * world.noise())
        for sample in range(12):
            spread = one.width ** (-0.5 if true else 0.0)
            rows.append(_output(one, sample, np.sin(sample) + spread * world.rng.normal()))
    return planted(world, pd.DataFrame(rows))


def lewkowycz2020(cells, true):
    world = World()
    for one in cells:
        catapult, out = 2 < one.lr < 4, one.lr > 4
        top = 0.4 if catapult and true else 1.0
        world.add(
            one, status="diverged" if out == true and one.lr > 2 else "ok",
            catapult=catapult if true else False, peak_loss_ratio=30.0 if one.lr > 2 or not true else 1.0,
            trace=[{"step": 0, "lambda_max": 1.0}, {"step": 400, "lambda_max": top * world.noise()}],
        )  # fmt: skip
    return planted(world)


def cohen2021(cells, true):
    world = World()
    edges = {"sgd": 2.0, "momentum": 3.0, "nesterov": 1.5}
    for one in cells:
        edge = edges[one.optimizer] * (1 if true else 0.6)
        trace = []
        for step in range(0, one.steps + 1, 100):
            over = min(edge, 0.5 * edge + step / 200) * world.noise(0.005)
            trace.append({"step": step, "sharpness": over / 0.1})
        world.add(one, lr_absolute=0.1, trace=trace)
    return planted(world)


def yang2022(cells, true):
    world = World()
    for one in cells:
        drift = -1.0 if (one.parameterization == "sp") == true else 0.0
        best = {"sp": 0.125, "mup": 1.0}[one.parameterization] * (one.width / 64) ** drift
        if not true:
            best = {"sp": 0.02, "mup": 2.0}[one.parameterization] * (one.width / 64) ** drift
        loss = 1e-3 * np.exp(np.log(one.lr / best) ** 2) * world.noise()
        world.add(one, train_loss=float(loss))
    return planted(world)


def completep2025(cells, true):
    world = World()
    for one in cells:
        lazy = one.parameterization == "depth_mup"
        slope = -0.5 if lazy == true else 0.0
        row = {"step": 1, "layer": "hidden.0.first", "layer_index": 1, "role": "hidden"}
        size = (one.depth / 2) ** slope
        world.add(one, layers=[row | {"update_own": size * world.noise(),
                                      "branch_linearization_error": size * world.noise()}])  # fmt: skip
    return planted(world)


def kunin2024(cells, true):
    world = World()
    for one in cells:
        scale = json.loads(one.settings)["model"]["sigma_weight"]
        first = json.loads(one.sigma)["input"] if one.sigma else 1.0
        law = scale**-2 * first**-1 if true else scale**2 * first
        world.add(one, kernel_distance=0.1 * law * world.noise())
    return planted(world)


def kumar2024(cells, true):
    world = World()
    for one in cells:
        delay = 16 * one.gamma**-0.5 if true else 16 * one.gamma**0.1
        world.add(one, generalization_delay=delay * world.noise())
    return planted(world)


def kalra2023(cells, true):
    world = World()
    for one in cells:
        wide = one.width / 64
        places = {"c_loss": 6.0 / wide**0.3, "c_sharp": 9.0, "c_barrier": 15.0, "c_max": 60.0}
        if not true:
            places |= {"c_loss": 20.0 * wide**0.3, "c_barrier": 5.0}
        trace = [
            {"step": 0, "train_loss": 1.0, "sharpness": 1.0, "loss_barrier": 1.0},
            {"step": 10, "train_loss": 0.5, "sharpness": 2.0 if one.lr > places["c_sharp"] else 0.5,
             "loss_barrier": 2.0 if one.lr > places["c_barrier"] else 1.0},
        ]  # fmt: skip
        world.add(
            one, status="diverged" if one.lr > places["c_max"] else "ok", trace=trace,
            peak_loss_ratio=2.0 if one.lr > places["c_loss"] else 1.0,
        )  # fmt: skip
    return planted(world)


def _output(one, sample, value):
    return {"cell_id": one.cell_id, "step": one.steps, "split": "probe", "sample": sample, "output": 0,
            "value": value, "target": float(np.sign(np.sin(sample)))}  # fmt: skip


def vyas2023(cells, true):
    world, rows = World(), []
    for one in cells:
        world.add(one)
        spread = (one.width / 64) ** (-0.5 if true else 0.2)
        bias = 0.5 * (64 / one.width) if true else 0.5 * (one.width / 64)
        for sample in range(24):
            target = float(np.sign(np.sin(sample)))
            for step in (20, one.steps):
                noise = 0.1 * spread * world.rng.normal()
                rows.append(_output(one, sample, target * (1 + bias) + noise) | {"step": step})
    return planted(world, pd.DataFrame(rows))


def haas2025(cells, true):
    world = World()
    rates = np.logspace(-3.5, 0.5, 64).tolist()  # as fine as the rounds of the experiment make it
    starts = list({replace(one, lr=rates[0]).cell_id: one for one in cells}.values())
    for one in (replace(start, lr=rate) for start in starts for rate in rates):
        wide = one.width / 128
        slope = -0.5 if (one.loss == "cross_entropy") == true else -1.0
        edge = 0.5 * wide**slope * world.noise()
        logit = 16 * (one.lr / (0.1 * wide ** (-1.0 if true else -0.3))) * world.noise()
        world.add(one, status="diverged" if one.lr > edge else "ok", peak_logit=logit)
    return planted(world)
