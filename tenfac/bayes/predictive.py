"""What a fitted model says of new observations: moments, intervals, quantile residuals; and refits."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from tenfac.core.errors import DataError

Array = NDArray[np.float64]
LEVEL = 0.95
_DRAWS, _MANY_DRAWS = 400, 2000
_NUMBERS = 4_000_000  # drawn at a time


@dataclass(frozen=True, eq=False)
class Predictive:
    """Predictions at N points, in the unit of y; all arrays have shape (N,).

    Parameters
    ----------
    mean, std : arrays
        Of the function.
    observation_mean, observation_std : arrays
        Of a new observation: noise included.
    low, high : arrays
        Central interval of a new observation.
    z : array or None
        If y was given: the standard normal quantile that each value has in its predictive distribution. If
        the model is right these are standard normal whatever the response and the likelihood; counts are
        randomized within their step [1]_. Infinite where y lies beyond the floor or the ceiling that the
        model learned, at most 3.5 in size where the distribution is known by draws.

    References
    ----------
    .. [1] P. K. Dunn and G. K. Smyth, Randomized Quantile Residuals, Journal of Computational and Graphical
       Statistics 5 (1996), section 2.
    """

    mean: Array
    std: Array
    observation_mean: Array
    observation_std: Array
    low: Array
    high: Array
    z: Array | None = None


def predictive(model: Any, X: Any, y: Array | None = None, level: float = LEVEL) -> Predictive:
    """Predict the function and a new observation, with the interval that holds a share ``level``.

    Where the response bends, the interval is bent with it and so never leaves the range that y can have. With
    a likelihood other than the Gaussian, its ends are quantiles of draws; where noise has no moments, they
    also stand for the standard deviation.
    """
    half = float(ndtri(0.5 + level / 2))
    if not _is_collapsed(model):
        mean, std = model.predict(X, return_std=True)
        noisy_mean, noisy = model.predict(X, return_std=True, include_noise=True)
        ends = noisy_mean - half * noisy, noisy_mean + half * noisy
        return Predictive(
            mean, std, noisy_mean, noisy, *ends, None if y is None else (y - noisy_mean) / noisy
        )
    positions, response = _positions(model, X), model._response
    latent, variance, noisy = model._prediction.at(positions, with_variance=True)
    mean, std = response.moments(latent, variance)
    if not _is_gaussian(model):
        return _by_draws(model, positions, (mean, std), (latent, variance, noisy), y, level)
    width = half * np.sqrt(noisy)
    ends = response.observed(latent - width), response.observed(latent + width)
    z = None if y is None else _standardized(response, y, latent, noisy)
    return Predictive(mean, std, *response.moments(latent, noisy), *ends, z)


def _standardized(response: Any, y: Array, latent: Array, variance: Array) -> Array:
    low, high = response.bounds
    inside = (y > low) & (y < high)
    z = np.where(y <= low, -np.inf, np.inf)
    z[inside] = (response.latent(y[inside]) - latent[inside]) / np.sqrt(variance[inside])
    return z


def _by_draws(
    model: Any, positions: list[Array], moments: tuple[Array, Array], latent: tuple[Array, Array, Array],
    y: Array | None, level: float,
) -> Predictive:  # fmt: skip
    """The same by draws of new observations, for the likelihoods of `FunctionalTucker`."""
    (mean, std), (center, variance, noisy) = moments, latent
    variance = model._for_observation(variance, noisy)
    low, high, pit = (np.empty(mean.size) for _ in range(3))
    within = np.random.default_rng(1).random(mean.size)
    count = _DRAWS if y is None else _MANY_DRAWS
    for rows, draws in _draws(model, positions, center, variance, count):
        low[rows], high[rows] = np.quantile(
            draws, [0.5 - level / 2, 0.5 + level / 2], axis=0, method="inverted_cdf"
        )
        if y is not None:
            below, equal = (draws < y[rows]).sum(axis=0), (draws == y[rows]).sum(axis=0)
            pit[rows] = (below + within[rows] * (equal + 1)) / (count + 1)
    try:
        observed = model._likelihood.at(model._slices(positions)).observed_moments(center, variance)
    except DataError:  # noise without moments
        observed = mean, np.maximum((high - low) / (2 * ndtri(0.5 + level / 2)), std)
    return Predictive(mean, std, *observed, low, high, None if y is None else ndtri(pit))


def _draws(
    model: Any, positions: list[Array], latent: Array, variance: Array, count: int
) -> Iterator[tuple[slice, Array]]:
    """So many new observations of every row, shape (count, rows), some rows at a time."""
    rng = np.random.default_rng(0)
    slices, std = model._slices(positions), np.sqrt(variance)
    step = max(1, _NUMBERS // count)
    for first in range(0, latent.size, step):
        rows = slice(first, first + step)
        f = latent[rows] + std[rows] * rng.standard_normal((count, latent[rows].size))
        yield rows, model._likelihood.at(slices[rows]).sample(f, rng)


def without_rows(model: Any, X: Any, y: Array, held: NDArray[np.bool_]) -> Any:
    """A copy of the model that has not seen the rows ``held``; hyperparameters stay as they were learned.

    A model whose posterior cannot be had without learning again is fitted again, from its settings.
    """
    columns = {name: column[~held] for name, column in columns_by_mode(model, X).items()}
    if not _is_gaussian(model):
        from sklearn.base import clone

        return clone(model).fit(columns, y[~held])
    other = copy.copy(model)
    positions = tuple(_positions(model, columns))
    task = model._task
    exact = task.exact
    grids = list(task.grids)
    if task.kernels[exact] is not None:  # an index of the exact mode that no row has left is no index
        grids[exact] = np.unique(positions[exact])
    latent = model._response.latent(y[~held])
    other._task = replace(
        task, grids=tuple(grids), positions=positions, y=latent, weights=np.ones(latent.size)
    )
    other._set_posterior(model._learned.prediction(other._task))
    return other


def columns_by_mode(model: Any, X: Any) -> dict[str, NDArray[Any]]:
    """Columns of an array, a frame or a mapping by the names of the model's modes, checked."""
    return dict(zip(model.mode_names_, model._read_columns(X), strict=True))


def _positions(model: Any, X: Any) -> list[Array]:
    columns = model._read_columns(X)
    return [index.positions(column) for index, column in zip(model._modes, columns, strict=True)]


def _is_collapsed(model: Any) -> bool:
    """Whether the posterior of f is the `Prediction` of one mode integrated out exactly."""
    return getattr(model, "inference", "collapsed") == "collapsed"


def _is_gaussian(model: Any) -> bool:
    """Whether y, bent by the response, is Gaussian given the hyperparameters, with one noise."""
    plain = {"likelihood": "gaussian", "noise": "constant"}
    return _is_collapsed(model) and all(getattr(model, name, usual) == usual for name, usual in plain.items())
