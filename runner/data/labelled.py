"""From labelled samples, wherever they come from, to a data set: one way to choose, relabel and scale."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from runner.data.dataset import Dataset, Split, one_hot
from runner.errors import UserError
from runner.numerics.generators import generator


class Samples(NamedTuple):
    """Samples and the numbers of their classes.

    Attributes:
        inputs: ``[sample, *shape]``, any real type.
        labels: ``[sample]``.
    """

    inputs: NDArray[Any]
    labels: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Everything there is to choose from.

    Attributes:
        name: Name of its random streams.
        train: Of which the train and probe splits are drawn, and the test split if ``test`` is None.
        test: Samples that the test split is drawn from; None to draw it from ``train``.
        classes: How many; labels go from 0 to this, exclusively.
        second: The classes that a second labelling calls +1; where that would say nothing new of the chosen
            classes, the upper half of all classes takes its place.
    """

    name: str
    train: Samples
    test: Samples | None
    classes: int
    second: Collection[int]


@dataclass(frozen=True)
class Choice:
    """What a ``data`` section asks of a source, as YAML gives it.

    Attributes:
        seed: Seed of the choice and of the label noise.
        train_size: Training samples; a larger set extends a smaller one and leaves the other splits alone.
        classes: Those to keep, in the order of the outputs; None for all.
        binary: Two groups of classes, -1 and +1, the others left out; or ``parity``: odd -1, even +1.
        label_noise: Probability that a training label is wrong: another one, drawn evenly. A sample with a
            wrong label keeps it as the probability grows.
        standardize: Shift and scale inputs by one mean and one standard deviation over the training set, so
            that a sample's norm is about the square root of its dimension. Otherwise they stay as they are.
    """

    seed: int
    train_size: int
    test_size: int
    probe_size: int
    classes: Any = None
    binary: Any = None
    label_noise: Any = 0.0
    standardize: Any = True

    def __post_init__(self) -> None:
        noise = self.label_noise
        if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise <= 1:
            raise UserError(f"data.label_noise must be a number from 0 to 1, got {noise!r}; e.g. 0.1")
        if not isinstance(self.standardize, bool):
            raise UserError(f"data.standardize must be true or false, got {self.standardize!r}; choose one")


def classification(source: Labelled, choice: Choice) -> Dataset:
    """Return the splits that a ``data`` section asks for.

    Targets are one-hot with mean zero, or one column of -1 and +1 with ``binary``.

    Raises:
        UserError: If the keys contradict each other or ask for more than there is.
    """
    groups = _groups(source.classes, choice.classes, choice.binary)
    outputs = 1 + max(groups.values())
    group_of = torch.full((source.classes,), -1)
    group_of[list(groups)] = torch.tensor(list(groups.values()))
    sign_of = _second(source, groups)
    splits = {}
    for name, (samples, index) in _choose(source, group_of, choice).items():
        labels = torch.from_numpy(samples.labels)
        target = group_of[labels]
        if name == "train" and choice.label_noise:
            stream = generator(choice.seed, f"{source.name}/label_noise")
            target = _corrupted(target, outputs, choice.label_noise, stream)
        target = target[index]
        splits[name] = Split(
            torch.from_numpy(np.ascontiguousarray(samples.inputs[index.numpy()], np.float64)),
            one_hot(target, outputs) if choice.binary is None else (2 * target - 1).double()[:, None],
            None if sign_of is None else sign_of[labels[index]][:, None],
        )
    if choice.standardize:
        splits = _standardized(splits)
    return Dataset(splits["train"], splits["test"], splits["probe"], task="classification")


def _choose(
    source: Labelled, group_of: Int64[Tensor, "class"], choice: Choice
) -> dict[str, tuple[Samples, Int64[Tensor, "chosen"]]]:
    """Return where each split comes from, and which samples it takes."""
    # Training samples come last in the order, so that the others do not depend on how many there are.
    sizes = {"test": choice.test_size, "probe": choice.probe_size, "train": choice.train_size}
    pools = [(source.train, "split", sizes)]
    if source.test is not None:
        own = {name: size for name, size in sizes.items() if name != "test"}
        pools = [(source.train, "split", own), (source.test, "test", {"test": sizes["test"]})]
    chosen: dict[str, tuple[Samples, Tensor]] = {}
    for samples, purpose, wanted in pools:
        stream = generator(choice.seed, f"{source.name}/{purpose}")
        order = torch.randperm(len(samples.labels), generator=stream)
        order = order[group_of[torch.from_numpy(samples.labels)[order]] >= 0]
        total = sum(wanted.values())
        if total > len(order):
            keys = " + ".join(f"data.{name}_size" for name in reversed(wanted))
            raise UserError(
                f"{keys} must be at most {len(order)}, the samples of the chosen classes, got {total}; "
                "make one smaller"
            )
        for name, size in wanted.items():
            chosen[name], order = (samples, order[:size]), order[size:]
    return chosen


