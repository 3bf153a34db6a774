"""Values and gradients of formats with continuous modes at points, in blocks that stay in the cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple, Protocol

import numpy as np

from tenfac.core.arrays import device_of, spans

# Points at which polynomials are evaluated at once, and numbers of these at most: 8 MB in float64.
_POINTS, _NUMBERS = 2**12, 2**20
# Numbers in the largest intermediate of the points multiplied at once: 1 MB, what caches hold.
_CACHED = 2**17
# Fewest points multiplied at once, and how many times the numbers values and gradients together need.
_FEWEST, _BOTH = 2**6, 2
# Product of the two smaller ranks of three from which each point is a matrix product of its own.
_WIDE = 2**6


class Scratch:
    """Arrays that numpy writes into again for every block; other libraries make new ones.

    Examples
    --------
    >>> scratch = Scratch(np.ones(1))
    >>> scratch.get("a", 2, 3).shape, Scratch(None).get("a", 2, 3)
    ((2, 3), None)
    """

    def __init__(self, like: Any) -> None:
        self.dtype = like.dtype if isinstance(like, np.ndarray) else None
        self.arrays: dict[str, np.ndarray] = {}

    def get(self, name: str, *shape: int) -> np.ndarray | None:
        """An array of this shape, contiguous, with whatever numbers it held before."""
        if self.dtype is None:
            return None
        size = math.prod(shape)
        if name not in self.arrays or self.arrays[name].size < size:
            self.arrays[name] = np.empty(size, self.dtype)
        return self.arrays[name][:size].reshape(shape)


def values_at(t: Any, points: Sequence[Any], xp: Any) -> Any:
    """Values of one format at points, by recurrences and matrix products over blocks.

    Parameters
    ----------
    t : Format
        Without a batch.
    points : sequence of D arrays, shapes (N,)
    xp : module

    Returns
    -------
    array, shape (N,)

    Notes
    -----
    For Tucker two modes are multiplied point by point, then the core enters as one matrix product: ``2
    prod(R) + 2 sum K_n R_n`` operations a point, nearly all of them in matrix products. Three modes of large
    ranks in numpy the other way round: the core first, which leaves a small matrix for each point. For a
    train every core enters as a matrix, from both ends: ``2 sum S_{n-1} R_n S_n`` in the place of ``2
    prod(R)``.

    Examples
    --------
    >>> from tenfac import Chebyshev, Tucker
    >>> from tenfac.core.arrays import namespace_of
    >>> t = Tucker(np.ones((1, 1)), [np.eye(2)[:, 1:]] * 2, [Chebyshev(2)] * 2)  # x * y
    >>> values_at(t, [np.array([0.5]), np.array([0.25])], namespace_of(t.core))
    array([0.125])
    """
    kernel, scratch, parts = t._kernel(xp), Scratch(t.factors[0]), []
    read = _rows if kernel.by_rows else _columns
    for span in spans(points[0].shape[0], _outer(t)):
        held = [read(t.modes[n], t.factors[n], points[n][span], n, scratch, xp) for n in kernel.order]
        for part in spans(points[0][span].shape[0], points_in_block(kernel.width)):
            place = part if kernel.by_rows else (slice(None), part)
            parts.append(kernel.value([numbers[place] for numbers in held], scratch))
    return parts[0] if len(parts) == 1 else xp.concat(parts)


def values_and_gradients(t: Any, points: Sequence[Any], xp: Any) -> tuple[Any, Any]:
    """Values ``(N,)`` and derivatives by the continuous modes ``(N, number of them)`` at points.

    Examples
    --------
    >>> from tenfac import Chebyshev, Tucker
    >>> from tenfac.core.arrays import namespace_of
    >>> t = Tucker(np.ones((1, 1)), [np.eye(2)[:, 1:]] * 2, [Chebyshev(2)] * 2)  # x * y
    >>> values_and_gradients(t, [np.array([0.5]), np.array([0.25])], namespace_of(t.core))
    (array([0.125]), array([[0.25, 0.5 ]]))
    """
    kernel = t._kernel(xp)
    wanted = [n for n in kernel.order if t.modes[n].domain is not None]
    factors = {n: _with_derivative(t.modes[n], t.factors[n], xp) for n in wanted}
    values, slopes, scratch = [], [], Scratch(t.factors[0])
    by_rows = kernel.by_rows and len(wanted) == t.ndim
    read, inner = _rows if by_rows else _columns, max(points_in_block(kernel.width) // _BOTH, _FEWEST)
    for span in spans(points[0].shape[0], _outer(t)):
        held = [
            read(t.modes[n], factors.get(n, t.factors[n]), points[n][span], n, scratch, xp)
            for n in kernel.order
        ]
        for part in spans(points[0][span].shape[0], inner):
            if by_rows:
                value, found = kernel.gradient_by_rows([rows[part] for rows in held], scratch)
            else:
                pairs = [_split(held[k][:, part], t.factors[n].shape[-1]) for k, n in enumerate(kernel.order)]
                value, found = kernel.gradient(pairs, scratch)
            by_mode = dict(zip(kernel.order, found, strict=True))
            values.append(value)
            slopes.append(xp.stack([by_mode[n] for n in sorted(wanted)], axis=-1))
    return xp.concat(values), xp.concat(slopes)


def _outer(t: Any) -> int:
    """Points at which the polynomials are evaluated at once."""
    return min(max(_NUMBERS // max(factor.shape[-2] for factor in t.factors), _FEWEST), _POINTS)


def _is_wide(core: Any) -> bool:
    """Whether each point is worth a matrix product of its own; other libraries make that slowly."""
    wide = isinstance(core, np.ndarray) and core.ndim == 3
    return wide and core.shape[1] * core.shape[2] >= _WIDE


def _split(both: Any, rank: int) -> tuple[Any, Any]:
    """Columns of a factor and, where they follow, of its derivative."""
    return both[:rank, ...], both[rank:, ...] if both.shape[0] > rank else None


def points_in_block(width: int) -> int:
    """Points handled at once when each needs ``width`` numbers.

    Examples
    --------
    >>> points_in_block(1), points_in_block(10_000)
    (4096, 64)
    """
    return min(max(_CACHED // width, _FEWEST), _POINTS) if width else _POINTS


def _columns(mode: Any, factor: Any, x: Any, n: int, scratch: Scratch, xp: Any) -> Any:
    """Rows of a factor at points, transposed: ``(R, N)``."""
    if not hasattr(mode, "values"):
        return xp.matrix_transpose(_plain_rows(mode, factor, x, xp))
    basis = mode.values(mode.points(x, factor, xp), xp, scratch.get("basis", mode.size, x.shape[0]))
    made = scratch.get(f"columns {n}", factor.shape[-1], x.shape[0])
    return xp.matmul(xp.matrix_transpose(factor), basis) if made is None else np.matmul(factor.T, basis, made)


def _rows(mode: Any, factor: Any, x: Any, n: int, scratch: Scratch, xp: Any) -> np.ndarray:
    """Rows of a factor at points: ``(N, R)``."""
    if not hasattr(mode, "values"):
        return np.ascontiguousarray(_plain_rows(mode, factor, x, xp))
    basis = mode.values(mode.points(x, factor, xp), xp, scratch.get("basis", mode.size, x.shape[0]))
    return np.matmul(basis.T, factor, scratch.get(f"columns {n}", x.shape[0], factor.shape[-1]))


def _with_derivative(mode: Any, factor: Any, xp: Any) -> Any:
    """The columns of a factor and of its derivative in one factor, so that the basis is evaluated once.

    Two factors where they are of two modes.
    """
    short, derivative = mode.diff(factor)
    if not hasattr(mode, "values"):
        return _Both(factor, short, derivative)
    return xp.concat([factor, short.embed(mode, derivative)], axis=-1)


class _Both(NamedTuple):
    """A factor, and the mode and factor of its derivative."""

    factor: Any
    short: Any
    derivative: Any


def _plain_rows(mode: Any, factor: Any, x: Any, xp: Any) -> Any:
    """Rows ``(N, R)`` of a mode that evaluates itself; with those of the derivative beside them."""
    if not isinstance(factor, _Both):
        return mode.rows(factor, x, xp=xp)
    pair = [mode.rows(factor.factor, x, xp=xp), factor.short.rows(factor.derivative, x, xp=xp)]
    return xp.concat(pair, axis=-1)


# --- one block ----------------------------------------------------------------------------------------


class Kernel(Protocol):
    """What a format does with the columns ``(R_n, N)`` of its factors at a block of points.

    Examples
    --------
    >>> from tenfac import CP
    >>> CP(None, [np.ones((2, 3))])._kernel(np).width
    3
    """

    @property
    def order(self) -> Sequence[int]: ...  # the modes, as columns are given

    # whether values want rows ``(N, R_n)``, and gradients too where all modes are continuous
    @property
    def by_rows(self) -> bool: ...

    width: int  # numbers at each point in the largest intermediate

    def value(self, columns: Sequence[Any], scratch: Scratch, /) -> Any: ...

    def gradient(self, pairs: Sequence[tuple[Any, Any]], scratch: Scratch, /) -> tuple[Any, list[Any]]: ...


class CoreKernel:
    """Tucker: modes from the largest rank to the smallest, and the core in that order.

    Examples
    --------
    >>> from tenfac import Tucker
    >>> CoreKernel(Tucker(np.ones((2, 3)), [np.ones((4, 2)), np.ones((4, 3))]), np).order
    [1, 0]
    """

    def __init__(self, t: Any, xp: Any) -> None:
        ranks = sorted(t.rank)
        self.xp, self.width = xp, max(math.prod(ranks[:2]), math.prod(ranks[2:]))
        self.order = sorted(range(t.ndim), key=lambda n: -t.rank[n])
        core = t.core if self.order == list(range(t.ndim)) else xp.permute_dims(t.core, tuple(self.order))
        self.core = np.ascontiguousarray(core) if isinstance(core, np.ndarray) else core
        self.by_rows = _is_wide(self.core)

    def value(self, columns: Sequence[Any], scratch: Scratch) -> Any:
        """Values ``(N,)``."""
        if self.by_rows:
            return _value_by_rows(self.core, columns, scratch)
        return _value(self.core, columns, scratch, self.xp)

    def gradient(self, pairs: Sequence[tuple[Any, Any]], _scratch: Scratch) -> tuple[Any, list[Any]]:
        """Values, and derivatives by each mode from columns and their derivatives."""
        return _gradient(self.core, pairs, self.xp)

    def gradient_by_rows(self, both: Sequence[Any], scratch: Scratch) -> tuple[Any, list[Any]]:
        """The same from rows that hold functions and derivatives side by side."""
        return _gradient_by_rows(self.core, both, scratch)


class WeightsKernel:
    """CP: products of columns.

    Examples
    --------
    >>> from tenfac import CP
    >>> WeightsKernel(CP(None, [np.ones((4, 2))]), np).value([np.ones((2, 3))], Scratch(None))
    array([2., 2., 2.])
    """

    def __init__(self, t: Any, xp: Any) -> None:
        self.xp, self.weights = xp, t.weights
        self.order, self.width, self.by_rows = range(t.ndim), t.rank, False

    def value(self, columns: Sequence[Any], _scratch: Scratch) -> Any:
        """Values ``(N,)``."""
        return _cp_value(self.weights, columns, self.xp)

    def gradient(self, pairs: Sequence[tuple[Any, Any]], _scratch: Scratch) -> tuple[Any, list[Any]]:
        """Values, and derivatives by each mode from columns and their derivatives."""
        return _cp_gradient(self.weights, pairs, self.xp)


def _value(core: Any, columns: Sequence[Any], scratch: Scratch, xp: Any) -> Any:
    """``sum core * columns`` for each point; columns ``(R_n, N)``."""
    if len(columns) == 1:
        return xp.matmul(core[None, :], columns[0])[0, :]
    if len(columns) == 2:
        return summed(xp.matmul(core, columns[1]), columns[0], xp)
    *columns, a, b = columns
    pair = row_pairs(a, b, xp, scratch)
    rest = core.shape[: len(columns)]
    tensor = xp.matmul(xp.reshape(core, (math.prod(rest), -1)), pair)
    for column in reversed(columns):
        tensor = last_closed(tensor, column, xp)
    return tensor[0, :]


def _value_by_rows(core: np.ndarray, rows: Sequence[np.ndarray], scratch: Scratch) -> np.ndarray:
    """``sum core * rows`` for each point of three modes, rows ``(N, R_n)``: the core enters first."""
    first, middle, last = rows
    rest, count = core.shape[1:], len(first)
    inner = np.matmul(first, core.reshape(len(core), -1), scratch.get("inner", count, rest[0] * rest[1]))
    left = np.matmul(middle[:, None, :], inner.reshape(count, *rest))
    return np.einsum("nr,nr->n", left[:, 0], last)


def _gradient_by_rows(
    core: np.ndarray, both: Sequence[np.ndarray], scratch: Scratch
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Value and derivatives; rows ``(N, 2 R_n)`` hold those of the functions, then of their derivatives."""
    first, middle, last = (rows.reshape(len(rows), 2, -1) for rows in both)
    rest, count = core.shape[1:], len(first)
    flat, matrix = first.reshape(2 * count, -1), core.reshape(len(core), -1)
    inner = np.matmul(flat, matrix, scratch.get("inner", 2 * count, rest[0] * rest[1]))
    inner = inner.reshape(count, 2, *rest)
    value, slope = np.matmul(middle, inner[:, 0]).transpose(1, 0, 2)
    along = np.matmul(middle[:, :1], inner[:, 1])[:, 0]
    ends = [(along, last[:, 0]), (slope, last[:, 0]), (value, last[:, 1]), (value, last[:, 0])]
    *slopes, value = [np.einsum("nr,nr->n", a, b) for a, b in ends]
    return value, slopes


