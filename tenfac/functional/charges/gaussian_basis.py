"""``GaussianBasis``: Gaussians on any centers in one basis per mode: their sum is one moment tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from tenfac.core.arrays import device_of, eps, namespace_of, spans, to_number
from tenfac.core.door import door
from tenfac.core.errors import DataError
from tenfac.core.modes.chebyshev import Chebyshev, coefficients, lobatto
from tenfac.core.truncate import truncate
from tenfac.core.tucker import Tucker
from tenfac.functional.charges.checks import check_box, check_charges, check_terms, check_tol

# Share of the tolerance that the basis may use, the part of it a degree may use, and the share of rounding.
_BASIS, _DEGREE, _ROUNDING = 0.3, 0.1, 0.1
# Room for what the estimate of a mode's coefficients leaves out: a share of the budget, and coefficients.
_SLACK, _MORE = 1e3, 24
# Most coefficients of a mode: 63 tables of this size squared are 0.5 GB.
_MOST = 1024
# Numbers formed at once: 32 MB in float64.
_NUMBERS = 2**22
# Errors of one Gaussian of height 1 allowed: no less than rounding, no more than all of it.
_BUDGETS = 4e-16, 1.0
# Exponents below it (a box is 2 wide) are taken together with it.
_SMOOTH = 0.125
# Largest share of its size that a core may lose, and the least in roundings.
_MOST_LOST, _LEAST_LOST = 0.5, 4


@dataclass(frozen=True, eq=False)
class _Axis:
    """One mode: the basis (even functions first), and each Gaussian as a matrix in it, by parity."""

    mode: Chebyshev
    factor: np.ndarray  # (n, r)
    n_even: int
    tables: tuple[tuple[np.ndarray, np.ndarray], ...]  # per Gaussian: leading even block, leading odd block

    def part(self, parity: int) -> slice:
        return slice(0, self.n_even) if parity == 0 else slice(self.n_even, self.factor.shape[1])


@door
class GaussianBasis:
    """Functions in which every term of ``sum_k w_k exp(-tau_k |x - s|^2)`` with its center in a box is short.

    For each mode an orthonormal matrix ``W`` of Chebyshev coefficients, and for each Gaussian the matrix
    ``b_k`` with ``exp(-tau_k (x - s)^2) = W(x) b_k W(s)^T``. A sum over any number of centers is then the
    Tucker tensor of core ``sum_k w_k M x b_k x b_k x b_k`` and factors ``W``, where ``M``, the moments, is
    ``sum_nu z_nu W(s_nu) (x) W(s_nu) (x) W(s_nu)``. It depends on the Gaussians, the box and ``tol`` only:
    keep it, and use it for as many sums as there are.

    Parameters
    ----------
    exponents : array, shape (K,)
        ``tau_k``, 0 or more, in 1 / length^2.
    weights : array, shape (K,), optional
        ``w_k``; 1 if not given.
    domain : sequence of (float, float)
        The box, one interval per variable, that holds centers and points.
    tol : float
        Largest error of the sum for one center, relative to ``sum |w_k|``, its largest possible value.

    Attributes
    ----------
    exponents, weights : array, shape (K,)
        Sorted by exponent.
    domain : tuple of (float, float)
    tol : float
    rank : tuple of int
        Columns of ``W`` in each mode.
    modes : tuple of Chebyshev

    Raises
    ------
    DataError, ShapeError
        If an argument is not as said, or a Gaussian is too narrow for the box.

    Notes
    -----
    The basis is nested: smooth Gaussians use its first columns only, so that the core costs about
    ``6 sum_k r_k^4`` operations with ``r_k`` far below ``r`` for most ``k``. The moments cost
    ``2 N r^3``, whatever K is: a black-box fast multipole method [1]_ of one level. Widths of modes are those
    of the box; equal ones are computed once.

    References
    ----------
    .. [1] W. Fong and E. Darve, The black-box fast multipole method, J. Comput. Phys. 228 (2009).
       doi:10.1016/j.jcp.2009.08.031
    .. [2] P. Benner, V. Khoromskaia, B. Khoromskij and B. Sun, arXiv:2503.01696 (the format).

    Examples
    --------
    >>> import numpy as np
    >>> basis = GaussianBasis([1.0, 4.0], [0.5, 2.0], domain=[(-1, 1)] * 3, tol=1e-8)
    >>> basis
    GaussianBasis(2 Gaussians, rank=(20, 20, 20), tol=1e-08)
    >>> F = basis.sum(np.array([[0.1, 0.2, 0.3]]), np.array([1.0]))
    >>> round(float(F.at(0.1, 0.2, 0.3)), 6)
    2.5
    """

    def __init__(
        self,
        exponents: Any,
        weights: Any = None,
        *,
        domain: Sequence[tuple[float, float]],
        tol: float = 1e-10,
    ) -> None:
        where = "GaussianBasis"
        self.domain = check_box(domain, where)
        self.tol = check_tol(tol, where)
        self.exponents, self.weights = check_terms(exponents, weights, where)
        total = np.abs(self.weights).sum()
        with np.errstate(divide="ignore", over="ignore"):  # a weight of 0
            share = total / (len(self.weights) * np.abs(self.weights))
        budgets = np.clip(_BASIS * self.tol * share, *_BUDGETS)
        found: dict[float, _Axis] = {}
        axes = []
        for interval in self.domain:
            half = (interval[1] - interval[0]) / 2
            if half not in found:
                found[half] = _axis(self.exponents * half**2, budgets, where)
            axes.append(replace(found[half], mode=Chebyshev(found[half].mode.size, interval)))
        self._axes = tuple(axes)

    @property
    def rank(self) -> tuple[int, ...]:
        """Functions of the basis in each mode."""
        return tuple(axis.factor.shape[1] for axis in self._axes)

    @property
    def factors(self) -> tuple[np.ndarray, ...]:
        """Coefficients ``W`` of the basis functions in each mode."""
        return tuple(axis.factor for axis in self._axes)

    @property
    def modes(self) -> tuple[Chebyshev, ...]:
        """Chebyshev modes of the sums."""
        return tuple(axis.mode for axis in self._axes)

    def __repr__(self) -> str:
        return f"GaussianBasis({len(self.weights)} Gaussians, rank={self.rank}, tol={self.tol:g})"

    # --- the three steps --------------------------------------------------------------------------------

    def rows(self, points: Any, *, derivative: int | None = None) -> list[Any]:
        """Values of the basis functions at points, or in one mode their derivative.

        Parameters
        ----------
        points : array, shape (N, D)
        derivative : int, optional
            The mode whose functions are differentiated.

        Returns
        -------
        list of D arrays, shapes (N, r_n)
        """
        xp = namespace_of(points)
        made = []
        for n, axis in enumerate(self._axes):
            factor = xp.asarray(axis.factor, dtype=points.dtype, device=device_of(points))
            made.append(rows_of(axis.mode, factor, points[:, n], int(n == derivative), xp))
        return made

    def moments(self, centers: Any, amplitudes: Any) -> Any:
        """Moments ``M = sum_nu z_nu W(s_nu) (x) ... (x) W(s_nu)``.

        Parameters
        ----------
        centers : array, shape (N, D)
        amplitudes : array, shape (N,)

        Returns
        -------
        array, shape (r_0, ..., r_{D-1})
            In the library of the centers, and differentiable in both arguments where the library is.
        """
        centers, amplitudes = check_charges(centers, amplitudes, self.domain, "GaussianBasis.moments")
        xp = namespace_of(centers)
        step = max(_NUMBERS // max(math.prod(self.rank[1:]), 1), 64)
        total: Any = 0.0
        for span in spans(centers.shape[0], step):
            first, *rest = self.rows(centers[span, :])
            others = row_products(rest, first.shape[0], xp)
            scaled = first * amplitudes[span][:, None]
            part = xp.matmul(xp.matrix_transpose(scaled), others) if rest else xp.sum(scaled, axis=0)
            total = total + part
        return xp.reshape(total, self.rank)

    def core(self, moments: Any) -> Any:
        """Core of the sum with these moments, ``sum_k w_k M x b_k x ... x b_k``.

        Parameters
        ----------
        moments : array, shape (r_0, ..., r_{D-1})

        Returns
        -------
        array, shape (r_0, ..., r_{D-1})

        Notes
        -----
        A linear symmetric map ``L``: the energy of amplitudes is ``<M, L M> / 2``.
        """
        xp = namespace_of(moments)
        out = xp.zeros(self.rank, dtype=moments.dtype, device=device_of(moments))
        for parities in product((0, 1), repeat=len(self._axes)):
            place = tuple(axis.part(p) for axis, p in zip(self._axes, parities, strict=True))
            block = self._block(moments[place], parities, xp)
            out = _add(out, place, block)
        return out

    def _block(self, moments: Any, parities: Sequence[int], xp: Any) -> Any:
        """The part of the core that the moments of these parities give."""
        out = xp.zeros_like(moments)
        like = {"dtype": moments.dtype, "device": device_of(moments)}
        for k, weight in enumerate(self.weights):
            tables = [axis.tables[k][p] for axis, p in zip(self._axes, parities, strict=True)]
            if min(len(table) for table in tables) == 0:
                continue
            place = tuple(slice(len(table)) for table in tables)
            part, tables[0] = moments[place], tables[0] * weight
            for table in reversed(tables):  # the last mode is multiplied, and comes first
                turned = xp.matrix_transpose(xp.reshape(part, (-1, len(table))))
                part = xp.asarray(table, **like) @ turned
            out = _add(out, place, xp.reshape(part, tuple(len(table) for table in tables)))
        return out

    def sum(self, centers: Any, amplitudes: Any, *, compressed: bool = True) -> Tucker:
        """The sum ``sum_nu z_nu sum_k w_k exp(-tau_k |x - s_nu|^2)`` as a function.

        Parameters
        ----------
        centers : array, shape (N, D)
            In the box.
        amplitudes : array, shape (N,)
        compressed : bool
            Lower the rank to what these centers need. Not differentiable.

        Returns
        -------
        Tucker
            With Chebyshev modes.
        """
        core = self.core(self.moments(centers, amplitudes))
        return self.function(core, compressed=compressed)

    def function(self, core: Any, *, compressed: bool = True, budget: float | None = None) -> Tucker:
        """The function of a core.

        Parameters
        ----------
        core : array, shape (r_0, ..., r_{D-1})
        compressed : bool
            Lower the rank to ``tol``. Not differentiable.
        budget : float, optional
            Error of the coefficients allowed for that; ``tol / 10`` of their norm if not given.

        Returns
        -------
        Tucker
        """
        xp = namespace_of(core)
        core = core.detach() if compressed and hasattr(core, "detach") else core
        factors = [xp.asarray(a.factor, dtype=core.dtype, device=device_of(core)) for a in self._axes]
        modes = self.modes
        if not compressed:
            return Tucker(core, factors, modes)
        size = to_number(xp.linalg.vector_norm(xp.reshape(core, (-1,))))
        # charges that cancel, or are zero, have no size
        share = _ROUNDING * self.tol if budget is None or not size else min(budget / size, _MOST_LOST)
        small, turns, _ = truncate(core, None, max(share, _LEAST_LOST * eps(core.dtype)))
        return Tucker(small, [xp.matmul(w, u) for w, u in zip(factors, turns, strict=True)], modes)


# --- the basis of one mode ----------------------------------------------------------------------------------


def _axis(tau: np.ndarray, budgets: np.ndarray, where: str) -> _Axis:
    """Basis on [-1, 1] of Gaussians in ascending order of exponent, each to its own budget."""
    sizes = [_size(t, budget) for t, budget in zip(tau, budgets, strict=True)]
    if max(sizes) > _MOST:
        raise DataError(
            f"{where}: the narrowest Gaussian must be wider than 1/{_MOST // 8} of the box; got a width of "
            f"{1 / math.sqrt(tau[-1]):.2g} half boxes. Sum narrow ones over near neighbors instead: a "
            "smaller `alpha`."
        )
    grams = [_trimmed(_table(t, n), _DEGREE * b) for t, n, b in zip(tau, sizes, budgets, strict=True)]
    size = max(len(gram) for gram in grams)
    size += size % 2
    octaves = np.floor(np.log2(np.maximum(tau, _SMOOTH)) / 2)
    bases = [_nested([gram[p::2, p::2] for gram in grams], budgets, octaves, size // 2) for p in (0, 1)]
    factor = np.zeros((size, sum(basis.shape[1] for basis, _ in bases)))
    n_even = bases[0][0].shape[1]
    factor[0::2, :n_even], factor[1::2, n_even:] = bases[0][0], bases[1][0]
    tables = []
    for k, gram in enumerate(grams):
        pair = []
        for p, (basis, ranks) in enumerate(bases):
            part = gram[p::2, p::2]
            used = basis[: len(part), : ranks[k]]
            pair.append(used.T @ part @ used)
        tables.append(tuple(pair))
    return _Axis(Chebyshev(size), factor, n_even, tuple(tables))


def _size(tau: float, budget: float) -> int:
    """Coefficients that are enough for ``exp(-tau (x - s)^2)``: they fall like ``exp(-n^2 / 4 tau)``."""
    return int(2 * math.sqrt(tau * math.log(_SLACK / budget))) + _MORE


def _table(tau: float, size: int) -> np.ndarray:
    """Chebyshev coefficients of ``exp(-tau (x - s)^2)`` in both variables."""
    x = lobatto(size)
    found = coefficients(coefficients(np.exp(-tau * (x[:, None] - x) ** 2)).T)
    return (found + found.T) / 2


def _trimmed(table: np.ndarray, budget: float) -> np.ndarray:
    """Without the degrees whose sum is below the budget."""
    tails = np.cumsum(np.abs(table).max(axis=1)[::-1])[::-1]
    kept = int(np.sum(tails > budget))
    return table[:kept, :kept]


def _nested(
    tables: Sequence[np.ndarray], budgets: np.ndarray, octaves: np.ndarray, size: int
) -> tuple[np.ndarray, list[int]]:
    """Orthonormal columns; the leading ``ranks[k]`` of them span table k to its budget.

    Gaussians of one octave are taken together: one after the other would need 30 % more columns.
    """
    basis, ranks = np.zeros((size, 0)), []
    for octave in np.unique(octaves):
        members = [int(k) for k in np.flatnonzero(octaves == octave)]
        joint = np.zeros((size, sum(tables[k].shape[1] for k in members)))
        at = 0
        for k in members:
            table = tables[k]
            joint[: len(table), at : at + len(table)] = table / budgets[k]
            at += len(table)
        joint -= basis @ (basis.T @ joint)
        u, s, _ = np.linalg.svd(joint, full_matrices=False)
        tails = np.sqrt(np.cumsum((s**2)[::-1])[::-1])
        new = u[:, : int(np.sum(tails > math.sqrt(len(members))))]
        basis = np.linalg.qr(np.concatenate([basis, new], axis=1))[0]
        ranks += [basis.shape[1]] * len(members)
    return basis, ranks


def rows_of(mode: Chebyshev, factor: Any, x: Any, derivative: int, xp: Any) -> Any:
    """Values or derivatives at points that were checked before; also where gradients are recorded."""
    for _ in range(derivative):
        mode, factor = mode.diff(factor)
    return xp.matmul(mode.basis(x, xp), factor)


# --- small products -----------------------------------------------------------------------------------------


def row_products(rows: Sequence[Any], n_points: int, xp: Any) -> Any:
    """Products of the rows of matrices, ``(N, r_0 r_1 ...)``; None of none."""
    made = None
    for row in rows:
        made = row if made is None else xp.reshape(made[:, :, None] * row[:, None, :], (n_points, -1))
    return made


def _add(array: Any, place: tuple[slice, ...], values: Any) -> Any:
    if hasattr(array, "at"):  # JAX, whose arrays do not change
        return array.at[place].add(values)
    array[place] += values
    return array
