"""Shapes are checked in each call that differs from those that passed, and in every module that has some."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import jaxtyping
import pytest
import torch
from jaxtyping import Float, Int, TypeCheckError
from torch import Tensor
from typechecker import check

from runner.numerics import eigen


@jaxtyping.jaxtyped(typechecker=check)
def product(
    left: Float[Tensor, "row sum"], right: "Float[Tensor, 'sum column']", result: Tensor | None = None
) -> Float[Tensor, "row column"]:
    return left @ right if result is None else result


@jaxtyping.jaxtyped(typechecker=check)
def first(
    parts: Sequence[Float[Tensor, " n"]], named: Mapping[str, Int[Tensor, " n"]], way: Literal["up", "down"]
) -> int | None:
    return 1 if way == "up" else None


@jaxtyping.jaxtyped(typechecker=check)
@dataclass
class Kept:
    value: Float[Tensor, " n"]
    twice: "Float[Tensor, ' n']"
    also: int | None = None


@jaxtyping.jaxtyped(typechecker=check)
@dataclass
class KeptLonger(Kept):
    longer: Float[Tensor, " n"] | None = None


@pytest.fixture(autouse=True)
def passed():
    """What is right has passed before, twice."""
    for _ in range(2):
        assert product(torch.ones(2, 3), torch.ones(3, 4)).shape == (2, 4)
        assert product(torch.ones(2, 3), torch.ones(3, 4), torch.ones(2, 4)).shape == (2, 4)
        assert first([torch.ones(2), torch.ones(2)], {"a": torch.ones(2).int()}, "up") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (torch.ones(2, 3), torch.ones(2, 4)),
        (torch.ones(2, 3).int(), torch.ones(3, 4)),
        (torch.ones(2, 3, 1), torch.ones(3, 4)),
        (torch.ones(2, 3), torch.ones(3, 4), torch.ones(4, 2)),
        (torch.ones(2, 3), torch.ones(3, 4), torch.ones(2, 4).int()),
        (torch.ones(2, 3), None),
    ],
)
def test_a_wrong_shape_after_a_right_one_is_refused(arguments):
    for _ in range(2):
        with pytest.raises(TypeCheckError):
            product(*arguments)


@pytest.mark.parametrize(
    ("parts", "named", "way"),
    [
        ([torch.ones(2, 1)] * 2, {"a": torch.ones(2).int()}, "up"),
        ((torch.ones(3),), {"a": torch.ones(2).int()}, "up"),
        ([torch.ones(2)] * 2, {"a": torch.ones(3).int()}, "up"),
        ([torch.ones(2)] * 2, {1: torch.ones(2).int()}, "up"),
        ([torch.ones(2)] * 2, [torch.ones(2).int()], "up"),
        ([torch.ones(2)] * 2, {"a": torch.ones(2).int()}, "left"),
    ],
)
def test_what_lies_in_containers_and_names_count(parts, named, way):
    for _ in range(2):
        with pytest.raises(TypeCheckError):
            first(parts, named, way)


@pytest.mark.parametrize("kind", [Kept, KeptLonger])
def test_fields_are_checked_in_each_instance(kind):
    for _ in range(2):
        assert kind(torch.ones(2), twice=torch.ones(2)).also is None
        assert kind(torch.ones(3), torch.ones(3), also=1).also == 1
        for wrong in (torch.ones(3), torch.ones(2, 1), torch.ones(2).int(), None):
            with pytest.raises(TypeCheckError):
                kind(torch.ones(2), wrong)
        with pytest.raises(TypeCheckError):
            kind(torch.ones(2), torch.ones(2), also="1")
        with pytest.raises(TypeCheckError):
            KeptLonger(torch.ones(2), torch.ones(2), longer=torch.ones(3))


def test_what_is_given_by_name_is_not_what_is_given_by_place():
    assert product(left=torch.ones(2, 3), right=torch.ones(3, 4)).shape == (2, 4)
    for _ in range(2):
        with pytest.raises(TypeCheckError):
            product(right=torch.ones(2, 3), left=torch.ones(3, 4))


def test_functions_made_anew_keep_what_they_close_over_and_their_checks():
    def adding(offset):
        @jaxtyping.jaxtyped(typechecker=check)
        def added(x: Float[Tensor, " n"], deeper: int = 0) -> Float[Tensor, " n"]:
            if deeper:
                return adding(10 * offset)(x, deeper - 1) + offset
            return x + offset if x[0] >= 0 else x[:-1]

        return added

    for offset in (1, 2):
        for deeper in (0, 2):
            found = adding(offset)(torch.zeros(3), deeper)
            assert found.tolist() == [offset * sum(10**place for place in range(deeper + 1))] * 3
        with pytest.raises(TypeCheckError):
            adding(offset)(-torch.ones(3))
        with pytest.raises(TypeCheckError):
            adding(offset)(torch.zeros(3, 1))


def test_a_check_that_is_off_lets_nothing_pass_later(monkeypatch):
    wrong = (torch.ones(5, 3), torch.ones(3, 4), torch.ones(2, 4))
    with monkeypatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        product(*wrong)
    with pytest.raises(TypeCheckError):
        product(*wrong)


def test_the_package_is_checked():
    function = next(
        value for value in vars(eigen).values()
        if callable(value) and value.__module__ == eigen.__name__ and "Tensor" in str(value.__annotations__)
    )  # fmt: skip
    with pytest.raises(TypeCheckError):
        function(*("no tensor" for name in function.__annotations__ if name != "return"))
