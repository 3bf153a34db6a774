"""Likelihoods in which noise is added to the function: Gaussian, Student's, one with a scale per slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp, ndtr, stdtrit

from tenfac.bayes.likelihoods.base import Likelihood
from tenfac.bayes.likelihoods.quadrature import bisect, scale_nodes
from tenfac.bayes.likelihoods.response import Response
from tenfac.core.errors import DataError

Array = NDArray[Any]
_ROWS = 8192
_SCALES, _FEW_SCALES = 481, 65
_WIDE = 3.0  # standard deviations that hold 99.73 % of a Gaussian


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """``latent(y) = f + noise``.

    Parameters
    ----------
    variance : float, or array (N,)
        Of the noise, on the scale of f.
    """

    variance: float | Array

    def observed_moments(self, mean: Array, variance: Array) -> tuple[Array, Array]:
        return self.response.moments(mean, variance + self.variance)

    def log_density(self, y: Array, mean: Array, variance: Array) -> Array:
        return _bent_density(self.response, y, _log_normal, mean, variance + self.variance)

    def standardized(self, y: Array, mean: Array, variance: Array) -> Array:
        """Normal scores of ``y`` among new observations; infinite beyond floor and ceiling."""
        return self.response.standardized(y, mean, variance + self.variance)

    def below(self, y: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
        return ndtr(self.standardized(y, mean, variance)), np.zeros(y.shape)

    def given(self, y: Array, latent: Array, repeats: Array) -> Array:
        return repeats * self.log_density(y, latent, np.zeros(y.shape))

    def sample(self, latent: Array, rng: np.random.Generator) -> Array:
        return self.response.observed(latent + np.sqrt(self.variance) * rng.standard_normal(latent.shape))


@dataclass(frozen=True)
class StudentT(Likelihood):
    """``latent(y) = f + scale * t``, with t of Student's distribution.

    Parameters
    ----------
    variance : float, or array (N,)
        Square of the scale.
    dof : float, or array (N,)
        Degrees of freedom.

    Notes
    -----
    Close to 2 degrees of freedom the standard deviation grows without bound, though few observations are far
    away. It is never stated as more than that of the Gaussian whose interval of 3 standard deviations is as
    wide.
    """

    variance: float | Array
    dof: float | Array

    def observed_moments(self, mean: Array, variance: Array) -> tuple[Array, Array]:
        if self.response.kind == "identity":
            return self.response.moments(mean, variance + self.variance * _spread_of_student(self.dof))
        if self.response.kind == "log":
            raise DataError(
                "FunctionalTucker: with response='log', noise of Student's distribution has neither mean nor "
                "standard deviation; got include_noise=True. Ask for the function alone, or fit with "
                "likelihood='gaussian' and noise='constant'."
            )
        return self._mixed_moments(mean, variance)

    def _mixed_moments(self, mean: Array, variance: Array) -> tuple[Array, Array]:
        """Moments over Gaussians of all scales."""
        square, dof = np.broadcast_to(self.variance, mean.shape), np.broadcast_to(self.dof, mean.shape)
        logs, weights = scale_nodes(0.5 * dof, np.zeros(mean.shape), _FEW_SCALES, tail=1e-8)
        weights = np.exp(weights - logsumexp(weights, axis=1, keepdims=True))
        averages, seconds = np.zeros(mean.shape), np.zeros(mean.shape)
        for k in range(_FEW_SCALES):
            average, std = self.response.moments(mean, variance + square * np.exp(-logs[:, k]))
            averages += weights[:, k] * average
            seconds += weights[:, k] * (std**2 + average**2)
        return averages, np.sqrt(np.maximum(seconds - averages**2, 0.0))

    def log_density(self, y: Array, mean: Array, variance: Array) -> Array:
        square, dof = np.broadcast_to(self.variance, mean.shape), np.broadcast_to(self.dof, mean.shape)
        return _bent_density(self.response, y, _log_student, mean, variance, square, dof)

    def below(self, y: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
        low, high = self.response.bounds
        inside, less = (y > low) & (y < high), np.where(y <= low, 0.0, 1.0)
        parts = (np.broadcast_to(part, y.shape)[inside] for part in (mean, variance, self.variance, self.dof))
        less[inside] = _student_below(self.response.latent(y[inside]), *parts)
        return less, np.zeros(y.shape)

    def given(self, y: Array, latent: Array, repeats: Array) -> Array:
        scale = np.sqrt(self.variance)
        error = (self.response.latent(y) - latent) / scale
        density = gammaln(0.5 * (self.dof + 1)) - gammaln(0.5 * self.dof) - 0.5 * np.log(np.pi * self.dof)
        density = density - 0.5 * (self.dof + 1) * np.log1p(error**2 / self.dof) - np.log(scale)
        return repeats * (density + self.response.log_slope(y))

    def sample(self, latent: Array, rng: np.random.Generator) -> Array:
        dof = np.broadcast_to(self.dof, latent.shape)
        return self.response.observed(latent + np.sqrt(self.variance) * rng.standard_t(dof))


@dataclass(frozen=True)
class SliceNoise(Likelihood):
    """Noise whose variance differs between slices, ``s_t`` times what it is elsewhere.

    ``1 / s_t`` is Gamma of shape and rate ``dof / 2`` before the data, and of ``shapes[t]``, ``rates[t]``
    after. Where rows have a scale of their own too (Student's distribution), the product of both precisions
    is taken as Gamma of the same logarithmic mean and variance.

    Parameters
    ----------
    variance : float
        What every ``s_t`` multiplies, on the scale of f.
    row_dof : float
        Degrees of freedom of Student's distribution within a slice; inf is Gaussian.
    dof : float
        Of a new slice.
    shapes, rates : arrays, shape (M,)
    """

    variance: float
    row_dof: float
    dof: float
    shapes: Array
    rates: Array

    def at(self, codes: NDArray[np.intp], trials: Array | None = None) -> StudentT:  # noqa: ARG002
        shape, rate = self._of(codes)
        if np.isfinite(self.row_dof):
            shape, mean = _product_of_gammas(shape, rate, 0.5 * self.row_dof)
        else:
            mean = shape / rate
        return StudentT(self.response, self.variance / mean, 2 * shape)

    @property
    def scales(self) -> Array:
        """Noise variance of every slice relative to ``variance``: harmonic posterior mean, shape (M,)."""
        return self.rates / self.shapes

    def observed_moments(self, mean: Array, variance: Array) -> tuple[Array, Array]:
        return self._new(mean).observed_moments(mean, variance)

    def log_density(self, y: Array, mean: Array, variance: Array) -> Array:
        return self._new(mean).log_density(y, mean, variance)

    def below(self, y: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
        return self._new(mean).below(y, mean, variance)

    def given(self, y: Array, latent: Array, repeats: Array) -> Array:
        return self._new(latent).given(y, latent, repeats)

    def sample(self, latent: Array, rng: np.random.Generator) -> Array:
        """As of new slices, every value of f in one of its own."""
        return self._new(latent).sample(latent, rng)

    def sample_jointly(
        self, latent: Array, codes: NDArray[np.intp], slices: NDArray[np.intp], rng: np.random.Generator
    ) -> Array:
        _, first, own = np.unique(slices, return_index=True, return_inverse=True)
        shape, rate = self._of(codes[first])
        precision = (rng.standard_gamma(shape, (latent.shape[0], first.size)) / rate)[:, own]
        noise = rng.standard_normal(latent.shape)
        if np.isfinite(self.row_dof):
            noise = rng.standard_t(self.row_dof, latent.shape)
        with np.errstate(divide="ignore"):  # a precision of few degrees of freedom may underflow
            return self.response.observed(latent + noise * np.sqrt(self.variance / precision))

    def _of(self, codes: NDArray[np.intp]) -> tuple[Array, Array]:
        """Shapes and rates of the slices of rows."""
        shapes, rates = (np.append(known, 0.5 * self.dof) for known in (self.shapes, self.rates))
        return shapes[codes], rates[codes]

    def _new(self, like: Array) -> StudentT:
        return self.at(np.full(like.shape, -1))


def _product_of_gammas(shape: Array, rate: Array, other: float) -> tuple[Array, Array]:
    """Shape and mean of the Gamma closest to the product of two; the second has shape = rate = ``other``."""
    from scipy.special import digamma, polygamma

    spread = polygamma(1, shape) + polygamma(1, other)
    low, high = np.log(1e-3), np.log(1e9)
    both = np.exp(bisect(lambda x: polygamma(1, np.exp(x)) - spread, np.full_like(shape, low), high))
    log_mean = digamma(shape) - np.log(rate) + digamma(other) - np.log(other)
    return both, np.exp(log_mean - digamma(both) + np.log(both))


def _spread_of_student(dof: float | Array) -> Array:
    """Variance of Student's distribution, or that of the Gaussian of the same wide interval if less."""
    values, codes = np.unique(dof, return_inverse=True)
    wide = (stdtrit(values, ndtr(_WIDE)) / _WIDE) ** 2
    variance = np.where(values > 2, values / np.maximum(values - 2, 1e-12), np.inf)
    return np.minimum(variance, wide)[codes].reshape(np.shape(dof))


def _bent_density(response: Response, y: Array, density: Any, *parts: Array) -> Array:
    """Density of y from that of its latent value; nothing is expected beyond floor and ceiling."""
    low, high = response.bounds
    inside = (y > low) & (y < high)
    out = np.full(y.shape, -np.inf)
    chosen = y[inside]
    parts = tuple(np.broadcast_to(part, y.shape)[inside] for part in parts)
    out[inside] = density(response.latent(chosen), *parts) + response.log_slope(chosen)
    return out


def _log_normal(y: Array, mean: Array, variance: Array) -> Array:
    return -0.5 * (np.log(2 * np.pi * variance) + (y - mean) ** 2 / variance)


def _log_student(y: Array, mean: Array, variance: Array, square: Array, dof: Array) -> Array:
    """Student's density with Gaussian uncertainty of its center: a mixture of Gaussians over the scale."""
    out = np.empty(y.size)
    for rows in np.array_split(np.arange(y.size), 1 + y.size // _ROWS):
        error2 = (y[rows] - mean[rows]) ** 2
        logs, weights = scale_nodes(0.5 * dof[rows], error2 / square[rows], _SCALES)
        total = variance[rows, None] + square[rows, None] * np.exp(-logs)
        out[rows] = logsumexp(weights + _log_normal(np.zeros(1), np.sqrt(error2)[:, None], total), axis=1)
    return out


def _student_below(y: Array, mean: Array, variance: Array, square: Array, dof: Array) -> Array:
    """Probability below y of the same mixture."""
    out = np.empty(y.size)
    for rows in np.array_split(np.arange(y.size), 1 + y.size // _ROWS):
        error = y[rows] - mean[rows]
        logs, weights = scale_nodes(0.5 * dof[rows], error**2 / square[rows], _SCALES)
        total = variance[rows, None] + square[rows, None] * np.exp(-logs)
        weights = np.exp(weights - logsumexp(weights, axis=1, keepdims=True))
        out[rows] = np.sum(weights * ndtr(error[:, None] / np.sqrt(total)), axis=1)
    return out
