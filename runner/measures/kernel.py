"""The empirical neural tangent kernel, its products with vectors and its top eigenvalue.

The kernel is lr-weighted, ``Theta(x, x')_kk' = sum_p r^(-c_p) <dh_k(x)/dp, dh_k'(x')/dp>`` over raw
parameters p and raw outputs h: it governs SGD in every parameterization, and the factors gamma^2 of the
learning rate and 1/gamma^2 of f = h / gamma cancel.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from runner import layers
from runner.layers import Pairing
from runner.measures.passes import Pass, forward, jacobian_product
from runner.measures.snapshot import Measurement, Snapshot
from runner.numerics.lanczos import Product, top_eigenpair

TOP = "lambda_max"
"""Guess at the top eigenvectors of the train kernel, on samples and outputs."""
_CACHED_BYTES = 4 << 20
"""Of weights and activations that stay in the caches of one core."""


def empirical_ntk(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    x: Shaped[Tensor, "#cell sample *inputs"],
    columns: int | None = None,
    *,
    precise: bool = False,
) -> Float[Tensor, "cell sample column"]:
    r"""Return the trace of the lr-weighted NTK over outputs, divided by their number.

    One forward pass records every layer's input A and output z, one backward pass per output k gives
    G_k = dh_k/dz; every layer contracts them to its own summand, see :mod:`runner.layers.contraction`. The
    Jacobian is never formed.

    Args:
        columns: Pair all samples with only so many of them, the first; with all by default.
        precise: In float64, from gradients in the precision of the parameters. It is then the kernel of a
            Jacobian J that is off by a rounding error e, and has an eigenvalue l to within 2 e sqrt(l l_max),
            not e l_max.

    Returns:
        1/O * sum_k Theta_kk, one matrix per cell.

    References:
        Jacot, Gabriel & Hongler (2018), arXiv 1806.07572, eq. 4; the layerwise contraction is that of
        Novak, Sohl-Dickstein & Schoenholz (2022), arXiv 2206.08720, section 3.3.
    """
    return _kernel(model, parameters, x, Pairing(columns), precise)[:, 0, :, 0]


def empirical_ntk_full(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    x: Shaped[Tensor, "#cell sample *inputs"],
    columns: int | None = None,
    *,
    precise: bool = False,
) -> Float[Tensor, "cell output sample output column"]:
    """Return the whole lr-weighted NTK, ``[cell, k, x, k', x']``; arguments as :func:`empirical_ntk`."""
    return _kernel(model, parameters, x, Pairing(columns, full=True), precise)


def ntk_bytes(snapshot: Snapshot, samples: int) -> int:
    """Return the memory limit within which a cell's trace kernel on so many samples is computed at once."""
    return 2 * samples * sample_bytes(snapshot.probed())


def lambda_max(now: Snapshot, start: Snapshot) -> Measurement:
    """Return the top eigenvalue of the full lr-weighted kernel on the training set, over N predictions.

    2 / lambda_max is the critical learning rate of full-batch gradient descent on the MSE. By Lanczos
    iteration on products with the kernel, see :func:`kernel_product`.

    Args:
        start: Init; its guess is where the search begins, and the eigenvector is the next one's.

    Returns:
        ``lambda_max`` per cell.
    """
    return Measurement(trace={"lambda_max": now.cached("lambda_max", lambda: _lambda_max(now, start))})


def _lambda_max(now: Snapshot, start: Snapshot) -> Float[Tensor, "cell"]:
    guess = start.guesses.get(TOP)
    values: list[Tensor] = []
    vectors: list[Tensor] = []
    for index, piece in search_pieces(now):
        x = piece.ensemble.inputs["train"]
        product, outputs = kernel_product(piece.ensemble.model, piece.parameters, x)
        value, vector = top_eigenpair(
            product, outputs.flatten(1), guess=None if guess is None else guess[index]
        )
        values.append(value / (x.shape[1] * piece.ensemble.positions))
        if vector is not None:
            vectors.append(vector)
    if vectors:
        start.guesses[TOP] = torch.cat(vectors)
    return torch.cat(values)


