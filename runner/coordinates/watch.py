"""What the modules of a plain network receive and return on probes, and the parts of what changed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from runner.analysis.coordinates import BOUND, PARTS
from runner.analysis.coordinates.signature import LOGITS
from runner.numerics.logits import ListenToLogits, Logits
from runner.numerics.outputs import tensor_of

_SAME = 1e-3
"""How far outputs may be from a multiple of what a layer returned, as a share."""


class Call(NamedTuple):
    """The last call of a module: what it was given and the first tensor that it returned."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Float[Tensor, "..."]


class Shapes(NamedTuple):
    """Sizes of a unit: of what it is given and returns, and how many axes its parameters have at most."""

    given: tuple[int, ...]
    returned: tuple[int, ...]
    axes: int


@dataclass
class Pass:
    """What happened in a forward pass.

    Attributes:
        order: Names of modules and of attention logits, as they were first met.
        calls: Path of a module to its last call.
        logits: Name to the last attention logits of a module.
        outputs: What the network returned.
    """

    order: dict[str, None] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)
    logits: dict[str, Logits] = field(default_factory=dict)
    outputs: Tensor = field(default_factory=lambda: torch.empty(0))
    _inside: list[str] = field(default_factory=list)

    def enter(self, path: str, *_: object) -> None:
        """Note that a module is called."""
        self._inside.append(path)
        self.order.setdefault(path)

    def leave(self, path: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Keep a call of a module with parameters; the last one replaces those before."""
        self._inside.pop()
        returned = tensor_of(output)
        if returned is None or next(module.parameters(), None) is None:
            return
        args, kwargs = tree_map_only(Tensor, _copy, (args, kwargs))
        self.calls.pop(path, None)  # in the order of the last calls
        self.calls[path] = Call(args, kwargs, _copy(returned))

    def listen(self, logits: Logits) -> None:
        """Keep the logits of an attention."""
        path = self._inside[-1] if self._inside else ""
        # Of the network itself a softmax is that of its classes, unless it is one of positions.
        if path or logits.values.shape[-1] == logits.values.shape[-2]:
            name = f"{path or 'attention'}{LOGITS}"
            self.order.setdefault(name)
            self.logits[name] = Logits(*map(_copy, logits))


@dataclass(frozen=True)
class Unit:
    """Parameters whose change is one row: those of a module, or of one that is used without being called.

    Attributes:
        name: Path of the module that owns them.
        caller: Path of the module whose call uses them.
        parameters: Names inside the caller.
        alone: Whether nothing else that is trained is inside the caller, so that its outputs are theirs.
    """

    name: str
    caller: str
    parameters: tuple[str, ...]
    alone: bool


class Watch:
    """The changes of a model since this was made.

    Layers are compared in the mode of evaluation. With M a module, theta its parameters and x what it is
    given on the probes::

        M(theta_t; x_t) - M(theta_0; x_0)
            = [M(theta_t; x_t) - M(theta_0; x_t)]     update_own
            + [M(theta_0; x_t) - M(theta_0; x_0)]     update_passed

    A factor by which the network multiplies what its last layer returned counts as that layer's: multipliers
    of readouts are often written so.

    Args:
        model: Any module.
        run: Calls it on the probes and returns its outputs.
    """

    def __init__(self, model: nn.Module, run: Callable[[nn.Module], Tensor]) -> None:
        self._model = model
        self._run = run
        self._paths = dict(model.named_modules())
        # By identity: a weight that is used in two places is one.
        self._start = {id(parameter): parameter.detach().clone() for parameter in model.parameters()}
        self._before = self._pass()
        self.units = tuple(_units(self._paths, self._before))
        alone = {unit.caller for unit in self.units if unit.alone}
        self._readout = next((path for path in reversed(self._before.calls) if path in alone), None)

    @property
    def names(self) -> list[str]:
        """Names of all rows, in forward order."""
        places = {name: place for place, name in enumerate(self._before.order)}
        rows = [(places[unit.caller], unit.name) for unit in self.units]
        return [name for _, name in sorted([*rows, *((places[name], name) for name in self._before.logits)])]

    def moved(self) -> bool:
        """Tell whether any parameter is another one than at the start."""
        return any(not torch.equal(p, self._start[id(p)]) for p in self._model.parameters())

    def shapes(self) -> dict[str, Shapes]:
        """Return the sizes of every unit, which tell its role."""
        found = {}
        for unit in self.units:
            call, module = self._before.calls[unit.caller], self._paths[unit.caller]
            given = next(x for x in tree_leaves((call.args, call.kwargs)) if isinstance(x, Tensor))
            axes = max(module.get_parameter(name).dim() for name in unit.parameters)
            found[unit.name] = Shapes(tuple(given.shape), tuple(call.output.shape), axes)
        return found

    @torch.no_grad()
    def changes(self) -> dict[str, dict[str, float]]:
        """Return the RMS of every row's change in its parts; what does not apply is left out."""
        now = self._pass()
        found: dict[str, dict[str, float]] = {}
        with _evaluating(self._model):
            for unit in self.units:
                call, before = now.calls[unit.caller], self._before.calls[unit.caller]
                without = self._with_start(unit.caller, call, unit.parameters)
                factor = _factor(call.output, now.outputs) if unit.caller == self._readout else 1.0
                parts = {PARTS[0]: factor * _rms(call.output - without)}
                if unit.alone:
                    parts[PARTS[1]] = factor * _rms(without - before.output)
                    parts[PARTS[2]] = factor * _rms(call.output - before.output)
                found[unit.name] = parts
        for name, logits in now.logits.items():
            change, seen = logits.values - self._before.logits[name].values, logits.seen
            found[name] = {PARTS[2]: _rms(change[seen])}
            if (bound := _rms(logits.bound[seen])) == bound:
                found[name][BOUND] = bound
        return found

    def _with_start(self, caller: str, call: Call, names: tuple[str, ...]) -> Tensor:
        """What a module makes of its present input with some of its parameters as they were."""
        module = self._paths[caller]
        # Their data and not other parameters in their place: packages hang scales onto parameters.
        now = {name: module.get_parameter(name).data for name in names}
        args, kwargs = tree_map_only(Tensor, _copy, (call.args, call.kwargs))
        try:
            for name in names:
                parameter = module.get_parameter(name)
                parameter.data = self._start[id(parameter)]
            found = tensor_of(module(*args, **kwargs))
            assert found is not None, "it returned one before"
            return found
        finally:
            for name, value in now.items():
                module.get_parameter(name).data = value

    def _pass(self) -> Pass:
        """Run the probes and listen."""
        found = Pass()
        with torch.no_grad(), ExitStack() as hooks:
            for path, module in self._paths.items():
                hooks.callback(module.register_forward_pre_hook(partial(found.enter, path)).remove)
                handle = module.register_forward_hook(partial(found.leave, path), with_kwargs=True)
                hooks.callback(handle.remove)
            hooks.enter_context(_evaluating(self._model))
            hooks.enter_context(ListenToLogits(found.listen))
            found.outputs = self._run(self._model)
        return found


def _units(modules: Mapping[str, nn.Module], seen: Pass) -> Iterator[Unit]:
    """Yield the parameters that belong together, by the modules that were called."""
    users: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for path, module in modules.items():
        own = tuple(name for name, p in module.named_parameters(recurse=False) if p.requires_grad)
        if not own:
            continue
        caller = path
        while caller not in seen.calls and caller:
            caller = caller.rpartition(".")[0]
        if caller not in seen.calls:
            continue
        inner = path.removeprefix(caller).lstrip(".")
        names = tuple(f"{inner}.{name}" if inner else name for name in own)
        users.setdefault(caller, []).append((path, names))
    for caller, parts in users.items():
        inside = [name for name in users if name != caller and (not caller or name.startswith(f"{caller}."))]
        for path, names in parts:
            yield Unit(path or "(top)", caller, names, len(parts) == 1 and not inside)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into the mode of evaluation, and every module of it back into its own."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _factor(returned: Tensor, outputs: Tensor) -> float:
    """Return by what the network multiplied what a layer returned; 1 if it did something else with it."""
    if returned.shape != outputs.shape or not returned.any():
        return 1.0
    factor = (outputs * returned).sum() / returned.square().sum()
    same = (outputs - factor * returned).norm() <= _SAME * outputs.norm()
    return abs(float(factor)) if same else 1.0


def _copy(x: Tensor) -> Tensor:
    """What is written to later must not be written to the record."""
    return x.detach().clone()


def _rms(change: Float[Tensor, "..."]) -> float:
    return float(change.double().square().mean().sqrt())
