"""The networks of the benchmark in JAX, as somebody writes them who wants them fast on a CPU.

Arrays are of one cell, ``[sample, ...]``; `vmap` adds the cells. Import it only where JAX is installed, in a
process whose flags are set, see :func:`steps`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmark.problem import Problem
from benchmark.processes import Steps

FLAGS = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
MOST_STEPS, CALL_FLOPS = 100, 2e9
"""Steps of a call: as many as take some hundredths of a second, so that no call is felt."""
FORMS = {"mlp": ("",), "cnn": ("convolution", "patches"), "transformer": ("",)}
"""How a network is written; the faster counts."""


def steps(problem: Problem, cells: int, form: str) -> Steps:
    """Return what trains some copies of a problem, many steps a call; sets the flags of one thread."""
    os.environ["XLA_FLAGS"] = FLAGS
    import jax

    count = int(min(MOST_STEPS, max(1, CALL_FLOPS // (cells * problem.flops))))
    train, weights = trainer(problem, cells, form, count)
    state = [weights]

    def call() -> int:
        state[0], losses = train(state[0])
        jax.block_until_ready(losses)
        return cells * count

    call()
    return call


def losses(problem: Problem, cells: int, form: str, count: int) -> list[float]:
    """Return the loss of the last copy before each of some steps."""
    train, weights = trainer(problem, cells, form, count)
    _, found = train(weights)
    return [float(loss) for loss in np.asarray(found).reshape(count, cells)[:, -1]]


def trainer(problem: Problem, cells: int, form: str, count: int) -> tuple[Callable[[Any], Any], Any]:
    """Return jit(scan(vmap(value_and_grad))), from weights to weights and losses, and the weights at init."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    net = _NETS[problem.net](problem, form)
    # Channels last and kernels (y, x, in, out) are what XLA multiplies without copying them.
    start = {
        path: value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        for path, value in problem.weights.items()
    }
    x = problem.inputs.transpose(0, 2, 3, 1) if problem.net == "cnn" else problem.inputs
    samples = len(x)

    def loss(weights: Any, x: Any, wanted: Any) -> Any:
        return jnp.square(net(weights, x) - wanted).sum() / (2 * samples)

    gradient = jax.value_and_grad(loss)
    # f = h - h at init is compared with y, and h with y + h at init: one subtraction less.
    wanted = (
        net({path: jnp.asarray(value) for path, value in start.items()}, jnp.asarray(x)) + problem.targets
    )
    data: tuple[Any, ...] = (x, wanted)
    weights: Any = start
    if cells > 1:
        # A copy of the samples for each cell: products of what cells share are slower there.
        gradient = jax.vmap(gradient)
        data, weights = jax.tree.map(lambda value: np.repeat(value[None], cells, 0), (data, start))
    inputs, aims = (jnp.asarray(value) for value in data)

    def step(weights: Any, _: None) -> Any:
        value, slopes = gradient(weights, inputs, aims)
        moved = {path: weights[path] - rate * slopes[path] for path, rate in problem.rates.items()}
        return moved, value

    def train(weights: Any) -> Any:
        return lax.scan(step, weights, None, length=count)

    return jax.jit(train, donate_argnums=0), jax.tree.map(jnp.array, weights)


def _mlp(problem: Problem, form: str) -> Callable[[Any, Any], Any]:
    import jax

    def net(weights: Any, x: Any) -> Any:
        for layer in range(problem.depth):
            x = jax.nn.relu(x @ weights[f"hidden.{layer}.weight"])
        return x @ weights["output.weight"]

    return net


def _cnn(problem: Problem, form: str) -> Callable[[Any, Any], Any]:
    import jax
    import jax.numpy as jnp
    from jax import lax

    def convolution(x: Any, kernel: Any) -> Any:
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def patches(x: Any, kernel: Any) -> Any:
        side, _, _, channels = kernel.shape
        height, width = x.shape[1:3]
        padded = jnp.pad(x, ((0, 0), (side // 2, side // 2), (side // 2, side // 2), (0, 0)))
        shifted = [
            padded[:, row : row + height, column : column + width]
            for row in range(side)
            for column in range(side)
        ]
        return jnp.concatenate(shifted, -1) @ kernel.reshape(-1, channels)

    convolve = {"convolution": convolution, "patches": patches}[form]

    def net(weights: Any, x: Any) -> Any:
        for layer in range(problem.depth):
            x = jax.nn.relu(convolve(x, weights[f"hidden.{layer}.weight"]))
        return x.mean((1, 2)) @ weights["output.weight"]

    return net


def _transformer(problem: Problem, form: str) -> Callable[[Any, Any], Any]:
    import jax
    import jax.numpy as jnp
    from jax import lax

    def norm(x: Any, gain: Any) -> Any:
        mean = x.mean(-1, keepdims=True)
        variance = jnp.square(x - mean).mean(-1, keepdims=True)
        return (x - mean) * lax.rsqrt(variance + 1e-5) * gain

    def attend(x: Any, maps: Callable[[str], Any]) -> Any:
        query, key, value = (
            (x @ maps(name)).reshape(*x.shape[:2], problem.heads, -1) for name in ("query", "key", "value")
        )
        logits = jnp.einsum("sphf,sqhf->shpq", query * problem.logit_factor, key)
        mixed = jnp.einsum("shpq,sqhf->sphf", jax.nn.softmax(logits), value)
        return mixed.reshape(x.shape) @ maps("output")

    def net(weights: Any, x: Any) -> Any:
        x = x @ weights["embedding.weight"] + weights["position.weight"]
        for block in range(problem.depth):
            part = f"blocks.{block}"
            x = x + attend(
                norm(x, weights[f"{part}.attention_norm.weight"]),
                lambda name, part=part: weights[f"{part}.attention.{name}.weight"],  # type: ignore[misc]
            )
            inner = norm(x, weights[f"{part}.norm.weight"]) @ weights[f"{part}.up.weight"]
            x = x + jax.nn.gelu(inner, approximate=False) @ weights[f"{part}.down.weight"]
        return norm(x, weights["norm.weight"]).mean(1) @ weights["output.weight"]

    return net


_NETS = {"mlp": _mlp, "cnn": _cnn, "transformer": _transformer}
