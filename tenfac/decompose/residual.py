"""Relative error of a projection: cheap while large, measured on the residual when small."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tenfac.core.arrays import eps
from tenfac.core.contract import contract
from tenfac.core.truncate import squared_norm

# Entries of the residual formed at once.
_ENTRIES = 2**20


def relative_error(X: Any, core: Any, factors: Sequence[Any], norm2: float) -> float:
    """Relative error of the projection of ``X`` on orthonormal factors.

    By Pythagoras, ``1 - ||core||^2 / ||X||^2``, where its digits survive the difference; else from the
    residual, formed slab by slab.

    Parameters
    ----------
    X : array, shape (I_0, ..., I_{D-1})
    core : array, shape (R_0, ..., R_{D-1})
        ``X`` in the coordinates of the factors.
    factors : sequence of arrays, shapes (I_n, R_n)
    norm2 : float
        Squared norm of ``X``.

    Examples
    --------
    >>> import numpy as np
    >>> relative_error(np.array([3.0, 4.0]), np.array([3.0]), [np.eye(2)[:, :1]], 25.0)
    0.8
    """
    if norm2 == 0:
        return 0.0
    lost2 = 1 - squared_norm(core) / norm2
    if lost2 > clear(X.dtype):
        return math.sqrt(lost2)
    return residual_error(X, core, factors, norm2)


def residual_error(X: Any, core: Any, factors: Sequence[Any], norm2: float) -> float:
    """Relative error of a Tucker tensor with any factors, from the residual, formed slab by slab.

    Parameters
    ----------
    X : array, shape (I_0, ..., I_{D-1})
    core : array, shape (R_0, ..., R_{D-1})
    factors : sequence of arrays, shapes (I_n, R_n)
    norm2 : float
        Squared norm of ``X``, above 0.

    Examples
    --------
    >>> import numpy as np
    >>> residual_error(np.array([3.0, 4.0]), np.array([1.0]), [np.array([[3.0], [0.0]])], 25.0)
    0.8
    """
    step = max(_ENTRIES * X.shape[0] // math.prod(X.shape), 1)
    total = 0.0
    for row in range(0, X.shape[0], step):
        part = [factors[0][row : row + step, :], *factors[1:]]
        total += squared_norm(X[row : row + step, ...] - contract(core, part))
    return math.sqrt(total / norm2)


def clear(dtype: Any) -> float:
    """Squared relative error above which the difference of squared norms has enough digits.

    Examples
    --------
    >>> import numpy as np
    >>> 1e-8 < clear(np.dtype("float64")) < 2e-8
    True
    """
    return math.sqrt(eps(dtype))