def _groups(total: int, classes: Any, binary: Any) -> dict[int, int]:
    """Return the output, or the side, of each class that is kept."""
    kept = list(range(total)) if classes is None else _class_list("data.classes", classes, total)
    if binary is None:
        if len(kept) < 2:
            raise UserError(f"data.classes must name two classes or more, got {classes!r}; add one")
        return {label: place for place, label in enumerate(kept)}
    if binary == "parity":
        sides = [[c for c in kept if c % 2], [c for c in kept if not c % 2]]
    elif isinstance(binary, Sequence) and not isinstance(binary, str) and len(binary) == 2:
        if classes is not None:
            raise UserError(
                f"data.classes must be null beside two groups of classes in data.binary, got {classes!r}; "
                "leave it out: classes in neither group are left out"
            )
        sides = [_class_list("data.binary", side, total) for side in binary]
    else:
        raise UserError(
            f"data.binary must be null, parity or two groups of classes, got {binary!r}; e.g. [[0,1,2],[3,4]]"
        )
    groups = {label: place for place, side in enumerate(sides) for label in side}
    if not (sides[0] and sides[1]) or len(groups) < sum(map(len, sides)):
        raise UserError(
            f"data.binary must divide the classes into two groups that share none, got {sides}; "
            "give each group classes of its own"
        )
    return groups


def _class_list(key: str, classes: Any, total: int) -> list[int]:
    listed = list(classes) if isinstance(classes, Sequence) and not isinstance(classes, str) else []
    whole = all(isinstance(c, int) and not isinstance(c, bool) and 0 <= c < total for c in listed)
    if not listed or not whole or len(set(listed)) < len(listed):
        raise UserError(
            f"{key} must list different classes from 0 to {total - 1}, got {classes!r}; e.g. [3,8]"
        )
    return listed


def _second(source: Labelled, groups: Mapping[int, int]) -> Float64[Tensor, "class"] | None:
    """Return the sign of each class in the second labelling, or None if there is none."""
    for positive in (source.second, range(source.classes // 2, source.classes)):
        if _is_new(positive, groups):
            sign_of = torch.full((source.classes,), -1.0, dtype=torch.float64)
            sign_of[list(positive)] = 1.0
            return sign_of
    return None


def _is_new(positive: Collection[int], groups: Mapping[int, int]) -> bool:
    """Whether a second labelling has both signs, and says something else than the first."""
    signs: dict[int, set[bool]] = {}
    for label, group in groups.items():
        signs.setdefault(group, set()).add(label in positive)
    both = len(set().union(*signs.values())) == 2
    return both and (len(signs) > 2 or any(len(found) == 2 for found in signs.values()))


def _corrupted(
    target: Int64[Tensor, "sample"], outputs: int, probability: float, stream: torch.Generator
) -> Int64[Tensor, "sample"]:
    """Return the targets of a pool, some wrong: which ones does not depend on what is chosen of it."""
    wrong = torch.rand(len(target), generator=stream, dtype=torch.float64) < probability
    other = (target + torch.randint(1, outputs, target.shape, generator=stream)) % outputs
    return torch.where(wrong, other, target)


def _standardized(splits: Mapping[str, Split]) -> dict[str, Split]:
    train = splits["train"].inputs
    mean, scale = train.mean(), train.std()
    if not scale > 0:
        raise UserError(
            f"data.train_size must give inputs that vary, got {len(train)} samples that are all {mean:g}; "
            "raise it or use data.standardize=false"
        )
    return {
        name: Split((split.inputs - mean) / scale, split.targets, split.second)
        for name, split in splits.items()
    }
