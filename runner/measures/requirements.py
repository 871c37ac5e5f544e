"""What a measure asks of a cell, checked before anything is trained.

A requirement is called with the measure's name and a :class:`Setting`, and raises UserError where the measure
would have no meaning. Free of torch until one is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.errors import UserError, unknown

if TYPE_CHECKING:
    from runner.data import Dataset

MAX_KERNEL_SIZE = 4096
"""Rows of the largest kernel all of whose eigenvalues are computed: some seconds and 134 MB in float64."""

EXACT_OUTPUTS = 256
"""Outputs at several positions up to which the kernel on probes is exact, unless a config says otherwise."""
VECTORS = 32
"""Random vectors that it is estimated with beyond them."""
SPLITS = ("probe", "test", "train")


@dataclass(frozen=True, slots=True)
class Setting:
    """What requirements look at.

    Attributes:
        dataset: The data set of the cell.
        optimizer: The ``optimizer`` section of its config.
        loss: ``mse`` or ``cross_entropy``.
        batch_size: Samples per step; None for full batch.
        online: Whether they are fresh at every step.
        model: The ``model`` section.
        options: Keyword arguments of the measure.
    """

    dataset: Dataset
    optimizer: Mapping[str, Any]
    loss: str
    batch_size: int | None
    online: bool = False
    model: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


Requirement = Callable[[str, Setting], None]


def enough_probes(name: str, setting: Setting) -> None:
    """Ask for as many predictions on probes as each has outputs, and for two probes."""
    positions = setting.dataset.positions
    least = max(2, -(-setting.dataset.outputs // positions**2))
    if len(setting.dataset.probe) < least:
        raise UserError(
            f"data.probe_size must be at least {least} for the measure {name} with "
            f"{setting.dataset.outputs} outputs, got {len(setting.dataset.probe)}; raise it"
        )


def sketch_vectors(outputs: int, positions: int, sketch: int | None) -> int:
    """Return how many random vectors the kernel on probes is estimated with; 0 if it is exact.

    Args:
        outputs: Of the network, of all positions.
        positions: Predictions of a sample; of a single one the kernel is always exact by default.
        sketch: The option of the measure: a number of them, 0 for none, None for what the outputs ask for.
    """
    if sketch is not None:
        return sketch
    return VECTORS if positions > 1 and outputs > EXACT_OUTPUTS else 0


def sketch_of_vectors(name: str, setting: Setting) -> None:
    """Ask for so many random vectors that their spread says how good the estimate is."""
    sketch = setting.options.get("sketch")
    whole = isinstance(sketch, int) and not isinstance(sketch, bool)
    if sketch is not None and not (whole and (sketch == 0 or sketch >= 2)):
        raise UserError(
            f"measure.functions.{name}.sketch must be null, 0 or an integer >= 2, got {sketch!r}; "
            "give a number of random vectors, 0 for the exact kernel"
        )


def known_splits(name: str, setting: Setting) -> None:
    """The splits whose outputs are to be kept are splits."""
    for split in setting.options.get("splits", ()):
        if split not in SPLITS:
            raise unknown(f"measure.functions.{name}.splits", split, SPLITS)


def full_batch(name: str, setting: Setting) -> None:
    """Ask for full-batch training."""
    if setting.online:
        raise UserError(
            f"data.online must be false for the measure {name}, which needs full batch, got true; "
            f"leave {name} out of measure"
        )
    if setting.batch_size is not None:
        raise UserError(
            f"batch_size must be null for the measure {name}, got {setting.batch_size}; "
            f"use full batch or leave {name} out of measure"
        )


def mse(name: str, setting: Setting) -> None:
    """Ask for the squared error."""
    if setting.loss != "mse":
        raise UserError(
            f"loss must be mse for the measure {name}, got {setting.loss}; "
            f"use loss=mse or leave {name} out of measure"
        )


def plain_sgd(name: str, setting: Setting) -> None:
    """Ask for gradient descent without momentum, decay, clipping and schedule.

    Roles may have learning rates of their own: the kernel has the same factors.
    """
    from runner.optim import SGD

    target = setting.optimizer.get("_target_")
    defaults = inspect.signature(SGD).parameters
    extras = {
        key: value
        for key, value in setting.optimizer.items()
        if key not in ("_target_", "name", "lr_input", "lr_hidden", "lr_output")
        and not (key in defaults and value == defaults[key].default)
    }
    if target != "runner.optim.SGD" or extras:
        got = f"{target} with {extras}" if extras else target
        raise UserError(
            f"optimizer must be plain gradient descent for the measure {name}, got {got}; "
            f"use optimizer=sgd or leave {name} out of measure"
        )


def integrable(name: str, setting: Setting) -> None:
    """Ask for a tolerance and a number of substeps with which gradient flow can be followed."""
    from runner.optim.flow import integration

    chosen = (
        setting.options.get(key, default) for key, default in (("tolerance", 1e-5), ("max_substeps", 100))
    )
    integration(f"measure.functions.{name}", *chosen)


def wide_mlp(name: str, setting: Setting) -> None:
    """Ask for an MLP with one output and no biases, and a limit that can be sampled."""
    from runner.limits import Sampling

    if setting.model.get("_target_") != "runner.models.MLP":
        raise UserError(
            f"model must be mlp for the measure {name}, got {setting.model.get('_target_')}; "
            f"use model=mlp or leave {name} out of measure"
        )
    if setting.model.get("bias"):
        raise UserError(
            f"model.bias must be false for the measure {name}, got true; "
            f"leave biases out, or {name} out of measure"
        )
    if setting.dataset.outputs != 1:
        raise UserError(
            f"data must have one output for the measure {name}, got {setting.dataset.outputs}; "
            f"use data=xor, say, or leave {name} out of measure"
        )
    Sampling(**setting.options).check(f"measure.functions.{name}")


def limit_in_width(name: str, cell: Any) -> None:
    """Ask for a parameterization whose networks have a limit that is not random."""
    from runner.limits.constants import require_limit

    require_limit(name, cell)


def enough_to_split(name: str, setting: Setting) -> None:
    """Ask for a training set that can be split to choose a ridge."""
    from runner.measures.ridge import LEAST_SAMPLES

    if len(setting.dataset.train) < LEAST_SAMPLES:
        raise UserError(
            f"data.train_size must be at least {LEAST_SAMPLES} for the measure {name}, which chooses a ridge "
            f"on a split of it, got {len(setting.dataset.train)}; raise it"
        )


def one_prediction(name: str, setting: Setting) -> None:
    """Ask for one prediction per sample, whose inputs are all that there is to be known."""
    if setting.dataset.vocabulary is not None:
        raise UserError(
            f"data must have one prediction per sample for the measure {name}, whose kernel has seen the "
            f"symbols to be predicted, got one at every position; leave {name} out of measure"
        )


def untied(name: str, setting: Setting) -> None:
    """Ask for a readout with a weight of its own."""
    if setting.model.get("tied"):
        raise UserError(
            f"model.tied must be false for the measure {name}, which divides the change of each weight's own "
            f"outputs, got true; untie the readout or leave {name} out of measure"
        )


def second_labels(name: str, setting: Setting) -> None:
    """Ask for a second labelling of the data."""
    if setting.dataset.train.second is None or setting.dataset.test.second is None:
        raise UserError(
            f"data must have a second labelling for the measure {name}, got none; give Split.second in train "
            f"and test, or leave {name} out of measure"
        )


def decomposable(name: str, setting: Setting) -> None:
    """Ask for a kernel of which all eigenvalues can be computed."""
    from runner.measures.kernel_spectrum import kernel_rows

    samples, outputs = len(setting.dataset.train), setting.dataset.outputs
    kernel = setting.options.get("kernel", "full")
    rows = kernel_rows(kernel, samples, outputs)
    if rows // samples > MAX_KERNEL_SIZE:
        raise UserError(
            f"measure.functions.{name}.kernel must be trace for {outputs} outputs, got {kernel}; the full "
            f"kernel of a single sample has more than {MAX_KERNEL_SIZE} rows"
        )
    if rows > MAX_KERNEL_SIZE:
        of = f" of the {kernel} kernel with {outputs} outputs" if outputs > 1 else ""
        instead = "lower it, take kernel=trace" if rows > samples else "lower it"
        raise UserError(
            f"data.train_size must be at most {MAX_KERNEL_SIZE * samples // rows} for the measure "
            f"{name}{of}, got {samples}; {instead} or leave {name} out of measure"
        )
