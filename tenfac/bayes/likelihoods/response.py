"""From observed values to the scale on which the function is Gaussian, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr

from tenfac.bayes.metrics import gaussian_crps

Array = NDArray[Any]
KINDS = ("identity", "log", "logit")
START = 0.1  # margin
# The trapezoid rule for the mean under a standard Gaussian: exponentially accurate, also for steep functions.
NODES = np.linspace(-8.5, 8.5, 171)
WEIGHTS = np.exp(-0.5 * NODES**2) / np.exp(-0.5 * NODES**2).sum()
_LEGENDRE = np.polynomial.legendre.leggauss(96)
_ROWS = 8192


@dataclass(frozen=True)
class Response:
    """``latent = (u(y) - offset) / spread``: zero mean and unit variance over the observations.

    ``u`` is ``y`` itself, ``log(y - low)``, or ``log((y - low) / (high - y))``.

    Parameters
    ----------
    kind : {"identity", "log", "logit"}
    low, high : float
        Floor and ceiling of y, where the kind has them.
    offset, spread : float
    """

    kind: str
    low: float
    high: float
    offset: float
    spread: float

    @classmethod
    def learn(cls, kind: str, y: Array, weights: Array, margin: float) -> Response:
        """Floor and ceiling a ``margin`` beyond the smallest and largest y, in units of their distance.

        Where several y are equal to the smallest (or largest), they were clipped or rounded and stand for an
        interval: the floor lies beyond it at least.
        """
        lowest, highest = float(y.min()), float(y.max())
        largest = float(np.abs(y).max()) or 1.0
        beyond = max(margin * (highest - lowest), 8 * np.finfo(float).eps * largest)
        if lowest == highest:
            beyond = largest
        below, above = max(beyond, _width_of_ties(y)), max(beyond, _width_of_ties(-y))
        start = cls(kind, lowest - below, highest + above, 0.0, 1.0)
        u = start._bend(y)
        largest = float(np.abs(u).max()) or 1.0  # squares of y may overflow, those of y / largest do not
        share = u / largest
        middle = float(np.average(share, weights=weights))
        spread = float(np.sqrt(np.average((share - middle) ** 2, weights=weights))) * largest
        if lowest == highest:
            spread = largest if kind == "identity" else 1.0
        return cls(kind, start.low, start.high, middle * largest, spread)

    @classmethod
    def start(cls, kind: str, y: Array, weights: Array) -> Response:
        """Begin with the margin that is tried first."""
        return cls.learn(kind, y, weights, START)

    @property
    def bounds(self) -> tuple[float, float]:
        """Floor and ceiling of y, infinite where there is none."""
        return (
            -np.inf if self.kind == "identity" else self.low,
            self.high if self.kind == "logit" else np.inf,
        )

    def latent(self, y: Array) -> Array:
        """Values on the Gaussian scale, shape (N,)."""
        return (self._bend(y) - self.offset) / self.spread

    def log_slope(self, y: Array) -> Array:
        """Logarithm of the derivative of ``latent``, shape (N,)."""
        slope = np.zeros(y.shape)
        if self.kind == "log":
            slope = -np.log(y - self.low)
        if self.kind == "logit":
            slope = np.log(self.high - self.low) - np.log(y - self.low) - np.log(self.high - y)
        return slope - np.log(self.spread)

    def observed(self, latent: Array) -> Array:
        """Inverse of ``latent``."""
        u = self.offset + self.spread * latent
        if self.kind == "log":
            return self.low + np.exp(u)
        if self.kind == "logit":
            return self.low + (self.high - self.low) * expit(u)
        return u

    def slope(self, latent: Array) -> Array:
        """Derivative of ``observed``."""
        u = self.offset + self.spread * latent
        if self.kind == "log":
            return self.spread * np.exp(u)
        if self.kind == "logit":
            return self.spread * (self.high - self.low) * expit(u) * expit(-u)
        return np.full(u.shape, self.spread)

    def moments(self, mean: Array, variance: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of y, where ``latent`` is Gaussian with these moments; shape (N,)."""
        if self.kind == "identity":
            return self.observed(mean), self.spread * np.sqrt(variance)
        if self.kind == "log":  # the moments of a log-normal
            spread2 = self.spread**2 * variance
            above = np.exp(self.offset + self.spread * mean + 0.5 * spread2)
            return self.low + above, above * np.sqrt(np.expm1(spread2))
        average, std = np.empty(mean.size), np.empty(mean.size)
        for rows in np.array_split(np.arange(mean.size), 1 + mean.size // _ROWS):
            u = mean[rows, None] + np.sqrt(variance[rows])[:, None] * NODES
            values = expit(self.offset + self.spread * u)  # from 0 to 1: nothing under- or overflows
            average[rows] = values @ WEIGHTS
            std[rows] = np.sqrt((values - average[rows, None]) ** 2 @ WEIGHTS)
        return self.low + (self.high - self.low) * average, (self.high - self.low) * std

    def covariance(self, mean: Array, cov: Array) -> Array:
        """Covariance of y, where ``latent`` has these moments (N,) and (N, N); not for "logit"."""
        if self.kind == "identity":
            return self.spread**2 * cov
        above = np.exp(self.offset + self.spread * mean + 0.5 * self.spread**2 * np.diag(cov))
        return above[:, None] * above * np.expm1(self.spread**2 * cov)

    def standardized(self, y: Array, mean: Array, variance: Array) -> Array:
        """Normal score of y, where ``latent`` is Gaussian with these moments; infinite beyond the bounds."""
        low, high = self.bounds
        z = np.where(y <= low, -np.inf, np.inf)
        inside = (y > low) & (y < high)
        z[inside] = (self.latent(y[inside]) - mean[inside]) / np.sqrt(variance[inside])
        return z

    def log_density(self, y: Array, mean: Array, variance: Array) -> Array:
        """Log density of y, where ``latent`` is Gaussian with these moments; -inf beyond the bounds."""
        z = self.standardized(y, mean, variance)
        out = np.full(y.shape, -np.inf)
        inside = np.isfinite(z)
        slope = self.log_slope(y[inside])
        out[inside] = slope - 0.5 * (z[inside] ** 2 + np.log(2 * np.pi * variance[inside]))
        return out

    def crps(self, y: Array, mean: Array, variance: Array) -> Array:
        """Continuous ranked probability score of every y, where ``latent`` is Gaussian with these moments.

        References
        ----------
        .. [1] T. Gneiting and A. E. Raftery, Strictly proper scoring rules, prediction, and estimation, JASA
           102 (2007), equation 20: here by the quantiles of both sides of y. doi:10.1198/016214506000001437
        """
        std = np.sqrt(variance)
        if self.kind == "identity":
            return gaussian_crps(y, *self.moments(mean, variance))
        # the upper tail of a log-normal weighs most where the Gaussian is this much higher
        shift = self.spread * std if self.kind == "log" else np.zeros(y.shape)
        out = np.empty(y.size)
        score = np.clip(self.standardized(y, mean, variance), -NODES[-1], NODES[-1] + shift)
        for rows in np.array_split(np.arange(y.size), 1 + y.size // _ROWS):
            sides = ((-NODES[-1] + 0 * score[rows], 1.0), (NODES[-1] + shift[rows], -1.0))
            out[rows] = 0.0
            for end, sign in sides:
                half = 0.5 * (score[rows] - end)
                at = end[:, None] + half[:, None] * (1 + _LEGENDRE[0])
                values = self.observed(mean[rows, None] + std[rows, None] * at)
                terms = ndtr(sign * at) * np.exp(-0.5 * at**2) * sign * (y[rows, None] - values)
                out[rows] += 2 / np.sqrt(2 * np.pi) * np.abs(half) * (terms @ _LEGENDRE[1])
        return out

    @property
    def unit(self) -> float:
        """Change of y per unit of ``latent``, at the middle of the observations."""
        return float(np.exp(-self.log_slope(self.observed(np.zeros(1)))[0]))

    def _bend(self, y: Array) -> Array:
        if self.kind == "log":
            return np.log(y - self.low)
        if self.kind == "logit":
            return np.log(y - self.low) - np.log(self.high - y)
        return y


def _width_of_ties(y: Array) -> float:
    """Width of the interval above the smallest y that holds as many others as there are ties with it."""
    lowest = y.min()
    ties = int(np.sum(y == lowest))
    if ties == 1:
        return 0.0
    last = min(2 * ties, y.size) - 1
    return float(np.partition(y, last)[last] - lowest)
