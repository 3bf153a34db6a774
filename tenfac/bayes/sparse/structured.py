"""Coefficients on the active box that are of low rank: their estimate, and what is uncertain about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from tenfac.bayes.sparse.box import Box, outer
from tenfac.bayes.sparse.statistics import squared
from tenfac.core.arrays import device_of, eps
from tenfac.core.contract import adjoint, contract


@dataclass(frozen=True, eq=False)
class Structured(Box):
    """A box whose ``mean`` is the least-squares estimate among arrays of low rank.

    With ``A_i = U_i B_i^+`` (``bases`` of the range of each factor and ``backs`` to the coefficients) the
    measurements say ``Z = Y x_i U_i^H + noise``. The estimate of ``Z`` is the Tucker array of ``core`` and
    ``vectors``, or the sum of rank-one terms with weights ``core``. Its covariance is that of least squares
    on the tangent space there: ``noise`` times the projector, carried to the coefficients. Snapshots are a
    mode.

    Parameters
    ----------
    core : array, shape (r_0, ..., r_{I-1}, r_T), or weights (R,)
    vectors : tuple of arrays, shapes (z_i, r_i) or (z_i, R)
        Orthonormal columns if ``core`` is that of a Tucker array.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> one = xp.ones((1, 1))
    >>> Structured(one, (2 * one,), (xp.ones(1),), 1.0, xp, core=one, vectors=(one, one)).variances().tolist()
    [0.25]
    """

    core: Any = field(default=None, kw_only=True)
    vectors: tuple[Any, ...] = field(default=(), kw_only=True)

    @cached_property
    def _backs(self) -> list[Any]:
        """From coordinates in the ranges of the factors to coefficients; snapshots are their own."""
        xp, snapshots, like = self.xp, self.mean.shape[-1], self.mean
        eye = xp.eye(snapshots, dtype=like.dtype, device=device_of(like))
        return [*(ranges(factor, xp)[1] for factor in self.factors), eye]

    @cached_property
    def _rows(self) -> list[Any]:
        """Per mode of a Tucker array: an orthonormal basis of the rows of the unfolded core, refolded."""
        xp, core, found = self.xp, self.core, []
        for n in range(core.ndim):
            rest = [*core.shape[:n], *core.shape[n + 1 :]]
            unfolded = xp.reshape(xp.moveaxis(core, n, 0), (core.shape[n], -1))
            _, lengths, rows = xp.linalg.svd(unfolded, full_matrices=False)
            rank = int(xp.sum(xp.astype(lengths > lengths[0] * _cutoff(unfolded), xp.int64)))
            found.append(xp.moveaxis(xp.reshape(rows[:rank, :], (rank, *rest)), 0, n))
        return found

    @cached_property
    def _basis(self) -> Any:
        """Orthonormal basis of the tangent space at a sum of rank-one terms, shape (z_0, ..., z_T, p)."""
        xp, d = self.xp, len(self.vectors)
        sizes = [one.shape[0] for one in self.vectors]
        parts = []
        for n in range(d):
            terms = _khatri_rao([one for k, one in enumerate(self.vectors) if k != n], xp)
            eye = xp.eye(sizes[n], dtype=terms.dtype, device=device_of(terms))
            whole = terms[:, None, :, None] * eye[None, :, None, :]
            shape = (*sizes[:n], *sizes[n + 1 :], sizes[n], -1)
            whole = xp.moveaxis(xp.reshape(whole, shape), d - 1, n)
            parts.append(xp.reshape(whole, (math.prod(sizes), -1)))
        axes, lengths, _ = xp.linalg.svd(xp.concat(parts, axis=1), full_matrices=False)
        rank = int(xp.sum(xp.astype(lengths > lengths[0] * _cutoff(axes), xp.int64)))
        return xp.reshape(axes[:, :rank], (*sizes, rank))

    def variances(self) -> Any:
        """Variances of all coefficients of the box, shape (k_0, ..., k_{I-1}), with T > 1 snapshots (..., T).

        The tangent space of Tucker arrays is a sum of orthogonal ones, of the core and of each factor.
        """
        xp, backs = self.xp, self._backs
        if self._is_sum:
            found = xp.sum(squared(contract(self._basis, [*backs, None], xp=xp), xp), axis=-1)
        else:
            ahead = [back @ one for back, one in zip(backs, self.vectors, strict=True)]
            inside = [xp.sum(squared(one, xp), axis=1) for one in ahead]
            found = outer(inside)
            for n, rows in enumerate(self._rows):
                spread = xp.sum(squared(backs[n], xp), axis=1) - inside[n]
                others = [None if k == n else one for k, one in enumerate(ahead)]
                share = xp.sum(squared(contract(rows, others, xp=xp), xp), axis=n, keepdims=True)
                along = [1 if k != n else -1 for k in range(rows.ndim)]
                found = found + share * xp.reshape(xp.where(spread > 0, spread, 0.0), tuple(along))
        found = self.noise * found
        return found if found.shape[-1] > 1 else found[..., 0]

    def variances_at(self, places: Sequence[Any]) -> Any:
        """Variances at points, one array of places (n,) per mode; with T > 1 snapshots (n, T)."""
        return self.variances()[tuple(places)]

    def draws(self, n: int, rng: np.random.Generator) -> Any:
        """Draw around the estimate, shape (n, k_0, ..., k_{I-1}, T): noise seen in the tangent space."""
        sizes = [back.shape[1] for back in self._backs]
        noise = self._normal((n, *sizes), rng) * math.sqrt(self.noise)
        return self.mean + contract(self._tangent(noise), [None, *self._backs], xp=self.xp)

    def _tangent(self, arrays: Any) -> Any:
        """Project arrays (n, z_0, ..., z_T) on the tangent space."""
        xp, vectors = self.xp, self.vectors
        if self._is_sum:
            basis = xp.reshape(self._basis, (-1, self._basis.shape[-1]))
            flat = xp.reshape(arrays, (arrays.shape[0], -1))
            return xp.reshape((flat @ xp.conj(basis)) @ basis.T, arrays.shape)
        turns = [adjoint(one, xp) for one in vectors]
        found = contract(contract(arrays, [None, *turns], xp=xp), [None, *vectors], xp=xp)
        for n, rows in enumerate(self._rows):
            part = contract(arrays, [None, *(None if k == n else one for k, one in enumerate(turns))], xp=xp)
            part = xp.moveaxis(part, n + 1, 1)
            flat = xp.reshape(xp.moveaxis(rows, n, 0), (rows.shape[n], -1))
            part = xp.reshape(part, (*part.shape[:2], -1)) @ adjoint(flat, xp)
            part = part - vectors[n] @ (turns[n] @ part)
            back = xp.reshape(
                part @ flat, (*part.shape[:2], *(one.shape[1] for k, one in enumerate(vectors) if k != n))
            )
            others = [None if k == n else one for k, one in enumerate(vectors)]
            found = found + contract(xp.moveaxis(back, 1, n + 1), [None, *others], xp=xp)
        return found

    @property
    def _is_sum(self) -> bool:
        return self.core.ndim < len(self.vectors)


def ranges(factor: Any, xp: Any) -> tuple[Any, Any]:
    """Orthonormal basis (M, z) of the range of a factor (M, k), and what takes coordinates in it back (k, z).

    The coefficients that come back are the shortest ones; dependent columns share them.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> basis, back = ranges(xp.asarray([[2.0, 0.0], [0.0, 0.0]]), xp)
    >>> basis.shape, abs(back).tolist()
    ((2, 1), [[0.5], [0.0]])
    """
    basis, lengths, rows = xp.linalg.svd(factor, full_matrices=False)
    rank = int(xp.sum(xp.astype(lengths > lengths[0] * _cutoff(factor), xp.int64)))
    return basis[:, :rank], adjoint(rows[:rank, :], xp) / lengths[:rank]


def _cutoff(matrix: Any) -> float:
    """Relative size below which a singular value is rounding."""
    return 8 * max(matrix.shape) * eps(matrix.dtype)


def _khatri_rao(matrices: Sequence[Any], xp: Any) -> Any:
    result = matrices[0]
    for matrix in matrices[1:]:
        result = xp.reshape(result[:, None, :] * matrix[None], (-1, matrix.shape[1]))
    return result
