"""The core of a cross as a tensor train, found from few of its entries: for five variables and more.

Between two neighbors of the chain stands a bond: *prefixes* (indices of the modes before it) and *suffixes*
(of those after it). A block holds the entries at all prefixes of one bond, all indices of the mode between,
and all suffixes of the next; the columns of a block span what its bond must carry, and rows of it, chosen by
conditional pivoting, are the prefixes of the next bond. Blocks only grow, so that nothing is evaluated twice.
Suffixes are added where a few entries beyond the block are not what the bond makes of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.linalg

from tenfac.core.arrays import spans
from tenfac.functional.cross.chain_order import chain_order
from tenfac.functional.cross.core_grid import fit_to_rows, grown, more_rows, noise, span

# Share of the tolerance below which a combination of columns is noise, by the root mean square; how it is
# lowered; columns that are missed are that many times larger.
_CUT, _LOWER, _LOWERED, _MISSED = 0.03, 0.3, 3, 3.0
# Rows and columns tried at a bond, and so many more as a share of its prefixes.
_TRIED, _MORE = 4, 0.5
# Prefixes tried for each index of an entry that is not met.
_AROUND = 16
# Random entries of the whole core that are checked, and the residual allowed there, in tolerances.
_ENTRIES, _ENOUGH, _MAX_SWEEPS = 100, 0.3, 30
# Entries not met that are looked into at once: as a share of the largest bond, and at least.
_WORST, _FEWEST = 0.2, 2
# Rows and columns of the matrices by which orders of the chain are compared; what that costs for D variables,
# over D^2.
_SAMPLES, _COMPARED = 12, 120
# Singular values below this share of the largest do not count: where few samples tell cuts apart.
_DISTINCT = 1e-6
_CHUNK = 2**17


class TrainCore:
    """The core of a cross as a tensor train: cores ``(S_before, R, S_after)`` along a chain of the modes.

    Parameters
    ----------
    evaluate : Evaluator
    ndim : int
        2 or more.
    tol : float
        Relative to the largest value seen.
    rng : numpy.random.Generator

    Attributes
    ----------
    cores : list of arrays
        Along the chain, after the last full sweep.
    order : list of int
        The modes along ``cores``.
    chain : list of int
        The modes along the blocks, which may be those of a sweep that has not ended.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.functional.cross.evaluator import Evaluator
    >>> evaluate = Evaluator(lambda *x: 1 + sum(x), [(-1, 1)] * 5, 10_000, True)
    >>> train = TrainCore(evaluate, 5, 1e-8, np.random.default_rng(0))
    >>> train.grow([np.array([-1.0, 1.0])] * 5)
    >>> train.shape, train.bonds
    ((2, 2, 2, 2, 2), (2, 2, 2, 2))
    """

    def __init__(self, evaluate: Any, ndim: int, tol: float, rng: np.random.Generator) -> None:
        self.evaluate, self.ndim, self.tol, self.rng = evaluate, ndim, tol, rng
        self.cut = _CUT
        self.order, self.chain, self.reconsidered = list(range(ndim)), list(range(ndim)), False
        self.places: list[np.ndarray] = []
        self.cores = [np.zeros((1, 0, 1))] * ndim
        self.nothing = np.empty((0, ndim), dtype=int)
        self.doubtful = self.nothing  # points to look at
        self.missed = self.nothing  # entries that are not met
        self._restart()

    def _restart(self) -> None:
        bonds, whole = range(1, self.ndim), np.array([[]], dtype=int)
        self.prefixes = [whole, *(self.nothing[:, :n] for n in bonds)]
        self.suffixes = [*(self.nothing[:, n:] for n in bonds), whole]
        self.rows = [self.nothing[:, :2] for _ in bonds]  # prefix of the bond before, index
        self.blocks = [np.array([[[]]]) for _ in self.chain]  # no entries
        self.carried: list[Any] = [None for _ in bonds]

    # --- facts --------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Entries along each mode."""
        return tuple(self.cores[self.order.index(n)].shape[1] for n in range(self.ndim))

    @property
    def bonds(self) -> tuple[int, ...]:
        """Prefixes between neighbors of the chain."""
        return tuple(core.shape[2] for core in self.cores[:-1])

    @property
    def sizes(self) -> tuple[int, ...]:
        """All that may grow."""
        return (*self.shape, *self.bonds)

    @property
    def lengths(self) -> list[int]:
        """Indices known of each mode, along the chain."""
        return [len(self.places[n]) for n in self.chain]

    def at(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """The core times a row per mode, point by point: ``(N, R_n) -> (N,)``."""
        return chain_values(self.cores, [rows[n] for n in self.order])

    def along(self, mode: int, rows: Sequence[Any]) -> np.ndarray:
        """The same with one mode left open, ``(N, R_mode)``."""
        spot = self.order.index(mode)
        chain = [rows[n] for n in self.order]
        before = np.ones((1, 1))
        for core, row in zip(self.cores[:spot], chain[:spot], strict=True):
            before = _step(before, core, row)
        after = np.ones((1, 1))
        for core, row in zip(self.cores[:spot:-1], chain[:spot:-1], strict=True):
            after = _step(after, core.transpose(2, 1, 0), row)
        half = np.tensordot(before, self.cores[spot], axes=1)
        return np.matmul(half, after[..., None])[..., 0]

    # --- growing ------------------------------------------------------------------------------------------

    def look(self, points: np.ndarray) -> None:
        """Check the entries next to these points of the cube when the core grows."""
        self.doubtful = points

    def grow(self, places: Sequence[np.ndarray], cut: float = _CUT) -> None:
        """Take in more coordinates of each mode, those known before first, and refine the train."""
        self.places, self.cut = list(places), min(self.cut, cut)
        self.missed, lowered = self.nothing, 0
        if not len(self.suffixes[0]):
            self._start()
        for _ in range(_MAX_SWEEPS):
            if not self.reconsidered and self._large():
                self.reconsidered = True
                self._reorder()
            before = [len(suffixes) for suffixes in self.suffixes]
            self._sweep()
            if before != [len(suffixes) for suffixes in self.suffixes]:
                self.missed = self.nothing
                continue
            if len(self.missed):  # no bond is to blame: what they take for noise adds up
                if lowered == _LOWERED:
                    return
                self.cut, lowered = self.cut * _LOWER, lowered + 1
            self.missed = self._misses()
            if not len(self.missed):
                return

    def _large(self) -> bool:
        """Whether comparing orders of the chain costs less than the blocks do."""
        return sum(block.size for block in self.blocks) > _COMPARED * self.ndim * self.ndim

    def _start(self) -> None:
        """First suffixes: from a large entry, climbed to along the modes."""
        where = self.evaluate.place
        spot = np.array([np.abs(self.places[n] - where[n]).argmin() for n in self.chain])
        for p, length in enumerate(self.lengths):
            if length > 1:
                line = np.repeat(spot[None], length, axis=0)
                line[:, p] = np.arange(length)
                spot[p] = np.abs(self._values(line)).argmax()
        self.suffixes[:-1] = [spot[None, p:] for p in range(1, self.ndim)]

    def _sweep(self) -> None:
        """From the first bond to the last: prefixes, and suffixes until the bond carries what was tried."""
        for p in range(self.ndim - 1):
            self._choose(p)
            while len(new := self._uncarried(p)):
                self.suffixes[p] = np.concatenate([self.suffixes[p], new])
                self._choose(p)
        shapes = zip(self.prefixes[:-1], self.lengths[:-1], self.carried, strict=True)
        self.cores = [carried.reshape(len(left), length, -1) for left, length, carried in shapes]
        self.cores.append(self.blocks[-1])
        self.order = self.chain

    def _choose(self, p: int) -> None:
        """Prefixes after mode ``p``, and how its block follows from them; the next block is filled."""
        length, block = self.lengths[p], self._filled(p)
        flat = block.reshape(-1, block.shape[2])
        basis = span(flat, self._noise(len(flat)))
        known = self.rows[p] @ [length, 1]
        index = more_rows(basis, known)
        new = np.stack(np.divmod(index[len(known) :], length), axis=1)
        self.rows[p] = np.concatenate([self.rows[p], new])
        prefixes = np.concatenate([self.prefixes[p][new[:, 0]], new[:, 1:]], axis=1)
        self.prefixes[p + 1] = np.concatenate([self.prefixes[p + 1], prefixes])
        self.carried[p] = basis @ fit_to_rows(basis, index)
        self._filled(p + 1)

    def _filled(self, p: int) -> np.ndarray:
        """The block of a mode: all prefixes, indices and suffixes known now."""
        parts = [self.prefixes[p], np.arange(self.lengths[p])[:, None], self.suffixes[p]]
        shape = tuple(map(len, parts))
        if self.blocks[p].shape != shape:

            def values(block: Sequence[slice]) -> np.ndarray:
                return self._outer(*(part[some] for part, some in zip(parts, block, strict=True)))

            self.blocks[p] = grown(self.blocks[p], shape, values)
        return self.blocks[p]

    def _noise(self, rows: int) -> float:
        """Norm below which a combination of columns is noise."""
        return noise(self.cut * self.tol, rows, self.evaluate.largest)

    def _outer(self, *parts: np.ndarray) -> np.ndarray:
        """Entries at all combinations of parts of an index."""
        shape = tuple(map(len, parts))
        chosen = [part[i.ravel()] for part, i in zip(parts, np.indices(shape), strict=True)]
        return self._values(np.concatenate(chosen, axis=1)).reshape(shape)

    def _values(self, index: np.ndarray) -> np.ndarray:
        found = []
        for part in spans(len(index), _CHUNK):
            some = index[part]
            points = np.empty(some.shape)
            for p, n in enumerate(self.chain):
                points[:, n] = self.places[n][some[:, p]]
            found.append(self.evaluate(points))
        return np.concatenate(found)

    # --- looking for what is missed -----------------------------------------------------------------------

    def _uncarried(self, p: int) -> np.ndarray:
        """Suffixes that the bond after mode ``p`` does not carry, of some that are tried on some rows."""
        rows, prefixes = self._tried_rows(p)
        suffixes, known = self._tried_suffixes(p)
        if not len(rows) or not len(suffixes):
            return suffixes[:0]
        gaps = self._outer(prefixes, suffixes) - self.carried[p][rows] @ known
        _, triangle, order = scipy.linalg.qr(gaps, mode="economic", pivoting=True)
        count = int((np.abs(np.diag(triangle)) > _MISSED * self._noise(len(rows))).sum())
        return suffixes[np.sort(order[:count])]

    def _tried_rows(self, p: int) -> tuple[np.ndarray, np.ndarray]:
        """Random rows of a block that are no prefixes of the next, and rows of entries that are not met."""
        total, length = len(self.prefixes[p]) * self.lengths[p], self.lengths[p]
        rows = self.rng.permutation(total)[: self._count(p)]
        if len(self.missed):
            around = self.rng.permutation(len(self.prefixes[p]))[:_AROUND]
            more = around[:, None] * length + np.unique(self.missed[:, p])
            rows = np.union1d(rows, more)
        rows = np.setdiff1d(rows, self.rows[p] @ [length, 1])
        before, index = np.divmod(rows, length)
        return rows, np.concatenate([self.prefixes[p][before], index[:, None]], axis=1)

    def _tried_suffixes(self, p: int) -> tuple[np.ndarray, np.ndarray]:
        """Random suffixes of the next bond, each with an index more, and their entries at the prefixes."""
        after = self.suffixes[p + 1]
        tried = self.rng.permutation(self.lengths[p + 1] * len(after))[: self._count(p)]
        index, end = np.divmod(tried, len(after))
        suffixes = np.concatenate([index[:, None], after[end]], axis=1)
        fresh = _unknown(suffixes, self.suffixes[p])
        suffixes, known = suffixes[fresh], self.blocks[p + 1][:, index[fresh], end[fresh]]
        more = np.unique(self.missed[:, p + 1 :], axis=0)
        more = more[_unknown(more, np.concatenate([suffixes, self.suffixes[p]]))]
        if len(more):
            suffixes = np.concatenate([suffixes, more])
            known = np.concatenate([known, self._outer(self.prefixes[p + 1], more)], axis=1)
        return suffixes, known

    def _count(self, p: int) -> int:
        return _TRIED + int(_MORE * len(self.prefixes[p + 1]))

    def _misses(self) -> np.ndarray:
        """Entries of the core that the train does not meet, of random ones and those next to points."""
        lengths = self.lengths
        count = min(_ENTRIES, math.prod(lengths) - 1)  # none of a single entry
        index = np.stack([self.rng.integers(length, size=count) for length in lengths], axis=1)
        near = [np.abs(self.places[n] - self.doubtful[:, n, None]).argmin(axis=1) for n in self.chain]
        index = np.concatenate([index, np.stack(near, axis=1)])
        self.doubtful = self.nothing
        gaps = np.abs(self._values(index) - self._met(index))
        worst = np.argsort(-gaps)[: max(_FEWEST, int(_WORST * max(self.bonds)))]
        return index[worst[gaps[worst] > _ENOUGH * self.tol * self.evaluate.largest]]

    def _met(self, index: np.ndarray) -> np.ndarray:
        state = np.ones((len(index), 1))
        for p, core in enumerate(self.cores):
            state = np.einsum("na,anb->nb", state, core[:, index[:, p]])
        return state[:, 0]

    def _reorder(self) -> None:
        """Begin again along a better chain, if there is one."""
        first, second = self.rng.uniform(-1, 1, (2, _SAMPLES, self.ndim))

        def weight(modes: Sequence[int]) -> float:
            points = np.repeat(second[None], _SAMPLES, axis=0)
            points[..., list(modes)] = first[:, None, list(modes)]
            entries = self.evaluate(points.reshape(-1, self.ndim))
            sizes = np.linalg.svd(entries.reshape(_SAMPLES, _SAMPLES), compute_uv=False)
            least = max(max(self.tol, _DISTINCT) * sizes.max(), np.finfo(float).tiny)
            return float(np.log(np.maximum(sizes, least) / least).sum())

        order = chain_order(weight, self.chain)
        if order != self.chain:
            self.chain, self.missed = order, self.nothing
            self._restart()
            self._start()


def chain_values(cores: Sequence[np.ndarray], rows: Sequence[np.ndarray]) -> np.ndarray:
    """A train times a row per core, point by point: ``(N, R) -> (N,)``.

    Examples
    --------
    >>> import numpy as np
    >>> chain_values([np.ones((1, 2, 3)), np.ones((3, 2, 1))], [np.ones((4, 2))] * 2)
    array([12., 12., 12., 12.])
    """
    state = np.ones((1, 1))
    for core, row in zip(cores, rows, strict=True):
        state = _step(state, core, row)
    return state[:, 0]


def _step(state: np.ndarray, core: np.ndarray, row: np.ndarray) -> np.ndarray:
    """``(N, A)`` or ``(1, A)``, through a core ``(A, R, B)`` and rows ``(N, R)``: ``(N, B)``."""
    return np.matmul(row[:, None], np.tensordot(state, core, axes=1))[:, 0]


def _unknown(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    return ~(rows[:, None] == known[None]).all(axis=2).any(axis=1)
