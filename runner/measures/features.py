"""How far the hidden representations moved."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from runner.layers import Activation, Call, Layer, Opaque, record
from runner.measures.movement import moved
from runner.measures.snapshot import Measurement, Snapshot

THRESHOLDED = ("relu",)
"""Activations that are linear but for a threshold at 0."""


def feature_movement(now: Snapshot, start: Snapshot) -> Measurement:
    """Return the relative RMS change of hidden activations on probes, norm(x_t - x_0) / norm(x_0).

    Returns:
        ``feature_movement`` per layer and cell, and of the last hidden layer per cell.

    References:
        Yang & Hu (2021), arXiv 2011.14522, definition of feature learning.
    """
    before, after = start.features(), now.features()
    movement = {
        name: (after[name] - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
        for name, x in before.items()
    }
    last = list(movement.values())[-1:]
    return Measurement(
        trace={"feature_movement": last[0]} if last else {}, layers={"feature_movement": movement}
    )


def update_size(now: Snapshot, start: Snapshot) -> Measurement:
    """Return the RMS change of every hidden representation and of the outputs f: the coordinate check.

    In a network that learns features at every width, all of them change by an amount that does not depend on
    width after a few steps; in the lazy regime hidden ones change by width^(-1/2).

    Returns:
        ``update_size`` per layer and cell: of the representation that follows it or, for the last layer, of
        the outputs; for an embedding that is the readout, too, of the outputs.

    References:
        Yang et al. (2022), "Tensor Programs V", arXiv 2203.03466, appendix D.1.
    """
    before, after = start.features(), now.features()
    sizes = {name: _rms(after[name] - x) for name, x in before.items()}
    sizes[now.readout()] = _rms(now.outputs("probe") - start.outputs("probe"))
    return Measurement(layers={"update_size": sizes})


def update_parts(now: Snapshot, start: Snapshot) -> Measurement:
    """Return the RMS of the two parts of what every layer's outputs changed: its own and what it passed on.

    The refined coordinate check. W x is what a layer makes of its inputs before any activation, r^(-a)
    included and biases aside::

        W_t x_t - W_0 x_0 = (W_t - W_0) x_t + W_0 (x_t - x_0)

    A layer whose own weight learns too slowly is hidden in the sum by what reaches it from below. The inputs
    of a first layer do not change, nor the places that positions belong to: they pass on 0. Of a norm, W is
    the gain and x what it standardized.

    Returns:
        ``update_own`` and ``update_passed`` per layer and cell, over gamma for the last layer; for a layer
        that is called several times, of its last call.

    References:
        Haas et al. (2025), "On the Surprising Effectiveness of Large Learning Rates under Standard Width
        Scaling", arXiv 2505.22491, refined coordinate check.
    """
    own: dict[str, Tensor] = {}
    passed: dict[str, Tensor] = {}
    for name, by_itself, from_below in parts_of_update(now, start):
        own[name], passed[name] = _rms(by_itself), _rms(from_below)
    last, gamma = now.readout(), now.ensemble.gamma.flatten()
    for sizes in (own, passed):
        if last in sizes:
            sizes[last] = sizes[last] / gamma
    return Measurement(layers={"update_own": own, "update_passed": passed})


@torch.no_grad()
def parts_of_update(now: Snapshot, start: Snapshot) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield a layer's name, (W_t - W_0) x_t and W_0 (x_t - x_0) on probes, one layer after the other.

    With f what the module of an opaque layer returns, theta what is not the layer's, they are
    ``f(W_t, theta_t, x_t) - f(W_0, theta_t, x_t)`` and ``f(W_0, theta_0, x_t) - f(W_0, theta_0, x_0)``.
    """
    for call, initial in _beside_init(now, start):
        if call.again:
            moved_back = now.parameters | {path: start.parameters[path] for path in call.again.own}
            run, given_now = call.again.run, call.again.given
            by_itself = run(now.parameters, given_now) - run(moved_back, given_now)
            yield (
                call.layer.name,
                by_itself,
                run(start.parameters, given_now) - run(start.parameters, initial),
            )
            continue
        layer, path = call.layer, f"{call.layer.name}.weight"
        by_itself = layer.multiply(call.inputs, moved(now, start, path))
        yield layer.name, by_itself, layer.multiply(call.inputs - initial[0], start.parameters[path])


def _beside_init(now: Snapshot, start: Snapshot) -> Iterator[tuple[Call, list[Tensor]]]:
    """Yield the last call of every layer and what it was given at init; inputs that cells share stay so."""
    before, origin = received(start)
    places = iter(before)
    for call in _last_calls(now):
        pairs = [(x, next(places)) for x in _given(call)]
        yield call, [first[:1] if x.shape[0] < len(origin) else first[origin] for x, first in pairs]