def row_pairs(a: Any, b: Any, xp: Any, scratch: Scratch | None = None) -> Any:
    """Products of all pairs of rows of ``(*b, P, N)`` and ``(*b, Q, N)``: ``(*b, P Q, N)``.

    Examples
    --------
    >>> row_pairs(np.array([[2.0], [3.0]]), np.array([[5.0], [7.0]]), np).tolist()
    [[10.0], [14.0], [15.0], [21.0]]
    """
    shape = (*a.shape[:-1], b.shape[-2], a.shape[-1])
    out = None if scratch is None else scratch.get("pair", *shape)
    a, b = a[..., :, None, :], b[..., None, :, :]
    made = a * b if out is None else np.multiply(a, b, out=out)
    return xp.reshape(made, (*shape[:-3], shape[-3] * shape[-2], shape[-1]))


def summed(a: Any, b: Any, xp: Any) -> Any:
    """``sum_r a[r, n] b[r, n]``, of each of a batch.

    Examples
    --------
    >>> summed(np.ones((2, 3)), np.ones((2, 3)), np)
    array([2., 2., 2.])
    """
    return np.einsum("...rn,...rn->...n", a, b) if isinstance(a, np.ndarray) else xp.sum(a * b, axis=-2)


def last_closed(tensor: Any, column: Any, xp: Any) -> Any:
    """``(P R, N)`` times ``(R, N)``, summed over R: ``(P, N)``.

    Examples
    --------
    >>> last_closed(np.array([[2.0], [3.0]]), np.array([[5.0], [7.0]]), np)
    array([[31.]])
    """
    split = xp.reshape(tensor, (tensor.shape[0] // column.shape[0], *column.shape))
    if isinstance(split, np.ndarray):
        return np.einsum("prn,rn->pn", split, column)
    return xp.sum(split * column[None, :, :], axis=1)


def first_closed(tensor: Any, column: Any, xp: Any) -> Any:
    """``(R P, N)`` times ``(R, N)``, summed over R: ``(P, N)``.

    Examples
    --------
    >>> first_closed(np.array([[2.0], [3.0]]), np.array([[5.0]]), np)
    array([[10.],
           [15.]])
    """
    rows = column.shape[0]
    split = xp.reshape(tensor, (rows, tensor.shape[0] // rows, column.shape[1]))
    if isinstance(split, np.ndarray):
        return np.einsum("rpn,rn->pn", split, column)
    return xp.sum(split * column[:, None, :], axis=0)


def _gradient(core: Any, pairs: Sequence[tuple[Any, Any]], xp: Any) -> tuple[Any, list[Any]]:
    """Value and derivative by each mode; the core enters twice, as a matrix."""
    columns = [value for value, _ in pairs]
    matrix = xp.reshape(core, (core.shape[0], -1))
    first, *rest = columns
    if not rest:
        ends = [xp.broadcast_to(matrix, first.shape)]
    else:
        beyond = reduce(lambda a, b: row_pairs(a, b, xp), rest)
        tensor = xp.matmul(xp.matrix_transpose(matrix), first)
        ends = [xp.matmul(matrix, beyond), *_all_but_one(tensor, rest, xp)]
    slopes = [None if d is None else summed(end, d, xp) for end, (_, d) in zip(ends, pairs, strict=True)]
    return summed(ends[0], first, xp), slopes


def _all_but_one(tensor: Any, columns: Sequence[Any], xp: Any) -> list[Any]:
    """A tensor at each point ``(R_1 R_2 ..., N)`` with all modes but one closed, for each: ``(R_m, N)``."""
    if len(columns) == 1:
        return [tensor]
    head = tensor
    for column in reversed(columns[1:]):
        head = last_closed(head, column, xp)
    return [head, *_all_but_one(first_closed(tensor, columns[0], xp), columns[1:], xp)]


def _cp_value(weights: Any, columns: Sequence[Any], xp: Any) -> Any:
    product = reduce(lambda a, b: a * b, columns)
    return xp.matmul(weights[None, :], product)[0, :]


def _cp_gradient(weights: Any, pairs: Sequence[tuple[Any, Any]], xp: Any) -> tuple[Any, list[Any]]:
    columns = [value for value, _ in pairs]
    slopes = []
    for n, (_, derivative) in enumerate(pairs):
        others = [derivative, *columns[:n], *columns[n + 1 :]]
        slopes.append(None if derivative is None else _cp_value(weights, others, xp))
    return _cp_value(weights, columns, xp), slopes


def constant_format(t: Any, number: Any) -> Any:
    """The function that is one number everywhere, as a format of the kind and modes of ``t``.

    Examples
    --------
    >>> from tenfac import Chebyshev, Tucker
    >>> t = Tucker(np.ones(1), [np.eye(2)[:, 1:]], [Chebyshev(2)])
    >>> constant_format(t, 3.0).at(0.5)
    np.float64(3.0)
    """

    xp = t._xp
    lead = t.batch_shape
    factors = [mode.constant(factor) for mode, factor in zip(t.modes, t.factors, strict=True)]
    factors = [xp.broadcast_to(factor, (*lead, *factor.shape)) for factor in factors]
    sizes = [(*lead, *(1,) * (core.ndim - len(lead))) for core in t._cores]
    first, *rest = [xp.ones(size, dtype=t.dtype, device=device_of(t.factors[0])) for size in sizes]
    return t._rebuilt((first * number, *rest), factors, t.modes)
