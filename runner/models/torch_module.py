"""A plain ``torch.nn.Module`` as an ensemble."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call

from runner.errors import UserError, unknown
from runner.layers import Again, Call, Layer, Mark, Opaque
from runner.layers.base import factoring, put, recording
from runner.models.branches import FACTOR, Branches
from runner.models.leaves import Listened, Plain, leaves_of
from runner.models.listening import Heard, listening
from runner.models.mapped import can_be_mapped, cells_at_once, mapped
from runner.models.own_init import OwnInit
from runner.models.own_module import build_module, sample_of, submodules_of
from runner.models.substitutes import substituted
from runner.numerics.logits import Logits
from runner.numerics.outputs import tensor_of
from runner.scaling.parameterization import Role

INITS = ("role", "own")
_WIDER = 2
"""The module is built at the cell's width and at so many times it."""

State = Mapping[str, Tensor]
"""Name of a parameter of the module to its value."""


class TorchModule(nn.Module):
    """Any module, trained and measured as the built-in models are.

    The module is built at two widths; how its parameters grow, and what is summed over where they are used,
    tells their roles. Init, learning rates, movement and kernel follow from those. Its own forward pass runs
    for all cells at once through ``torch.func.vmap`` or, where it has an operation that cannot be batched or
    large convolutions, for one after the other. The hidden representation after a layer is what the next
    one receives.

    Args:
        width: Handed to the module.
        depth: Handed to the module if it takes it.
        inputs: Shape of one sample, likewise.
        outputs: Network outputs, likewise.
        module: ``_target_``, and further keys of the module.
        sigma_weight: Init standard deviation of a weight times sqrt(fan_in), at base width.
        sigma_bias: Init standard deviation of a bias.
        init: ``role``, normal weights of these standard deviations, or ``own``, the module's own draws with
            the cell's seed, rescaled where they do not scale with width as the parameterization asks.
        roles: Pattern of parameter names to the role that they have, where shapes and use do not tell it.
        features: Patterns of names of submodules whose outputs are the hidden representations; what layers
            receive by default.
        branches: Patterns of names of submodules whose outputs are added to a skip connection: what scales
            with depth, with the other parameters of their blocks.

    Raises:
        UserError: If a parameter's role cannot be told, or the module cannot be trained as an ensemble.

    References:
        Yang et al. (2022), arXiv 2203.03466, appendix B; base shapes of https://github.com/microsoft/mup.
    """

    def __init__(
        self, width: int, depth: int, inputs: tuple[int, ...], outputs: int,
        module: Mapping[str, Any], sigma_weight: float = 1.0, sigma_bias: float = 0.0, init: str = "role",
        roles: Mapping[str, Role] | None = None, features: Sequence[str] = (), branches: Sequence[str] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        if init not in INITS:
            raise unknown("model.init", init, INITS)

        def make(times: int) -> Callable[[], nn.Module]:
            return lambda: build_module(
                module, width=times * width, depth=depth, inputs=tuple(inputs), outputs=outputs
            )

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # what is drawn and not trained is the same for all cells
            shell, wider = make(1)(), make(_WIDER)()
        self._own = OwnInit(make(1), make(_WIDER), _WIDER) if init == "own" else None
        plain = Plain(shell, wider, sample_of(inputs), roles or {}, self._own, sigma_weight, sigma_bias)
        found = leaves_of(plain)
        self._leaves = found
        self._features = submodules_of(shell, features, "features")
        self._marks: dict[str, Mark] = {path: Mark(tie.role) for path, tie in found.tied.items()}
        self._marks |= {path: Mark("activation") for path in self._features if path not in found.leaves}
        rows = {path: leaf.layer for path, leaf in found.leaves.items()} | self._marks
        for path in _parents_first(found.order([*rows])):
            _place(self, path, rows[path])
        for path, layer in self.named_modules():
            if isinstance(layer, Layer):
                layer.name = path
        self._branches = self._in_blocks(submodules_of(shell, branches, "branches"))
        self._listened = Listened.to(found, self._features)
        self._batched = can_be_mapped(shell, plain.sample)
        self._constants = dict(shell.named_buffers(remove_duplicate=False))
        for parameter in shell.parameters():
            parameter.data = torch.empty(0)  # its cells take their place
        # In a tuple, so that its parameters do not count as this model's.
        self._shell = (shell,)

    def _in_blocks(self, paths: Sequence[str]) -> Branches | None:
        """Mark what belongs to the blocks of these branches."""
        if not paths:
            return None
        branches = Branches(paths)
        for path, leaf in self._leaves.leaves.items():
            if branches.holds(leaf.owner or path):
                leaf.layer.belong_to_block()
        return branches

    def forward(self, x: Shaped[Tensor, "#cell sample *inputs"]) -> Float[Tensor, "cell sample *outputs"]:
        """Run the module for every cell."""
        if self._own:
            self._own.forget()
        samples, axis = (x[0], None) if x.shape[0] == 1 else (x, 0)
        state = self._state(
            {held.path: getattr(held.layer, held.spec) for held in self._leaves.held.values()}
        )
        if recording():
            return self._recorded(state, samples, axis)
        count = len(samples if axis is None else samples[0])
        # Torch's own kernels do where nothing is batched: only what is recorded is differentiated twice.
        with substituted() if self._batches(count) else nullcontext():
            outputs: Tensor = self._each_cell(self._run, count, 0, axis)(state, samples)
        return outputs

    def _state(self, raw: State) -> dict[str, Tensor]:
        """The module's parameters in force, from the raw ones by path."""
        state = {name: held.used(raw[held.path]) for name, held in self._leaves.held.items()}
        return state | {FACTOR: self._branches.factor} if self._branches else state

    def _each_sample(self, function: Callable[..., Any], *axes: int | None) -> Callable[..., Any]:
        return mapped(function, axes, batched=self._batched)

    def _each_cell(self, function: Callable[..., Any], samples: int, *axes: int | None) -> Callable[..., Any]:
        """Map over cells with so many samples each."""
        return mapped(function, axes, batched=self._batches(samples))

    def _batches(self, samples: int) -> bool:
        """Tell whether cells with so many samples each run as one."""
        device = next(self.parameters()).device
        return self._batched and cells_at_once(self._leaves.convolved, self._leaves.recurred, samples, device)

    def _run(self, state: State, samples: Tensor, path: str = "", args: Any = None) -> Tensor:
        """What one cell's module returns, or the submodule at a path."""
        module, prefix = self._shell[0].get_submodule(path), f"{path}." if path else ""
        like = next(iter(state.values()))
        factor = None if path else state.get(FACTOR)  # not of what a branch returns by itself
        own = {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix) and name != FACTOR
        }
        buffers = {
            name.removeprefix(prefix): value.to(like if value.is_floating_point() else like.device)
            for name, value in self._constants.items()
            if name.startswith(prefix)
        }
        args, kwargs = args or ((samples,), {})
        with self._branches.multiplied(module, factor) if self._branches else nullcontext():
            return _outputs(functional_call(module, {**own, **buffers}, args, kwargs, tie_weights=False))

    def _recorded(self, state: State, samples: Tensor, axis: int | None) -> Tensor:
        """Run the module for every cell and sample, and put its calls on the tape.

        Inside vmap nothing can be recorded. Zeros added to what a layer returns take the place of its outputs
        on the tape, zeros added to the parameters of every sample that of an opaque layer's: a derivative
        with respect to them is one with respect to what they were added to.
        """
        like = next(iter(state.values()))
        cells, count = len(like), samples.shape[axis is not None]
        extra: dict[str, Tensor] = {}
        nudges: list[Tensor] | None = None
        added: list[Tensor] | None = None
        parameters: dict[Opaque, Tensor] = {}
        if factoring():
            for layer in self._listened.opaque:
                parameters[layer] = like.new_zeros(cells, count, sum(layer.sizes), requires_grad=True)
            extra = self._extra(parameters)
            with torch.no_grad(), substituted():
                one = samples[:1] if axis is None else samples[:, :1]
                returned = self._heard(state, {}, one, axis, None)[1].returned
            nudges = [
                _without_batch(value.new_empty(cells, count, *value.shape[2:])).zero_().requires_grad_()
                for value in returned
            ]
            added = [
                nudge.view(cells, count, *value.shape[2:])
                for nudge, value in zip(nudges, returned, strict=True)
            ]
        with substituted():
            outputs, heard = self._heard(state, extra, samples, axis, added)
        put(self._calls(heard, nudges, parameters, cells, count, like))
        return outputs

    def _extra(self, parameters: Mapping[Opaque, Tensor]) -> dict[str, Tensor]:
        """What is added to the module's parameters in every sample, ``[cell, sample, ...]``."""
        extra: dict[str, Tensor] = {}
        split = {
            layer: dict(zip(layer.specs, torch.split(value, layer.sizes, 2), strict=True))
            for layer, value in parameters.items()
        }
        for name, held in self._leaves.held.items():
            if isinstance(held.layer, Opaque):
                part = split[held.layer][held.spec]
                part = part.view(*part.shape[:2], *held.layer.specs[held.spec].shape)
                extra[name] = held.layer.scale(held.factor, part)
        return extra

    def _heard(
        self, state: State, extra: State, samples: Tensor, axis: int | None, nudges: list[Tensor] | None
    ) -> tuple[Tensor, Heard]:
        """Outputs of all cells and samples, and what was heard, with their axes in front."""
        kept = Heard()

        def one(own: State, more: State, sample: Tensor, added: list[Tensor] | None) -> Any:
            to = self._listened
            with listening(self._shell[0], to.calls, to.layers, to.ends, to.whole, added) as heard:
                used = {name: value + more[name] if name in more else value for name, value in own.items()}
                outputs = self._run(used, sample[None])[0]
            kept.events, kept.arguments, kept.attending = heard.events, heard.arguments, heard.attending
            received = [
                to.received[event.path](value) if event.path in to.received else value
                for event, value in zip(heard.events, heard.received, strict=True)
            ]
            return outputs, received, heard.given, heard.returned, heard.logits

        more, added, count = 0 if extra else None, 0 if nudges else None, samples.shape[axis is not None]
        inner = self._each_sample(one, None, more, 0, added)
        outer = self._each_cell(inner, count, 0, more, axis, added)
        outputs, kept.received, kept.given, kept.returned, kept.logits = outer(state, extra, samples, nudges)
        return outputs, kept

    def _calls(
        self, heard: Heard, nudges: list[Tensor] | None, parameters: Mapping[Opaque, Tensor],
        cells: int, count: int, like: Tensor,
    ) -> list[Call]:  # fmt: skip
        """The tape: a call of an opaque layer once, where its module was called last."""
        nothing = like.new_empty(cells, count, 0)
        returned = iter(heard.returned if nudges is None else nudges)
        tape: list[Call] = []

        def once(layer: Layer, outputs: Tensor, again: Again | None = None) -> Call:
            tape[:] = [call for call in tape if call.layer is not layer]
            tape.append(Call(layer, like.new_ones(1, count, 1), outputs, again=again))
            return tape[-1]

        to = self._listened
        for place, event in enumerate(heard.events):
            path, received = event.path, heard.received[place]
            if event.ended:
                call = once(self._marks[path], nothing) if path in self._marks else tape[-1]
                call.features = received
                continue
            if path in to.received:
                outputs = _without_batch(next(returned))
                tape.append(Call(to.received_by[path], _without_batch(received), outputs))
            for layer in to.owners.get(path, ()):
                names = tuple(f"{layer.name}.{spec}" for spec in layer.specs)
                once(layer, parameters.get(layer, nothing), self._again(heard, place, names))
            if path in self._leaves.tied:
                again = self._again(heard, place, (self._leaves.tied[path].held.path,))
                once(self._marks[path], nothing, again)
            logits = [value for value, of in zip(heard.logits, heard.attending, strict=True) if of == place]
            if logits:
                tape[-1].logits = Logits(
                    *(torch.cat([x.flatten(2) for x in one], 2).detach() for one in zip(*logits, strict=True))
                )
            after = heard.events[place + 1] if place + 1 < len(heard.events) else None
            if after and after.follows and not self._features and path not in to.containers:
                tape[-1].features = _without_batch(heard.received[place + 1])
        return tape

    def _again(self, heard: Heard, place: int, own: tuple[str, ...]) -> Again | None:
        """How to run a submodule once more; not one around others, whose changes would be in its own."""
        if (path := heard.events[place].path) in self._listened.containers or not heard.given[place]:
            return None
        arguments = heard.arguments[path]

        def run(raw: State, given: Sequence[Tensor]) -> Tensor:
            def one(state: State, *tensors: Tensor) -> Tensor:
                return self._run(state, tensors[0], path, arguments(tensors))

            axes = [0] * len(given)
            with substituted(), torch.no_grad():
                inner = self._each_sample(one, None, *axes)
                outer = self._each_cell(inner, given[0].shape[1], 0, *axes)
                returned: Tensor = outer(self._state(raw), *given)
            return returned

        return Again(tuple(heard.given[place]), run, own)


def _without_batch(value: Tensor) -> Tensor:
    """Take away the axis of the one sample that a module was run on, after those of cells and samples."""
    return value.squeeze(2) if value.dim() > 3 and value.shape[2] == 1 else value


def _outputs(returned: Any) -> Tensor:
    """The tensor in what a module returns."""
    outputs = tensor_of(returned)
    if outputs is None:
        kind = type(returned).__name__
        raise UserError(f"model.module must return a tensor of numbers, got {kind}; return the outputs")
    return outputs


def _parents_first(paths: Sequence[str]) -> Iterator[str]:
    """Yield paths in their order, but each after those that it lies in."""
    done: set[str] = set()
    for path in paths:
        parts = path.split(".")
        for count in range(1, len(parts) + 1):
            part = ".".join(parts[:count])
            if part in paths and part not in done:
                done.add(part)
                yield part


def _place(root: nn.Module, path: str, layer: Layer) -> None:
    """Make a layer the submodule at a dotted path."""
    *parents, last = (path or "top").split(".")
    for part in parents:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    root.add_module(last, layer)
