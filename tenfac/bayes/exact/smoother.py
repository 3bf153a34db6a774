"""Exact inference when the exact mode is continuous: Kalman filter and smoother over its indices.

The coefficients ``u(t)`` are independent unit processes in groups, one Matérn (or constant) process per
group, observed through ``z_t = W_t u(t) + noise``. The state stacks the process states; the cost is linear in
the number of indices. Smoothing uses the disturbance form, which needs no inverse of a state covariance, and
gives the evidence's gradient and predictions at new indices at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dtrtrs

from tenfac.bayes.exact.markov import MarkovPosterior
from tenfac.core.modes.process import Process

Array = NDArray[Any]


class Group(NamedTuple):
    """Independent processes of one kind: the process of each, and how many."""

    process: Process
    size: int


@dataclass(frozen=True)
class Prior:
    """The state's prior: groups of processes side by side.

    In the state, a group of n processes of order m has its n values first, then its n first derivatives, ...

    Parameters
    ----------
    groups : tuple of Group
    """

    groups: tuple[Group, ...]

    @cached_property
    def size(self) -> int:
        """Number of coefficients P."""
        return sum(size for _, size in self.groups)

    @cached_property
    def dim(self) -> int:
        """Dimension of the state."""
        return sum(process.order * size for process, size in self.groups)

    @cached_property
    def places(self) -> list[NDArray[np.intp]]:
        """Per group, where the state has its entries, shape (order, size)."""
        ends = np.cumsum([0] + [process.order * size for process, size in self.groups])
        return [
            np.arange(start, start + process.order * size).reshape(process.order, size)
            for start, (process, size) in zip(ends, self.groups, strict=False)
        ]

    @cached_property
    def seen(self) -> NDArray[np.intp]:
        """Where the state has the coefficients, shape (P,)."""
        return np.concatenate([places[0] for places in self.places])

    def initial(self) -> Array:
        """State covariance before any observation, shape (dim, dim)."""
        return self._embed([process.stationary()[None] for process, _ in self.groups], 1)[0]

    def transitions(self, dt: Array) -> Array:
        """State transitions over distances ``dt``, shape (len(dt), dim, dim)."""
        return self._embed([process.transition(dt) for process, _ in self.groups], dt.size)

    def innovations(self, dt: Array) -> Array:
        """Covariances of what is new after distances ``dt``, shape (len(dt), dim, dim)."""
        return self._embed([process.innovation(dt) for process, _ in self.groups], dt.size)

    def observe(self, states: Array, derivative: int = 0) -> Array:
        """Coefficients, or derivatives, from states along the first axis: (dim, ...) -> (P, ...)."""
        if not derivative:
            return states[self.seen]
        parts = []
        for (process, _), places in zip(self.groups, self.places, strict=True):
            weights = process.observation(np.zeros(1), derivative)[0]
            parts.append(np.tensordot(weights, states[places], axes=1))
        return np.concatenate(parts)

    def _embed(self, small: list[Array], count: int) -> Array:
        """``kron(small[t], I)`` of every group on the diagonal, for every t."""
        out = np.zeros((count, self.dim, self.dim))
        for matrices, places in zip(small, self.places, strict=True):
            for a, rows in enumerate(places):
                for b, columns in enumerate(places):
                    out[:, rows, columns] = matrices[:, a, b, None]
        return out


@dataclass(frozen=True)
class Score:
    """Log evidence and its gradient.

    Parameters
    ----------
    log_evidence : float
        Without the terms that do not depend on the prior (``Slices.constant_terms``).
    by_covariance : tuple of arrays, shapes (size, size)
        Per group, derivative by the prior covariance (identity) of its coefficients.
    by_transition, by_innovation : tuples of arrays, shapes (M - 1, order, order)
        Per group, derivatives by the small matrices of its process, step by step.
    by_noise : list of arrays, shape (n_t, n_t)
        Derivative by the noise covariance (identity) of every index.
    """

    log_evidence: float
    by_covariance: tuple[Array, ...] = ()
    by_transition: tuple[Array, ...] = ()
    by_innovation: tuple[Array, ...] = ()
    by_noise: tuple[Array, ...] = ()


class Seen(NamedTuple):
    """What one slice tells: filtered moments, its log evidence, and what the way back needs.

    ``factor`` is the Cholesky factor of the predicted covariance of its targets; ``white`` are rows, rows
    times covariance, and innovation, whitened by it.
    """

    mean: Array
    cov: Array
    log_evidence: float
    factor: Array
    white: Array


def see(prior: Prior, mean: Array, cov: Array, design: Array, target: Array) -> Seen:
    """One filter step: predicted moments of the state, and a regression with unit noise."""
    dim, size = prior.dim, target.size
    right = np.zeros((size, 2 * dim + 1), order="F")
    lifted, seen = right[:, :dim], right[:, dim:-1]
    lifted[:, prior.seen] = design
    seen[...] = lifted @ cov
    right[:, -1] = target - lifted @ mean
    spread = seen @ lifted.T
    spread.flat[:: size + 1] += 1.0
    factor, _ = dpotrf(spread, lower=1, overwrite_a=1)
    white, _ = dtrtrs(factor, right, lower=1, overwrite_b=1)
    residual, gain = white[:, -1], white[:, dim:-1]
    told = 0.5 * (target @ target - residual @ residual) - np.log(factor.diagonal()).sum()
    return Seen(mean + residual @ gain, cov - gain.T @ gain, float(told), factor, white)


def solve(
    designs: list[Array], targets: list[Array], positions: Array, prior: Prior, gradient: bool = True
) -> tuple[MarkovPosterior | None, Score]:
    """Posterior and log evidence of whitened, unit-noise regressions ``z_t ~ W_t u(t)``.

    Parameters
    ----------
    designs : list of arrays, shape (n_t, P)
    targets : list of arrays, shape (n_t,)
    positions : array, shape (M,)
        Ascending.
    prior : Prior
    gradient : bool
        False stops after the filter: no posterior, and only ``log_evidence`` in the score.

    References
    ----------
    .. [1] P. de Jong, Smoothing and interpolation with the state-space model, JASA 84 (1989),
       section 3. doi:10.1080/01621459.1989.10478857
    .. [2] S. J. Koopman and N. Shephard, Exact score for time series models in state space form,
       Biometrika 79 (1992). doi:10.1093/biomet/79.4.823
    """
    count, dim = len(designs), prior.dim
    gaps = np.diff(positions)
    moves, noises = prior.transitions(gaps), prior.innovations(gaps)
    means, covs = np.empty((count, dim)), np.empty((count, dim, dim))
    filtered = np.empty_like(means), np.empty_like(covs)
    mean, cov = np.zeros(dim), prior.initial()
    log_evidence, whites = 0.0, []
    for t, (design, z) in enumerate(zip(designs, targets, strict=True)):
        if t:
            move = moves[t - 1]
            mean, cov = move @ mean, move @ cov @ move.T + noises[t - 1]
        means[t], covs[t] = mean, cov
        told = see(prior, mean, cov, design, z)
        mean, cov = filtered[0][t], filtered[1][t] = told.mean, told.cov
        log_evidence += told.log_evidence
        if gradient:
            whites.append((told.factor, told.white))
    if not gradient:
        return None, Score(float(log_evidence))
    adjoints, precisions, updates, by_noise = _backward(moves, whites, dim)
    posterior = MarkovPosterior(
        prior, positions, means, covs, filtered, adjoints, precisions, updates, moves, designs
    )
    return posterior, _score(posterior, by_noise, float(log_evidence))


def _backward(
    moves: Array, whites: list[tuple[Array, Array]], dim: int
) -> tuple[Array, Array, Array, list[Array]]:
    """Adjoints ``r_t`` and ``N_t`` of the predicted moments; updates; derivatives by the noise."""
    count = len(whites)
    adjoints, precisions = np.empty((count, dim)), np.empty((count, dim, dim))
    updates, by_noise = np.empty((count, dim, dim)), []
    adjoint, precision, eye = np.zeros(dim), np.zeros((dim, dim)), np.eye(dim)
    for t in range(count - 1, -1, -1):
        factor, white = whites[t]
        lifted, gain, residual = white[:, :dim], white[:, dim:-1], white[:, -1]
        update = updates[t] = eye - gain.T @ lifted
        error = residual - gain @ adjoint
        within = gain @ precision @ gain.T
        within.flat[:: error.size + 1] += 1.0
        half, _ = dtrtrs(factor, error[:, None] * error - within, lower=1, trans=1)
        slope, _ = dtrtrs(factor, half.T, lower=1, trans=1)
        by_noise.append(0.5 * slope)
        adjoint = adjoints[t] = adjoint + error @ lifted
        precision = precisions[t] = lifted.T @ lifted + update.T @ precision @ update
        if t:
            move = moves[t - 1]
            adjoint, precision = move.T @ adjoint, move.T @ precision @ move
    return adjoints, precisions, updates, by_noise[::-1]


def _score(post: MarkovPosterior, by_noise: list[Array], log_evidence: float) -> Score:
    """Derivatives by covariances and small matrices.

    ``slopes[t]`` is the derivative by the predicted covariance at t; with ``m, P`` the filtered moments one
    step before, the transition enters as ``A m`` and ``A P A^T``.
    """
    slopes = 0.5 * (post.adjoints[:, :, None] * post.adjoints[:, None, :] - post.precisions)
    carried = post.moves @ post.filtered[1][:-1]
    by_covariance, by_transition, by_innovation = [], [], []
    for (process, _), places in zip(post.prior.groups, post.prior.places, strict=True):
        order = process.order
        new = np.concatenate([process.stationary()[None], process.innovation(np.diff(post.positions))])
        total = np.zeros((places.shape[1],) * 2)
        move, noise = np.empty((2, len(slopes) - 1, order, order))
        for a, rows in enumerate(places):
            for b, columns in enumerate(places):
                block = slopes[:, rows[:, None], columns]
                total += np.tensordot(new[:, a, b], block, axes=1)
                noise[:, a, b] = np.trace(block[1:], axis1=1, axis2=2)
                move[:, a, b] = np.sum(post.adjoints[1:, rows] * post.filtered[0][:-1, columns], axis=1)
                move[:, a, b] += 2 * np.einsum("tpj,tjp->t", slopes[1:, rows], carried[:, :, columns])
        by_covariance.append(total)
        by_transition.append(move)
        by_innovation.append(noise)
    return Score(
        log_evidence, tuple(by_covariance), tuple(by_transition), tuple(by_innovation), tuple(by_noise)
    )
