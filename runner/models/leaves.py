"""The parameters of a plain ``torch.nn.Module``, each with the ensemble layer that holds it.

Layers whose kernel has a structure, plain Linear, Conv2d, Embedding and LayerNorm, become the ensemble layers
of that name; all others are :class:`runner.layers.Opaque`.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from runner.errors import UserError
from runner.layers import Layer, Opaque, Origin, ParameterSpec
from runner.models.check import check_module, require_trained
from runner.models.own_init import OwnInit
from runner.models.roles import roles_of
from runner.models.structured import Map, Structured, same, structured
from runner.models.uses import Use, follow
from runner.numerics.generators import generator
from runner.scaling.parameterization import Role


@dataclass(frozen=True)
class Held:
    """Where one of the module's parameters is kept.

    Attributes:
        layer: The layer that holds it.
        spec: Its name there.
        factor: The name under which the layer knows its multiplier: another than ``spec`` for a second use.
        swap: Between its shape there and in the module, after a leading axis of cells; its own inverse.
    """

    layer: Layer
    spec: str
    factor: str
    swap: Map = same

    @property
    def path(self) -> str:
        """Path of the raw parameter in the ensemble."""
        return f"{self.layer.name}.{self.spec}"

    def used(self, raw: Tensor) -> Tensor:
        """Return the parameter in force, r^(-a) times the raw one, as the module takes it."""
        return self.swap(self.layer.scale(self.factor, raw))


@dataclass(frozen=True)
class Leaf:
    """A layer in the place of some of the module's parameters.

    Attributes:
        layer: The ensemble layer.
        owner: Path of the submodule whose call it is; several may have one owner.
        received: From what that is given, without cells, to what the layer remembers; none if it is opaque.
    """

    layer: Layer
    owner: str
    received: Map | None = None


@dataclass(frozen=True)
class Tie:
    """A second use of a parameter.

    Attributes:
        held: Where it is kept.
        role: Its role in that use.
    """

    held: Held
    role: Role


@dataclass
class Leaves:
    """All parameters of a module.

    Attributes:
        leaves: By the path that their layer has in the ensemble.
        held: Name of every parameter of the module to where it is.
        tied: Path of a submodule that uses what another holds, to where that is.
        called: Paths of all submodules, in the order of their first calls.
        convolved: Multiplications of one sample by the kernels of convolutions.
        recurred: Those in recurrent networks.
    """

    leaves: dict[str, Leaf] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)
    tied: dict[str, Tie] = field(default_factory=dict)
    called: tuple[str, ...] = ()
    convolved: int = 0
    recurred: int = 0

    def order(self, rows: Iterable[str]) -> list[str]:
        """Return the paths of layers and marks in the order of the forward pass."""
        owner = {path: leaf.owner for path, leaf in self.leaves.items()}
        place = {path: index for index, path in enumerate(self.called)}

        def key(row: str) -> int:
            return place.get(owner.get(row, row), -1)

        return sorted(rows, key=key)


@dataclass(frozen=True)
class Plain:
    """A module at two widths, and what is to become of it.

    Attributes:
        module: At the cell's width.
        wider: At twice that.
        sample: A sample of zeros, with the axis of a batch.
        roles: Pattern of parameter names to role, from the user.
        own: Its own init, if that is to be used.
        sigma_weight: Otherwise standard deviation of a weight times sqrt(fan_in), at base width.
        sigma_bias: The same of a bias.
    """

    module: nn.Module
    wider: nn.Module
    sample: Tensor
    roles: Mapping[str, Role]
    own: OwnInit | None
    sigma_weight: float
    sigma_bias: float


def leaves_of(plain: Plain) -> Leaves:
    """Return the layers that hold the parameters of a module.

    Raises:
        UserError: If a role cannot be told, or the module cannot be trained as an ensemble.
    """
    module = plain.module
    for path, part in module.named_modules():
        check_module(path, part)
        require_trained(path, part)
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.max_norm is not None:
            raise UserError(
                f"model.module must not change when it is called, got max_norm in {part} at {path}; "
                "leave it out"
            )
    shared: dict[int, list[str]] = {}
    for name, value in module.named_parameters(remove_duplicate=False):
        if isinstance(value, nn.parameter.UninitializedParameter) or not value.is_floating_point():
            kind = "no shape as yet" if value.is_floating_point() else str(value.dtype).removeprefix("torch.")
            raise UserError(
                f"model.module must have real parameters of known shape, got {kind} at {name}; "
                "give lazy layers their sizes, keep integers in buffers"
            )
        shared.setdefault(id(value), []).append(name)
    if not shared:
        raise UserError("model.module must have parameters, got none; name another class")
    seen = follow(module, plain.sample)
    uses = seen.uses
    roles = roles_of(module, plain.wider, uses, follow(plain.wider, plain.sample).uses, plain.roles)
    found = Leaves(called=seen.called, convolved=seen.convolved, recurred=seen.recurred)
    opaque: dict[str, dict[str, list[str]]] = {}
    done: set[str] = set()
    for names in shared.values():
        path, _, last = names[0].rpartition(".")
        if names[0] in done:
            continue
        part = module.get_submodule(path)
        own = [f"{path}.{name}" if path else name for name, _ in part.named_parameters(recurse=False)]
        layer = _structured(plain, part, own, shared, uses, path)
        if layer is None:
            row, spec = _row(path, last)
            opaque.setdefault(row, {})[_free(spec, opaque.get(row, {}))] = names
            continue
        done.update(own)
        ensemble, received, swap = layer
        for name in own:
            spec = name.rpartition(".")[2]
            ensemble.specs[spec] = dataclasses.replace(ensemble.specs[spec], role=roles[name])
            change = swap if spec == "weight" else same
            found.held[name] = Held(ensemble, spec, spec, change)
            if plain.own:
                _start(ensemble, spec, plain.own, name, change)
        found.leaves[path] = Leaf(ensemble, path, received)
    for row, specs in opaque.items():
        _opaque(plain, found, row, specs, uses, roles)
    return found


def _opaque(
    plain: Plain, found: Leaves, row: str, specs: dict[str, list[str]], uses: Mapping[str, Sequence[Use]],
    roles: Mapping[str, Role],
) -> None:  # fmt: skip
    """Add a layer that holds some parameters, of which one decides its role."""
    if "weight" not in specs:
        largest = max(specs, key=lambda spec: plain.module.get_parameter(specs[spec][0]).numel())
        specs = {("weight" if spec == largest else spec): names for spec, names in specs.items()}
    described: dict[str, ParameterSpec] = {}
    ties: dict[str, tuple[str, Role]] = {}
    for spec, (name, *others) in specs.items():
        described[spec] = _spec(plain, name, uses[name][:1], roles[name])
        ties |= {f"{spec}_{place}": (spec, roles[other]) for place, other in enumerate(others, 1)}
    layer = Opaque(described, ties)
    used = [use for names in specs.values() for name in names for use in uses[name]]
    layer.activations = sum(use.outputs for use in used)
    layer.multiplications = sum(use.outputs * use.fan_in for use in used if use.summed)
    owner = used[0].module if used else row
    for spec, names in specs.items():
        for place, name in enumerate(names):
            found.held[name] = Held(layer, spec, f"{spec}_{place}" if place else spec)
            if place and uses[name] and uses[name][0].module != owner:
                found.tied[uses[name][0].module] = Tie(found.held[name], roles[name])
        if plain.own:
            _start(layer, spec, plain.own, names[0])
        elif ".parametrizations." in f".{names[0]}":
            _start_parametrized(plain, layer, spec, names[0], described[spec])
    found.leaves[row] = Leaf(layer, owner)


def _start(layer: Layer, spec: str, own: OwnInit, name: str, swap: Map = same) -> None:
    def draw(seed: int) -> Tensor:
        return swap(own.draw(name, seed))

    layer.origins[spec] = Origin(draw, own.exponents[name])


def _start_parametrized(plain: Plain, layer: Layer, spec: str, name: str, described: ParameterSpec) -> None:
    """Begin where the parametrization of a drawn tensor begins."""
    path, _, original = name.rpartition(".")
    maps = deepcopy(plain.module.get_submodule(path))
    with torch.no_grad():
        shape = maps().shape

    def draw(seed: int) -> Tensor:
        drawn = torch.randn(shape, generator=generator(seed, path), dtype=torch.float64)
        again = deepcopy(maps).double()
        again.right_inverse(drawn * described.sigma / described.fan_in**0.5)  # type: ignore[operator]
        return again.get_parameter(original).detach()

    grows = described.role in ("hidden", "output")
    layer.origins[spec] = Origin(draw, 0.5 if grows else 0.0)


def _spec(plain: Plain, name: str, uses: Sequence[Use], role: Role) -> ParameterSpec:
    """What a parameter is: drawn at random, but for what is constant in the module's own init."""
    value = plain.module.get_parameter(name).detach()
    shape, summed = tuple(value.shape), any(use.summed for use in uses)
    fan_in = uses[0].fan_in if uses else 1
    if summed:
        return ParameterSpec(shape, role, fan_in, plain.sigma_weight)
    if "bias" in name.rpartition(".")[2]:
        return ParameterSpec(shape, role, 1, plain.sigma_bias)
    if value.numel() and bool((value == value.flatten()[0]).all()):
        return ParameterSpec(shape, role, 1, 0.0, mean=float(value.flatten()[0]))
    return ParameterSpec(shape, role, 1, plain.sigma_weight)


