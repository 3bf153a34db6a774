"""Sums of Kronecker products: products with vectors for any number of terms, solving for two."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from tenfac.core.arrays import namespace_of
from tenfac.core.contract import adjoint
from tenfac.core.door import door
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.report import Report
from tenfac.kron.base import StructuredMatrix, check_hermitian, known, outer
from tenfac.kron.determinant import SignedLog, positive_log
from tenfac.kron.operator import KroneckerOperator
from tenfac.kron.spectral import Diagonalized, check_regular, implicit_solve

# Terms that ``repr`` writes out.
_SHOWN = 3


@door
@dataclass(frozen=True, eq=False, repr=False)
class SumOfKronecker(StructuredMatrix):
    """The matrix ``A_0 kron A_1 kron ... + B_0 kron B_1 kron ... + ...``, never formed.

    Parameters
    ----------
    *terms : KroneckerOperator, ShiftedKronecker or SumOfKronecker
        At least one, all of one shape, library and device. Brought to one dtype.
    info : Report, optional
        How the terms were computed. Algebra drops it.

    Raises
    ------
    ShapeError
        If the terms differ in shape.
    TypeError
        If a term is something else, or libraries or devices differ.

    Notes
    -----
    Products, adjoint and dense form work for any terms. ``solve``, ``slogdet`` and ``logdet`` are direct for
    two terms with Hermitian factors of equal sizes, where in every mode one of the two factors is positive
    definite; ``A kron I + I kron B`` with any Hermitian ``A`` and ``B`` is such a sum. For other sums use an
    iterative solver with ``to_scipy()``.

    References
    ----------
    .. [1] C. F. Van Loan, The ubiquitous Kronecker product, Journal of Computational and Applied Mathematics
       123 (2000), section 4. doi:10.1016/S0377-0427(00)00393-9

    Examples
    --------
    >>> import numpy as np
    >>> A, I = np.diag([1.0, 2.0]), np.eye(2)
    >>> S = KroneckerOperator(A, I) + KroneckerOperator(I, A)
    >>> S
    SumOfKronecker(shape=(4, 4), terms=(2x2, 2x2) + (2x2, 2x2), numpy.float64, 16 numbers for 16 entries)
    >>> S.diag()
    array([2., 3., 3., 4.])
    """

    terms: tuple[KroneckerOperator, ...]
    info: Report | None = field(default=None)

    def __init__(self, *terms: Any, info: Report | None = None) -> None:
        flat: list[KroneckerOperator] = []
        for term in terms:
            if not isinstance(term, StructuredMatrix):
                raise TypeError(
                    "SumOfKronecker: every term must be a KroneckerOperator or a sum of such; got "
                    f"{type(term).__name__}. Write KroneckerOperator(*factors)."
                )
            flat += term.terms
        shapes = [term.shape for term in flat]
        if len(set(shapes)) != 1:
            raise ShapeError(f"SumOfKronecker: needs terms of one shape; got {shapes}.")
        xp = namespace_of(*(factor for term in flat for factor in term.factors))
        dtype = xp.result_type(*(term._like for term in flat))
        cast = (term if term.dtype == dtype else term._cast(dtype) for term in flat)
        object.__setattr__(self, "terms", tuple(cast))
        object.__setattr__(self, "info", info)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return self.terms[0].shape

    def _arrays(self) -> tuple[Any, ...]:
        return tuple(factor for term in self.terms for factor in term.factors)

    def _structure(self) -> str:
        shown = [f"({term._structure().removeprefix('factors=')})" for term in self.terms[:_SHOWN]]
        more = len(self.terms) - _SHOWN
        return f"terms={' + '.join(shown)}" + (f" + {more} more" if more > 0 else "")

    def _cast(self, dtype: Any) -> SumOfKronecker:
        return SumOfKronecker(*(term._cast(dtype) for term in self.terms))

    def _times(self, columns: Any, xp: Any) -> Any:
        result = self.terms[0]._times(columns, xp)
        for term in self.terms[1:]:
            result = result + term._times(columns, xp)
        return result

    @property
    def T(self) -> SumOfKronecker:  # noqa: N802
        """Transpose, without conjugation."""
        return SumOfKronecker(*(term.T for term in self.terms))

    @property
    def H(self) -> SumOfKronecker:  # noqa: N802
        """Adjoint: conjugate transpose of every term."""
        return SumOfKronecker(*(term.H for term in self.terms))

    def __add__(self, other: Any) -> Any:
        return SumOfKronecker(self, other) if isinstance(other, StructuredMatrix) else NotImplemented

    def _scaled(self, scalar: Any) -> SumOfKronecker:
        return SumOfKronecker(*(term * scalar for term in self.terms))

    def _dense(self) -> Any:
        result = self.terms[0]._dense()
        for term in self.terms[1:]:
            result = result + term._dense()
        return result

    def diag(self) -> Any:
        """Diagonal, shape (N,), of terms with square factors.

        Raises
        ------
        ShapeError
            If a factor is not square.
        """
        return sum((term.diag() for term in self.terms[1:]), self.terms[0].diag())

    # --- two terms ---

    def diagonalize(self) -> Diagonalized:
        """Find the basis that makes both of two terms diagonal, to solve more than once.

        In mode k, with ``B_k = L L^H`` and ``L^-1 A_k L^-H = Q diag(a) Q^H``, the basis ``W_k = L^-H Q``
        gives ``W_k^H B_k W_k = I`` and ``W_k^H A_k W_k = diag(a)`` [1]_; where only ``A_k`` is definite they
        change places.

        Returns
        -------
        Diagonalized
            ``basis`` and ``values`` with ``W^H (A + B) W = diag(values)``.

        Raises
        ------
        ShapeError
            If there are not two terms of equal square factors.
        DataError
            If a factor is not Hermitian, or in some mode neither of the two is positive definite.

        Notes
        -----
        Cost: about ``sum 14 N_k^3``.

        References
        ----------
        .. [1] G. H. Golub and C. F. Van Loan, Matrix Computations, 4th edition (2013), algorithm 8.7.1
        """
        where = "SumOfKronecker.diagonalize"
        if len(self.terms) != 2 or self.terms[0].row_shape != self.terms[1].row_shape:
            raise ShapeError(
                f"{where}: needs two terms with factors of equal sizes; got {self._structure()}. For other "
                "sums use an iterative solver, such as scipy.sparse.linalg.cg(S.to_scipy(), y)."
            )
        for term in self.terms:
            check_hermitian(term.factors, where)
        xp = self._xp
        left, right = self.terms
        first, second, basis, log_volume, sizes = [], [], [], 0, left.row_shape
        for mode, (a, b) in enumerate(zip(left.factors, right.factors, strict=True)):
            a_values, b_values, vectors, log_det = _both_diagonal(a, b, mode, xp)
            first.append(a_values)
            second.append(b_values)
            basis.append(vectors)
            log_volume = log_volume + math.prod(sizes) // sizes[mode] * log_det
        return Diagonalized(KroneckerOperator(*basis), outer(first, xp) + outer(second, xp), log_volume)

    def solve(self, y: Any) -> Any:
        """Solve ``(A + B) x = y`` for two terms (see ``diagonalize``).

        Parameters
        ----------
        y : array, shape (N,), or (*b, N, k)

        Returns
        -------
        array, the shape of y

        Raises
        ------
        ShapeError, DataError
            As ``diagonalize``; and if the sum is singular to working precision.
        """
        vectors = getattr(y, "ndim", None) == 1
        columns, xp = self._columns(y, "solve", vectors=vectors)
        matrix = self if columns.dtype == self.dtype else self._cast(columns.dtype)
        spectral = matrix.diagonalize()
        remedy = "Add a positive definite term."
        check_regular(spectral.values, "SumOfKronecker.solve", remedy, positive=False)
        result = implicit_solve(lambda x: matrix._times(x, xp), spectral, columns, matrix._arrays())
        return result[..., 0] if vectors else result

    def slogdet(self) -> SignedLog:
        """Sign and logarithm of the magnitude of the determinant, for two terms (see ``diagonalize``)."""
        return self.diagonalize().slogdet()

    def logdet(self) -> Any:
        """Logarithm of a positive determinant, for two terms (see ``diagonalize``).

        Raises
        ------
        DataError
            If the determinant is not positive; ``slogdet`` gives its sign.
        """
        return positive_log(self.slogdet(), "SumOfKronecker.logdet")


def _both_diagonal(a: Any, b: Any, mode: int, xp: Any) -> tuple[Any, Any, Any, Any]:
    """Diagonals of ``W^H a W`` and ``W^H b W``, one of them 1; the basis W; and ``-2 log |det W|``."""
    root, swapped = cholesky_root(b, xp), False
    if root is None:
        a, b, swapped = b, a, True
        root = cholesky_root(b, xp)
    if root is None:
        raise DataError(
            "SumOfKronecker.diagonalize: in every mode the factor of one of the two terms must be positive "
            f"definite; in mode {mode} both are not. Use an iterative solver with S.to_scipy()."
        )
    half = xp.linalg.solve(root, a)
    whole = xp.linalg.solve(root, adjoint(half, xp))
    values, vectors = xp.linalg.eigh((whole + adjoint(whole, xp)) / 2)
    ones = xp.ones_like(values)
    diagonal = xp.linalg.diagonal(root)
    diagonal = xp.real(diagonal) if xp.isdtype(root.dtype, "complex floating") else diagonal
    pair = (ones, values) if swapped else (values, ones)
    return *pair, xp.linalg.solve(adjoint(root, xp), vectors), 2 * xp.sum(xp.log(diagonal))


def cholesky_root(matrix: Any, xp: Any) -> Any:
    """Lower Cholesky factor, or None if the matrix is not positive definite.

    Examples
    --------
    >>> import numpy as np
    >>> cholesky_root(-np.eye(2), np) is None
    True
    """
    try:
        root = xp.linalg.cholesky(matrix)
    except (ValueError, RuntimeError):  # numpy's and torch's word for a negative pivot; JAX gives NaN
        return None
    return None if known(xp.all(xp.isfinite(root))) == 0 else root
