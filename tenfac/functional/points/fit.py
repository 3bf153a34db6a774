"""Low-rank least squares at scattered points: Gauss-Newton on Tucker tensors of one rank, with its ridge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, solve_triangular

from tenfac.core.arrays import spans
from tenfac.core.contract import contract
from tenfac.core.truncate import truncate

# Numbers of one block of the Jacobian: 32 MB in float64.
_NUMBERS = 2**22
# A step that does not lower the objective is damped by these shares of the diagonal, in turn.
_DAMPING = (0.0, 1e-3, 1e-1, 10.0)
# Least share of a row's residual that is its own: a row the fit goes through says nothing.
_OWN = 1e-6
# Jitter of the normal equations, on columns of unit length; how many times more where it is too small.
_JITTER, _MORE = 1e-14, 100
# Mean square of residuals that are rounding errors, of values of mean square 1.
_EXACT = np.finfo(float).eps ** 2


@dataclass(frozen=True)
class State:
    """Core and factors of coefficients in units of their prior; the factors are orthonormal.

    Examples
    --------
    >>> State(np.ones((1, 1)), (np.eye(3, 1), np.eye(2, 1))).rank
    (1, 1)
    """

    core: np.ndarray
    factors: tuple[np.ndarray, ...]

    @property
    def rank(self) -> tuple[int, ...]:
        """Columns of the factors."""
        return self.core.shape


class PointsProblem:
    """Fit ``y ~ sum_{p, q, ...} G[p, q, ...] u_p(x_0) v_q(x_1) ...`` at points, with a ridge.

    Minimises ``sum (y - f)^2 + ridge * ||C||^2`` over tensors ``C`` of coefficients in units of their prior;
    the constant is free.

    Parameters
    ----------
    bases : sequence of D arrays, shapes (N, K_n)
        Basis functions at the points; the first is the constant 1.
    scales : sequence of D arrays, shapes (K_n,)
        Standard deviations that coefficients are expected to have; 1 for the first.
    y : array, shape (N,)
    weights : array, shape (N,)
        Mean 1.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 9)
    >>> basis = np.stack([np.ones(9), x], axis=1)
    >>> problem = PointsProblem([basis], [np.array([1.0, 0.5])], 3 * x - 2, np.ones(9))
    >>> state, _, converged = problem.solve(State(np.ones(1), (np.eye(2, 1),)), 1e-12, 20, 1e-5)
    >>> problem.coefficients(state)[1][0] @ problem.coefficients(state)[0], converged
    (array([-2.,  3.]), True)
    """

    def __init__(
        self,
        bases: Sequence[np.ndarray],
        scales: Sequence[np.ndarray],
        y: np.ndarray,
        weights: np.ndarray,
    ) -> None:
        self.scales, self.y, self.roots = tuple(scales), y, np.sqrt(weights)
        self.bases = tuple(basis * scale for basis, scale in zip(bases, scales, strict=True))
        self.sizes = tuple(len(scale) for scale in scales)

    # --- one step -----------------------------------------------------------------------------------------

    def values(self, state: State) -> np.ndarray:
        """The function at the points, (N,)."""
        rows = [basis @ factor for basis, factor in zip(self.bases, state.factors, strict=True)]
        return contract(state.core, rows, paired=range(len(rows)))

    def solve(self, state: State, ridge: float, max_iter: int, tol: float) -> tuple[State, int, bool]:
        """Gauss-Newton steps until the objective falls by less than ``tol`` of itself; their number too."""
        objective = self._objective(state, ridge)
        floor = len(self.y) * _EXACT
        for n in range(1, max_iter + 1):
            new, found = self._step(state, ridge, objective)
            fall, state, objective = objective - found, new, found
            if fall <= tol * objective or objective <= floor:
                return state, n, True
        return state, max_iter, False

    def leave_one_out(self, state: State, ridge: float) -> tuple[float, float]:
        """Weighted mean square of the residuals that rows would have, were each left out; trace of the hat.

        Linearised at the fit, ``(y_i - f_i) / (1 - h_i)`` with leverages ``h`` in the tangent space.
        """
        tangent = _Tangent(state)
        gram, _, _ = self._normal(tangent, ridge)
        matrix, scale = _unit_diagonal(gram)
        lower = _cholesky(matrix)
        leverages = np.concatenate(
            [
                np.sum(solve_triangular(lower, (rows * scale).T, lower=True, check_finite=False) ** 2, axis=0)
                for rows, _ in self._rows(tangent)
            ]
        )
        residual = self.roots * (self.y - self.values(state)) / np.maximum(1 - leverages, _OWN)
        return float(residual @ residual) / len(self.y), float(leverages.sum())

    def _objective(self, state: State, ridge: float) -> float:
        residual = self.roots * (self.y - self.values(state))
        free = contract(state.core, [factor[:1] for factor in state.factors])
        return float(residual @ residual + ridge * (np.sum(state.core**2) - np.sum(free**2)))

    def _rows(self, tangent: _Tangent) -> Iterator[tuple[np.ndarray, slice]]:
        """Weighted rows of the Jacobian, block by block."""
        for span in spans(len(self.y), max(_NUMBERS // tangent.size, 64)):
            rows = tangent.jacobian([basis[span] for basis in self.bases])
            yield rows * self.roots[span, None], span

    def _normal(self, tangent: _Tangent, ridge: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Normal equations: matrix, right-hand side without the ridge, and the ridge's."""
        gram, right = np.zeros((tangent.size, tangent.size)), np.zeros(tangent.size)
        residual = self.roots * (self.y - self.values(tangent.state))
        for rows, span in self._rows(tangent):
            gram += rows.T @ rows
            right += rows.T @ residual[span]
        (free,) = tangent.jacobian([np.eye(1, size) for size in self.sizes])
        here = np.zeros(tangent.size)
        here[: tangent.state.core.size] = tangent.state.core.ravel()
        gram -= ridge * np.outer(free, free)
        gram[np.diag_indices_from(gram)] += ridge
        return gram, right, ridge * (here - free * (free @ here))

    def _step(self, state: State, ridge: float, objective: float) -> tuple[State, float]:
        """A step that lowers the objective, or the state as it was."""
        tangent = _Tangent(state)
        gram, right, pull = self._normal(tangent, ridge)
        matrix, scale = _unit_diagonal(gram)
        for damping in _DAMPING:
            factor = _cholesky(matrix + damping * np.eye(len(scale)))
            step = scale * cho_solve((factor, True), scale * (right - pull), check_finite=False)
            new = self.truncated(*tangent.moved(step), state.rank)
            found = self._objective(new, ridge)
            if found <= objective:
                return new, found
        return state, objective

    # --- other shapes -------------------------------------------------------------------------------------

    def truncated(self, core: np.ndarray, factors: Sequence[np.ndarray], rank: Sequence[int]) -> State:
        """The best tensor of a rank, nearly: of least change of the function, not of the ridge."""
        plain = []
        for n, (factor, scale) in enumerate(zip(factors, self.scales, strict=True)):
            basis, triangle = np.linalg.qr(factor * scale[:, None])
            core = contract(core, [triangle if m == n else None for m in range(core.ndim)])
            plain.append(basis)
        core, turns, _ = truncate(core, tuple(map(min, rank, core.shape)), None)
        made = []
        for n, (basis, turn, scale) in enumerate(zip(plain, turns, self.scales, strict=True)):
            factor, triangle = np.linalg.qr(basis @ turn / scale[:, None])
            core = contract(core, [triangle if m == n else None for m in range(core.ndim)])
            made.append(factor)
        return State(core, tuple(made))

    def adopted(self, core: np.ndarray, factors: Sequence[np.ndarray], rank: Sequence[int]) -> State:
        """A state from plain coefficients of any sizes and ranks: cut, or padded by new directions."""
        fitted = []
        for factor, scale in zip(factors, self.scales, strict=True):
            rows = np.zeros((len(scale), factor.shape[1]))
            kept = min(len(rows), len(factor))
            rows[:kept] = factor[:kept]
            fitted.append(rows / scale[:, None])
        state = self.truncated(core, fitted, rank)
        if state.rank == tuple(rank):
            return state
        grown = np.zeros(rank)
        grown[tuple(slice(r) for r in state.rank)] = state.core
        wider = [np.linalg.qr(np.concatenate([f, np.eye(len(f))], axis=1))[0] for f in state.factors]
        for n, (factor, old) in enumerate(zip(wider, state.factors, strict=True)):
            factor[:, : old.shape[1]] = old
            wider[n] = factor[:, : rank[n]]
        return State(grown, tuple(wider))

    def coefficients(self, state: State) -> tuple[np.ndarray, list[np.ndarray]]:
        """Core and factors of plain coefficients."""
        pairs = zip(state.factors, self.scales, strict=True)
        return state.core, [factor * scale[:, None] for factor, scale in pairs]


