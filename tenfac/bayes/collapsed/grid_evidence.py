"""Log evidence on a grid, every basis function kept, by Kronecker eigendecompositions.

When every combination of the modes' indices was observed once, the covariance of the observations is
``s K_1 (x) ... (x) K_D + noise I``, and the eigenvectors of the small ``K_n`` diagonalise it exactly. Where
some cells are missing they are drawn from their posterior, and hyperparameters and draws are alternated
(stochastic EM, [1]_): the cost stays that of a complete grid.

References
----------
.. [1] G. Celeux and J. Diebolt, The SEM algorithm, Computational Statistics Quarterly 2 (1985).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.hyper import Hyper
from tenfac.bayes.collapsed.terms import loading_gradient, mode_gradient

Array = NDArray[Any]
_MOST_SMOOTHINGS = 100
_SMALL_RESIDUAL = 1e-6


@dataclass(frozen=True)
class GridProblem:
    """Observations on a grid.

    Parameters
    ----------
    kernels : tuple of (str or None)
        Per mode; None is discrete.
    grids : tuple of arrays, shape (M_n,)
        Scaled positions per mode.
    values : array, shape (M_0, ..., M_{D-1})
        Missing cells hold their current draw, or 0.
    missing : array of bool, shape of ``values``
    """

    kernels: tuple[str | None, ...]
    grids: tuple[Array, ...]
    values: Array
    missing: NDArray[np.bool_]

    @property
    def n_obs(self) -> float:
        """Number of cells."""
        return float(self.values.size)

    def value_and_gradient(self, hyper: Hyper) -> tuple[float, Array]:
        """Log evidence and its gradient by ``hyper.pack()``.

        Notes
        -----
        Cost: ``O(prod(M) sum(M) + sum(M^3))``.

        References
        ----------
        .. [1] Y. Saatçi, Scalable inference for structured Gaussian process models, PhD thesis,
           University of Cambridge (2011), section 5.2.
        """
        pairs = [np.linalg.eigh(self._covariance(hyper, n)) for n in range(len(self.kernels))]
        spectra = [np.maximum(values, 0.0) for values, _ in pairs]
        prior = np.exp(hyper.scale) * _outer(spectra)
        total = prior + np.exp(hyper.noise)
        rotated = _rotate(self.values, [vectors for _, vectors in pairs])
        weight = rotated / total
        fit = float(np.sum(rotated * weight))
        value = -0.5 * (fit + float(np.log(total).sum()) + self.n_obs * np.log(2 * np.pi))
        slope = 0.5 * (weight**2 - 1 / total)  # by each eigenvalue of the whole covariance
        scales = [float(np.sum(slope * prior)), float(np.sum(slope)) * np.exp(hyper.noise)]
        by_mode, by_loadings = [np.array(scales)], []
        for n, (_, vectors) in enumerate(pairs):
            by_covariance = self._by_covariance(hyper, n, vectors, weight, 1 / total, spectra)
            by_mode.append(np.array(mode_gradient(hyper, n, self.kernels[n], self.grids[n], by_covariance)))
            by_loadings.append(
                loading_gradient(hyper, n, np.arange(self.grids[n].size), by_covariance).ravel()
            )
        return value, np.concatenate(by_mode + by_loadings)

    def redrawn(self, hyper: Hyper, rng: np.random.Generator) -> GridProblem:
        """Missing cells drawn anew from their joint posterior, noise included.

        A draw from the prior on the whole grid is corrected by what the observations say of its error
        (Matheron's rule).
        """
        if not self.missing.any():
            return self
        pairs = [np.linalg.eigh(self._covariance(hyper, n)) for n in range(len(self.kernels))]
        vectors, back = [v for _, v in pairs], [v.T for _, v in pairs]
        prior = np.exp(hyper.scale) * _outer([np.maximum(values, 0.0) for values, _ in pairs])
        noise = np.exp(hyper.noise)
        draw = _rotate(np.sqrt(prior) * rng.standard_normal(prior.shape), back)
        draw += np.sqrt(noise) * rng.standard_normal(prior.shape)
        gain = prior / (prior + noise)

        def smooth(values: Array) -> Array:
            return _rotate(gain * _rotate(values, vectors), back)

        error = np.where(self.missing, 0.0, self.values - draw)
        values = self.values.copy()
        values[self.missing] = draw[self.missing] + _extend(smooth, error, self.missing)
        return replace(self, values=values)

    def _covariance(self, hyper: Hyper, n: int) -> Array:
        return hyper.prior(n, self.kernels[n]).covariance(self.grids[n], self.grids[n])

    def _by_covariance(
        self, hyper: Hyper, n: int, vectors: Array, weight: Array, inverse: Array, spectra: list[Array]
    ) -> Array:
        """Derivative by the covariance of one mode, shape (M_n, M_n)."""
        rest = np.exp(hyper.scale) * _outer([np.ones_like(s) if m == n else s for m, s in enumerate(spectra)])
        size = self.grids[n].size
        scaled = np.moveaxis(weight * np.sqrt(rest), n, 0).reshape(size, -1)
        outer = scaled @ scaled.T - np.diag(np.moveaxis(inverse * rest, n, 0).reshape(size, -1).sum(axis=1))
        return 0.5 * vectors @ outer @ vectors.T


def _extend(smooth: Callable[[Array], Array], values: Array, missing: NDArray[np.bool_]) -> Array:
    """Posterior mean of the missing cells given the others, by conjugate gradients.

    The missing cells ``u`` solve ``u - smooth(u) = smooth(values)``, both on the missing cells.
    """

    def spread(cells: Array) -> Array:
        out = np.zeros(missing.shape)
        out[missing] = cells
        return out

    residual = smooth(values)[missing]
    solution, direction = np.zeros_like(residual), residual.copy()
    start = square = float(residual @ residual)
    for _ in range(_MOST_SMOOTHINGS):
        if square <= _SMALL_RESIDUAL**2 * start:
            break
        image = direction - smooth(spread(direction))[missing]
        step = square / float(direction @ image)
        solution += step * direction
        residual -= step * image
        square, before = float(residual @ residual), square
        direction = residual + square / before * direction
    return solution


def _outer(vectors: list[Array]) -> Array:
    """Outer product of D vectors, shape (M_0, ..., M_{D-1})."""
    out = vectors[0]
    for vector in vectors[1:]:
        out = out[..., None] * vector
    return out


def _rotate(values: Array, matrices: list[Array]) -> Array:
    """Multiply every mode n by the transpose of its matrix."""
    for matrix in matrices:
        values = np.tensordot(
            values, matrix, axes=([0], [0])
        )  # mode n leaves in front, its image joins behind
    return values
