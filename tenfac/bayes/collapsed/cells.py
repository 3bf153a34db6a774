"""Joint functions of several modes, where the observations lie in few cells of them.

Stations with coordinates, patients with covariates: the modes other than the exact one have many indices, but
few combinations of them occur. The Karhunen-Loève functions of the product prior on these cells are then
fewer, and complete, where products of functions of single modes are neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.basis import RELATIVE_EIGENVALUE_FLOOR
from tenfac.bayes.collapsed.mode_prior import ModePrior

Array = NDArray[Any]


@dataclass(frozen=True)
class CellBasis:
    """KL functions of the product of several modes' priors, at reference hyperparameters.

    Parameters
    ----------
    priors : tuple of ModePrior
        One per mode, the exact mode left out.
    nodes : tuple of arrays, shape (U,)
        Positions of the cells, per mode.
    vectors : array, shape (U, K)
        Orthonormal eigenvectors of the cells' covariance.
    eigenvalues : array, shape (K,)
        Descending.
    """

    priors: tuple[ModePrior, ...]
    nodes: tuple[Array, ...]
    vectors: Array
    eigenvalues: Array

    @classmethod
    def leading(cls, priors: tuple[ModePrior, ...], nodes: tuple[Array, ...], most: int) -> CellBasis:
        """The functions of largest variance, ``most`` of them, or all that are numerically positive."""
        values, vectors = np.linalg.eigh(_covariance(priors, nodes, nodes))
        count = min(most, int(np.sum(values > RELATIVE_EIGENVALUE_FLOOR * values[-1] * values.size)))
        return cls(priors, nodes, vectors[:, ::-1][:, :count], values[::-1][:count])

    @property
    def size(self) -> int:
        """Number of functions."""
        return self.eigenvalues.size

    @property
    def is_complete(self) -> bool:
        """Whether the functions span the prior on the cells."""
        return self.size == self.nodes[0].size

    @property
    def rank(self) -> tuple[int, ...]:
        """Number of functions, once per mode."""
        return (self.size,) * len(self.nodes)

    @property
    def half(self) -> Array:
        """Coefficients of node values: ``half @ half.T`` is the inverse of the node covariance, (U, K)."""
        return self.vectors / np.sqrt(self.eigenvalues)

    def truncate(self, size: int) -> CellBasis:
        """Keep the ``size`` leading functions."""
        return CellBasis(self.priors, self.nodes, self.vectors[:, :size], self.eigenvalues[:size])

    def rows(self, positions: list[Array], count: int, derivative: int | None = None) -> Array:
        """Values of the functions at ``count`` points, shape (N, K); ``positions[m]`` has shape (N,).

        With ``derivative``, the number of a mode, derivatives by its position.
        """
        points = np.column_stack(positions)
        distinct, codes = np.unique(points, axis=0, return_inverse=True)
        values = _covariance(self.priors, tuple(distinct.T), self.nodes, derivative) @ self.half
        return values[codes.reshape(count)]

    def variance(self, positions: list[Array], count: int, derivative: int | None = None) -> Array:
        """Prior variance at ``count`` points, shape (N,)."""
        out = np.ones(count)
        for m, (prior, x) in enumerate(zip(self.priors, positions, strict=True)):
            out *= prior.slope_variance(x) if m == derivative else prior.variance(x)
        return out

    def missing_variance(self, rows: Array, variance: Array) -> Array:
        """Part of ``variance``, the prior variance at points, that the functions leave out, shape (N,)."""
        gap = variance - np.einsum("np,np->n", rows, rows)
        return np.where(gap > 1e-10 * variance, gap, 0.0)

    def coefficient_covariance(self, priors: tuple[ModePrior, ...]) -> Array:
        """Prior covariance (K, K) of the coefficients when hyperparameters move and functions stay."""
        return self.half.T @ _covariance(priors, self.nodes, self.nodes) @ self.half

    def by_mode(self, slope: Array, priors: tuple[ModePrior, ...], m: int) -> Array:
        """Derivative by the covariance of mode m between cells, (U, U), from that by the coefficients."""
        weight = self.half @ slope @ self.half.T
        for other, (prior, x) in enumerate(zip(priors, self.nodes, strict=True)):
            if other != m:
                weight = weight * prior.covariance(x, x)
        return weight

    def averaged_rows(self, m: int | None, x: Array) -> Array:
        """Functions averaged over the cells' positions in every mode but m, at its positions x: (N, K)."""
        if m is None:
            return np.tile(self.rows(list(self.nodes), self.nodes[0].size).mean(axis=0), (x.size, 1))
        count = self.nodes[0].size
        positions = [np.tile(part, x.size) for part in self.nodes]
        positions[m] = np.repeat(x, count)
        return self.rows(positions, positions[0].size).reshape(x.size, count, -1).mean(axis=1)

    def averaged_variance(self, m: int | None, x: Array) -> Array:
        """Prior variance of what ``averaged_rows`` describes, shape (N,) or (1,)."""
        parts = enumerate(zip(self.priors, self.nodes, strict=True))
        among = np.ones((self.nodes[0].size,) * 2)
        for n, (prior, nodes) in parts:
            if n != m:
                among *= prior.covariance(nodes, nodes)
        return among.mean() * (np.ones(1) if m is None else self.priors[m].variance(x))


def _covariance(
    priors: tuple[ModePrior, ...], x: tuple[Array, ...], z: tuple[Array, ...], derivative: int | None = None
) -> Array:
    out = np.ones((x[0].size, z[0].size))
    for m, (prior, a, b) in enumerate(zip(priors, x, z, strict=True)):
        out *= prior.covariance_slope(a, b) if m == derivative else prior.covariance(a, b)
    return out
