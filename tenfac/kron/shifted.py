"""A Kronecker product of positive semidefinite matrices plus a multiple of the identity."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, cast

from tenfac.core.arithmetic import check_library, scalar_of
from tenfac.core.arrays import namespace_of, promote
from tenfac.core.door import door
from tenfac.core.errors import DataError, ShapeError
from tenfac.kron.base import StructuredMatrix, known
from tenfac.kron.operator import KroneckerEigen, KroneckerOperator
from tenfac.kron.spectral import Diagonalized, check_regular, implicit_solve
from tenfac.kron.sums import SumOfKronecker


@door
@dataclass(frozen=True, eq=False, repr=False)
class ShiftedKronecker(StructuredMatrix):
    """The matrix ``S = A_0 kron A_1 kron ... + shift I``, diagonalised once by ``eigh`` of the factors.

    The covariance of a Gaussian process on a grid with noise variance ``shift``.

    Parameters
    ----------
    operator : KroneckerOperator
        With Hermitian factors.
    shift : float or real 0-d array
        Such that ``S`` is positive definite.
    eigen : KroneckerEigen, optional
        ``operator.eigh()``, if it is known.

    Raises
    ------
    DataError
        If a factor is not Hermitian, or ``S`` is not positive definite to working precision.
    ShapeError
        If a factor is not square.

    Notes
    -----
    Setting up costs ``sum N_k^3`` operations once, ``solve`` twice a product with ``operator``.
    ``S.at(shift)`` changes the shift for nothing. Derivatives of ``solve`` and ``inv_quad`` do not go through
    eigenvectors, so repeated eigenvalues do no harm; they are exact to second order and cost four times the
    solve. The first derivative of ``logdet`` is as safe; ``sqrt_matvec`` goes through eigenvectors. Sums, and
    multiples by a number that is not positive, are a ``SumOfKronecker``.

    References
    ----------
    .. [1] Y. Saatçi, Scalable inference for structured Gaussian process models, PhD thesis, University of
       Cambridge (2011), section 5.2

    Examples
    --------
    >>> import numpy as np
    >>> S = KroneckerOperator(np.diag([1.0, 2.0]), np.diag([1.0, 3.0])).shifted(1.0)
    >>> S
    ShiftedKronecker(shape=(4, 4), factors=2x2, 2x2, shift=1, numpy.float64, 8 numbers for 16 entries)
    >>> S.solve(np.array([2.0, 4.0, 3.0, 7.0]))
    array([1., 1., 1., 1.])
    >>> float(S.logdet()) == float(np.log(2 * 4 * 3 * 7))
    True
    """

    operator: KroneckerOperator
    shift: Any
    eigen: KroneckerEigen = field(default=cast(KroneckerEigen, None), kw_only=True)  # found if not given
    _spectral: Diagonalized = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.operator, KroneckerOperator):
            raise TypeError(
                "ShiftedKronecker: `operator` must be a KroneckerOperator; got "
                f"{type(self.operator).__name__}. Write KroneckerOperator(*factors)."
            )
        shift = _real_shift(self.shift)
        check_library(shift, self.operator._like)
        object.__setattr__(self, "shift", shift)
        eigen = self.operator._diagonalized("KroneckerOperator.shifted") if self.eigen is None else self.eigen
        object.__setattr__(self, "eigen", eigen)
        remedy = f"Raise the shift, now {_shown(self.shift)}, or use float64."
        values = eigen.values + self.shift
        check_regular(values, "ShiftedKronecker", remedy, positive=True)
        object.__setattr__(self, "_spectral", Diagonalized(eigen.vectors, values, 0.0))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, ``(N, N)``."""
        return self.operator.shape

    def at(self, shift: Any) -> ShiftedKronecker:
        """Change the shift, keeping the factors and their diagonalisation."""
        return replace(self, shift=shift)

    def _arrays(self) -> tuple[Any, ...]:
        return self.operator.factors

    def _structure(self) -> str:
        return f"{self.operator._structure()}, shift={_shown(self.shift)}"

    def _cast(self, dtype: Any) -> ShiftedKronecker:
        return ShiftedKronecker(self.operator._cast(dtype), self.shift)

    def _times(self, columns: Any, xp: Any) -> Any:
        return self.operator._times(columns, xp) + self.shift * columns

    @property
    def T(self) -> ShiftedKronecker:  # noqa: N802
        """Transpose, without conjugation."""
        xp = self._xp
        complex_ = xp.isdtype(self.dtype, "complex floating")
        vectors = [xp.conj(v) if complex_ else v for v in self.eigen.vectors.factors]
        eigen = KroneckerEigen(self.eigen.factor_values, KroneckerOperator(*vectors))
        return ShiftedKronecker(self.operator.T, self.shift, eigen=eigen)

    @property
    def H(self) -> ShiftedKronecker:  # noqa: N802
        """Adjoint: the matrix itself."""
        return self

    @property
    def terms(self) -> tuple[KroneckerOperator, ...]:  # type: ignore[override]  # stored in a sum only
        """The two Kronecker products whose sum this is: the operator, and the shift times the identity."""
        xp, sizes = self._xp, self.operator.row_shape
        eyes = [xp.eye(size, dtype=self.dtype, device=self.device) for size in sizes]
        return self.operator, KroneckerOperator(*eyes) * self.shift

    def _scaled(self, scalar: Any) -> ShiftedKronecker | SumOfKronecker:
        if isinstance(scalar, (int, float)) and scalar > 0:
            return ShiftedKronecker(self.operator._scaled(scalar), self.shift * scalar)
        return SumOfKronecker(*self.terms) * scalar

    def __add__(self, other: Any) -> Any:
        return SumOfKronecker(self, other) if isinstance(other, StructuredMatrix) else NotImplemented

    def _dense(self) -> Any:
        eye = self._xp.eye(*self.shape, dtype=self.dtype, device=self.device)
        return self.operator._dense() + self.shift * eye

    def diag(self) -> Any:
        """Diagonal, shape (N,)."""
        return self.operator.diag() + self.shift

    def solve(self, y: Any) -> Any:
        """Solve ``S x = y``.

        Parameters
        ----------
        y : array, shape (N,), or (*b, N, k)

        Returns
        -------
        array, the shape of y

        Raises
        ------
        ShapeError
            If ``y`` has another size.
        """
        vectors = getattr(y, "ndim", None) == 1
        columns, xp = self._columns(y, "solve", vectors=vectors)
        matrix = self if columns.dtype == self.dtype else self._cast(columns.dtype)
        result = implicit_solve(
            lambda x: matrix._times(x, xp), matrix._spectral, columns, matrix.operator.factors
        )
        return result[..., 0] if vectors else result

    def inv_quad(self, y: Any) -> Any:
        """Quadratic form ``y^H S^-1 y`` of a vector (N,), a real 0-d array."""
        if getattr(y, "ndim", None) != 1:
            raise ShapeError(
                f"ShiftedKronecker.inv_quad: y must be a vector of {self.shape[0]} numbers; got shape "
                f"{tuple(getattr(y, 'shape', ()))}. Flatten a grid with y.reshape(-1)."
            )
        y, x = promote(y, self.solve(y))
        xp = namespace_of(x)
        return xp.real(xp.vecdot(y, x)) if xp.isdtype(x.dtype, "complex floating") else y @ x

    def slogdet(self) -> Any:
        """Sign (1) and logarithm of the determinant."""
        return self._spectral.slogdet()

    def logdet(self) -> Any:
        """Logarithm of the determinant, a 0-d array."""
        return self._spectral.slogdet().logabsdet

    def sqrt_matvec(self, z: Any) -> Any:
        """Multiply vectors ``(*b, N)`` by the Hermitian square root of ``S``.

        Standard normal ``z`` gives draws with covariance ``S``. The derivative goes through eigenvectors: it
        needs factors without repeated eigenvalues.
        """
        columns, _ = self._columns(z, "sqrt_matvec", vectors=True)
        matrix = self if columns.dtype == self.dtype else self._cast(columns.dtype)
        spectral = matrix._spectral
        xp = namespace_of(columns)
        scaled = (spectral.basis.H @ columns) * xp.sqrt(spectral.values)[:, None]
        return (spectral.basis @ scaled)[..., 0]


def _real_shift(shift: Any) -> Any:
    number = scalar_of(shift)
    complex_ = isinstance(number, complex) or "complex" in str(getattr(number, "dtype", ""))
    refused = number is None or isinstance(shift, bool) or complex_
    value = None if refused else known(number)
    if refused or (value is not None and not math.isfinite(value)):
        raise DataError(
            f"ShiftedKronecker: `shift` must be a finite real number; got {shift!r}. Pass the noise variance."
        )
    return number


def _shown(shift: Any) -> str:
    number = known(shift)
    return "traced" if number is None else f"{number:.4g}"
