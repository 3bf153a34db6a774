"""Exact inference when the exact mode is continuous: Kalman filter and smoother over its indices.

The coefficients are ``h(t) = sqrt(c) b + g(t)``: a constant ``b ~ N(0, I)`` and independent unit Matérn
processes ``g``, observed through ``z_t = E_t h(t) + noise``. The state stacks ``b`` and the process
states; the cost is linear in the number of indices. Smoothing uses the disturbance form, which needs no
inverse of a state covariance, and gives the evidence's gradient and predictions at new indices at the
same time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

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
        return self._embed(np.eye(1), self.process.stationary())

    def transition(self, dt: float) -> Array:
        """State transition over a distance ``dt``, shape (dim, dim)."""
        return self._embed(np.eye(1), self.process.transition(np.array([dt]))[0])

    def innovation(self, dt: float) -> Array:
        """Covariance of what is new after a distance ``dt``, shape (dim, dim)."""
        return self._embed(np.zeros((1, 1)), self.process.innovation(np.array([dt]))[0])

    def observe(self, states: Array) -> Array:
        """``h`` from states along the first axis: (dim, ...) -> (P, ...)."""
        return np.sqrt(self.constant) * states[: self.size] + states[self.size : 2 * self.size]

    def lift(self, rows: Array) -> Array:
        """``E H`` from ``E``: (n, P) -> (n, dim)."""
        out = np.zeros((rows.shape[0], self.dim))
        out[:, : self.size] = np.sqrt(self.constant) * rows
        out[:, self.size : 2 * self.size] = rows
        return out

    def _embed(self, constant: Array, process: Array) -> Array:
        small = np.zeros((1 + self.process.order,) * 2)
        small[0, 0] = constant[0, 0]
        small[1:, 1:] = process
        return np.kron(small, np.eye(self.size))


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
    adjoints, precisions : arrays, shapes (M, dim) and (M, dim, dim)
        ``r_t`` and ``N_t``: derivatives of the log evidence of the observations from t on.
    updates : array, shape (M, dim, dim)
        ``I - K_t E_t H``: from predicted to filtered error.
    """

    prior: Prior
    positions: Array
    means: Array
    covs: Array
    adjoints: Array
    precisions: Array
    updates: Array

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
            mean, cov = self._filtered(after - 1)
            step = position - float(self.positions[after - 1])
            move = self.prior.transition(step)
            mean, cov = move @ mean, move @ cov @ move.T + self.prior.innovation(step)
        if after == self.positions.size:
            return mean, cov
        move = self.prior.transition(float(self.positions[after]) - position)
        return _smooth(mean, cov, move.T @ self.adjoints[after], move.T @ self.precisions[after] @ move)

    def _filtered(self, t: int) -> tuple[Array, Array]:
        """Moments at index t given the observations up to and including it."""
        if t + 1 < self.positions.size:
            move = self.prior.transition(float(self.positions[t + 1] - self.positions[t]))
            adjoint, precision = move.T @ self.adjoints[t + 1], move.T @ self.precisions[t + 1] @ move
        else:
            adjoint, precision = np.zeros(self.prior.dim), np.zeros((self.prior.dim,) * 2)
        # r_t = (E H)^T S^-1 v + update^T r_after, so what index t alone contributes is the difference
        own = self.adjoints[t] - self.updates[t].T @ adjoint
        own_precision = self.precisions[t] - self.updates[t].T @ precision @ self.updates[t]
        return _smooth(self.means[t], self.covs[t], own, own_precision)

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
                move = self.prior.transition(float(self.positions[t + 1] - self.positions[t]))
                carry = (carry + self.covs[t]) @ (move @ self.updates[t]).T
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
    means, covs = np.empty((count, dim)), np.empty((count, dim, dim))
    updates, scores, informations = np.empty_like(covs), np.empty_like(means), np.empty_like(covs)
    mean, cov = np.zeros(dim), prior.initial()
    log_evidence = 0.0
    for t in range(count):
        if t:
            step = float(positions[t] - positions[t - 1])
            move = prior.transition(step)
            mean, cov = move @ mean, move @ cov @ move.T + prior.innovation(step)
        means[t], covs[t] = mean, cov
        lifted = prior.lift(designs[t])
        residual = targets[t] - lifted @ mean
        spread = cov @ lifted.T
        factor = np.linalg.cholesky(np.eye(residual.size) + lifted @ spread)
        white = solve_triangular(factor, np.column_stack([lifted, residual]), lower=True)
        gain = cov @ white[:, :-1].T
        mean, cov = mean + gain @ white[:, -1], cov - gain @ gain.T
        cov = 0.5 * (cov + cov.T)
        updates[t] = np.eye(dim) - gain @ white[:, :-1]
        scores[t], informations[t] = white[:, :-1].T @ white[:, -1], white[:, :-1].T @ white[:, :-1]
        z = targets[t]
        log_evidence += 0.5 * (z @ z - white[:, -1] @ white[:, -1]) - np.log(np.diag(factor)).sum()
    if not gradient:
        return None, Score(float(log_evidence), np.zeros((prior.size,) * 2), 0.0, 0.0)
    adjoints, precisions = _backward(positions, prior, updates, scores, informations)
    posterior = MarkovPosterior(prior, positions, means, covs, adjoints, precisions, updates)
    return posterior, _score(posterior, designs, targets, float(log_evidence))


def _backward(
    positions: Array, prior: Prior, updates: Array, scores: Array, informations: Array
) -> tuple[Array, Array]:
    """Adjoints ``r_t`` and ``N_t`` of the predicted moments, last index first."""
    adjoints, precisions = np.empty_like(scores), np.empty_like(informations)
    adjoint, precision = np.zeros(prior.dim), np.zeros((prior.dim,) * 2)
    for t in range(scores.shape[0] - 1, -1, -1):
        adjoints[t] = scores[t] + updates[t].T @ adjoint
        precisions[t] = informations[t] + updates[t].T @ precision @ updates[t]
        if t:
            move = prior.transition(float(positions[t] - positions[t - 1]))
            adjoint, precision = move.T @ adjoints[t], move.T @ precisions[t] @ move
    return adjoints, precisions


def _score(post: MarkovPosterior, designs: list[Array], targets: list[Array], log_evidence: float) -> Score:
    prior, size, order = post.prior, post.prior.size, post.prior.process.order
    shape = (1 + order, size, 1 + order, size)
    by_cov = np.zeros((size, size))
    by_log_constant = misfit = 0.0
    for t, (design, target) in enumerate(zip(designs, targets, strict=True)):
        slope = 0.5 * (np.outer(post.adjoints[t], post.adjoints[t]) - post.precisions[t])
        blocks = slope.reshape(shape)
        if t:
            step = np.array([float(post.positions[t] - post.positions[t - 1])])
            noise = prior.process.innovation(step)[0]
        else:
            noise = prior.process.stationary()
            by_cov += blocks[0, :, 0]
            by_log_constant = float(np.trace(blocks[0, :, 0]))
        by_cov += np.einsum("ab,apbq->pq", noise, blocks[1:, :, 1:])
        mean, cov = _smooth(post.means[t], post.covs[t], post.adjoints[t], post.precisions[t])
        residual = target - design @ prior.observe(mean)
        h_cov = prior.observe(prior.observe(cov).T)
        misfit += residual @ residual + np.einsum("np,pq,nq->", design, h_cov, design)
    return Score(log_evidence, by_cov, by_log_constant, float(misfit))
