"""Alternating least squares for a Tucker tensor seen at some entries only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from tenfac.decompose.completion.observed import Observed
from tenfac.decompose.completion.row_blocks import (
    LEAST_SIGNAL,
    RowBlock,
    padded,
    predictions,
    row_blocks,
    solve_rows,
    spectral_basis,
    squared,
)

State = tuple[np.ndarray, list[np.ndarray]]

# Sweeps of a start, while its ridge falls.
_SWEEPS = 15
# Conjugate gradient steps on the core in each sweep; it starts from the last core.
_CORE_STEPS = 5
# Numbers of features kept between these steps: 128 MB in float64. Above, they are computed again.
_KEPT = 2**24


class TuckerProblem:
    """Fit ``y ~ sum_{p, q, ...} G[p, q, ...] A[i, p] B[j, q] ...`` at observed entries of unit mean square.

    A state is a core and factors with orthogonal columns of mean square 1.

    Parameters
    ----------
    entries : Observed
        float64 or complex128 values.
    rank : tuple of int
    rng : numpy Generator

    Examples
    --------
    >>> indices = np.unravel_index(np.arange(12), (3, 4))
    >>> problem = TuckerProblem(Observed((3, 4), indices, np.ones(12)), (1, 1), np.random.default_rng(0))
    >>> state = problem.start(np.random.default_rng(1))
    >>> for _ in range(5):
    ...     state, residual2 = problem.sweep(state, 0.0, 0.0)
    >>> bool(residual2 < 1e-12)
    True
    """

    sweeps = _SWEEPS

    def __init__(self, entries: Observed, rank: Sequence[int], rng: np.random.Generator) -> None:
        self.entries, self.rank, self.rng = entries, tuple(rank), rng
        self.max_repairs = 0
        self.n_core = math.prod(rank)
        free = [r * (size - r) for r, size in zip(self.rank, entries.shape, strict=True)]
        self.n_params = sum(free) + self.n_core
        # The widest mode goes last: the features of its rows, the smallest, serve the core too.
        self.order = sorted(range(len(self.rank)), key=lambda n: self.rank[n])

    @cached_property
    def blocks(self) -> list[list[RowBlock]]:
        """Entries by row, for each mode."""
        e = self.entries
        return [row_blocks(e.indices, e.values, e.shape, n) for n in range(len(e.shape))]

    @cached_property
    def bases(self) -> list[np.ndarray]:
        """Leading singular vectors of each unfolding, estimated, with mean square 1."""
        e = self.entries
        return [
            spectral_basis(e.indices, e.values, e.shape, n, r, self.rng) * math.sqrt(e.shape[n])
            for n, r in enumerate(self.rank)
        ]

    def start(self, rng: np.random.Generator) -> State:
        """Spectral bases and a random core of unit signal."""
        core = rng.standard_normal(self.rank) / math.sqrt(self.n_core)
        return core.astype(self.entries.values.dtype), list(self.bases)

    def sweep(self, state: State, ridge: float, noise2: float) -> tuple[State, float]:
        """Solve each factor in turn, then the core; ``ridge`` is relative, ``noise2`` that of the noise."""
        core, factors = state[0], list(state[1])
        for n in self.order:
            others = [None if m == n else padded(factor) for m, factor in enumerate(factors)]
            matrix = np.moveaxis(core, n, 0).reshape(core.shape[n], -1).T
            kept: dict[int, np.ndarray] = {}

            def rows_of(block: RowBlock, others: Sequence[Any] = others, kept: Any = kept) -> np.ndarray:
                found = kept.get(id(block))
                return _kronecker_rows(others, block.indices) if found is None else found

            if n == self.order[-1] and len(self.entries.values) * len(matrix) <= _KEPT:
                kept.update({id(block): rows_of(block) for block in self.blocks[n]})

            def features(block: RowBlock, rows_of: Any = rows_of, matrix: Any = matrix) -> np.ndarray:
                return rows_of(block) @ matrix

            factor, _ = solve_rows(self.blocks[n], features, factors[n], ridge, noise2)
            core, factors[n] = _orthogonalized(core, factor, n)
        core, residual2 = self._solve_core(core, factors, n, rows_of, ridge, noise2)
        return (core, factors), residual2

    def _solve_core(
        self, core: np.ndarray, factors: list[np.ndarray], n: int, rows_of: Any, ridge: float, noise2: float
    ) -> tuple[np.ndarray, float]:
        """Improve the core by conjugate gradients; rows of mode ``n`` are batched."""
        factor, blocks = factors[n], self.blocks[n]
        penalty = max(ridge * len(self.entries.values), noise2 * self.n_core / max(1 - noise2, LEAST_SIGNAL))

        def forward(g: np.ndarray) -> list[np.ndarray]:
            at_rows = factor @ g
            return [(rows_of(b) @ at_rows[b.rows][..., None])[..., 0] for b in blocks]

        def adjoint(values: list[np.ndarray]) -> np.ndarray:
            total = np.zeros_like(g)
            for b, value in zip(blocks, values, strict=True):
                each = (value[:, None, :] @ np.conj(rows_of(b)))[:, 0]
                total += np.conj(factor[b.rows]).T @ each
            return total

        g = np.moveaxis(core, n, 0).reshape(core.shape[n], -1)
        residual = [b.values - value for b, value in zip(blocks, forward(g), strict=True)]
        gradient = adjoint(residual) - penalty * g
        step, size = gradient, squared(gradient)
        for _ in range(_CORE_STEPS):
            if size <= np.finfo(float).tiny:
                break
            change = forward(step)
            curvature = sum(map(squared, change)) + penalty * squared(step)
            if not 0 < curvature < math.inf:  # no direction is left; NaN too
                break
            length = size / curvature
            g = g + length * step
            residual = [r - length * c for r, c in zip(residual, change, strict=True)]
            gradient = adjoint(residual) - penalty * g
            size, before = squared(gradient), size
            step = gradient + (size / before) * step
        core = np.moveaxis(g.reshape([core.shape[n], *np.delete(core.shape, n)]), 0, n)
        return core, sum(map(squared, residual))

    def extrapolate(self, state: State, before: State, share: float) -> State:  # noqa: ARG002
        """Stay: orthogonal factors are not points of one line, and these sweeps need no help."""
        return state

    def evaluate(self, state: State, indices: Sequence[np.ndarray]) -> np.ndarray:
        """Values at entries, shape (N,)."""
        core, factors = state
        matrix = core.reshape(len(core), -1).T

        def values(part: Sequence[np.ndarray]) -> np.ndarray:
            rows = _kronecker_rows([None, *factors[1:]], part) @ matrix
            return np.sum(rows * factors[0][part[0]], axis=1)

        return predictions(values, indices)


def _kronecker_rows(factors: Sequence[Any], indices: Sequence[np.ndarray]) -> np.ndarray:
    """Kronecker products of the rows of all factors (None is left out) at entries, (*entries, prod R)."""
    rows = [f.take(index, axis=0) for f, index in zip(factors, indices, strict=True) if f is not None]
    result = rows[0]
    for row in rows[1:]:
        result = (result[..., :, None] * row[..., None, :]).reshape(*row.shape[:-1], -1)
    return result


def _orthogonalized(core: np.ndarray, factor: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Move what keeps the columns of a factor from being orthogonal, of mean square 1, into the core."""
    scale = math.sqrt(len(factor))
    q, r = np.linalg.qr(factor)
    return np.moveaxis(np.tensordot(r / scale, core, (1, n)), 0, n), q * scale
