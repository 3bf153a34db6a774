"""Gaussian sites in place of counts: conjugate-computation variational inference.

The posterior of f is approximated by that of Gaussian observations of f, one per row. A step moves their
natural parameters along the natural gradient of the bound; a step of one is a Newton step on expectations.

References
----------
.. [1] M. E. Khan and W. Lin, Conjugate-computation variational inference, AISTATS 2017, arXiv:1703.04265,
   equation 12.
.. [2] P. E. Chang, W. J. Wilkinson, M. E. Khan, A. Solin, Fast variational learning in state-space Gaussian
   process models, MLSP 2020, arXiv:2007.05994.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.hyper import Hyper
from tenfac.bayes.likelihoods.counts import Counts

Array = NDArray[Any]
_LEAST_PRECISION = 1e-12


@dataclass(frozen=True)
class CountSites:
    """Sites ``exp(pull f - precision f^2 / 2)``, to the power of the weight of their row.

    Parameters
    ----------
    likelihood : Counts
    y, weights : arrays, shape (N,)
    pull, precision : arrays, shape (N,)
    """

    likelihood: Counts
    y: Array
    weights: Array
    pull: Array
    precision: Array
    fixed_noise = True

    @classmethod
    def start(cls, likelihood: Counts, y: Array, weights: Array) -> CountSites:
        """Sites at what every row says alone."""
        response = likelihood.response
        f = (likelihood.alone(y, weights) - response.offset) / response.spread
        _, slope, curvature = likelihood.expected(y, f, np.zeros(y.size))
        precision = np.maximum(curvature, _LEAST_PRECISION)
        return cls(likelihood, y, weights, slope + precision * f, precision)

    @property
    def targets(self) -> Array:
        """What the sites say f is, shape (N,)."""
        return self.pull / self.precision

    def updated(self, mean: Array, variance: Array, hyper: Hyper, _learn: bool) -> tuple[CountSites, Hyper]:
        """Sites of a step of one; the likelihoods of counts have nothing to learn."""
        _, slope, curvature = self.likelihood.expected(self.y, mean, variance)
        precision = np.maximum(curvature, _LEAST_PRECISION)
        return replace(self, pull=slope + precision * mean, precision=precision), hyper

    def towards(self, other: CountSites, share: float) -> CountSites:
        """A shorter step in the natural parameters."""
        pull, precision = (
            (1 - share) * one + share * two
            for one, two in ((self.pull, other.pull), (self.precision, other.precision))
        )
        return replace(self, pull=pull, precision=precision)

    def bound_beyond_evidence(self, mean: Array, variance: Array) -> float:
        """What the bound has beside the Gaussian log evidence: that of the rows less that of their sites."""
        value, _, _ = self.likelihood.expected(self.y, mean, variance)
        squares = (self.targets - mean) ** 2 + variance
        site = 0.5 * (np.log(self.precision / (2 * np.pi)) - self.precision * squares)
        constant = self.likelihood.constant(self.y, self.weights).sum()
        return float(self.weights @ (value - site) + constant)
