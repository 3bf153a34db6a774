"""What command line and reports ask of a fitted model: predictions, and a posterior of fewer rows."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.likelihoods.added import Gaussian
from tenfac.bayes.unseen import trials_of

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Predictive:
    """Predictions at N points, in the unit of y; all arrays have shape (N,).

    Parameters
    ----------
    mean, std : arrays
        Of the function.
    observation_mean, observation_std : arrays
        Of a new observation: noise included. Where noise has no moments, those of the function, and how wide
        the 95 % interval is.
    low, high : arrays
        Central 95 % interval of a new observation.
    z : array or None
        If y was given: the standard normal quantile that each value has in its predictive distribution. If
        the model is right these are standard normal whatever the response and the likelihood; counts are
        randomized within their step [1]_. Infinite where y lies beyond the floor or the ceiling that the
        model learned.

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
    z: Any = None  # given with y only


def predictive(model: Any, X: Any, y: Array | None = None, *, trials: Array | None = None) -> Predictive:
    """Predict the function and a new observation, with the interval that holds 95 %.

    Where the response bends, the interval is bent with it and so never leaves the range that y can have. With
    a likelihood other than the Gaussian, its ends are quantiles of draws; successes are of one trial each, or
    of the numbers of ``trials`` that came with ``y``.
    """
    trials = None if y is None else trials_of(model._likelihood, y, trials, "predictive")
    latent, variance, unseen = model._unseen(model._read_positions(X), trials)
    mean, std = model._response.moments(latent, variance)
    low, high = ends = unseen.interval()
    z = None if y is None else unseen.score(y, np.random.default_rng(1))
    observed, spread = unseen.moments_or_interval(ends)
    return Predictive(mean, std, observed, spread, low, high, z)


def without_rows(model: Any, X: Any, y: Array, held: NDArray[np.bool_]) -> Any:
    """A copy of the model that has not seen the rows ``held``; hyperparameters stay as they were learned.

    A model whose posterior cannot be had without learning again is fitted again, from its settings.
    """
    columns = {name: column[~held] for name, column in columns_by_mode(model, X).items()}
    if model._fitted_by != "collapsed" or not isinstance(model._likelihood, Gaussian):
        from sklearn.base import clone

        return clone(model).fit(columns, y[~held])
    other = copy.copy(model)
    positions = tuple(model._read_positions(columns))
    task, exact = model._task, model.exact_mode_
    grids = [index.positions(index.values) for index in model._modes]
    if task.kernels[exact] is not None:  # an index of the exact mode that no row has left is no index
        grids[exact] = np.unique(positions[exact])
    latent = model._response.latent(y[~held])
    other._task = replace(
        task, grids=tuple(grids), positions=positions, y=latent, weights=np.ones(latent.size),
        scales=None if task.scales is None else _scales_on(grids[exact], task),
    )  # fmt: skip
    other._set_posterior(model._learned.prediction(other._task))
    return other


def _scales_on(grid: Array, task: Any) -> Array:
    """Scales of the slices at other indices of the exact mode; those that ``fit`` has not seen have one."""
    known = task.grids[task.exact]
    place = np.minimum(np.searchsorted(known, grid), known.size - 1)
    return np.where(known[place] == grid, task.scales[place], 1.0)


def columns_by_mode(model: Any, X: Any) -> dict[str, NDArray[Any]]:
    """Columns of an array, a frame or a mapping by the names of the model's modes, checked."""
    return dict(zip(model.mode_names_, model._read_columns(X), strict=True))
