"""What a data set is: three disjoint splits, drawn from ``data.seed``.

The shape of one sample says what it is, and models read it so:

- ``(features,)``: a vector.
- ``(positions, features)``: a sequence; tokens are one-hot, so that a linear layer embeds them.
- ``(channels, height, width)``: an image.
- :class:`Tokens`, positions and vocabulary: a sequence of symbols, held as their numbers, whole numbers
  ``[position]`` that stand for one-hot vectors. At every position the symbol that follows is predicted.

Whoever wants a vector, as the MLP and the kernels of the baselines, flattens the others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from runner.errors import UserError
from runner.grid.cell import canonical_json
from runner.grid.instantiate import call

TASKS = ("classification", "regression")


class Tokens(NamedTuple):
    """The shape that a sample of symbols stands for, one-hot; which tells models that it holds their numbers.

    Attributes:
        positions: Symbols of a sample.
        vocabulary: Different symbols that there are.
    """

    positions: int
    vocabulary: int


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and what the network should say of them.

    Attributes:
        inputs: ``[sample, *shape]``, the shape as above; int64 ``[sample, position]`` for symbols.
        targets: ``[sample, output]``; for classification the largest score marks the class, or the sign of
            a single output. For symbols int64 ``[sample, position]``, the next symbol at every position.
        second: Another labelling of the same inputs, one column of -1 and +1, on which features learned
            from ``targets`` are tried; None if there is none.
    """

    inputs: Shaped[Tensor, "sample *shape"]
    targets: Shaped[Tensor, "sample output"]
    second: Float64[Tensor, "sample 1"] | None = None

    def __len__(self) -> int:
        return self.inputs.shape[0]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A task with its train, test and probe splits, in float64 on the CPU.

    Attributes:
        train: What is fitted.
        test: What test loss and error are measured on.
        probe: Held-out samples on which kernel and features are measured.
        task: ``classification``, or ``regression`` where an error rate has no meaning.
        fresh: Draws so many new training samples, for ``data.online=true``: of the same task as the splits,
            in float64 on the CPU, all that is random in them and in their noise from the generator that it
            is given. None where there are no more samples than those of the splits.
        vocabulary: For sequences of symbols, how many there are; None for all other data.
    """

    train: Split
    test: Split
    probe: Split
    task: Literal["classification", "regression"]
    fresh: Callable[[int, torch.Generator], Split] | None = None
    vocabulary: int | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample; of symbols the one that their numbers stand for."""
        if self.vocabulary is not None:
            return Tokens(self.positions, self.vocabulary)
        return tuple(self.train.inputs.shape[1:])

    @property
    def positions(self) -> int:
        """Predictions of a sample: one but for symbols, of which each has one."""
        return 1 if self.vocabulary is None else self.train.targets.shape[1]

    @property
    def outputs(self) -> int:
        """Network outputs that the targets ask for, those of all positions side by side."""
        return self.train.targets.shape[1] if self.vocabulary is None else self.positions * self.vocabulary


def load(settings: Mapping[str, Any]) -> Dataset:
    """Return the data set that a ``data`` section describes; the last few are kept.

    Args:
        settings: The section: ``_target_`` and the keys that the function takes. ``online`` is not one of
            them: it says how the data set is trained on.

    Raises:
        UserError: If the section does not describe a data set.
    """
    given = {key: value for key, value in settings.items() if key != "online"}
    return _load(_Section(canonical_json(given), given))


@dataclass(frozen=True)
class _Section:
    """A config section that hashes by its canonical form."""

    key: str
    settings: Mapping[str, Any] = field(compare=False)


