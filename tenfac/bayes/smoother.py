"""Exact inference when the exact mode is continuous: Kalman filter and smoother over its indices.

The coefficients are ``h(t) = sqrt(c) b + g(t)``: a constant ``b ~ N(0, I)`` and independent unit Matérn
processes ``g``, observed through ``z_t = E_t h(t) + noise``. The state stacks ``b`` and the process
states; the cost is linear in the number of indices. Smoothing uses the disturbance form, which needs no
inverse of a state covariance, and gives the evidence's gradient and predictions at new indices at the
same time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dtrtrs

from tenfac.bayes.posterior import Score
from tenfac.core.modes.state_space import StateSpace

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Prior:
    """The state's prior: constant part, Matérn part, number of coefficient functions.

    Parameters
    ----------
    process : StateSpace
    constant : float
    size : int
        P, the number of coefficient functions.
    """

    process: StateSpace
    constant: float
    size: int

    @property
    def dim(self) -> int:
        """Dimension of the state, ``P (1 + order)``."""
        return self.size * (1 + self.process.order)

    def initial(self) -> Array:
        """State covariance before any observation, shape (dim, dim)."""
        small = np.eye(1 + self.process.order)
        small[1:, 1:] = self.process.stationary()
        return self._embed(small[None])[0]

    def transitions(self, dt: Array) -> Array:
        """State transitions over distances ``dt``, shape (len(dt), dim, dim)."""
        small = np.zeros((dt.size, 1 + self.process.order, 1 + self.process.order))
        small[:, 0, 0] = 1.0
        small[:, 1:, 1:] = self.process.transition(dt)
        return self._embed(small)

    def innovations(self, dt: Array) -> Array:
        """Covariances of what is new after distances ``dt``, shape (len(dt), dim, dim)."""
        small = np.zeros((dt.size, 1 + self.process.order, 1 + self.process.order))
        small[:, 1:, 1:] = self.process.innovation(dt)
        return self._embed(small)

    def observe(self, states: Array) -> Array:
        """``h`` from states along the first axis: (dim, ...) -> (P, ...)."""
        return np.sqrt(self.constant) * states[: self.size] + states[self.size : 2 * self.size]

    def lift(self, rows: Array) -> Array:
        """``E H`` from ``E``: (n, P) -> (n, dim)."""
        out = np.zeros((rows.shape[0], self.dim))
        out[:, : self.size] = np.sqrt(self.constant) * rows
        out[:, self.size : 2 * self.size] = rows
        return out

    def _embed(self, small: Array) -> Array:
        """``kron(small[t], I_P)`` for every t."""
        wide = np.einsum("tab,pq->tapbq", small, np.eye(self.size))
        return wide.reshape(-1, self.dim, self.dim)


@dataclass(frozen=True)
class MarkovPosterior:
    """Predicted moments and adjoints at every observed index, enough for any index.

    Parameters
    ----------
    prior : Prior
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
    """

    prior: Prior
    positions: Array
    means: Array
    covs: Array
    filtered: tuple[Array, Array]
    adjoints: Array
    precisions: Array
    updates: Array
    moves: Array

    def at(self, positions: Array) -> tuple[Array, Array]:
        """Means and covariances of ``h`` at any positions, between, before or after the observed."""
        size = self.prior.size
        means, covs = np.empty((positions.size, size)), np.empty((positions.size, size, size))
        for u, position in enumerate(positions):
            mean, cov = self._state(float(position))
            means[u] = self.prior.observe(mean)
            covs[u] = self.prior.observe(self.prior.observe(cov).T)
        return means, covs

    def _state(self, position: float) -> tuple[Array, Array]:
        """Smoothed state moments at one position."""
        after = int(np.searchsorted(self.positions, position))
        if after < self.positions.size and self.positions[after] == position:
            return _smooth(self.means[after], self.covs[after], self.adjoints[after], self.precisions[after])
        if after == 0:
            mean, cov = np.zeros(self.prior.dim), self.prior.initial()
        else:
            mean, cov = self.filtered[0][after - 1], self.filtered[1][after - 1]
            step = np.array([position - float(self.positions[after - 1])])
            move = self.prior.transitions(step)[0]
            mean, cov = move @ mean, move @ cov @ move.T + self.prior.innovations(step)[0]
        if after == self.positions.size:
            return mean, cov
        move = self.prior.transitions(np.array([float(self.positions[after]) - position]))[0]
        return _smooth(mean, cov, move.T @ self.adjoints[after], move.T @ self.precisions[after] @ move)

    def average(self) -> tuple[Array, Array]:
        """Mean and covariance of the average of ``h`` over the observed indices.

        References
        ----------
        .. [1] P. de Jong and M. J. MacKinnon, Covariances for smoothed estimates in state space models,
           Biometrika 75 (1988), equation 2.4. doi:10.1093/biomet/75.3.601
        """
        dim, count = self.prior.dim, self.positions.size
        mean, cov, carry = np.zeros(dim), np.zeros((dim, dim)), np.zeros((dim, dim))
        for t in range(count):
            smoothed, smoothed_cov = _smooth(
                self.means[t], self.covs[t], self.adjoints[t], self.precisions[t]
            )
            cross = carry @ (np.eye(dim) - self.precisions[t] @ self.covs[t])
            mean += smoothed
            cov += smoothed_cov + cross + cross.T
            if t + 1 < count:
                carry = (carry + self.covs[t]) @ (self.moves[t] @ self.updates[t]).T
        h_cov = self.prior.observe(self.prior.observe(cov).T)
        return self.prior.observe(mean) / count, h_cov / count**2


def _smooth(mean: Array, cov: Array, adjoint: Array, precision: Array) -> tuple[Array, Array]:
    return mean + cov @ adjoint, cov - cov @ precision @ cov


def solve(
    designs: list[Array], targets: list[Array], positions: Array, prior: Prior, gradient: bool = True
) -> tuple[MarkovPosterior | None, Score]:
    """Posterior and log evidence of whitened, unit-noise regressions ``z_t ~ E_t h(t)``.

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
    updates, scores, informations = np.empty_like(covs), np.empty_like(means), np.empty_like(covs)
    mean, cov, eye = np.zeros(dim), prior.initial(), np.eye(dim)
    log_evidence = 0.0
    for t, z in enumerate(targets):
        if t:
            mean, cov = moves[t - 1] @ mean, moves[t - 1] @ cov @ moves[t - 1].T + noises[t - 1]
        means[t], covs[t] = mean, cov
        seen = see(prior, mean, cov, designs[t], z)
        mean, cov = seen.mean, seen.cov
        log_evidence += seen.log_evidence
        filtered[0][t], filtered[1][t] = mean, cov
        if gradient:
            updates[t] = eye - seen.gain @ seen.rows
            scores[t], informations[t] = seen.residual @ seen.rows, seen.rows.T @ seen.rows
    if not gradient:
        return None, Score(float(log_evidence), np.zeros((prior.size,) * 2), 0.0)
    adjoints, precisions = _backward(moves, updates, scores, informations)
    posterior = MarkovPosterior(prior, positions, means, covs, filtered, adjoints, precisions, updates, moves)
    return posterior, _score(posterior, designs, targets, float(log_evidence))


