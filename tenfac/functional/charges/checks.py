"""What the sums over charges and Gaussians are given, checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from tenfac.core.arrays import device_of, is_array, namespace_of, promote, to_numpy
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.modes.chebyshev import check_interval

# Least tolerance that float64 can give.
_LEAST = 1e-13


def check_tol(tol: Any, where: str) -> float:
    """A tolerance that float64 can keep."""
    if isinstance(tol, bool) or not isinstance(tol, (int, float, np.floating)) or not _LEAST <= tol < 1:
        raise DataError(
            f"{where}: tol must be from {_LEAST:g}, what float64 can give, to below 1; got {tol!r}."
        )
    return float(tol)


def share_of(tol: float, share: float) -> float:
    """A share of a tolerance, or the least one that float64 can give."""
    return max(share * tol, _LEAST)


def check_charges(
    centers: Any, amplitudes: Any, domain: Any, where: str, names: Any = None
) -> tuple[Any, Any]:
    """Finite arrays (N, D) and (N,) of one floating dtype, the first in the box if there is one."""
    first, second = names or ("centers", "amplitudes")
    if not is_array(centers) and not is_array(amplitudes):
        centers, amplitudes = np.asarray(centers), np.asarray(amplitudes)
    elif not is_array(amplitudes):
        amplitudes = _beside(amplitudes, centers)
    elif not is_array(centers):
        centers = _beside(centers, amplitudes)
    for name, array in ((first, centers), (second, amplitudes)):
        if np.iscomplexobj(to_numpy(array)):
            raise DataError(f"{where}: `{name}` must be real; got complex numbers.")
    centers, amplitudes = promote(centers, amplitudes, where=where)
    columns = 3 if domain is None else len(domain)
    if centers.ndim != 2 or centers.shape[1] != columns:
        raise ShapeError(f"{where}: `{first}` must have shape (N, {columns}); got {tuple(centers.shape)}.")
    if tuple(amplitudes.shape) != (centers.shape[0],):
        raise ShapeError(
            f"{where}: `{second}` must have one number for each of the {centers.shape[0]} {first}; got shape "
            f"{tuple(amplitudes.shape)}."
        )
    if centers.shape[0] == 0:
        raise ShapeError(f"{where}: `{first}` must have a row or more; got none.")
    check_points(centers, domain, where, first)
    values = to_numpy(amplitudes)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise DataError(
            f"{where}: `{second}` must be finite; got {values[bad[0]]} at {bad[0]}. Leave that row out."
        )
    return centers, amplitudes


def _beside(values: Any, array: Any) -> Any:
    """A sequence in the library and, where it is real, in the precision of an array."""
    xp, values = namespace_of(array), np.asarray(values)
    keeps = values.dtype.kind in "biuf" and xp.isdtype(array.dtype, "real floating")
    return xp.asarray(values, dtype=array.dtype if keeps else None, device=device_of(array))


def check_points(points: Any, domain: Any, where: str, name: str = "points") -> None:
    """Finite real rows, in the box if there is one."""
    values = to_numpy(points)
    if np.iscomplexobj(values):
        raise DataError(f"{where}: `{name}` must be real; got complex numbers.")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise DataError(f"{where}: `{name}` must be finite; got {values[bad[0]].tolist()} in row {bad[0]}.")
    if domain is None:
        return
    low, high = np.array(domain).T
    slack = 8 * np.finfo(values.dtype).eps * np.maximum(np.abs(low), np.abs(high)).max()
    bad = np.flatnonzero(((values < low - slack) | (values > high + slack)).any(axis=1))
    if len(bad):
        raise DataError(
            f"{where}: `{name}` must lie in the box {[tuple(map(float, pair)) for pair in domain]}; got "
            f"{values[bad[0]].tolist()} in row {bad[0]}. Pass a larger `domain`."
        )


def check_box(domain: Any, where: str) -> tuple[tuple[float, float], ...]:
    try:
        pairs = [tuple(map(float, pair)) for pair in domain]
    except (TypeError, ValueError):
        pairs = []
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ShapeError(f"{where}: `domain` must be one interval (a, b) per variable; got {domain!r}.")
    return tuple(check_interval(pair, where) for pair in pairs)


def check_terms(exponents: Any, weights: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Exponents in ascending order and their weights."""
    try:
        tau = np.asarray(exponents, dtype=float)
        w = np.ones_like(tau) if weights is None else np.asarray(weights, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: `exponents` and `weights` must be sequences of numbers; got {exponents!r} and "
            f"{weights!r}. Write exponents=[2.0] for one width."
        ) from error
    if tau.ndim != 1 or tau.size == 0 or w.shape != tau.shape:
        raise ShapeError(
            f"{where}: `exponents` and `weights` must be two sequences of one length K >= 1; got shapes "
            f"{tau.shape} and {w.shape}. Write exponents=[2.0] for one width."
        )
    if not (np.isfinite(tau).all() and np.isfinite(w).all() and (tau >= 0).all()):
        raise DataError(
            f"{where}: exponents must be finite and 0 or more, weights finite; got {tau} and {w}."
        )
    if not np.any(w):
        raise DataError(f"{where}: a weight must differ from 0; got zeros only.")
    order = np.argsort(tau, kind="stable")
    return tau[order], w[order]
