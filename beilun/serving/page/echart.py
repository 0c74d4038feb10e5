"""The chart element: NiceGUI's leaks a chart that is closed before it was drawn."""

from nicegui import ui


class EChart(ui.echart, component="static/chart.js"):
    """Shows ``options``; no themes, no three dimensions, no events."""