def _row(path: str, last: str) -> tuple[str, str]:
    """The path of the layer that holds a parameter, and its name there: both short where they can be.

    ``attention.in_proj_weight`` is the weight of ``attention.in_proj``, ``norm.bias`` the bias of ``norm``,
    ``layer.parametrizations.weight.original1`` the weight of ``layer``.
    """
    before, separate, tensor = f".{path}".partition(".parametrizations.")
    if separate:
        row, spec = _row(before.removeprefix("."), tensor)
        return row, spec if last in ("original", "original1") else f"{spec}_{last}"
    parts = last.split("_")
    kind = next((kind for kind in ("weight", "bias") if kind in parts), None)
    rest = [part for part in parts if part != kind]
    row = ".".join(filter(None, (path, "_".join(rest))))
    return row or "top", kind or "weight"


def _free(spec: str, taken: Mapping[str, object]) -> str:
    place = spec
    while place in taken:
        place += "_"
    return place


def _structured(
    plain: Plain, part: nn.Module, own: Sequence[str], shared: Mapping[int, Sequence[str]],
    uses: Mapping[str, Sequence[Use]], path: str,
) -> Structured | None:  # fmt: skip
    """The ensemble layer of a submodule, if it is of a kind that has one and is used by being called."""
    alone = all(len(shared[id(plain.module.get_parameter(name))]) == 1 for name in own)
    called = all(use.module == path for name in own for use in uses[name])
    return structured(part, plain.sigma_weight, plain.sigma_bias) if alone and called else None