def search_pieces(snapshot: Snapshot) -> Iterator[tuple[Int[Tensor, "kept"], Snapshot]]:
    """Yield places and snapshots of cells whose eigenvalues are best searched for together.

    A search ends when the last cell has converged. On the CPU, cells whose pass of the training set fills the
    caches gain nothing from each other's company, and would wait for the slowest.
    """
    tape, outputs = snapshot.probed().tape, snapshot.probed().outputs
    cells, probes, _ = outputs.shape
    activations = sum(call.outputs.numel() for call in tape) // (cells * probes)
    parameters = sum(value[0].numel() for value in snapshot.parameters.values())
    numbers = parameters + snapshot.ensemble.inputs["train"].shape[1] * activations
    limit = _CACHED_BYTES if snapshot.ensemble.device.type == "cpu" else layers.kernel_bytes()
    return snapshot.pieces(outputs.element_size() * numbers, limit)


def kernel_product(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    x: Shaped[Tensor, "#cell sample *inputs"],
    columns: int | None = None,
) -> tuple[Product, Float[Tensor, "cell sample output"]]:
    """Return what multiplies the full lr-weighted kernel by one vector per cell, and the outputs.

    A product with the kernel J D J^T is one pass backward and one forward: the matrix is never formed.

    Args:
        x: Samples; vectors have a number for each of them and each output, outputs varying fastest.
        columns: The vectors multiplied are on only so many samples, the first; on all by default.
    """
    passed = forward(model, parameters, x, factored=False)
    cells, samples, outputs = passed.outputs.shape
    columns = samples if columns is None else columns
    if layers.is_chain(passed.tape, passed.outputs):
        multiply = layers.ChainDerivatives(passed.tape, passed.weights).kernel_product(columns)
    else:
        multiply = _graph_product(model, passed)

    def product(vector: Tensor) -> Tensor:
        return multiply(vector.view(cells, columns, outputs)).flatten(1)

    return product, passed.outputs.detach()


def _graph_product(model: nn.Module, passed: Pass) -> Callable[[Tensor], Tensor]:
    """Return what multiplies the kernel J D J^T by one vector per cell, on the first samples, by autograd."""
    push, factors = jacobian_product(passed), layers.kernel_weights(model)
    leaves = list(passed.leaves.values())

    def product(vector: Tensor) -> Tensor:
        columns = passed.outputs[:, : vector.shape[1]]
        gradients = torch.autograd.grad(columns, leaves, vector, retain_graph=True)
        return push({path: g * factors[path] for path, g in zip(passed.leaves, gradients, strict=True)})

    return product


