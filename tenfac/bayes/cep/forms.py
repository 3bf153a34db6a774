"""CP and Tucker: how the functions of the modes make terms, and what the sums over the rows need.

Every mode has a leading function that is 1. ``f = sum_p c_p prod_d u_d[., index_d(p)]``: an all-ones term is
the level, terms with one varying function are main effects, the others interactions.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.cep.rows import Sorted

Array = NDArray[Any]


def moments(mean: Array, cov: Array) -> tuple[Array, Array]:
    """First and second moments with the leading one, shapes (M, q) and (M, q, q)."""
    count, size = mean.shape
    first = np.ones((count, size + 1))
    first[:, 1:] = mean
    second = first[:, :, None] * first[:, None, :]
    second[:, 1:, 1:] += cov
    return first, second


def _pairs(size: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of an upper triangle, and where each entry of the full square finds its own."""
    row, column = np.triu_indices(size)
    full = np.empty((size, size), dtype=np.intp)
    full[row, column] = full[column, row] = np.arange(row.size)
    return row, column, full


class CPForm:
    """Main effects (if wanted) and ``rank`` products of one function per mode; weights are 1.

    Parameters
    ----------
    count : int
        Number of modes D.
    rank : int
    mains : bool
    """

    diagonal = True

    def __init__(self, count: int, rank: int, mains: bool) -> None:
        extra = 1 if mains else 0
        self.sizes = (1 + extra + rank,) * count
        terms = [np.zeros(count, dtype=int)]
        if mains:
            terms += list(np.eye(count, dtype=int))
        terms += [np.full(count, 1 + extra + r) for r in range(rank)]
        self.index = np.array(terms).T  # (D, P)
        self.n_terms = self.index.shape[1]
        self.free = np.arange(1)
        self.products = slice(extra, extra + rank)  # places among the functions
        self._row, self._column, self._full = _pairs(self.n_terms)

    @property
    def start(self) -> Array:
        """Coefficients to start from."""
        return np.concatenate([[0.0], np.ones(self.n_terms - 1)])

    def table(self, mode: int, second: Array) -> Array:
        """What a row needs of a mode, by index: products of the functions of each two terms."""
        index = self.index[mode]
        return np.ascontiguousarray(second[:, index[self._row], index[self._column]])

    def sums(self, rows: Sorted, tables: list[Array]) -> tuple[Array, Array]:
        """Weighted sums, by index of a mode, of products over the others: second moments, y times first."""
        out = np.zeros((rows.size, self._row.size))
        out_y = np.zeros((rows.size, self.n_terms))
        for block in rows.blocks(2 * self._row.size):
            parts = rows.gathered(block, tables)
            wide = parts[0] if parts else np.ones((block.stop - block.start, self._row.size))
            for part in parts[1:]:
                wide *= part
            rows.summed(block, wide, np.ascontiguousarray(wide[:, : self.n_terms]), out, out_y)
        return out, out_y

    def sites(self, mode: int, wide: Array, narrow: Array, mean: Array, second: Array) -> tuple[Array, Array]:
        """Sums over rows as quadratic (M, q, q) and linear (M, q) forms in the functions of one mode."""
        index, size = self.index[mode], self.sizes[mode]
        picks = np.zeros((self.n_terms, size))
        picks[np.arange(self.n_terms), index] = 1.0
        full = wide[:, self._full] * second
        return _t(picks) @ full @ picks, (narrow * mean) @ picks

    def core_sums(self, mode: int, wide: Array, narrow: Array, first: Array, second: Array) -> tuple:
        """Quadratic (P, P) and linear (P,) forms in the coefficients of the terms."""
        index = self.index[mode]
        quadratic = np.einsum("mpq,mpq->pq", wide[:, self._full], second[:, index[:, None], index])
        return quadratic, np.einsum("mp,mp->p", narrow, first[:, index])

    def evaluate(
        self, firsts: list[Array], seconds: list[Array], mean: Array, second: Array
    ) -> tuple[Array, Array]:
        """First and second moments of f, row by row."""
        size = self.n_terms
        one = np.ones((firsts[0].shape[0], size))
        two = np.ones((firsts[0].shape[0], size, size))
        for index, first, both in zip(self.index, firsts, seconds, strict=True):
            one *= first[:, index]
            two *= both[:, index[:, None], index]
        return one @ mean, two.reshape(-1, size * size) @ second.ravel()


