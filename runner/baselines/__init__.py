"""Classical competitors of the network, fitted by scikit-learn or in closed form on the same splits.

A baseline stands where a model does (``model=mlp,rbf_ridge,linear``) and fills ordinary rows of ``cells``:
the keys that shape and train a network mean nothing to it and are recorded as given. Its hyperparameters are
chosen on the last fifth of the training set, never on the test set; then all of the training set is fitted.
"""

import itertools
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner import data
from runner.data import Dataset
from runner.data.dataset import one_hot
from runner.errors import UserError
from runner.grid import instantiate
from runner.grid.cell import Cell, canonical_json
from runner.measures.kernel import empirical_ntk
from runner.measures.ridge import HELD_OUT, LEAST_SAMPLES, kernel_ridge
from runner.models import build
from runner.models.ensemble import Ensemble
from runner.numerics import losses

Scores = tuple[Tensor, Tensor]
"""Of the training and of the test samples, ``[sample, output]`` in float64."""


class Baseline(ABC):
    """What fits a data set without training a network."""

    squared_error = True
    """Whether its scores aim at the targets, so that their MSE has a meaning."""

    def check(self, dataset: Dataset, width: int, depth: int) -> None:  # noqa: B027
        """Raise UserError for settings that cannot be fitted."""

    @abstractmethod
    def scores(self, cell: Cell, dataset: Dataset, device: torch.device) -> Scores:
        """Fit the training set and return the scores of all samples."""


class Linear(Baseline):
    """Ridge regression on the inputs, with an intercept."""

    def scores(self, cell: Cell, dataset: Dataset, device: torch.device) -> Scores:
        """Fit; see :class:`Baseline`."""
        from sklearn.linear_model import Ridge

        return _best([partial(Ridge, alpha=alpha) for alpha in 10.0 ** np.arange(6, -7, -1)], dataset)


class RBFRidge(Baseline):
    """Kernel ridge regression with a Gaussian kernel."""

    def scores(self, cell: Cell, dataset: Dataset, device: torch.device) -> Scores:
        """Fit; see :class:`Baseline`."""
        from sklearn.kernel_ridge import KernelRidge

        grid = itertools.product(10.0 ** np.arange(2, -9, -1), _bandwidths(dataset))
        return _best([partial(KernelRidge, kernel="rbf", alpha=a, gamma=g) for a, g in grid], dataset)


class RBFSVM(Baseline):
    """Support vector machine with a Gaussian kernel; support vector regression for a regression task."""

    squared_error = False

    def scores(self, cell: Cell, dataset: Dataset, device: torch.device) -> Scores:
        """Fit; see :class:`Baseline`."""
        from sklearn.multioutput import MultiOutputRegressor
        from sklearn.svm import SVC, SVR

        grid = list(itertools.product(10.0 ** np.arange(-2, 4), _bandwidths(dataset)))
        if dataset.task == "classification":
            return _best([partial(SVC, C=c, gamma=g) for c, g in grid], dataset, labels=True)
        regressors = [partial(MultiOutputRegressor, SVR(C=c, gamma=g, epsilon=0.01)) for c, g in grid]
        return _best(regressors, dataset)


class RidgeNTK(Baseline):
    """Kernel ridge regression with the NTK at init of the MLP that the cell describes.

    Args:
        **mlp: Settings of :class:`runner.models.MLP`.
    """

    def __init__(self, **mlp: Any) -> None:
        self.settings = {"_target_": "runner.models.MLP", **mlp}

    def check(self, dataset: Dataset, width: int, depth: int) -> None:
        """Build the network; see :class:`Baseline`."""
        build(self.settings, width=width, depth=depth, inputs=dataset.input_shape, outputs=dataset.outputs)

    def scores(self, cell: Cell, dataset: Dataset, device: torch.device) -> Scores:
        """Fit; see :class:`Baseline`."""
        ensemble = Ensemble([cell], self.settings, dataset, device)
        count = len(dataset.train)
        x = torch.cat([ensemble.inputs["train"], ensemble.inputs["test"]], 1)
        kernel = empirical_ntk(ensemble.model, ensemble.parameters, x, count)
        # Once to fit, once to be predicted.
        both = torch.cat([kernel[:, :count], kernel], 1)
        predicted = kernel_ridge(both, ensemble.scores["train"])[0].cpu()
        return predicted[:count], predicted[count:]


def baseline_of(settings: Mapping[str, Any]) -> Baseline | None:
    """Return the baseline that a ``model`` section describes, or None if it describes a network.

    Raises:
        UserError: If the target cannot be found or does not take these keys.
    """
    target = instantiate.resolve("model", settings)
    if not (isinstance(target, type) and issubclass(target, Baseline)):
        return None
    baseline: Baseline = instantiate.call("model", settings)
    return baseline


