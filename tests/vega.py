"""Charts compared with Vega-Lite's schema, which the package itself leaves out for speed."""

from contextlib import contextmanager

import altair
import pytest

from runner.views import figures
from runner.views.page import document


def specification(chart):
    """What ``figures.specification`` gives; raises where a chart does not fit the schema."""
    with altair.data_transformers.enable("default", max_rows=None):
        return chart.to_dict()


@contextmanager
def compared_with_schema():
    """Compare all charts that are drawn within."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "specification", specification)
        patch.setattr(document, "specification", specification)
        yield
