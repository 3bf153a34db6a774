"""The largest value of a format and its place: a grid, then local ascents."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize

from .arrays import to_numpy
from .errors import ShapeError
from .tracing import constant

# Points of the grid in all, and starts of local ascents.
_GRID, _STARTS = 1_000_000, 8
# A slab of a larger discrete tensor is refused.
_BYTES = 2**31


class Extremum(NamedTuple):
    """An extreme value and the indices where it is taken, one per mode.

    Examples
    --------
    >>> value, place = Extremum(1.0, (0.5, 2))
    >>> place
    (0.5, 2)
    """

    value: float
    place: tuple[float | int, ...]


def largest(t: Any) -> Extremum:
    """The largest value of a format that was found; ``Format.max`` says how far to trust it.

    Examples
    --------
    >>> from tenfac import CP
    >>> largest(CP(None, [np.array([[1.0], [3.0], [2.0]])]))
    Extremum(value=3.0, place=(1,))
    """
    if t.batch_shape:
        raise ShapeError(
            f"max: needs one function; got a batch of shape {t.batch_shape}. Take them one by one."
        )
    if 0 in t.coef_shape:
        raise ShapeError(f"max: needs a tensor with entries; got {t!r}.")
    arrays = [to_numpy(constant(array)).astype(np.float64) for array in t._arrays().values()]
    plain = t._with(arrays)
    axes = _axes(plain)
    best = None
    for place in _starts(plain, axes):
        found = _ascent(plain, place)
        if best is None or found.value > best.value:
            best = found
    return best


def _axes(t: Any) -> list[np.ndarray]:
    """All rows of discrete modes; two points per coefficient of the others, fewer if that is too many."""
    smooth = [n for n, mode in enumerate(t.modes) if mode.domain is not None]
    room = _GRID / math.prod(mode.size for mode in t.modes if mode.domain is None)
    limit = max(int(room ** (1 / len(smooth))), 3) if smooth else 0
    axes = []
    for mode in t.modes:
        if mode.domain is None:
            axes.append(np.arange(mode.size))
            continue
        count = min(2 * mode.size + 1, limit)
        a, b = mode.domain
        angles = np.sin(np.pi * np.arange(1 - count, count, 2) / (2 * (count - 1)))
        axes.append(np.clip((a + b) / 2 + (b - a) / 2 * angles, a, b))
    return axes


def _starts(t: Any, axes: list[np.ndarray]) -> list[list[float | int]]:
    """The highest points of the grid that are not neighbours in it, slab by slab."""
    sizes = [len(axis) for axis in axes]
    slab = max(_GRID // max(math.prod(sizes[1:]), 1), 1)
    found: list[tuple[float, tuple[int, ...]]] = []
    for start in range(0, sizes[0], slab):
        values = t.on_grid(axes[0][start : start + slab], *axes[1:], max_bytes=_BYTES)
        order = np.argpartition(-values, min(200, values.size - 1), axis=None)[:200]
        for index in zip(*np.unravel_index(order, values.shape), strict=True):
            found.append((float(values[index]), (int(index[0]) + start, *map(int, index[1:]))))
    found.sort(reverse=True)
    chosen: list[tuple[int, ...]] = []
    for _, index in found:
        if all(max(abs(i - j) for i, j in zip(index, other, strict=True)) > 2 for other in chosen):
            chosen.append(index)
    return [[axis[i].item() for axis, i in zip(axes, index, strict=True)] for index in chosen[:_STARTS]]


def _ascent(t: Any, place: list[Any]) -> Extremum:
    """Climb in the continuous modes, the discrete ones kept."""
    smooth = [n for n, mode in enumerate(t.modes) if mode.domain is not None]
    best = float(t.at(*place))
    if not smooth:
        return Extremum(best, tuple(place))
    low, high = np.array([t.modes[n].domain for n in smooth]).T
    scale = max(abs(best), 1e-300)

    def down(unit: np.ndarray) -> tuple[float, np.ndarray]:
        point = _filled(place, smooth, np.clip(low + (high - low) * unit, low, high))
        value, slope = t.value_and_grad(*point)
        return -float(value) / scale, -slope * (high - low) / scale

    start = (np.array([place[n] for n in smooth]) - low) / (high - low)
    options = {"ftol": 1e-16, "gtol": 1e-12, "maxiter": 200}
    found = scipy.optimize.minimize(
        down, start, jac=True, method="L-BFGS-B", bounds=[(0, 1)] * len(smooth), options=options
    )
    point = _filled(place, smooth, np.clip(low + (high - low) * found.x, low, high))
    value = float(t.at(*point))
    return Extremum(value, tuple(point)) if value > best else Extremum(best, tuple(place))


def _filled(place: list[Any], smooth: list[int], values: np.ndarray) -> list[Any]:
    """The place with new coordinates in the continuous modes."""
    point = list(place)
    for n, value in zip(smooth, values, strict=True):
        point[n] = float(value)
    return point
