"""One moment of a pack, as measures see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call

from runner import layers
from runner.ensemble import Ensemble


class Measurement(NamedTuple):
    """What a measure returns.

    Attributes:
        trace: Column to one value per cell.
        layers: Column to layer name to one value per cell.
    """

    trace: Mapping[str, Float[Tensor, "cell"]] = {}
    layers: Mapping[str, Mapping[str, Float[Tensor, "cell"]]] = {}


class Snapshot:
    """The parameters of a moment, and everything that follows from them, computed on demand and once.

    All that is kept has a leading ``cell`` axis and does not depend on gamma, learning rate or centring:
    cells that start alike can share the snapshot of their start.

    Args:
        ensemble: The pack.
        step: Optimizer steps done.
        keep: Copy the parameters, so that the snapshot outlives the next step.
    """

    def __init__(self, ensemble: Ensemble, step: int, *, keep: bool = False) -> None:
        self.ensemble = ensemble
        self.step = step
        self.parameters: dict[str, Tensor] = {
            path: parameter.detach().clone() if keep else parameter.detach()
            for path, parameter in ensemble.parameters.items()
        }
        self._cache: dict[str, Tensor] = {}

    def cached(self, key: str, compute: Callable[[], Float[Tensor, "cell ..."]]) -> Float[Tensor, "cell ..."]:
        """Return the value kept under ``key``, computing it the first time.

        Args:
            key: Name of the quantity.
            compute: Returns it, with a leading ``cell`` axis.
        """
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]

    def raw_outputs(self, split: str) -> Float[Tensor, "cell sample output"]:
        """Return h on a split."""

        @torch.no_grad()
        def compute() -> Tensor:
            return self.call(self.ensemble.inputs[split])

        return self.cached(f"outputs/{split}", compute)

    def outputs(self, split: str) -> Float[Tensor, "cell sample output"]:
        """Return f on a split."""
        return self.ensemble.function(self.raw_outputs(split), split)

    def features(self) -> dict[str, Float[Tensor, "cell probe unit"]]:
        """Return the activations after every layer that an activation function follows, on probes."""
        prefix = "features/"
        if not any(key.startswith(prefix) for key in self._cache):
            with torch.no_grad(), layers.record() as tape:
                self.call(self.ensemble.inputs["probe"])
            for item in tape:
                if item.features is not None:
                    self._cache[prefix + item.layer.name] = item.features
        return {key.removeprefix(prefix): v for key, v in self._cache.items() if key.startswith(prefix)}

    def call(self, x: Float[Tensor, "#cell sample *inputs"]) -> Float[Tensor, "cell sample output"]:
        """Apply the networks with this moment's parameters."""
        raw: Tensor = functional_call(self.ensemble.model, self.parameters, (x,))
        return raw

    def select(self, index: Int[Tensor, "kept"]) -> None:
        """Keep the cells at ``index``, in that order; the ensemble is selected by its owner."""
        self.parameters = {path: value[index] for path, value in self.parameters.items()}
        self._cache = {key: value[index] for key, value in self._cache.items()}


class Measure(Protocol):
    """A measure: compares now with the start, for all cells of a pack at once."""

    def __call__(self, now: Snapshot, start: Snapshot) -> Measurement:
        """Return the measured columns."""
        ...
