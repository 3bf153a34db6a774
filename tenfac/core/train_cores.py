"""Sequences of cores ``(*b, S_{n-1}, R_n, S_n)`` that form a tensor train: what is done to them at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tenfac.core.arrays import device_of, eps, to_numpy
from tenfac.core.contract import contract
from tenfac.core.points import Scratch, first_closed, last_closed, row_pairs, summed
from tenfac.core.tracing import constant

# Blocks of points are this much longer than for one core: matrix products are worth more than the cache.
_LONGER = 2**3


def times(core: Any, matrix: Any, xp: Any) -> Any:
    """Multiply the middle axis of a core by a matrix ``(*b, J, R)``.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> times(np.ones((1, 2, 3)), np.ones((4, 2)), xp).shape
    (1, 4, 3)
    """
    return contract(core, [None, matrix, None], xp=xp)


def tall(core: Any, xp: Any) -> Any:
    """A core as a matrix ``(*b, S_{n-1} R_n, S_n)``.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> tall(np.ones((2, 3, 4)), xp).shape
    (6, 4)
    """
    return xp.reshape(core, (*core.shape[:-3], core.shape[-3] * core.shape[-2], core.shape[-1]))


def flat(core: Any, xp: Any) -> Any:
    """A core as a matrix ``(*b, S_{n-1}, R_n S_n)``.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> flat(np.ones((2, 3, 4)), xp).shape
    (2, 12)
    """
    return xp.reshape(core, (*core.shape[:-2], core.shape[-2] * core.shape[-1]))


def dense(cores: Sequence[Any], xp: Any) -> Any:
    """The tensor ``(*b, R_0, ..., R_{D-1})`` of a train.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> dense([np.ones((1, 2, 3)), np.ones((3, 4, 1))], xp)[0]
    array([3., 3., 3., 3.])
    """
    lead = cores[0].shape[:-3]
    grown = tall(cores[0], xp)
    for core in cores[1:]:
        grown = xp.matmul(grown, flat(core, xp))
        grown = xp.reshape(grown, (*lead, grown.shape[-2] * core.shape[-2], core.shape[-1]))
    return xp.reshape(grown, (*lead, *(core.shape[-2] for core in cores)))


def from_core(core: Any, ndim: int, xp: Any) -> list[Any]:
    """Cores of the train that is one core ``(*b, R_0, ..., R_{D-1})``: that core and unit matrices around it.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> [core.shape for core in from_core(np.ones((2, 3, 4)), 3, xp)]
    [(1, 2, 2), (2, 3, 4), (4, 4, 1)]
    """
    lead, sizes = core.shape[: core.ndim - ndim], core.shape[core.ndim - ndim :]
    made, bond, placed = [], 1, False
    for n, size in enumerate(sizes):
        rest = math.prod(sizes[n + 1 :])
        here = not placed and (n == ndim - 1 or bond * size > rest)
        if here:
            numbers, after = core, rest
        else:
            after = rest if placed else bond * size
            unit = xp.eye(bond if placed else after, dtype=core.dtype, device=device_of(core))
            numbers = xp.broadcast_to(unit, (*lead, *unit.shape))
        made.append(xp.reshape(numbers, (*lead, bond, size, after)))
        bond, placed = after, placed or here
    return made


def from_weights(weights: Any, ndim: int, xp: Any) -> list[Any]:
    """Cores of the train that is a diagonal core of weights ``(*b, R)``.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> [core.shape for core in from_weights(np.ones(2), 3, xp)]
    [(1, 2, 2), (2, 2, 2), (2, 2, 1)]
    """
    unit = xp.eye(weights.shape[-1], dtype=weights.dtype, device=device_of(weights))
    unit = xp.broadcast_to(unit, (*weights.shape, weights.shape[-1]))
    if ndim == 1:
        return [weights[..., None, :, None]]
    first = (unit * weights[..., None, :])[..., None, :, :]
    between = unit[..., :, :, None] * unit[..., None, :, :]
    return [first, *([between] * (ndim - 2)), unit[..., :, :, None]]


def absorbed(cores: Sequence[Any], rows: Mapping[int, Any], xp: Any) -> list[Any]:
    """Cores with the modes of ``rows`` ``(*b, 1, R_n)`` closed; one array ``(*b,)`` when all are.

    What a closed mode leaves, a matrix, goes into the neighbor that it makes smaller.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> cores = [np.ones((1, 2, 3)), np.ones((3, 4, 1))]
    >>> [core.shape for core in absorbed(cores, {0: np.ones((1, 2))}, xp)]
    [(1, 4, 1)]
    """
    kept: list[Any] = []
    waiting: Any = None
    for n, core in enumerate(cores):
        if n in rows:
            matrix = times(core, rows[n], xp)[..., 0, :]
            waiting = matrix if waiting is None else xp.matmul(waiting, matrix)
            continue
        if waiting is not None and kept and waiting.shape[-1] < waiting.shape[-2]:
            kept[-1] = _after(kept[-1], waiting, xp)
        elif waiting is not None:
            core = _before(waiting, core, xp)
        kept.append(core)
        waiting = None
    if not kept:
        return [waiting[..., 0, 0]]
    if waiting is not None:
        kept[-1] = _after(kept[-1], waiting, xp)
    return kept


def _before(matrix: Any, core: Any, xp: Any) -> Any:
    """A matrix times the first axis of a core."""
    return contract(core, [matrix, None, None], xp=xp)


def _after(core: Any, matrix: Any, xp: Any) -> Any:
    """A core times a matrix, on its last axis."""
    return contract(core, [None, None, xp.matrix_transpose(matrix)], xp=xp)


def joined(left: Sequence[Any], right: Sequence[Any], xp: Any) -> list[Any]:
    """The cores of a sum: blocks on the diagonal of every axis but the two ends.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> [core.shape for core in joined([np.ones((1, 2, 1))], [np.ones((1, 3, 1))], xp)]
    [(1, 5, 1)]
    """
    made, last = [], len(left) - 1
    for n, (a, b) in enumerate(zip(left, right, strict=True)):
        grown = (n > 0, True, n < last)
        p, q = a.shape[-3:], b.shape[-3:]
        sizes = [x + y if more else 1 for x, y, more in zip(p, q, grown, strict=True)]
        starts = [x if more else 0 for x, more in zip(p, grown, strict=True)]
        made.append(_placed(a, (0, 0, 0), sizes, xp) + _placed(b, starts, sizes, xp))
    return made


def _placed(core: Any, starts: Sequence[int], sizes: Sequence[int], xp: Any) -> Any:
    """A core with zeros around it, in a core of other sizes."""
    for axis, start, size in zip((-3, -2, -1), starts, sizes, strict=True):
        place = core.ndim + axis
        parts = [core]
        for count, first in ((start, True), (size - start - core.shape[place], False)):
            if count:
                shape = (*core.shape[:place], count, *core.shape[place + 1 :])
                zeros = xp.zeros(shape, dtype=core.dtype, device=device_of(core))
                parts = [zeros, *parts] if first else [*parts, zeros]
        core = parts[0] if len(parts) == 1 else xp.concat(parts, axis=place)
    return core


def summed_over_modes(cores: Sequence[Any], changed: Sequence[int], xp: Any) -> list[Any]:
    """Cores of ``sum_m X_m``: ``X_m`` has the second half of its columns in mode m, the first elsewhere.

    The bonds carry whether mode m came already: they double, however many modes there are. Columns of the
    modes of ``changed`` double too.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> cores = [np.ones((1, 2, 3)), np.ones((3, 2, 1))]
    >>> [core.shape for core in summed_over_modes(cores, [0, 1], xp)]
    [(1, 4, 6), (6, 4, 1)]
    """
    made, last = [], len(cores) - 1
    for n, core in enumerate(cores):
        s, r, t = core.shape[-3:]
        after = 0 if n == last else t
        sizes = (s if n == 0 else 2 * s, 2 * r if n in changed else r, t if n == last else 2 * t)
        places = [(0, r, after)] if n in changed else []
        places += [(0, 0, 0)] if n < last else []
        places += [(s, 0, after)] if n > 0 else []
        first, *others = (_placed(core, place, sizes, xp) for place in places)
        made.append(sum(others, first))
    return made


def product(left: Sequence[Any], right: Sequence[Any], grams: Sequence[Any], xp: Any) -> Any:
    """``sum left * right`` of two trains, ``(*b,)``; ``grams`` ``(*b, R_n, R'_n)`` stand between them.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> float(product([np.ones((1, 2, 1))], [np.ones((1, 2, 1))], [np.eye(2)], xp))
    2.0
    """
    state: Any = None
    for a, b, gram in zip(left, right, grams, strict=True):
        b = times(b, gram, xp)
        b = b if state is None else _before(state, b, xp)
        state = xp.matmul(xp.matrix_transpose(tall(a, xp)), tall(b, xp))
    return state[..., 0, 0]


def triangle(cores: Sequence[Any], xp: Any) -> Any:
    """Number ``(*b, 1)`` whose magnitude is the norm of the train, by QR from left to right.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> abs(triangle([np.ones((1, 2, 3)), np.ones((3, 2, 1))], xp).round(12))
    array([6.])
    """
    state: Any = None
    for core in cores:
        core = core if state is None else _before(state, core, xp)
        state = xp.linalg.qr(tall(core, xp))[1]
    return state[..., 0]


def orthogonal(cores: Sequence[Any], xp: Any) -> list[Any]:
    """The same train with all cores but the first orthonormal in their rows: the first holds the norm.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> first, last = orthogonal([np.ones((1, 2, 3)), np.ones((3, 2, 1))], xp)
    >>> bool(np.abs(last[..., 0] @ last[..., 0].T - np.eye(2)).max() < 1e-15), first.shape
    (True, (1, 2, 2))
    """
    made = list(cores)
    for n in range(len(made) - 1, 0, -1):
        core = made[n]
        basis, upper = xp.linalg.qr(xp.matrix_transpose(flat(core, xp)))
        rows = xp.matrix_transpose(basis)
        made[n] = xp.reshape(rows, (*rows.shape[:-1], *core.shape[-2:]))
        made[n - 1] = _after(made[n - 1], xp.matrix_transpose(upper), xp)
    return made


def centers(cores: Sequence[Any], xp: Any) -> list[Any]:
    """Each core as it is when all others are orthonormal: with the norm, and that of every part of it.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> first, last = centers([np.ones((1, 2, 3)), np.ones((3, 2, 1))], xp)
    >>> float(np.linalg.norm(first).round(12)), float(np.linalg.norm(last).round(12))
    (6.0, 6.0)
    """
    first, *rest = orthogonal(cores, xp)
    made = [first]
    for core in rest:
        made.append(_before(xp.linalg.qr(tall(made[-1], xp))[1], core, xp))
    return made


def swapped(cores: Sequence[Any], spots: Sequence[int], cut: bool, xp: Any) -> list[Any]:
    """Cores in ascending order of ``spots``, swapped pair by pair; ``cut`` leaves out rounding errors.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> [core.shape for core in swapped([np.ones((1, 2, 3)), np.ones((3, 4, 1))], [1, 0], True, xp)]
    [(1, 4, 1), (1, 2, 1)]
    """
    made, spots = list(cores), list(spots)
    while any(a > b for a, b in pairwise(spots)):
        made = orthogonal(made, xp)  # what follows the pair at hand is orthonormal, and so is what was done
        for n in range(len(made) - 1):
            (*lead, s, r, _), (q, t) = made[n].shape, made[n + 1].shape[-2:]
            pair = xp.matmul(tall(made[n], xp), flat(made[n + 1], xp))
            pair = xp.reshape(pair, (*lead, s, r, q, t))
            if spots[n] > spots[n + 1]:
                pair, r, q = xp.moveaxis(pair, -3, -2), q, r
                spots[n], spots[n + 1] = spots[n + 1], spots[n]
            left, sizes, right = xp.linalg.svd(xp.reshape(pair, (*lead, s * r, q * t)), full_matrices=False)
            if cut:
                values = to_numpy(sizes)
                kept = max(int((values > eps(sizes.dtype) * values[0]).sum()), 1)
                left, sizes, right = left[:, :kept], sizes[:kept], right[:kept, :]
            made[n] = xp.reshape(left, (*lead, s, r, left.shape[-1]))
            made[n + 1] = xp.reshape(sizes[..., None] * right, (*lead, right.shape[-2], q, t))
    return made


class Sweep:
    """Truncate a train from left to right, each mode and each bond where all errors are orthogonal.

    Parameters
    ----------
    cores : sequence of arrays
        From ``orthogonal``.
    budget2 : float or None
        Squared error that may be spent; None where ranks decide.
    xp : module

    Attributes
    ----------
    lost2 : array or float
        Squared error so far.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> sweep = Sweep(orthogonal([np.ones((1, 2, 3)), np.ones((3, 2, 1))], xp), 1e-20, xp)
    >>> cores, bases = sweep.run(None, None)
    >>> [core.shape for core in cores]
    [(1, 1, 1), (1, 1, 1)]
    """

    def __init__(self, cores: Sequence[Any], budget2: Any, xp: Any) -> None:
        self.cores, self.budget2, self.xp = list(cores), budget2, xp
        self.lost2: Any = 0.0
        self.left = 2 * len(self.cores) - 1

    def run(
        self, ranks: Sequence[int] | None, train_ranks: Sequence[int] | None
    ) -> tuple[list[Any], list[Any]]:
        """Smaller cores, and bases ``(*b, R_n, r_n)`` of their middle axes."""
        xp, made, bases = self.xp, [], []
        last, core = len(self.cores) - 1, self.cores[0]
        for n in range(last + 1):
            basis, small = self._cut(self._wide(core), None if ranks is None else ranks[n])
            core = self._back(small, core)
            if n < last:
                vectors, rest = self._cut(tall(core, xp), None if train_ranks is None else train_ranks[n])
                core = xp.reshape(vectors, (*core.shape[:-1], vectors.shape[-1]))
                matrix = self._wide(core)
                if matrix.shape[-2] > matrix.shape[-1]:  # fewer columns hold the same numbers
                    turn, small = xp.linalg.qr(matrix)
                    basis, core = xp.matmul(basis, turn), self._back(small, core)
            made.append(core)
            bases.append(basis)
            if n < last:
                core = _before(rest, self.cores[n + 1], xp)
        return made, bases

    def _wide(self, core: Any) -> Any:
        """A core as a matrix ``(*b, R_n, S_{n-1} S_n)``."""
        moved = self.xp.moveaxis(core, -2, -3)
        return flat(moved, self.xp)

    def _back(self, matrix: Any, core: Any) -> Any:
        """The core that such a matrix is."""
        shape = (*core.shape[:-3], matrix.shape[-2], core.shape[-3], core.shape[-1])
        return self.xp.moveaxis(self.xp.reshape(matrix, shape), -2, -3)

    def _cut(self, matrix: Any, rank: int | None) -> tuple[Any, Any]:
        """Leading left singular vectors of a matrix, and the matrix in their coordinates."""
        xp = self.xp
        square, turn = matrix, None
        if matrix.shape[-1] > matrix.shape[-2]:
            turn, upper = xp.linalg.qr(xp.matrix_transpose(matrix))
            square, turn = xp.matrix_transpose(upper), xp.matrix_transpose(turn)
        vectors, values, right = xp.linalg.svd(square, full_matrices=False)
        if self.budget2 is None:
            rank = values.shape[-1] if rank is None else rank
            beyond = values[..., rank:]
            self.lost2 = self.lost2 + xp.sum(beyond * beyond, axis=-1)
        else:
            share2 = max(self.budget2 - self.lost2, 0.0) / self.left
            squares = to_numpy(constant(values)).astype(np.float64) ** 2
            tails = np.append(np.cumsum(squares[::-1])[::-1], 0.0)
            rank = max(int(np.argmax(tails <= share2)), 1)
            self.lost2 += float(tails[rank])
            self.left -= 1
        small = values[..., :rank, None] * right[..., :rank, :]
        return vectors[..., :rank], small if turn is None else xp.matmul(small, turn)


class TrainKernel:
    """Values and gradients of a train at a block of points, from both ends to its widest bond.

    Each core enters as a matrix: once for values, twice for values and gradients.

    Parameters
    ----------
    t : TuckerTrain
    xp : module

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from tenfac import TuckerTrain
    >>> t = TuckerTrain([np.ones((1, 2, 3)), np.ones((3, 2, 1))], [np.ones((4, 2))] * 2)
    >>> TrainKernel(t, xp).value([np.ones((2, 5))] * 2, Scratch(None))
    array([12., 12., 12., 12., 12.])
    """

    def __init__(self, t: Any, xp: Any) -> None:
        self.xp, self.order, self.by_rows = xp, t.order, False
        self.cores = t._chain(t.cores)
        bonds = t.train_rank
        self.meet = max(range(len(bonds)), key=lambda n: bonds[n]) + 1 if bonds else len(self.cores)
        sizes = [core.shape[-3:] for core in self.cores]
        largest = max(r * (s if n < self.meet else q) for n, (s, r, q) in enumerate(sizes))
        self.width = max(largest // _LONGER, 1)  # a batch multiplies it
        self.heads = [xp.matrix_transpose(tall(core, xp)) for core in self.cores[: self.meet]]
        self.tails = [flat(core, xp) for core in self.cores[self.meet :]]

    def value(self, columns: Sequence[Any], scratch: Scratch | None) -> Any:
        """Values ``(*b, N)``."""
        xp = self.xp
        state: Any = None
        end: Any = None
        for head, column in zip(self.heads, columns[: self.meet], strict=True):
            pair = column if state is None else row_pairs(state, column, xp, scratch)
            state = xp.matmul(head, pair)
        if not self.tails:
            return state[..., 0, :]
        for tail, column in zip(reversed(self.tails), reversed(columns[self.meet :]), strict=True):
            pair = column if end is None else row_pairs(column, end, xp, scratch)
            end = xp.matmul(tail, pair)
        return summed(state, end, xp)

    def gradient(self, pairs: Sequence[tuple[Any, Any]], scratch: Scratch) -> tuple[Any, list[Any]]:
        """Values, and derivatives by each mode from columns and their derivatives; no batch."""
        xp, columns = self.xp, [column for column, _ in pairs]
        before = [xp.ones_like(columns[0][:1, :])]
        for core, column in zip(self.cores[:-1], columns[:-1], strict=True):
            before.append(
                xp.matmul(xp.matrix_transpose(tall(core, xp)), row_pairs(before[-1], column, xp, scratch))
            )
        after, slopes, value = before[0], [], None
        for core, state, (column, slope) in zip(
            reversed(self.cores), reversed(before), reversed(pairs), strict=True
        ):
            matrix = tall(core, xp)
            room = scratch.get("pair", matrix.shape[0], after.shape[1])
            open_ = xp.matmul(matrix, after) if room is None else np.matmul(matrix, after, out=room)
            end = first_closed(open_, state, xp)
            slopes.append(None if slope is None else summed(end, slope, xp))
            value = summed(end, column, xp) if value is None else value
            after = last_closed(open_, column, xp)
        return value, slopes[::-1]


def order_without(order: Sequence[int], closed: Iterable[int]) -> tuple[int, ...]:
    """The order of the modes that are left when some are closed, numbered anew.

    Examples
    --------
    >>> order_without((2, 0, 1), [0])
    (1, 0)
    """
    kept = [n for n in order if n not in set(closed)]
    return tuple(sorted(kept).index(n) for n in kept)
