"""The factor of one mode: leading Karhunen-Loève functions of its prior covariance.

On a set of nodes the eigenvectors of a mode's prior covariance give functions ``phi_1, phi_2, ...`` with
``k(x, x') = sum_r phi_r(x) phi_r(x')``, exact on the nodes when all are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.mode_prior import ModePrior

Array = NDArray[Any]

MAX_NODES = 64
RELATIVE_EIGENVALUE_FLOOR = 1e-13


def nodes_of(values: Array) -> Array:
    """All distinct values when there are at most 64, else 64 of their quantiles, ends included."""
    if values.size <= MAX_NODES:
        return values
    return np.unique(np.quantile(values, np.linspace(0, 1, MAX_NODES), method="nearest"))


@dataclass(frozen=True)
class ModeBasis:
    """KL functions of one mode's prior, at reference hyperparameters.

    Parameters
    ----------
    prior : ModePrior
        The reference.
    nodes : array, shape (M,)
        Node positions; ``0 .. M - 1`` when discrete.
    vectors : array, shape (M, K)
        Orthonormal eigenvectors of the node covariance.
    eigenvalues : array, shape (K,)
        Descending.
    """

    prior: ModePrior
    nodes: Array
    vectors: Array
    eigenvalues: Array

    @classmethod
    def build(cls, prior: ModePrior, nodes: Array) -> ModeBasis:
        """Diagonalise the node covariance and keep every numerically positive eigenvalue."""
        if prior.exchangeable:
            return cls(prior, nodes, *_exchangeable(prior.constant, nodes.size))
        values, vectors = np.linalg.eigh(prior.covariance(nodes, nodes))
        keep = values > RELATIVE_EIGENVALUE_FLOOR * values[-1] * nodes.size
        return cls(prior, nodes, vectors[:, keep][:, ::-1], values[keep][::-1])

    def truncate(self, size: int) -> ModeBasis:
        """Keep the ``size`` leading functions."""
        return replace(self, vectors=self.vectors[:, :size], eigenvalues=self.eigenvalues[:size])

    @property
    def size(self) -> int:
        """Number of functions kept."""
        return self.eigenvalues.size

    @property
    def half(self) -> Array:
        """Coefficients of node values: ``half @ half.T`` is the inverse of the node covariance, (M, K)."""
        return self.vectors / np.sqrt(self.eigenvalues)

    def rows(self, x: Array) -> Array:
        """Values of the functions at positions ``x`` (codes when discrete), shape (N, K)."""
        if self.prior.kernel is None:
            return (self.vectors * np.sqrt(self.eigenvalues))[x.astype(int)]
        distinct, codes = np.unique(x, return_inverse=True)
        return (self.prior.covariance(distinct, self.nodes) @ self.half)[codes]

    def slopes(self, x: Array) -> Array:
        """Derivatives of the functions of a continuous mode at positions ``x``, shape (N, K)."""
        distinct, codes = np.unique(x, return_inverse=True)
        return (self.prior.covariance_slope(distinct, self.nodes) @ self.half)[codes]

    def coefficient_covariance(self, prior: ModePrior) -> Array:
        """Prior covariance (K, K) of the coefficients when hyperparameters move and functions stay."""
        return self.half.T @ prior.covariance(self.nodes, self.nodes) @ self.half


def _exchangeable(constant: float, size: int) -> tuple[Array, Array]:
    """Eigenvectors and eigenvalues of ``constant + identity``: always the same of the many there are.

    Where not all are kept, others at every step of a search would make its objective jump.
    """
    column = np.arange(size)
    waves = np.cos(np.pi * (column[:, None] + 0.5) * column / size) * np.sqrt(2 / size)
    waves[:, 0] = size**-0.5
    return waves, 1.0 + size * constant * (column == 0)


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
    def leading(
        cls, bases: tuple[ModeBasis, ...], most: int, floor: float, at_least: int = 1
    ) -> ProductBasis:
        """At most ``most`` products, largest prior variance first: those above ``floor``, or ``at_least``."""
        variance = np.ones(1)
        index = np.zeros((1, 0), dtype=np.intp)
        for basis in bases:
            variance = (variance[:, None] * basis.eigenvalues[None, :]).ravel()
            index = np.column_stack(
                [np.repeat(index, basis.size, axis=0), np.tile(np.arange(basis.size), index.shape[0])]
            )
            order = np.argsort(-variance, kind="stable")[: 64 * most]
            variance, index = variance[order], index[order]
        size = min(most, variance.size, max(at_least, int(np.sum(variance > floor))))
        return cls(bases, index[:size])

    @property
    def size(self) -> int:
        """Number of products P."""
        return self.index.shape[0]

    def truncate(self, size: int) -> ProductBasis:
        """Keep the ``size`` leading products."""
        return replace(self, index=self.index[:size])

    def coefficient_covariance(self, priors: tuple[ModePrior, ...]) -> Array:
        """Prior covariance (P, P) of the coefficients when hyperparameters move and functions stay."""
        cov = np.ones((self.size,) * 2)
        for part, column in zip(self._parts(priors), self.index.T, strict=True):
            cov *= part[np.ix_(column, column)]
        return cov

    def by_mode(self, slope: Array, priors: tuple[ModePrior, ...], m: int) -> Array:
        """Derivative by the node covariance of mode m, (M, M), from that by the coefficients' covariance."""
        for other, (part, column) in enumerate(zip(self._parts(priors), self.index.T, strict=True)):
            if other != m:
                slope = slope * part[np.ix_(column, column)]
        basis = self.bases[m]
        member = np.eye(basis.size)[self.index[:, m]]
        return basis.half @ (member.T @ slope @ member) @ basis.half.T

    def averaged_rows(self, m: int | None, x: Array) -> Array:
        """Products averaged over the nodes of every mode but m, at its positions x: (N, P)."""
        out = np.ones((x.size, self.size))
        for other, (basis, column) in enumerate(zip(self.bases, self.index.T, strict=True)):
            rows = basis.rows(x) if other == m else basis.rows(basis.nodes).mean(axis=0, keepdims=True)
            out *= rows[:, column]
        return out

    def averaged_variance(self, m: int | None, x: Array) -> Array:
        """Prior variance of what ``averaged_rows`` describes, shape (N,) or (1,)."""
        out = np.ones(1)
        for n, basis in enumerate(self.bases):
            prior, nodes = basis.prior, basis.nodes
            out = out * (prior.variance(x) if n == m else prior.covariance(nodes, nodes).mean())
        return out

    @property
    def priors(self) -> tuple[ModePrior, ...]:
        """Of every mode."""
        return tuple(basis.prior for basis in self.bases)

    @property
    def nodes(self) -> tuple[Array, ...]:
        """Nodes of every mode."""
        return tuple(basis.nodes for basis in self.bases)

    def _parts(self, priors: tuple[ModePrior, ...]) -> list[Array]:
        return [basis.coefficient_covariance(prior) for basis, prior in zip(self.bases, priors, strict=True)]

    @property
    def eigenvalues(self) -> Array:
        """Prior variance of every product on the nodes, descending, shape (P,)."""
        out = np.ones(self.size)
        for basis, column in zip(self.bases, self.index.T, strict=True):
            out *= basis.eigenvalues[column]
        return out

    @property
    def rank(self) -> tuple[int, ...]:
        """Largest function number used in each mode."""
        return tuple(int(column.max()) + 1 for column in self.index.T)

    def rows(self, positions: list[Array], count: int, derivative: int | None = None) -> Array:
        """Values of the products at ``count`` points, shape (N, P); ``positions[m]`` has shape (N,).

        With ``derivative``, the number of a basis, derivatives by its position.
        """
        out = np.ones((count, self.size))
        for m, (basis, x, column) in enumerate(zip(self.bases, positions, self.index.T, strict=True)):
            out *= (basis.slopes(x) if m == derivative else basis.rows(x))[:, column]
        return out

    def variance(self, positions: list[Array], count: int, derivative: int | None = None) -> Array:
        """Prior variance at ``count`` points, shape (N,); ``positions[m]`` has shape (N,)."""
        out = np.ones(count)
        for m, (basis, x) in enumerate(zip(self.bases, positions, strict=True)):
            out *= basis.prior.slope_variance(x) if m == derivative else basis.prior.variance(x)
        return out

    def missing_variance(self, rows: Array, variance: Array) -> Array:
        """Part of ``variance``, the prior variance at each point, that the products leave out, shape (N,)."""
        gap = variance - np.einsum("np,np->n", rows, rows)
        return np.where(gap > 1e-10 * variance, gap, 0.0)