@torch.no_grad()
def update_alignment(now: Snapshot, start: Snapshot) -> Measurement:
    """Return how aligned weights and inputs are that changed: log-alignment ratios on probes.

    A = log(RMS(W x) / (RMS(W) RMS(x))) / log(fan_in): 1/2 where W and x are independent, 1 where a row of W
    is along x. In place of W x, with r^(-a) and without biases, each of the three terms that training adds::

        alpha   (W_t - W_0) x_0
        omega   W_0 (x_t - x_0)
        u       (W_t - W_0) (x_t - x_0)

    Returns:
        ``alignment_alpha``, ``alignment_omega`` and ``alignment_u`` per layer and cell; nothing at init, for
        layers that do not sum over their inputs (norms, positions, tables of symbols) and for those of a
        plain module that are not followed in parts, and the first alone where inputs do not change.

    References:
        Everett et al. (2024), "Scaling Exponents Across Parameterizations and Optimizers", arXiv 2407.05872.
    """
    found: dict[str, dict[str, Tensor]] = {name: {} for name in ("alpha", "omega", "u")}
    for call, initial in _beside_init(now, start):
        layer = call.layer
        if now.step == start.step or call.again or layer.specs["weight"].fan_in == 1:
            continue
        path = f"{layer.name}.weight"
        weight, change = start.parameters[path], moved(now, start, path)
        found["alpha"][layer.name] = _alignment(layer, change, initial[0])
        if call.inputs.shape[0] == len(weight) and not torch.equal(call.inputs, initial[0]):
            moved_inputs = call.inputs - initial[0]
            found["omega"][layer.name] = _alignment(layer, weight, moved_inputs)
            found["u"][layer.name] = _alignment(layer, change, moved_inputs)
    return Measurement(layers={f"alignment_{name}": by for name, by in found.items() if by})


def _alignment(layer: Layer, weight: Tensor, inputs: Tensor) -> Float[Tensor, "cell"]:
    """log(RMS(W x) / (RMS(W) RMS(x))) / log(fan_in); NaN where one of them is zero."""
    ratio = _rms(layer.multiply(inputs, weight)) / (
        _rms(layer.scale("weight", weight)) * _rms(layer.columns(inputs))
    )
    return ratio.log() / math.log(layer.specs["weight"].fan_in)


def received(start: Snapshot) -> tuple[tuple[Shaped[Tensor, "start probe ..."], ...], Int[Tensor, "cell"]]:
    """Return what the layers were given at init, and which of it is each cell's."""

    def compute() -> tuple[Tensor, ...]:
        cells = len(start.ensemble.cells)
        return tuple(
            x.detach().expand(cells, *x.shape[1:]) for call in _last_calls(start) for x in _given(call)
        )

    return start.shared("received", compute)


def _given(call: Call) -> tuple[Tensor, ...]:
    """What a layer was given in a call."""
    return call.again.given if call.again else (call.inputs,)


def _last_calls(snapshot: Snapshot) -> list[Call]:
    """The last call of every layer on probes, in the order of their first; none of what is only followed.

    Nor of parameters that a module around other layers uses: what they do runs through those.
    """
    calls = [
        call
        for call in snapshot.probed().calls
        if call.again or (call.layer.specs and not isinstance(call.layer, Opaque))
    ]
    return list({call.layer.name: call for call in calls}.values())


def pattern_change(now: Snapshot, start: Snapshot) -> Measurement:
    """Return the share of (hidden unit, probe) pairs whose pre-activation changed its sign since init.

    This is the normalized Hamming distance of activation patterns. Where it is 0, a network of relus is the
    same linear function of its weights, layer by layer, as at init. A unit of an image is a channel at a
    position, one of a sequence a feature of a token.

    Returns:
        ``pattern_change`` per layer and cell, of the pre-activations that follow from the layer, and of the
        last hidden layer per cell. Nothing for a network without an activation of :data:`THRESHOLDED`, and
        for a plain torch module, whose activations are not seen.

    References:
        Kunin et al. (2024), "Get rich quick: exact solutions reveal how unbalanced initializations promote
        rapid feature learning", arXiv 2406.06158.
    """
    after = _patterns(now)
    if not after:
        return Measurement()
    before = torch.split(pattern(start), [active.shape[1] for active in after.values()], 1)
    shares = [(active - then).abs().mean(1) for active, then in zip(after.values(), before, strict=True)]
    changed = dict(zip(after, shares, strict=True))
    return Measurement(trace={"pattern_change": shares[-1]}, layers={"pattern_change": changed})


def pattern(snapshot: Snapshot) -> Float[Tensor, "cell pair"]:
    """Return 1 for every active pair of a unit and a probe and 0 for the others, layers side by side."""
    nothing = snapshot.raw_outputs("probe")[:, :0, 0]
    return snapshot.cached("pattern", lambda: torch.cat([nothing, *_patterns(snapshot).values()], 1))


def _patterns(snapshot: Snapshot) -> dict[str, Float[Tensor, "cell pair"]]:
    """The same, each layer's under its name."""
    found: dict[str, Tensor] = {}

    def listen(module: Activation, given: tuple[Tensor, ...]) -> None:
        if tape:
            name = tape[-1].layer.name
            found.pop(name, None)  # a layer called again: in the place of its last call
            found[name] = (given[0] > 0).to(given[0]).flatten(1)

    activations = [
        module
        for module in snapshot.ensemble.model.modules()
        if isinstance(module, Activation) and module.name in THRESHOLDED
    ]
    handles = [module.register_forward_pre_hook(listen) for module in activations]
    try:
        with torch.no_grad(), record() as tape:
            if activations:
                snapshot.call(snapshot.ensemble.inputs["probe"])
    finally:
        for handle in handles:
            handle.remove()
    return found


def _rms(change: Float[Tensor, "cell sample ..."]) -> Float[Tensor, "cell"]:
    return change.flatten(1).square().mean(1).sqrt()
