"""The report: one HTML file with charts, data and Vega inside, which asks nothing of the network."""

from runner.views.page.document import Page, write_page

__all__ = ["Page", "write_page"]
