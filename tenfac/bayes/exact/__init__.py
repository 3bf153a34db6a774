"""Exact inference over one index: a Kalman smoother where it is continuous, levels where it is discrete.

``filter_smooth`` is the Gaussian process of one index alone, in linear time.
"""

from tenfac.bayes.exact.filter import ProcessPosterior, filter_smooth
from tenfac.bayes.exact.sites import Sites

__all__ = ["ProcessPosterior", "Sites", "filter_smooth"]
