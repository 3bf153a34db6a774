"""One pass over the observations: what they say about one mode, summed by its indices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Array = NDArray[Any]
Codes = NDArray[np.intp]
_BYTES = 2**20  # of one block of rows: what a cache holds
_LEAST = 128  # rows of a block


@dataclass(frozen=True, eq=False)
class Sorted:
    """The observations in the order of one mode's indices.

    Parameters
    ----------
    codes : tuple of arrays, shape (N,)
        Places among the indices of every mode; those of the mode itself ascend.
    y, weights : arrays, shape (N,)
    mode, size : int
        The mode, and its number of indices.
    """

    codes: tuple[Codes, ...]
    y: Array
    weights: Array
    mode: int
    size: int

    def blocks(self, width: int) -> list[slice]:
        """Slices of rows whose arrays of ``width`` columns fit the cache."""
        step = max(_LEAST, _BYTES // (8 * width))
        return [slice(s, min(s + step, self.y.size)) for s in range(0, self.y.size, step)]

    def gathered(self, rows: slice, tables: list[Array]) -> list[Array]:
        """Rows of the tables of the other modes."""
        others = (e for e in range(len(tables)) if e != self.mode)
        return [np.take(tables[e], self.codes[e][rows], axis=0, mode="clip") for e in others]

    def runs(self, rows: slice) -> tuple[Codes, Codes]:
        """Distinct indices of the mode among some rows, and where the run of each starts (and the end)."""
        own = self.codes[self.mode][rows]
        starts = np.concatenate([[0], np.flatnonzero(np.diff(own)) + 1])
        return own[starts], np.append(starts, own.size)

    def summed(self, rows: slice, wide: Array, narrow: Array, out: Array, out_y: Array) -> None:
        """Add weighted sums by index of ``wide``, and of y times ``narrow``, to ``out`` and ``out_y``."""
        indices, starts = self.runs(rows)
        columns = np.arange(starts[-1])
        shape = (indices.size, columns.size)
        weights = self.weights[rows]
        out[indices] += csr_array((weights, columns, starts), shape=shape) @ wide
        out_y[indices] += csr_array((weights * self.y[rows], columns, starts), shape=shape) @ narrow


@dataclass(frozen=True, eq=False)
class Rows:
    """Observations as index codes, sorted once for every mode.

    Parameters
    ----------
    by_mode : tuple of Sorted
    total : float
        Sum of the weights: the number of observations.
    square : float
        Weighted sum of squares of y.
    """

    by_mode: tuple[Sorted, ...]
    total: float
    square: float

    @classmethod
    def of(cls, codes: list[Codes], sizes: list[int], y: Array, weights: Array) -> Rows:
        """Sort rows by each of their modes."""
        by_mode = []
        for mode, size in enumerate(sizes):
            order = np.argsort(codes[mode], kind="stable")
            by_mode.append(Sorted(tuple(c[order] for c in codes), y[order], weights[order], mode, size))
        return cls(tuple(by_mode), float(weights.sum()), float(weights @ y**2))


def merged(columns: list[Array], y: Array, weights: Array) -> tuple[list[Array], Array, Array]:
    """Rows in an order that depends on their values only; identical ones become one, their weights added."""
    order = np.lexsort((y, *reversed(columns)))
    columns, y, weights = [c[order] for c in columns], y[order], weights[order]
    new = np.any([np.diff(column) != 0 for column in (*columns, y)], axis=0)
    first = np.concatenate([[0], np.flatnonzero(new) + 1])
    return [c[first] for c in columns], y[first], np.add.reduceat(weights, first)
