"""Figures of fitted models and of functions, axes in and axes out; and the report of a fit, one HTML file."""

from tenfac.plot.coverage import calibration
from tenfac.plot.functions import coefficient_decay, function_slice, singular_values
from tenfac.plot.modes import mode_function, mode_functions
from tenfac.plot.page import report

__all__ = [
    "calibration",
    "coefficient_decay",
    "function_slice",
    "mode_function",
    "mode_functions",
    "report",
    "singular_values",
]
