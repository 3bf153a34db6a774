"""A sparse array as ALS sees it: products with factors over the stored entries only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import array_api_compat.numpy as xp
import numpy as np
from scipy import sparse

from tenfac.core.arrays import eps
from tenfac.decompose.checks import in_range
from tenfac.decompose.cp.mttkrp import Visit, columnwise
from tenfac.decompose.sparse_input import read_sparse

# Stored entries handled at once, so that rows gathered for them stay near the cache.
_ENTRIES = 2**14
# Below this share of the square of the fit a squared distance has lost digits; up to this many entries of the
# dense array it is then formed exactly, so many at once.
_CANCELLED, _DENSE, _BLOCK = 1e-8, 2**25, 2**20


class SparseTensor:
    """Stored entries sorted by each mode, with the interface of ``DenseTensor``.

    Parameters
    ----------
    indices : int array, shape (D, N)
        No index twice.
    values : array, shape (N,)
    shape : sequence of D int

    Examples
    --------
    >>> X = SparseTensor(np.array([[0, 1], [0, 2], [0, 3]]), np.ones(2), (2, 3, 4))
    >>> X.norm**2, X.distance([np.zeros((1, size)) for size in X.shape])
    (2.0000000000000004, 1.4142135623730951)
    """

    xp = xp
    device = "cpu"

    def __init__(self, indices: np.ndarray, values: np.ndarray, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.dtype = values.dtype
        self.is_complex = np.iscomplexobj(values)
        self.wide = np.dtype(np.complex128 if self.is_complex else np.float64)
        self.rounding, self.wide_rounding = eps(self.dtype), eps(self.wide)
        self.indices, self.values = indices, values.astype(self.wide)
        with np.errstate(over="ignore", invalid="ignore"):  # then the array is rescaled
            self.norm = float(np.linalg.norm(self.values))
        self._blocks = [self._sorted_blocks(n) for n in range(len(shape))]

    @classmethod
    def from_array(cls, X: Any, where: str) -> SparseTensor:
        """Read a sparse array; entries stored twice are added.

        Raises
        ------
        ShapeError, DataError
            If it has no entries, or values that are not finite.
        """
        indices, values, shape = read_sparse(X, where)
        return cls(np.ascontiguousarray(indices.T, dtype=np.intp), values, shape)

    def rescaled(self) -> tuple[SparseTensor, float]:
        """The array divided by its largest magnitude where squares would overflow, vanish or lose digits.

        Examples
        --------
        >>> X = SparseTensor(np.zeros((2, 1), dtype=int), np.array([1e-200]), (2, 3))
        >>> X.norm, X.rescaled()[0].norm, X.rescaled()[1]
        (0.0, 1.0, 1e-200)
        """
        if in_range(self.norm * self.norm, xp):
            return self, 1.0
        scale = float(np.max(np.abs(self.values), initial=np.finfo(float).tiny))
        return SparseTensor(self.indices, (self.values / scale).astype(self.dtype), self.shape), scale

    def sweep(self, factors: Sequence[np.ndarray], visit: Visit) -> None:
        """Call ``visit(n, product)`` for every mode in order; what it returns replaces factor n at once."""
        used = [self._rows(factor) for factor in factors]
        for n in range(len(self.shape)):
            product = np.stack([self._product(n, rows) for rows in zip(*used, strict=True)])
            factor = visit(n, np.swapaxes(product, 1, 2))
            used[n] = used[n] if factor is None else self._rows(factor)

    def distance(self, factors: Sequence[np.ndarray]) -> float:
        """``||X - sum_r a_r o b_r o ...||`` of factors (R, I_n).

        From the squares at and off the stored entries; formed in dense blocks where those would cancel and
        the dense array has no more than ``_DENSE`` entries.
        """
        rows = [np.ascontiguousarray(factor.T) for factor in factors]
        grams = reduce(np.multiply, [factor.conj() @ factor.T for factor in factors])
        total, at_entries, off = float(np.sum(grams).real), 0.0, 0.0
        for start in range(0, self.values.size, _ENTRIES):
            where = slice(start, start + _ENTRIES)
            parts = [row[index[where]] for row, index in zip(rows, self.indices, strict=True)]
            fitted = reduce(np.multiply, parts).sum(axis=1)
            at_entries += float(np.sum(np.abs(self.values[where] - fitted) ** 2))
            off += float(np.sum(np.abs(fitted) ** 2))
        square = at_entries + max(total - off, 0.0)
        if square < _CANCELLED * total and math.prod(self.shape) <= _DENSE:
            return self._dense_distance(factors)
        return math.sqrt(square)

    def multiplied(self, matrices: Sequence[np.ndarray]) -> np.ndarray:
        """The array times matrices (J_n, I_n) in every mode, (J_0, ..., J_{D-1})."""
        sizes = [matrix.shape[0] for matrix in matrices]
        out = np.zeros((sizes[0], math.prod(sizes[1:])), dtype=np.result_type(self.wide, *matrices))
        columns = [np.ascontiguousarray(matrix.T) for matrix in matrices]
        step = max(_ENTRIES * 16 // out.shape[1], 1)
        for start in range(0, self.values.size, step):
            where = slice(start, start + step)
            parts = [rows[index[where]] for rows, index in zip(columns, self.indices, strict=True)]
            rest = reduce(lambda a, b: (a[:, :, None] * b[:, None, :]).reshape(len(a), -1), parts[1:])
            out += (parts[0] * self.values[where, None]).T @ rest
        return out.reshape(sizes)

    def _rows(self, factor: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.swapaxes(np.conj(factor) if self.is_complex else factor, 1, 2))

    def _product(self, n: int, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Product of mode n, (I_n, R), from rows (I_m, R) of the other modes."""
        out = np.zeros((self.shape[n], rows[n].shape[1]), dtype=self.wide)
        for first, matrix, others in self._blocks[n]:
            gathered = reduce(np.multiply, [rows[m][index] for m, index in others])
            out[first : first + matrix.shape[0]] += matrix @ gathered
        return out

    def _sorted_blocks(self, n: int) -> list[tuple[int, sparse.csr_array, list[tuple[int, np.ndarray]]]]:
        """First row, matrix (rows x entries) with the values, and indices of the other modes, by block."""
        order = np.argsort(self.indices[n], kind="stable")
        blocks = []
        for start in range(0, order.size, _ENTRIES):
            chosen = order[start : start + _ENTRIES]
            own = self.indices[n, chosen]
            counts = np.bincount(own - own[0])
            pointers = np.append(0, np.cumsum(counts))
            matrix = sparse.csr_array(
                (self.values[chosen], np.arange(chosen.size), pointers), shape=(counts.size, chosen.size)
            )
            others = [(m, self.indices[m, chosen]) for m in range(len(self.shape)) if m != n]
            blocks.append((int(own[0]), matrix, others))
        return blocks

    def _dense_distance(self, factors: Sequence[np.ndarray]) -> float:
        columns = columnwise(factors[1:])
        positions = np.ravel_multi_index(tuple(self.indices[1:]), self.shape[1:])
        total = 0.0
        for start, stop in self._row_ranges(columns.shape[1]):
            part = factors[0][:, start:stop].T @ columns
            lo, hi = np.searchsorted(self.indices[0], [start, stop])
            part[self.indices[0, lo:hi] - start, positions[lo:hi]] -= self.values[lo:hi]
            total += float(np.sum(np.abs(part) ** 2))
        return math.sqrt(total)

    def _row_ranges(self, columns: int) -> Iterator[tuple[int, int]]:
        step = max(_BLOCK // columns, 1)
        for start in range(0, self.shape[0], step):
            yield start, min(start + step, self.shape[0])
