"""Values on a grid of chosen indices: only what is new is evaluated, indices are chosen by pivoting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import scipy.linalg

from tenfac.core.contract import contract

# Entries of a core evaluated at once.
_CHUNK = 2**17
# Singular values of chosen rows that are taken for zero, relative to the largest.
_ZERO = 1e-15
# Rounding errors of values, relative to the largest.
_ROUNDOFF = 2e-15


class WholeCore:
    """The core of a cross, all entries evaluated: for up to four variables.

    Parameters
    ----------
    evaluate : Evaluator
    ndim : int

    Examples
    --------
    >>> import numpy as np
    >>> core = WholeCore(lambda points: points.sum(axis=1), 2)
    >>> core.grow([np.array([0.0, 1.0]), np.array([5.0])])
    >>> core.entries
    array([[5.],
           [6.]])
    """

    def __init__(self, evaluate: Any, ndim: int) -> None:
        self.evaluate = evaluate
        self.entries = np.zeros((0,) * ndim)

    @property
    def shape(self) -> tuple[int, ...]:
        """Entries along each mode."""
        return self.entries.shape

    @property
    def sizes(self) -> tuple[int, ...]:
        """All that may grow."""
        return self.shape

    def look(self, points: np.ndarray) -> None:
        """Nothing: the core has no gaps."""

    def grow(self, places: Sequence[np.ndarray], cut: float | None = None) -> None:  # noqa: ARG002 - as in a train
        """Entries at more coordinates, those known before first."""

        def values(spans: Sequence[slice]) -> np.ndarray:
            axes = [place[span] for place, span in zip(places, spans, strict=True)]
            blocks = [self.evaluate(points) for points in grid_points(axes)]
            return np.concatenate(blocks).reshape([len(x) for x in axes])

        self.entries = grown(self.entries, [len(place) for place in places], values)

    def at(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """The core times a row per mode, point by point: ``(N, R_n) -> (N,)``."""
        return contract(self.entries, rows, paired=range(len(rows)))

    def along(self, mode: int, rows: Sequence[np.ndarray | None]) -> np.ndarray:
        """The same with one mode left open, ``(N, R_mode)``."""
        others = [m for m in range(len(rows)) if m != mode]
        return contract(self.entries, rows, paired=others) if others else self.entries[None]


def grown(
    old: np.ndarray, shape: Sequence[int], values: Callable[[Sequence[slice]], np.ndarray]
) -> np.ndarray:
    """A larger array with an old one in its first corner; ``values`` gives the blocks that are new.

    Examples
    --------
    >>> import numpy as np
    >>> grown(np.zeros((1, 1)), (2, 2), lambda spans: 7.0)
    array([[0., 7.],
           [7., 7.]])
    """
    core = np.empty(shape)
    core[tuple(map(slice, old.shape))] = old
    for n, (before, after) in enumerate(zip(old.shape, shape, strict=True)):
        # a block: old below mode n, new in mode n, all above
        spans = [*map(slice, old.shape[:n]), slice(before, after), *map(slice, shape[n + 1 :])]
        if all(span.start != span.stop and span.stop != 0 for span in spans):
            core[tuple(spans)] = values(spans)
    return core


def grid_points(axes: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Points of a grid in C order, ``(N, D)``, a chunk at a time.

    Examples
    --------
    >>> [len(points) for points in grid_points([np.arange(2.0), np.arange(3.0)])]
    [6]
    """
    shape = tuple(len(x) for x in axes)
    total = int(np.prod(shape))
    for start in range(0, total, _CHUNK):
        places = np.unravel_index(np.arange(start, min(start + _CHUNK, total)), shape)
        yield np.stack([x[i] for x, i in zip(axes, places, strict=True)], axis=1)


def noise(share: float, rows: int, largest: float, roundoff: float = _ROUNDOFF) -> float:
    """Norm of a column of noise: its root mean square is a share of the largest value, or rounding errors.

    Examples
    --------
    >>> noise(1e-3, 4, 10.0)
    0.02
    """
    return max(share, roundoff) * math.sqrt(rows) * largest


def span(columns: np.ndarray, smallest: float) -> np.ndarray:
    """Orthonormal basis of the columns, without what is below a size; one column or more.

    Examples
    --------
    >>> span(np.diag([1.0, 1e-9]), 1e-6).shape
    (2, 1)
    """
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, : max(int((sizes > smallest).sum()), 1)]


def more_rows(basis: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Rows that make the basis well conditioned, those chosen before kept: pivoted QR of what they leave.

    Examples
    --------
    >>> more_rows(np.array([[0.1, 0.0], [0.0, 1.0], [1.0, 0.0]]), np.array([1])).tolist()
    [1, 2]
    """
    missing = basis.shape[1] - len(index)
    if missing <= 0:
        return index
    rest = basis
    if len(index):
        row_space = scipy.linalg.orth(basis[index].T)
        rest = basis - (basis @ row_space) @ row_space.T
    _, _, order = scipy.linalg.qr(rest.T, mode="economic", pivoting=True)
    return np.concatenate([index, order[~np.isin(order, index)][:missing]])


def fit_to_rows(basis: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The matrix that makes coefficients of a basis from values at some of its rows: their least squares fit.

    Examples
    --------
    >>> fit_to_rows(np.array([[1.0], [5.0], [2.0]]), np.array([0, 2])).round(3)
    array([[0.2, 0.4]])
    """
    return np.linalg.pinv(basis[index], rcond=_ZERO)


def steady_rows(basis: np.ndarray, index: np.ndarray, bound: float) -> np.ndarray:
    """More rows, until the least squares fit of an orthonormal basis to them has at most a norm of ``bound``.

    Each is the row that is the least certain, whose leverage is largest: it raises the determinant most.

    Examples
    --------
    >>> steady_rows(np.array([[0.1, 0.0], [0.0, 1.0], [1.0, 0.0]]), np.array([0, 1]), 5.0).tolist()
    [0, 1, 2]
    """
    while len(index) < len(basis):
        inverse = fit_to_rows(basis, index)
        if np.linalg.norm(inverse, 2) <= bound:
            break
        leverage = np.linalg.norm(basis @ inverse, axis=1)
        leverage[index] = 0.0
        index = np.append(index, leverage.argmax())
    return index
