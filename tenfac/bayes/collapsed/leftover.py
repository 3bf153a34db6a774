"""What a Gaussian fit leaves over at its own rows: tails that noise does not have, structure that f lacks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import binom, norm

from tenfac.bayes.collapsed.prediction import Prediction
from tenfac.bayes.collapsed.task import Task

Array = NDArray[Any]
_ROWS = 4096  # rows looked at
_FAR = 4.0  # standard deviations
_LEAST = 5  # rows as far
_CHANCE = 1e-6  # that normal noise has as many
_ALONE = 1e-3  # share of the noise left where a row all but determines f: nothing is told there
_NOISE_FREE = 1e-2  # of the standard deviation of y
_UNEXPLAINED = 0.5  # share of the variance of y
_NEAR = 2  # neighbours
_ALIKE = 4.0  # standard deviations of their correlation
MAYBE_ALIKE = 2.0  # that make a second search worth its time
_APART = 1e3  # between labels


def what_is_left_over(prediction: Prediction, task: Task) -> tuple[str, ...]:
    """What the user should know of it, in words."""
    far, notes = far_rows(prediction, task), []
    if far is not None:
        notes.append(
            f"{100 * far:.2g} % of the rows lie more than {_FAR:g} standard deviations (of the middle half "
            "of the rows) from the function that the others say, where Gaussian noise has 0.006 %. If these "
            "are outliers, likelihood='student_t' keeps them from the mean and the noise; if some slices are "
            "noisier than others, noise='slice' does."
        )
    if structure(prediction, task) > _ALIKE:
        unexplained = 100 * min(float(np.exp(prediction.hyper.noise)), 1.0)
        notes.append(
            f"{unexplained:.0f} % of the variance of y counts as noise, yet neighbouring rows deviate alike: "
            "the function varies faster than the search could tell. Give more rows, or a kernel with a "
            "shorter lengthscale to start from."
        )
    return tuple(notes)


def far_rows(prediction: Prediction, task: Task) -> float | None:
    """Share of rows farther from f than normal noise puts them, None where there are no more than by chance.

    A row is judged by the posterior of all others, in units of the spread of the middle half of the rows, so
    that far ones do not hide each other.
    """
    if np.exp(0.5 * prediction.hyper.noise) < _NOISE_FREE or task.scales is not None:
        return None  # scales of slices have such tails in them
    z, _ = left_out(prediction, task)
    unit = np.median(np.abs(z)) / norm.ppf(0.75) if z.size else 0.0
    far = int(np.sum(np.abs(z) > _FAR * unit))
    if unit == 0 or far < _LEAST or binom.sf(far - 1, z.size, 2 * norm.sf(_FAR)) > _CHANCE:
        return None
    return far / z.size


def structure(prediction: Prediction, task: Task) -> float:
    """Correlation of what neighbours leave over, in its standard deviations; 0 if f explains half of y."""
    if np.exp(prediction.hyper.noise) < _UNEXPLAINED:
        return 0.0
    z, rows = left_out(prediction, task)
    if z.size <= _NEAR:
        return 0.0
    spans = [_APART if kernel is None else 1.0 for kernel in task.kernels]
    places = np.column_stack([span * x[rows] for span, x in zip(spans, task.positions, strict=True)])
    near = cKDTree(places).query(places, range(1, _NEAR + 2))[1]
    own = near == np.arange(z.size)[:, None]
    own[~own.any(axis=1), -1] = True  # among many rows at one place, a row may miss itself
    z = z - z.mean()
    alike = float(z @ z[near[~own].reshape(z.size, _NEAR)].mean(axis=1)) / float(z @ z)
    return alike * float(np.sqrt(0.5 * z.size * _NEAR))  # most pairs count twice


def left_out(prediction: Prediction, task: Task) -> tuple[Array, NDArray[np.intp]]:
    """Distances of rows from f given all other rows, in standard deviations, and the numbers of these rows.

    With noise ``s`` and variance ``v`` of f given all rows, ``(y - mean) / sqrt(s - v)`` [1]_.

    References
    ----------
    .. [1] C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning,
       MIT Press (2006), equations 5.10-5.12.
    """
    rows = np.unique(np.linspace(0, task.y.size - 1, min(_ROWS, task.y.size)).astype(int))
    points = [x[rows] for x in task.positions]
    mean, variance = prediction.in_basis(points)
    noise = np.exp(prediction.hyper.noise) / task.strength[rows]
    if prediction.problem.residual is not None:
        noise = noise * prediction.problem.scale_at(points[task.exact])
    left = noise - variance
    told = left > _ALONE * noise
    return (task.y[rows] - mean)[told] / np.sqrt(left[told]), rows[told]
