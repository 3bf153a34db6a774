"""Entries of a format at scattered indices, in blocks that stay in the cache; the tensor is never formed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tenfac.core.arrays import spans, to_numpy
from tenfac.core.modes.discrete import Discrete
from tenfac.core.points import values_at
from tenfac.core.tracing import is_traced

# Points handled at once: two blocks of 20 columns in float64 are 640 kB.
_POINTS = 2**11
# Numbers gathered at once where points are not grouped: 16 MB in float64.
_NUMBERS = 2**21
# Points per value of an index from which on the core is contracted once for each value.
_GROUP = 2**6


def entries_of(t: Any, points: Sequence[Any], xp: Any) -> Any:
    """Values of a format at points.

    Parameters
    ----------
    t : Format
    points : sequence of D arrays, shapes (N,)
        Index values, one array per mode.
    xp : module
        Array namespace of the format.

    Returns
    -------
    array, shape (*b, N)

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac import CP
    >>> from tenfac.core.arrays import namespace_of
    >>> t = CP(None, [np.array([[1.0], [2.0]]), np.array([[3.0], [5.0]])])
    >>> entries_of(t, [np.array([0, 1]), np.array([1, 1])], namespace_of(t.weights))
    array([ 5., 10.])
    """
    n_points = points[0].shape[0]
    single = not t.batch_shape and not any(0 in core.shape for core in t._cores)
    known = not (t._is_traced or any(map(is_traced, points)))
    blocks = single and known and xp.__name__.endswith((".numpy", ".torch"))  # jax.numpy too
    if blocks and n_points > _POINTS and all(isinstance(mode, Discrete) for mode in t.modes):
        indices = [m.index(x, f, xp) for m, x, f in zip(t.modes, points, t.factors, strict=True)]
        values = t._gathered(indices, xp)
        if values is not None:
            return values
    if t.is_functional and blocks:
        return values_at(t, points, xp)
    step = max(_NUMBERS // max(math.prod(t.batch_shape) * sum(f.shape[-1] for f in t.factors), 1), 1)
    parts = []
    for span in spans(n_points, step):
        rows = [
            mode.rows(factor, x[span], xp=xp)
            for mode, factor, x in zip(t.modes, t.factors, points, strict=True)
        ]
        parts.append(t._at_rows(rows, xp))
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=-1)


def _take(factor: Any, index: Any, xp: Any) -> Any:
    if isinstance(factor, np.ndarray):
        return factor.take(index, axis=0, mode="clip")  # checked before; clip does not buffer
    return xp.take(factor, index, axis=0)


def _times(a: Any, b: Any) -> Any:
    return np.multiply(a, b, out=a) if isinstance(a, np.ndarray) else a * b


def _rowwise(a: Any, b: Any, xp: Any) -> Any:
    """``sum_r a[n, r] b[n, r]``."""
    return np.einsum("nr,nr->n", a, b) if isinstance(a, np.ndarray) else xp.sum(a * b, axis=-1)


def cp_entries(weights: Any, factors: Sequence[Any], indices: Sequence[Any], xp: Any) -> Any:
    """CP entries at row numbers: gather, multiply and sum, a block of points at a time.

    Examples
    --------
    >>> cp_entries(np.ones(1), [np.array([[2.0], [3.0]])], [np.array([1, 1, 0])], np)
    array([3., 3., 2.])
    """
    *factors, last = factors
    *others, index = indices
    last = last * weights
    if not factors:
        return _take(xp.sum(last, axis=1), index, xp)
    parts = []
    for span in spans(index.shape[0], _POINTS):
        block = [values[span] for values in others]
        product = _take(factors[0], block[0], xp)
        for factor, values in zip(factors[1:], block[1:], strict=True):
            product = _times(product, _take(factor, values, xp))
        parts.append(_rowwise(product, _take(last, index[span], xp), xp))
    return xp.concat(parts)


def tucker_entries(core: Any, factors: Sequence[Any], indices: Sequence[Any], xp: Any) -> Any:
    """Tucker entries at row numbers where many share the index of a mode; None if too few do.

    Points are sorted by that index, and the core is contracted once for each of its values.

    Examples
    --------
    >>> factors, indices = [np.eye(2), np.eye(2)], [np.array([1] * 200), np.array([0] * 200)]
    >>> tucker_entries(np.array([[1.0, 2.0], [3.0, 4.0]]), factors, indices, np)[:2]
    array([3., 3.])
    """
    sizes = [factor.shape[0] for factor in factors]
    mode = sizes.index(min(sizes))
    if len(factors) == 1 or indices[mode].shape[0] < _GROUP * sizes[mode]:
        return None
    index = to_numpy(indices[mode])
    size = factors[mode].shape[0]
    narrow = next(kind for kind in (np.uint8, np.uint16, np.int64) if size <= np.iinfo(kind).max)
    order = np.argsort(index.astype(narrow), kind="stable")  # a radix sort up to 16 bits
    ends = np.cumsum(np.bincount(index, minlength=size))
    place = xp.asarray(order, device=getattr(core, "device", None))
    rest = [n for n in range(len(factors)) if n != mode]
    # the mode with the most columns is multiplied into the small core, once per value of the index
    rest.sort(key=lambda n: -factors[n].shape[1])
    core = xp.permute_dims(core, (mode, *rest))
    cores = xp.reshape(factors[mode] @ xp.reshape(core, (core.shape[0], -1)), (size, *core.shape[1:]))
    others = [factors[n] for n in rest]
    sorted_ = [_take(indices[n], place, xp) for n in rest]
    parts, start = [], 0
    for value in range(size):
        stop = int(ends[value])
        if stop > start:
            parts.append(_slice(cores[value, ...], others, [x[start:stop] for x in sorted_], xp))
        start = stop
    values = xp.concat(parts)
    back = np.empty_like(order)
    back[order] = np.arange(order.size)
    return _take(values, xp.asarray(back, device=getattr(core, "device", None)), xp)


def _slice(core: Any, factors: Sequence[Any], indices: list[Any], xp: Any) -> Any:
    """Entries of one slice: the first factor times the core, then the other modes point by point."""
    n_points, (size, rank) = indices[0].shape[0], factors[0].shape
    matrix = xp.reshape(core, (rank, -1))
    gathered = n_points < size
    projected = None if gathered else factors[0] @ matrix
    parts = []
    for span in spans(n_points, _POINTS):
        first, *rest = (values[span] for values in indices)
        block = _take(factors[0], first, xp) @ matrix if gathered else _take(projected, first, xp)
        for factor, values in zip(factors[1:], rest, strict=True):
            rows = _take(factor, values, xp)
            if block.shape[1] == rows.shape[1]:
                block = _rowwise(block, rows, xp)[:, None]
            else:
                stack = xp.reshape(block, (block.shape[0], rows.shape[1], -1))
                block = xp.matmul(rows[:, None, :], stack)[:, 0, :]
        parts.append(block[:, 0])
    return parts[0] if len(parts) == 1 else xp.concat(parts)