class Seen(NamedTuple):
    """State moments given one more slice, what it adds to the log evidence, and what a smoother needs.

    ``rows`` (n_t, dim) and ``residual`` (n_t,) are whitened by the covariance of the prediction's error,
    ``gain`` (dim, n_t) belongs to them.
    """

    mean: Array
    cov: Array
    log_evidence: float
    rows: Array
    residual: Array
    gain: Array


def see(prior: Prior, mean: Array, cov: Array, design: Array, target: Array) -> Seen:
    """One step of the filter: state moments before a slice ``z ~ E h + noise`` to those after it."""
    lifted = prior.lift(design)
    factor, _ = dpotrf(np.eye(target.size) + lifted @ cov @ lifted.T, lower=1)
    right = np.empty((target.size, prior.dim + 1))
    right[:, :-1], right[:, -1] = lifted, target - lifted @ mean
    white, _ = dtrtrs(factor, right, lower=1)
    rows, residual = white[:, :-1], white[:, -1]
    log_evidence = 0.5 * (target @ target - residual @ residual) - np.log(np.diag(factor)).sum()
    gain = cov @ rows.T
    return Seen(mean + gain @ residual, cov - gain @ gain.T, float(log_evidence), rows, residual, gain)


def _backward(moves: Array, updates: Array, scores: Array, informations: Array) -> tuple[Array, Array]:
    """Adjoints ``r_t`` and ``N_t`` of the predicted moments, last index first."""
    adjoints, precisions = np.empty_like(scores), np.empty_like(informations)
    adjoint, precision = np.zeros(scores.shape[1]), np.zeros(informations.shape[1:])
    for t in range(scores.shape[0] - 1, -1, -1):
        adjoints[t] = scores[t] + updates[t].T @ adjoint
        precisions[t] = informations[t] + updates[t].T @ precision @ updates[t]
        if t:
            adjoint, precision = moves[t - 1].T @ adjoints[t], moves[t - 1].T @ precisions[t] @ moves[t - 1]
    return adjoints, precisions


