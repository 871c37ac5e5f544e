"""Ensembles over seeds: variance and bias of what networks predict, and the loss of their average.

K networks that differ in their seed alone predict f_1 ... f_K on the same samples. With L the MSE of this
package, half the squared distance summed over outputs and averaged over samples, exactly::

    mean_k L(f_k) = L(mean f) + (K - 1) / K * V / 2 = bias + V / 2,    bias = L(mean f) - V / (2 K)

where V is the unbiased variance over seeds, summed over outputs and averaged over samples. The bias is the
unbiased estimate of the loss of infinitely many networks averaged. Arrays are ``[seed, sample, output]``.

References:
    Geiger et al. (2020), arXiv 1906.08034; Atanasov et al. (2022), arXiv 2212.12147; Vyas et al. (2023),
    arXiv 2305.18411.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.agreement import VERDICTS, Verdict, beside_theory, rivals_of
from runner.analysis.beside import SMALL
from runner.analysis.columns import facet_groups, numeric_column, plain, show_values
from runner.analysis.exponents import counted_as
from runner.analysis.losses import LOSSES, error_rate
from runner.analysis.quantiles import student
from runner.analysis.selection import require_no_other_varying
from runner.analysis.straight import LEAST_WIDTHS
from runner.analysis.theory import predicted_variance
from runner.errors import UserError, unknown

SPLITS = ("test", "probe", "train")
"""Of those that are kept the first is looked at, unless another is asked for."""
LEAST_SEEDS = 3
"""Of an interval: without one of them there is a variance still."""
_BOUNDED = ("variance", "mean_loss", "ensemble_loss", "bias")
_VALUES = (
    "variance", "relative_variance", "mean_loss", "ensemble_loss", "bias", "mean_error", "ensemble_error",
    *(f"{name}_{end}" for name in _BOUNDED for end in ("low", "high")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kept:
    """What one cell predicts on a split: ``[sample, output]``; targets are None where none were kept."""

    values: np.ndarray
    targets: np.ndarray | None
    step: int


def kept_split(outputs: pd.DataFrame, split: str | None = None) -> str:
    """Return the split to look at.

    Args:
        outputs: Rows of ``outputs`` of the chosen cells.
        split: The one asked for.

    Raises:
        UserError: If there are no outputs, or none on that split.
    """
    there = [name for name in SPLITS if (outputs["split"] == name).any()]
    if not there:
        raise UserError(
            "STORE must hold outputs of networks for an ensemble, got none of these cells; "
            "sweep with measure=[basic,predictions], which keeps them"
        )
    if split is not None and split not in there:
        hint = ",".join(dict.fromkeys([*reversed(there), *([split] if split in SPLITS else [])]))
        if split in SPLITS:
            raise UserError(
                f"--split must be one that was kept, {', '.join(there)}, got {split}; "
                f"sweep with measure.functions.predictions.splits=[{hint}]"
            )
        raise unknown("--split", split, there)
    return split or there[0]


def predictions_of(
    outputs: pd.DataFrame, split: str, step: int | Mapping[str, int] | None = None
) -> dict[str, Kept]:
    """Return what each cell predicts on a split at a measured step.

    Args:
        outputs: Rows of ``outputs`` of the chosen cells.
        step: The step, of all cells or by id; by default the last one of each cell that was kept.

    Raises:
        UserError: If nothing was kept there.
    """
    rows = outputs[(outputs["split"] == split).to_numpy()]
    if step is None:
        wanted: Any = rows.groupby("cell_id", observed=True)["step"].transform("max")
    else:
        wanted = step if isinstance(step, int) else rows["cell_id"].map(step)
    found = rows[rows["step"] == wanted].sort_values(["cell_id", "sample", "output"], kind="stable")
    finite = np.isfinite(found["value"].to_numpy(float, na_value=np.nan))
    if not finite.any():
        raise UserError(
            f"outputs must be kept at the steps looked at, got those of steps {show_values(rows['step'])}; "
            "sweep with measure.functions.predictions.at=every, or choose one of them with --step"
        )
    lost = set(found["cell_id"][~finite])
    return {
        str(cell): _kept(part) for cell, part in found.groupby("cell_id", observed=True) if cell not in lost
    }


def _kept(rows: pd.DataFrame) -> Kept:
    """Return the rows of a cell, sorted by sample and output, as arrays."""
    count = int(rows["output"].max()) + 1
    targets = rows["target"].to_numpy(float, na_value=np.nan).reshape(-1, count)
    values = rows["value"].to_numpy(float).reshape(-1, count)
    return Kept(values, targets if np.isfinite(targets).all() else None, int(rows["step"].iloc[0]))


def ensembles(
    cells: pd.DataFrame, kept: Mapping[str, Kept], facets: Sequence[str] = ("parameterization",),
    x: str = "width", *, held_out: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """Return variance, bias and losses of ensembles against a key, and the slope of the variance.

    Args:
        cells: The chosen rows of ``cells``; nothing may vary but the key, seed and the facets.
        kept: By cell id, what :func:`predictions_of` returns.
        facets: Keys with one line per combination of values.
        x: The key, with numbers.
        held_out: Whether they were not trained on; what training has taken away theory does not speak of.

    Returns:
        One row per facet and value of the key: the facet keys, the key, ``seeds``, ``left_out`` (diverged,
        failed, or without outputs), ``samples``, ``outputs``, ``variance`` (V above), ``relative_variance``
        (V over the mean square of the mean prediction, less V / K, which is noise in it; null where nothing
        is left), ``mean_loss`` (of one network, mean over seeds), ``ensemble_loss`` (of the averaged f),
        ``bias`` (MSE alone), ``mean_error`` and ``ensemble_error`` (likewise; null for regression), and
        ``_low`` and ``_high``, 95 %, of ``variance``, ``mean_loss``, ``ensemble_loss`` and ``bias``.
        Variances are null with one seed, intervals with fewer than three, all but variances where no targets
        were kept.

        One row per facet: its keys, ``slope``, ``low``, ``high`` (95 %), ``theory`` (null where it says
        nothing), ``widths`` (``values`` of another key), ``seeds`` (fewest at a value), ``largest``
        (relative variance at a value), ``verdict`` and ``because`` (whether the slope is theory's). No slope
        with fewer than three values.

    Raises:
        UserError: If a key is unknown, another one varies, or no ensemble has two networks.
    """
    if x in facets:
        raise UserError(f"--facet must not be {x}, which ensembles are set against; drop it from --facet")
    key = cells["width"] if x == "width" else numeric_column(cells, x, "--x")
    require_no_other_varying(cells, (x,), facets)
    rows, slopes = [], []
    for facet, part in facet_groups(cells, facets):
        found: list[tuple[dict[str, Any], _Statistics | None]] = []
        for place, group in part.groupby(key[part.index]):
            found.append(_row(facet | {x: plain(place)}, group, kept))
        rows += [row for row, _ in found]
        lines = {row[x]: one for row, one in found if one is not None and one.usable and row[x] > 0}
        example = {str(name): plain(value) for name, value in part.iloc[0].items()}
        trained = all(kept[cell].step > 0 for cell in part["cell_id"] if cell in kept)
        theory = predicted_variance(example) if x == "width" and trained and held_out else None
        counts = {"theory": theory, counted_as(x): len(lines)}
        counts |= {"seeds": min((one.seeds for one in lines.values()), default=0)}
        largest = max((one.relative or 0.0 for one in lines.values()), default=np.nan)
        slope = _slope(lines) | counts | {"largest": largest}
        slopes.append(facet | slope | _judged(slope, example)._asdict())
    table = pd.DataFrame(rows)
    if table["seeds"].max() < 2:
        raise UserError(
            f"seed must have at least 2 values for an ensemble, got {show_values(cells['seed'])} in networks "
            "that trained and kept outputs; sweep more, seed=range(0,16) say"
        )
    return (
        table.astype(dict.fromkeys(_VALUES, "float64")),
        pd.DataFrame(slopes).astype(
            dict.fromkeys(("slope", "low", "high", "theory", "largest"), "float64")
            | dict.fromkeys(VERDICTS, object)
        ),
    )


def _judged(slope: Mapping[str, Any], cell: dict[str, Any]) -> Verdict:
    """Return whether the slope of a variance is theory's, which is of one that is small."""
    large = slope["largest"] >= SMALL
    words = f"the relative variance comes to {slope['largest']:.2g}: theory's slope is of a small one"
    rivals = rivals_of(slope["theory"], cell, predicted_variance)
    return beside_theory(slope, rivals, words if large else None)


def _row(
    keys: dict[str, Any], cells: pd.DataFrame, kept: Mapping[str, Kept]
) -> tuple[dict[str, Any], _Statistics | None]:
    """Return the row of one ensemble, and its statistics where there are any."""
    ok = cells["status"].astype(object) == "ok"
    found = [kept[cell] for cell in cells.loc[ok, "cell_id"] if cell in kept]
    row = keys | {"seeds": len(found), "left_out": len(cells) - len(found)}
    if not found:
        return row | {"samples": 0, "outputs": 0} | dict.fromkeys(_VALUES), None
    classified = "train_error" in cells and bool(cells.loc[ok, "train_error"].notna().any())
    f, targets = np.stack([one.values for one in found]), found[0].targets
    statistics = _Statistics.of(f, targets, str(cells["loss"].iloc[0]), classified)
    row |= {"samples": f.shape[1], "outputs": f.shape[2]}
    return row | {name: statistics.values.get(name) for name in _VALUES}, statistics


@dataclass(frozen=True, slots=True)
class _Statistics:
    """Statistics of one ensemble; of the logarithm of the variance also what the jackknife says."""

    seeds: int
    values: dict[str, float | None]
    log_error: float | None

    @property
    def usable(self) -> bool:
        """Whether it has a variance to fit."""
        return bool(self.values.get("variance"))

    @property
    def relative(self) -> float | None:
        """The variance over the mean square of the mean."""
        return self.values.get("relative_variance")

    @classmethod
    def of(cls, f: np.ndarray, y: np.ndarray | None, loss: str, classified: bool) -> _Statistics:
        """Return those of networks that predict f where the targets are y."""
        seeds, mean = len(f), f.mean(0)
        values: dict[str, float | None] = {}
        of: dict[str, tuple[float, np.ndarray]] = {}  # each with what it is without each of the seeds
        without = (seeds * mean - f) / max(seeds - 1, 1)
        if seeds > 1:
            of["variance"] = _variance(f, mean)
            signal = (mean**2).sum(1).mean() - of["variance"][0] / seeds
            values["relative_variance"] = of["variance"][0] / signal if signal > 0 else None
        if y is not None:
            single = LOSSES[loss](f, y)
            average = float(single.mean())
            of["mean_loss"] = average, (seeds * average - single) / max(seeds - 1, 1)
            of["ensemble_loss"] = float(LOSSES[loss](mean, y)), LOSSES[loss](without, y)
            if loss == "mse" and seeds > 1:
                (whole, parts), (variance, variances) = of["ensemble_loss"], of["variance"]
                of["bias"] = whole - variance / (2 * seeds), parts - variances / (2 * (seeds - 1))
            if classified:
                values |= {"mean_error": float(error_rate(f, y, loss).mean())}
                values |= {"ensemble_error": float(error_rate(mean, y, loss))}
        for name, (value, parts) in of.items():
            values[name] = value
            if seeds >= LEAST_SEEDS:
                values[f"{name}_low"], values[f"{name}_high"] = _interval(value, parts)
        fit = seeds >= LEAST_SEEDS and bool((of["variance"][1] > 0).all())
        return cls(seeds, values, _error(np.log(of["variance"][1])) if fit else None)


def _variance(f: np.ndarray, mean: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the variance, and what it is without each of the seeds; NaN where one is left."""
    seeds = len(f)
    squares = ((f - mean) ** 2).sum(2).mean(1)
    without = squares.sum() - squares * seeds / (seeds - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(squares.sum() / (seeds - 1)), without / np.float64(seeds - 2)


def _error(without: np.ndarray) -> float:
    """Return the jackknife's standard error of a statistic, from what it is without each of the seeds."""
    seeds = len(without)
    return float(np.sqrt((seeds - 1) / seeds * ((without - without.mean()) ** 2).sum()))


def _interval(value: float, without: np.ndarray) -> tuple[float, float]:
    """Return the jackknife's 95 % interval with Student's t; of the logarithm of what is positive."""
    positive = value > 0 and bool((without > 0).all())
    half = float(student(len(without) - 1, 0.975)) * _error(np.log(without) if positive else without)
    return (value * np.exp(-half), value * np.exp(half)) if positive else (value - half, value + half)


def _slope(found: Mapping[float, _Statistics]) -> dict[str, float | None]:
    """Return the slope of log variance against log key by least squares, with its 95 % interval.

    A bootstrap that draws seeds again has twins, whose variance is zero: with few seeds it is far too wide,
    with many too narrow. The jackknife's errors of the logarithms, with Student's t at the degrees of freedom
    of Welch and Satterthwaite, hold what was planted (tests/test_ensemble_analysis.py).
    """
    if len(found) < LEAST_WIDTHS:
        return dict.fromkeys(("slope", "low", "high"))
    x = np.log(np.array([*found], float))
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    logs = np.log([one.values["variance"] or np.nan for one in found.values()])
    slope = float(weights @ logs)
    errors = [one.log_error for one in found.values()]
    if None in errors:
        return {"slope": slope, "low": None, "high": None}
    parts = (weights * np.array(errors, float)) ** 2
    freedom = parts.sum() ** 2 / sum(
        part**2 / (one.seeds - 1) for part, one in zip(parts, found.values(), strict=True)
    )
    half = float(student(freedom, 0.975) * np.sqrt(parts.sum()))
    return {"slope": slope, "low": slope - half, "high": slope + half}
