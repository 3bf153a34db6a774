"""What every structured matrix shares: products with vectors and matrices, dense form, SciPy."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from tenfac.core.arithmetic import finite_scalar
from tenfac.core.arrays import (
    byte_guard,
    device_of,
    dtype_name,
    eps,
    library_name,
    namespace_of,
    promote,
    to_numpy,
)
from tenfac.core.contract import adjoint
from tenfac.core.errors import DataError, ShapeError

# A factor may differ from its adjoint by this many roundings of its largest entry.
_ROUNDINGS = 100


class StructuredMatrix(ABC):
    """A matrix of shape ``(M, N)`` that is never formed; subclasses say how it multiplies.

    Examples
    --------
    >>> from tenfac import KroneckerOperator
    >>> issubclass(KroneckerOperator, StructuredMatrix)
    True
    """

    __array_ufunc__ = None  # numpy arrays on the left leave products and sums to us

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""

    terms: tuple[Any, ...]  # the Kronecker products whose sum this is

    @abstractmethod
    def _arrays(self) -> tuple[Any, ...]:
        """All arrays stored."""

    @abstractmethod
    def _times(self, columns: Any, xp: Any) -> Any:
        """Multiply columns ``(*b, N, k)`` of the right size, library and dtype."""

    @abstractmethod
    def _scaled(self, scalar: Any) -> StructuredMatrix:
        """Multiply by a number."""

    @abstractmethod
    def _structure(self) -> str:
        """What ``repr`` says of the parts."""

    @property
    @abstractmethod
    def T(self) -> StructuredMatrix:  # noqa: N802
        """Transpose, without conjugation."""

    @property
    @abstractmethod
    def H(self) -> StructuredMatrix:  # noqa: N802
        """Adjoint: conjugate transpose."""

    @abstractmethod
    def diag(self) -> Any:
        """Diagonal, shape (N,), of a square matrix."""

    @property
    def _like(self) -> Any:
        """An array of the library, device and dtype of all of them."""
        return self._arrays()[0]

    @property
    def _xp(self) -> Any:
        """Namespace of the library of all arrays."""
        return namespace_of(self._like)

    @property
    def dtype(self) -> Any:
        """Dtype of all arrays."""
        return self._like.dtype

    @property
    def device(self) -> Any:
        """Device of all arrays."""
        return device_of(self._like)

    @property
    def n_params(self) -> int:
        """Numbers stored."""
        return sum(math.prod(array.shape) for array in self._arrays())

    def matvec(self, x: Any) -> Any:
        """Multiply vectors ``(*b, N)``, each along the last axis; returns ``(*b, M)``."""
        return self._checked(x, "matvec", vectors=True)

    def matmat(self, X: Any) -> Any:
        """Multiply matrices ``(*b, N, k)``, column by column; returns ``(*b, M, k)``."""
        return self._checked(X, "matmat", vectors=False)

    def __matmul__(self, other: Any) -> Any:
        """Multiply a vector ``(N,)``, or matrices ``(*b, N, k)`` as ``numpy.matmul`` does."""
        if isinstance(other, StructuredMatrix):
            return NotImplemented
        return self._checked(other, "@", vectors=getattr(other, "ndim", None) == 1)

    def __rmatmul__(self, other: Any) -> Any:
        """Multiply ``x @ K``: a vector ``(M,)``, or matrices ``(*b, k, M)``."""
        return self.T.matvec(other)

    def _checked(self, x: Any, where: str, *, vectors: bool) -> Any:
        """Validate an operand once, then multiply."""
        columns, xp = self._columns(x, where, vectors=vectors)
        matrix = self if columns.dtype == self.dtype else self._cast(columns.dtype)
        result = matrix._times(columns, xp)
        return result[..., 0] if vectors else result

    def _columns(self, x: Any, where: str, *, vectors: bool) -> tuple[Any, Any]:
        """Bring an operand of N rows to columns ``(*b, N, k)`` of the common dtype; and the namespace."""
        name, size = f"{type(self).__name__}.{where}", self.shape[1]
        xp = namespace_of(x, self._like)
        axis = -1 if vectors else -2
        if x.ndim < -axis or x.shape[axis] != size:
            want = f"({size},) or (..., {size})" if vectors else f"({size}, k) or (..., {size}, k)"
            raise ShapeError(
                f"{name}: the operand must have shape {want}; the matrix is {self.shape[0]} x {size}; got "
                f"{tuple(x.shape)}. A tensor is flattened by x.reshape(-1), the last mode varying fastest."
            )
        if x.dtype != self.dtype:
            x = promote(x, self._like, where=name)[0]
        return x[..., None] if vectors else x, xp

    @abstractmethod
    def _cast(self, dtype: Any) -> StructuredMatrix:
        """Convert all arrays to a wider dtype."""

    def to_dense(self, *, max_bytes: int | None = None) -> Any:
        """Form the dense matrix, shape (M, N).

        Parameters
        ----------
        max_bytes : int, optional
            Refuse a larger result.

        Raises
        ------
        DataError
            If the result would be larger than ``max_bytes``.
        """
        remedy = "Multiply with K @ x instead, or raise max_bytes."
        byte_guard(self.shape, np.dtype(dtype_name(self.dtype)).itemsize, max_bytes, "to_dense", remedy)
        return self._dense()

    @abstractmethod
    def _dense(self) -> Any:
        """Form the dense matrix."""

    def to_scipy(self) -> Any:
        """Convert to ``scipy.sparse.linalg.LinearOperator``: numpy in, numpy out, whatever the library."""
        from scipy.sparse.linalg import LinearOperator

        xp, device, adjoint = self._xp, self.device, self.H

        def through(matrix: StructuredMatrix) -> Any:
            return lambda x: to_numpy(matrix @ xp.asarray(x, device=device))

        return LinearOperator(
            self.shape,
            matvec=through(self),
            rmatvec=through(adjoint),
            matmat=through(self),
            rmatmat=through(adjoint),
            dtype=np.dtype(dtype_name(self.dtype)),
        )

    def trace(self) -> Any:
        """Sum of the diagonal of a square matrix."""
        diagonal = self.diag()
        return namespace_of(diagonal).sum(diagonal)

    def __repr__(self) -> str:
        where = "" if str(self.device) in ("cpu", "None") else f" on {self.device}"
        kind = f"{library_name(self._like)}.{dtype_name(self.dtype)}{where}"
        numbers = f"{self.n_params:,} numbers for {math.prod(self.shape):,} entries"
        return f"{type(self).__name__}(shape={self.shape}, {self._structure()}, {kind}, {numbers})"

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__}: numpy.asarray would form the dense matrix of shape {self.shape} without "
            "saying so. Write K.to_dense()."
        )

    def __mul__(self, scalar: Any) -> StructuredMatrix:
        number = finite_scalar(scalar)
        return NotImplemented if number is None else self._scaled(number)

    __rmul__ = __mul__

    def __truediv__(self, scalar: Any) -> StructuredMatrix:
        number = finite_scalar(scalar)
        return NotImplemented if number is None else self._scaled(1 / number)

    def __neg__(self) -> StructuredMatrix:
        return self._scaled(-1)

    @abstractmethod
    def __add__(self, other: Any) -> Any: ...

    def __sub__(self, other: Any) -> StructuredMatrix:
        return self + (-other) if isinstance(other, StructuredMatrix) else NotImplemented


# --- values that a check may look at ----------------------------------------------------------------------


def outer(vectors: Sequence[Any], xp: Any) -> Any:
    """Kronecker product of vectors, the last varying fastest.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> outer([xp.asarray([1, 2]), xp.asarray([1, 10])], xp).tolist()
    [1, 10, 2, 20]
    """
    result = vectors[0]
    for vector in vectors[1:]:
        result = xp.reshape(result[:, None] * vector, (-1,))
    return result


def known(scalar: Any) -> float | None:
    """Read a 0-d array as a float; None while JAX or torch only trace it and there is no value to check.

    Examples
    --------
    >>> known(np.float32(0.5))
    0.5
    """
    try:
        return float(scalar.detach() if hasattr(scalar, "detach") else scalar)
    except (TypeError, RuntimeError):
        return None


def check_finite(factors: Sequence[Any], where: str) -> None:
    """Refuse factors with NaN or infinite entries, naming the first.

    Raises
    ------
    DataError
        If there is one.

    Examples
    --------
    >>> check_finite([np.ones((2, 2))], "eigh")
    """
    for n, factor in enumerate(factors):
        if known(namespace_of(factor).all(namespace_of(factor).isfinite(factor))) == 0:
            raise DataError(
                f"{where}: every entry must be finite; factors[{n}] has NaN or infinite ones. "
                "Replace them first."
            )


def check_hermitian(factors: Sequence[Any], where: str) -> None:
    """Refuse factors that are not finite, square and equal to their adjoint up to rounding, naming the first.

    Raises
    ------
    DataError, ShapeError
        If there is one.

    Examples
    --------
    >>> check_hermitian([np.eye(2)], "eigh")
    """
    check_square(factors, where)
    check_finite(factors, where)
    for n, factor in enumerate(factors):
        xp = namespace_of(factor)
        gap = known(xp.max(xp.abs(factor - adjoint(factor, xp))))
        largest = known(xp.max(xp.abs(factor)))
        if gap is not None and largest is not None and gap > _ROUNDINGS * eps(factor.dtype) * largest:
            raise DataError(
                f"{where}: every factor must equal its conjugate transpose; factors[{n}] differs from it by "
                f"{gap:.2g} (largest entry {largest:.2g}). If that is rounding, pass (A + A.conj().T) / 2."
            )


def check_square(factors: Sequence[Any], where: str) -> None:
    """Refuse factors that are not square, naming the first.

    Raises
    ------
    ShapeError
        If there is one.

    Examples
    --------
    >>> check_square([np.eye(2)], "solve")
    """
    for n, factor in enumerate(factors):
        if factor.shape[0] != factor.shape[1]:
            raise ShapeError(
                f"{where}: every factor must be square; factors[{n}] has shape {tuple(factor.shape)}. "
                "Rectangular ones have K @ x, and K.to_scipy() for iterative solvers."
            )
