"""Tables of worlds in which the claims are true, or false in a chosen way: power laws plus a little noise."""

import numpy as np
import pandas as pd
from synthetic import cell, with_key_columns

from runner.analysis.estimate import Tables

WIDTHS = (64, 128, 256, 512, 1024)
SEEDS = (0, 1, 2, 3)
# Slopes of ntk_change, linearization_error, feature_movement, Frobenius per role, spectral, lambda_max
LAWS = {
    "ntk": {"change": -1, "linear": {"tanh": -1, "relu": -0.6}, "features": -0.5, "spectral": -0.5, "top": 0,
            "input": -0.5, "hidden": -1, "output": -0.5},
    "mup": {"change": 0, "linear": {"tanh": 0, "relu": 0}, "features": 0, "spectral": 0, "top": 0,
            "input": 0, "hidden": -0.5, "output": 0},
    "sp": {"change": -1, "linear": {"tanh": -1, "relu": -0.6}, "features": -0.5, "spectral": -0.5, "top": 1,
           "input": -1.5, "hidden": -1, "output": -0.5},
}  # fmt: skip
LAWS["mean_field"] = LAWS["mup"]


class World:
    """Rows of an experiment, gathered cell by cell."""

    def __init__(self):
        self.cells, self.trace, self.layers = [], [], []
        self.rng = np.random.default_rng(7)

    def noise(self, size=0.02):
        return float(np.exp(size * self.rng.normal()))

    def add(self, one, status="ok", regime="lazy", trace=(), layers=(), **measures):
        """Add a cell (of synthetic.cell), its measures, and the rows of its trace and layers."""
        defaults = {"status": status, "regime": regime, "initial_train_loss": 0.5, "train_loss": 0.01,
                    "lambda_max_init": 1.0, "lr_absolute": one.lr, "lr_sharpness": one.lr}  # fmt: skip
        self.cells.append(one.row() | {"cell_id": one.cell_id} | defaults | measures)
        self.trace += [{"cell_id": one.cell_id} | row for row in trace]
        self.layers += [{"cell_id": one.cell_id} | row for row in layers]

    def tables(self):
        trace = pd.DataFrame(self.trace or None, columns=None if self.trace else ["cell_id", "step"])
        layers = pd.DataFrame(
            self.layers or None, columns=None if self.layers else ["cell_id", "step", "role", "layer_index"]
        )
        return Tables(with_key_columns(pd.DataFrame(self.cells)), trace, layers)


def width(as_if=None, seeds=SEEDS, widths=WIDTHS):
    """claim_width; ``as_if={"ntk": "mup"}`` gives one parameterization the laws of another."""
    world = World()
    for name in LAWS:
        law = LAWS[(as_if or {}).get(name, name)]
        for depth in (1, 2):
            for activation in ("relu", "tanh"):
                for n in widths:
                    for seed in seeds:
                        one = cell(
                            parameterization=name, depth=depth, width=n, seed=seed, lr=1.0,
                            lr_unit="sharpness", model__activation=activation,
                        )  # fmt: skip
                        _wide(world, one, law, activation)
    return world.tables()


def _wide(world, one, law, activation):
    def power(slope, size=1.0):
        return size * (one.width / 64) ** slope * world.noise()

    change = -2 if law is LAWS["sp"] and one.depth == 1 else law["change"]
    rich = law["change"] == 0
    regime = "rich" if rich else ("lazy" if one.width > 128 else "crossover")
    roles = ["input", *["hidden"] * (one.depth - 1), "output"]
    layers = [
        {"step": step, "role": role, "layer_index": index, "movement_frobenius": power(law[role]),
         "movement_spectral": power(law["spectral"]),
         "feature_movement": None if role == "output" else power(law["features"])}
        for step in (5, 150) for index, role in enumerate(roles)
    ]  # fmt: skip
    trace = [
        {"step": step, "train_loss": 0.5 * 0.9**step * (world.noise() if step else 1)} for step in (0, 5)
    ]
    world.add(
        one, regime=regime, trace=trace, layers=layers, param_movement=power(law["input"]),
        ntk_change=power(change), feature_movement=power(law["features"]),
        linearization_error=power(law["linear"][activation]), lambda_max_init=power(law["top"]),
    )  # fmt: skip


