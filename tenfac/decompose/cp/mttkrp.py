"""Matricised tensor times Khatri-Rao product of every mode, by a dimension tree of two large products."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from tenfac.core.arrays import device_of, eps, namespace_of
from tenfac.core.precision import double_of, is_complex
from tenfac.core.truncate import squared_norm

# Numbers of the residual formed at once.
_BLOCK = 2**20

# Receives a mode and its product (S, R, I_n); returns the factor to go on with, or None to keep the old one.
Visit = Callable[[int, Any], Any]


def columnwise(factors: Sequence[Any]) -> Any:
    """Khatri-Rao product of transposed factors, ``(..., R, I_a), (..., R, I_b) -> (..., R, I_a I_b)``.

    Examples
    --------
    >>> import numpy as np
    >>> columnwise([np.ones((2, 3)), np.ones((2, 4))]).shape
    (2, 12)
    """
    xp = namespace_of(factors[0])

    def join(a: Any, b: Any) -> Any:
        return xp.reshape(a[..., :, None] * b[..., None, :], (*a.shape[:-1], a.shape[-1] * b.shape[-1]))

    return reduce(join, factors)


class DenseTensor:
    """A dense array as ALS sees it: its norm, its products with factors, its distance to a CP tensor.

    Factors are transposed and of several starts at once, ``(S, R, I_n)``, in ``wide``; only the two large
    products of a sweep are done in the dtype of the array. Complex: products are with conjugate factors.

    Parameters
    ----------
    array : array, shape (I_0, ..., I_{D-1})
        ``D >= 2``, not empty.
    norm : float, optional
        Its Frobenius norm, if it is known.

    Examples
    --------
    >>> import numpy as np
    >>> X = DenseTensor(np.ones((2, 3, 4)))
    >>> factors = [np.ones((1, 1, 2)), np.ones((1, 1, 3)), np.ones((1, 1, 4))]
    >>> X.sweep(factors, lambda mode, product: print(mode, product[0, 0]))
    0 [12. 12.]
    1 [8. 8. 8.]
    2 [6. 6. 6. 6.]
    >>> X.distance([factor[0] for factor in factors])
    0.0
    """

    def __init__(self, array: Any, norm: float | None = None) -> None:
        self.xp = namespace_of(array)
        self.array = array
        self.shape = tuple(array.shape)
        self._split = _split(self.shape)
        sizes = math.prod(self.shape[: self._split]), math.prod(self.shape[self._split :])
        self._matrix = self.xp.reshape(array, sizes)  # a view, or one copy of an array in another order
        self.dtype = array.dtype
        self.device = device_of(array)
        self.wide = double_of(self.xp, complex_=is_complex(array))
        self.norm = math.sqrt(squared_norm(array)) if norm is None else norm
        self.is_complex = is_complex(array)
        self.rounding, self.wide_rounding = eps(self.dtype), eps(self.wide)

    def sweep(self, factors: Sequence[Any], visit: Visit) -> None:
        """Call ``visit(n, product)`` for every mode in order; what it returns replaces factor n at once."""
        xp, d = self.xp, len(self.shape)
        used = [self._adjoint(factor) for factor in factors]
        k = self._split
        node = self._large(used[k:], self._matrix.T)
        self._walk(xp.reshape(node, (*node.shape[:-1], *self.shape[:k])), range(k), used, visit)
        node = self._large(used[:k], self._matrix)
        self._walk(xp.reshape(node, (*node.shape[:-1], *self.shape[k:])), range(k, d), used, visit)

    def distance(self, factors: Sequence[Any]) -> float:
        """``||X - sum_r a_r o b_r o ...||`` of factors (R, I_n), entry by entry, in blocks, in float64."""
        xp, matrix = self.xp, self._matrix
        rows, columns = matrix.shape
        left, right = columnwise(factors[: self._split]), columnwise(factors[self._split :])
        step = max(_BLOCK // columns, 1)
        total = 0.0
        for start in range(0, rows, step):
            part = left[:, start : start + step].T @ right
            total += squared_norm(xp.astype(matrix[start : start + step, :], self.wide, copy=False) - part)
        return math.sqrt(total)

    def _large(self, factors: Sequence[Any], matrix: Any) -> Any:
        xp = self.xp
        rows = columnwise([xp.astype(factor, self.dtype, copy=False) for factor in factors])
        product = xp.reshape(rows, (-1, rows.shape[-1])) @ matrix
        return xp.astype(xp.reshape(product, (*rows.shape[:-1], -1)), self.wide, copy=False)

    def _walk(self, node: Any, modes: Sequence[int], used: list[Any], visit: Visit) -> None:
        """Products of ``modes`` from ``node`` (S, R, sizes), already multiplied by all other factors."""
        xp = self.xp
        if len(modes) == 1:
            factor = visit(modes[0], node)
            used[modes[0]] = used[modes[0]] if factor is None else self._adjoint(factor)
            return
        lead, shape = node.shape[:2], node.shape[2:]
        k = _split(shape)
        matrix = xp.reshape(node, (*lead, math.prod(shape[:k]), math.prod(shape[k:])))
        right = columnwise([used[n] for n in modes[k:]])
        self._walk(xp.reshape(matrix @ right[..., None], (*lead, *shape[:k])), modes[:k], used, visit)
        left = columnwise([used[n] for n in modes[:k]])
        self._walk(xp.reshape(left[..., None, :] @ matrix, (*lead, *shape[k:])), modes[k:], used, visit)

    def _adjoint(self, factor: Any) -> Any:
        return self.xp.conj(factor) if self.is_complex else factor


def _split(shape: Sequence[int]) -> int:
    """Where to cut the modes in two groups, so that the products of their sizes are both small."""
    return min(range(1, len(shape)), key=lambda k: math.prod(shape[:k]) + math.prod(shape[k:]))
