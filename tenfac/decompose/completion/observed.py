"""Observed entries of a tensor, read from an array with a mask or NaN, or from a sparse array."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tenfac.core.arrays import as_float, device_of, dtype_name, is_array, library_name, namespace_of, to_numpy
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.interchange import refuse_decomposed
from tenfac.decompose.sparse_input import is_sparse, stored_entries

_REMEDY = "Pass an array with mask=..., or a COO array of the observed entries."


@dataclass(frozen=True)
class Observed:
    """Entries of a tensor in C order of their indices, each at most once.

    Parameters
    ----------
    shape : tuple of D int
    indices : tuple of D arrays of int, shapes (N,)
    values : array, shape (N,)
        float64 or complex128.
    like : array or None
        An array of the library, dtype and device that results should have.

    Examples
    --------
    >>> Observed((2, 2), (np.array([0]), np.array([1])), np.array([5.0])).size
    1
    """

    shape: tuple[int, ...]
    indices: tuple[np.ndarray, ...]
    values: np.ndarray
    like: Any = None

    @property
    def size(self) -> int:
        """Number of entries N."""
        return len(self.values)

    def take(self, which: np.ndarray) -> Observed:
        """Some of the entries."""
        return Observed(self.shape, tuple(i[which] for i in self.indices), self.values[which], self.like)

    def divided_by(self, scale: float) -> Observed:
        """The same entries with smaller or larger values."""
        return Observed(self.shape, self.indices, self.values / scale, self.like)

    def unseen(self) -> list[np.ndarray]:
        """For each mode, whether a row has no entries, shape (I_n,)."""
        counts = [np.bincount(i, minlength=n) for i, n in zip(self.indices, self.shape, strict=True)]
        return [count == 0 for count in counts]

    def restore(self, array: np.ndarray) -> Any:
        """Bring a result to the library, dtype and device of the data."""
        xp = namespace_of(self.like)
        return xp.asarray(array, dtype=self.like.dtype, device=device_of(self.like))


def observed_entries(X: Any, mask: Any = None, where: str = "cp_complete") -> Observed:
    """Read the observed entries of a tensor.

    Parameters
    ----------
    X : array, masked array or sparse array, shape (I_0, ..., I_{D-1})
        Of an array without ``mask`` all entries but NaN are observed, of a sparse array those stored.
    mask : array of bool, same shape, optional
        True where observed; only for arrays.
    where : str
        Name of the caller, for messages.

    Raises
    ------
    DataError
        If entries are stored twice, an observed one is not finite, there are none, or the dtype is not
        supported.
    ShapeError
        If there are fewer than two modes, an empty one, or ``mask`` does not fit.
    TypeError
        If ``X`` is not an array, or ``mask`` is not one of booleans.

    Examples
    --------
    >>> entries = observed_entries(np.array([[1.0, np.nan], [np.nan, 4.0]]))
    >>> entries.indices, entries.values
    ((array([0, 1]), array([0, 1])), array([1., 4.]))
    """
    if isinstance(X, np.ma.MaskedArray) and mask is None:
        X, mask = X.data, ~np.ma.getmaskarray(X)
    if not is_sparse(X):
        indices, values, like = _of_array(X, mask, where)
        shape = tuple(X.shape)
    else:
        if mask is not None:
            raise TypeError(
                f"{where}: mask goes with a dense array; X is sparse, and its stored entries are the "
                "observed ones. Leave mask out."
            )
        stored, values, shape = stored_entries(X, where)
        _check_shape(shape, where)
        of_torch = type(X).__module__.partition(".")[0] == "torch"
        like = as_float(X.detach().to_sparse()._values()[:0] if of_torch else values[:0], where)
        indices, values = _sorted(list(stored.T), values, shape, where)
    if not values.size:
        raise DataError(f"{where}: needs at least one observed entry; got none for shape {shape}.")
    _check_finite(indices, values, where)
    wide = np.complex128 if np.iscomplexobj(values) else np.float64
    return Observed(shape, tuple(indices), values.astype(wide), like)


def _of_array(X: Any, mask: Any, where: str) -> tuple[Sequence[np.ndarray], np.ndarray, Any]:
    if not is_array(X) or isinstance(X, np.generic):
        refuse_decomposed(X, where)
        raise TypeError(f"{where}: X must be an array of numbers; got {type(X).__name__}. {_REMEDY}")
    namespace_of(X)
    _check_shape(tuple(X.shape), where)
    like, dense = as_float(X[:0], where), to_numpy(as_float(X, where))
    keep = ~np.isnan(dense) if mask is None else _read_mask(mask, X, where)
    indices = np.nonzero(keep)
    return indices, dense[keep], like


def _check_shape(shape: tuple[int, ...], where: str) -> None:
    if len(shape) < 2 or 0 in shape:
        raise ShapeError(f"{where}: X must have at least two modes and no empty one; got shape {shape}.")


def _read_mask(mask: Any, X: Any, where: str) -> np.ndarray:
    if not is_array(mask) or dtype_name(mask.dtype) != "bool":
        got = f"dtype {dtype_name(mask.dtype)}" if is_array(mask) else type(mask).__name__
        raise TypeError(
            f"{where}: mask must be an array of booleans, True where X is observed; got {got}. For 0 and 1 "
            "write mask=(m == 1)."
        )
    if library_name(mask) not in ("numpy", library_name(X)):
        raise TypeError(
            f"{where}: mask must be an array of numpy or of the library of X, {library_name(X)}; got "
            f"{library_name(mask)}. Convert it first."
        )
    if tuple(mask.shape) != tuple(X.shape):
        raise ShapeError(
            f"{where}: mask must have the shape of X, {tuple(X.shape)}; got {tuple(mask.shape)}."
        )
    return to_numpy(mask)


def _sorted(
    indices: list[np.ndarray], values: np.ndarray, shape: tuple[int, ...], where: str
) -> tuple[list[np.ndarray], np.ndarray]:
    """Entries in C order; refuses those stored twice."""
    if math.prod(shape) < 2**63:
        code = np.ravel_multi_index(indices, shape)
        order = np.argsort(code, kind="stable")
        same = np.diff(code[order]) == 0
    else:
        order = np.lexsort(indices[::-1])
        same = np.all([np.diff(index[order]) == 0 for index in indices], axis=0)
    if np.any(same):
        place = tuple(int(index[order[np.argmax(same)]]) for index in indices)
        raise DataError(
            f"{where}: every entry may be observed once; X stores {np.count_nonzero(same):,} more than once, "
            f"the first at {place}. Sum or average them first; X.sum_duplicates() of scipy sums them."
        )
    return [index[order] for index in indices], values[order]


def _check_finite(indices: Sequence[np.ndarray], values: np.ndarray, where: str) -> None:
    bad = ~np.isfinite(values)
    if np.any(bad):
        first = int(np.argmax(bad))
        place = tuple(int(index[first]) for index in indices)
        what = "NaN" if np.isnan(values[first]) else "infinite"
        raise DataError(
            f"{where}: every observed entry must be finite; {np.count_nonzero(bad):,} of {values.size:,} are "
            f"not, the first at {place} ({what}). Mark them as missing: NaN in an array without mask, or "
            "False in mask."
        )
