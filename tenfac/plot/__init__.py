"""Figures of fitted models, axes in and axes out; and the report of a fit, one HTML file."""

from tenfac.plot.coverage import calibration
from tenfac.plot.modes import mode_function, mode_functions
from tenfac.plot.page import report

__all__ = ["calibration", "mode_function", "mode_functions", "report"]
