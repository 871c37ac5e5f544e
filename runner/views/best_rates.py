"""The best learning rates against width, or another key: a section of the page."""

import pandas as pd

from runner.analysis.columns import distinct, groups, records, show
from runner.analysis.phase import Axes
from runner.analysis.selection import default_facets, facet_label
from runner.analysis.transfer import EDGE_WORDS, STAYS, lr_curves
from runner.analysis.transfer import transfer as best_rates
from runner.store import Store
from runner.views.captions import AT_EDGE, BEST_INTERVAL, hollow_words, repeated, same_words
from runner.views.drift import EDGE, PUT, best_words, drift_words, is_bound
from runner.views.laws import sentence, verdict_words
from runner.views.picture import Answer, Part, Section
from runner.views.scales import lr_unit
from runner.views.style import Layout
from runner.views.transfer import METRIC, chart, key_words


def _on_page(store: Store, cells: pd.DataFrame, axes: Axes) -> Part:
    """Return the best learning rates of the cells of the page, along the x of its diagram."""
    x = axes.x if axes.y == "lr" else "width"
    losses, best = lr_curves(cells, METRIC, axes.facets, x), best_rates(cells, METRIC, axes.facets, x)
    words = f"runner transfer {store.path}" + (f" --x {x}" if x != "width" else "")
    if axes.facets != default_facets(store, (x, "lr")):
        words += f" --facet {','.join(axes.facets) or 'none'}"
    values = distinct(best[x])
    rows, put = [], {}
    for facet, part in groups(best, [best[key] for key in axes.facets]):
        found, label = {row[x]: row for row in records(part)}, facet_label(axes.facets, facet)
        pieces = records(part.drop_duplicates("piece") if "piece" in part else part.head(1))
        put[label] = "; ".join(verdict_words(row, *STAYS) for row in pieces)
        cells_of = (best_words(found.get(value)) for value in values)
        rows.append([label, *cells_of, "; ".join(map(drift_words, pieces)), put[label]])
    return Part(
        chart(losses, best, axes.facets, METRIC, lr_unit(cells), Layout(), x, repeated(cells)),
        f"Best: the smallest {METRIC}; in brackets 95 %. {BEST_INTERVAL.format(x=x)}. {_marks(best)}"
        f"Drift: doublings of the best rate per doubling of {key_words(x)}. {sentence(PUT)}",
        words,
        (", ".join(axes.facets), *(f"{x} {show(value)}" for value in values), "drift", "stays put?"),
        rows,
        lead=f"{_open(best)}{same_words(cells)} {hollow_words(cells)}",
        answers=(Answer(f"best lr stays put as {x} grows?", put, f"Best lr: by {METRIC}. {sentence(PUT)}"),),
    )


def _open(best: pd.DataFrame) -> str:
    """Return what open marks of the chart are, where there are some."""
    if not is_bound(best).any():
        return ""
    kinds = [EDGE_WORDS] * bool(best["at_edge"].any()) + ["an end of the grid"] * bool(best["at_end"].any())
    return f"Open marks without bars are bounds: {' or '.join(kinds)}. No drift is fitted through them. "


def _marks(best: pd.DataFrame) -> str:
    """Return what the marks behind rates of the table are, those that there are."""
    edge = f"{EDGE}: {AT_EDGE}. " if (best["at_edge"] & ~best["at_end"]).any() else ""
    return edge + ("*: an end of the grid, a bound, too. " if best["at_end"].any() else "")


SECTIONS = [
    Section(
        "transfer",
        "Best learning rate against width",
        "Where the best learning rate stays put as width grows, it can be tuned on a narrow "
        "network and used on a wide one (muTransfer: Yang et al., arXiv 2203.03466).",
        _on_page,
        (125, 220, 380),
        "No best learning rates",
    )
]
