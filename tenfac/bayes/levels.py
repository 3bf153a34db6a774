"""Exact inference when the exact mode is discrete: levels that share some parts and differ independently.

The coefficients of level i are ``h_i = sum_q a_iq b_q + g_i`` with ``b_q, g_i ~ N(0, I)``, observed through
``z_i = E_i h_i + noise``. The ``g_i`` are integrated out level by level, then the shared ``b``: an
arrow-shaped system solved exactly at ``O(M P^3 + (Q P)^3)`` for M levels, P coefficients, Q shared parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotri

from tenfac.bayes.posterior import Score

Array = NDArray[np.float64]


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
    mean, cov : arrays, shapes (Q, P) and (Q, P, Q, P)
        Posterior of ``b``.
    """

    shared: Array
    inverses: Array
    own: Array
    mean: Array
    cov: Array

    def at(self, positions: Array) -> tuple[Array, Array]:
        """Means and covariances of ``h`` at level codes."""
        codes = positions.astype(int)
        inverse, weights = self.inverses[codes], self.shared[codes]
        means = self.own[codes] + np.einsum("ups,us->up", inverse, weights @ self.mean)
        shared = _between(weights, self.cov)
        return means, inverse + inverse @ shared @ inverse

    def average(self) -> tuple[Array, Array]:
        """Mean and covariance of the average over the levels seen."""
        count, size = self.own.shape
        pull = np.einsum("iq,ips->pqs", self.shared, self.inverses).reshape(size, -1) / count
        mean = self.own.mean(axis=0) + pull @ self.mean.ravel()
        cov = pull @ self.cov.reshape(pull.shape[1], -1) @ pull.T
        return mean, self.inverses.mean(axis=0) / count + cov


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
        return posterior, Score(log_evidence, np.zeros((size, size)), 0.0)
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
    by_cov -= post.shared.shape[1] * eye - np.einsum("qpqs->ps", post.cov)
    misfit = 0.0
    for i, (design, target) in enumerate(zip(designs, targets, strict=True)):
        inverse, weights = post.inverses[i], post.shared[i]
        known = eye - inverse
        across = np.tensordot(weights, post.cov, axes=1)  # (P, Q, P)
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
