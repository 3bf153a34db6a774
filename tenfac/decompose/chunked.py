"""Tucker decomposition of an array that is read piece by piece: zarr, HDF5, dask, or anything sliced."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from time import perf_counter
from typing import Any

import numpy as np

from tenfac.core.arrays import as_float, byte_guard
from tenfac.core.errors import ShapeError
from tenfac.core.rank import rank_or_tol
from tenfac.core.truncate import squared_norm, truncate, truncation_report
from tenfac.core.tucker import Tucker
from tenfac.decompose.checks import check_finite, check_shape

# Numbers read at once, where the chunks allow it.
_SLAB = 2**22
# Below this tolerance the Gram matrix of the first mode no longer tells what is discarded.
_GRAM_LIMIT = 1e-5
_MOST_BYTES = 2**33
# Smallest squared norm that has all its digits.
_SMALLEST = 1e-250


def is_chunked(X: Any) -> bool:
    """Whether ``X`` is stored in chunks and read by slicing: an array of zarr, h5py or dask.

    Examples
    --------
    >>> is_chunked(np.ones(3))
    False
    """
    named = type(X).__module__.startswith("xarray")  # its names would be lost
    return not named and hasattr(X, "chunks") and hasattr(X, "shape") and hasattr(X, "__getitem__")


def chunked_tucker(X: Any, rank: int | Sequence[int] | None = None, *, tol: float | None = None) -> Tucker:
    """Decompose an array in two passes over its chunks.

    The first pass gathers the Gram matrix (or the triangular factor) of one unfolding, the second projects on
    its leading vectors; what is left fits in memory and goes the usual way.

    Parameters
    ----------
    X : array in chunks, shape (I_0, ..., I_{D-1})
        ``X[slices]`` must give something that numpy reads.
    rank, tol
        As for ``tucker``.

    Returns
    -------
    Tucker
        Of numpy.

    Raises
    ------
    RankError, DataError, ShapeError
        As for ``tucker``; DataError also if the array projected in one mode is larger than 8 GiB.

    Notes
    -----
    Memory: a few times 32 MB (or a row of chunks, if that is larger), one matrix of the size of the first
    mode squared, and the projected array, which has ``R_n / I_n`` of the entries.

    Examples
    --------
    >>> class Stored:  # what zarr and h5py have
    ...     data, shape, dtype, chunks = np.ones((4, 5, 6)), (4, 5, 6), np.dtype(float), (2, 5, 6)
    ...
    ...     def __getitem__(self, index):
    ...         return self.data[index]
    >>> chunked_tucker(Stored(), tol=1e-6).rank
    (1, 1, 1)
    """
    start = perf_counter()
    if any(size != size for size in X.shape):
        raise ShapeError(
            f"tucker: the shape of X must be known; got {tuple(X.shape)}. Call X.compute_chunk_sizes() first."
        )
    shape = tuple(int(size) for size in X.shape)
    check_shape(shape, "tucker")
    dtype = as_float(np.empty(0, dtype=np.dtype(str(X.dtype))), "tucker").dtype
    ranks, tol = rank_or_tol(rank, tol, shape, dtype, "tucker")
    n = _first_mode(shape, ranks)
    by_gram = tol is None or tol >= _GRAM_LIMIT
    X = _Scaled(X)
    squares, vectors, norm2 = _basis(X, n, shape, by_gram)
    if X.largest > 0 and not _SMALLEST < norm2 < math.inf:  # squares overflow, or lose digits
        X.scale = X.largest
        squares, vectors, norm2 = _basis(X, n, shape, by_gram)
    share2 = math.nan if tol is None else tol**2 * norm2 / len(shape)
    kept = _kept(squares, share2) if ranks is None else ranks[n]
    factor = vectors[:, :kept].astype(dtype)
    small, lost2 = _projected(X, n, shape, factor)
    rest = [m for m in range(len(shape)) if m != n]
    small2 = squared_norm(small)
    left = tol
    if tol is not None and small2:
        left = math.sqrt(max(tol**2 * norm2 - lost2, 0.0) / small2)
    core, factors, rel_error = truncate(small, ranks, left, norm2=small2, modes=rest)
    factors = tuple(factor if m == n else factors[m] for m in range(len(shape)))
    total = math.sqrt((lost2 + rel_error**2 * small2) / norm2) if norm2 > 0 else 0.0
    core = core if X.scale is None else core * dtype.type(X.scale)
    return Tucker(core, factors, info=truncation_report("tucker", total, tol, start))


class _Scaled:
    """Slabs of an array, divided by ``scale`` if there is one; remembers the largest magnitude read."""

    def __init__(self, X: Any) -> None:
        self.X, self.chunks, self.shape = X, X.chunks, X.shape
        self.scale: float | None = None
        self.largest = 0.0

    def read(self, where: tuple[slice, ...]) -> np.ndarray:
        """One slab."""
        slab = as_float(np.asarray(self.X[where]), "tucker")
        self.largest = max(self.largest, float(np.abs(slab).max()))
        return slab if self.scale is None else slab / slab.dtype.type(self.scale)


def _first_mode(shape: Sequence[int], ranks: Sequence[int] | None) -> int:
    """The mode whose projection leaves least; of unknown ranks, the longest."""
    return max(range(len(shape)), key=lambda n: shape[n] / ranks[n] if ranks else shape[n])


def _slabs(X: _Scaled, n: int, shape: Sequence[int]) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """Pieces of X that are whole in mode n, and in the other modes some chunks."""
    steps = [size if m == n else _chunk(X, m) for m, size in enumerate(shape)]
    for m in reversed(range(len(shape))):
        steps[m] = min(steps[m] * max(_SLAB // math.prod(steps), 1), shape[m])
    starts = [range(0, size, step) for size, step in zip(shape, steps, strict=True)]
    for corner in product(*starts):
        where = tuple(slice(begin, begin + step) for begin, step in zip(corner, steps, strict=True))
        yield where, X.read(where)


def _chunk(X: _Scaled, m: int) -> int:
    """Size of the chunks in one mode; dask has a tuple of sizes for each."""
    size = X.chunks[m] if X.chunks else 1
    return min(int(size if isinstance(size, int | np.integer) else max(size)), int(X.shape[m]))


def _unfolded(slab: np.ndarray, n: int) -> np.ndarray:
    wide = np.complex128 if np.iscomplexobj(slab) else np.float64
    return np.moveaxis(slab, n, 0).reshape(slab.shape[n], -1).astype(wide, copy=False)


def _basis(X: _Scaled, n: int, shape: Sequence[int], by_gram: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """Squared singular values, left singular vectors of the unfolding, and the squared norm; one pass."""
    norm2 = 0.0
    gathered: Any = None
    for _, slab in _slabs(X, n, shape):
        square = squared_norm(slab)
        if not math.isfinite(square):
            check_finite(slab, "tucker")
        norm2 += square
        block = _unfolded(slab, n)
        if math.isinf(norm2):
            continue  # to be read again, divided by the largest
        if by_gram:
            gram = block @ block.conj().T
            gathered = gram if gathered is None else gathered + gram
        else:
            rows = block.T if gathered is None else np.concatenate([gathered, block.T])
            gathered = np.linalg.qr(rows, mode="r")
    if math.isinf(norm2):
        return np.empty(()), np.empty(()), norm2
    if by_gram:
        values, vectors = np.linalg.eigh(gathered)
        return np.maximum(values[::-1], 0.0), vectors[:, ::-1], norm2
    vectors, values, _ = np.linalg.svd(gathered.T, full_matrices=False)
    return values**2, vectors, norm2


def _kept(squares: np.ndarray, share2: float) -> int:
    """Fewest leading values whose others sum to at most ``share2``."""
    tails = np.append(np.cumsum(squares[::-1])[::-1], 0.0)
    return max(int(np.argmax(tails <= share2)), 1)


def _projected(X: _Scaled, n: int, shape: Sequence[int], factor: np.ndarray) -> tuple[np.ndarray, float]:
    """X times the adjoint of the factor in mode n, and the squared norm of what that discards; one pass."""
    small_shape = tuple(factor.shape[1] if m == n else size for m, size in enumerate(shape))
    remedy = "Lower the rank or raise tol."
    byte_guard(small_shape, factor.dtype.itemsize, _MOST_BYTES, "tucker, after its first mode", remedy)
    small = np.empty(small_shape, dtype=factor.dtype)
    lost2 = 0.0
    for where, slab in _slabs(X, n, shape):
        block = _unfolded(slab, n)
        wide = factor.astype(block.dtype)
        kept = wide.conj().T @ block
        lost2 += squared_norm(block - wide @ kept)
        rest = [size for m, size in enumerate(slab.shape) if m != n]
        place = tuple(slice(None) if m == n else part for m, part in enumerate(where))
        small[place] = np.moveaxis(kept.reshape(factor.shape[1], *rest), 0, n)
    return small, lost2
