"""Counts: likelihoods whose mean is a function of f alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, expit, gammaincc, gammaln, logit

from tenfac.bayes.likelihoods.base import Likelihood
from tenfac.bayes.likelihoods.quadrature import log_integral_beside_mode, mean_beside_step
from tenfac.bayes.likelihoods.response import NODES, WEIGHTS, Response

Array = NDArray[Any]
_ROWS = 8192
_SMALLEST_SPREAD, _LARGEST_SPREAD = 0.3, 3.0
_LARGEST_RATE = 1e18
_LEAST_VARIANCE = 1e-14  # so that nodes beside the mode are told apart from it


@dataclass(frozen=True)
class Counts(Likelihood):
    """Likelihoods whose mean is ``response.observed(f)``; ``eta = offset + spread f`` is the linear scale."""

    trials: Array | float = field(default=1.0, kw_only=True)  # of new observations, (N,) or all alike

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

    def below(self, y: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
        spread, offset = self.response.spread, self.response.offset
        center, square = offset + spread * mean, np.maximum(spread**2 * variance, _LEAST_VARIANCE)
        less, some = np.zeros(y.shape), np.flatnonzero(y > 0)
        for rows in np.array_split(some, 1 + some.size // _ROWS):
            step = self._less(y[rows], rows)
            less[rows] = mean_beside_step(step[0], center[rows], square[rows], *step[1:])
        return less, np.minimum(np.exp(self.log_density(y, mean, variance)), 1.0)

    def _less(self, y: Array, rows: NDArray[np.intp]) -> tuple[Callable[[Array], Array], Array, Array]:
        """Probability below y > 0 given ``eta`` (N, K), and where it falls: place and width, (N,)."""
        raise NotImplementedError

    def given(self, y: Array, latent: Array, repeats: Array) -> Array:
        eta = self.response.offset + self.response.spread * latent
        return repeats * self.log_kernel(y, eta)[0] + self.constant(y, repeats)

    def _variance(self, average: Array, std: Array) -> Array:
        """Variance of a new observation from the moments of its mean."""
        raise NotImplementedError

    def log_density(
        self, y: Array, mean: Array, variance: Array, trials: Array | float | None = None
    ) -> Array:
        """Log probability of new observations ``y`` (N,) of ``trials`` (N,) each, f integrated out."""
        trials = np.broadcast_to(np.asarray(self.trials if trials is None else trials, dtype=float), y.shape)
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

    def _less(self, y: Array, rows: NDArray[np.intp]) -> tuple[Callable[[Array], Array], Array, Array]:  # noqa: ARG002
        def function(eta: Array) -> Array:
            return gammaincc(y[:, None], np.exp(np.minimum(eta, 700.0)))

        return function, np.log(y), 1 / np.sqrt(y)

    def sample(self, latent: Array, rng: np.random.Generator) -> Array:
        rate = np.minimum(self.response.observed(latent), _LARGEST_RATE)
        return rng.poisson(rate).astype(float)


@dataclass(frozen=True)
class Binomial(Counts):
    """Shares of successes of probability ``1 / (1 + exp(-eta))``; one trial is Bernoulli.

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

    def at(self, codes: NDArray[np.intp], trials: Array | None = None) -> Binomial:  # noqa: ARG002
        return self if trials is None else replace(self, trials=trials)

    def _variance(self, average: Array, std: Array) -> Array:
        return np.maximum(average * (1 - average) - std**2, 0.0) / self.trials + std**2

    def _less(self, y: Array, rows: NDArray[np.intp]) -> tuple[Callable[[Array], Array], Array, Array]:
        trials = (
            np.broadcast_to(self.trials, rows.shape)
            if not np.ndim(self.trials)
            else np.asarray(self.trials)[rows]
        )
        wins = np.round(y * trials)

        def function(eta: Array) -> Array:
            return betainc((trials - wins + 1)[:, None], wins[:, None], expit(-eta))

        share = (wins - 0.5) / trials
        return function, logit(share), 1 / np.sqrt(trials * share * (1 - share))

    def sample(self, latent: Array, rng: np.random.Generator) -> Array:
        trials = np.broadcast_to(self.trials, latent.shape).astype(np.int64)
        return rng.binomial(trials, self.response.observed(latent)) / trials
