"""The largest value of a format and its place: a grid, then local ascents."""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize

from tenfac.core.arrays import to_numpy
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.tracing import constant
from tenfac.core.train_cores import flat, orthogonal

# Points of the grid in all, at least in a mode, and between knots; places kept of a slab; local ascents.
_GRID, _FEWEST, _BETWEEN_KNOTS, _CANDIDATES, _STARTS = 1_000_000, 3, 8, 200, 8
# Beginnings of places that are kept in each mode of a train.
_BEAM = 100
# Points of a continuous mode that are one peak of the grid: so many to each side.
_REACH = 2
# When an ascent ends, in units of its first value and of the box.
_ASCENT = {"ftol": 1e-16, "gtol": 1e-12, "maxiter": 200}
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
    arrays = [to_numpy(constant(array)) for array in t._arrays().values()]
    if any(map(np.iscomplexobj, arrays)):
        raise DataError(f"max: needs real values, for others have no order; got {t!r}.")
    plain = t._with([array.astype(np.float64) for array in arrays])
    axes = _axes(plain)
    if math.prod(map(len, axes)) <= _GRID:
        starts = _starts(plain, axes)
    elif hasattr(plain, "train_rank"):
        starts = _starts_of_train(plain, axes)
    else:
        axes = _axes(plain, _limit(plain))
        starts = _starts(plain, axes)
    return max((_ascent(plain, place, axes) for place in starts), key=lambda found: found.value)


def _limit(t: Any) -> int:
    """Points in a continuous mode with which the grid is not too large."""
    smooth = [n for n, mode in enumerate(t.modes) if mode.domain is not None]
    room = _GRID / math.prod(mode.size for mode in t.modes if mode.domain is None)
    return max(int(room ** (1 / len(smooth))), _FEWEST) if smooth else sys.maxsize


def _axes(t: Any, limit: int = sys.maxsize) -> list[np.ndarray]:
    """All rows of discrete modes; points of the others, not more than ``limit``."""
    return [np.arange(m.size) if m.domain is None else _points(m, limit) for m in t.modes]