class TuckerForm:
    """All products of the functions of the modes, the leading ones among them, with a coefficient each.

    Parameters
    ----------
    ranks : sequence of int
        Varying functions per mode.
    """

    diagonal = False

    def __init__(self, ranks: tuple[int, ...]) -> None:
        self.sizes = tuple(rank + 1 for rank in ranks)
        self.index = np.array(list(itertools.product(*(range(q) for q in self.sizes)))).T
        self.n_terms = self.index.shape[1]
        self.free = np.arange(self.n_terms)
        self.products = slice(0, None)
        self._pairs = [_pairs(q) for q in self.sizes]
        self._folds = [self._fold(q) for q in self.sizes]

    @staticmethod
    def _fold(size: int) -> Array:
        full = _pairs(size)[2].ravel()
        fold = np.zeros((full.size, full.max() + 1))
        fold[np.arange(full.size), full] = 1.0
        return fold

    @property
    def start(self) -> Array:
        """Coefficients to start from: one where at most one function varies or all are of one number."""
        varying = np.where(self.index > 0, self.index, -1)
        highest = varying.max(axis=0)
        alike = ((varying == highest) | (varying < 0)).all(axis=0) & (highest > 0)
        return np.where(alike, 0.5, 0.0)

    def table(self, mode: int, second: Array) -> Array:
        """What a row needs of a mode, by index: products of each two of its functions."""
        row, column, _ = self._pairs[mode]
        return np.ascontiguousarray(second[:, row, column])

    def sums(self, rows: Sorted, tables: list[Array]) -> tuple[Array, Array]:
        """Weighted sums, by index of a mode, of products over the others: second moments, y times first.

        The other modes are split in two groups: the sum over the rows of an index is one matrix product.
        """
        others = [e for e in range(len(self.sizes)) if e != rows.mode]
        half = (len(others) + 1) // 2
        groups = others[:half], others[half:]
        wides = [int(np.prod([self._pairs[e][0].size for e in group])) for group in groups]
        narrows = [int(np.prod([self.sizes[e] for e in group])) for group in groups]
        out = np.zeros((rows.size, wides[0] + narrows[0], wides[1]))
        first = self._narrow_columns(groups[1])
        for block in rows.blocks(2 * sum(wides)):
            parts = rows.gathered(block, tables)
            weights = rows.weights[block, None]
            left: Any = _row_products(parts[:half], weights)
            right = _row_products(parts[half:], None)
            told = left[:, self._narrow_columns(groups[0])] * rows.y[block, None]
            left = np.concatenate([left, told], axis=1).T
            if right is None:
                right = np.ones((weights.size, 1))
            indices, starts = rows.runs(block)
            ends = starts.tolist()
            for i, start, stop in zip(indices.tolist(), ends[:-1], ends[1:], strict=True):
                out[i] += left[:, start:stop] @ right[start:stop]
        wide = out[:, : wides[0]].reshape(rows.size, -1)
        return wide, np.ascontiguousarray(out[:, wides[0] :, first].reshape(rows.size, -1))

    def _narrow_columns(self, group: list[int]) -> NDArray[np.intp]:
        """Among products of pairs, those with the leading function in every pair: first moments."""
        columns = np.zeros(1, dtype=np.intp)
        for e in group:
            own = self._pairs[e][0].size
            columns = (columns[:, None] * own + np.arange(self.sizes[e])).ravel()
        return columns

    def sites(self, mode: int, wide: Array, narrow: Array, mean: Array, second: Array) -> tuple[Array, Array]:
        """Sums over rows as quadratic (M, q, q) and linear (M, q) forms in the functions of one mode."""
        size, count = self.sizes[mode], len(self.sizes)
        order = [mode, *(e for e in range(count) if e != mode)]
        paired = [axis for e in order for axis in (e, count + e)]
        folded = second.reshape(self.sizes * 2).transpose(paired).reshape(size * size, -1)
        for e in order[1:]:  # the first remaining pair goes, its triangle comes last
            square = self.sizes[e] ** 2
            folded = folded.reshape(size * size, square, -1).transpose(0, 2, 1) @ self._folds[e]
            folded = folded.reshape(size * size, -1)
        quadratic = (wide @ folded.T).reshape(-1, size, size)
        linear = narrow @ np.moveaxis(mean.reshape(self.sizes), mode, 0).reshape(size, -1).T
        return 0.5 * (quadratic + _t(quadratic)), linear

    def core_sums(self, mode: int, wide: Array, narrow: Array, first: Array, second: Array) -> tuple:
        """Quadratic (P, P) and linear (P,) forms in the coefficients of the terms."""
        size, count = self.sizes[mode], len(self.sizes)
        order = [mode, *(e for e in range(count) if e != mode)]
        sums = second.reshape(-1, size * size).T @ wide
        sums = sums.reshape(size * size, *(self._pairs[e][0].size for e in order[1:]))
        for axis, e in enumerate(order[1:], start=1):
            sums = np.take(sums, self._pairs[e][2].ravel(), axis=axis)
        sums = sums.reshape([self.sizes[e] for e in order for _ in range(2)])
        places = [2 * order.index(e) for e in range(count)] + [2 * order.index(e) + 1 for e in range(count)]
        linear = (first.T @ narrow).reshape([self.sizes[e] for e in order])
        linear = linear.transpose([order.index(e) for e in range(count)])
        return sums.transpose(places).reshape(self.n_terms, -1), linear.ravel()

    def evaluate(
        self, firsts: list[Array], seconds: list[Array], mean: Array, second: Array
    ) -> tuple[Array, Array]:
        """First and second moments of f, row by row."""
        count, dims = firsts[0].shape[0], len(self.sizes)
        paired = [axis for e in range(dims) for axis in (e, dims + e)]
        one = np.broadcast_to(mean, (count, mean.size))
        two: Array | None = None
        flat = second.reshape(self.sizes * 2).transpose(paired).reshape(self.sizes[0] ** 2, -1)
        for e, (first, both) in enumerate(zip(firsts, seconds, strict=True)):
            size = self.sizes[e]
            one = (first[:, None, :] @ one.reshape(count, size, -1))[:, 0]
            square = both.reshape(count, 1, size * size)
            two = square[:, 0] @ flat if two is None else (square @ two.reshape(count, size * size, -1))[:, 0]
        assert two is not None
        return one[:, 0], two[:, 0]


def _row_products(parts: list[Array], weights: Array | None) -> Array | None:
    """Products of each column of each part, row by row, times ``weights`` (N, 1)."""
    out = weights
    for part in parts:
        out = part if out is None else (out[:, :, None] * part[:, None, :]).reshape(part.shape[0], -1)
    return out


def _t(matrix: Array) -> Array:
    return np.swapaxes(matrix, -1, -2)
