"""Scores of Gaussian predictions on held-out values."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tenfac.core.errors import DataError, ShapeError


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
    from scipy.stats import norm

    y, mean, std = (np.asarray(a, dtype=float) for a in (y, mean, std))
    if not (y.ndim == 1 and y.size and y.shape == mean.shape == std.shape):
        raise ShapeError(
            f"gaussian_metrics: y, mean and std must be 1-D of one length above zero; "
            f"got shapes {y.shape}, {mean.shape}, {std.shape}."
        )
    if not (std > 0).all():
        raise DataError(
            f"gaussian_metrics: every std must be positive; got {std.min():.3g}. Include the noise "
            "with predict(..., return_std=True, include_noise=True)."
        )
    error = y - mean
    z = error / std
    crps = std * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(np.abs(error))),
        "nll": float(np.mean(0.5 * z**2 + np.log(std) + 0.5 * np.log(2 * np.pi))),
        "crps": float(np.mean(crps)),
        "coverage": float(np.mean(np.abs(z) <= norm.ppf(0.5 + level / 2))),
    }