def _kernel(
    model: nn.Module, parameters: Mapping[str, Tensor], x: Tensor, pairing: Pairing, precise: bool
) -> Float[Tensor, "cell output sample output column"]:
    """Sum of the layers' kernels, for all samples at once or, beyond the limit of memory, block by block.

    The trace has axes of length 1 for outputs.
    """
    samples = x.shape[1]
    columns = samples if pairing.columns is None else min(pairing.columns, samples)
    cells = next(iter(parameters.values())).shape[0]
    passed = forward(model, parameters, x)
    # Half of the memory is for the contractions of the layers.
    copied = 3 if precise and passed.outputs.dtype != torch.float64 else 1
    fitting = layers.kernel_bytes() // 2 // (copied * cells * sample_bytes(passed))
    if samples <= fitting:
        return contract(passed, pairing, precise)
    if not layers.is_chain(passed.tape, passed.outputs):
        gathered = gathered_kernel(model, parameters, x, pairing, precise, passed)
        if gathered is not None:
            return gathered
    del passed
    size = max(1, fitting // 2)
    kernel: Tensor | None = None
    for start in range(0, columns, size):
        right = slice(start, min(start + size, columns))
        count = right.stop - right.start
        for below in range(right.stop, samples, size) or [samples]:
            left = slice(below, min(below + size, samples))
            both = torch.cat([x[:, right], x[:, left]], 1)
            block = contract(forward(model, parameters, both), Pairing(count, pairing.full), precise)
            if kernel is None:
                kernel = block.new_empty(*block.shape[:2], samples, block.shape[3], columns)
            kernel[:, :, right, :, right] = block[:, :, :count]
            kernel[:, :, left, :, right] = block[:, :, count:]
            mirrored = block[:, :, count : count + max(0, columns - below)].permute(0, 3, 4, 1, 2)
            kernel[:, :, right, :, below : below + mirrored.shape[4]] = mirrored
    assert kernel is not None
    return kernel


def gathered_kernel(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    x: Tensor,
    pairing: Pairing,
    precise: bool,
    passed: Pass,
) -> Float[Tensor, "cell output sample output column"] | None:
    """The kernel from every sample's gradients, gathered from passes of some samples after the others.

    Pairs of blocks would each need a pass: of images, whose activations are many times their gradients with
    respect to the weights that they share, these are what fits in memory. Some layers after the others, and
    some outputs, where not all fit at once.

    Args:
        passed: Of all samples; tells sizes alone.

    Returns:
        None where they fit in no such way, or a layer does not say them.
    """
    cells, samples, outputs = passed.outputs.shape
    used = list(dict.fromkeys(call.layer for call in passed.tape))
    counts = {
        layer: sum(v[0].numel() for path, v in parameters.items() if path.rpartition(".")[0] == layer.name)
        for layer in used
    }
    width = 8 if precise else passed.outputs.element_size()
    room = 3 * layers.kernel_bytes() // 4 // (cells * samples * width)  # the rest is for the passes
    if any(type(layer).jacobians is layers.Layer.jacobians for layer in used) or room < max(counts.values()):
        return None
    # All outputs of some layers after the others where they fit, for a pass is then run least often.
    whole = room // outputs >= max(counts.values())
    at_once = outputs if whole else max(1, min(outputs, room // sum(counts.values())))
    if pairing.full and at_once < outputs:
        return None
    groups: list[list[layers.Layer]] = [[]]
    for layer in used:
        if at_once * (sum(counts[one] for one in groups[-1]) + counts[layer]) > room and groups[-1]:
            groups.append([])
        groups[-1].append(layer)
    picks = torch.split(torch.arange(outputs), at_once)
    size = max(1, layers.kernel_bytes() // 4 // (cells * sample_bytes(passed, 1)))
    kernel: Tensor | None = None
    for pick in picks:
        for group in groups:
            rows: dict[tuple[layers.Layer, str], Tensor] = {}
            for start in range(0, samples, size):
                some = slice(start, start + size)
                one = forward(model, parameters, x[:, some])
                for place, (layer, received, gradients) in layers.factors_by_output(
                    one.tape, one.outputs, pick, group
                ):
                    for name, jacobian in layer.jacobians(received, gradients):
                        if (layer, name) not in rows:
                            dtype = torch.float64 if precise else jacobian.dtype
                            shape = (cells, samples, len(pick), jacobian.shape[3])
                            rows[layer, name] = jacobian.new_empty(shape, dtype=dtype)
                        rows[layer, name][:, some, place] = jacobian[:, 0]
            for layer, name in list(rows):
                found = rows.pop((layer, name))
                # The order of what the trace sums over does not matter: nothing is copied.
                sides = found.transpose(1, 2) if pairing.full else found.flatten(2).unsqueeze(1)
                summand = layer.weigh(name, pairing.gram(sides))
                kernel = summand if kernel is None else kernel.add_(summand)
    assert kernel is not None
    return kernel if pairing.full else kernel[:, None, :, None].div_(outputs)


def sample_bytes(passed: Pass, count: int | None = None) -> int:
    """Memory of a cell for what a kernel takes from a sample: inputs, outputs, gradients twice.

    Args:
        count: Gradients of so many of the network's outputs; of all by default.
    """
    cells, samples, outputs = passed.outputs.shape
    outputs = outputs if count is None else count
    numbers = 0
    for call in passed.tape:
        inputs = call.layer.columns(call.inputs[:, :1])
        numbers += inputs.numel() // inputs.shape[0]
        numbers += (2 * outputs + 2) * call.outputs.numel() // (cells * samples)
    size: int = numbers * passed.outputs.element_size()
    return size


def contract(
    passed: Pass, pairing: Pairing, precise: bool
) -> Float[Tensor, "cell output sample output column"]:
    """Sum of the layers' kernels over a recorded pass."""
    kernel: Tensor | None = None
    for layer, columns, rows in layers.factors(
        passed.tape, passed.outputs, passed.weights, full=pairing.full
    ):
        with torch.no_grad():
            if precise:
                columns, rows = columns.double(), rows.double()
            summand = layer.kernel(columns, rows, pairing)
            kernel = summand if kernel is None else kernel.add_(summand)
    assert kernel is not None
    return kernel if pairing.full else kernel[:, None, :, None].div_(passed.outputs.shape[2])
