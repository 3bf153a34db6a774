"""Solving in a basis that makes a structured matrix diagonal, with derivatives that need no eigenvectors."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tenfac.core.arrays import eps, library_name, namespace_of
from tenfac.core.door import door
from tenfac.core.errors import DataError
from tenfac.kron.base import known
from tenfac.kron.determinant import SignedLog

# Orders of the derivatives that are made exact, each for one more product and solve.
_ORDERS = 2


@door
@dataclass(frozen=True, eq=False)
class Diagonalized:
    """A matrix ``S`` with ``W^H S W = diag(values)``, so that ``S^-1 = W diag(1 / values) W^H``.

    Parameters
    ----------
    basis : KroneckerOperator
        ``W``; orthonormal only if ``log_volume`` is 0.
    values : array, shape (N,)
        Real, in the order of the rows of ``S``.
    log_volume : 0-d array or float
        ``-2 log |det W|``.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac import KroneckerOperator
    >>> D = Diagonalized(KroneckerOperator(np.eye(2)), np.array([2.0, 4.0]), 0.0)
    >>> D.solve(np.array([2.0, 2.0]))
    array([1. , 0.5])
    """

    basis: Any  # a StructuredMatrix
    values: Any
    log_volume: Any

    def solve(self, y: Any) -> Any:
        """Solve ``S x = y`` for ``(N,)`` or ``(*b, N, k)``; derivatives go through the basis."""
        namespace_of(y)
        values = self.values if y.ndim == 1 else self.values[:, None]
        return self.basis @ ((self.basis.H @ y) / values)

    def slogdet(self) -> SignedLog:
        """Sign and logarithm of the magnitude of the determinant."""
        xp = namespace_of(self.values)
        zero = self.values == 0  # its logarithm has no gradient: that of one is taken and dropped
        logs = xp.log(xp.abs(xp.where(zero, xp.ones_like(self.values), self.values)))
        logs = xp.where(zero, xp.full_like(self.values, -math.inf), logs)
        return SignedLog(xp.prod(xp.sign(self.values)), xp.sum(logs) + self.log_volume)

    def detached(self) -> Diagonalized:
        """The same basis and values without their derivatives."""
        return replace(self, basis=self.basis._detached(), values=detached(self.values))


def detached(array: Any) -> Any:
    """Cut an array off from any gradient; arrays of libraries without gradients are returned as they are.

    Examples
    --------
    >>> import numpy as np
    >>> float(detached(np.ones(())))
    1.0
    """
    if library_name(array) == "torch":
        return array.detach()
    return sys.modules["jax"].lax.stop_gradient(array) if library_name(array) == "jax" else array


def differentiated(arrays: Sequence[Any]) -> bool:
    """Whether a gradient may be asked through one of the arrays.

    Examples
    --------
    >>> import numpy as np
    >>> differentiated([np.ones(2)])
    False
    """
    library = library_name(arrays[0])
    if library == "torch":
        return sys.modules["torch"].is_grad_enabled() and any(array.requires_grad for array in arrays)
    return library == "jax" and any(isinstance(array, sys.modules["jax"].core.Tracer) for array in arrays)


def implicit_solve(
    apply: Callable[[Any], Any], spectral: Diagonalized, columns: Any, arrays: Sequence[Any]
) -> Any:
    """Solve ``apply(x) = columns`` by its diagonalisation, with derivatives to second order in ``arrays``.

    Parameters
    ----------
    apply : callable
        Multiplies columns ``(*b, N, k)`` by the matrix.
    spectral : Diagonalized
        Of the same matrix.
    columns : array, shape (*b, N, k)
    arrays : sequence of arrays
        What the matrix is made of.

    Returns
    -------
    array, shape (*b, N, k)

    Notes
    -----
    The derivative of eigenvectors divides by differences of eigenvalues, which are zero for repeated ones and
    tiny for smooth kernels. So the diagonalisation is held fixed, and where a gradient is wanted each of
    three steps ``x += S0^-1 (y - S x)`` makes one more order of the derivative exact; the value stays.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac import KroneckerOperator
    >>> A = np.diag([2.0, 4.0])
    >>> D = Diagonalized(KroneckerOperator(np.eye(2)), np.array([2.0, 4.0]), 0.0)
    >>> implicit_solve(lambda x: A @ x, D, np.ones((2, 1)), [A]).tolist()
    [[0.5], [0.25]]
    """
    if not differentiated(arrays):
        return spectral.solve(columns)
    fixed = spectral.detached()
    x = fixed.solve(columns)
    for _ in range(_ORDERS):
        x = x + fixed.solve(columns - apply(x))
    return x


def check_regular(values: Any, where: str, remedy: str, *, positive: bool) -> None:
    """Refuse eigenvalues that are zero to working precision, or not positive where they must be.

    Raises
    ------
    DataError
        If they are.

    Examples
    --------
    >>> import numpy as np
    >>> check_regular(np.array([1.0, 2.0]), "solve", "Raise the shift.", positive=True)
    """
    xp = namespace_of(values)
    smallest, largest = known(xp.min(values if positive else xp.abs(values))), known(xp.max(xp.abs(values)))
    if smallest is not None and largest is not None and not smallest > eps(values.dtype) * largest:
        what = "positive definite" if positive else "invertible"
        raise DataError(
            f"{where}: the matrix must be {what} to working precision; its eigenvalues have smallest "
            f"{'value' if positive else 'magnitude'} {smallest:.2g} and largest magnitude {largest:.2g}. "
            f"{remedy}"
        )
