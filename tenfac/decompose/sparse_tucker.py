"""Tucker decomposition of a sparse array: ST-HOSVD that never forms it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import ArpackError, svds

from tenfac.core.arrays import byte_guard
from tenfac.core.errors import DataError, RankError
from tenfac.core.rank import rank_or_tol
from tenfac.core.truncate import truncation_report
from tenfac.core.tucker import Tucker
from tenfac.decompose.sparse_input import read_sparse

Array = NDArray[Any]

# Side of a Gram matrix that is formed; larger unfoldings get their singular vectors by Lanczos iteration.
_GRAM = 1500
# Smallest relative error that the energies of a sparse array can tell.
_FLOOR = 1e-7
# Most singular vectors sought for a tolerance where no Gram matrix is formed.
_MOST = 256
# How many are sought first, and which part of all at most; to which relative error.
_FIRST, _PART, _LANCZOS = 16, 3, 1e-8
_SEED = 0  # of the start of the iteration, and of columns that any would do for
# Rank that a mode is taken to get for a tolerance, when the order of the modes is chosen.
_GUESS = 10
# Share of the energy that counts as all of it, as sums are rounded.
_WHOLE = 1 - 1e-15
_MAX_BYTES = 2**32


def sparse_tucker(X: Any, rank: int | Sequence[int] | None = None, *, tol: float | None = None) -> Tucker:
    """Decompose a sparse array into a core and orthonormal factors, as ``tucker`` does with a dense one.

    Parameters
    ----------
    X : scipy.sparse array, sparse.COO, sparse.GCXS, or torch sparse tensor
        Entries that are not stored are zeros, not missing.
    rank : int or sequence of int, optional
        One rank for all modes, or one per mode, at most the sizes.
    tol : float, optional
        Relative Frobenius error to keep, 1e-6 or more. Give either ``rank`` or ``tol``.

    Returns
    -------
    Tucker
        Of numpy or torch arrays. ``info.rel_error`` is the relative error; below 1e-7 it is given as 1e-7.

    Raises
    ------
    RankError, DataError, ShapeError
        As ``tucker``; and if what the ranks need would take more than 4 GiB.

    Notes
    -----
    Mode after mode is projected on its leading singular vectors; what is left is dense in the projected modes
    and sparse in the others: at most ``N R`` numbers after the first mode of an array with N entries.
    Singular vectors come from the Gram matrix of the shorter side of the unfolding up to 1500, above from
    Lanczos iteration, and where that would need more than a third of them or 256, or meets equal singular
    values, from the Gram matrix again while it fits. float16 and bfloat16 are computed and returned in
    float32.

    References
    ----------
    .. [1] T. G. Kolda and J. Sun, Scalable tensor decompositions for multi-aspect data mining, ICDM 2008,
       section 3. doi:10.1109/ICDM.2008.89

    Examples
    --------
    >>> from scipy.sparse import coo_array
    >>> X = coo_array(([1.0, 2.0, 3.0], ([0, 1, 99], [5, 5, 6], [7, 7, 8])), shape=(100, 100, 100))
    >>> sparse_tucker(X, (2, 2, 2)).rank
    (2, 2, 2)
    """
    start = perf_counter()
    indices, values, shape = read_sparse(X, "tucker")
    ranks, tol = rank_or_tol(rank, tol, shape, values.dtype, "tucker")
    if tol is not None and tol < 1e-6:
        raise RankError(f"tucker: tol must be at least 1e-6 for a sparse array; got {tol:g}. Raise tol.")
    largest = float(np.max(np.abs(values), initial=np.finfo(values.dtype).tiny))
    wide = (values / largest).astype(np.complex128 if np.iscomplexobj(values) else np.float64)
    norm2 = float(np.vdot(wide, wide).real)
    budget2 = math.nan if tol is None else tol**2 * norm2
    core, factors, lost2 = _truncate(indices, wide, shape, ranks, budget2)
    rel_error = math.sqrt(lost2 / norm2) if norm2 else 0.0
    full = core.shape == shape
    rel_error = rel_error if norm2 == 0 or (full and tol is None) else max(rel_error, _FLOOR)
    arrays = [array.astype(values.dtype) for array in (core * largest, *factors)]
    core, *factors = _native(arrays, X)
    return Tucker(core, factors, info=truncation_report("tucker", rel_error, tol, start))


def _native(arrays: list[Array], X: Any) -> list[Any]:
    """The arrays, in torch if ``X`` is."""
    if type(X).__module__.partition(".")[0] != "torch":
        return arrays
    import torch

    return [torch.from_numpy(np.ascontiguousarray(array)).to(X.device) for array in arrays]


def _truncate(
    indices: Array, values: Array, shape: tuple[int, ...], ranks: Sequence[int] | None, budget2: float
) -> tuple[Array, list[Array], float]:
    """Project mode after mode; ``block[e]`` holds the entries at ``indices[e]`` over all projected modes."""
    block = values[:, None]
    left, done = list(range(len(shape))), []
    factors: list[Any] = [None] * len(shape)
    lost2 = 0.0
    while left:
        columns, n = _cheapest(indices, left, shape, ranks)
        at = left.index(n)
        rank = None if ranks is None else ranks[n]
        share2 = max(budget2 - lost2, 0.0) / len(left)
        factors[n], block, tail2 = _step(indices[:, at], *columns[1:], block, shape[n], rank, share2)
        lost2 += tail2
        indices = columns[0]
        left.pop(at)
        done.append(n)
    core = block.reshape([factors[n].shape[1] for n in done])
    return np.transpose(core, np.argsort(done)), factors, lost2


def _cheapest(
    indices: Array, left: list[int], shape: tuple[int, ...], ranks: Sequence[int] | None
) -> tuple[tuple[Array, Array], int]:
    """The mode whose projection leaves fewest numbers; its distinct columns, and the column of each entry."""
    best: tuple[Any, ...] = (math.inf,)
    for at, n in enumerate(left):
        others = np.delete(indices, at, axis=1)
        sizes = [shape[m] for m in left if m != n]
        if math.prod(sizes) < 2**62:
            key = np.ravel_multi_index(tuple(others.T), sizes) if sizes else np.zeros(len(others), dtype=int)
            first, column = np.unique(key, return_index=True, return_inverse=True)[1:]
            distinct = others[first]
        else:
            distinct, column = np.unique(others, axis=0, return_inverse=True)
        size = len(distinct) * (ranks[n] if ranks is not None else min(shape[n], _GUESS))
        if size < best[0]:
            best = (size, (distinct, column.reshape(-1)), n)
    return best[1], best[2]


def _step(
    rows: Array, column: Array, block: Array, size: int, rank: int | None, share2: float
) -> tuple[Array, Array, float]:
    """Factor of one mode, the projected block, and the energy left out."""
    used, row = np.unique(rows, return_inverse=True)
    n_columns = int(column.max(initial=-1)) + 1 or 1
    matrix = _unfolding(row.reshape(-1), column, block, max(len(used), 1), n_columns)
    energy = float(np.vdot(matrix.data, matrix.data).real)
    basis = _leading(matrix, rank, energy - share2)
    found = basis.shape[1]
    byte_guard(
        (n_columns, block.shape[1], found),
        basis.itemsize,
        _MAX_BYTES,
        "tucker",
        "This is one projection of the sparse array; lower the rank, or raise tol.",
    )
    projected = matrix.T @ basis.conj()
    kept = float(np.vdot(projected, projected).real)
    factor = np.zeros((size, found if rank is None else rank), dtype=block.dtype)
    factor[used[: len(basis)] if len(used) else [0], :found] = basis
    if factor.shape[1] > found:  # no energy is left for these columns: any that complete the basis
        more = np.random.default_rng(_SEED).standard_normal((size, factor.shape[1] - found))
        factor[:, found:] = np.linalg.qr(np.concatenate([factor[:, :found], more], axis=1))[0][:, found:]
        pad = np.zeros((len(projected), factor.shape[1] - found), dtype=projected.dtype)
        projected = np.concatenate([projected, pad], axis=1)
    return factor, projected.reshape(n_columns, -1), max(energy - kept, 0.0)


def _unfolding(row: Array, column: Array, block: Array, n_rows: int, n_columns: int) -> csr_array:
    """The unfolding: row by row, each entry's column opened to the width of the block."""
    width = block.shape[1]
    order = np.argsort(row, kind="stable")
    kind = np.int32 if max(n_columns * width, block.size) < 2**31 else np.int64
    within = (column[order, None] * width + np.arange(width)).astype(kind).reshape(-1)
    pointers = np.append(0, np.cumsum(np.bincount(row, minlength=n_rows)) * width).astype(kind)
    return csr_array((block[order].reshape(-1), within, pointers), shape=(n_rows, n_columns * width))


