"""One pass over the observations: what they say about one mode, summed by its indices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_BYTES = 2**24  # of one block of rows


@dataclass(frozen=True, eq=False)
class Rows:
    """Observations as index codes; blocks keep the memory of a pass bounded.

    Parameters
    ----------
    codes : tuple of arrays, shape (N,)
        Per mode, the place of each row among the indices of the mode.
    sizes : tuple of int
        Indices per mode.
    y, weights : arrays, shape (N,)
    """

    codes: tuple[NDArray[np.intp], ...]
    sizes: tuple[int, ...]
    y: Array
    weights: Array

    @classmethod
    def merged(cls, codes: list[NDArray[np.intp]], sizes: list[int], y: Array, weights: Array) -> Rows:
        """Rows in an order that depends on their values only, so that any order gives the same fit."""
        keys = (weights, y, *reversed(codes))
        order = np.lexsort(keys)
        return cls(tuple(c[order] for c in codes), tuple(sizes), y[order], weights[order])

    @property
    def total(self) -> float:
        """Sum of the weights: the number of observations."""
        return float(self.weights.sum())

    @property
    def square(self) -> float:
        """Weighted sum of squares of y."""
        return float(self.weights @ self.y**2)

    def sums(self, form, mode: int, tables: list[Array]) -> tuple[Array, Array]:
        """Weighted sums, by index of ``mode``, of second moments and of y times first moments."""
        from scipy.sparse import csr_array

        others = [e for e in range(len(self.sizes)) if e != mode]
        count, block = self.y.size, max(256, _BYTES // (16 * form.width(mode)))
        wide = narrow = None
        for start in range(0, count, block):
            rows = slice(start, min(start + block, count))
            size = rows.stop - start
            parts = [np.take(tables[e], self.codes[e][rows], axis=0, mode="clip") for e in others]
            both, one = form.combined(parts, size)
            where = (self.codes[mode][rows], np.arange(size))
            shape = (self.sizes[mode], size)
            w = csr_array((self.weights[rows], where), shape=shape)
            wy = csr_array((w.data * self.y[rows][w.indices], w.indices, w.indptr), shape=shape)
            more, more_y = w @ both, wy @ np.ascontiguousarray(one)
            wide = more if wide is None else wide + more
            narrow = more_y if narrow is None else narrow + more_y
        assert wide is not None and narrow is not None
        return wide, narrow
