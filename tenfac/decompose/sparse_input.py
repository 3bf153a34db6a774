"""Sparse arrays of any library, read as coordinates and values."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.core.arrays import as_float, to_numpy
from tenfac.core.errors import DataError
from tenfac.decompose.checks import check_shape

Array = NDArray[Any]


def is_sparse(X: Any) -> bool:
    """Whether ``X`` is a sparse array of scipy, of pydata ``sparse``, or of torch.

    None of them is imported: an array of theirs cannot exist before.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import coo_array
    >>> is_sparse(coo_array(np.eye(3))), is_sparse(np.eye(3))
    (True, False)
    """
    library = type(X).__module__.partition(".")[0]
    if library == "scipy":
        return hasattr(X, "tocoo")
    if library == "sparse":
        return hasattr(X, "fill_value") and hasattr(X, "shape")
    return library == "torch" and "sparse" in str(getattr(X, "layout", ""))


def stored_entries(X: Any, where: str = "arrays") -> tuple[Array, Array, tuple[int, ...]]:
    """Coordinates (N, D), values (N,) and shape of a sparse array, as they are stored.

    Examples
    --------
    >>> from scipy.sparse import coo_array
    >>> stored_entries(coo_array(([0.0], ([1], [3])), shape=(2, 4)))
    (array([[1, 3]]), array([0.]), (2, 4))
    """
    if "torch" in sys.modules and isinstance(X, sys.modules["torch"].Tensor):
        coo = X.detach().to_sparse().cpu()
        coords, values = coo._indices().numpy(), to_numpy(as_float(coo._values(), where))
    else:
        coo = X.asformat("coo")
        coords = coo.coords if hasattr(coo, "coords") else (coo.row, coo.col)  # arrays; matrices
        coords, values = np.asarray(coords), np.asarray(coo.data)
    return np.ascontiguousarray(coords.T, dtype=np.int64), values, tuple(int(size) for size in X.shape)


def read_sparse(X: Any, where: str) -> tuple[Array, Array, tuple[int, ...]]:
    """Read a sparse array as distinct coordinates, values that are not zero, and the shape.

    Parameters
    ----------
    X : scipy.sparse array or matrix, sparse.COO, sparse.GCXS, or torch sparse tensor
        Entries given twice are summed.
    where : str
        Name of the caller, for the message.

    Returns
    -------
    indices : array, shape (N, D), int64
    values : array, shape (N,)
        float32, float64, complex64 or complex128.
    shape : tuple of int

    Raises
    ------
    DataError
        If a value is not finite, the dtype is not supported, or the fill value is not zero.
    ShapeError
        If a mode is empty.

    Examples
    --------
    >>> from scipy.sparse import coo_array
    >>> read_sparse(coo_array(([1.0, 2.0], ([0, 0], [3, 3])), shape=(2, 4)), "tucker")
    (array([[0, 3]]), array([3.]), (2, 4))
    """
    check_shape(tuple(X.shape), where)
    fill = getattr(X, "fill_value", 0)
    if fill != 0:
        raise DataError(f"{where}: entries not stored must be zero; got fill_value={fill}.")
    indices, values, shape = stored_entries(X, where)
    values = as_float(values, where)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        what = "NaN" if np.isnan(values[bad[0]]) else "infinite"
        raise DataError(
            f"{where}: every entry must be finite; X has {bad.size} of {values.size} stored entries that "
            f"are not, the first at {tuple(map(int, indices[bad[0]]))} ({what}). Leave them out or fill them."
        )
    indices, values = _distinct(indices, values)
    kept = values != 0
    return (indices, values, shape) if kept.all() else (indices[kept], values[kept], shape)


def _distinct(indices: Array, values: Array) -> tuple[Array, Array]:
    """Sort by coordinates and sum what is given twice."""
    order = np.lexsort(indices.T[::-1])
    indices, values = indices[order], values[order]
    new = np.ones(len(values), dtype=bool)
    new[1:] = np.any(indices[1:] != indices[:-1], axis=1)
    if new.all():
        return indices, values
    starts = np.flatnonzero(new)
    return indices[starts], np.add.reduceat(values, starts)