def _leading(matrix: csr_array, rank: int | None, enough2: float) -> Array:
    """Leading left singular vectors: ``rank`` of them, or as many as carry the energy ``enough2``."""
    shorter = min(matrix.shape)
    if shorter <= _GRAM:
        return _by_gram(matrix, rank, enough2)
    count = rank or _FIRST
    while _PART * count < shorter and count <= (rank or _MOST):
        try:
            vectors, values = _by_lanczos(matrix, count)
        except ArpackError:  # equal singular values, or too slow
            break
        if rank is not None:
            return vectors
        found = np.cumsum(values**2)
        if found[-1] >= enough2:
            return vectors[:, : int(np.argmax(found >= enough2)) + 1]
        lacking = (enough2 - found[-1]) / max(values[-1] ** 2, np.finfo(float).tiny)  # later ones are smaller
        count = max(2 * count, count + math.ceil(min(lacking, shorter)))
    _check_gram(matrix, rank)
    return _by_gram(matrix, rank, enough2)


def _check_gram(matrix: csr_array, rank: int | None) -> None:
    """Refuse where Lanczos iteration does not help and the Gram matrix is too large."""
    shorter = min(matrix.shape)
    needed = 3 * shorter**2 * matrix.dtype.itemsize  # with its eigenvectors and work space
    if needed <= _MAX_BYTES:
        return
    many = f"more than {_MOST}" if rank is None else rank
    kind, remedy = (RankError, "Raise tol, or give rank") if rank is None else (DataError, "Lower the rank")
    raise kind(
        f"tucker: the singular vectors of an unfolding must be few and their values distinct, or its Gram "
        f"matrix small; got {many} or equal ones at size {matrix.shape[0]} x {matrix.shape[1]}, where that "
        f"needs {needed:,} bytes of at most {_MAX_BYTES:,}. {remedy}."
    )


def _by_gram(matrix: csr_array, rank: int | None, enough2: float) -> Array:
    """From the Gram matrix of the shorter side."""
    n_rows, n_columns = matrix.shape
    wide = n_rows <= n_columns
    adjoint = matrix.conj().T
    values, vectors = np.linalg.eigh((matrix @ adjoint if wide else adjoint @ matrix).toarray())
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    if rank is None:
        rank = int(np.argmax(np.append(np.cumsum(values), math.inf) >= enough2 * _WHOLE)) + 1
    rank = min(rank, len(values))
    if wide:
        return vectors[:, :rank]
    return np.linalg.qr(matrix @ vectors[:, :rank])[0]


def _by_lanczos(matrix: csr_array, count: int) -> tuple[Array, Array]:
    start = np.random.default_rng(_SEED).standard_normal(min(matrix.shape)).astype(matrix.dtype)
    vectors, values, _ = svds(matrix, k=min(count, min(matrix.shape) - 1), v0=start, tol=_LANCZOS)
    order = np.argsort(-values)
    return np.linalg.qr(vectors[:, order])[0], values[order]
