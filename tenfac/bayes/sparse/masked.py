"""Evidence of a Kronecker prior when measurements are missing: exact, by the smallest of three matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import get_lapack_funcs, solve_triangular

from tenfac.bayes.sparse.observed import Array, Observed
from tenfac.core.arrays import byte_guard, spans
from tenfac.core.contract import contract

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

    With ``C = noise I + A Gamma A^H`` over all places, which Kronecker eigenvectors diagonalise, and ``o``,
    ``m`` the places measured and missing, all that the evidence needs is ``E``, the inverse of ``C_oo``
    filled up with zeros: ``dL/dlog gamma_ij = c T (a_ij - b_ij)`` with

    ``a_ij = sum_l gamma_l |a_l^H E Y|^2 / T`` and ``b_ij = sum_l gamma_l a_l^H E a_l`` over the unknowns l
    with index j in mode i; for the noise ``|E Y|^2 / T`` and ``trace E``.

    `C_oo` is linear in each mode's variances, so that the fixed point ``gamma <- gamma a / b`` and the
    minorise-maximise step with the root of the ratio are what they are without a mask. Three exact ways, of
    which the one with the fewest operations is taken:

    * few missing: by the inverse of a block matrix
      ``E = C^-1 - C^-1 P^H (P C^-1 P^H)^-1 P C^-1``, P the rows missing. With ``L L^H = P C^-1 P^H`` the
      columns of ``F = C^-1 P^H L^-H`` count as further snapshots, with a minus sign in ``b``;
      ``log det C_oo = log det C + 2 log det L``. Costs ``|m| M sum M_i + |m|^3``.
    * few measured: ``C_oo`` itself, an elementwise product of the modes' Gram matrices at the places
      measured; ``b`` sums ``E_oo'`` times the other modes' Gram matrices over equal rows of mode i. Costs
      ``|o|^3``.
    * few columns left: their posterior, ``b`` the sum of ``1 - Sigma_ll / gamma_l``. Costs ``|o| k^2``.

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
    >>> Masked(data, [np.ones(2)], 1.0).statistics()[0]
    [(array([0.25, 0.  ]), array([0.5, 0. ]))]
    """

    def __init__(
        self, data: Observed, gammas: Sequence[Array], noise: float, axes: Sequence[Axes] | None = None
    ) -> None:
        self.data, self.gammas, self.noise = data, tuple(gammas), float(noise)
        pairs = zip(data.factors, self.gammas, strict=True)
        given: Sequence[Axes | None] = axes or [None] * len(gammas)
        self.axes = tuple(axis or axes_of(*pair) for axis, pair in zip(given, pairs, strict=True))
        self.values = reduce(np.multiply.outer, [axis.values for axis in self.axes])
        self.shrink, self.roots = 1 / (self.values + self.noise), np.sqrt(self.values)
        self.way = self._cheapest()
        ways = {"missing": self._by_missing, "measured": self._by_measured, "columns": self._by_columns}
        logdet, quadratic = ways[self.way]()
        self.evidence = data.log_constant() - data.weight * (data.snapshots * logdet + quadratic)

    def _cheapest(self) -> str:
        """The way with the fewest operations."""
        n, whole = self.data.size, self.shrink.size
        box = math.prod(int((gamma > 0).sum()) for gamma in self.gammas)
        costs = {
            "missing": (whole - n) ** 3 + 6 * (whole - n) * whole * sum(self.data.row_shape),
            "measured": n**3 + 10 * n**2,
            "columns": box**3 + 2 * n * box**2,
        }
        return min(costs, key=costs.__getitem__)

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
        self._lacking = np.flatnonzero(~there)
        inner = np.zeros((len(self._lacking),) * 2, dtype=data.values.dtype)
        for span in self._spans():
            inner[:, span] = self._at_missing(self.shrink * self._from_missing(_unit(inner, span))).T
        self._lower = np.linalg.cholesky(inner)
        turned = self._turn(data.spread(data.values.T))
        lacking = self._at_missing(turned * self.shrink).T
        halfway = _solve(self._lower, lacking)
        back = _solve(self._lower, halfway, adjoint=True)
        self.solved = self.shrink * (turned - self._from_missing(back.T))
        logdet = float(np.log(self.values + self.noise).sum())
        logdet += 2 * float(np.log(np.diag(self._lower).real).sum())
        quadratic = float(np.sum(abs(turned) ** 2 * self.shrink) - np.sum(abs(halfway) ** 2))
        return logdet, quadratic

    def _at_missing(self, tensors: Array) -> Array:
        """``P U`` times tensors in the axes of the modes: (b, m)."""
        full = contract(tensors, [None, *(axis.vectors for axis in self.axes)])
        return full.reshape(len(tensors), self.shrink.size)[:, self._lacking]

    def _from_missing(self, rows: Array) -> Array:
        """``(P U)^H`` times rows (b, m): tensors in the axes of the modes."""
        full = np.zeros((len(rows), self.shrink.size), dtype=rows.dtype)
        full[:, self._lacking] = rows
        return self._turn(full.reshape(len(rows), *self.data.row_shape))

    def _spans(self) -> Any:
        """Slices of the missing places, of which as many tensors make a block."""
        count = len(self._lacking)
        return spans(count, max(_BLOCK // self.shrink.size, 1)) if count else ()

    def _pseudo_snapshots(self) -> Any:
        """Blocks of the columns of ``F`` as tensors in the axes of the modes."""
        if len(self._lower):
            (trtri,) = get_lapack_funcs(("trtri",), (self._lower,))
            inverse = np.tril(trtri(self._lower, lower=1)[0]).conj()
        for span in self._spans():
            yield self.shrink * self._from_missing(inverse[span])

    # --- few measured ---

    def _by_measured(self) -> tuple[float, float]:
        data = self.data
        self._places = np.unravel_index(data.places, data.row_shape)
        covariance = reduce(np.multiply, [self._gram_at(i) for i in range(len(self.axes))])
        covariance[np.diag_indices(data.size)] += self.noise
        lower = np.linalg.cholesky(covariance)
        half = _solve(lower, data.values)
        self.solved = self._turn(data.spread(_solve(lower, half, adjoint=True).T))
        self._lower = lower
        return 2 * float(np.log(np.diag(lower).real).sum()), float(np.sum(abs(half) ** 2))

    def _gram_at(self, i: int) -> Array:
        """``A_i Gamma_i A_i^H`` at the rows of all pairs of places measured."""
        axis, rows = self.axes[i], self._places[i]
        gram = (axis.vectors * axis.values) @ axis.vectors.conj().T
        return gram[np.ix_(rows, rows)]

    # --- few columns ---

    def _by_columns(self) -> tuple[float, float]:
        data = self.data
        used = [np.flatnonzero(gamma > 0) for gamma in self.gammas]
        flat = np.ravel_multi_index(np.ix_(*used), data.column_shape).reshape(-1)
        roots = np.sqrt(reduce(np.multiply.outer, [g[u] for g, u in zip(self.gammas, used, strict=True)]))
        rows = data.columns(flat) * roots.reshape(-1, 1)
        inner = rows.conj() @ rows.T
        inner[np.diag_indices(len(inner))] += self.noise
        self._lower = np.linalg.cholesky(inner)
        self._whitened = _solve(self._lower, _solve(self._lower, rows.conj() @ data.values), adjoint=True)
        left = data.values - rows.T @ self._whitened
        self.solved = self._turn(data.spread(left.T / self.noise))
        logdet = 2 * float(np.log(np.diag(self._lower).real).sum())
        logdet += (data.size - len(inner)) * math.log(self.noise)
        quadratic = float(np.sum(abs(left) ** 2)) / self.noise + float(np.sum(abs(self._whitened) ** 2))
        return logdet, quadratic

    def _statistics_by_columns(self) -> tuple[list[tuple[Array, Array]], float]:
        """``a``, ``b`` and trace of ``E`` from the posterior of the box: ``b`` sums ``1 - Sigma / gamma``."""
        explained = 1 - self.noise * np.diag(_inverse(self._lower)).real
        squares = np.mean(abs(self._whitened) ** 2, axis=1)
        used = [gamma > 0 for gamma in self.gammas]
        pairs = []
        for i, keep in enumerate(used):
            rest = tuple(k for k in range(len(used)) if k != i)
            both = np.zeros((2, len(keep)))
            for row, values in zip(both, (squares, explained), strict=True):
                row[keep] = values.reshape([int(u.sum()) for u in used]).sum(axis=rest)
            pairs.append((both[0], both[1]))
        return pairs, (self.data.size - float(explained.sum())) / self.noise

    # --- derivatives ---

    def _turn(self, rows: Array) -> Array:
        return contract(rows, [None, *(axis.vectors.conj().T for axis in self.axes)])

    def statistics(self) -> tuple[list[tuple[Array, Array]], tuple[float, float]]:
        """``a`` and ``b`` of every mode's variances, both (N_i,), and ``|E Y|^2 / T`` and ``trace E``.

        The evidence changes with ``log gamma_i`` by ``c T (a - b)``, with the noise by ``c T`` times the
        difference of the last two.
        """
        modes = range(len(self.axes))
        misfit = float(np.sum(abs(self.solved) ** 2)) / self.data.snapshots
        if self.way == "columns":
            pairs, trace = self._statistics_by_columns()
            return pairs, (misfit, trace)
        moments = [one / self.data.snapshots for one in self._second_moments(self.solved)]
        a = [g * _quadratics(x.turned, m) for g, x, m in zip(self.gammas, self.axes, moments, strict=True)]
        if self.way == "missing":
            moments, trace = self._expected_moments()
            columns = [axis.turned for axis in self.axes]
        else:
            inverse = _inverse(self._lower)
            moments, trace = [self._summed(inverse, i) for i in modes], float(np.trace(inverse).real)
            columns = list(self.data.factors)
        b = [g * _quadratics(x, m) for g, x, m in zip(self.gammas, columns, moments, strict=True)]
        return list(zip(a, b, strict=True)), (misfit, trace)

    def _expected_moments(self) -> tuple[list[Array], float]:
        """Second moments as expected, of ``C^-1`` less the pseudo-snapshots; trace of ``E``."""
        modes = range(len(self.axes))
        moments, trace = [], float(self.shrink.sum())
        for i in modes:
            weights = self.shrink
            for k in modes:
                weights = (
                    weights
                    if k == i
                    else np.moveaxis(np.moveaxis(weights, k, -1) * self.axes[k].values, -1, k)
                )
            rest = tuple(k for k in modes if k != i)
            moments.append(np.diag(weights.sum(axis=rest)).astype(self.data.values.dtype))
        for block in self._pseudo_snapshots():
            trace -= float(np.sum(abs(block) ** 2))
            lost = self._second_moments(block)
            moments = [moment - less for moment, less in zip(moments, lost, strict=True)]
        return moments, trace

    def _second_moments(self, rows: Array) -> list[Array]:
        """Sums of products in each mode over tensors and all other modes, each weighted with its values.

        Where a mode has the value 0 no active column has a component, and 0 is written.
        """
        rows = rows * self.roots
        moments = []
        for i, axis in enumerate(self.axes):
            right = math.prod(self.data.row_shape[i + 1 :])
            parts = rows.reshape(-1, len(axis.values), right)
            flat = parts[:, :, 0]
            found = flat.T @ flat.conj() if right == 1 else (parts @ parts.conj().swapaxes(1, 2)).sum(axis=0)
            scale = np.where(axis.values > 0, 1 / np.sqrt(np.where(axis.values > 0, axis.values, 1.0)), 0.0)
            moments.append(found * scale[:, None] * scale)
        return moments

    def _summed(self, inverse: Array, i: int) -> Array:
        """``sum E_oo' conj(product of the other modes' Gram matrices)`` over places of equal rows."""
        others = [self._gram_at(k).conj() for k in range(len(self.axes)) if k != i]
        weighted = reduce(np.multiply, others, inverse)
        pick = np.zeros((self.data.row_shape[i], self.data.size))
        pick[self._places[i], np.arange(self.data.size)] = 1.0
        return pick @ weighted @ pick.T

    def posterior_mean(self, support: Sequence[Array]) -> Array:
        """Mean on the box of columns ``support`` of each mode, (T, k_1, ..., k_I), of the scaled values."""
        matrices = [
            axis.turned[:, s].conj().T * self.gammas[i][s][:, None]
            for i, (axis, s) in enumerate(zip(self.axes, support, strict=True))
        ]
        return contract(self.solved, [None, *matrices])


def _quadratics(columns: Array, moment: Array) -> Array:
    """``a^H moment a`` of every column, real."""
    return np.sum(columns.conj() * (moment @ columns), axis=0).real


def _unit(like: Array, span: slice) -> Array:
    """Rows ``span`` of the identity of the size of a square matrix."""
    unit = np.zeros((span.stop - span.start, len(like)), dtype=like.dtype)
    unit[np.arange(len(unit)), np.arange(span.start, span.stop)] = 1.0
    return unit


def _solve(lower: Array, columns: Array, adjoint: bool = False) -> Array:
    """Solve with a triangular factor ``L``, or ``L^H``; of any size."""
    if not len(lower):
        return columns
    return solve_triangular(lower, columns, lower=True, trans="C" if adjoint else "N", check_finite=False)


def _inverse(lower: Array) -> Array:
    """Inverse of ``L L^H``."""
    (potri,) = get_lapack_funcs(("potri",), (lower,))
    inverse, _ = potri(lower, lower=1)
    below = np.tril(inverse, -1)
    return below + below.conj().T + np.diag(np.diag(inverse).real)


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
        "That is a square matrix over the measurements missing, or over those there if these are fewer. "
        "Raise max_bytes, or leave out whole rows of a mode, which costs nothing."
    )
    byte_guard((side, side), 3 * data.values.itemsize, max_bytes, where, remedy)
