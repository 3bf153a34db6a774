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
from scipy.linalg.lapack import dpotrf, dtrtrs

from tenfac.bayes.markov import MarkovPosterior, smooth
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

    def observe(self, states: Array, derivative: int = 0) -> Array:
        """``h``, or its derivative by the index, from states along the first axis: (dim, ...) -> (P, ...)."""
        if not derivative:
            return np.sqrt(self.constant) * states[: self.size] + states[self.size : 2 * self.size]
        weights = self.process.observation(np.zeros(1), derivative)[0]
        parts = states.reshape(1 + self.process.order, self.size, *states.shape[1:])
        return np.tensordot(weights, parts[1:], axes=1)

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
        lifted = prior.lift(designs[t])
        factor, _ = dpotrf(np.eye(z.size) + lifted @ cov @ lifted.T, lower=1)
        right = np.empty((z.size, dim + 1))
        right[:, :-1], right[:, -1] = lifted, z - lifted @ mean
        white, _ = dtrtrs(factor, right, lower=1)
        lifted, residual = white[:, :-1], white[:, -1]
        log_evidence += 0.5 * (z @ z - residual @ residual) - np.log(np.diag(factor)).sum()
        gain = cov @ lifted.T
        mean, cov = mean + gain @ residual, cov - gain @ gain.T
        filtered[0][t], filtered[1][t] = mean, cov
        if gradient:
            updates[t] = eye - gain @ lifted
            scores[t], informations[t] = residual @ lifted, lifted.T @ lifted
    if not gradient:
        return None, Score(float(log_evidence), np.zeros((prior.size,) * 2), 0.0)
    adjoints, precisions = _backward(moves, updates, scores, informations)
    posterior = MarkovPosterior(
        prior, positions, means, covs, filtered, adjoints, precisions, updates, moves, designs
    )
    return posterior, _score(posterior, designs, targets, float(log_evidence))


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
        mean, cov = smooth(post.means[t], post.covs[t], post.adjoints[t], post.precisions[t])
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
