"""The residual branches of a plain module, which scale with depth."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from runner.layers import Branch

FACTOR = "~branch"
"""Under which a cell's factor is beside its parameters; no parameter can have this name."""


class Branches(Branch):
    """What the branches of one module are multiplied by, for every cell.

    The first tensor that a branch returns is multiplied. To its block belongs all that lies in the same
    submodule, as the norm before it; of branches that lie in none, they themselves.

    Args:
        paths: Of the submodules whose outputs are added to the skip.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        super().__init__()
        self.paths = tuple(paths)
        self._blocks = {path.rpartition(".")[0] or path for path in paths}

    def holds(self, path: str) -> bool:
        """Tell whether a submodule belongs to a block."""
        return any(path == block or path.startswith(f"{block}.") for block in self._blocks)

    @contextmanager
    def multiplied(self, module: nn.Module, factor: Tensor | None) -> Iterator[None]:
        """Multiply what the branches return while the module runs, after all who listen to it by now."""
        handles = []
        if factor is not None:
            handles = [
                module.get_submodule(path).register_forward_hook(_times(factor)) for path in self.paths
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _times(factor: Tensor) -> Callable[..., Any]:
    """A hook that multiplies the first tensor of an output."""

    def hook(_: nn.Module, args: Any, output: Any) -> Any:
        leaves, spec = tree_flatten(output)
        place = next(place for place, value in enumerate(leaves) if isinstance(value, Tensor))
        leaves[place] = leaves[place] * factor
        return tree_unflatten(leaves, spec)

    return hook
