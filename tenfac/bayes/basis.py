"""The factor of one mode: leading Karhunen-Loève functions of its prior covariance.

The prior of a mode is ``c + k(x, x')``: a constant shared by all indices plus a unit-variance Matérn
kernel (continuous mode) or the identity (discrete mode). On a set of nodes its eigenvectors give
functions ``phi_1, phi_2, ...`` with ``c + k(x, x') = sum_r phi_r(x) phi_r(x')``, exact on the nodes
when all are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tenfac.core.modes.state_space import correlation

Array = NDArray[np.float64]

MAX_NODES = 48
_RELATIVE_EIGENVALUE_FLOOR = 1e-13


def nodes_of(values: Array) -> Array:
    """All distinct values when there are at most 48, else 48 of their quantiles, ends included."""
    if values.size <= MAX_NODES:
        return values
    return np.unique(np.quantile(values, np.linspace(0, 1, MAX_NODES), method="nearest"))


@dataclass(frozen=True)
class ModeBasis:
    """KL functions of ``c + k`` for one mode, at reference hyperparameters.

    Parameters
    ----------
    kernel : str or None
        Matérn kernel, or None for a discrete mode (identity).
    nodes : array, shape (M,)
        Node positions; ``0 .. M - 1`` when discrete.
    constant, lengthscale : float
        The reference ``c`` and lengthscale (ignored when discrete).
    vectors : array, shape (M, K)
        Orthonormal eigenvectors of the node covariance.
    eigenvalues : array, shape (K,)
        Descending.
    """

    kernel: str | None
    nodes: Array
    constant: float
    lengthscale: float
    vectors: Array
    eigenvalues: Array

    @classmethod
    def build(cls, kernel: str | None, nodes: Array, constant: float, lengthscale: float) -> ModeBasis:
        """Diagonalise the node covariance and keep every numerically positive eigenvalue."""
        cov = constant + _unit_kernel(kernel, nodes, nodes, lengthscale)[0]
        values, vectors = np.linalg.eigh(cov)
        keep = values > _RELATIVE_EIGENVALUE_FLOOR * values[-1] * nodes.size
        return cls(kernel, nodes, constant, lengthscale, vectors[:, keep][:, ::-1], values[keep][::-1])

    def truncate(self, size: int) -> ModeBasis:
        """Keep the ``size`` leading functions."""
        return ModeBasis(
            self.kernel, self.nodes, self.constant, self.lengthscale,
            self.vectors[:, :size], self.eigenvalues[:size],
        )  # fmt: skip

    @property
    def size(self) -> int:
        """Number of functions kept."""
        return self.eigenvalues.size

    def rows(self, x: Array) -> Array:
        """Values of the functions at positions ``x`` (codes when discrete), shape (N, K)."""
        if self.kernel is None:
            return (self.vectors * np.sqrt(self.eigenvalues))[x.astype(int)]
        cov = self.constant + _unit_kernel(self.kernel, x, self.nodes, self.lengthscale)[0]
        return cov @ (self.vectors / np.sqrt(self.eigenvalues))

    def prior_variance(self) -> float:
        """``c + k(x, x)``, the same at every index."""
        return self.constant + 1.0

    def coefficient_covariance(self, constant: float, lengthscale: float) -> tuple[Array, Array, Array]:
        """Prior covariance of the coefficients when the hyperparameters move and the functions stay.

        Returns
        -------
        cov, by_log_constant, by_log_lengthscale : arrays, shape (K, K)
        """
        kernel, dkernel = _unit_kernel(self.kernel, self.nodes, self.nodes, lengthscale)
        half = self.vectors / np.sqrt(self.eigenvalues)
        ones = half.sum(axis=0)
        by_constant = constant * np.outer(ones, ones)
        return half.T @ kernel @ half + by_constant, by_constant, half.T @ dkernel @ half


def _unit_kernel(kernel: str | None, x: Array, z: Array, lengthscale: float) -> tuple[Array, Array]:
    if kernel is None:
        equal = (x[:, None] == z[None, :]).astype(float)
        return equal, np.zeros_like(equal)
    return correlation(x, z, kernel, lengthscale)


@dataclass(frozen=True)
class ProductBasis:
    """Selected products of mode functions: the columns of the regression on the coefficients.

    Parameters
    ----------
    bases : tuple of ModeBasis
        One per mode, the exact mode left out.
    index : array of int, shape (P, len(bases))
        Which function of each mode enters product p.
    """

    bases: tuple[ModeBasis, ...]
    index: NDArray[np.intp]

    @classmethod
    def leading(cls, bases: tuple[ModeBasis, ...], most: int, negligible: float) -> ProductBasis:
        """Keep the products of largest prior variance.

        Products are dropped from the small end while together they hold less than the share
        ``negligible`` of the prior variance on the nodes, and beyond ``most`` in any case.
        """
        variance = np.ones(1)
        index = np.zeros((1, 0), dtype=np.intp)
        for basis in bases:
            variance = (variance[:, None] * basis.eigenvalues[None, :]).ravel()
            index = np.column_stack(
                [np.repeat(index, basis.size, axis=0), np.tile(np.arange(basis.size), index.shape[0])]
            )
            order = np.argsort(-variance, kind="stable")[: 64 * most]
            variance, index = variance[order], index[order]
        total = float(np.prod([b.prior_variance() * b.nodes.size for b in bases]))
        kept = np.cumsum(variance)
        enough = int(np.searchsorted(kept, (1 - negligible) * total)) + 1
        size = max(1, min(most, enough, variance.size))
        return cls(bases, index[:size])

    @property
    def size(self) -> int:
        """Number of products P."""
        return self.index.shape[0]

    @property
    def rank(self) -> tuple[int, ...]:
        """Largest function number used in each mode."""
        return tuple(int(column.max()) + 1 for column in self.index.T)

    def rows(self, positions: list[Array]) -> Array:
        """Values of the products at N points, shape (N, P); ``positions[m]`` has shape (N,)."""
        count = positions[0].size if positions else 1
        out = np.ones((count, self.size))
        for basis, x, column in zip(self.bases, positions, self.index.T, strict=True):
            out *= basis.rows(x)[:, column]
        return out

    def missing_variance(self, rows: Array) -> Array:
        """Prior variance at each point that the products leave out, shape (N,), never negative."""
        total = float(np.prod([b.prior_variance() for b in self.bases]))
        gap = total - np.einsum("np,np->n", rows, rows)
        return np.where(gap > 1e-10 * total, gap, 0.0)
