"""What a fitted model says of new observations: moments, intervals, quantile residuals; and refits."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Array = NDArray[np.float64]
LEVEL = 0.95


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
    """

    mean: Array
    std: Array
    observation_mean: Array
    observation_std: Array
    low: Array
    high: Array


def predictive(model: Any, X: Any, level: float = LEVEL) -> Predictive:
    """Predict the function and a new observation, once, with the interval that holds a share ``level``.

    Where the response bends, the interval is bent with it and so never leaves the range that y can have.
    """
    z = float(ndtri(0.5 + level / 2))
    if not _is_gaussian(model):
        mean, std = model.predict(X, return_std=True)
        noisy_mean, noisy = model.predict(X, return_std=True, include_noise=True)
        return Predictive(mean, std, noisy_mean, noisy, noisy_mean - z * noisy, noisy_mean + z * noisy)
    response = model._response
    latent, variance, noisy = model._prediction.at(_positions(model, X), with_variance=True)
    half = z * np.sqrt(noisy)
    return Predictive(
        *response.moments(latent, variance),
        *response.moments(latent, noisy),
        response.observed(latent - half),
        response.observed(latent + half),
    )


def quantile_residuals(model: Any, X: Any, y: Array) -> Array:
    """The standard normal quantile that each value has in its predictive distribution, shape (N,).

    If the model is right they are standard normal whatever the response [1]_. Infinite where y lies beyond
    the floor or the ceiling that the model learned.

    References
    ----------
    .. [1] P. K. Dunn and G. K. Smyth, Randomized Quantile Residuals, Journal of Computational and Graphical
       Statistics 5 (1996), section 2.
    """
    if not _is_gaussian(model):
        mean, std = model.predict(X, return_std=True, include_noise=True)
        return (y - mean) / std
    response = model._response
    mean, _, variance = model._prediction.at(_positions(model, X), with_variance=True)
    low, high = response.bounds
    inside = (y > low) & (y < high)
    z = np.where(y <= low, -np.inf, np.inf)
    z[inside] = (response.latent(y[inside]) - mean[inside]) / np.sqrt(variance[inside])
    return z


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


def _is_gaussian(model: Any) -> bool:
    """Whether y, bent by the response, is Gaussian given the hyperparameters, as `Prediction` has it."""
    plain = {"inference": "collapsed", "likelihood": "gaussian", "noise": "constant"}
    return all(getattr(model, name, usual) == usual for name, usual in plain.items())