def _score(post: MarkovPosterior, designs: list[Array], targets: list[Array], log_evidence: float) -> Score:
    prior, size, order = post.prior, post.prior.size, post.prior.process.order
    shape = (1 + order, size, 1 + order, size)
    slopes = 0.5 * (np.einsum("ti,tj->tij", post.adjoints, post.adjoints) - post.precisions)
    first = slopes[0].reshape(shape)
    noises = np.concatenate(
        [prior.process.stationary()[None], prior.process.innovation(np.diff(post.positions))]
    )
    blocks = slopes.reshape(-1, *shape)[:, 1:, :, 1:]
    by_cov = first[0, :, 0] + np.einsum("tab,tapbq->pq", noises, blocks)
    misfit = 0.0
    for t, (design, target) in enumerate(zip(designs, targets, strict=True)):
        mean, cov = _smooth(post.means[t], post.covs[t], post.adjoints[t], post.precisions[t])
        residual = target - design @ prior.observe(mean)
        spread = design @ prior.observe(prior.observe(cov).T)
        misfit += residual @ residual + np.sum(spread * design)
    by_constant = float(np.trace(first[0, :, 0]))
    by_transition, by_innovation = _process_score(post, slopes)
    return Score(
        log_evidence, by_cov, float(misfit), by_constant,
        by_transition=by_transition, by_innovation=by_innovation,
    )  # fmt: skip


def _process_score(post: MarkovPosterior, slopes: Array) -> tuple[Array, Array]:
    """Derivatives by the small transition and innovation matrices of every step.

    ``slopes[t]`` is the derivative by the predicted covariance at t; with ``m, P`` the filtered moments one
    step before, the transition enters as ``A m`` and ``A P A^T``.
    """
    size, order = post.prior.size, post.prior.process.order
    shape = (-1, 1 + order, size, 1 + order, size)
    means, covs = post.filtered[0][:-1], post.filtered[1][:-1]
    full = np.einsum("ti,tj->tij", post.adjoints[1:], means)
    full += 2 * slopes[1:] @ (post.moves @ covs)
    by_transition = np.einsum("tapbp->tab", full.reshape(shape))[:, 1:, 1:]
    by_innovation = np.einsum("tapbp->tab", slopes[1:].reshape(shape))[:, 1:, 1:]
    return by_transition, by_innovation
