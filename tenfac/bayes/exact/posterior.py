"""What both exact-mode solvers return: the coefficient functions' joint posterior."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpstrf

Array = NDArray[Any]


class CoefficientPosterior(Protocol):
    """Joint Gaussian posterior of the coefficient functions ``h(t)`` over the exact mode."""

    def at(self, positions: Array, derivative: int = 0) -> tuple[Array, Array]:
        """Means (U, P) and covariances (U, P, P) of ``h`` at exact-mode positions, seen or not.

        ``derivative`` 1 gives those of the derivative by a continuous position.
        """
        ...

    def cov(self, positions: Array, rows: Array) -> Array:
        """Covariance (N, N) of ``rows[n] @ h(positions[n])``, for positions (N,) and rows (N, P)."""
        ...

    def sample(self, n: int, positions: Array, rng: np.random.Generator) -> Array:
        """``n`` joint draws of ``h`` at ascending distinct positions (U,), shape (n, U, P)."""
        ...

    def total(self, weights: Array, factor: Array) -> tuple[Array, Array]:
        """Mean (J,) and covariance (J, J) of ``sum_t weights[t] * (factor @ h(t))`` over observed indices.

        ``weights`` (M, J) multiply entry by entry; ``factor`` is (J, P).
        """
        ...


def root_of(cov: Array) -> Array:
    """``R`` (d, r) with ``R R^T`` the positive semidefinite ``cov`` (d, d), a singular one too."""
    factor, order, rank, _ = dpstrf(cov, lower=1)
    out = np.zeros((cov.shape[0], rank))
    out[order - 1] = np.tril(factor)[:, :rank]
    return out


def roots_of(covs: Array) -> Array:
    """Square matrices ``R`` with ``R R^T`` the positive semidefinite ``covs`` (U, d, d)."""
    out = np.zeros_like(covs)
    moving = np.flatnonzero(np.any(np.einsum("udd->ud", covs) > 0, axis=0))  # what stands still has no noise
    inner = np.ix_(np.arange(covs.shape[0]), moving, moving)
    try:
        out[inner] = np.linalg.cholesky(covs[inner])
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covs)
        return vectors * np.sqrt(np.clip(values, 0.0, None))[..., None, :]
    return out
