"""Altair specifications, written once: the page, the figures and notebooks draw the same ones."""

from runner.views.charts.curves import curves_chart
from runner.views.charts.phase import color_channels, phase_chart
from runner.views.charts.scaling import scaling_chart
from runner.views.charts.spectrum import gain_chart, spectrum_chart
from runner.views.charts.style import Layout
from runner.views.charts.transfer import transfer_chart

__all__ = [
    "Layout",
    "color_channels",
    "curves_chart",
    "gain_chart",
    "phase_chart",
    "scaling_chart",
    "spectrum_chart",
    "transfer_chart",
]
