"""One moment of a pack, as measures see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.func import functional_call

from runner import layers
from runner.measures.passes import Pass, forward
from runner.models.ensemble import Ensemble


class Measurement(NamedTuple):
    """What a measure returns.

    Attributes:
        trace: Column to one value per cell.
        layers: Column to layer name to one value per cell.
        outputs: Split to outputs of the network on it, to be kept in the table ``outputs``.
    """

    trace: Mapping[str, Float[Tensor, "cell"]] = {}
    layers: Mapping[str, Mapping[str, Float[Tensor, "cell"]]] = {}
    outputs: Mapping[str, Float[Tensor, "cell sample output"]] = {}


class Snapshot:
    """The parameters of a moment, and everything that follows from them, computed on demand and once.

    All that is kept has a leading ``cell`` axis and does not depend on gamma, learning rate or centring:
    cells that start alike can share the snapshot of their start.

    Args:
        keep: Copy the parameters, so that the snapshot outlives the next step.

    Attributes:
        guesses: Of the start: vectors, one per cell, that iterations begin from; where the last ended.
    """

    def __init__(self, ensemble: Ensemble, step: int, *, keep: bool = False) -> None:
        self.ensemble = ensemble
        self.step = step
        self.parameters: dict[str, Tensor] = {
            path: parameter.detach().clone() if keep else parameter.detach()
            for path, parameter in ensemble.parameters.items()
        }
        self.guesses: dict[str, Tensor] = {}
        self._origin = torch.arange(len(ensemble.cells), device=ensemble.device)
        self._cache: dict[str, Tensor] = {}
        self._readout = ""
        self._shared: dict[str, tuple[tuple[Tensor, ...], Tensor]] = {}
        self._probed: Pass | None = None

    def cached(self, key: str, compute: Callable[[], Float[Tensor, "cell ..."]]) -> Float[Tensor, "cell ..."]:
        """Return the value kept under ``key``, computing it the first time.

        Args:
            compute: Returns it, with a leading ``cell`` axis.
        """
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]

    def shared(
        self, key: str, compute: Callable[[], tuple[Tensor, ...]]
    ) -> tuple[tuple[Shaped[Tensor, "start ..."], ...], Int[Tensor, "cell"]]:
        """Return large values kept once for cells that start alike, and which of them is each cell's.

        Args:
            compute: Returns tensors with a leading axis of the cells there are when it is called.
        """
        if key not in self._shared:
            values = compute()
            self._shared[key] = values, torch.arange(values[0].shape[0], device=values[0].device)
        return self._shared[key]

    def parts(self, bytes_per_cell: int) -> Iterator[tuple[nn.Module, dict[str, Tensor]]]:
        """Yield model and parameters of some cells after the others, so that what is large fits in memory.

        Args:
            bytes_per_cell: Memory that a cell needs for what will be computed.
        """
        for _, piece in self.pieces(bytes_per_cell, layers.kernel_bytes()):
            yield piece.ensemble.model, piece.parameters

    def pieces(self, bytes_per_cell: int, limit: int) -> Iterator[tuple[Int[Tensor, "kept"], Snapshot]]:
        """Yield the places and a snapshot of some cells after the others; all of them at once if they fit.

        Args:
            bytes_per_cell: Memory that a cell needs for what will be computed.
            limit: Bytes for those of a piece, but for a single cell.
        """
        count = len(self.ensemble.cells)
        size = max(1, limit // max(bytes_per_cell, 1))
        for index in torch.split(torch.arange(count, device=self.ensemble.device), size):
            yield index, self.some(index) if count > size else self

    def some(self, index: Int[Tensor, "kept"]) -> Snapshot:
        """Return a snapshot of some cells, of which nothing has been computed; this one keeps all."""
        part = Snapshot(self.ensemble.some(index), self.step)
        part.parameters = {path: value[index] for path, value in self.parameters.items()}
        part.guesses = {key: value[index] for key, value in self.guesses.items()}
        return part

    def distinct(self, *, gamma: bool = True) -> tuple[Int[Tensor, "kept"], Int[Tensor, "cell"]]:
        """Return a cell for each start and gamma there is, and which of them is like each cell at init.

        Args:
            gamma: Whether cells that differ in gamma are unlike; their raw outputs are not.
        """
        unlike = self.ensemble.gamma[:, 0, 0].double()
        key = torch.stack([self._origin.double(), unlike if gamma else torch.zeros_like(unlike)], 1)
        kinds, which = torch.unique(key, dim=0, return_inverse=True)
        places = torch.arange(len(which), device=which.device)
        first = places.new_full((len(kinds),), len(which)).scatter_reduce(0, which, places, "amin")
        return first, which

    def raw_outputs(self, split: str) -> Float[Tensor, "cell sample output"]:
        """Return h on a split."""

        @torch.no_grad()
        def compute() -> Tensor:
            if split == "probe" and self._probed:
                return self._probed.outputs.detach()
            return self.call(self.ensemble.inputs[split])

        return self.cached(f"outputs/{split}", compute)

    def outputs(self, split: str) -> Float[Tensor, "cell sample output"]:
        """Return f on a split."""
        return self.ensemble.function(self.raw_outputs(split), split)

    def features(self) -> dict[str, Float[Tensor, "cell probe unit"]]:
        """Return the hidden representations on probes, each under the name of the layer that it followed."""
        prefix = "features/"
        if not any(key.startswith(prefix) for key in self._cache):
            for name, value in self._features(self.probed().calls).items():
                self._cache[prefix + name] = value
        return {key.removeprefix(prefix): v for key, v in self._cache.items() if key.startswith(prefix)}

    def readout(self) -> str:
        """Return the name of the layer that is called last, whose outputs are the network's."""
        if not self._readout:
            self.features_of(self.ensemble.inputs["probe"][:, :1])
        return self._readout

    def features_of(
        self, x: Shaped[Tensor, "#cell sample *inputs"]
    ) -> dict[str, Float[Tensor, "cell sample unit"]]:
        """Return the hidden representations of these samples, positions side by side; not kept."""
        with torch.no_grad(), layers.record() as tape:
            self.call(x)
        return self._features(tape)

    def probed(self) -> Pass:
        """Return a recorded pass of the probes, kept until cells are selected."""
        if self._probed is None:
            self._probed = forward(self.ensemble.model, self.parameters, self.ensemble.inputs["probe"])
        return self._probed

    def _features(self, tape: list[layers.Call]) -> dict[str, Tensor]:
        self._readout = tape[-1].layer.name
        return {
            item.layer.name: item.features.detach().flatten(2) for item in tape if item.features is not None
        }

    def call(self, x: Shaped[Tensor, "#cell sample *inputs"]) -> Float[Tensor, "cell sample output"]:
        """Apply the networks with this moment's parameters."""
        raw: Tensor = functional_call(self.ensemble.model, self.parameters, (x,))
        return raw

    def select(self, index: Int[Tensor, "kept"]) -> None:
        """Keep the cells at ``index``, in that order; the ensemble is selected by its owner."""
        self.parameters = {path: value[index] for path, value in self.parameters.items()}
        self._probed = None
        self._origin = self._origin[index]
        self.guesses = {key: value[index] for key, value in self.guesses.items()}
        self._cache = {key: value[index] for key, value in self._cache.items()}
        self._shared = {key: (values, which[index]) for key, (values, which) in self._shared.items()}
