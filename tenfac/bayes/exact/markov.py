"""Posterior of coefficient functions of a continuous index, from the arrays that the filter leaves behind.

Smoothing uses the disturbance form [1]_: what the observations say about the state at an index enters as the
derivatives ``r`` and ``N`` of their log density by its predicted moments. Nothing inverts the covariance of
a state, so that next to noiseless observations and parts that stand still lose no accuracy. Covariances
between indices and joint draws come from one walk over the observed indices and those asked for.

References
----------
.. [1] P. de Jong, Smoothing and interpolation with the state-space model, JASA 84 (1989), section 3.
   doi:10.1080/01621459.1989.10478857
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from tenfac.bayes.exact.posterior import roots_of

Array = NDArray[Any]
_BLOCK = 128  # places or steps whose matrices are held at a time
_NUMBERS = 4_000_000  # numbers that all draws of one walk may hold


class StatePrior(Protocol):
    """Prior of a Gauss-Markov state and of the P coefficient functions ``h`` that are read off it."""

    size: int

    @property
    def dim(self) -> int:
        """Dimension of the state."""
        ...

    def initial(self) -> Array:
        """State covariance before any observation, shape (dim, dim)."""
        ...

    def transitions(self, dt: Array) -> Array:
        """State transitions over distances ``dt``, shape (len(dt), dim, dim)."""
        ...

    def innovations(self, dt: Array) -> Array:
        """Covariances of what is new after distances ``dt``, shape (len(dt), dim, dim)."""
        ...

    def observe(self, states: Array, derivative: int = 0) -> Array:
        """``h``, or its derivative by the index, from states along the first axis: (dim, ...) -> (P, ...)."""
        ...


class _Node(NamedTuple):
    """Moments of the state given the observations before an index, and what those from it on add.

    ``update`` turns the error of the prediction into that after the observation at the index, if any.
    """

    mean: Array
    cov: Array
    adjoint: Array
    precision: Array
    update: Array | None

    def smoothed(self) -> tuple[Array, Array]:
        """Mean and covariance given all observations."""
        return smooth(self.mean, self.cov, self.adjoint, self.precision)


@dataclass(frozen=True)
class MarkovPosterior:
    """Predicted moments and adjoints at every observed index, enough for any index.

    Parameters
    ----------
    prior : StatePrior
    positions : array, shape (M,)
        Ascending observed indices.
    means, covs : arrays, shapes (M, dim) and (M, dim, dim)
        Moments at index t given the observations before it.
    filtered : pair of arrays, shapes (M, dim) and (M, dim, dim)
        Moments given the observations up to and including it.
    adjoints, precisions : arrays, shapes (M, dim) and (M, dim, dim)
        ``r_t`` and ``N_t``: derivatives of the log evidence of the observations from t on.
    updates : array, shape (M, dim, dim)
        ``I - K_t E_t H``: from predicted to filtered error.
    moves : array, shape (M - 1, dim, dim)
        Transitions between neighbours.
    designs : list of M arrays, shape (n_t, P)
        ``E_t``: what was observed, with noise of variance one.
    """

    prior: Any  # a StatePrior
    positions: Array
    means: Array
    covs: Array
    filtered: tuple[Array, Array]
    adjoints: Array
    precisions: Array
    updates: Array
    moves: Array
    designs: list[Array]

    def at(self, positions: Array, derivative: int = 0) -> tuple[Array, Array]:
        """Means and covariances of ``h`` at any positions, between, before or after the observed."""
        size, rows = self.prior.size, self._rows(derivative)
        means, covs = np.empty((positions.size, size)), np.empty((positions.size, size, size))
        for start in range(0, positions.size, _BLOCK):
            part = slice(start, start + _BLOCK)
            mean, cov = smooth(*self._predicted(positions[part]))
            means[part], covs[part] = mean @ rows.T, rows @ cov @ rows.T
        return means, covs

    def cov(self, positions: Array, rows: Array) -> Array:
        """Covariance (N, N) of ``rows[n] @ h(positions[n])``, for positions (N,) and rows (N, P).

        References
        ----------
        .. [1] P. de Jong and M. J. MacKinnon, Covariances for smoothed estimates in state space models,
           Biometrika 75 (1988), equation 2.4. doi:10.1093/biomet/75.3.601
        """
        order = np.argsort(positions, kind="stable")
        asked, starts = np.unique(positions[order], return_index=True)
        groups = dict(zip(asked.tolist(), np.split(order, starts[1:]), strict=False))
        nodes = self._merged(asked, between=True)
        out, lift = np.empty((positions.size,) * 2), self._rows(0)
        carry, seen = np.empty((0, self.prior.dim)), np.empty(0, dtype=np.intp)
        walk = zip(nodes.tolist(), self._nodes(nodes), self._moves(np.diff(nodes)), strict=True)
        for place, node, move in walk:
            mine = groups.get(place)
            if mine is not None:
                lifted = rows[mine] @ lift
                told = node.precision @ node.cov
                out[np.ix_(mine, mine)] = lifted @ node.smoothed()[1] @ lifted.T
                cross = (carry - carry @ told) @ lifted.T
                out[np.ix_(seen, mine)], out[np.ix_(mine, seen)] = cross, cross.T
                carry, seen = np.concatenate([carry, lifted @ node.cov]), np.concatenate([seen, mine])
            carry = carry if node.update is None else carry @ node.update.T
            carry = carry if move is None else carry @ move.T
        return 0.5 * (out + out.T)

    def sample(self, n: int, positions: Array, rng: np.random.Generator) -> Array:
        """``n`` joint draws of ``h`` at ascending distinct positions (U,), shape (n, U, P).

        Notes
        -----
        States and observations are drawn from the prior, and the smoothed value of the drawn error is
        exchanged for that of the data [1]_.

        References
        ----------
        .. [1] J. Durbin and S. J. Koopman, A simple and efficient simulation smoother for state space time
           series analysis, Biometrika 89 (2002), section 2. doi:10.1093/biomet/89.3.603
        """
        out = np.empty((n, positions.size, self.prior.size))
        nodes = self._merged(positions, between=False)
        chunk = max(1, _NUMBERS // max(1, nodes.size * self.prior.dim))
        for start in range(0, n, chunk):
            part = out[start : start + chunk]
            self._draw(part, nodes, positions, rng)
        return out

    def total(self, weights: Array, factor: Array) -> tuple[Array, Array]:
        """Mean (J,) and covariance (J, J) of ``sum_t weights[t] * (factor @ h(t))`` over observed indices.

        ``weights`` (M, J) multiply entry by entry; ``factor`` is (J, P).
        """
        lift = factor @ self._rows(0)
        mean, cov = np.zeros(weights.shape[1]), np.zeros((weights.shape[1],) * 2)
        carry = np.zeros((weights.shape[1], self.prior.dim))
        for t, weight in enumerate(weights):
            lifted, node = weight[:, None] * lift, self._observed(t)
            smoothed, smoothed_cov = node.smoothed()
            cross = (carry - carry @ node.precision @ node.cov) @ lifted.T
            mean += lifted @ smoothed
            cov += lifted @ smoothed_cov @ lifted.T + cross + cross.T
            if t + 1 < self.positions.size:
                carry = (carry + lifted @ node.cov) @ (self.moves[t] @ self.updates[t]).T
        return mean, cov

    # Places of a walk, and the state there.

    def _rows(self, derivative: int) -> Array:
        """``h``, or its derivative, as a matrix on the state, shape (P, dim)."""
        return self.prior.observe(np.eye(self.prior.dim), derivative)

    def _merged(self, positions: Array, between: bool) -> Array:
        """Ascending places asked for and observed; ``between``: observed ones from the first to the last."""
        seen = self.positions
        if between and positions.size:
            seen = seen[(seen >= positions.min()) & (seen <= positions.max())]
        return np.union1d(seen, positions)

    def _moves(self, gaps: Array) -> Iterator[Array | None]:
        """Transitions over gaps, then None, a block at a time."""
        for start in range(0, gaps.size, _BLOCK):
            yield from self.prior.transitions(gaps[start : start + _BLOCK])
        yield None

    def _roots(self, gaps: Array) -> Iterator[Array]:
        """Square roots of the initial covariance, then of the innovations over gaps."""
        yield roots_of(self.prior.initial()[None])[0]
        for start in range(0, gaps.size, _BLOCK):
            yield from roots_of(self.prior.innovations(gaps[start : start + _BLOCK]))

    def _observed(self, t: int) -> _Node:
        return _Node(self.means[t], self.covs[t], self.adjoints[t], self.precisions[t], self.updates[t])

    def _nodes(self, places: Array) -> Iterator[_Node]:
        """The state at places, in their order, a block at a time."""
        for start in range(0, places.size, _BLOCK):
            block = places[start : start + _BLOCK]
            numbers, seen = np.searchsorted(self.positions, block), np.isin(block, self.positions)
            for u, moments in enumerate(zip(*self._predicted(block), strict=True)):
                yield _Node(*moments, self.updates[numbers[u]] if seen[u] else None)

    def _predicted(self, positions: Array) -> tuple[Array, Array, Array, Array]:
        """Moments given the observations before every position, and what those from it on add."""
        count, dim = self.positions.size, self.prior.dim
        after = np.searchsorted(self.positions, positions)
        before = after > 0
        means, covs = np.zeros((positions.size, dim)), np.tile(self.prior.initial(), (positions.size, 1, 1))
        last = after[before] - 1
        gaps = positions[before] - self.positions[last]
        moves = self.prior.transitions(gaps)
        means[before] = _apply(moves, self.filtered[0][last])
        covs[before] = moves @ self.filtered[1][last] @ moves.mT + self.prior.innovations(gaps)
        adjoints, precisions = np.zeros_like(means), np.zeros_like(covs)
        later = after < count
        moves = self.prior.transitions(self.positions[after[later]] - positions[later])
        adjoints[later] = _apply(moves.mT, self.adjoints[after[later]])
        precisions[later] = moves.mT @ self.precisions[after[later]] @ moves
        return means, covs, adjoints, precisions

    # One walk forward with drawn errors of prediction, one back with their adjoints.

    def _draw(self, out: Array, nodes: Array, positions: Array, rng: np.random.Generator) -> None:
        shape, gaps, lift = (out.shape[0], self.prior.dim), np.diff(nodes), self._rows(0)
        asked, observed = np.isin(nodes, positions), np.isin(nodes, self.positions)
        errors: list[Any] = []
        scores: list[Any] = []
        error = np.zeros(shape)
        moves = self._moves(gaps)
        for k, (place, root) in enumerate(zip(nodes.tolist(), self._roots(gaps), strict=True)):
            error = error + rng.standard_normal(shape) @ root.T
            errors.append(error if asked[k] else None)
            scores.append(None)
            if observed[k]:
                t = int(np.searchsorted(self.positions, place))
                scores[k] = self._drawn_score(t, lift, error, rng)
                error = error - scores[k] @ self.covs[t]
            move = next(moves)
            error = error if move is None else error @ move.T
        adjoint, u, moves = np.zeros(shape), positions.size, self._moves(gaps[::-1])
        for k, node in zip(range(nodes.size - 1, -1, -1), self._nodes(nodes[::-1]), strict=True):
            if observed[k]:
                adjoint = scores[k] + adjoint @ node.update
            if asked[k]:
                u -= 1
                state = node.mean + errors[k] + (node.adjoint - adjoint) @ node.cov
                out[:, u] = state @ lift.T
            move = next(moves)
            adjoint = adjoint if move is None else adjoint @ move

    def _drawn_score(self, t: int, lift: Array, error: Array, rng: np.random.Generator) -> Array:
        """``Z^T F^-1 (Z x + noise)`` for drawn errors ``x`` (n, dim), ``F = I + Z P Z^T``."""
        lifted = self.designs[t] @ lift
        factor = cho_factor(np.eye(lifted.shape[0]) + lifted @ self.covs[t] @ lifted.T, lower=True)
        surprise = error @ lifted.T + rng.standard_normal((error.shape[0], lifted.shape[0]))
        return cho_solve(factor, surprise.T).T @ lifted


def smooth(mean: Array, cov: Array, adjoint: Array, precision: Array) -> tuple[Array, Array]:
    """Predicted moments of a state, with what the observations from there on add."""
    return mean + _apply(cov, adjoint), cov - cov @ precision @ cov


def _apply(matrix: Array, vector: Array) -> Array:
    return (matrix @ vector[..., None])[..., 0]
