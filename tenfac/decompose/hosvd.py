"""Tucker decomposition by the sequentially truncated higher-order SVD."""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from jaxtyping import Shaped

from ..core.arrays import as_float, namespace_of
from ..core.errors import DataError, ShapeError
from ..core.rank import rank_or_tol
from ..core.truncate import squared_norm, truncate, truncation_report
from ..core.tucker import Tucker


def tucker(
    X: Shaped[Any, "*shape"], rank: int | Sequence[int] | None = None, *, tol: float | None = None
) -> Tucker:
    """Decompose an array into a core and orthonormal factors.

    ``X[i, j, ...] ~ sum_{p, q, ...} G[p, q, ...] A[i, p] B[j, q] ...``, by the sequentially truncated
    higher-order SVD [1]_: mode after mode, what is left is projected on its leading singular vectors.

    Parameters
    ----------
    X : array, shape (I_0, ..., I_{D-1})
        Real or complex, without NaN. float32 is decomposed as float32, integers as float64.
    rank : int or sequence of int, optional
        One rank for all modes, or one per mode, at most the sizes.
    tol : float, optional
        Relative Frobenius error to keep; the ranks follow. Give either ``rank`` or ``tol``.

    Returns
    -------
    Tucker
        ``info.rel_error`` is its relative error, from the discarded parts themselves: within 1 % of the truth
        while that is a thousand times the rounding of the dtype, or more.

    Raises
    ------
    RankError
        If both or neither of ``rank`` and ``tol`` are given, or not valid for this shape and dtype.
    DataError
        If entries are NaN or infinite, or the dtype is not supported.
    ShapeError
        If the array has no modes or no entries.

    Notes
    -----
    The error is at most ``sqrt(D)`` times that of the best approximation of the same rank. The first mode
    costs ``2 (I_n + R_n) prod(I)`` multiplications, later ones less; extra memory is the first projection and
    a block of columns. Singular vectors come from a Gram matrix in float64, and from a blocked QR where the
    error sought is too small for that (below about 1e-6). Columns of a factor are ordered by energy; their
    signs are arbitrary.

    References
    ----------
    .. [1] N. Vannieuwenhoven, R. Vandebril and K. Meerbergen, A new truncation strategy for the higher-order
       singular value decomposition, SIAM J. Sci. Comput. 34 (2012), algorithm 1 and theorem 5.1.
       doi:10.1137/110836067

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(0, 1, 20)
    >>> X = 1 / (1 + x[:, None, None] + x[:, None] + x)
    >>> t = tucker(X, tol=1e-6)
    >>> t
    Tucker(shape=(20, 20, 20), rank=(4, 4, 4), numpy.float64, 304 numbers for 8,000 entries)
    >>> bool(np.linalg.norm(t.to_tensor() - X) <= 1e-6 * np.linalg.norm(X))
    True
    """
    start = perf_counter()
    namespace_of(X)
    X = as_float(X, "tucker")
    if X.ndim == 0 or 0 in X.shape:
        raise ShapeError(
            f"tucker: X must have at least one mode and no empty one; got shape {tuple(X.shape)}."
        )
    ranks, tol = rank_or_tol(rank, tol, tuple(X.shape), X.dtype, "tucker")
    norm2 = squared_norm(X)
    if not math.isfinite(norm2):
        _check_finite(X)
    core, factors, rel_error = truncate(X, ranks, tol, norm2=norm2)
    return Tucker(core, factors, info=truncation_report("tucker", rel_error, tol, start))


def _check_finite(X: Any) -> None:
    """Refuse NaN and infinite entries, with their number and the first place."""
    xp = namespace_of(X)
    bad = ~xp.isfinite(X)
    count = int(xp.count_nonzero(bad))
    if count:
        first = tuple(int(index[0]) for index in xp.nonzero(bad))
        what = "NaN" if bool(xp.isnan(X[first])) else "infinite"
        raise DataError(
            f"tucker: every entry must be finite; X has {count} of {math.prod(X.shape)} entries that are "
            f"not, the first at {first} ({what}). For missing entries use tucker_complete, or "
            "FunctionalTucker where indices are continuous."
        )
