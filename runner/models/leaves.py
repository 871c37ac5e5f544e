"""The layers of a plain ``torch.nn.Module``, each with the ensemble layer that takes its place."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from runner.errors import UserError
from runner.layers import Conv2d, Embedding, Layer, LayerNorm, Linear
from runner.models.check import check_module, require_trained
from runner.scaling.parameterization import Role


@dataclass(frozen=True)
class Leaf:
    """A layer of a plain module.

    Attributes:
        layer: The ensemble layer that holds its parameters.
        to_torch: From a parameter's name and its value per cell in force to the shape that torch's layer has.
        received: From what torch's layer is given, without cells, to what the ensemble layer remembers.
    """

    layer: Layer
    to_torch: Callable[[str, Tensor], Tensor] = lambda _, value: value
    received: Callable[[Tensor], Tensor] = lambda x: x

    def torch_parameters(self) -> dict[str, Tensor]:
        """Return the parameters in force, r^(-a) times the raw ones, in torch's shapes with a cell axis."""
        return {
            name: self.to_torch(name, self.layer.scale(name, getattr(self.layer, name)))
            for name in self.layer.specs
        }


def leaves_of(module: nn.Module, wider: nn.Module, **sigmas: float) -> dict[str, Leaf]:
    """Return path to leaf for every layer with parameters.

    Args:
        wider: The same module, built at twice the width.
        **sigmas: ``sigma_weight`` and ``sigma_bias``, as of ensemble layers.

    Raises:
        UserError: If a layer is of another kind, its role cannot be told, or it has no per-sample kernel.
    """
    others = dict(wider.named_modules())
    seen: dict[int, str] = {}
    leaves: dict[str, Leaf] = {}
    for path, layer in module.named_modules():
        check_module(path, layer)
        own = list(layer.named_parameters(recurse=False))
        if not own:
            continue
        place = path or "its top"
        maker = _MAKERS.get(type(layer))
        if maker is None:
            kinds = ", ".join(sorted(kind.__name__ for kind in _MAKERS))
            raise UserError(
                f"model.module must hold its parameters in {kinds}, got {own[0][0]!r} in "
                f"{type(layer).__name__} at {place}, whose role cannot be told; build it from runner.layers"
            )
        require_trained(path, layer)
        for name, parameter in own:
            if id(parameter) in seen:
                raise UserError(
                    f"model.module must not share parameters, got {name} of {place} also in "
                    f"{seen[id(parameter)]}; call one layer twice instead"
                )
            seen[id(parameter)] = place
        if type(others.get(path)) is not type(layer):
            raise UserError(f"model.module must have the same layers at every width, got {place} at one only")
        leaves[path] = maker(place, layer, others[path], **sigmas)
    for path, layer in others.items():
        if path not in leaves and any(True for _ in layer.parameters(recurse=False)):
            raise UserError(f"model.module must have the same layers at every width, got {path} at one only")
    if not leaves:
        raise UserError("model.module must have parameters, got none; name another class")
    return leaves


def _linear(place: str, layer: nn.Linear, wider: nn.Linear, **sigmas: float) -> Leaf:
    role = _role(place, (layer.in_features, wider.in_features), (layer.out_features, wider.out_features))
    ensemble = Linear(layer.in_features, layer.out_features, role, bias=layer.bias is not None, **sigmas)
    return Leaf(ensemble, to_torch=lambda name, value: value.mT if name == "weight" else value)


def _conv2d(place: str, layer: nn.Conv2d, wider: nn.Conv2d, **sigmas: float) -> Leaf:
    size, stride, padding = layer.kernel_size, layer.stride, layer.padding
    plain = (
        layer.groups == 1 and layer.padding_mode == "zeros" and set(layer.dilation) == {1}
        and not isinstance(padding, str) and all(len(set(sides)) == 1 for sides in (size, stride, padding))
    )  # fmt: skip
    if not plain:
        raise UserError(
            f"model.module must have plain square convolutions, got {layer} at {place}; "
            "leave out groups, dilation, padding modes and unequal sides"
        )
    role = _role(place, (layer.in_channels, wider.in_channels), (layer.out_channels, wider.out_channels))
    ensemble = Conv2d(
        layer.in_channels, layer.out_channels, role,
        kernel_size=size[0], stride=stride[0], padding=int(padding[0]), bias=layer.bias is not None, **sigmas,
    )  # fmt: skip
    return Leaf(ensemble)


def _embedding(place: str, layer: nn.Embedding, wider: nn.Embedding, **sigmas: float) -> Leaf:
    if layer.padding_idx is not None or layer.max_norm is not None:
        raise UserError(
            f"model.module must have plain embeddings, got {layer} at {place}; "
            "leave out padding_idx and max_norm"
        )
    entries, sizes = (layer.num_embeddings, wider.num_embeddings), (layer.embedding_dim, wider.embedding_dim)
    _role(place, entries, sizes, "input")
    ensemble = Embedding(entries[0], sizes[0], sigma_weight=sigmas["sigma_weight"])

    def one_hot(tokens: Tensor) -> Tensor:
        return nn.functional.one_hot(tokens, layer.num_embeddings).to(ensemble.weight.dtype)

    return Leaf(ensemble, received=one_hot)


def _layer_norm(place: str, layer: nn.LayerNorm, wider: nn.LayerNorm, **sigmas: float) -> Leaf:
    shape = layer.normalized_shape
    if len(shape) != 1:
        raise UserError(f"model.module must normalize one axis, got {layer} at {place}; normalize the last")
    _role(place, (1, 1), (shape[0], wider.normalized_shape[0]), "input")
    ensemble = LayerNorm(shape[0], bias=layer.bias is not None, epsilon=layer.eps)
    return Leaf(ensemble, received=lambda x: nn.functional.layer_norm(x, shape, eps=layer.eps))


_MAKERS: dict[type[nn.Module], Callable[..., Leaf]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv2d,
    nn.Embedding: _embedding,
    nn.LayerNorm: _layer_norm,
}

_ROLES: dict[tuple[bool, bool], Role] = {
    (False, True): "input", (True, True): "hidden", (True, False): "output",
}  # fmt: skip


def _role(place: str, fan_in: tuple[int, int], fan_out: tuple[int, int], only: Role | None = None) -> Role:
    """The role of a weight from its sizes at the width and at twice the width; only one may be allowed."""
    for sizes in (fan_in, fan_out):
        if sizes[1] not in (sizes[0], 2 * sizes[0]):
            raise UserError(
                f"model.module must have sizes in proportion to width, got {sizes[0]} and {sizes[1]} at "
                f"{place} for twice the width; its role cannot be told"
            )
    grows = fan_in[1] > fan_in[0], fan_out[1] > fan_out[0]
    role = _ROLES.get(grows)
    if role is None or role != (only or role):
        raise UserError(
            f"model.module must have layers that grow with width, got {fan_in[0]} x {fan_out[0]} at {place}, "
            f"{fan_in[1]} x {fan_out[1]} at twice the width; its role cannot be told"
        )
    return role
