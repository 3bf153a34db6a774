"""Noise of unknown scale, row by row (Student's distribution) or slice by slice: variational updates.

Noise is Gaussian of precision ``u_g / sigma^2`` with ``u_g`` Gamma of shape and rate a, where g is the row
or its slice, or the product of both. Given the posterior of f, that of every ``u_g`` is Gamma in closed
form, and their expectations are the precisions that the next posterior of f is computed with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln

from tenfac.bayes.collapsed.hyper import Hyper, hyperprior

Array = NDArray[Any]
_LEAST_DOF, _LEAST_SLICE_DOF, _MOST_DOF, _START_DOF = 2.1, 0.5, 1e3, 5.0
_NOISE = 1  # entry of Hyper.pack()


@dataclass(frozen=True)
class Scales:
    """Precisions of groups of observations.

    Parameters
    ----------
    codes : array of int, shape (N,)
        Group of every row.
    shares : array, shape (N,)
        Observations that a row is, of those of one group.
    repeats : array, shape (G,)
        How many groups like this one there are.
    dof : float
        Degrees of freedom, ``2 a``.
    shapes, rates : arrays, shape (G,)
        Posterior of every precision.
    least : float
        Fewest degrees of freedom.
    """

    codes: NDArray[np.intp]
    shares: Array
    repeats: Array
    dof: float
    shapes: Array
    rates: Array
    least: float

    @classmethod
    def of_rows(cls, weights: Array) -> Scales:
        """One for every row; a row of weight 2 is two that are alike."""
        ones = np.ones(weights.size)
        return cls(np.arange(weights.size), ones, weights, _START_DOF, ones, ones, _LEAST_DOF)

    @classmethod
    def of_slices(cls, weights: Array, codes: NDArray[np.intp], size: int) -> Scales:
        """One for every slice."""
        ones = np.ones(size)
        return cls(codes, weights, ones, _START_DOF, ones, ones, _LEAST_SLICE_DOF)

    @property
    def mean(self) -> Array:
        """Expected precision of every row, shape (N,)."""
        return (self.shapes / self.rates)[self.codes]

    @property
    def counts(self) -> Array:
        """Observations per group."""
        return np.bincount(self.codes, self.shares, self.repeats.size)

    def updated(self, squares: Array) -> Scales:
        """Posterior given the expected squares (N,) of the residuals over their standard deviation."""
        a, total = 0.5 * self.dof, self._sums(squares)
        return replace(self, shapes=a + 0.5 * self.counts, rates=a + 0.5 * total)

    def learned(self, squares: Array, hyper: Hyper) -> tuple[Scales, Hyper]:
        """Degrees of freedom and noise variance of highest bound, the precisions integrated out."""
        from scipy.optimize import minimize

        counts, sums = self.counts, self._sums(squares)
        observations = float(self.repeats @ counts)
        center, width, lower, upper = (table[_NOISE] for table in hyperprior(hyper))

        def loss(x: Array) -> tuple[float, Array]:
            a, log_variance = 0.5 * np.exp(x[0]), x[1]
            value, by_shape, by_sum = _log_marginal(
                a, counts, 0.5 * sums * np.exp(hyper.noise - log_variance)
            )
            z = (log_variance - center) / width
            total = self.repeats @ value - 0.5 * observations * log_variance - 0.5 * z**2
            slope = np.array([a * (self.repeats @ by_shape), -(self.repeats @ by_sum) - 0.5 * observations])
            slope[1] -= z / width
            return -total / observations, -slope / observations

        bounds = [(np.log(self.least), np.log(_MOST_DOF)), (lower, upper)]
        start = [np.log(self.dof), hyper.noise]
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-12})
        if found.fun > loss(np.array(start))[0]:
            return self, hyper
        return replace(self, dof=float(np.exp(found.x[0]))), replace(hyper, noise=float(found.x[1]))

    @property
    def bound(self) -> float:
        """What the scales add to the log evidence at the expected precisions: a lower bound with it."""
        a, log_mean = 0.5 * self.dof, digamma(self.shapes) - np.log(self.rates)
        mean = self.shapes / self.rates
        prior = a * np.log(a) - gammaln(a) + (a - 1) * log_mean - a * mean
        shapes, rates = self.shapes, self.rates
        own = shapes * np.log(rates) - gammaln(shapes) + (shapes - 1) * log_mean - rates * mean
        tilt = 0.5 * self.counts * (log_mean - np.log(mean))
        return float(self.repeats @ (prior - own + tilt))

    def _sums(self, squares: Array) -> Array:
        return np.bincount(self.codes, self.shares * squares, self.repeats.size)


def _log_marginal(a: float, counts: Array, half_sums: Array) -> tuple[Array, Array, Array]:
    """``log of the integral of Gamma(u; a, a) u^(n/2) exp(-u S)``, its slopes by a and by ``log S``."""
    shapes, rates = a + 0.5 * counts, a + half_sums
    value = a * np.log(a) - gammaln(a) + gammaln(shapes) - shapes * np.log(rates)
    by_shape = np.log(a) + 1 - digamma(a) + digamma(shapes) - np.log(rates) - shapes / rates
    return value, by_shape, -shapes * half_sums / rates


@dataclass(frozen=True)
class NoiseScales:
    """Sites of noise whose scale differs: the targets stay, the precisions move.

    Parameters
    ----------
    targets : array, shape (N,)
    parts : tuple of Scales
        Row by row, slice by slice, or both.
    """

    targets: Array
    parts: tuple[Scales, ...]
    fixed_noise = False

    @property
    def precision(self) -> Array:
        """Of every row, relative to the noise, shape (N,)."""
        return np.prod([part.mean for part in self.parts], axis=0)

    def with_targets(self, targets: Array) -> NoiseScales:
        """The same scales for other targets."""
        return replace(self, targets=targets)

    def updated(self, mean: Array, variance: Array, hyper: Hyper, learn: bool) -> tuple[NoiseScales, Hyper]:
        """Scales given the moments of f; with ``learn``, their spread and the noise too."""
        squares = (self.targets - mean) ** 2 + variance
        parts = list(self.parts)
        for k in range(len(parts)):
            others = np.prod([part.mean for j, part in enumerate(parts) if j != k], axis=0)
            if learn:
                now = squares * others * np.exp(-hyper.noise)
                parts[k], hyper = parts[k].learned(now, hyper)
            parts[k] = parts[k].updated(squares * others * np.exp(-hyper.noise))
        return replace(self, parts=tuple(parts)), hyper

    def towards(self, other: NoiseScales, _: float) -> NoiseScales:
        """The other: an update never lowers the bound."""
        return other

    def bound_beyond_evidence(self, *_: Array) -> float:
        """What the bound has beside the Gaussian log evidence."""
        return sum(part.bound for part in self.parts)