def limit(slope=-0.5):
    world = World()
    for activation in ("relu", "erf"):
        for n in WIDTHS:
            for seed in range(16):
                one = cell(width=n, seed=seed, model__activation=activation)
                size = (n / 64) ** slope
                # Quantiles, not draws: a spread has to be exact to be told from its neighbours.
                top = 1 + 0.1 * size * (seed - 7.5)
                world.add(one, ntk_limit_distance=0.3 * size * world.noise(), lambda_max_init=top)
    return world.tables()


def kernel(as_if=None, over_bound=1.0, lambda_min=1e-3):
    """claim_kernel; ``over_bound`` multiplies the loss, relative to what the rate allows."""
    world = World()
    for name in ("ntk", "mup"):
        rich = (as_if or {}).get(name, name) == "mup"
        for depth in (1, 2):
            for n in WIDTHS:
                for seed in SEEDS:
                    one = cell(parameterization=name, depth=depth, width=n, seed=seed, lr=0.1)
                    trace = []
                    for step in (0, 1, 3, 10, 30, 100, 300, 1000):
                        error = min(0.8, 0.01 * step) if rich else 0.3 * (n / 64) ** -0.8
                        moved = min(2.0, 0.01 * step) if rich else 0.05
                        loss = 0.5 * (1 - 0.1 * lambda_min) ** (2 * step)
                        trace.append({
                            "step": step, "kernel_gd_error": error * world.noise() if step else None,
                            "ntk_change": moved, "feature_movement": moved / 2,
                            "train_loss": loss * (over_bound if step else 1) * 0.9 ** (step > 0),
                        })  # fmt: skip
                    world.add(
                        one, regime="rich" if rich else "lazy", trace=trace, lambda_min_init=lambda_min,
                        test_loss=(0.1 if rich else 0.2) * world.noise(), kernel_regression_loss_init=0.2,
                    )  # fmt: skip
    return world.tables()


def edges(slope=-1.0, richer=1.0):
    """claim_edges: the critical lr goes as width^slope, the movement as lr^richer."""
    world = World()
    for n in WIDTHS:
        for seed in SEEDS:
            critical = 0.1 * (n / 64) ** slope * world.noise()
            for lr in np.geomspace(1e-3, 1, 25):
                one = cell(parameterization="sp", width=n, seed=seed, lr=float(lr))
                relative = lr / critical
                status = "diverged" if relative > 2 else "ok"
                moved = 0.1 * relative**richer * world.noise()
                trace = [
                    {"step": step, "train_loss": loss, "ntk_change": moved * step / 100}
                    for step, loss in ((0, 0.5), (10, 0.4), (100, 0.01))
                ]
                world.add(
                    one, status=status, trace=trace, ntk_change=moved, feature_movement=moved / 2,
                    lambda_max_init=2 / critical,
                )  # fmt: skip
    return world.tables()


def best_lr(slopes=None):
    """claim_best_lr: the best lr goes as width^slope."""
    slopes = {"sp": -1.0, "mup": 0.0, "ntk": 0.0} | (slopes or {})
    world = World()
    for name, slope in slopes.items():
        for n in (32, 64, 128, 256, 512):
            for seed in SEEDS:
                for power in range(-12, 13):
                    one = cell(parameterization=name, width=n, seed=seed, lr=2.0**power)
                    best = 4 + slope * np.log2(n / 32) if slope < 0 else slope * np.log2(n / 32)
                    loss = 0.01 * np.exp(0.1 * (power - best) ** 2) * world.noise(0.001)
                    world.add(one, train_loss=loss, test_loss=loss)
    return world.tables()


def richness(exponent=0.5, size=0.05):
    """claim_richness: movement is size * gamma * (width / 64)^-exponent."""
    world = World()
    for n in WIDTHS:
        for seed in SEEDS:
            for gamma in (0.1, 1.0, 3.0, 10.0, 30.0, 100.0):
                one = cell(parameterization="ntk", width=n, seed=seed, gamma=gamma)
                moved = size * gamma * (n / 64) ** -exponent * world.noise()
                regime = "lazy" if moved < 0.1 else "rich" if moved > 0.5 else "crossover"
                world.add(one, regime=regime, ntk_change=moved, feature_movement=moved / 2)
    return world.tables()


