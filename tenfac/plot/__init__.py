"""Figures of fitted models: axes in, axes out; nothing is shown or saved here."""

from tenfac.plot.coverage import calibration
from tenfac.plot.modes import mode_function, mode_functions

__all__ = ["calibration", "mode_function", "mode_functions"]
