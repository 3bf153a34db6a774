"""Evidence of a Kronecker prior when some measurements are missing: exact, by the smaller side of the mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from ...core.arrays import byte_guard, spans
from ...core.contract import contract
from .observed import Array, Observed

_BLOCK = 2**22  # numbers in a block: 32 MB


class Axes(NamedTuple):
    """One mode under the prior: ``A diag(gamma) A^H = vectors diag(values) vectors^H``.

    Parameters
    ----------
    vectors : array, shape (M, M)
    values : array, shape (M,)
        Nonnegative.
    turned : array, shape (M, N)
        ``vectors^H A``.

    Examples
    --------
    >>> import numpy as np
    >>> axes_of(np.array([[3.0]]), np.array([2.0])).values
    array([18.])
    """

    vectors: Array
    values: Array
    turned: Array


def axes_of(factor: Array, gammas: Array) -> Axes:
    """Diagonalise one mode by the singular values of ``A diag(gamma)^1/2``.

    Examples
    --------
    >>> import numpy as np
    >>> axes_of(np.eye(2), np.array([1.0, 0.0])).values
    array([1., 0.])
    """
    used = gammas > 0
    scaled = factor[:, used] * np.sqrt(gammas[used])
    wide = scaled.shape[1] >= len(factor)
    vectors, roots, _ = np.linalg.svd(scaled, full_matrices=not wide)
    values = np.zeros(len(factor))
    values[: len(roots)] = roots**2
    return Axes(vectors, values, vectors.conj().T @ factor)


class Masked:
    """Evidence of the measurements that are there, and its derivatives.

    With ``C = noise I + A Gamma A^H`` over all places, which Kronecker eigenvectors diagonalise, and ``o``, ``m``
    the places measured and missing, all that the evidence needs is ``E``, the inverse of ``C_oo`` filled up
    with zeros: ``dL/dlog gamma_ij = c T (a_ij - b_ij)`` with

    ``a_ij = sum_l gamma_l |a_l^H E Y|^2 / T`` and ``b_ij = sum_l gamma_l a_l^H E a_l`` over the unknowns l with
    index j in mode i; for the noise ``|E Y|^2 / T`` and ``trace E``.

    `C_oo` is linear in each mode's variances, so that the fixed point ``gamma <- gamma a / b`` and the
    minorise-maximise step with the root of the ratio are what they are without a mask. Two exact ways:

    * few missing: by the inverse of a block matrix
      ``E = C^-1 - C^-1 P^H (P C^-1 P^H)^-1 P C^-1``, P the rows missing. With ``L L^H = P C^-1 P^H`` the
      columns of ``F = C^-1 P^H L^-H`` count as further snapshots, with a minus sign in ``b``; ``log det C_oo =
      log det C + 2 log det L``. Costs ``|m|^2 M``.
    * few measured: ``C_oo`` itself, an elementwise product of the modes' Gram matrices at the places measured;
      ``b`` sums ``E_oo'`` times the other modes' Gram matrices over equal rows of mode i. Costs ``|o|^3``.

    Nothing of the number of unknowns is formed.

    Parameters
    ----------
    data : Observed
    gammas : sequence of arrays, shapes (N_i,)
        Nonnegative.
    noise : float
        Of the scaled values.
    axes : sequence of Axes, optional
        Of ``gammas``, where known.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.bayes.sparse.observed import observe
    >>> data = observe([np.eye(2)], np.ones((2, 1)), np.array([True, False]))
    >>> Masked(data, [np.ones(2)], 1.0).statistics(0)
    (array([0.25, 0.  ]), array([0.5, 0. ]))
    """

    def __init__(
        self, data: Observed, gammas: Sequence[Array], noise: float, axes: Sequence[Axes] | None = None
    ) -> None:
        self.data, self.gammas, self.noise = data, tuple(gammas), float(noise)
        pairs = zip(data.factors, self.gammas, strict=True)
        self.axes = tuple(axis or axes_of(*pair) for axis, pair in zip(axes or [None] * len(gammas), pairs, strict=True))
        self.values = reduce(np.multiply.outer, [axis.values for axis in self.axes])
        self.shrink = 1 / (self.values + self.noise)
        self.few_missing = 2 * data.size > math.prod(data.row_shape)
        logdet, self._quadratic = self._by_missing() if self.few_missing else self._by_measured()
        c, snapshots = data.weight, data.snapshots
        self.evidence = data.log_constant() - c * (snapshots * logdet + self._quadratic)

    def with_mode(self, i: int, gammas: Array) -> Masked:
        """Give mode ``i`` other variances."""
        changed, axes = list(self.gammas), list(self.axes)
        changed[i], axes[i] = gammas, axes_of(self.data.factors[i], gammas)
        return Masked(self.data, changed, self.noise, axes)

    def with_noise(self, noise: float) -> Masked:
        """Take another noise variance."""
        return Masked(self.data, self.gammas, noise, self.axes)

    # --- few missing ---

    def _by_missing(self) -> tuple[float, float]:
        data = self.data
        there = np.zeros(math.prod(data.row_shape), dtype=bool)
        there[data.places] = True
        rows = np.unravel_index(np.flatnonzero(~there), data.row_shape)
        count = len(rows[0])
        self._missing = [axis.vectors[r] for axis, r in zip(self.axes, rows, strict=True)]
        inner = np.zeros((count, count), dtype=data.values.dtype)
        for part in spans(math.prod(data.row_shape[1:]), max(_BLOCK // max(count * data.row_shape[0], 1), 1)):
            across = self._rows(part)
            weights = self.shrink.reshape(data.row_shape[0], -1)[:, part].reshape(-1)
            inner += (across * weights) @ across.conj().T
        self._lower = np.linalg.cholesky(inner)
        turned = self._turn(data.spread(data.values.T))
        lacking = np.stack([self._at_missing(row * self.shrink) for row in turned], axis=-1)
        halfway = solve_triangular(self._lower, lacking, lower=True) if count else lacking
        back = solve_triangular(self._lower.conj().T, halfway, lower=False) if count else lacking
        self.solved = self.shrink * (turned - self._from_missing(back.T))
        logdet = float(np.log(self.values + self.noise).sum())
        logdet += 2 * float(np.log(np.diag(self._lower).real).sum())
        quadratic = float(np.sum(abs(turned) ** 2 * self.shrink) - np.sum(abs(halfway) ** 2))
        return logdet, quadratic

    def _rows(self, part: slice) -> Array:
        """Rows of ``P U`` for the missing places, all of the first mode and ``part`` of the others."""
        first, *others = self._missing
        across = np.ones((len(first), 1), dtype=first.dtype)
        for other in others:
            across = (across[:, :, None] * other[:, None, :]).reshape(len(first), across.shape[1] * other.shape[1])
        across = across[:, part]
        return (first[:, :, None] * across[:, None]).reshape(len(first), first.shape[1] * across.shape[1])

    def _at_missing(self, tensor: Array) -> Array:
        """``P U`` times one tensor."""
        return contract(tensor, self._missing, paired=tuple(range(len(self._missing))))

    def _from_missing(self, rows: Array) -> Array:
        """``(P U)^H`` times rows (b, m)."""
        adjoints = [None, *(axis.vectors.conj().T for axis in self.axes)]
        full = np.zeros((len(rows), math.prod(self.data.row_shape)), dtype=rows.dtype)
        lacking = np.ones(full.shape[1], dtype=bool)
        lacking[self.data.places] = False
        full[:, lacking] = rows
        return contract(full.reshape(len(rows), *self.data.row_shape), adjoints)

    def _pseudo_snapshots(self) -> Any:
        """Blocks of the columns of ``F`` as tensors in the axes of the modes."""
        count = len(self._lower)
        for span in spans(count, max(_BLOCK // self.shrink.size, 1)) if count else ():
            unit = np.zeros((count, span.stop - span.start), dtype=self._lower.dtype)
            unit[span] = np.eye(span.stop - span.start)
            yield self.shrink * self._from_missing(solve_triangular(self._lower.conj().T, unit, lower=False).T)

    # --- few measured ---

    def _by_measured(self) -> tuple[float, float]:
        data = self.data
        self._places = np.unravel_index(data.places, data.row_shape)
        covariance = reduce(np.multiply, [self._gram_at(i) for i in range(len(self.axes))])
        covariance[np.diag_indices(data.size)] += self.noise
        lower = np.linalg.cholesky(covariance)
        inverse = solve_triangular(lower, np.eye(data.size), lower=True)
        self._inverse = inverse.conj().T @ inverse
        half = inverse @ data.values
        solved = inverse.conj().T @ half
        self.solved = self._turn(data.spread(solved.T))
        return 2 * float(np.log(np.diag(lower).real).sum()), float(np.sum(abs(half) ** 2))

    def _gram_at(self, i: int) -> Array:
        """``A_i Gamma_i A_i^H`` at the rows of all pairs of places measured."""
        axis, rows = self.axes[i], self._places[i]
        gram = (axis.vectors * axis.values) @ axis.vectors.conj().T
        return gram[np.ix_(rows, rows)]

    # --- derivatives ---

    def _turn(self, rows: Array) -> Array:
        return contract(rows, [None, *(axis.vectors.conj().T for axis in self.axes)])

    def statistics(self, i: int) -> tuple[Array, Array]:
        """``a`` and ``b`` of the variances of mode ``i``, both (N_i,); ``dL/dlog gamma = c T (a - b)``."""
        turned, gammas = self.axes[i].turned, self.gammas[i]
        a = gammas * _quadratics(turned, self._second_moment(self.solved, i)) / self.data.snapshots
        if not self.few_missing:
            return a, gammas * _quadratics(self.data.factors[i], self._summed_inverse(i))
        weights = self.shrink
        for k, axis in enumerate(self.axes):
            weights = weights if k == i else np.moveaxis(np.moveaxis(weights, k, -1) * axis.values, -1, k)
        rest = tuple(k for k in range(len(self.axes)) if k != i)
        moment = np.diag(weights.sum(axis=rest)).astype(turned.dtype)
        for block in self._pseudo_snapshots():
            moment -= self._second_moment(block, i)
        return a, gammas * np.maximum(_quadratics(turned, moment), 0.0)

    def noise_statistics(self) -> tuple[float, float]:
        """``|E Y|^2 / T`` and ``trace E``; ``dL/dnoise = c T (first - second)``."""
        first = float(np.sum(abs(self.solved) ** 2)) / self.data.snapshots
        if not self.few_missing:
            return first, float(np.trace(self._inverse).real)
        lost = sum(float(np.sum(abs(block) ** 2)) for block in self._pseudo_snapshots())
        return first, float(self.shrink.sum()) - lost

    def _second_moment(self, rows: Array, i: int) -> Array:
        """Sum over tensors and all other modes, each weighted with its values, of the products in mode ``i``."""
        for k, axis in enumerate(self.axes):
            if k != i:
                rows = np.moveaxis(np.moveaxis(rows, k + 1, -1) * np.sqrt(axis.values), -1, k + 1)
        flat = np.moveaxis(rows, i + 1, 0).reshape(rows.shape[i + 1], -1)
        return flat @ flat.conj().T

    def _summed_inverse(self, i: int) -> Array:
        """``sum E_oo' conj(product of the other modes' Gram matrices)`` over the places of each pair of rows."""
        others = [self._gram_at(k).conj() for k in range(len(self.axes)) if k != i]
        weighted = reduce(np.multiply, others, self._inverse)
        pick = np.zeros((self.data.row_shape[i], self.data.size))
        pick[self._places[i], np.arange(self.data.size)] = 1.0
        return pick @ weighted @ pick.T

    def posterior_mean(self, support: Sequence[Array]) -> Array:
        """Mean on the box of columns ``support`` of each mode, (T, k_1, ..., k_I), of the scaled values."""
        matrices = [axis.turned[:, s].conj().T * self.gammas[i][s][:, None] for i, (axis, s) in enumerate(zip(self.axes, support, strict=True))]
        return contract(self.solved, [None, *matrices])


def _quadratics(columns: Array, moment: Array) -> Array:
    """``a^H moment a`` of every column, real."""
    return np.sum(columns.conj() * (moment @ columns), axis=0).real


def check_memory(data: Observed, max_bytes: float, where: str) -> None:
    """Refuse a mask of which both sides are too large for a square matrix.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.bayes.sparse.observed import observe
    >>> check_memory(observe([np.eye(2)], np.ones((2, 1))), 1e9, "fit")
    """
    side = min(data.size, math.prod(data.row_shape) - data.size)
    remedy = (
        "That is a square matrix over the measurements missing, or over those there if these are fewer. Raise "
        "max_bytes, or leave out whole rows of a mode, which costs nothing."
    )
    byte_guard((side, side), 3 * data.values.itemsize, max_bytes, where, remedy)
