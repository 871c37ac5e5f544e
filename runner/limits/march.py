r"""The mean-field limit of training, marched forward in time.

Per layer l = 1 ... L a single unit feels, with D_a(s) = (y_a - f_a(s)) / P and <.> the mean over units,

    h_1(t)     = u_1 + c_0 sum_{s<t,a} D_a(s) K_a g_{1,a}(s)            K = x . x',  c_l = eta gamma k_l
    h_{l+1}(t) = sigma_l W phi_l(t) + c_l sum_{s<t,a} D_a(s) <phi_{l,a}(s) phi_l(t)> g_{l+1,a}(s)
    z_l(t)     = sigma_l W^T g_{l+1}(t) + c_l sum_{s<t,a} D_a(s) <g_{l+1,a}(s) g_{l+1}(t)> phi_{l,a}(s)
    z_L(t)     = sigma_L xi + c_L sum_{s<t,a} D_a(s) phi_{L,a}(s)
    phi_l = phi(h_l),    g_l = phi'(h_l) z_l,    f(t) = <z_L(t) phi_L(t)> / gamma

where W phi and W^T g are Gaussian processes with their responses, see :mod:`runner.limits.frame`. What a step
needs is known from the steps before it, and from the layers below (forward) or above (backward) at the same
step: nothing is iterated, so that there is no damping and nothing that might not converge. The averages over
units are those of a sample, but for linear networks: all their fields are combinations of the Gaussians of
the frames, so that units are the coordinates of these, and averages inner products.

The learned part of a weight matrix is held in its frames, q^T M p: a step costs units * samples * vectors.

References:
    Bordelon & Pehlevan (2022), arXiv 2205.09653, eq. 5-8 and appendix P (discrete time).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from runner.limits.frame import Frame, Population, Rows
from runner.limits.moments import values
from runner.limits.problem import Problem
from runner.numerics.generators import generator

Field = Float64[Tensor, "sample unit"]

EXACT_TOLERANCE = 1e-8
"""What frames of linear networks may leave out: the root of the rounding error of what is computed of it."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The limit at the steps of a problem, up to where it is finite.

    Attributes:
        outputs: f, of all samples.
        features: <phi_l phi_l> of each hidden layer.
        gradients: <g_l g_l> of each hidden layer.
        dropped: Largest share of a field that the frames left out.
    """

    outputs: Float64[Tensor, "step sample"]
    features: Float64[Tensor, "step layer sample sample"]
    gradients: Float64[Tensor, "step layer sample sample"]
    dropped: float

    def kernel(self, problem: Problem) -> Float64[Tensor, "step sample sample"]:
        """Return the lr-weighted tangent kernel, Theta = k_0 G_1 K + sum_l k_l G_{l+1} Phi_l + k_L Phi_L."""
        first, *hidden, last = problem.rates
        kernel = first * self.gradients[:, 0] * problem.gram + last * self.features[:, -1]
        for layer, rate in enumerate(hidden):
            kernel = kernel + rate * self.gradients[:, layer + 1] * self.features[:, layer]
        return kernel


class _Link:
    """A hidden weight matrix between two layers: its frames, their images, and what it has learned."""

    def __init__(
        self, below: Population, above: Population, sigma: float, tolerance: float, most: int
    ) -> None:
        self.below, self.above, self.sigma = below, above, sigma
        self.forward = Frame(below.units, tolerance, most)
        self.backward = Frame(above.units, tolerance, most)
        self.images = Rows(above.units)
        self.returns = Rows(below.units)
        self.learned = torch.zeros(0, 0, dtype=torch.float64)
        self._features = self._gradients = self.learned

    def up(self, features: Field) -> Field:
        """Return W phi, the learned part included."""
        self._features, new = self.forward.extend(features)
        self.below.meet(new)
        self.images.append(self.above.fresh(len(new)))
        self.learned = torch.nn.functional.pad(self.learned, (0, len(new)))
        response = self.returns.rows @ features.mT / self.below.units
        along = self.sigma * response + self.learned @ self._features
        return self.sigma * self._features.mT @ self.images.rows + along.mT @ self.backward.basis.rows

    def down(self, gradients: Field) -> Field:
        """Return W^T g, the learned part included."""
        self._gradients, new = self.backward.extend(gradients)
        self.above.meet(new)
        self.returns.append(self.below.fresh(len(new)))
        self.learned = torch.nn.functional.pad(self.learned, (0, 0, 0, len(new)))
        response = self.images.rows @ gradients.mT / self.above.units
        along = self.sigma * response + self.learned.mT @ self._gradients
        return self.sigma * self._gradients.mT @ self.returns.rows + along.mT @ self.forward.basis.rows

    def learn(self, step: Float64[Tensor, "train"]) -> None:
        """Add sum_a step_a g_a phi_a^T of the training samples, of the last calls."""
        count = len(step)
        self.learned = self.learned + (self._gradients[:, :count] * step) @ self._features[:, :count].mT


class March:
    """The limit of a problem, step after step.

    Args:
        units: Sampled units of a layer; of a linear network as many as it takes, whatever is asked for.
        tolerance: Root mean square of what may be left out of a field, relative to the field.
        seed: Of the sample.
    """

    def __init__(self, problem: Problem, units: int, tolerance: float, seed: int) -> None:
        self.problem = problem
        values_, directions = torch.linalg.eigh(problem.sigmas[0] ** 2 * problem.gram)
        keep = values_ > 1e-12 * values_[-1]
        exact = problem.activation == "linear"
        if exact:
            # A step adds a direction to the features of a layer at most, and one to its gradients.
            units = int(keep.sum()) + problem.depth * (problem.steps[-1] + 2) + 2
            tolerance = EXACT_TOLERANCE
        most = units if exact else units // 4
        draws = generator(seed, "limit")
        layers = [Population(units, exact, draws) for _ in range(problem.depth)]
        self._last = layers[-1]
        self._links = [
            _Link(below, above, sigma, tolerance, most)
            for below, above, sigma in zip(layers, layers[1:], problem.sigmas[1:-1], strict=False)
        ]
        root = directions[:, keep] * values_[keep].sqrt()
        self._input = root @ layers[0].fresh(root.shape[1])
        self._output = torch.empty(0, units, dtype=torch.float64)

    def run(self, progress: Callable[[int], object] = lambda step: None) -> Trajectory:
        """March through all steps.

        Args:
            progress: Called with each step before it is taken; what it raises ends the march.

        Returns:
            The trajectory; NaN from where it is not finite.
        """
        problem = self.problem
        count, layers, steps = len(problem.gram), problem.depth, len(problem.steps)
        outputs = torch.full((steps, count), torch.nan, dtype=torch.float64)
        kernels = torch.full((2, steps, layers, count, count), torch.nan, dtype=torch.float64)
        for step in range(problem.steps[-1] + 1):
            progress(step)
            try:
                features, gradients, f = self._fields()
            except OverflowError:
                break
            if not bool(f.isfinite().all()):
                break
            if step in problem.steps:
                place = problem.steps.index(step)
                outputs[place] = f
                for kind, fields in enumerate((features, gradients)):
                    for layer, field in enumerate(fields):
                        kernels[kind, place, layer] = field @ field.mT / field.shape[1]
            self._learn(features, gradients, f)
        frames = [frame for link in self._links for frame in (link.forward, link.backward)]
        return Trajectory(
            outputs, kernels[0], kernels[1], max((frame.dropped for frame in frames), default=0.0)
        )

    def _fields(self) -> tuple[list[Field], list[Field], Float64[Tensor, "sample"]]:
        """Return features and gradients of the layers, and f."""
        problem = self.problem
        features: list[Field] = []
        slopes: list[Field] = []
        field = self._input
        for layer in range(problem.depth):
            if layer:
                field = self._links[layer - 1].up(features[-1])
            phi, slope = values(problem.activation, field)
            features.append(phi)
            slopes.append(slope)
        if not len(self._output):
            self._last.meet(features[-1])
            self._output = problem.sigmas[-1] * self._last.fresh(1)
        f = (features[-1] @ self._output.mT)[:, 0] / features[-1].shape[1] / problem.gamma
        gradients = [slopes[-1] * self._output]
        for layer in reversed(range(problem.depth - 1)):
            gradients.insert(0, slopes[layer] * self._links[layer].down(gradients[0]))
        return features, gradients, f

    def _learn(self, features: list[Field], gradients: list[Field], f: Float64[Tensor, "sample"]) -> None:
        """Take a step of gradient descent."""
        problem, count = self.problem, self.problem.train
        rest = (problem.targets - f[:count]) / count
        step = problem.lr * problem.gamma * rest
        first, *hidden, last = problem.rates
        self._input = self._input + first * (problem.gram[:, :count] * step) @ gradients[0][:count]
        for link, rate in zip(self._links, hidden, strict=True):
            link.learn(rate * step)
        self._output = self._output + last * step @ features[-1][:count]
