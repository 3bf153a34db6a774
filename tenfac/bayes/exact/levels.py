"""Exact inference when the exact mode is discrete: levels that share some parts and differ independently.

The coefficients of level i are ``h_i = sum_q a_iq b_q + g_i`` with ``b_q, g_i ~ N(0, I)``, observed through
``z_i = E_i h_i + noise``. The ``g_i`` are integrated out level by level, then the shared ``b``: an
arrow-shaped system solved exactly at ``O(M P^3 + (Q P)^3)`` for M levels, P coefficients, Q shared parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotri

from tenfac.bayes.exact.posterior import root_of

Array = NDArray[Any]


@dataclass(frozen=True)
class Score:
    """Log evidence and its gradient, in coordinates where the prior of a coefficient vector is identity.

    Parameters
    ----------
    log_evidence : float
        Without the terms that do not depend on the prior (``Slices.constant_terms``).
    by_covariance : array, shape (P, P)
        Derivative by the prior covariance of the coefficients.
    misfit : float
        Posterior expectation of the weighted sum of squared residuals over the noise variance, of the
        compressed targets.
    by_shared : array, shape (M, Q)
        Derivative by the weights of what the levels share.
    """

    log_evidence: float
    by_covariance: Array
    misfit: float
    by_shared: Array


@dataclass(frozen=True)
class LevelsPosterior:
    """Posterior of M levels (whitened coordinates).

    Parameters
    ----------
    shared : array, shape (M, Q)
        ``a``: weights of the shared parts in each level.
    inverses : array, shape (M, P, P)
        ``(I + E_i^T E_i)^{-1}``: covariance of level i when the shared parts are known.
    own : array, shape (M, P)
        ``inverses[i] @ E_i^T z_i``.
    mean, cov_shared : arrays, shapes (Q, P) and (Q, P, Q, P)
        Posterior of ``b``.
    """

    shared: Array
    inverses: Array
    own: Array
    mean: Array
    cov_shared: Array

    def at(self, positions: Array, derivative: int = 0) -> tuple[Array, Array]:  # noqa: ARG002
        """Means and covariances of ``h`` at level codes; levels have no ``derivative``."""
        codes = positions.astype(int)
        inverse, weights = self.inverses[codes], self.shared[codes]
        means = self.own[codes] + np.einsum("ups,us->up", inverse, weights @ self.mean)
        shared = _between(weights, self.cov_shared)
        return means, inverse + inverse @ shared @ inverse

    def cov(self, positions: Array, rows: Array) -> Array:
        """Covariance (N, N) of ``rows[n] @ h`` at level ``positions[n]``, for rows (N, P)."""
        codes = positions.astype(int)
        pulled = np.empty(rows.shape)
        out = np.zeros((codes.size,) * 2)
        for code in np.unique(codes):
            mine = np.flatnonzero(codes == code)
            pulled[mine] = rows[mine] @ self.inverses[code]
            out[np.ix_(mine, mine)] = pulled[mine] @ rows[mine].T
        across = np.einsum("nq,np->nqp", self.shared[codes], pulled).reshape(codes.size, self.mean.size)
        out += across @ self._flat_cov() @ across.T
        return 0.5 * (out + out.T)

    def sample(self, n: int, positions: Array, rng: np.random.Generator) -> Array:
        """``n`` joint draws of ``h`` at distinct level codes (U,), shape (n, U, P)."""
        codes, (parts, size) = positions.astype(int), self.mean.shape
        shared = self.mean + _noise(n, self._flat_cov(), rng).reshape(n, parts, size)
        out = np.empty((n, codes.size, size))
        for u, code in enumerate(codes):
            inverse = self.inverses[code]
            out[:, u] = self.own[code] + np.tensordot(shared, self.shared[code], axes=(1, 0)) @ inverse
            out[:, u] += _noise(n, inverse, rng)
        return out

    def total(self, weights: Array, factor: Array) -> tuple[Array, Array]:
        """Mean (J,) and covariance (J, J) of ``sum_i weights[i] * (factor @ h_i)`` over the levels seen."""
        size = factor.shape[0]
        mean, cov = np.zeros(size), np.zeros((size, size))
        pull = np.zeros((size, *self.mean.shape))
        for weight, inverse, own, shared in zip(weights, self.inverses, self.own, self.shared, strict=True):
            rows = weight[:, None] * factor
            pulled = rows @ inverse
            mean += rows @ own
            cov += pulled @ rows.T
            pull += pulled[:, None, :] * shared[:, None]
        flat = pull.reshape(size, -1)
        return mean + flat @ self.mean.ravel(), cov + flat @ self._flat_cov() @ flat.T

    def _flat_cov(self) -> Array:
        """Covariance of ``b`` as a matrix (Q P, Q P)."""
        return self.cov_shared.reshape((self.mean.size,) * 2)


def solve(
    designs: list[Array], targets: list[Array], shared: Array, gradient: bool = True
) -> tuple[LevelsPosterior, Score]:
    """Posterior and log evidence of whitened, unit-noise regressions ``z_i ~ E_i h_i``.

    Parameters
    ----------
    designs : list of arrays, shape (n_i, P)
    targets : list of arrays, shape (n_i,)
    shared : array, shape (M, Q)
        Prior covariance between levels is ``I + shared @ shared.T``.
    gradient : bool
        Whether the derivatives in ``Score`` are needed (half the cost).
    """
    size, count = designs[0].shape[1], len(designs)
    inverses, own, told = np.empty((count, size, size)), np.empty((count, size)), np.empty(count)
    for i, (design, target) in enumerate(zip(designs, targets, strict=True)):
        inverses[i], own[i], told[i] = see(design, target)
    posterior, log_evidence = join(inverses, own, told, shared)
    if not gradient:
        return posterior, Score(log_evidence, np.zeros((size, size)), 0.0, np.zeros_like(shared))
    return posterior, _score(posterior, designs, targets, log_evidence)


class Seen(NamedTuple):
    """One level when the shared parts are zero: covariance (P, P), mean (P,), and log evidence."""

    inverse: Array
    own: Array
    log_evidence: float


def see(design: Array, target: Array) -> Seen:
    """What one level tells by itself."""
    score = design.T @ target
    inverse, logdet = _inverse_and_logdet(np.eye(design.shape[1]) + design.T @ design)
    own = inverse @ score
    return Seen(inverse, own, 0.5 * float(score @ own - logdet))


def join(inverses: Array, own: Array, log_evidences: Array, shared: Array) -> tuple[LevelsPosterior, float]:
    """Posterior of all levels, and log evidence, from what ``see`` says of each and what they share."""
    size, parts = own.shape[1], shared.shape[1]
    information = _information(shared, inverses)
    cov, logdet = _inverse_and_logdet(np.eye(parts * size) + information)
    told = (shared.T @ own).ravel()
    mean = cov @ told
    log_evidence = float(log_evidences.sum() + 0.5 * (told @ mean - logdet))
    posterior = LevelsPosterior(
        shared, inverses, own, mean.reshape(parts, size), cov.reshape(parts, size, parts, size)
    )
    return posterior, log_evidence


def _noise(n: int, cov: Array, rng: np.random.Generator) -> Array:
    """``n`` draws (n, d) of mean zero and covariance (d, d)."""
    root = root_of(cov)
    return rng.standard_normal((n, root.shape[1])) @ root.T


def _information(shared: Array, inverses: Array) -> Array:
    """``sum_i a_i a_i^T (x) (I - inverses_i)``, shape (Q P, Q P)."""
    count, size = inverses.shape[:2]
    products = np.einsum("iq,ir->qri", shared, shared).reshape(-1, count)
    known = np.eye(size) - inverses
    blocks = (products @ known.reshape(count, -1)).reshape(shared.shape[1], -1, size, size)
    return blocks.transpose(0, 2, 1, 3).reshape(shared.shape[1] * size, -1)


def _between(weights: Array, cov: Array) -> Array:
    """Covariance of ``sum_q a_q b_q`` for rows ``a`` of weights (U, Q), shape (U, P, P)."""
    parts, size = cov.shape[:2]
    products = np.einsum("uq,ur->uqr", weights, weights).reshape(-1, parts * parts)
    by_pair = cov.transpose(0, 2, 1, 3).reshape(parts * parts, -1)
    return (products @ by_pair).reshape(-1, size, size)


def _score(post: LevelsPosterior, designs: list[Array], targets: list[Array], log_evidence: float) -> Score:
    size = post.own.shape[1]
    eye = np.eye(size)
    combined = post.shared @ post.mean  # the shared part of every level
    left_over = post.own - combined + np.einsum("ips,is->ip", post.inverses, combined)
    totals = post.shared.T @ left_over
    by_shared = left_over @ totals.T
    by_cov = left_over.T @ left_over + totals.T @ totals
    by_cov -= post.shared.shape[1] * eye - np.einsum("qpqs->ps", post.cov_shared)
    misfit = 0.0
    for i, (design, target) in enumerate(zip(designs, targets, strict=True)):
        inverse, weights = post.inverses[i], post.shared[i]
        known = eye - inverse
        across = np.tensordot(weights, post.cov_shared, axes=1)  # (P, Q, P)
        by_shared[i] -= np.einsum("ps,sqp->q", known, across)
        spread = np.tensordot(across.transpose(0, 2, 1), weights, axes=1)
        by_cov += known @ spread @ known - known
        residual = target - design @ (post.own[i] + inverse @ combined[i])
        misfit += residual @ residual + np.trace(known) + np.sum(spread * (known - known @ known))
    return Score(log_evidence, 0.5 * by_cov, float(misfit), by_shared=by_shared)


def _inverse_and_logdet(matrix: Array) -> tuple[Array, float]:
    """Inverse and log determinant of a matrix that is at least the identity."""
    factor, info = dpotrf(matrix, lower=1)
    if info != 0:
        raise np.linalg.LinAlgError("a matrix above the identity was not positive definite")
    inverse, _ = dpotri(factor, lower=1)
    lower = np.tril(inverse)
    return lower + np.tril(lower, -1).T, 2 * float(np.log(np.diag(factor)).sum())
