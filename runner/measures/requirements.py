"""What a measure asks of a cell, checked before anything is trained."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from runner.data import Dataset
from runner.errors import UserError
from runner.measures.alignment import cka, target_alignment
from runner.measures.kernel_descent import kernel_gd_error
from runner.measures.limit import ntk_limit_distance
from runner.measures.linearization import linearization_error
from runner.measures.regression import kernel_regression, ntk_gain
from runner.measures.ridge import LEAST_SAMPLES
from runner.measures.schedule import Scheduled
from runner.measures.spectrum import kernel_rows, spectrum
from runner.measures.transfer import transfer_gain
from runner.optim import SGD

MAX_KERNEL_SIZE = 4096
"""Rows of the largest kernel all of whose eigenvalues are computed: some seconds and 134 MB in float64."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What requirements look at.

    Attributes:
        dataset: What the cell trains on.
        optimizer: The ``optimizer`` section.
        loss: Name of the loss.
        batch_size: Samples per step; None for full batch.
        options: Keyword arguments of the measure.
    """

    dataset: Dataset
    optimizer: Mapping[str, Any]
    loss: str
    batch_size: int | None
    options: Mapping[str, Any] = field(default_factory=dict)


def check(measures: Mapping[str, Scheduled], setting: Setting) -> None:
    """Raise UserError for a measure that has no meaning in a setting.

    Args:
        measures: Name to measure.
        setting: Of the cell.
    """
    for name, measure in measures.items():
        function, asked = measure.function, setting
        if isinstance(function, functools.partial):
            asked = replace(setting, options=function.keywords)
            function = function.func
        for require in REQUIREMENTS.get(function, ()):
            require(name, asked)


def _enough_probes(name: str, setting: Setting) -> None:
    least = max(2, setting.dataset.outputs)
    if len(setting.dataset.probe) < least:
        raise UserError(
            f"data.probe_size must be at least {least} for the measure {name} with "
            f"{setting.dataset.outputs} outputs, got {len(setting.dataset.probe)}; raise it"
        )


def _full_batch(name: str, setting: Setting) -> None:
    if setting.batch_size is not None:
        raise UserError(
            f"batch_size must be null for the measure {name}, got {setting.batch_size}; "
            f"use full batch or leave {name} out of measure"
        )


def _mse(name: str, setting: Setting) -> None:
    if setting.loss != "mse":
        raise UserError(
            f"loss must be mse for the measure {name}, got {setting.loss}; "
            f"use loss=mse or leave {name} out of measure"
        )


def _plain_sgd(name: str, setting: Setting) -> None:
    target = setting.optimizer.get("_target_")
    defaults = inspect.signature(SGD).parameters
    extras = {
        key: value
        for key, value in setting.optimizer.items()
        if key not in ("_target_", "name") and not (key in defaults and value == defaults[key].default)
    }
    if target != "runner.optim.SGD" or extras:
        got = f"{target} with {extras}" if extras else target
        raise UserError(
            f"optimizer must be plain gradient descent for the measure {name}, got {got}; "
            f"use optimizer=sgd or leave {name} out of measure"
        )


def _enough_to_split(name: str, setting: Setting) -> None:
    if len(setting.dataset.train) < LEAST_SAMPLES:
        raise UserError(
            f"data.train_size must be at least {LEAST_SAMPLES} for the measure {name}, which chooses a ridge "
            f"on a split of it, got {len(setting.dataset.train)}; raise it"
        )


def _second_labels(name: str, setting: Setting) -> None:
    if setting.dataset.train.second is None or setting.dataset.test.second is None:
        raise UserError(
            f"data must have a second labelling for the measure {name}, got none; give Split.second in train "
            f"and test, or leave {name} out of measure"
        )


def _decomposable(name: str, setting: Setting) -> None:
    samples, outputs = len(setting.dataset.train), setting.dataset.outputs
    kernel = setting.options.get("kernel", "full")
    rows = kernel_rows(kernel, samples, outputs)
    if rows > MAX_KERNEL_SIZE:
        of = f" of the {kernel} kernel with {outputs} outputs" if outputs > 1 else ""
        instead = "lower it, take kernel=trace" if rows > samples else "lower it"
        raise UserError(
            f"data.train_size must be at most {MAX_KERNEL_SIZE * samples // rows} for the measure "
            f"{name}{of}, got {samples}; {instead} or leave {name} out of measure"
        )


REQUIREMENTS: dict[Callable[..., Any], tuple[Callable[[str, Setting], None], ...]] = {
    cka: (_enough_probes,),
    target_alignment: (_enough_probes,),
    linearization_error: (_enough_probes,),
    kernel_gd_error: (_full_batch, _mse, _plain_sgd, _enough_probes),
    kernel_regression: (_enough_to_split,),
    ntk_gain: (_mse, _enough_to_split),
    spectrum: (_decomposable,),
    transfer_gain: (_second_labels, _enough_to_split),
    ntk_limit_distance: (_enough_probes,),
}
