"""Errors of functions in the sup norm: the largest change of a value, looked for at points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tenfac.core.arrays import eps, to_numpy
from tenfac.core.precision import astype, is_complex
from tenfac.core.tracing import constant

# Points that are looked at: anywhere, at ends and corners, and around the largest value.
_ANYWHERE, _ENDS, _NEAR = 500, 250, 25
_RADII = np.geomspace(0.5, 1e-3, 10)
# What points miss of the largest change: so much of the tolerance counts as kept.
_KEPT = 0.7
# Cuts tried, and what the next aims at: so much of what counts as kept, at most so much of the part before.
_TRIALS, _AIM, _NEXT = 8, 0.9, 0.5
# Coordinates of a point at ends that are at one, and where random numbers begin.
_AT_END, _SEED = 0.6, 0


def measures_values(t: Any) -> bool:
    """Whether errors of a format are those of its values: one function with known numbers on intervals.

    Examples
    --------
    >>> from tenfac import CP
    >>> measures_values(CP(None, [np.ones((3, 1))]))
    False
    """
    smooth = [mode for mode in t.modes if mode.domain is not None]
    known = not (t.batch_shape or t._is_traced)
    return bool(smooth) and known and all(hasattr(mode, "nodes") for mode in smooth)


def cut_to_values(t: Any, cut: Callable[[float], Any], tol: float) -> tuple[Any, float]:
    """The shortest of several cuts that moves no value by more than ``tol`` times the largest.

    Parameters
    ----------
    t : Format
        For which ``measures_values``.
    cut : callable
        From a relative error of coefficients to the format cut to it.
    tol : float

    Returns
    -------
    cut : Format
    rel_error : float
        Largest change found, over the largest value found.

    Examples
    --------
    >>> from tenfac import Chebyshev, Tucker
    >>> t = Tucker(np.ones((1, 1)), [np.ones((9, 1))] * 2, [Chebyshev(9)] * 2)
    >>> cut_to_values(t, lambda tol: t * (1 + tol), 1e-3)[1].__round__(6)
    0.0005
    """
    points, before = _looked_at(t)
    part = tol
    for _ in range(_TRIALS):
        made = cut(part)
        rel_error = _largest(before, made, points)
        if rel_error <= _KEPT * tol or part <= eps(t.dtype):
            break
        part = max(min(_AIM * _KEPT * tol / rel_error, _NEXT) * part, eps(t.dtype))
    return made, rel_error


def largest_change(t: Any, other: Any) -> float:
    """Largest change of a value between two functions, as found at points, over the largest of the first.

    Examples
    --------
    >>> from tenfac import Chebyshev, Tucker
    >>> t = Tucker(np.ones((1, 1)), [np.ones((9, 1))] * 2, [Chebyshev(9)] * 2)
    >>> round(largest_change(t, 1.5 * t), 6)
    0.5
    """
    points, before = _looked_at(t)
    return _largest(before, other, points)


def orthonormal(mode: Any, factor: Any, xp: Any) -> tuple[Any, Any]:
    """QR of a factor: columns orthonormal in what the mode rounds by (plain, or weights of its rows).

    Examples
    --------
    >>> from tenfac import Discrete
    >>> basis, triangle = orthonormal(Discrete(2), np.array([[3.0], [4.0]]), np)
    >>> (basis @ triangle).ravel()
    array([3., 4.])
    """
    if not hasattr(mode, "metric"):
        return xp.linalg.qr(factor)
    like = xp.real(factor) if is_complex(factor) else factor
    weights = astype(mode.metric(like), factor.dtype, xp)[:, None]
    basis, triangle = xp.linalg.qr(weights * factor)
    return basis / weights, triangle


def _looked_at(t: Any) -> tuple[list[np.ndarray], np.ndarray]:
    """Points of a format, and its values there: the last ones climb towards the largest."""
    rng, plain = np.random.default_rng(_SEED), in_double(t)
    shares = rng.uniform(-1, 1, (_ANYWHERE + _ENDS, t.ndim))
    ends = shares[_ANYWHERE:]
    ends[rng.random(ends.shape) < _AT_END] = 1.0
    ends *= rng.choice([-1.0, 1.0], ends.shape)
    found = [(shares, plain.at(*_points(t, shares)))]
    for radius in _RADII:
        shares, values = map(np.concatenate, zip(*found, strict=True))
        peak = shares[np.abs(values).argmax()]
        near = np.clip(rng.uniform(peak - radius, peak + radius, (_NEAR, t.ndim)), -1, 1)
        found.append((near, plain.at(*_points(t, near))))
    shares, values = map(np.concatenate, zip(*found, strict=True))
    return _points(t, shares), values


def _points(t: Any, shares: np.ndarray) -> list[np.ndarray]:
    """Index values from shares of [-1, 1]."""
    found = []
    for n, mode in enumerate(t.modes):
        if mode.domain is None:
            found.append(np.rint((shares[:, n] + 1) / 2 * (mode.size - 1)).astype(np.int64))
        else:
            a, b = mode.domain
            found.append(np.clip(a / 2 + b / 2 + (b / 2 - a / 2) * shares[:, n], a, b))
    return found


def _largest(before: np.ndarray, after: Any, points: list[np.ndarray]) -> float:
    change, scale = np.abs(in_double(after).at(*points) - before).max(), np.abs(before).max()
    return float(change / scale) if scale else float(change > 0)


def in_double(t: Any) -> Any:
    """A format in numpy and double precision, without gradient.

    Examples
    --------
    >>> from tenfac import CP
    >>> in_double(CP(None, [np.ones((3, 1), dtype="float32")])).dtype
    dtype('float64')
    """
    arrays = [to_numpy(constant(array)) for array in t._wide()._arrays().values()]
    return t._with([a.astype(np.complex128 if np.iscomplexobj(a) else np.float64) for a in arrays])
