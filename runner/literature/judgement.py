"""A published number beside the measured one: a check per figure, with the rules of the claims."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from runner.analysis.claims.verdict import Check, above, below, within
from runner.analysis.columns import column
from runner.analysis.selection import choose, select
from runner.errors import UserError
from runner.literature.measured import measured
from runner.literature.paper import Paper, Published
from runner.store import Store


def checks(paper: Paper, stores: Mapping[str, Store]) -> Sequence[Check]:
    """Return a check for each published number that is of the data at hand.

    Args:
        stores: The store of the paper's experiment, by the paper's name.
    """
    store = stores[paper.name]
    found = [_check(store, one) for one in paper.published if _applies(store, one)]
    return found or [Check("", "", note="no published figure is of these data")]


def _applies(store: Store, published: Published) -> bool:
    """Whether a number is of the data of the newest launch.

    Raises:
        UserError: If a condition is of a key that no cell has: a misspelling must not leave a number out.
    """
    cells = choose(store, ())
    for condition in published.only:
        column(cells, condition.partition("=")[0], "only")
    try:
        return bool(len(select(cells, published.only)))
    except UserError:  # no cell has these values
        return False


def _check(store: Store, published: Published) -> Check:
    """Measure a number and set it beside the published one."""
    estimate = partial(measured, store, published)
    if published.low is not None and published.high is not None:
        check = within(published.what, estimate, published.low, published.high, published.rival)
    elif published.low is not None:
        check = above(published.what, estimate, published.low)
    else:
        assert published.high is not None, "read_paper asks for one of them"
        check = below(published.what, estimate, published.high)
    return replace(check, published=published.value, source=published.source)