class _Tangent:
    """Directions in which a tensor of one rank can move: its core, and each factor off its own span."""

    def __init__(self, state: State) -> None:
        self.state, self.pairs = state, []
        core = state.core
        self.size = core.size
        for n, factor in enumerate(state.factors):
            off = np.linalg.qr(factor, mode="complete")[0][:, factor.shape[1] :]
            flat = np.moveaxis(core, n, 0).reshape(core.shape[n], -1)
            turn = np.linalg.svd(flat, full_matrices=False)[2]
            self.pairs.append((off, turn))
            self.size += off.shape[1] * len(turn)

    def jacobian(self, bases: Sequence[np.ndarray]) -> np.ndarray:
        """Derivatives of values by the directions, (N, size)."""
        rows = [basis @ factor for basis, factor in zip(bases, self.state.factors, strict=True)]
        parts = [_products(rows)]
        for n, (off, turn) in enumerate(self.pairs):
            others = [row for m, row in enumerate(rows) if m != n]
            side = (_products(others) if others else np.ones((len(rows[0]), 1))) @ turn.T
            parts.append(_products([bases[n] @ off, side]))
        return np.concatenate(parts, axis=1)

    def moved(self, step: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Core of twice the rank and factors of the point reached."""
        core, factors = self.state.core, []
        shape = core.shape
        big = np.zeros([2 * r for r in shape])
        own = tuple(slice(r) for r in shape)
        big[own] = core + step[: core.size].reshape(shape)
        taken = core.size
        for n, (off, turn) in enumerate(self.pairs):
            part = step[taken : taken + off.shape[1] * len(turn)].reshape(off.shape[1], len(turn))
            taken += part.size
            new, triangle = np.linalg.qr(off @ part)
            block = (triangle @ turn).reshape(len(triangle), *np.delete(shape, n))
            place = tuple(slice(r, r + len(triangle)) if m == n else slice(r) for m, r in enumerate(shape))
            big[place] = np.moveaxis(block, 0, n)
            missing = np.zeros((len(new), shape[n] - new.shape[1]))
            factors.append(np.concatenate([self.state.factors[n], new, missing], axis=1))
        return big, factors


def _products(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Row-wise Kronecker products, (N, prod R)."""
    result = rows[0]
    for row in rows[1:]:
        result = (result[:, :, None] * row[:, None, :]).reshape(len(row), -1)
    return result


def _unit_diagonal(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A Gram matrix of columns made as long as one another, and what each was multiplied by."""
    scale = 1 / np.sqrt(np.maximum(np.diag(gram), np.finfo(float).tiny))
    return gram * scale * scale[:, None], scale


def _cholesky(matrix: np.ndarray) -> np.ndarray:
    """Lower factor of a matrix with unit diagonal, with as much jitter as it needs."""
    jitter = _JITTER
    while True:
        try:
            return np.tril(cho_factor(matrix + jitter * np.eye(len(matrix)), lower=True)[0])
        except LinAlgError:
            jitter *= _MORE
