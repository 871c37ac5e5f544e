"""What a readout sees of all positions, as steps of compiled code; see :mod:`runner.layers.lowering`."""

from runner.layers.lowered import CannotLower, Gradient, Value
from runner.layers.lowering import Lowering
from runner.numerics.operations import Blend, Step


def mean(lowering: Lowering, x: Value) -> Value:
    """Average over the positions of every sample."""
    rows, columns = x.rows.shape[1:]
    count, y = rows // lowering.samples, Value(lowering.room(lowering.samples, columns), Gradient())
    places = list(range(count))
    if x.image is not None:
        height, breadth, margin = x.image
        wide = breadth + 2 * margin
        places = [(margin + i) * wide + margin + j for i in range(height) for j in range(breadth)]
    share = 1 / len(places)
    for place in places:
        part = x.rows[:, place::count]
        lowering.forward.append(Blend("itself", y.rows, part, keep=float(place > places[0]), factor=share))
    term = "itself" if x.slope is None else "gate" if x.slope is x.rows else "times"

    def pull() -> list[Step]:
        assert y.gradient is not None
        given = y.gradient.room
        assert given is not None
        out, add = lowering.contribute(x)
        lowering.release(y.gradient)
        slopes = [None if x.slope is None else x.slope[:, place::count] for place in places]
        return [
            Blend(term, out[:, place::count], given, slope, keep=float(add), factor=share)
            for place, slope in zip(places, slopes, strict=True)
        ]

    lowering.back(pull)
    return y


def last(lowering: Lowering, x: Value) -> Value:
    """Take the last position of every sample."""
    count = x.rows.shape[1] // lowering.samples
    y = Value(x.rows[:, count - 1 :: count], Gradient())

    def pull() -> list[Step]:
        assert y.gradient is not None
        assert y.gradient.room is not None
        out, add = lowering.contribute(x)
        lowering.release(y.gradient)
        part, steps = out[:, count - 1 :: count], list[Step]()
        if not add:
            nothing = lowering.beside(*out.shape[1:])
            steps.append(Blend("itself", out, nothing, keep=0.0))
        return [*steps, Blend("itself", part, y.gradient.room)]

    if x.slope is not None:
        raise CannotLower
    lowering.back(pull)
    return y