def check(baseline: Baseline, dataset: Dataset, width: int, depth: int) -> None:
    """Raise UserError if a baseline cannot be fitted to a data set."""
    if dataset.vocabulary is not None:
        raise UserError(
            "data must hold vectors, sequences of them or images for a baseline, got sequences of symbols; "
            "use other data, or model=transformer"
        )
    if len(dataset.train) < LEAST_SAMPLES:
        raise UserError(
            f"data.train_size must be at least {LEAST_SAMPLES} for a baseline, which chooses its "
            f"hyperparameters on a split of it, got {len(dataset.train)}; raise it"
        )
    baseline.check(dataset, width, depth)


def fit_cells(cells: Sequence[Cell], device: torch.device) -> list[dict[str, Any]]:
    """Fit the baseline of a pack, once for cells that share everything it looks at.

    Args:
        cells: Cells with one ``pack_key`` whose model is a baseline.

    Returns:
        One row of ``cells`` per cell with losses and errors; measures are absent.
    """
    rows = []
    for cell in cells:
        began = time.perf_counter()
        rows.append({"status": "ok", **_fit(_Question(cell), str(device)), "device": device.type})
        rows[-1]["train_seconds"] = time.perf_counter() - began
    return rows


class _Question:
    """A cell that hashes by what its baseline looks at."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.sections = json.loads(cell.settings)
        self.key: tuple[object, ...] = (
            canonical_json(self.sections["model"]),
            canonical_json(self.sections["data"]),
            cell.loss,
        )
        if isinstance(baseline_of(self.sections["model"]), RidgeNTK):
            self.key += (cell.width, cell.depth, cell.dtype, *cell.start_key)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Question) and self.key == other.key


@lru_cache(maxsize=256)
def _fit(question: _Question, device: str) -> dict[str, float]:
    baseline = baseline_of(question.sections["model"])
    assert baseline is not None
    dataset = data.load(question.sections["data"])
    scores = baseline.scores(question.cell, dataset, torch.device(device))
    measured: dict[str, float] = {}
    for name, split, f in zip(("train", "test"), (dataset.train, dataset.test), scores, strict=True):
        f, y = f[None], split.targets[None]
        regression = dataset.task == "regression"
        # A score that is no estimate of the target has no loss that compares with a network's.
        if question.cell.loss == "mse" and (baseline.squared_error or regression):
            measured[f"{name}_loss"] = losses.mse(f, y).item()
        if not regression:
            measured[f"{name}_error"] = losses.error_rate(f, y).item()
    return measured | {f"best_{key}": value for key, value in measured.items() if key.startswith("test")}


def _bandwidths(dataset: Dataset) -> list[float]:
    """Values of gamma in exp(-gamma |x - x'|^2), about one over the mean square distance."""
    x = dataset.train.inputs.flatten(1)
    return [factor / (2 * x.var(0).sum().item()) for factor in (0.125, 0.5, 2.0, 8.0)]


def _best(models: Iterable[Callable[[], Any]], dataset: Dataset, *, labels: bool = False) -> Scores:
    """Scores of the model that does best on the last fifth of the training set; of equal ones the first."""
    x, z = (split.inputs.flatten(1).numpy() for split in (dataset.train, dataset.test))
    y = dataset.train.targets.numpy()
    wanted = _classes(y) if labels else y
    fitted = len(x) - max(1, int(HELD_OUT * len(x)))
    if labels and len(np.unique(wanted[:fitted])) < 2:
        raise UserError(f"data.train_size must give samples of two classes, got {len(x)}; raise it")
    errors = []
    models = list(models)
    for make in models:
        model = make().fit(x[:fitted], wanted[:fitted])
        predicted = model.predict(x[fitted:]).reshape(wanted[fitted:].shape)
        wrong = predicted != wanted[fitted:] if labels else (predicted - wanted[fitted:]) ** 2
        errors.append(float(np.mean(wrong)))
    model = models[int(np.argmin(errors))]().fit(x, wanted)
    return _scores(model, x, y, labels), _scores(model, z, y, labels)


def _classes(targets: NDArray[np.float64]) -> NDArray[np.int64]:
    """One label per sample: the largest score, or the sign of a single one."""
    classes: NDArray[np.int64] = targets.argmax(1)
    return (targets[:, 0] > 0).astype(np.int64) if targets.shape[1] == 1 else classes


def _scores(model: Any, x: NDArray[np.float64], y: NDArray[np.float64], labels: bool) -> Tensor:
    predicted = torch.from_numpy(np.asarray(model.predict(x), dtype=float))
    if not labels:
        return predicted.view(len(x), y.shape[1])
    return 2 * predicted[:, None] - 1 if y.shape[1] == 1 else one_hot(predicted.long(), y.shape[1])
