"""The one contraction kernel: a core times one matrix per mode, on a grid, at points, or partly both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tenfac.core.arrays import namespace_of, spans

# Numbers in the largest intermediate of a block of points: 16 MB in float64, so that it stays near the cache.
_BLOCK = 2**21


def contract(core: Any, matrices: Sequence[Any], *, paired: Sequence[int] = (), xp: Any = None) -> Any:
    """Multiply a core by one matrix per mode.

    With ``paired=()`` this is ``Y[j, k, ...] = sum_{p, q, ...} G[p, q, ...] A[j, p] B[k, q] ...``. The
    matrices of ``paired`` modes share their first axis: ``paired=(0, 1)`` gives
    ``Y[n, k] = sum_{p, q, r} G[p, q, r] A[n, p] B[n, q] C[k, r]``.

    Parameters
    ----------
    core : array, shape (*b, R_0, ..., R_{D-1})
    matrices : sequence of D arrays or None, shapes (*b, J_n, R_n)
        None leaves its mode open (size ``R_n``). Batch axes broadcast. Same library and dtype as ``core``.
    paired : sequence of int
        Modes whose matrices all have ``J_n = N`` and are evaluated point by point.
    xp : module, optional
        Array namespace of the arrays; found if not given.

    Returns
    -------
    array, shape (*b, J_0, ..., J_{D-1}), or (*b, N, J of the modes that are not paired)

    Notes
    -----
    Only matmul, reshape and permute; nothing is validated. Modes on the grid are multiplied in the order of
    least work: mode a before mode b when ``1/R_a - 1/J_a < 1/R_b - 1/J_b``. Points cost ``N * prod(R)``
    multiplications and are taken in blocks, so that no intermediate much larger than core, matrices and
    result is formed.

    References
    ----------
    .. [1] T. G. Kolda and B. W. Bader, Tensor Decompositions and Applications, SIAM Review 51 (2009), section
       2.5. doi:10.1137/07070111X

    Examples
    --------
    >>> import numpy as np
    >>> core, A, B = np.ones((2, 3)), np.ones((4, 2)), np.ones((4, 3))
    >>> contract(core, [A, B]).shape, contract(core, [A, B], paired=(0, 1)).shape
    ((4, 4), (4,))
    """
    xp = namespace_of(core) if xp is None else xp
    d = len(matrices)
    if not len(paired):
        return _grid(core, matrices, range(d), d, xp)
    points = [n for n in range(d) if n in {p % d for p in paired}]
    open_modes = [n for n in range(d) if n not in points]
    rank = core.shape[core.ndim - d :]
    shrinking = [n for n in open_modes if matrices[n] is not None and matrices[n].shape[-2] <= rank[n]]
    core = _grid(core, matrices, shrinking, d, xp)
    points.sort(key=lambda n: -rank[n])
    lead = core.ndim - d
    order = (*range(lead), *(lead + n for n in (*points, *open_modes)))
    core = core if order == tuple(range(core.ndim)) else xp.permute_dims(core, order)
    rows = [matrices[n] for n in points]
    result = _in_blocks(core, rows, len(open_modes), xp)
    rest = [
        None,
        *(None if n in shrinking else matrices[n] for n in open_modes),
    ]  # the points are one more mode
    return _grid(result, rest, range(len(rest)), len(rest), xp)


def _grid(core: Any, matrices: Sequence[Any], modes: Sequence[int], d: int, xp: Any) -> Any:
    """Multiply the last ``d`` axes of ``core`` by the matrices of ``modes``, cheapest order first."""
    rank = core.shape[core.ndim - d :]
    todo = [n for n in modes if matrices[n] is not None]
    todo.sort(key=lambda n: 1 / max(rank[n], 1) - 1 / max(matrices[n].shape[-2], 1))
    for n in todo:
        core = _along(core, matrices[n], core.ndim - d + n, core.ndim - d, xp)
    return core


def _along(tensor: Any, matrix: Any, axis: int, lead: int, xp: Any) -> Any:
    """Multiply ``axis`` of ``tensor`` (batch axes: the first ``lead``) by a matrix, nothing transposed."""
    batch, shape = tensor.shape[:lead], tensor.shape[lead:]
    n = axis - lead
    left, right, size = math.prod(shape[:n]), math.prod(shape[n + 1 :]), matrix.shape[-2]
    if right == 1:
        flat = xp.reshape(tensor, (*batch, left, shape[n]))
        out = xp.matmul(flat, xp.matrix_transpose(matrix))
        batch = out.shape[:-2]
    elif left == 1:
        out = xp.matmul(matrix, xp.reshape(tensor, (*batch, shape[n], right)))
        batch = out.shape[:-2]
    else:
        stacked = xp.reshape(matrix, (*matrix.shape[:-2], 1, *matrix.shape[-2:]))
        out = xp.matmul(stacked, xp.reshape(tensor, (*batch, left, shape[n], right)))
        batch = out.shape[:-3]
    return xp.reshape(out, (*batch, *shape[:n], size, *shape[n + 1 :]))


def _in_blocks(core: Any, rows: list[Any], n_open: int, xp: Any) -> Any:
    """Evaluate point modes (first axes after the batch, in order) in blocks of points of bounded memory."""
    n_points = rows[0].shape[-2]
    first = core.ndim - n_open - len(rows)
    per_point = math.prod(size for n, size in enumerate(core.shape) if n != first)
    block = max(_BLOCK // max(per_point, 1), 1)
    if len(rows) == 1 or n_points <= block:
        return _at_points(core, rows, n_open, xp)
    parts = []
    for span in spans(n_points, block):
        part = [row[..., span, :] for row in rows]
        parts.append(_at_points(core, part, n_open, xp))
    return xp.concat(parts, axis=-n_open - 1)


def _at_points(core: Any, rows: list[Any], n_open: int, xp: Any) -> Any:
    lead = core.ndim - n_open - len(rows)
    rank, open_shape = core.shape[lead : lead + len(rows)], core.shape[lead + len(rows) :]
    size = math.prod(core.shape[lead + 1 :])
    first = xp.reshape(core, (*core.shape[:lead], rank[0], size))
    result = xp.matmul(rows[0], first)  # (*b, N, R_1 * ... * open)
    for n, (row, r) in enumerate(zip(rows[1:], rank[1:], strict=True)):
        size = math.prod(core.shape[lead + n + 2 :])
        result = xp.reshape(result, (*result.shape[:-1], r, size))
        result = xp.matmul(xp.reshape(row, (*row.shape[:-1], 1, r)), result)
        result = xp.reshape(result, (*result.shape[:-2], size))
    return xp.reshape(result, (*result.shape[:-1], *open_shape))


def adjoint(matrix: Any, xp: Any) -> Any:
    """Conjugate transpose of the last two axes.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> import numpy as np
    >>> adjoint(np.array([[1j, 2.0]]), xp).tolist()
    [[-1j], [(2-0j)]]
    """
    flipped = xp.matrix_transpose(matrix)
    return xp.conj(flipped) if xp.isdtype(matrix.dtype, "complex floating") else flipped
