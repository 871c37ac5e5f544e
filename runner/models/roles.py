"""Roles of a plain module's parameters, from how its sizes and their use differ at two widths."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from runner.errors import UserError, unknown
from runner.models.uses import Use
from runner.scaling.parameterization import ROLES, Role

Uses = Mapping[str, Sequence[Use]]


def roles_of(
    module: nn.Module, wider: nn.Module, uses: Uses, wider_uses: Uses, given: Mapping[str, Role]
) -> dict[str, Role]:
    """Return the role of every parameter of a module, by name; names of one parameter are told apart.

    A parameter that is summed over with as many inputs as there are units has ``output`` or ``hidden``, one
    that returns as many numbers ``input`` or ``hidden``. A list of layers that grows with width is one layer
    whose outputs lie side by side.

    Args:
        wider: The same module at a larger width.
        uses: As :func:`runner.models.uses.uses_of` returns them for ``module``.
        wider_uses: The same for ``wider``.
        given: Pattern of names to role; the last that fits a name is taken.

    Raises:
        UserError: If a role cannot be told, or a pattern fits no name.

    References:
        Yang et al. (2022), arXiv 2203.03466, appendix B; base shapes of https://github.com/microsoft/mup.
    """
    shapes, others = (
        {name: tuple(value.shape) for name, value in one.named_parameters(remove_duplicate=False)}
        for one in (module, wider)
    )
    for pattern, role in given.items():
        if role not in ROLES:
            raise unknown(f"model.roles.{pattern}", role, ROLES)
        if not any(fnmatchcase(name, pattern) for name in shapes):
            raise unknown("a pattern of model.roles", pattern, list(shapes))
    growing = _growing_lists(list(shapes), list(others))
    roles: dict[str, Role] = {}
    for name, shape in shapes.items():
        named = [role for pattern, role in given.items() if fnmatchcase(name, pattern)]
        if name not in others:
            raise UserError(f"model.module must have the same layers at every width, got {name} at one only")
        listed = any(place.match(name) for place in growing)
        told = (
            _role(name, shape, others[name], uses[name], wider_uses[name], listed) if not named else named[-1]
        )
        roles[name] = told
    for name in others:
        if name not in shapes and not any(place.match(name) for place in growing):
            raise UserError(f"model.module must have the same layers at every width, got {name} at one only")
    return roles


def _role(
    name: str, shape: tuple[int, ...], other: tuple[int, ...], uses: Sequence[Use], wider: Sequence[Use],
    listed: bool,
) -> Role:  # fmt: skip
    seen = f"shape {_by(shape)}, and {_by(other)} at twice the width"
    ask = f"name it: 'model.roles={{{name}:ROLE}}' with one of {', '.join(ROLES)}"
    grown = sum(one != two for one, two in zip(shape, other, strict=False)) + listed
    if not uses:
        raise UserError(
            f"model must use all of its parameters, got {name} on which no output depends; "
            "call its layer in forward, or leave it out"
        )
    if not grown:
        return "scalar"
    if len(shape) != len(other) or grown > 2:
        raise UserError(
            f"model.roles must tell what scales {name}, got {seen}: more than two dimensions grow; {ask}"
        )
    found: set[Role] = set()
    for one, two in zip(uses, wider, strict=False):
        if not one.known:
            raise UserError(
                f"model.roles must tell what scales {name}, got {seen}, used in {one.operation}, where what "
                f"is summed over cannot be told; {ask}"
            )
        inputs, outputs = one.fan_in != two.fan_in, one.fan_out != two.fan_out or listed
        role: Role = "vector" if one.fan_in == 1 and len(shape) == 1 else "input"
        if inputs:
            role = "hidden" if outputs else "output"
        found.add(role)
    if len(found) > 1:
        raise UserError(
            f"model.roles must tell what scales {name}, got {seen}, used as {' and as '.join(sorted(found))} "
            f"weight: tie two layers, one for each use, or {ask}"
        )
    return found.pop()


def _growing_lists(names: Sequence[str], others: Sequence[str]) -> list[re.Pattern[str]]:
    """Patterns of names in lists of which the wider module has more."""
    places = {
        (".".join(parts[:place]), ".".join(parts[place + 1 :]))
        for parts in (name.split(".") for name in others)
        for place, part in enumerate(parts)
        if part.isdigit()
    }
    found = []
    for before, after in places:
        prefix, suffix = (before + "." if before else ""), ("." + after if after else "")
        pattern = re.compile(re.escape(prefix) + r"\d+" + re.escape(suffix) + "$")
        count, wider = (sum(pattern.match(name) is not None for name in one) for one in (names, others))
        if 0 < count < wider:
            found.append(pattern)
    return found


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "of a number"
