"""How an observation comes about, given the function: densities, moments and draws of new ones.

The function f is Gaussian on a scale of its own; a response carries it to the mean of y (a rate, a
probability) or, where noise is added to f, to y itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp, ndtr, stdtrit

from tenfac.bayes.quadrature import bisect, log_integral_beside_mode, scale_nodes
from tenfac.bayes.response import NODES, WEIGHTS, Response
from tenfac.core.errors import DataError

Array = NDArray[np.float64]
KINDS = ("gaussian", "student_t", "poisson", "bernoulli", "binomial")
COUNTS = ("poisson", "bernoulli", "binomial")
_ROWS = 8192
_SCALES, _FEW_SCALES = 481, 65
_WIDE = 3.0  # standard deviations that hold 99.73 % of a Gaussian
_SMALLEST_SPREAD, _LARGEST_SPREAD = 0.3, 3.0
_LARGEST_RATE = 1e18
_LEAST_VARIANCE = 1e-14  # so that nodes beside the mode are told apart from it


@dataclass(frozen=True)
class Likelihood:
    """What all have in common.

    Everywhere, ``mean`` and ``variance`` (N,) are those of f on its own scale, that of ``response.latent``.

    Parameters
    ----------
    response : Response
        From f to the mean of y (counts), or to y (noise is added to f).
    """

    response: Response

    def at(self, _: NDArray[np.intp]) -> Likelihood:
        """The likelihood of N rows, by the numbers of their slices; -1 is a new slice."""
        return self

    def moments(self, mean: Array, variance: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of what f says of y, shape (N,)."""
        return self.response.moments(mean, variance)

    def observed_moments(self, mean: Array, variance: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of a new observation, shape (N,)."""
        raise NotImplementedError

    def log_density(self, y: Array, mean: Array, variance: Array) -> Array:
        """Log density (or probability) of new observations ``y`` (N,), f integrated out; shape (N,)."""
        raise NotImplementedError

    def sample(self, latent: Array, rng: np.random.Generator) -> Array:
        """One observation for every value of f, shape (..., N)."""
        raise NotImplementedError


# --- noise is added to f ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """``latent(y) = f + noise``.

    Parameters
    ----------
    variance : float
        Of the noise, on the scale of f.
    """

    variance: float

    def observed_moments(self, mean: Array, variance: Array) -> tuple[Array, Array]:
        return self.response.moments(mean, variance + self.variance)

    def log_density(self, y: Array, mean: Array, variance: Array) -> Array:
        return _bent_density(self.response, y, _log_normal, mean, variance + self.variance)

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

    def at(self, codes: NDArray[np.intp]) -> StudentT:
        shapes, rates = (np.append(known, 0.5 * self.dof) for known in (self.shapes, self.rates))
        shape, rate = shapes[codes], rates[codes]
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

    def sample(self, latent: Array, rng: np.random.Generator) -> Array:
        """As of new slices, every value of f in one of its own."""
        return self._new(latent).sample(latent, rng)

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


def _bent_density(response: Response, y: Array, density: object, *parts: Array) -> Array:
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
        out[rows] = logsumexp(weights + _log_normal(0.0, np.sqrt(error2)[:, None], total), axis=1)
    return out


# --- counts -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts(Likelihood):
    """Likelihoods whose mean is ``response.observed(f)``; ``eta = offset + spread f`` is the linear scale."""

    @classmethod
    def start(cls, y: Array, weights: Array) -> Counts:
        """Offset and spread of the linear scale, from the observations."""
        raise NotImplementedError

    def alone(self, y: Array, trials: Array) -> Array:
        """A finite ``eta`` close to what every row says of it, shape (N,)."""
        raise NotImplementedError

    def constant(self, y: Array, trials: Array) -> Array:
        """Logarithm of what f does not change in the probability of ``trials`` repeats, shape (N,)."""
        raise NotImplementedError

    def log_kernel(self, y: Array, eta: Array) -> tuple[Array, Array, Array]:
        """Log probability (without ``constant``), its slope, and minus its curvature by ``eta``."""
        raise NotImplementedError

    def expected(self, y: Array, mean: Array, variance: Array) -> tuple[Array, Array, Array]:
        """Expectations of ``log_kernel`` by a Gaussian f: value, slope and minus curvature by f, (N,)."""
        value, slope, curvature = (np.empty(y.size) for _ in range(3))
        for rows in np.array_split(np.arange(y.size), 1 + y.size // _ROWS):
            f = mean[rows, None] + np.sqrt(variance[rows])[:, None] * NODES
            parts = self.log_kernel(y[rows, None], self.response.offset + self.response.spread * f)
            value[rows], slope[rows], curvature[rows] = (part @ WEIGHTS for part in parts)
        return value, self.response.spread * slope, self.response.spread**2 * curvature

    def observed_moments(self, mean: Array, variance: Array) -> tuple[Array, Array]:
        average, std = self.response.moments(mean, variance)
        return average, np.sqrt(self._variance(average, std))

    def _variance(self, average: Array, std: Array) -> Array:
        """Variance of a new observation from the moments of its mean."""
        raise NotImplementedError

    def log_density(self, y: Array, mean: Array, variance: Array, trials: Array | float = 1.0) -> Array:
        """Log probability of new observations ``y`` (N,) of ``trials`` (N,) each, f integrated out."""
        trials = np.broadcast_to(np.asarray(trials, dtype=float), y.shape)
        spread, offset = self.response.spread, self.response.offset
        center, square = offset + spread * mean, np.maximum(spread**2 * variance, _LEAST_VARIANCE)

        def log_kernel(eta: Array) -> tuple[Array, Array, Array]:
            beside = (slice(None),) + (None,) * (eta.ndim - 1)
            parts = self.log_kernel(y[beside], eta)
            return tuple(trials[beside] * part for part in parts)  # type: ignore[return-value]

        return log_integral_beside_mode(log_kernel, center, square) + self.constant(y, trials)


@dataclass(frozen=True)
class Poisson(Counts):
    """Counts of rate ``exp(eta)``."""

    @classmethod
    def start(cls, y: Array, weights: Array) -> Poisson:
        average = max(float(np.average(y, weights=weights)), 0.5 / float(weights.sum()))
        beyond = float(np.average((y - average) ** 2, weights=weights)) - average
        spread = np.sqrt(np.log1p(max(beyond, 0.0) / average**2))
        spread = float(np.clip(spread, _SMALLEST_SPREAD, _LARGEST_SPREAD))
        return cls(Response("log", 0.0, 0.0, float(np.log(average)), spread))

    def alone(self, y: Array, _: Array) -> Array:
        return np.log(y + min(0.5, np.exp(self.response.offset)))

    def constant(self, y: Array, trials: Array) -> Array:
        return -trials * gammaln(y + 1)

    def log_kernel(self, y: Array, eta: Array) -> tuple[Array, Array, Array]:
        rate = np.exp(np.minimum(eta, 700.0))
        return y * eta - rate, y - rate, rate

    def expected(self, y: Array, mean: Array, variance: Array) -> tuple[Array, Array, Array]:
        offset, spread = self.response.offset, self.response.spread
        rate = np.exp(np.minimum(offset + spread * mean + 0.5 * spread**2 * variance, 700.0))
        return y * (offset + spread * mean) - rate, spread * (y - rate), spread**2 * rate

    def _variance(self, average: Array, std: Array) -> Array:
        return average + std**2

    def sample(self, latent: Array, rng: np.random.Generator) -> Array:
        rate = np.minimum(self.response.observed(latent), _LARGEST_RATE)
        return rng.poisson(rate).astype(float)


@dataclass(frozen=True)
class Binomial(Counts):
    """Shares of successes of probability ``1 / (1 + exp(-eta))``; one trial is Bernoulli.

    Moments and draws of new observations are those of one trial.

    Parameters
    ----------
    shares : bool
        Whether a row is one experiment of several trials, and not several rows of one trial each: this
        decides whether the ways to arrive at the same share are counted.
    """

    shares: bool = True

    @classmethod
    def start(cls, y: Array, weights: Array) -> Binomial:
        least = 0.5 / (float(weights.sum()) + 1)
        average = float(np.clip(np.average(y, weights=weights), least, 1 - least))
        return cls(Response("logit", 0.0, 1.0, float(np.log(average) - np.log1p(-average)), 1.0))

    def alone(self, y: Array, trials: Array) -> Array:
        count = trials if self.shares else np.ones(y.size)
        return np.log(count * y + 0.5) - np.log(count * (1 - y) + 0.5)

    def constant(self, y: Array, trials: Array) -> Array:
        if not self.shares:
            return np.zeros(y.shape)
        return gammaln(trials + 1) - gammaln(trials * y + 1) - gammaln(trials * (1 - y) + 1)

    def log_kernel(self, y: Array, eta: Array) -> tuple[Array, Array, Array]:
        probability = 0.5 * (1 + np.tanh(0.5 * eta))
        small = np.exp(-np.abs(eta))
        value = y * eta - np.maximum(eta, 0.0) - np.log1p(small)
        return value, y - probability, small / (1 + small) ** 2

    def _variance(self, average: Array, _: Array) -> Array:
        return average * (1 - average)

    def sample(self, latent: Array, rng: np.random.Generator) -> Array:
        return (rng.random(latent.shape) < self.response.observed(latent)).astype(float)


@dataclass(frozen=True)
class NoiseShape:
    """What is known of the noise beside its variance; None where it is not asked for.

    Parameters
    ----------
    dof : float or None
        Degrees of freedom of Student's distribution.
    slice_dof : float or None
        The same of the noise of a new slice.
    shapes, rates : arrays, shape (M,), or None
        Posterior of the precision of every slice.
    """

    dof: float | None = None
    slice_dof: float | None = None
    shapes: Array | None = None
    rates: Array | None = None


def likelihood_of(kind: str, response: Response, variance: float, shape: NoiseShape) -> Likelihood:
    """The likelihood that was learned."""
    if kind == "poisson":
        return Poisson(response)
    if kind in COUNTS:
        return Binomial(response, kind == "binomial")
    if shape.slice_dof is not None:
        dof = np.inf if shape.dof is None else shape.dof
        return SliceNoise(response, variance, dof, shape.slice_dof, shape.shapes, shape.rates)
    if shape.dof is not None:
        return StudentT(response, variance, shape.dof)
    return Gaussian(response, variance)


def start_counts(kind: str, y: Array, weights: Array) -> Counts:
    """The likelihood of a kind of counts, with the linear scale it begins and stays with."""
    if kind == "poisson":
        return Poisson.start(y, weights)
    return replace(Binomial.start(y, weights), shares=kind == "binomial")
