"""Scores of Gaussian predictions on held-out values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from tenfac.core.errors import DataError, ShapeError

Array = NDArray[Any]


def gaussian_metrics(y: ArrayLike, mean: ArrayLike, std: ArrayLike, level: float = 0.95) -> dict[str, float]:
    """Score Gaussian predictive distributions ``N(mean_i, std_i^2)`` against what was observed.

    Parameters
    ----------
    y, mean, std : array, shape (N,)
        Observed values, predictive means and predictive standard deviations (noise included),
        all in the unit of ``y``.
    level : float
        Probability of the central interval whose coverage is counted.

    Returns
    -------
    dict
        ``rmse``, ``mae``, ``nll`` (mean negative log density, nats), ``crps`` (mean continuous ranked
        probability score, unit of ``y``) and ``coverage`` (share of ``y`` inside the interval).

    Raises
    ------
    ShapeError
        If the three arrays do not have one common length above zero.
    DataError
        If a standard deviation is not positive.

    References
    ----------
    .. [1] T. Gneiting and A. E. Raftery, Strictly proper scoring rules, prediction, and estimation,
       JASA 102 (2007), equation 21. doi:10.1198/016214506000001437

    Examples
    --------
    >>> scores = gaussian_metrics([0.0, 1.0], [0.0, 0.0], [1.0, 1.0])
    >>> round(scores["rmse"], 4), scores["coverage"]
    (0.7071, 1.0)
    """
    y, mean, std = _checked("gaussian_metrics", y, mean, std)
    z = (y - mean) / std
    nll = 0.5 * z**2 + np.log(std) + 0.5 * np.log(2 * np.pi)
    return {
        **_errors(y - mean),
        "nll": float(np.mean(nll)),
        "crps": float(np.mean(gaussian_crps(y, mean, std))),
        "coverage": float(np.mean(np.abs(z) <= ndtri(0.5 + level / 2))),
    }


def calibration(y: ArrayLike, mean: ArrayLike, std: ArrayLike, level: float = 0.95) -> dict[str, Any]:
    """Score Gaussian predictive distributions, and tell whether their widths are right.

    Parameters
    ----------
    y, mean, std : array, shape (N,)
        As in ``gaussian_metrics``.
    level : float

    Returns
    -------
    dict
        The scores of ``gaussian_metrics``; ``coverage_by_quartile``, shape (4,): the coverage among the
        quarters of rows of smallest to largest std; ``pit``, shape (N,): the predicted probability of a value
        below ``y``, uniform from 0 to 1 if the predictions are calibrated.

    Examples
    --------
    >>> scores = calibration([0.0, 1.0, 0.0, 9.0], [0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0])
    >>> scores["coverage_by_quartile"].tolist(), scores["pit"].round(2).tolist()
    ([1.0, 1.0, 1.0, 0.0], [0.5, 0.69, 0.5, 0.99])
    """
    y, mean, std = _checked("calibration", y, mean, std)
    pit = ndtr((y - mean) / std)
    return {**gaussian_metrics(y, mean, std, level), **calibration_of(pit, std, level), "pit": pit}


def calibration_of(pit: Array, std: Array, level: float) -> dict[str, Any]:
    """Coverage of the central interval, among all rows and by quartile of ``std``, from PIT values (N,)."""
    inside = (np.abs(pit - 0.5) <= level / 2).astype(float)
    quarters = np.array_split(inside[np.argsort(std, kind="stable")], 4)
    shares = [part.mean() if part.size else np.nan for part in quarters]
    return {"coverage": float(inside.mean()), "coverage_by_quartile": np.array(shares)}


def gaussian_crps(y: Array, mean: Array, std: Array) -> Array:
    """Continuous ranked probability score of every value, shape (N,)."""
    z = (y - mean) / std
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return std * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))


def _errors(error: Array) -> dict[str, float]:
    return {"rmse": float(np.sqrt(np.mean(error**2))), "mae": float(np.mean(np.abs(error)))}


def _checked(where: str, *arrays: ArrayLike) -> list[Array]:
    y, mean, std = (np.asarray(a, dtype=float) for a in arrays)
    if not (y.ndim == 1 and y.size and y.shape == mean.shape == std.shape):
        raise ShapeError(
            f"{where}: y, mean and std must be 1-D of one length above zero; "
            f"got shapes {y.shape}, {mean.shape}, {std.shape}."
        )
    if not (std > 0).all():
        raise DataError(
            f"{where}: every std must be positive; got {std.min():.3g}. Include the noise "
            "with predict(..., return_std=True, include_noise=True)."
        )
    return [y, mean, std]