def tasks(features=1.0, lazy=1.0, converged=1.0):
    """claim_tasks: features help if 1, harm if -1; a lazy network's loss is ``lazy`` times the kernels'.

    That of one trained to convergence is ``converged`` times that of its own kernel.
    """
    world = World()
    for data in ("xor", "single_index", "staircase", "digits"):
        for seed in SEEDS:
            for name in ("ridge_ntk", "rbf_svm"):
                world.add(cell(model=name, data=data, seed=seed, lr=1.0), regime=None, test_loss=0.4)
            long = cell(parameterization="ntk", data=data, seed=seed, gamma=0.1, lr=1.5, steps=4000)
            world.add(
                long, regime="lazy", train_loss=1e-5, test_loss=0.4 * converged * world.noise(),
                kernel_interpolation_loss_init=0.4, ntk_change=0.01, feature_movement=0.01,
            )  # fmt: skip
            for name, gamma in (("ntk", 0.1), ("ntk", 1.0), ("mup", 1.0)):
                one = cell(parameterization=name, data=data, seed=seed, gamma=gamma, lr=1.0)
                rich = name == "mup"
                loss = 0.4 * lazy
                if rich:
                    loss = 0.02 if features > 0 else 0.8
                gain = features * (0.1 if rich else gamma / 100) * world.noise()
                world.add(
                    one, regime="rich" if rich else "lazy", test_loss=loss * world.noise(),
                    kernel_regression_loss_init=0.4, ntk_gain=gain, transfer_gain=gain if rich else gain / 10,
                    ntk_change=(2.0 if rich else gamma / 20) * world.noise(), feature_movement=0.5,
                )  # fmt: skip
    return world.tables()


def depth(sign=1.0):
    """claim_depth: the loss that is left grows with the condition number, or falls if sign is -1."""
    world = World()
    for deep in (1, 4, 16):
        for sigma in (0.5, 1.0, 2.0):
            for seed in SEEDS:
                condition = np.exp(deep / sigma) * world.noise()
                left = 1 / (1 + np.exp(-sign * (deep / sigma - 5)))
                one = cell(depth=deep, seed=seed, model__sigma_weight=sigma)
                world.add(one, condition_number_init=condition, train_loss=0.5 * left)
    return world.tables()


def infinite(mean=-1.0, spread=-0.5, left=0.0):
    """claim_infinite: mean deviations and spreads as powers of the width; ``left`` stays at any width."""
    world = World()
    draws = np.sqrt(2) * (np.arange(16) - 7.5) / 7.5  # exact, as in the limit
    kinds = [("linear", depth, gamma) for depth in (1, 2, 3) for gamma in (0.1, 10.0)] + [("tanh", 1, 1.0)]
    for activation, depth, gamma in kinds:
        for n in (64, 128, 256, 512):
            for seed in range(16):
                one = cell(
                    parameterization="mup", width=n, seed=seed, depth=depth, gamma=gamma,
                    model__activation=activation,
                )  # fmt: skip
                scatter = 0.05 * (n / 64) ** spread * draws[seed]
                rest = 0.01 * (n / 64) ** spread * draws[(5 * seed) % 16]  # that the start does not explain
                gap = 0.2 * (n / 64) ** mean + scatter + rest + left
                trace = [
                    {"step": step, "train_loss": (1 + off) * loss, "limit_train_loss": loss,
                     "limit_kernel_gap": off, "limit_kernel_distance": abs(off), "limit_error": 0.0}
                    for step, loss, off in (
                        (0, 0.5, scatter), (1, 1e-9, scatter), (50, 0.2, gap), (100, 0.1, gap),
                    )
                ]  # fmt: skip
                world.add(one, regime="rich", trace=trace)
    return world.tables()


def truth():
    """Every experiment, in a world where all claims hold."""
    return {
        "claim_width": width(), "claim_limit": limit(), "claim_kernel": kernel(), "claim_edges": edges(),
        "claim_best_lr": best_lr(), "claim_richness": richness(), "claim_tasks": tasks(),
        "claim_depth": depth(), "claim_adam": width(), "claim_infinite": infinite(),
    }  # fmt: skip
