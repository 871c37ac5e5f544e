"""``runner.coordinate_check``: is a plain torch module mu-P under its own init, optimizer and training?"""

import io
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.optim import Optimizer

from runner.analysis.coordinates import COLUMNS, Group
from runner.coordinates.training import Loss, call, inputs_of, is_adam, outputs_of, taken, train, train_with
from runner.coordinates.watch import Shapes, Watch
from runner.errors import UserError
from runner.views import alt
from runner.views.check import check_view
from runner.views.sizes import PAGE
from runner.views.terminal import console
from runner.views.view import View

WIDTHS = (64, 128, 256, 512, 1024)


@dataclass(frozen=True, slots=True)
class CoordinateCheck:
    """What :func:`coordinate_check` found; printed, it says what ``runner check`` would.

    Attributes:
        table: One row per layer, width, seed and step: ``layer``, ``role``, ``update_own``,
            ``update_passed`` and ``update_size``, root mean squares on the probes.
        view: Verdicts and figure.
    """

    table: pd.DataFrame
    view: View

    @property
    def verdict(self) -> str:
        """``pass``, ``fail`` or ``inconclusive``."""
        return str(self.view.asked["verdict"])

    @property
    def layers(self) -> pd.DataFrame:
        """One row per layer in forward order: its verdict, and the slopes of its parts with intervals."""
        return self.view.table

    @property
    def blame(self) -> dict[str, Any] | None:
        """The layer to blame, what is likely wrong with it and why; None if no layer fails."""
        found: dict[str, Any] | None = self.view.asked["groups"][0]["blame"]
        return found

    def figure(self) -> alt.ConcatChart:
        """Return the figure, an Altair chart: per layer the parts of its change against width."""
        return self.view.chart

    def save(self, path: str | Path, inches: float = PAGE) -> Path:
        """Write the figure as .svg, .png or .pdf, and beside it its caption, whose path is returned."""
        return self.view.save(path, inches)

    def __str__(self) -> str:
        """Return the table and the verdict as text."""
        text = io.StringIO()
        self.view.print(console(text))
        return text.getvalue().rstrip()

    def _repr_mimebundle_(self, *args: Any, **keywords: Any) -> Any:
        return self.view._repr_mimebundle_(*args, **keywords)


def coordinate_check(
    make_model: Callable[[int], nn.Module],
    optimizer: Callable[[nn.Module], Optimizer] | None,
    batches: Iterable[Any] | Callable[[nn.Module], object],
    *,
    widths: Sequence[int] = WIDTHS,
    seeds: int | Sequence[int] = 3,
    steps: int = 5,
    loss: Loss | None = None,
    probe: Any = None,
    adam: bool | None = None,
) -> CoordinateCheck:
    """Check whether every layer of a network changes by the same amount at any width, as under mu-P.

    The network is trained for a few steps at each width and seed, as it is: its own init, its own optimizer,
    its own multipliers. On probes, in the mode of evaluation, what every module returns is compared with the
    start and parted into what its own parameters changed and what the change of its inputs did; attention
    logits are caught where torch makes weights of them.

    Args:
        make_model: From a width to a new module; torch is seeded before.
        optimizer: From a module to its optimizer; None with a training function.
        batches: Pairs (inputs, targets), or mappings of keywords as transformers take them, with ``labels``;
            the first ones, the same for each network, again from the start if there are fewer than steps. Or
            a function that is given the module and trains it: it is looked at after each step of its
            optimizer, at its end if it uses none of torch's.
        widths: At least three.
        seeds: How many, or which; at least two.
        steps: How many steps are looked at.
        loss: From what the module returns and the targets (the whole batch where it is a mapping) to a
            number. By default the ``loss`` that the module returns, else cross-entropy for targets that are
            whole numbers and the mean squared error for others.
        probe: Inputs on which layers are compared; those of the first batch by default.
        adam: Whether updates are sign-like, as Adam's; by default told by the class of the optimizer.

    Returns:
        The verdict on each layer, the layer to blame, the table and the figure.

    Raises:
        UserError: If an argument does not fit, or the networks of two widths have other layers.

    References:
        Yang et al. (2022), arXiv 2203.03466, appendix D.1; Haas et al. (2025), arXiv 2505.22491.
    """
    which = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    sizes = sorted(set(widths))
    _require(sizes, which, steps, optimizer, batches, probe)
    fixed = [] if callable(batches) else taken(batches, steps)
    inputs = inputs_of(fixed[0]) if probe is None else probe
    records: list[_Record] = []
    for width, seed in itertools.product(sizes, which):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            record = _Record(_made(make_model, width), inputs, width, seed, steps)
            _require_same_layers(record, records[:1])
            if callable(batches):
                train_with(batches, record.model, record.after)
            else:
                assert optimizer is not None
                train(record.model, optimizer, fixed, loss, record.after)
            record.close()
        records.append(record)
    first, last = records[0], records[-1]
    roles = _roles(first.shapes, last.shapes)
    table = pd.DataFrame([row for record in records for row in record.rows], columns=[*COLUMNS])
    table["role"] = [roles.get(name) for name in table["layer"]]
    stepper = first.optimizer
    label = "training" if stepper is None else type(stepper).__name__
    group = Group(label, is_adam(stepper) if adam is None else adam, max(one.step for one in records), table)
    what = f"Widths {', '.join(map(str, sizes))}, {len(which)} seeds, {steps} steps."
    return CoordinateCheck(table.rename(columns={"size": "width"}), check_view([group], what))


