r"""The trace kernel on probes and how it changes; estimated where a network has many outputs.

For random signs v over the O outputs, ``E[v v^T] = 1``: of k draws, the same at every moment in every cell,

    1/O sum_k Theta_kk  =  E[v^T Theta v] / O  ~  1/(k O) sum_j v_j^T Theta v_j

is an estimate without bias, and each of its terms is the kernel of a network with the one output v_j^T h. Its
standard error follows from the spread of the terms.

References:
    Hutchinson (1990), "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing
    splines", Communications in Statistics 19.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runner import layers
from runner.layers import Pairing
from runner.measures.kernel import contract, empirical_ntk, ntk_bytes, sample_bytes
from runner.measures.passes import Pass, forward
from runner.measures.requirements import sketch_vectors
from runner.measures.snapshot import Measurement, Snapshot
from runner.numerics.generators import generator


def probe_ntk(snapshot: Snapshot, *, sketch: int | None = None) -> Float[Tensor, "cell probe probe"]:
    """Return the trace kernel on probes at a moment, kept on the snapshot.

    Args:
        sketch: Random vectors that it is estimated with, 0 for none: then it is exact. By default it is exact
            but for many outputs, see :func:`runner.measures.requirements.sketch_vectors`.
    """
    vectors = _vectors(snapshot, sketch)
    if not vectors:
        return snapshot.cached("ntk", lambda: _exact(snapshot))

    def compute() -> Tensor:
        kernel, error = _estimate(snapshot, vectors)
        snapshot.cached(f"ntk/{vectors}/error", lambda: error)
        return kernel

    return snapshot.cached(f"ntk/{vectors}", compute)


def sketch_error(snapshot: Snapshot, sketch: int | None) -> dict[str, Float[Tensor, "cell"]]:
    """Return the column ``ntk_sketch_error``: standard error of the estimate over its norm; none if exact."""
    probe_ntk(snapshot, sketch=sketch)
    vectors = _vectors(snapshot, sketch)
    if not vectors:
        return {}
    error = snapshot.cached(f"ntk/{vectors}/error", lambda: torch.empty(0))
    return {"ntk_sketch_error": error}


def ntk_change(now: Snapshot, start: Snapshot, *, sketch: int | None = None) -> Measurement:
    """Return norm_F(Theta_t - Theta_0) / norm_F(Theta_0) on probes.

    Args:
        sketch: As for :func:`probe_ntk`.

    Returns:
        ``ntk_change`` per cell; ``ntk_sketch_error`` where the kernel is estimated.
    """
    before, after = (probe_ntk(one, sketch=sketch).flatten(1) for one in (start, now))
    change = (after - before).norm(dim=1) / before.norm(dim=1)
    return Measurement(trace={"ntk_change": change, **sketch_error(now, sketch)})


def kernel_distance(now: Snapshot, start: Snapshot, *, sketch: int | None = None) -> Measurement:
    """Return 1 - cos(Theta_t, Theta_0) on probes: blind to a change of scale, unlike ``ntk_change``.

    Args:
        sketch: As for :func:`probe_ntk`.

    Returns:
        ``kernel_distance`` per cell; ``ntk_sketch_error`` where the kernel is estimated.

    References:
        Fort et al. (2020), "Deep learning versus kernel learning", arXiv 2010.15110, section 2.
    """
    before, after = (
        nn.functional.normalize(probe_ntk(one, sketch=sketch).flatten(1), dim=1) for one in (start, now)
    )
    # Half the squared chord: 1 - <a, b> would lose all digits of a small distance to cancellation.
    distance = (after - before).square().sum(1) / 2
    return Measurement(trace={"kernel_distance": distance, **sketch_error(now, sketch)})


def _vectors(snapshot: Snapshot, sketch: int | None) -> int:
    return sketch_vectors(snapshot.probed().outputs.shape[2], snapshot.ensemble.positions, sketch)


def _exact(snapshot: Snapshot) -> Float[Tensor, "cell probe probe"]:
    """From the pass that gave the features or, beyond the limit of memory, of some cells after the others."""
    x = snapshot.ensemble.inputs["probe"]
    passed = snapshot.probed()
    size = ntk_bytes(snapshot, x.shape[1])
    if passed.outputs.shape[0] * size <= layers.kernel_bytes():
        return contract(passed, Pairing(), precise=False)[:, 0, :, 0]
    return torch.cat([empirical_ntk(*part, x) for part in snapshot.parts(size)])


def _estimate(
    snapshot: Snapshot, vectors: int
) -> tuple[Float[Tensor, "cell probe probe"], Float[Tensor, "cell"]]:
    """The estimate and its relative standard error, of some cells after the others where not all fit."""
    x = snapshot.ensemble.inputs["probe"]
    passed = snapshot.probed()
    size = 2 * x.shape[1] * sample_bytes(passed, 1)
    if passed.outputs.shape[0] * size <= layers.kernel_bytes():
        return estimated_kernel(passed, vectors)
    found = [estimated_kernel(forward(*part, x), vectors) for part in snapshot.parts(size)]
    kernels, errors = zip(*found, strict=True)
    return torch.cat(kernels), torch.cat(errors)


def estimated_kernel(
    passed: Pass, vectors: int, seed: int = 0
) -> tuple[Float[Tensor, "cell sample sample"], Float[Tensor, "cell"]]:
    """Return the estimate of the trace kernel from a recorded pass, and its relative standard error.

    Args:
        vectors: Random vectors, at least 2; one backward pass for each.
        seed: Of the vectors.
    """
    sketched = project(passed, vectors, seed)
    cells, samples, outputs = passed.outputs.shape
    mean = passed.outputs.new_zeros(cells, samples, samples)
    spread = passed.outputs.new_zeros(cells)
    for place in range(1, vectors + 1):
        output = sketched.outputs[:, :, place - 1 : place]
        one = contract(sketched._replace(outputs=output), Pairing(), precise=False)[:, 0, :, 0].div_(outputs)
        step = one - mean
        mean += step / place
        spread += (step * (one - mean)).sum((1, 2))
    error = (spread / (vectors * (vectors - 1))).sqrt() / mean.flatten(1).norm(dim=1)
    return mean, error


def project(passed: Pass, vectors: int, seed: int = 0) -> Pass:
    """Return a pass whose outputs are those of the network times random signs, ``[cell, sample, vector]``."""
    outputs = passed.outputs.shape[2]
    signs = torch.randint(2, (vectors, outputs), generator=generator(seed, "ntk/signs")) * 2 - 1
    with torch.enable_grad():
        return passed._replace(outputs=passed.outputs @ signs.T.to(passed.outputs))