@dataclass(frozen=True)
class Listened:
    """What is listened to, by path in the module.

    Attributes:
        calls: Submodules whose calls are heard.
        layers: Those of them that are layers with a structure.
        ends: Submodules whose outputs are features.
        received: From what such a layer is given to what it remembers.
        received_by: The layer itself.
        owners: The opaque layers whose parameters a submodule uses.
        opaque: All of them.
        containers: Owners around other layers: what follows their call is not what they return.
        whole: Owners around no others.
    """

    calls: frozenset[str]
    layers: frozenset[str]
    ends: frozenset[str]
    received: dict[str, Map]
    received_by: dict[str, Layer]
    owners: dict[str, list[Opaque]]
    opaque: list[Opaque]
    containers: frozenset[str]
    whole: frozenset[str]

    @classmethod
    def to(cls, found: Leaves, ends: Collection[str]) -> "Listened":
        """Listen to the layers of a module."""
        leaves = list(found.leaves.values())
        received = {leaf.owner: leaf.received for leaf in leaves if leaf.received}
        owners: dict[str, list[Opaque]] = {}
        for leaf in leaves:
            if isinstance(leaf.layer, Opaque):
                owners.setdefault(leaf.owner, []).append(leaf.layer)
        calls = frozenset({*received, *owners, *found.tied})
        around = {
            path
            for path in calls
            if any(one != path and f"{one}.".startswith(f"{path}." if path else "") for one in calls)
        }
        return cls(
            calls, frozenset(received), frozenset(ends), received,
            {leaf.owner: leaf.layer for leaf in leaves if leaf.received}, owners,
            [layer for layers in owners.values() for layer in layers], frozenset(around),
            frozenset({*owners} - around),
        )  # fmt: skip