class _Record:
    """One network while it trains, and the rows that it gives."""

    def __init__(self, model: nn.Module, inputs: Any, width: int, seed: int, steps: int) -> None:
        self.model = model
        self.rows: list[dict[str, Any]] = []
        self.step = 0
        self.optimizer: Optimizer | None = None
        self._key = {"size": width, "seed": seed}
        self._steps = steps
        self._diverged = False
        self._watch = Watch(model, lambda module: outputs_of(call(module, inputs)))
        self.names = self._watch.names
        self.shapes = self._watch.shapes()  # the model itself is let go of in the end

    def after(self, optimizer: Optimizer | None) -> bool:
        """Look at the network after a step, and return whether to go on."""
        if self._diverged or self.step >= self._steps:
            return False
        self.step += 1
        self.optimizer = optimizer
        changes = self._watch.changes()
        if not np.isfinite([size for parts in changes.values() for size in parts.values()]).all():
            self._diverged = True
            return False
        self.rows += [
            {"layer_index": place, "layer": name, "step": self.step, **self._key, **changes[name]}
            for place, name in enumerate(self.names)
        ]
        return self.step < self._steps

    def close(self) -> None:
        """Let go of the model; UserError if it was not trained."""
        if not self._watch.moved():
            raise UserError(
                f"optimizer must train the model, but none of its parameters changed at width "
                f"{self._key['size']}; train the module that is given, at a learning rate above 0"
            )
        del self.model, self._watch


def _made(make_model: Callable[[int], nn.Module], width: int) -> nn.Module:
    model = make_model(width)
    if not isinstance(model, nn.Module) or not any(p.requires_grad for p in model.parameters()):
        raise UserError(
            f"make_model must return a torch.nn.Module with parameters, got {type(model).__name__} at width "
            f"{width}"
        )
    return model


def _require(
    widths: Sequence[int], seeds: Sequence[int], steps: int, optimizer: object, batches: object, probe: object
) -> None:
    """Refuse arguments that do not fit, before anything is trained."""
    for name, values, least, unit in (("widths", widths, 3, "a slope"), ("seeds", seeds, 2, "an interval")):
        if len(values) < least or not all(isinstance(value, int) for value in values):
            raise UserError(f"{name} must be at least {least} whole numbers for {unit}, got {values}")
    if widths[0] < 1 or steps < 1:
        raise UserError(f"widths and steps must be at least 1, got {widths[0]} and {steps}")
    if callable(batches) and probe is None:
        raise UserError("probe must be given with a training function, got None; e.g. probe=inputs")
    if not callable(batches) and not callable(optimizer):
        raise UserError(
            "optimizer must be a function of the model, got "
            f"{type(optimizer).__name__}; e.g. lambda model: torch.optim.SGD(model.parameters(), lr=0.1)"
        )


def _require_same_layers(record: _Record, others: Sequence[_Record]) -> None:
    for other in others:
        if record.names != other.names:
            odd = sorted(set(record.names) ^ set(other.names)) or ["another order"]
            raise UserError(f"make_model must give the same layers at every width, got {odd[0]} at some only")


def _roles(narrow: Mapping[str, Shapes], wide: Mapping[str, Shapes]) -> dict[str, str]:
    """Return the role of each layer by what of it grows with the width, where that tells."""
    roles = {(False, True): "input", (True, True): "hidden", (True, False): "output"}
    found = {}
    for name, small in narrow.items():
        large = wide[name]
        grows = small.given != large.given, small.returned != large.returned
        role = "vector" if large.axes < 2 else roles.get(grows)
        if role:
            found[name] = role
    return found
