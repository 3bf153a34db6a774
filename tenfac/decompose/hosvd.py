"""Tucker decomposition by the sequentially truncated higher-order SVD."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from jaxtyping import Shaped

from tenfac.core.arrays import as_float, namespace_of
from tenfac.core.door import door
from tenfac.core.errors import ShapeError
from tenfac.core.precision import half_of
from tenfac.core.rank import rank_or_tol
from tenfac.core.tracing import clock, is_traced
from tenfac.core.truncate import squared_norm, truncate_any
from tenfac.core.tucker import Tucker, reported
from tenfac.decompose.checks import check_finite
from tenfac.decompose.chunked import chunked_tucker, is_chunked
from tenfac.decompose.sparse_input import is_sparse


@door
def tucker(
    X: Shaped[Any, "*shape"],
    rank: int | Sequence[int] | None = None,
    *,
    tol: float | None = None,
    batch: int = 0,
) -> Tucker:
    """Decompose an array into a core and orthonormal factors.

    ``X[i, j, ...] ~ sum_{p, q, ...} G[p, q, ...] A[i, p] B[j, q] ...``, by the sequentially truncated
    higher-order SVD [1]_: mode after mode, what is left is projected on its leading singular vectors.

    Parameters
    ----------
    X : array, shape (I_0, ..., I_{D-1})
        Real or complex, without NaN. float32 is decomposed as float32, integers as float64; float16 and
        bfloat16 are computed in float32 and returned as they came (sparse or in chunks: as float32), with a
        note in ``info.warnings``. Or a
        sparse array of scipy, pydata sparse or torch, which is never made dense, or an array in chunks (zarr,
        h5py, dask), which is read slab by slab, twice. A numpy memmap is read in blocks too. Of an
        xarray.DataArray the values; ``to_xarray(t, X.dims, X.coords)`` gives its names back.
    rank : int or sequence of int, optional
        One rank for all modes, or one per mode, at most the sizes.
    tol : float, optional
        Relative Frobenius error to keep; the ranks follow. Give either ``rank`` or ``tol``.
    batch : int, optional
        Number of leading axes that count tensors: each is decomposed on its own, at once with the others,
        which needs ``rank``.

    Returns
    -------
    Tucker
        ``info.rel_error`` is its relative error, from the discarded parts themselves, and where it comes near
        the rounding of the dtype from the array itself: within 1 % of the truth (of a sparse array down to
        1e-7). For a batch: core and factors with its axes first, and an array of errors.

    Raises
    ------
    RankError
        If both or neither of ``rank`` and ``tol`` are given, or not valid for this shape and dtype; if
        ``tol`` comes with a batch, or under ``jit``, ``vmap`` or ``grad``, or is below 1e-6 for a sparse
        array.
    DataError
        If entries are NaN or infinite, or the dtype is not supported.
    ShapeError
        If the array has no modes or no entries, or ``batch`` leaves no mode.

    Notes
    -----
    The error is at most ``sqrt(D)`` times that of the best approximation of the same rank. The first mode
    costs ``2 (I_n + R_n) prod(I)`` multiplications, later ones less; extra memory is the first projection and
    a block of columns. Singular vectors come from a Gram matrix in float64, and from a blocked QR where the
    error sought is too small for that (below about 1e-6). Columns of a factor are ordered by energy; their
    signs are arbitrary.

    With ``rank`` it can be differentiated, and used under ``jax.jit``, ``jax.vmap``, ``torch.vmap`` and
    ``torch.compile``: entries are then not checked, and ``info.rel_error`` is an array of that
    transformation. JAX without its 64-bit mode computes in float32 by QR and SVD, and says what error is
    left.

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
    if type(X).__name__ == "DataArray" and hasattr(X, "dims"):
        X = X.data
    if batch and (is_sparse(X) or is_chunked(X)):
        raise ShapeError(
            f"tucker: `batch` must be 0 for sparse arrays and arrays in chunks; got {batch!r}. Decompose "
            "them one by one."
        )
    if is_sparse(X):
        from tenfac.decompose.sparse_tucker import (
            sparse_tucker,  # loads scipy.sparse, which dense arrays do not need
        )

        return sparse_tucker(X, rank, tol=tol)
    if is_chunked(X):
        return chunked_tucker(X, rank, tol=tol)
    namespace_of(X)
    start = clock(X)
    dtype = half_of(X)
    X = as_float(X, "tucker")
    batch = _check_batch(batch, X.ndim)
    shape = tuple(X.shape[batch:])
    if not shape or 0 in X.shape:
        raise ShapeError(
            f"tucker: X must have at least one mode after its batch axes and no empty one; got shape "
            f"{tuple(X.shape)} with batch={batch}."
        )
    dtype = X.dtype if dtype is None else dtype
    ranks, tol = rank_or_tol(rank, tol, shape, dtype, "tucker")
    norm2 = None if is_traced(X) else squared_norm(X)
    if norm2 is not None and not math.isfinite(norm2):
        check_finite(X, "tucker")
    core, factors, rel_error = truncate_any(X, ranks, tol, len(shape), dtype, "tucker", norm2=norm2)
    return reported(Tucker(core, tuple(factors)), rel_error, tol, dtype, "tucker", start)


def _check_batch(batch: Any, ndim: int) -> int:
    known = hasattr(batch, "__index__") and not isinstance(batch, bool)
    if not known or not 0 <= batch.__index__() < max(ndim, 1):
        raise ShapeError(
            f"tucker: `batch` must be an integer from 0 to {max(ndim - 1, 0)}, so that a mode of the "
            f"{ndim}-way array is left; got {batch!r}."
        )
    return batch.__index__()
