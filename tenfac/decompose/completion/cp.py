"""Alternating least squares for a CP tensor seen at some entries only."""

from __future__ import annotations

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

Factors = list[np.ndarray]

# Sweeps of a start, while its ridge falls.
_SWEEPS = 30
# Components whose cosine is within this of 1 count as one.
_PARALLEL = 1e-10


class CPProblem:
    """Fit ``y ~ sum_r A[i, r] B[j, r] ...`` at observed entries of unit mean square.

    A state is a list of factors whose columns have equal norms in all modes.

    Parameters
    ----------
    entries : Observed
        float64 or complex128 values.
    rank : int
    rng : numpy Generator

    Examples
    --------
    >>> indices = np.unravel_index(np.arange(12), (3, 4))
    >>> problem = CPProblem(Observed((3, 4), indices, np.ones(12), None), 1, np.random.default_rng(0))
    >>> state = problem.start(np.random.default_rng(1))
    >>> for _ in range(5):
    ...     state, residual2 = problem.sweep(state, 0.0, 0.0)
    >>> bool(residual2 < 1e-12)
    True
    """

    sweeps = _SWEEPS

    def __init__(self, entries: Observed, rank: int, rng: np.random.Generator) -> None:
        self.entries, self.rank, self.rng = entries, rank, rng
        self.max_repairs = rank
        self.n_params = rank * (sum(entries.shape) - len(entries.shape) + 1)
        self.prior = rank ** (1 / len(entries.shape))  # inverse variance of factor entries for unit signal

    @cached_property
    def blocks(self) -> list[list[RowBlock]]:
        """Entries by row, for each mode."""
        e = self.entries
        return [row_blocks(e.indices, e.values, e.shape, n) for n in range(len(e.shape))]

    @cached_property
    def bases(self) -> Factors:
        """Leading singular vectors of each unfolding, estimated."""
        return [self._basis(self.entries.values, n, self.rank) for n in range(len(self.entries.shape))]

    def _basis(self, values: np.ndarray, mode: int, count: int) -> np.ndarray:
        e = self.entries
        return spectral_basis(e.indices, values, e.shape, mode, min(count, e.shape[mode]), self.rng)

    def start(self, rng: np.random.Generator) -> Factors:
        """Mix the spectral basis of each mode at random; entries have the variance of the prior."""
        mixed = []
        for basis in self.bases:
            size, count = basis.shape
            mixed.append(basis @ rng.standard_normal((count, self.rank)) * np.sqrt(size / count / self.prior))
        return mixed

    def sweep(self, factors: Factors, ridge: float, noise2: float) -> tuple[Factors, float]:
        """Solve each mode in turn; ``ridge`` is relative, ``noise2`` the variance of the noise."""
        factors = list(factors)
        penalty = noise2 * self.prior * max(1 - noise2, LEAST_SIGNAL) ** (-1 / len(factors))
        for n, blocks in enumerate(self.blocks):
            others = [None if m == n else padded(factor) for m, factor in enumerate(factors)]

            def features(block: RowBlock, others: Sequence[Any] = others) -> np.ndarray:
                return _products(others, block.indices)

            factors[n], residual2 = solve_rows(blocks, features, factors[n], ridge, penalty)
        return _balanced(factors), residual2

    def extrapolate(self, factors: Factors, before: Factors, share: float) -> Factors:
        """Go on by a share of the step from ``before`` to ``factors``."""
        return [new + share * (new - old) for new, old in zip(factors, before, strict=True)]

    def evaluate(self, factors: Factors, indices: Sequence[np.ndarray]) -> np.ndarray:
        """Values at entries, shape (N,)."""
        return predictions(lambda part: np.sum(_products(factors, part), axis=1), indices)

    def repair(self, factors: Factors) -> Factors:
        """Replace the component that is missed least by the leading one of the residual.

        The residual's component is its leading singular vector in every mode, found as at the start.
        """
        e = self.entries
        h = _products(factors, e.indices)
        worst = _least_missed(h)
        residual = e.values - np.sum(h, axis=1) + h[:, worst]
        new = [self._basis(residual, n, 1) for n in range(len(e.shape))]
        shape = _products(new, e.indices).ravel()
        weight = np.vdot(shape, residual) / max(squared(shape), np.finfo(float).tiny)
        factors = [factor.copy() for factor in factors]
        for factor, column in zip(factors, new, strict=True):
            factor[:, worst] = column.ravel() * np.abs(weight) ** (1 / len(factors))
        factors[0][:, worst] *= np.sign(weight)
        return factors


def _products(factors: Sequence[Any], indices: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of all factors (None is left out) at entries, multiplied; shape (*entries, R)."""
    present = [(f, index) for f, index in zip(factors, indices, strict=True) if f is not None]
    result = present[0][0].take(present[0][1], axis=0)
    for factor, index in present[1:]:
        result *= factor.take(index, axis=0)
    return result


def _balanced(factors: Factors) -> Factors:
    """Give each component the same norm in every mode."""
    norms = np.stack([np.linalg.norm(factor, axis=0) for factor in factors])
    with np.errstate(divide="ignore"):
        common = np.exp(np.mean(np.log(norms), axis=0))  # 0 where one is
    return [f * (common / np.maximum(n, np.finfo(float).tiny)) for f, n in zip(factors, norms, strict=True)]


def normalized(factors: Factors, scale: float) -> tuple[np.ndarray, Factors]:
    """Weights in descending order, times ``scale``, and factors with unit columns; zero ones stay zero.

    Examples
    --------
    >>> weights, factors = normalized([np.array([[1.0, 3.0]]), np.array([[0.0, 4.0]])], 2.0)
    >>> weights, factors[1]
    (array([24.,  0.]), array([[1., 0.]]))
    """
    norms = np.stack([np.linalg.norm(factor, axis=0) for factor in factors])
    weights = np.prod(norms, axis=0)
    order = np.argsort(-weights, kind="stable")
    unit = [f / np.maximum(n, np.finfo(float).tiny) for f, n in zip(factors, norms, strict=True)]
    return weights[order] * scale, [factor[:, order] for factor in unit]


def _least_missed(h: np.ndarray) -> int:
    """Component whose removal, all others rescaled, raises the residual least; ``h`` has shape (N, R)."""
    norms = np.linalg.norm(h, axis=0)
    if np.any(norms == 0):
        return int(np.argmin(norms))
    unit = h / norms
    inverse = np.linalg.inv(np.conj(unit).T @ unit + _PARALLEL * np.eye(h.shape[1]))
    return int(np.argmin(norms**2 / np.diag(inverse).real))
