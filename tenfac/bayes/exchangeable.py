"""Exact inference when the exact mode is discrete: levels that share a mean and differ independently.

The coefficients of level i are ``h_i = sqrt(c) b + g_i`` with ``b, g_i ~ N(0, I)``, observed through
``z_i = E_i h_i + noise``. The ``g_i`` are integrated out level by level, then ``b``; an arrow-shaped
system solved exactly at ``O(M P^3)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotri

from tenfac.bayes.posterior import Score

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ExchangeablePosterior:
    """Posterior of M levels (whitened coordinates).

    Parameters
    ----------
    constant : float
        ``c``: variance of the shared part relative to a level's own.
    inverses : array, shape (M, P, P)
        ``(I + E_i^T E_i)^{-1}``: covariance of level i when the shared part is known.
    own : array, shape (M, P)
        ``inverses[i] @ E_i^T z_i``.
    shared_mean, shared_cov : arrays, shapes (P,) and (P, P)
        Posterior of ``b``.
    """

    constant: float
    inverses: Array
    own: Array
    shared_mean: Array
    shared_cov: Array

    def at(self, positions: Array) -> tuple[Array, Array]:
        """Means and covariances of ``h`` at level codes."""
        codes = positions.astype(int)
        inverse = self.inverses[codes]
        means = self.own[codes] + np.sqrt(self.constant) * inverse @ self.shared_mean
        return means, inverse + self.constant * inverse @ self.shared_cov @ inverse

    def average(self) -> tuple[Array, Array]:
        """Mean and covariance of the average over the levels seen."""
        count = self.own.shape[0]
        inverse = self.inverses.mean(axis=0)
        mean = self.own.mean(axis=0) + np.sqrt(self.constant) * inverse @ self.shared_mean
        return mean, inverse / count + self.constant * inverse @ self.shared_cov @ inverse


def solve(
    designs: list[Array], targets: list[Array], constant: float, gradient: bool = True
) -> tuple[ExchangeablePosterior, Score]:
    """Posterior and log evidence of whitened, unit-noise regressions ``z_i ~ E_i h_i``.

    Parameters
    ----------
    designs : list of arrays, shape (n_i, P)
    targets : list of arrays, shape (n_i,)
    constant : float
    gradient : bool
        Whether ``Score.by_covariance`` is needed (half the cost).
    """
    size, count = designs[0].shape[1], len(designs)
    inverses, own = np.empty((count, size, size)), np.empty((count, size))
    log_evidence = 0.0
    for i, (design, target) in enumerate(zip(designs, targets, strict=True)):
        score = design.T @ target
        inverses[i], logdet = _inverse_and_logdet(np.eye(size) + design.T @ design)
        own[i] = inverses[i] @ score
        log_evidence += 0.5 * (score @ own[i] - logdet)
    total_own = own.sum(axis=0)
    information = count * np.eye(size) - inverses.sum(axis=0)
    shared_cov, logdet = _inverse_and_logdet(np.eye(size) + constant * information)
    shared_mean = np.sqrt(constant) * shared_cov @ total_own
    log_evidence += 0.5 * (shared_mean @ np.linalg.solve(shared_cov, shared_mean) - logdet)
    posterior = ExchangeablePosterior(constant, inverses, own, shared_mean, shared_cov)
    return posterior, _score(posterior, designs, targets, information, float(log_evidence), gradient)


def _score(
    post: ExchangeablePosterior,
    designs: list[Array],
    targets: list[Array],
    information: Array,
    log_evidence: float,
    gradient: bool,
) -> Score:
    size = post.shared_mean.size
    root, c, v = np.sqrt(post.constant), post.constant, post.shared_cov
    eye = np.eye(size)
    spread = np.zeros((size, size))
    misfit = 0.0
    if not gradient:
        return Score(log_evidence, spread, 0.0, misfit)
    deviations = post.own - root * (post.shared_mean - post.inverses @ post.shared_mean)
    for inverse, own, design, target in zip(post.inverses, post.own, designs, targets, strict=True):
        known = eye - inverse
        spread += known @ v @ known
        mean = own + root * inverse @ post.shared_mean
        residual = target - design @ mean
        misfit += residual @ residual
    # sum of tr(G Cov h) with G A^-1 = I - A^-1 =: J and A^-1 J = J - J^2
    misfit += np.trace(information) + c * (np.trace(v @ information) - np.trace(spread))
    total = deviations.sum(axis=0)
    marginal = information - c * information @ v @ information
    by_cov = 0.5 * (
        deviations.T @ deviations
        - (information - c * spread)
        + c * (np.outer(total, total) - marginal)
    )  # fmt: skip
    by_log_constant = 0.5 * c * (total @ total - np.trace(marginal))
    return Score(log_evidence, by_cov, float(by_log_constant), float(misfit))


def _inverse_and_logdet(matrix: Array) -> tuple[Array, float]:
    """Inverse and log determinant of a matrix that is at least the identity."""
    factor, info = dpotrf(matrix, lower=1)
    if info != 0:
        raise np.linalg.LinAlgError("a matrix above the identity was not positive definite")
    inverse, _ = dpotri(factor, lower=1)
    lower = np.tril(inverse)
    return lower + np.tril(lower, -1).T, 2 * float(np.log(np.diag(factor)).sum())
