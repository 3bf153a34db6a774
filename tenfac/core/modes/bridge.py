"""What lies between knots where the state of a process is known: means, smoothing, quadrature."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfac.core.arrays import device_of
from tenfac.core.errors import DataError
from tenfac.core.modes.bend import Bend, seen_at
from tenfac.core.modes.process import Process
from tenfac.core.tracing import constant

Array = NDArray[np.float64]
_NODES = 16  # of Gauss and Legendre in each panel
_PANELS = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # times as many as a segment begins with
_CLOSE = 1e-12  # panels are halved until the squares of all functions change by less
_ROUNDINGS = 64  # of a place, as many change that much
_HALVINGS = 60  # of a segment towards its knots, at most
_EPS = float(np.finfo(np.float64).eps)
_SURE = 1e4 * _EPS  # share of a variance that is more than rounding
_LOST = 1e-4  # largest change of a state, of order one, by the rounding of values
_SHARE = 0.01  # about what rounding on the way leaves of the largest number that cancels
_NUMBERS = 2**21  # of transition matrices held at once
_FEWEST = 16  # places whose matrices are held at once, however many numbers that is


class Knots(NamedTuple):
    """What a process says about its knots (M of them), whatever the states are.

    Entry 0 of the matrices is for places before the first knot, M for places after the last.

    Examples
    --------
    >>> from tenfac.core.modes.state_space import StateSpace
    >>> knots_of(StateSpace("matern32", 1.0), (0.0, 1.0, 3.0)).inverse.shape
    (4, 2, 2)
    """

    places: Array  # (M,)
    stationary: Array  # P, (order, order)
    inverse: Array  # of P, then of Q(step), then 0, (M + 1, order, order)
    across: Array  # A(step), 0 at both ends, (M + 1, order, order)


@lru_cache(maxsize=64)
def knots_of(process: Process, grid: tuple[float, ...]) -> Knots:
    """Matrices of a process between the knots of a grid.

    Examples
    --------
    >>> from tenfac.core.modes.state_space import StateSpace
    >>> knots_of(StateSpace("matern12", 1.0), (0.0, 1.0)).across.ravel().round(4).tolist()
    [0.0, 0.3679, 0.0]
    """
    places = np.array(grid)
    steps, stationary = np.diff(places), np.asarray(process.stationary())
    none = np.zeros((1, process.order, process.order))
    inverse, across = [_inverse(stationary[None])], [none]
    if steps.size:
        inverse.append(_inverse(process.innovation(steps)))
        across.append(process.transition(steps))
    return Knots(places, stationary, np.concatenate([*inverse, none]), np.concatenate([*across, none]))


@lru_cache(maxsize=64)
def on_axis(grid: tuple[float, ...], bend: Bend | None) -> tuple[float, ...]:
    """Knots on the axis of the process.

    Examples
    --------
    >>> on_axis((0.0, 1.0), None)
    (0.0, 1.0)
    """
    return grid if bend is None else tuple(bend.places(np.array(grid), np).tolist())


def _inverse(covariances: Array) -> Array:
    """Inverses of covariances ``(N, order, order)``; 0 for the states that stand still."""
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    moving = np.flatnonzero((variances > 0).all(axis=0))
    scale = 1 / np.sqrt(variances[:, moving])
    part = covariances[:, moving[:, None], moving] * scale[:, :, None] * scale[:, None, :]
    found = np.zeros_like(covariances)
    found[:, moving[:, None], moving] = np.linalg.inv(part) * scale[:, :, None] * scale[:, None, :]
    return found


def bridge(process: Process, grid: tuple[float, ...], x: Any, seen: Any, xp: Any) -> tuple[Any, Any, Any]:
    """Weights of the two neighbouring knots in the mean of a process, given its states at all knots.

    Parameters
    ----------
    process : Process
    grid : tuple of float, length M
    x : array, shape (N,)
        In double precision.
    seen : array, shape (N, J, order)
        What is wanted of the state at each place.
    xp : module

    Returns
    -------
    place : array of int, shape (N,)
        Knots at or before each place, 0 to M.
    left, right : arrays, shape (N, J, order)
        Weights of the states at knots ``place - 1`` and ``place``; 0 for knots that are not there.

    Notes
    -----
    A Gauss-Markov state between two known ones, ``d`` after the first and ``e`` before the second, has the
    mean ``A(d) s_1 + Q(d) A(e)^T Q(d + e)^-1 (s_2 - A(d + e) s_1)`` [1]_. After the last knot that is
    ``A(d) s_M``, before the first ``P A(e)^T P^-1 s_1``.

    References
    ----------
    .. [1] S. Särkkä and A. Solin, Applied Stochastic Differential Equations, Cambridge University Press
       (2019), section 10.5 (the smoothing mean between two times of a linear equation).
       doi:10.1017/9781108186735

    Examples
    --------
    >>> from tenfac.core.modes.state_space import StateSpace
    >>> x, one = np.array([0.0, 0.5]), np.ones((2, 1, 1))
    >>> place, left, right = bridge(StateSpace("matern12", 1.0), (0.0, 1.0), x, one, np)
    >>> left.ravel().round(4), right.ravel().round(4)
    (array([1.    , 0.4434]), array([0.    , 0.4434]))
    """
    held = knots_of(process, grid)
    like = {"dtype": x.dtype, "device": device_of(x)}
    places, stationary, inverse, across = (xp.asarray(array, **like) for array in held)
    place = xp.searchsorted(places, constant(x), side="right")
    first = place == 0
    a, b = xp.take(places, xp.clip(place - 1, 0, None)), xp.take(places, xp.clip(place, None, len(grid) - 1))
    nothing = xp.zeros_like(x)
    after, before = xp.where(first, nothing, x - a), xp.where(place == len(grid), nothing, b - x)
    new = xp.where(first[:, None, None], stationary[None, :, :], process.innovation(after))
    right = xp.matmul(xp.matmul(seen, new), xp.matrix_transpose(process.transition(before)))
    right = xp.matmul(right, xp.take(inverse, place, axis=0))
    kept = xp.matmul(seen, process.transition(after))
    kept = xp.where(first[:, None, None], xp.zeros_like(kept), kept)
    return place, kept - xp.matmul(right, xp.take(across, place, axis=0)), right


def block_of(process: Process) -> int:
    """Places whose matrices are held at once.

    Examples
    --------
    >>> from tenfac.core.modes.state_space import StateSpace
    >>> block_of(StateSpace("matern32", 1.0))
    524288
    """
    return max(_NUMBERS // process.order**2, _FEWEST)


@lru_cache(maxsize=16)
def smoothing(process: Process, grid: tuple[float, ...]) -> Array:
    """Mean states at the knots given exact values there, as a matrix ``(M order, M)``.

    Raises
    ------
    DataError
        If the process cannot take any values there: a constant at two knots.

    Notes
    -----
    A filter forwards, then a recursion backwards that inverts no covariance [1]_. With all M unit vectors as
    values: ``M^2 order^2`` operations.

    References
    ----------
    .. [1] G. J. Bierman, Fixed interval smoothing with discrete measurements, International Journal of
       Control 18 (1973), the modified Bryson-Frazier form. doi:10.1080/00207177308932487

    Examples
    --------
    >>> from tenfac.core.modes.state_space import StateSpace
    >>> smoothing(StateSpace("matern12", 1.0), (0.0, 1.0)).round(12) + 0.0
    array([[1., 0.],
           [0., 1.]])
    """
    held, order, count = knots_of(process, grid), process.order, len(grid)
    seen, moved = process.observation(held.places), process.innovation(np.diff(held.places))
    mean, cov = np.zeros((order, count)), held.stationary
    kept = []
    for k in range(count):
        if k:
            step = held.across[k]
            mean, cov = step @ mean, step @ cov @ step.T + moved[k - 1]
        row = seen[k]
        variance = row @ cov @ row
        if not variance > _SURE * (np.abs(row) @ np.abs(cov) @ np.abs(row)):
            raise DataError(
                f"GP.factor: the process must be able to take any values at its knots; at {grid[k]:g} it is "
                "determined by the knots before. Add a Matérn process to the kernel, or leave out knots that "
                "nearly coincide."
            )
        gain = cov @ row / variance
        left = np.eye(order) - gain[:, None] * row
        error = -(row @ mean)
        error[k] += 1.0
        kept.append((mean, cov, left, row, error / variance))
        mean, cov = mean + gain[:, None] * error, left @ cov @ left.T
    later, found, canceled = np.zeros((order, count)), np.empty((count, order, count)), []
    for k in reversed(range(count)):
        mean, cov, left, row, error = kept[k]
        later = left.T @ later - row[:, None] * error
        found[k] = mean - cov @ later
        canceled.append(float((np.abs(cov) @ np.abs(later)).max()))
        later = held.across[k].T @ later
    lost = _EPS * max(float(np.abs(found).max()), _SHARE * max(canceled))
    if not lost <= _LOST:
        raise DataError(
            "GP.factor: knots must be far enough apart for the smoothness of the kernel; rounding would "
            f"change derivatives at them by {lost:.1g} of their usual size. Leave out knots "
            "that nearly coincide, or take a rougher kernel."
        )
    return found.reshape(count * order, count)


# --- quadrature ---------------------------------------------------------------------------------------


class Segment(NamedTuple):
    """Quadrature of the functions that do not vanish between two neighbouring knots.

    Examples
    --------
    >>> from tenfac.core.modes.state_space import StateSpace
    >>> [segment.place for segment in segments(StateSpace("matern12", 1.0), (0.0, 1.0), (0.0, 1.5), 0)]
    [1, 2]
    """

    place: int  # knots at or before it
    start: float
    length: float
    nodes: Array  # (P,), as shares of the length
    weights: Array  # (P,)
    integral: Array  # of the states on the left, those on the right, and 1, (2 order + 1,)
    root: Array  # (2 order + 1, 2 order + 1), root.T @ root are their inner products


@lru_cache(maxsize=16)
def segments(
    process: Process,
    grid: tuple[float, ...],
    domain: tuple[float, float],
    derivative: int,
    bend: Bend | None = None,
) -> tuple[Segment, ...]:
    """Gauss-Legendre panels between knots, graded towards them, halved until all squares have converged.

    Raises
    ------
    DataError
        If they do not converge.

    Examples
    --------
    >>> from tenfac.core.modes.state_space import StateSpace
    >>> one, = segments(StateSpace("matern12", 1.0), (0.0, 1.0), (0.0, 1.0), 0)
    >>> float(one.integral[0].round(12)) == float(np.tanh(0.5).round(12))
    True
    """
    edges = np.unique([domain[0], *grid, domain[1]])
    starts, lengths = edges[:-1], np.diff(edges)
    along = lengths if bend is None else np.diff(bend.places(edges, np))
    depths = np.array([_depth(process, length) for length in along])
    found: list[Any] = [None] * lengths.size
    for depth in np.unique(depths):
        active, before = np.flatnonzero(depths == depth), None
        for panels in _PANELS:
            nodes, weights = _panels(int(depth), panels)
            rows, place = _local(process, grid, bend, starts[active], lengths[active], nodes, derivative)
            root = rows * np.sqrt(weights)[None, :, None]
            gram = root.transpose(0, 2, 1) @ root
            size = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
            done = np.zeros(active.size, dtype=bool)
            if before is not None:
                # weights have the rounding errors of the largest among them, and those of the place
                close = _CLOSE + _ROUNDINGS * _EPS * np.abs(edges).max() / lengths[active, None, None]
                limit = size.max(axis=1)[:, None, None] * np.maximum(size[:, :, None], size[:, None, :])
                limit *= close
                done = (np.abs(gram - before) <= limit).all(axis=(1, 2))
            for n in np.flatnonzero(done):
                start, length = float(starts[active[n]]), float(lengths[active[n]])
                upper = np.zeros_like(gram[n])
                triangle = np.linalg.qr(root[n], mode="r")
                upper[: len(triangle)] = triangle * np.sqrt(length)
                integral = length * (weights @ rows[n])
                found[active[n]] = Segment(int(place[n]), start, length, nodes, weights, integral, upper)
            active, before = active[~done], gram[~done]
            if not active.size:
                break
        else:
            raise DataError(
                f"GP: the process must be smooth between knots; between {starts[active[0]]:g} and the next "
                "one it oscillates too often to be integrated. Take more knots."
            )
    return tuple(found)


def _depth(process: Process, length: float) -> int:
    """How often to halve towards a knot until the state hardly changes."""
    unit = np.eye(process.order)
    for depth in range(_HALVINGS):
        if np.abs(process.transition(np.array([length / 2**depth]))[0] - unit).max() <= 0.5:
            return depth
    return _HALVINGS


@lru_cache(maxsize=64)
def _panels(depth: int, panels: int) -> tuple[Array, Array]:
    """Nodes and weights on [0, 1], graded towards both ends, each part cut into as many panels."""
    shares = np.cumprod(np.full(depth, 0.5))
    edges = np.unique([0.0, *shares, *(1 - shares), 1.0])
    within = np.arange(panels) / panels
    starts = (edges[:-1, None] + np.diff(edges)[:, None] * within).ravel()
    lengths = np.repeat(np.diff(edges) / panels, panels)
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    places = starts[:, None] + lengths[:, None] * (nodes + 1) / 2
    return places.ravel(), (lengths[:, None] * weights / 2).ravel()


def _local(
    process: Process,
    grid: tuple[float, ...],
    bend: Bend | None,
    starts: Array,
    lengths: Array,
    nodes: Array,
    derivative: int,
) -> tuple[Array, NDArray[np.int64]]:
    """Values of the states on the left, those on the right and 1 in segments, ``(S, P, 2 order + 1)``."""
    x = (starts[:, None] + lengths[:, None] * nodes).ravel()
    rows = np.ones((x.size, 2 * process.order + 1))
    place, step = np.empty(x.size, dtype=np.int64), block_of(process)
    for begin in range(0, x.size, step):
        part = slice(begin, begin + step)
        along, seen = seen_at(process, bend, x[part], derivative, np)
        place[part], left, right = bridge(process, on_axis(grid, bend), along, seen[:, None, :], np)
        rows[part, :-1] = np.concatenate([left[:, 0], right[:, 0]], axis=1)
    return rows.reshape(lengths.size, nodes.size, -1), place[:: nodes.size]
