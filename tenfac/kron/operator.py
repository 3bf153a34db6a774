"""A Kronecker product of matrices that is multiplied, solved and diagonalised factor by factor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tenfac.core.arithmetic import check_library, unit_scale
from tenfac.core.arrays import eps, library_name, namespace_of, promote
from tenfac.core.contract import adjoint, contract
from tenfac.core.door import door
from tenfac.core.errors import DataError, MissingExtraError, ShapeError
from tenfac.core.ops import kronecker
from tenfac.core.report import Report
from tenfac.kron.base import StructuredMatrix, check_finite, check_hermitian, check_square, known, outer
from tenfac.kron.determinant import SignedLog, positive_log
from tenfac.kron.spectral import detached

# Few columns next to a long last mode: that mode is faster when the columns come first.
_COLUMNS_FIRST = 2**5


@door
@dataclass(frozen=True, eq=False, repr=False)
class KroneckerOperator(StructuredMatrix):
    """The matrix ``K = A_0 kron A_1 kron ...``, never formed; the first mode is the first factor.

    ``K @ X.reshape(-1) = Y.reshape(-1)`` with ``Y[j, k, ...] = sum_{p, q, ...} A_0[j, p] A_1[k, q] ... X[p,
    q, ...]`` (row-major order throughout).

    Parameters
    ----------
    *factors : arrays, shapes (M_k, N_k)
        At least one matrix, real or complex, square or not; one library and device. Brought to one dtype;
        integers become float64. Not copied.
    info : Report, optional
        How the factors were computed. Algebra drops it.

    Raises
    ------
    ShapeError
        If a factor is not a matrix, or empty.
    TypeError
        If the factors are not arrays of one library on one device.

    Notes
    -----
    ``K @ x`` takes a vector ``(N,)``, or ``(*b, N, k)`` as ``numpy.matmul`` does: the leading axes are a
    batch, the vectors are columns. ``matvec`` takes vectors along the last axis, ``(*b, N)``. A product costs
    ``2 sum_k (M_k N_k prod of the other sizes)`` operations, in the order of factors that makes this least;
    nothing is transposed. ``K1 @ K2`` of operators whose factors fit stays an operator. ``+`` gives a
    ``SumOfKronecker``, multiplication by a number stays in the format.

    References
    ----------
    .. [1] C. F. Van Loan, The ubiquitous Kronecker product, Journal of Computational and Applied Mathematics
       123 (2000), sections 1 and 2. doi:10.1016/S0377-0427(00)00393-9

    Examples
    --------
    >>> import numpy as np
    >>> K = KroneckerOperator(np.array([[2.0, 1.0], [0.0, 1.0]]), np.eye(3))
    >>> K
    KroneckerOperator(shape=(6, 6), factors=2x2, 3x3, numpy.float64, 13 numbers for 36 entries)
    >>> K @ np.arange(6.0)
    array([3., 6., 9., 3., 4., 5.])
    >>> K.solve(K @ np.arange(6.0))
    array([0., 1., 2., 3., 4., 5.])
    """

    factors: tuple[Any, ...]
    info: Report | None = field(default=None)

    def __init__(self, *factors: Any, info: Report | None = None) -> None:
        if len(factors) == 1 and (isinstance(factors[0], (list, tuple)) or hasattr(factors[0], "factors")):
            raise TypeError(
                "KroneckerOperator: factors are given one by one; got one "
                f"{type(factors[0]).__name__}. Write KroneckerOperator(*factors)."
            )
        if not factors:
            raise ShapeError("KroneckerOperator: needs at least one factor; got none.")
        namespace_of(*factors)
        for n, factor in enumerate(factors):
            if factor.ndim != 2 or 0 in factor.shape:
                raise ShapeError(
                    f"KroneckerOperator: factors[{n}] must be a matrix with at least one entry; got shape "
                    f"{tuple(factor.shape)}. Write v[:, None] for a column."
                )
        object.__setattr__(self, "factors", promote(*factors, where="KroneckerOperator"))
        object.__setattr__(self, "info", info)

    @classmethod
    def _of(cls, factors: Sequence[Any]) -> KroneckerOperator:
        """Make an operator of factors that are known to fit."""
        made = cls.__new__(cls)
        object.__setattr__(made, "factors", tuple(factors))
        object.__setattr__(made, "info", None)
        return made

    # --- shape and parts ---

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, ``(prod M_k, prod N_k)``."""
        return math.prod(self.row_shape), math.prod(self.column_shape)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Rows of the factors, ``(M_0, M_1, ...)``: the tensor shape of what comes out."""
        return tuple(factor.shape[0] for factor in self.factors)

    @property
    def column_shape(self) -> tuple[int, ...]:
        """Columns of the factors, ``(N_0, N_1, ...)``: the tensor shape of what goes in."""
        return tuple(factor.shape[1] for factor in self.factors)

    @property
    def terms(self) -> tuple[KroneckerOperator, ...]:  # type: ignore[override]  # stored in a sum only
        """The operator as a sum of one."""
        return (self,)

    def _arrays(self) -> tuple[Any, ...]:
        return self.factors

    def _structure(self) -> str:
        return "factors=" + ", ".join(
            f"{m}x{n}" for m, n in zip(self.row_shape, self.column_shape, strict=True)
        )

    def _cast(self, dtype: Any) -> KroneckerOperator:
        xp = self._xp
        return KroneckerOperator._of([xp.astype(factor, dtype, copy=False) for factor in self.factors])

    def _detached(self) -> KroneckerOperator:
        return KroneckerOperator._of([detached(factor) for factor in self.factors])

    @property
    def T(self) -> KroneckerOperator:  # noqa: N802
        """Transpose, without conjugation: views of the factors."""
        xp = self._xp
        return KroneckerOperator._of([xp.matrix_transpose(factor) for factor in self.factors])

    @property
    def H(self) -> KroneckerOperator:  # noqa: N802
        """Adjoint: conjugate transpose of every factor."""
        xp = self._xp
        return KroneckerOperator._of([adjoint(factor, xp) for factor in self.factors])

    # --- products ---

    def _times(self, columns: Any, xp: Any) -> Any:
        *batch, _, k = columns.shape
        if k * _COLUMNS_FIRST <= self.column_shape[-1]:
            rows = xp.reshape(xp.matrix_transpose(columns), (math.prod(batch) * k, *self.column_shape))
            result = xp.reshape(contract(rows, [None, *self.factors], xp=xp), (*batch, k, self.shape[0]))
            return xp.matrix_transpose(result)
        tensor = xp.reshape(columns, (math.prod(batch), *self.column_shape, k))
        result = contract(tensor, [None, *self.factors, None], xp=xp)
        return xp.reshape(result, (*batch, self.shape[0], k))

    def __matmul__(self, other: Any) -> Any:
        """Multiply a vector ``(N,)``, matrices ``(*b, N, k)``, or an operator whose factors fit."""
        if not isinstance(other, KroneckerOperator):
            return super().__matmul__(other)
        if self.column_shape != other.row_shape:
            raise ShapeError(
                "KroneckerOperator: the product stays a Kronecker product only if the columns of the left "
                f"factors, {self.column_shape}, are the rows of the right ones; got {other.row_shape}. "
                "Otherwise multiply one by the dense other: K1 @ K2.to_dense()."
            )
        namespace_of(self._like, other._like)
        pairs = zip(self.factors, other.factors, strict=True)
        return KroneckerOperator(*(a @ b for a, b in (promote(*pair) for pair in pairs)))

    def __add__(self, other: Any) -> Any:
        from tenfac.kron.sums import SumOfKronecker

        return SumOfKronecker(self, other) if isinstance(other, StructuredMatrix) else NotImplemented

    def _scaled(self, scalar: Any) -> KroneckerOperator:
        check_library(scalar, self._like)
        return KroneckerOperator(self.factors[0] * scalar, *self.factors[1:])

    def _dense(self) -> Any:
        return kronecker(self.factors)

    # --- diagonal, trace, norm, determinant ---

    def diag(self) -> Any:
        """Diagonal, shape (N,): the Kronecker product of the diagonals of square factors.

        Raises
        ------
        ShapeError
            If a factor is not square.
        """
        check_square(self.factors, "KroneckerOperator.diag")
        xp = self._xp
        return outer([xp.linalg.diagonal(factor) for factor in self.factors], xp)

    def trace(self) -> Any:
        """Sum of the diagonal: the product of the traces of square factors.

        Raises
        ------
        ShapeError
            If a factor is not square.
        """
        check_square(self.factors, "KroneckerOperator.trace")
        xp = self._xp
        return math.prod(xp.linalg.trace(factor) for factor in self.factors)

    def norm(self) -> Any:
        """Frobenius norm: the product of those of the factors; large and small entries keep their squares."""
        xp = self._xp
        scaled, root = unit_scale(self.factors, (), xp)
        return (math.prod(xp.linalg.matrix_norm(factor) for factor in scaled) * root) * root

    def slogdet(self) -> SignedLog:
        """Sign and logarithm of the magnitude of the determinant, from those of square factors.

        Returns
        -------
        SignedLog
            ``sign`` (of magnitude 1, or 0) and ``logabsdet`` (or -inf), 0-d arrays.

        Raises
        ------
        ShapeError, DataError
            If a factor is not square, or not finite.
        """
        check_square(self.factors, "KroneckerOperator.slogdet")
        check_finite(self.factors, "KroneckerOperator.slogdet")
        xp = self._xp
        sign, total = 1, 0
        for factor, size in zip(self.factors, self.row_shape, strict=True):
            power = math.prod(self.row_shape) // size
            part = xp.linalg.slogdet(factor)
            sign, total = sign * part[0] ** power, total + power * part[1]
        return SignedLog(sign, total)

    def logdet(self) -> Any:
        """Logarithm of a positive determinant.

        Raises
        ------
        DataError
            If the determinant is not positive; ``slogdet`` gives its sign.
        ShapeError
            If a factor is not square.
        """
        return positive_log(self.slogdet(), "KroneckerOperator.logdet")

    # --- solving and diagonalising ---

    def solve(self, y: Any) -> Any:
        """Solve ``K x = y`` by an LU solve per factor.

        Parameters
        ----------
        y : array, shape (N,), or (*b, N, k)

        Returns
        -------
        array, the shape of y

        Raises
        ------
        ShapeError
            If a factor is not square, or ``y`` has another size.
        DataError
            If a factor is singular to working precision, or not finite; the message names it.

        Notes
        -----
        Cost: ``2 sum_k (N_k prod N + N_k^3)`` operations, and one inverse per factor to know its condition.
        """
        where = "KroneckerOperator.solve"
        check_square(self.factors, where)
        self._check_regular(where)
        vectors = getattr(y, "ndim", None) == 1
        columns, xp = self._columns(y, "solve", vectors=vectors)
        factors = self._cast(columns.dtype).factors
        *batch, size, k = columns.shape
        # axes (N_0, N_1, ..., the rest): each factor is solved in front and its axis goes to the end
        tensor = xp.moveaxis(columns, -2, 0)
        for factor, rows in zip(factors, self.row_shape, strict=True):
            tensor = xp.linalg.solve(factor, xp.reshape(tensor, (rows, -1))).T
        result = xp.moveaxis(xp.reshape(tensor, (*batch, k, size)), -1, -2)
        return result[..., 0] if vectors else result

    def _check_regular(self, where: str) -> None:
        """Refuse a factor whose condition number in the 1-norm is above 1 / eps."""
        check_finite(self.factors, where)
        for n, (factor, size) in enumerate(zip(self.factors, self.row_shape, strict=True)):
            rcond = reciprocal_condition(factor)
            if rcond is not None and not rcond > eps(factor.dtype):
                raise DataError(
                    f"{where}: every factor must be invertible; factors[{n}] ({size}x{size}) is singular to "
                    f"working precision (reciprocal condition {rcond:.1g}). Add a shift with "
                    "K.shifted(sigma2), or replace the factor."
                )

    def eigh(self) -> KroneckerEigen:
        """Diagonalise Hermitian factors: ``K = V diag(values) V^H``.

        Returns
        -------
        KroneckerEigen
            Eigenvalues of the factors (``.values`` is their outer product, in the order of the rows of K, not
            sorted) and ``.vectors``, the eigenvectors as a ``KroneckerOperator``.

        Raises
        ------
        ShapeError, DataError
            If a factor is not square, not finite, or differs from its conjugate transpose.

        Notes
        -----
        Cost: ``sum N_k^3``. Signs of eigenvectors are arbitrary.
        """
        return self._diagonalized("KroneckerOperator.eigh")

    def _diagonalized(self, where: str) -> KroneckerEigen:
        check_hermitian(self.factors, where)
        xp = self._xp
        pairs = [xp.linalg.eigh(factor) for factor in self.factors]
        return KroneckerEigen(
            tuple(pair[0] for pair in pairs), KroneckerOperator(*(pair[1] for pair in pairs))
        )

    def shifted(self, shift: Any) -> Any:
        """Add a multiple of the identity, ``K + shift I``, ready to solve (see ``ShiftedKronecker``)."""
        from tenfac.kron.shifted import ShiftedKronecker

        return ShiftedKronecker(self, shift)

    # --- other libraries ---

    def to_linear_operator(self) -> Any:
        """Convert to ``KroneckerProductLinearOperator`` of ``linear_operator`` (GPyTorch), sharing tensors.

        Raises
        ------
        MissingExtraError
            If ``linear_operator`` is not installed.
        TypeError
            If the factors are not torch tensors.
        """
        if library_name(self._like) != "torch":
            raise TypeError(
                "to_linear_operator: linear_operator works on torch tensors; the factors are arrays of "
                f"{library_name(self._like)}. Convert them with torch.asarray first."
            )
        try:
            from linear_operator.operators import DenseLinearOperator, KroneckerProductLinearOperator
        except ImportError as error:
            raise MissingExtraError(
                "`to_linear_operator` needs linear_operator, which GPyTorch brings. Install it with: pip "
                "install 'tenfac[bayes]'."
            ) from error
        return KroneckerProductLinearOperator(*(DenseLinearOperator(factor) for factor in self.factors))


@dataclass(frozen=True, eq=False)
class KroneckerEigen:
    """Eigenvalues and eigenvectors of a Kronecker product of Hermitian matrices.

    Parameters
    ----------
    factor_values : tuple of arrays, shapes (N_k,)
        Eigenvalues of each factor, ascending.
    vectors : KroneckerOperator
        Eigenvectors; column ``i`` belongs to ``values[i]``.

    Examples
    --------
    >>> import numpy as np
    >>> KroneckerOperator(np.diag([1.0, 3.0]), np.diag([1.0, 5.0])).eigh().values
    array([ 1.,  5.,  3., 15.])
    """

    factor_values: tuple[Any, ...]
    vectors: KroneckerOperator

    @property
    def values(self) -> Any:
        """All eigenvalues, shape (N,): the outer product of those of the factors, not sorted."""
        return outer(self.factor_values, namespace_of(self.factor_values[0]))


def reciprocal_condition(matrix: Any) -> float | None:
    """``1 / (norm(A) norm(inv A))`` in the 1-norm, 0 if there is no inverse; None while it is only traced.

    Examples
    --------
    >>> import numpy as np
    >>> reciprocal_condition(np.diag([1.0, 4.0]))
    0.25
    """
    xp = namespace_of(matrix)
    matrix = matrix.detach() if hasattr(matrix, "detach") else matrix
    try:
        inverse = xp.linalg.inv(matrix)
    except (ValueError, RuntimeError):  # numpy's and torch's word for an exact zero pivot
        return 0.0
    norms = [xp.linalg.matrix_norm(m, ord=1) for m in (matrix, inverse)]
    product = known(norms[0] * norms[1])
    if product is None:
        return None
    return 1 / product if product > 0 else 0.0  # of a product that is NaN too
