"""A plain ``torch.nn.Module`` as an ensemble."""

import inspect
import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call, vmap

from runner.errors import UserError
from runner.grid import instantiate
from runner.layers import Layer, hidden
from runner.layers.base import recording
from runner.models.leaves import Leaf, leaves_of


class TorchModule(nn.Module):
    """Any module of Linear, Conv2d, Embedding and LayerNorm, trained and measured as the built-in models are.

    The module is built at two widths; how its weights grow tells their roles. Each of its leaves becomes an
    ensemble layer, from which init, learning rates, movement and kernel follow; the module's own forward
    pass runs for all cells at once through ``torch.func.vmap``. The hidden representation after a layer is
    what the next one receives.

    Args:
        width: Handed to the module.
        depth: Handed to the module if it takes it.
        inputs: Shape of one sample, likewise.
        outputs: Network outputs, likewise.
        module: ``_target_``, and further keys of the module.
        sigma_weight: Init standard deviation of a weight times sqrt(fan_in), at base width. The module's own
            init is not used: cells start from their seed and parameterization.
        sigma_bias: Init standard deviation of a bias.

    Raises:
        UserError: If a parameter's role cannot be told, or the module has layers without per-sample kernel.

    References:
        Yang et al. (2022), arXiv 2203.03466, appendix B; base shapes of https://github.com/microsoft/mup.
    """

    def __init__(
        self, width: int, depth: int, inputs: tuple[int, ...], outputs: int,
        module: Mapping[str, Any], sigma_weight: float = 1.0, sigma_bias: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        given = {"depth": depth, "inputs": inputs, "outputs": outputs}
        shell = _build(module, width=width, **given)
        wider = _build(module, width=2 * width, **given)
        self._leaves = leaves_of(shell, wider, sigma_weight=sigma_weight, sigma_bias=sigma_bias)
        for path, leaf in self._leaves.items():
            _place(self, path, leaf.layer)
        for parameter in shell.parameters():
            parameter.data = torch.empty(0)  # its cells take their place
        # In a tuple, so that its parameters do not count as this model's.
        self._shell = (shell.train(),)

    def forward(self, x: Shaped[Tensor, "#cell sample *inputs"]) -> Float[Tensor, "cell sample *outputs"]:
        """Run the module for every cell."""
        state = {
            f"{path}.{name}" if path else name: value
            for path, leaf in self._leaves.items()
            for name, value in leaf.torch_parameters().items()
        }
        samples, axis = (x[0], None) if x.shape[0] == 1 else (x, 0)
        if not recording():
            outputs: Tensor = vmap(self._run, in_dims=(0, axis))(state, samples)
            return outputs
        # Inside vmap nothing can be recorded. Zeros added to what a layer returns take the place of its
        # outputs on the tape: a derivative with respect to them is one with respect to the outputs.
        with torch.no_grad():
            returned = vmap(self._listen, in_dims=(0, axis))(state, samples)[2]
        grad = torch.is_grad_enabled()
        nudges = [torch.zeros_like(value, requires_grad=grad) for value in returned]
        outputs, received, _ = vmap(self._listen, in_dims=(0, axis, 0))(state, samples, nudges)
        for place, (leaf, nudge) in enumerate(zip(self._called, nudges, strict=True)):
            leaf.layer.remember(received[place], nudge)
            if self._followed[place]:
                hidden(received[place + 1])
        return outputs

    def _run(self, state: Mapping[str, Tensor], samples: Tensor) -> Tensor:
        """One cell's outputs."""
        shell, like = self._shell[0], next(iter(state.values()))
        buffers = {
            name: value.to(like) if value.is_floating_point() else value.to(like.device)
            for name, value in shell.named_buffers()
        }
        outputs: Tensor = functional_call(shell, {**state, **buffers}, (samples,))
        return outputs

    def _listen(
        self, state: Mapping[str, Tensor], samples: Tensor, nudges: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """One cell's outputs, and what its layers received and returned, with a nudge added to the latter."""
        called: list[Leaf] = []
        received: list[Tensor] = []
        returned: list[Tensor] = []

        def listen(
            leaf: Leaf, _: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor
        ) -> Tensor:
            if nudges is not None:
                output = output + nudges[len(called)]
            called.append(leaf)
            received.append(args[0] if args else next(iter(kwargs.values())))
            returned.append(output)
            return output

        modules = dict(self._shell[0].named_modules())
        handles = [
            modules[path].register_forward_hook(partial(listen, leaf), with_kwargs=True)
            for path, leaf in self._leaves.items()
        ]
        try:
            outputs = self._run(state, samples)
        finally:
            for handle in handles:
                handle.remove()
        self._called = called
        # Layers side by side, as query and key, receive one representation: it follows what came before.
        self._followed = [
            next_ is not this and next_.is_floating_point() for this, next_ in itertools.pairwise(received)
        ] + [False]
        return outputs, [leaf.received(x) for leaf, x in zip(called, received, strict=True)], returned


def _build(settings: Mapping[str, Any], **given: Any) -> nn.Module:
    """Call the user's class with those of ``given`` that it takes, leaving the random state as it was."""
    target = instantiate.resolve("model.module", settings)
    parameters = inspect.signature(target).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        given = {name: value for name, value in given.items() if name in parameters}
    with torch.random.fork_rng(devices=[]):
        try:
            module = instantiate.call("model.module", settings, **given)
        except UserError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"model.module must be built at width {given.get('width')}, got {type(error).__name__}: "
                f"{reason}; it is built at every width and at twice that, to tell roles"
            ) from error
    if not isinstance(module, nn.Module):
        raise UserError(f"model.module._target_ must return a torch.nn.Module, got {type(module).__name__}")
    return module


def _place(root: nn.Module, path: str, layer: Layer) -> None:
    """Make a layer the submodule at a dotted path."""
    *parents, last = (path or "top").split(".")
    for part in parents:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    root.add_module(last, layer)
