"""Cells and grids to measure with, composed from the config as `runner sweep` composes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from runner.grid.axes import Axis, expand, expand_logspace
from runner.grid.cell import Cell
from runner.grid.config import cell_from_config, conf_dir
from runner.launching.workers import cores
from runner.planning.costs import Costs
from runner.planning.machine import this_machine
from runner.training.preflight import inspect


def composed(*overrides: str) -> dict[str, Any]:
    """Return the config with these overrides, as plain values, Hydra's own node included."""
    with initialize_config_dir(str(conf_dir()), version_base=None):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
    sweeper = OmegaConf.to_container(config.hydra.sweeper)
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    plain = OmegaConf.to_container(own, resolve=True)
    assert isinstance(plain, dict)
    return {**plain, "sweeper": sweeper}


def cell(*overrides: str) -> Cell:
    """Return the cell that these overrides describe."""
    config = composed(*overrides)
    del config["sweeper"]
    return cell_from_config(config)


def seeds(one: Cell, count: int) -> list[Cell]:
    """Return cells that differ in their seed alone."""
    return [dataclasses.replace(one, seed=seed) for seed in range(count)]


def planned(one: Cell, device: str = "cpu") -> list[Cell]:
    """Return the cells of a pack as large as the planner makes it on this machine, of several seeds."""
    machine = this_machine(torch.device(device), cores() if device == "cpu" else 1)
    return seeds(one, Costs(one, inspect(one), machine).pack_limit())


def default_grid(*overrides: str) -> list[Cell]:
    """Return the cells of `runner sweep` without axes, and with these overrides."""
    given = ("+experiment=default", *overrides)
    axes = {
        key: [yaml.safe_load(value) for value in expand_logspace(key, str(text)).split(",")]
        for key, text in composed(*given)["sweeper"]["params"].items()
    }
    cells: list[Cell] = []
    for name in axes.pop("parameterization"):
        config = composed(*given, f"parameterization={name}")
        del config["sweeper"]
        cells += expand(config, [Axis(key, tuple(values)) for key, values in axes.items()])
    return cells


def of_width(cells: Sequence[Cell], width: int) -> list[Cell]:
    """Return the cells of one width."""
    return [one for one in cells if one.width == width]
