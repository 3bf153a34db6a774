"""Made measurements of coefficients with a Kronecker support: the synthetic experiments of Kronecker SBL."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.core.arrays import byte_guard, generator
from tenfac.core.contract import contract
from tenfac.core.door import door
from tenfac.core.errors import DataError, ShapeError, check_option

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class SparseProblem:
    """Measurements ``y = x x_1 A_1 ... x_I A_I + noise`` of coefficients with a Kronecker support; the truth.

    Parameters
    ----------
    factors : tuple of ndarray, shapes (M_i, N_i)
        Dictionaries.
    y : ndarray, shape (M_1, ..., M_I) or (M_1, ..., M_I, T)
        With a trailing axis of snapshots if they were asked for.
    noise : float
        Standard deviation of the noise (of a complex number: of both parts together).
    support : tuple of int ndarray, shapes (K_i,)
        Columns of every mode that are used, ascending.
    coef : ndarray, shape (K_1, ..., K_I) or (K_1, ..., K_I, T)
        Values on their box; all other coefficients are zero.

    Examples
    --------
    >>> make_kronecker_sparse((8, 12), 15, 2, random_state=0)
    SparseProblem(measurements=8x12, unknowns=15x15, columns=2x2, float64)
    """

    factors: tuple[Array, ...]
    y: Array
    noise: float
    support: tuple[Array, ...]
    coef: Array

    def coef_tensor(self, *, max_bytes: int | None = 10**9) -> Array:
        """Return all coefficients, shape (N_1, ..., N_I) or (N_1, ..., N_I, T).

        Raises
        ------
        DataError
            If they need more than ``max_bytes``.

        Examples
        --------
        >>> problem = make_kronecker_sparse((8, 12), 15, 2, random_state=0)
        >>> x = problem.coef_tensor()
        >>> x.shape, int((x != 0).sum())
        ((15, 15), 4)
        """
        shape = (*(A.shape[1] for A in self.factors), *self.coef.shape[len(self.factors) :])
        remedy = "Use `coef` and `support`, or raise max_bytes."
        byte_guard(shape, self.coef.dtype.itemsize, max_bytes, "SparseProblem.coef_tensor", remedy)
        dense = np.zeros(shape, dtype=self.coef.dtype)
        dense[np.ix_(*self.support)] = self.coef
        return dense

    def __repr__(self) -> str:
        sizes = ["x".join(map(str, column)) for column in zip(*(A.shape for A in self.factors), strict=True)]
        columns = "x".join(str(rows.size) for rows in self.support)
        return (
            f"SparseProblem(measurements={sizes[0]}, unknowns={sizes[1]}, columns={columns}, {self.y.dtype})"
        )


@door
def make_kronecker_sparse(
    measurements: Sequence[int] = (8, 12, 15),
    unknowns: int | Sequence[int] = 15,
    columns: int | Sequence[int] = 3,
    *,
    snr_db: float = 20.0,
    values: str = "free",
    complex_values: bool = False,
    snapshots: int | None = None,
    random_state: int | np.random.Generator | None = 0,
) -> SparseProblem:
    """Make a sparse recovery problem with standard normal dictionaries and a Kronecker support.

    Parameters
    ----------
    measurements : sequence of int
        M_i, rows of the dictionary of every mode. The paper's sweep has 6 to 14 in the first of three.
    unknowns : int or sequence of int
        N_i, columns; one number serves all modes.
    columns : int or sequence of int
        K_i, how many columns of every mode carry values.
    snr_db : float
        Mean power of the measurements without noise over the variance of the noise, in decibels; ``inf`` for
        no noise.
    values : {"free", "rank1"}
        Independent values on the support, or an outer product of one vector per mode. The curves of [1]_ over
        noise, measurements and sparsity are for ``"rank1"``, where the measurements without noise have rank
        one; only its runs of convergence have free values.
    complex_values : bool
        Circular complex normal dictionaries, values and noise.
    snapshots : int, optional
        How many measurements share dictionaries and support, with values and noise of their own.
    random_state : int, numpy.random.Generator or None
        None draws another problem every time.

    Returns
    -------
    SparseProblem

    Raises
    ------
    ShapeError, DataError
        If sizes do not fit each other or are not whole numbers, or a word is not known.

    References
    ----------
    .. [1] Y. He and G. Joseph, Bayesian Algorithms for Kronecker-structured Sparse Vector Recovery With
       Application to IRS-MIMO Channel Estimation, IEEE Transactions on Signal Processing (2024), synthetic
       experiments. arXiv:2307.14719

    Examples
    --------
    >>> problem = make_kronecker_sparse(random_state=0)
    >>> problem
    SparseProblem(measurements=8x12x15, unknowns=15x15x15, columns=3x3x3, float64)
    >>> problem.y.shape, problem.coef.shape
    ((8, 12, 15), (3, 3, 3))
    """
    rows = _counts(measurements, None, "measurements")
    wide = _counts(unknowns, len(rows), "unknowns")
    many = _counts(columns, len(rows), "columns")
    if any(k > n for k, n in zip(many, wide, strict=True)):
        raise DataError(
            f"make_kronecker_sparse: columns {many} must be at most unknowns {wide}, mode by mode. "
            "Lower columns."
        )
    check_option(values, ("free", "rank1"), "make_kronecker_sparse", "values")
    if not isinstance(snr_db, Real) or math.isnan(snr_db) or snr_db == -math.inf:
        raise DataError(f"make_kronecker_sparse: `snr_db` must be a number of decibels; got {snr_db!r}.")
    tail = () if snapshots is None else _counts([snapshots], 1, "snapshots")
    rng = generator(random_state)
    factors = tuple(normal(rng, (m, n), complex_values) for m, n in zip(rows, wide, strict=True))
    support = tuple(np.sort(rng.choice(n, k, replace=False)) for n, k in zip(wide, many, strict=True))
    if values == "free":
        coef = normal(rng, (*many, *tail), complex_values)
    else:
        drawn = [[normal(rng, (k,), complex_values) for k in many] for _ in range(math.prod(tail))]
        coef = np.stack([reduce(np.multiply.outer, v) for v in drawn], axis=-1).reshape(*many, *tail)
    used = [A[:, s] for A, s in zip(factors, support, strict=True)]
    clean = contract(coef, [*used, *(None for _ in tail)], xp=np)
    y, noise = with_noise(rng, clean, snr_db)
    return SparseProblem(factors, y, noise, support, coef)


def with_noise(rng: np.random.Generator, clean: Array, snr_db: float) -> tuple[Array, float]:
    """Add white noise of the power that a ratio of signal to noise asks for; measurements, and its deviation.

    Examples
    --------
    >>> y, noise = with_noise(np.random.default_rng(0), 2 * np.ones((2, 2)), 20.0)
    >>> noise
    0.2
    """
    noise = math.sqrt(float(np.mean(np.abs(clean) ** 2)) / 10 ** (snr_db / 10))
    return clean + noise * normal(rng, clean.shape, np.iscomplexobj(clean)), noise


def normal(rng: np.random.Generator, shape: tuple[int, ...], complex_values: bool) -> Array:
    """Standard normal numbers, circular complex ones of unit variance.

    Examples
    --------
    >>> normal(np.random.default_rng(0), (2,), True).dtype
    dtype('complex128')
    """
    if not complex_values:
        return rng.standard_normal(shape)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / math.sqrt(2)


def _counts(given: Any, d: int | None, name: str) -> tuple[int, ...]:
    where = f"make_kronecker_sparse: `{name}`"
    if isinstance(given, Integral) and d is not None:
        given = (given,) * d
    if not isinstance(given, (list, tuple, np.ndarray)) or len(given) != (d or len(given) or 1):
        wanted = "one number for each mode" if d is None else f"one number, or {d} as there are modes"
        raise ShapeError(f"{where} must be {wanted}; got {given!r}.")
    if not all(isinstance(n, Integral) and not isinstance(n, bool) and int(n) >= 1 for n in given):
        raise DataError(f"{where} must be whole numbers from 1 up; got {given!r}.")
    return tuple(int(n) for n in given)