def _points(mode: Any, limit: int) -> np.ndarray:
    """Both ends and what lies between, ascending: two points per coefficient, or some between knots."""
    a, b = mode.domain
    edges = np.unique([a, *getattr(mode, "grid", ()), b])
    if hasattr(mode, "grid") and len(edges) <= limit:
        parts = min(_BETWEEN_KNOTS, limit // len(edges))
        shares = np.arange(parts) / parts
        return np.append(edges[:-1, None] + np.diff(edges)[:, None] * shares, b)
    count = min(2 * mode.size + 1, limit)
    angles = np.sin(np.pi * np.arange(1 - count, count, 2) / (2 * (count - 1)))
    return np.clip((a + b) / 2 + (b - a) / 2 * angles, a, b)


def _starts(t: Any, axes: list[np.ndarray]) -> list[list[float | int]]:
    """The highest points of the grid that are not neighbours in it, slab by slab."""
    sizes = [len(axis) for axis in axes]
    slab = max(_GRID // math.prod(sizes[1:]), 1)
    found: list[tuple[float, tuple[int, ...]]] = []
    for start in range(0, sizes[0], slab):
        values = t.on_grid(axes[0][start : start + slab], *axes[1:], max_bytes=_BYTES)
        order = np.argpartition(-values, min(_CANDIDATES, values.size - 1), axis=None)[:_CANDIDATES]
        for index in zip(*np.unravel_index(order, values.shape), strict=True):
            found.append((float(values[index]), (int(index[0]) + start, *map(int, index[1:]))))
    return _apart(found, axes)


def _apart(found: list[tuple[float, tuple[int, ...]]], axes: list[np.ndarray]) -> list[list[float | int]]:
    """The places of the highest values that are not neighbors; rows of a discrete mode never are."""
    found.sort(reverse=True)
    chosen: list[tuple[int, ...]] = []
    reach = np.array([0 if axis.dtype.kind == "i" else _REACH for axis in axes])
    for _, index in found:
        if all((np.abs(np.subtract(index, other)) > reach).any() for other in chosen):
            chosen.append(index)
        if len(chosen) == _STARTS:
            break
    return [[axis[i].item() for axis, i in zip(axes, index, strict=True)] for index in chosen]


def _starts_of_train(t: Any, axes: list[np.ndarray]) -> list[list[float | int]]:
    """High points of a grid that is too large to be gone through, by a beam along the train."""
    xp = t._xp
    rows = [mode.rows(f, x, xp=xp) for mode, f, x in zip(t.modes, t.factors, axes, strict=True)]
    grid = t._rebuilt(t.cores, rows)
    places = _beam(grid, xp)
    lowest = grid.at(*places.T).min()
    if lowest < 0:  # the beam finds what is far from zero: shifted, that is what is high
        level = [np.full((1, 1, 1), -lowest), *[np.ones((1, 1, 1))] * (t.ndim - 1)]
        shifted = grid + t._rebuilt(level, [np.ones((len(x), 1)) for x in axes])
        places = np.concatenate([places, _beam(shifted, xp)])
    values = grid.at(*places.T)
    return _apart([(float(v), tuple(map(int, p))) for v, p in zip(values, places, strict=True)], axes)


def _beam(grid: Any, xp: Any) -> np.ndarray:
    """Indices ``(N, D)`` of entries of large magnitude, the most promising beginnings kept mode by mode.

    References
    ----------
    .. [1] A. Chertkov, G. Ryzhakov, G. Novikov and I. Oseledets, Optimization of functions given in the
       tensor train format (2022), algorithm 1. arXiv:2209.14808
    """
    places, state = np.array([[]], dtype=np.int64), np.ones((1, 1))
    # orthogonal cores: a row of the state has the norm of all beyond it
    for core in orthogonal(grid._chain(grid._whole(xp)), xp):
        grown = (state @ flat(core, xp)).reshape(-1, core.shape[-1])
        grown = grown / (np.abs(grown).max() or 1.0)  # so that no square overflows, and not all vanish
        kept = np.argsort(-np.linalg.norm(grown, axis=1), kind="stable")[:_BEAM]
        head, index = np.divmod(kept, core.shape[-2])
        places = np.concatenate([places[head], index[:, None]], axis=1)
        state = grown[kept]
    return places[:, [grid.order.index(n) for n in range(grid.ndim)]]


def _ascent(t: Any, place: list[Any], axes: list[np.ndarray]) -> Extremum:
    """Climb in the continuous modes, the discrete ones kept: between neighbors in the grid, then anywhere."""
    smooth = [n for n, mode in enumerate(t.modes) if mode.domain is not None]
    best = Extremum(float(t.at(*place)), tuple(place))
    if not smooth:
        return best
    near = [_around(axes[n], place[n]) for n in smooth]  # a first step as long as the domain leaves the peak
    for bounds in (near, [t.modes[n].domain for n in smooth]):
        found = _climbed(t, list(best.place), smooth, np.array(bounds))
        best = found if found.value > best.value else best
    return best


def _around(axis: np.ndarray, x: float) -> tuple[float, float]:
    """The neighbors of a point in a grid."""
    at = int(np.abs(axis - x).argmin())
    return axis[max(at - 1, 0)], axis[min(at + 1, len(axis) - 1)]


def _climbed(t: Any, place: list[Any], smooth: list[int], bounds: np.ndarray) -> Extremum:
    low, high = bounds.T
    scale = abs(float(t.at(*place))) or 1.0
    slopes = all(getattr(t.modes[n], "is_smooth", True) for n in smooth)

    def down(unit: np.ndarray) -> Any:
        point = _filled(place, smooth, np.clip(low + (high - low) * unit, low, high))
        if not slopes:
            return -float(t.at(*point)) / scale
        value, slope = t.value_and_grad(*point)
        return -float(value) / scale, -slope * (high - low) / scale

    start = (np.array([place[n] for n in smooth]) - low) / (high - low)
    found = scipy.optimize.minimize(
        down,
        start,
        jac=True if slopes else "2-point",
        method="L-BFGS-B",
        bounds=scipy.optimize.Bounds(np.zeros_like(low), np.ones_like(low)),
        options=_ASCENT,
    )
    point = _filled(place, smooth, np.clip(low + (high - low) * found.x, low, high))
    return Extremum(float(t.at(*point)), tuple(point))


def _filled(place: list[Any], smooth: list[int], values: np.ndarray) -> list[Any]:
    """The place with new coordinates in the continuous modes."""
    point = list(place)
    for n, value in zip(smooth, values, strict=True):
        point[n] = float(value)
    return point
