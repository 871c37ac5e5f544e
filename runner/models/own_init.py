"""The init that a plain module comes with, and how it scales with width."""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from runner.models.operations import Operations

_DEVIATIONS = 5
"""Standard deviations by which sizes of random draws may be off."""


class OwnInit:
    """Parameters as the module draws them, by seed.

    A draw is what ``torch.manual_seed(seed)`` and the constructor give.

    Args:
        make: Builds the module at the cell's width.
        make_wider: Builds it at ``ratio`` times that width.
    """

    def __init__(
        self, make: Callable[[], nn.Module], make_wider: Callable[[], nn.Module], ratio: float
    ) -> None:
        self._make = make
        self.exponents = _exponents(make, make_wider, ratio)
        self._drawn = lru_cache(maxsize=None)(self._draw)

    def draw(self, name: str, seed: int) -> Tensor:
        """Return a parameter as drawn with a seed."""
        return self._drawn(seed)[name]

    def forget(self) -> None:
        """Free what was drawn."""
        self._drawn.cache_clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> "OwnInit":
        """Return itself: it holds nothing of a cell."""
        return self

    def _draw(self, seed: int) -> dict[str, Tensor]:
        return _seeded(self._make, seed)


def _seeded(make: Callable[[], nn.Module], seed: int) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {name: value.detach() for name, value in make().named_parameters(remove_duplicate=False)}


class _SameDraws(Operations):
    """Every draw of a distribution gives the same quantile, so that sizes can be compared exactly."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        returned = func(*args, **(kwargs or {}))
        name = self.name_of(func)
        rest = [*args[1:], *(kwargs or {}).values()]
        if name == "uniform_":
            low, high = (*rest, 0.0, 1.0)[:2] if len(rest) > 1 else (0.0, 1.0)
            returned.fill_(low + 0.75 * (high - low))
        elif name == "normal_":
            mean, std = rest[:2] if len(rest) > 1 else (0.0, 1.0)
            returned.fill_(mean + 0.75 * std)
        elif name in ("rand", "randn", "rand_like", "randn_like"):
            returned.fill_(0.75)
        return returned


def _exponents(
    make: Callable[[], nn.Module], make_wider: Callable[[], nn.Module], ratio: float
) -> dict[str, float]:
    """Return name to e, where a parameter's size shrinks with width as width^(-e), in halves."""
    with torch.random.fork_rng(devices=[]), _SameDraws():
        same = [
            _sizes(dict(build().named_parameters(remove_duplicate=False))) for build in (make, make_wider)
        ]
    drawn = [_sizes(_seeded(build, 0)) for build in (make, make_wider)]
    found: dict[str, float] = {}
    for name, (_, count) in same[0].items():
        exact, rough = (
            _exponent(one[name][0], two.get(name, (0.0, 0))[0], ratio) for one, two in (same, drawn)
        )
        # One quantile everywhere makes no sense for an orthogonal matrix, say; its draws then say otherwise.
        error = _DEVIATIONS / (count**0.5 * math.log(ratio))
        found[name] = round(2 * (rough if abs(exact - rough) > max(error, 0.25) else exact)) / 2
    return found


def _sizes(state: Mapping[str, Tensor]) -> dict[str, tuple[float, int]]:
    """Root mean square and count of the numbers of each parameter."""
    return {
        name: (float(value.detach().double().square().mean().sqrt()), max(value.numel(), 1))
        for name, value in state.items()
    }


def _exponent(size: float, wider: float, ratio: float) -> float:
    usable = 0 < size < math.inf and 0 < wider < math.inf
    return math.log(size / wider) / math.log(ratio) if usable else 0.0
