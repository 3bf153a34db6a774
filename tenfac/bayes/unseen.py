"""New observations of some rows, as a fitted model expects them: the one place that says what they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from tenfac.bayes.likelihoods.added import Gaussian
from tenfac.bayes.likelihoods.base import Likelihood
from tenfac.bayes.likelihoods.counts import Counts
from tenfac.bayes.likelihoods.named import kind_of
from tenfac.bayes.metrics import calibration_of
from tenfac.core.errors import DataError

Array = NDArray[Any]
LEVEL = 0.95
_DRAWS = 400
_NUMBERS = 4_000_000  # drawn at a time
_LEAST, _MOST = 1e-300, 1 - 1e-16  # probabilities that have a normal score


@dataclass(frozen=True, eq=False)
class Unseen:
    """New observations, one per row.

    Parameters
    ----------
    likelihood : Likelihood
        Of the model.
    mean, variance : arrays, shape (N,)
        Of f, on its own scale; noise is the likelihood's.
    codes : array of int, shape (N,)
        Numbers of the slices, -1 where new.
    trials : array, shape (N,), or None
        Of counts of successes; None is one each.
    """

    likelihood: Likelihood
    mean: Array
    variance: Array
    codes: NDArray[np.intp]
    trials: Array | None = None

    @cached_property
    def own(self) -> Likelihood:
        """The likelihood of these rows."""
        return self.likelihood.at(self.codes, self.trials)

    def moments(self) -> tuple[Array, Array]:
        """Mean and standard deviation, shape (N,)."""
        return self.own.observed_moments(self.mean, self.variance)

    def moments_or_interval(self, interval: tuple[Array, Array] | None = None) -> tuple[Array, Array]:
        """The same; of noise without moments the mean of f, and how wide the 95 % interval is."""
        try:
            return self.moments()
        except DataError:
            low, high = self.interval() if interval is None else interval
            mean, std = self.own.moments(self.mean, self.variance)
            return mean, np.maximum((high - low) / (2 * ndtri(0.5 + LEVEL / 2)), std)

    def log_density(self, y: Array) -> Array:
        """Log density or probability, shape (N,)."""
        return self.own.log_density(y, self.mean, self.variance)

    def pit(self, y: Array, rng: np.random.Generator) -> Array:
        """Probability below y, and a random share of that of y itself, shape (N,)."""
        less, equal = self.own.below(y, self.mean, self.variance)
        return less + rng.random(y.size) * equal if equal.any() else less

    def score(self, y: Array, rng: np.random.Generator) -> Array:
        """Standard normal quantile of the same, shape (N,); infinite beyond floor and ceiling."""
        if isinstance(self.own, Gaussian):  # exact however far away
            return self.own.standardized(y, self.mean, self.variance)
        z = ndtri(np.clip(self.pit(y, rng), _LEAST, _MOST))
        if isinstance(self.own, Counts):  # which may be at floor and ceiling
            return z
        low, high = self.own.response.bounds
        return np.where(y <= low, -np.inf, np.where(y >= high, np.inf, z))

    def crps(self, y: Array) -> Array:
        """Continuous ranked probability score, shape (N,): by 400 draws, unless noise is Gaussian."""
        if isinstance(self.own, Gaussian):
            return self.own.response.crps(y, self.mean, self.variance + self.own.variance)
        out, place = np.empty(y.size), np.arange(1 - _DRAWS, _DRAWS, 2)[:, None]
        for rows, draws in self._draws():
            draws.sort(axis=0)
            with np.errstate(invalid="ignore", over="ignore"):
                apart = (place * draws).sum(axis=0) / (_DRAWS * (_DRAWS - 1))
                out[rows] = np.abs(draws - y[rows]).mean(axis=0) - apart
        return np.where(np.isfinite(out), out, np.inf)

    def interval(self) -> tuple[Array, Array]:
        """Ends of the central 95 % interval, shape (N,): quantiles of 400 draws, unless noise is Gaussian."""
        own = self.own
        if isinstance(own, Gaussian):
            width = ndtri(0.5 + LEVEL / 2) * np.sqrt(self.variance + own.variance)
            return own.response.observed(self.mean - width), own.response.observed(self.mean + width)
        low, high = np.empty(self.mean.size), np.empty(self.mean.size)
        for rows, draws in self._draws():
            ends = [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]
            low[rows], high[rows] = np.quantile(draws, ends, axis=0, method="inverted_cdf")
        return low, high

    def scores(self, y: Array, level: float, rng: np.random.Generator) -> dict[str, Any]:
        """What ``FunctionalTucker.calibration`` returns."""
        average, std = self.moments_or_interval()
        pit = self.pit(y, rng)
        return {
            "rmse": float(np.sqrt(np.mean((y - average) ** 2))),
            "mae": float(np.mean(np.abs(y - average))),
            "nll": float(-np.mean(self.log_density(y))),
            "crps": float(np.mean(self.crps(y))),
            **calibration_of(pit, std, level),
            "pit": pit,
        }

    def _draws(self) -> Iterator[tuple[slice, Array]]:
        """Observations of every row, shape (400, rows), some rows at a time."""
        rng, std, step = np.random.default_rng(0), np.sqrt(self.variance), _NUMBERS // _DRAWS
        for first in range(0, self.mean.size, step):
            rows = slice(first, first + step)
            trials = None if self.trials is None else self.trials[rows]
            part = replace(self, mean=self.mean[rows], codes=self.codes[rows], trials=trials)
            f = part.mean + std[rows] * rng.standard_normal((_DRAWS, part.mean.size))
            yield rows, part.own.sample(f, rng)


def trials_of(likelihood: Likelihood, y: Array, sample_weight: Any, where: str) -> Array | None:
    """Numbers of trials of values to judge, where the likelihood has any; checked."""
    if kind_of(likelihood) != "binomial":
        if sample_weight is not None:
            raise DataError(
                f"{where}: `sample_weight` is the number of trials of likelihood='binomial'; got it for "
                f"{kind_of(likelihood)!r}. Leave it out, and give rows that repeat as often as they occur."
            )
        return None
    trials = np.ones(y.size) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    if trials.shape != y.shape or not ((trials >= 1) & (trials == np.round(trials))).all():
        raise DataError(
            f"{where}: `sample_weight` must be whole numbers of trials from 1 up, one per row; got shape "
            f"{trials.shape} for {y.size} rows, the least {trials.min(initial=np.inf):g}."
        )
    wins = y * trials
    bad = np.abs(wins - np.round(wins)) > 1e-6 * trials
    if bad.any():
        first = int(np.argmax(bad))
        raise DataError(
            f"{where}: y times `sample_weight` must be whole numbers of successes; got {y[first]:g} of "
            f"{trials[first]:g} trials in row {first}. Give the numbers of trials as sample_weight."
        )
    return trials