@lru_cache(maxsize=8)
def _load(section: _Section) -> Dataset:
    for key in ("train_size", "test_size", "probe_size"):
        at_least(f"data.{key}", section.settings.get(key, 1), 1, "give a number of samples")
    at_least("data.seed", section.settings.get("seed", 0), 0, "give a seed")
    dataset = call("data", section.settings)
    if not isinstance(dataset, Dataset):
        target = section.settings["_target_"]
        raise UserError(
            f"data._target_ must return a runner.data.Dataset, got {type(dataset).__name__} from {target}"
        )
    if dataset.task not in TASKS:
        raise UserError(
            f"data must be of a task of {', '.join(TASKS)}, got {dataset.task}; choose one of them"
        )
    for name in ("train", "test", "probe"):
        check_split(name, getattr(dataset, name), dataset)
    return dataset


def check_split(name: str, split: Split, dataset: Dataset) -> None:
    """Raise UserError if a split is malformed, or is not of one kind with the training set."""
    kinds = {
        type(values).__name__ for values in (split.inputs, split.targets) if not isinstance(values, Tensor)
    }
    if kinds:
        raise UserError(
            f"data must be tensors, got {kinds.pop()} in the {name} split; use torch.from_numpy for an array"
        )
    if not (split.inputs.isfinite().all() and split.targets.isfinite().all()):
        raise UserError(f"data must be finite, got NaN or inf in the {name} split; clean the data set")
    if split.inputs.shape[0] != split.targets.shape[0] or not len(split):
        raise UserError(
            f"data must have one target per sample, got {split.inputs.shape[0]} inputs and "
            f"{split.targets.shape[0]} targets in the {name} split; give as many of both"
        )
    if dataset.vocabulary is not None:
        _check_symbols(name, split, dataset)
    outputs = dataset.train.targets.shape[1:]
    if len(outputs) != 1 or split.targets.shape[1:] != outputs:
        raise UserError(
            f"data must have targets [sample, output], as many outputs in every split, got "
            f"{list(split.targets.shape)} in the {name} split; give each output a column"
        )
    scored = dataset.vocabulary is None and dataset.task == "classification"
    if scored and outputs[0] == 1 and bool((split.targets == 0).any()):
        raise UserError(
            f"data must mark two classes by the sign of a single target, got 0 in the {name} split; "
            "use -1 and +1, or a column for each class"
        )
    shape = tuple(dataset.train.inputs.shape[1:])
    if tuple(split.inputs.shape[1:]) != shape:
        raise UserError(
            f"data must have samples of one shape, got {shape} in the train split and "
            f"{tuple(split.inputs.shape[1:])} in the {name} split; give all splits one"
        )
    if split.second is not None and not bool((split.second.abs() == 1).all()):
        raise UserError(
            f"data must have second labels of -1 and +1, got others in the {name} split; use the sign"
        )


def _check_symbols(name: str, split: Split, dataset: Dataset) -> None:
    """Raise UserError if a split of symbols is malformed."""
    if dataset.task != "classification" or split.second is not None:
        raise UserError(
            "data with a vocabulary must be of the task classification, without second labels, got others; "
            "leave out Split.second"
        )
    for values in (split.inputs, split.targets):
        numbers = values.dtype == torch.int64 and values.shape == split.inputs.shape and values.dim() == 2
        if not numbers or not bool(((values >= 0) & (values < (dataset.vocabulary or 0))).all()):
            raise UserError(
                f"data with a vocabulary of {dataset.vocabulary} must have int64 inputs and targets [sample, "
                f"position] from 0 on below it, got {values.dtype} {list(values.shape)} in the {name} split; "
                "number the symbols"
            )


def at_least(key: str, value: object, least: int, remedy: str = "give a larger one") -> None:
    """Raise UserError unless the value of a key is an integer of at least this."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{key} must be an integer >= {least}, got {value!r}; {remedy}")


def one_hot(labels: Tensor, classes: int) -> Float64[Tensor, "*sample class"]:
    """Return zero-mean one-hot targets: 1 - 1/classes for the class, -1/classes elsewhere."""
    return torch.nn.functional.one_hot(labels, classes).double() - 1 / classes
