"""Entries of a function of indices: evaluated in batches, checked, counted."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.core.arrays import as_float, device_of, dtype_name, is_array, namespace_of, to_numpy
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.format import Format
from tenfac.core.interchange import as_format
from tenfac.decompose.checks import check_count

Array = NDArray[Any]

# Magnitudes between which squares and their sums have all digits.
_TINY, _HUGE = 1e-100, 1e100


class Sampler:
    """Reads entries of ``f`` at integer indices, in float64 or complex128, and counts them.

    Parameters
    ----------
    f : callable or array
        ``f(indices (N, D)) -> (N,)``, or something that is read as ``f[i, j, ...]`` at arrays of indices.
    shape : sequence of int
    batch : int
        Most entries of one call.
    where : str
        Name of the caller, for the messages.
    rng : numpy Generator, optional
        Draws ``n_scale`` entries, whose largest becomes ``scale`` if squares of it would overflow or vanish.
    n_scale : int

    Attributes
    ----------
    n_evals : int
        Entries read so far.
    scale : float
        Values are divided by it.

    Examples
    --------
    >>> sampler = Sampler(lambda i: i.sum(axis=1), (3, 4), 10, "tucker_cross")
    >>> sampler.grid([np.array([0, 2]), np.array([1, 3])])
    array([[1., 3.],
           [3., 5.]])
    >>> sampler.n_evals
    5
    """

    def __init__(
        self,
        f: Callable[[Array], Any] | Any,
        shape: Sequence[int],
        batch: int,
        where: str,
        rng: np.random.Generator | None = None,
        n_scale: int = 0,
    ) -> None:
        self._where = where
        self.shape = checked_shape(shape, where)
        self._batch = check_count(batch, "batch", where)
        self.n_evals = 0
        f = as_format(f)
        if not callable(f):
            if not hasattr(f, "__getitem__") or tuple(getattr(f, "shape", ())) != self.shape:
                raise ShapeError(
                    f"{where}: f must be a function of indices or an array of shape {self.shape}; got "
                    f"{type(f).__name__} of shape {tuple(getattr(f, 'shape', ()))}."
                )
            f = _reader(f)
        self._f = f
        self._like = self._call(np.zeros((1, len(self.shape)), dtype=np.int64))
        self.dtype = self._like.dtype
        self.scale = 1.0
        if rng is not None and n_scale > 0:
            points = np.stack([rng.integers(size, size=n_scale) for size in self.shape], axis=1)
            largest = float(np.max(np.abs(self.entries(points))))
            self.scale = largest if largest and not _TINY < largest < _HUGE else 1.0

    def native(self, array: Array) -> Any:
        """Bring an array to the library, device and precision of the values of ``f``."""
        xp = namespace_of(self._like)
        is_wide = dtype_name(self.dtype) in ("float64", "complex128")
        real, imag = (xp.float64, xp.complex128) if is_wide else (xp.float32, xp.complex64)
        dtype = imag if np.iscomplexobj(array) else real
        return xp.asarray(np.ascontiguousarray(array), dtype=dtype, device=device_of(self._like))

    def entries(self, indices: Array) -> Array:
        """Values at indices (N, D), shape (N,)."""
        return self._joined(indices[at : at + self._batch] for at in range(0, len(indices), self._batch))

    def fibres(self, n: int, columns: Array) -> Array:
        """Fibres of mode ``n`` through the other indices (c, D-1), as columns: shape (I_n, c)."""
        size = self.shape[n]
        parts = self._batches(size * len(columns))
        values = self._joined(np.insert(columns[p // size], n, p % size, axis=1) for p in parts)
        return values.reshape(len(columns), size).T

    def grid(self, rows: Sequence[Array]) -> Array:
        """Values at all combinations of the chosen rows of every mode."""
        sizes = tuple(len(r) for r in rows)
        parts = self._batches(math.prod(sizes))
        values = self._joined(
            np.stack([r[i] for r, i in zip(rows, np.unravel_index(p, sizes), strict=True)], axis=1)
            for p in parts
        )
        return values.reshape(sizes)

    def _batches(self, total: int) -> Iterator[Array]:
        for at in range(0, total, self._batch):
            yield np.arange(at, min(at + self._batch, total))

    def _joined(self, parts: Iterator[Array]) -> Array:
        values = [to_numpy(self._call(part)) for part in parts]
        joined = np.concatenate(values) if values else np.empty(0)
        joined = joined.astype(np.complex128 if np.iscomplexobj(joined) else np.float64, copy=False)
        return joined / self.scale

    def _call(self, indices: Array) -> Any:
        """One call of ``f``; its values checked, at least float32."""
        self.n_evals += len(indices)
        values = self._f(indices.copy())  # which f may change
        values = as_float(values if is_array(values) else np.asarray(values), self._where)
        if tuple(values.shape) != (len(indices),):
            raise ShapeError(
                f"{self._where}: f must return one value per row of its indices, shape ({len(indices)},); "
                f"got shape {tuple(values.shape)} for indices of shape {indices.shape}."
            )
        bad = ~np.isfinite(to_numpy(values))
        if bad.any():
            first = int(np.argmax(bad))
            raise DataError(
                f"{self._where}: f must be finite everywhere; it returned {to_numpy(values)[first]} at "
                f"{tuple(map(int, indices[first]))}."
            )
        return values


def _reader(array: Any) -> Callable[[Array], Any]:
    if isinstance(array, Format):
        return lambda indices: array.at(*indices.T)
    if is_array(array):
        xp, device = namespace_of(array), device_of(array)
        if xp is not namespace_of(np.empty(())):
            return lambda indices: array[tuple(xp.asarray(column, device=device) for column in indices.T)]
    return lambda indices: array[tuple(indices.T)]


def checked_shape(shape: Sequence[int], where: str) -> tuple[int, ...]:
    """Sizes of at least one mode, none empty.

    Examples
    --------
    >>> checked_shape([3, 4], "tucker_cross")
    (3, 4)
    """
    try:
        sizes: tuple[Any, ...] = tuple(shape)
    except TypeError:
        sizes = (shape,)
    if not sizes or not all(isinstance(size, numbers.Integral) and int(size) >= 1 for size in sizes):
        raise ShapeError(f"{where}: shape must hold one size of 1 or more per mode; got {shape!r}.")
    return tuple(int(size) for size in sizes)
