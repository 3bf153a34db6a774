"""Gaussian sites: what is known of a function at each of its places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tenfac.core.arrays import is_array, library_name, namespace_of, promote, to_number, to_numpy
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.precision import dtype_name, is_complex


@dataclass(frozen=True, eq=False)
class Sites:
    """Gaussian factors ``exp(-(f(x_n) - mean_n)^T precision_n (f(x_n) - mean_n) / 2)``.

    Parameters
    ----------
    mean : array, shape (N,) or (N, R)
        numpy or torch. Not read, and allowed to be NaN, where the precision is zero.
    precision : array, shape (N,) or (N, R, R)
        0 (a missing site) or more; positive semidefinite.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    DataError
        If a precision is negative, or something that is read is not finite.

    Examples
    --------
    >>> Sites(np.array([1.0, np.nan]), np.array([4.0, 0.0]))
    Sites(2 of 1 value, 1 missing)
    """

    mean: Any
    precision: Any

    def __post_init__(self) -> None:
        mean, precision = (v if is_array(v) else np.asarray(v) for v in (self.mean, self.precision))
        mean, precision = promote(mean, precision, where="Sites")
        _check_library(mean)
        if mean.ndim not in (1, 2) or tuple(precision.shape) != tuple(mean.shape) + tuple(mean.shape[1:]):
            raise ShapeError(
                "Sites: `mean` must have shape (N,) with `precision` (N,), or (N, R) with (N, R, R); got "
                f"{tuple(mean.shape)} and {tuple(precision.shape)}."
            )
        _check_precision(to_numpy(precision))
        read = precision if mean.ndim == 1 else namespace_of(precision).linalg.diagonal(precision)
        mean = _blank(mean, read)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "precision", precision)

    @classmethod
    def from_observations(cls, y: Any, variance: Any) -> Sites:
        """Observations ``y_n = f(x_n) + noise`` of variances ``variance`` (one, or one each; inf: missing).

        Parameters
        ----------
        y : array, shape (N,)
        variance : float or array, shape () or (N,)
            Above 0.
        """
        y = y if is_array(y) else np.asarray(y)
        (y,) = promote(y, where="Sites")
        if y.ndim != 1:
            raise ShapeError(f"Sites: `y` must have shape (N,); got {tuple(y.shape)}.")
        xp = namespace_of(y)
        numbers = to_numpy(variance) if is_array(variance) else np.asarray(variance, dtype=float)
        if not (numbers > 0).all():
            raise DataError(f"Sites: `variance` must be above 0; got {float(np.min(numbers))}.")
        if not is_array(variance) or isinstance(variance, np.ndarray):
            variance = xp.asarray(numbers, dtype=y.dtype, device=y.device)
        return cls(y, xp.ones_like(y) / variance)

    @property
    def size(self) -> int:
        """Number of sites."""
        return self.mean.shape[0]

    def __repr__(self) -> str:
        values = 1 if self.mean.ndim == 1 else self.mean.shape[1]
        gone = np.all(to_numpy(self.precision).reshape(self.size, -1) == 0, axis=-1)
        missing = f", {int(gone.sum())} missing" if gone.any() else ""
        return f"Sites({self.size} of {values} value{'s' * (values > 1)}{missing})"


def _check_library(array: Any) -> None:
    if library_name(array) not in ("numpy", "torch"):
        raise TypeError(
            f"Sites: arrays must be of numpy or torch; got {library_name(array)}. Convert with numpy.asarray."
        )
    if is_complex(array):
        raise DataError(
            f"Sites: numbers must be real; got dtype {dtype_name(array.dtype)}. Take the real part."
        )


def _blank(mean: Any, read: Any) -> Any:
    """Zeros where a mean is not read; the rest must be finite."""
    xp = namespace_of(mean)
    mean = xp.where(read > 0, mean, xp.zeros_like(mean))
    bad = ~np.isfinite(to_numpy(mean))
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"Sites: `mean` must be finite where the precision is above 0; got {to_number(mean[place])} at "
            f"{place[0] if len(place) == 1 else place}. Give a missing site precision 0."
        )
    return mean


def _check_precision(precision: np.ndarray) -> None:
    if not np.isfinite(precision).all():
        raise DataError(
            "Sites: `precision` must be finite; got NaN or infinity. Say exact values by a large one."
        )
    if precision.ndim == 1:
        lowest = precision.min(initial=0.0)
        if lowest < 0:
            raise DataError(f"Sites: `precision` must be 0 or more; got {lowest}.")
        return
    if precision.size == 0:
        return
    scale = np.abs(precision).max(axis=(1, 2), keepdims=True)
    rounding = 100 * np.finfo(precision.dtype).eps * scale
    if (np.abs(precision - precision.mT) > rounding).any():
        raise DataError(
            "Sites: `precision` must be symmetric; got a matrix that is not. Take (J + J.mT) / 2."
        )
    lowest = np.linalg.eigvalsh(precision)[:, 0]
    if (lowest < -precision.shape[1] * rounding[:, 0, 0]).any():
        raise DataError(
            f"Sites: `precision` must be positive semidefinite; got an eigenvalue of {lowest.min():g}."
        )


def check_places(x: Any, where: str, name: str) -> None:
    """Raise if index values are not one finite number each."""
    if x.ndim != 1:
        raise ShapeError(f"{where}: `{name}` must have shape (N,); got {tuple(x.shape)}.")
    bad = ~(np.abs(to_numpy(x)) < 1e100)  # squares of places must be finite
    if bad.any():
        first = int(np.argmax(bad))
        raise DataError(
            f"{where}: `{name}` must be finite, below 1e100; got {to_number(x[first])} at {first}. "
            "Leave such rows out."
        )
