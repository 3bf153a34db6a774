"""Adaptive cross approximation of a function of several variables: few fibres, a nested core, residuals.

The function is known on *fibres*, lines parallel to an axis through pivot points, sampled on nested Lobatto
grids. The fibres of a mode span its factor; rows of the factor chosen by conditional pivoting index the core,
so that what has been evaluated stays of use when ranks or degrees grow. What the approximation misses is
looked for at random points and, without an evaluation, along all fibres; the worst points are the next
pivots.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg

from tenfac.core.modes.chebyshev import Chebyshev, coefficients, lobatto
from tenfac.functional.cross.core_grid import WholeCore, fit_to_rows, more_rows, noise, span, steady_rows
from tenfac.functional.cross.train_core import TrainCore

# Up to so many variables all entries of the core are evaluated; beyond, the core is a tensor train.
_WHOLE = 4
# Share of the tolerance, relative to the largest value seen, at which coefficients are noise.
_NOISE = 0.1
# The same for combinations of fibres, by the root mean square; how it is lowered when ranks stand still;
# roundings where a fibre is tried.
_SPAN, _LOWER, _FIBRE_ROUNDOFF = 0.03, 0.3, 1e-14
# Rounding errors of a fibre's polynomial, and of the argument of a steep function; of its last coefficients.
_SPOT_ROUNDOFF, _TAIL_ROUNDOFF = 1e-13, 1e-15
# Norm of the fit to the rows of the core, over the least that it can be, above which rows are added; from
# which residual on, in tolerances.
_STEADY, _NEAR = 4.5, 1e3
# Share of a factor's coefficients, the highest degrees, that must be noise before its grid is fine enough.
_TAIL = 8
_FIRST_LEVEL, _MAX_ROUNDS = 4, 100
# Random pivots to begin with, of few variables and of many.
_FIRST_PIVOTS, _FIRST_OF_MANY = 2, 1
# Random points a round, and how many of them share coordinates with faces and with the largest value.
_RANDOM, _SHARING = 100, 50
# New pivots a round, as a share of the largest rank, and at least; residual, in tolerances, at which the
# search begins, and at which it refuses.
_GROWTH, _FEWEST, _ENOUGH, _REFUSED = 0.3, 2, 0.5, 0.6
# Rounds without a new row of the core, and without a smaller residual, after which there is nothing to gain;
# what a residual must fall to for that.
_STALLED, _PATIENCE, _SMALLER = 5, 12, 0.8
# Of the tolerance, what the modes of a train may miss together.
_TOGETHER = 2
# Rows of the grid, besides those of the core, on which a fibre is tried if that is at most one of so many.
_EXTRA, _ONE_OF = 8, 2
# A fibre as many times larger than all known ones is drawn although they span it: it tells its degree better.
_LARGER = 2
# Probability of such a coordinate.
_SHARED = 0.3
# Of the new pivots at most this part are points of fibres of one mode.
_SHARE = 2
# Distances of the search, as shares of the cube's half edge: down to peaks a thousandth wide. Points to one
# side of a line, of the cloud with the corners, corners of many variables, bad points that become pivots.
_REACH, _STEPS, _CLOUD, _CORNERS, _WORST = (1e-3, 1.0), 14, 36, 12, 4
# Beyond so many evaluations one more on a face for so many of them, up to a number.
_FREE, _PER_FACE, _FACES, _AT_ENDS = 1000, 50, 500, 0.6
# Their distances from the end, logarithms.
_ENDS = (math.log(1e-6), 0.0)
_PER_LINE, _LINES = 3000, 4


class Axis:
    """One mode of the cross: its grid, the fibres along it and what they span.

    Attributes
    ----------
    level : int
        The grid has ``2**level + 1`` points.
    pivots : array, shape (P, D)
        A point on each fibre.
    spots : array, shape (P,)
        Values there.
    fibres : array, shape (m, P)
    index : array of int, shape (r,)
        Rows of the grid that index the core: one per column of the basis of the fibres, or more.
    factor : array, shape (m, r)
        Chebyshev coefficients.
    """

    def __init__(self, ndim: int) -> None:
        self.level = _FIRST_LEVEL
        self.pivots, self.spots, self.fibres = np.empty((0, ndim)), np.empty(0), np.empty((self.size, 0))
        self.index, self.factor = np.empty(0, dtype=int), self.fibres

    @property
    def size(self) -> int:
        """Points of the grid."""
        return 2**self.level + 1

    def rows(self, x: np.ndarray) -> np.ndarray:
        """Rows of the factor at points of [-1, 1], ``(N, r)``."""
        return Chebyshev(self.factor.shape[0]).rows(self.factor, x)


class Cross:
    """State of an adaptive cross: axes and the core, refined until the residual is below the tolerance.

    The core is whole up to four variables, and a tensor train beyond.

    Parameters
    ----------
    evaluate : Evaluator
        Values at points of the cube [-1, 1]^D, ``(N, D) -> (N,)``; counts and refuses.
    ndim : int
    tol : float
        Relative to the largest value seen, in the sup norm.
    max_level : int
        Grids have at most ``2**max_level + 1`` points.
    """

    def __init__(
        self, evaluate: Any, ndim: int, tol: float, rng: np.random.Generator, max_level: int
    ) -> None:
        self.evaluate, self.ndim, self.tol, self.rng, self.max_level = evaluate, ndim, tol, rng, max_level
        self.axes = [Axis(ndim) for _ in range(ndim)]
        self.few = ndim <= _WHOLE
        self.core: Any = WholeCore(evaluate, ndim) if self.few else TrainCore(evaluate, ndim, tol, rng)
        self.residual, self.rounds, self.weakest = np.inf, 0, np.zeros(ndim)
        self.cut = _SPAN
        self.mode_tol = tol if self.few else _TOGETHER * tol / ndim  # errors of many modes add up
        self.unresolved: dict[int, float] = {}  # mode: where on [-1, 1]

    @property
    def scale(self) -> float:
        """Largest magnitude seen."""
        return self.evaluate.largest

    @property
    def allowed(self) -> float:
        """The tolerance in units of the function."""
        return self.tol * self.scale

    def values(self, points: np.ndarray) -> np.ndarray:
        """The approximation at points of the cube."""
        rows = [axis.rows(points[:, n]) for n, axis in enumerate(self.axes)]
        return self.core.at(rows)

    def run(self, hints: np.ndarray, log: Callable[..., None] | None = None) -> None:
        """Refine until the residual is below the tolerance or nothing is gained any more."""
        points = np.concatenate([hints, self._random(_FIRST_PIVOTS if self.few else _FIRST_OF_MANY)])
        best = np.inf
        still = since = 0
        for _ in range(_MAX_ROUNDS):
            before = self.core.sizes
            self.add_pivots(points)
            self.core.look(points)
            self.update()
            self.rounds += 1
            if log is not None:
                log("round %d: rank %s, residual %.3g", self.rounds, self.core.shape, self.residual)
            points = self.worst(max(_FEWEST, int(_GROWTH * max(self.core.shape))))
            if not self.unresolved and self.residual <= _ENOUGH * self.allowed:
                points = self.search()
                if not len(points):
                    return
            still = still + 1 if self.core.sizes == before else 0
            since = 0 if self.residual < _SMALLER * best else since + 1
            best = min(best, self.residual)
            if self.unresolved or still >= _STALLED or since >= _PATIENCE:
                break
            if still:
                self.cut *= _LOWER
        if not self.unresolved and self.residual <= self.allowed:
            self.search()  # what stands still just below the tolerance has not been searched yet

    def _random(self, count: int) -> np.ndarray:
        return self.rng.uniform(-1, 1, (count, self.ndim))

    # --- growing ----------------------------------------------------------------------------------------

    def add_pivots(self, points: np.ndarray) -> None:
        """Draw the fibres through new pivots, and refine the grids until they are resolved."""
        for n, axis in enumerate(self.axes):
            self._draw(n, axis, points)
        for n, axis in enumerate(self.axes):
            while not self._resolved(n, axis):
                if axis.level == self.max_level:
                    self.unresolved[n] = _roughest(axis.fibres)
                    break
                self._refine(n, axis)

    def _draw(self, n: int, axis: Axis, points: np.ndarray) -> None:
        """Fibres through points, but for those already known and those that the others span."""
        points = _new_lines(points, axis.pivots, n)
        if not len(points):
            return
        grid, first = lobatto(axis.size), self._first_rows(n, axis, points)
        some = self._sample(n, points, grid[first])
        if not first.all():
            basis, _ = np.linalg.qr(self._span(axis.fibres)[first])
            chosen = self._independent(some - basis @ (basis.T @ some))
            sizes, known = np.linalg.norm(some, axis=0), np.linalg.norm(axis.fibres[first], axis=0)
            if sizes.max() > _LARGER * known.max():
                chosen = np.union1d(chosen, sizes.argmax())
            points, some = points[chosen], some[:, chosen]
        new = np.empty((axis.size, len(points)))
        new[first], new[~first] = some, self._sample(n, points, grid[~first])
        axis.pivots = np.concatenate([axis.pivots, points])
        axis.fibres = np.concatenate([axis.fibres, new], axis=1)
        axis.spots = np.concatenate([axis.spots, self.evaluate(points)])

    def _first_rows(self, n: int, axis: Axis, points: np.ndarray) -> np.ndarray:
        """Rows on which fibres are tried: those that index the core, some between, those of the points."""
        first = np.ones(axis.size, dtype=bool)
        if len(axis.index) and _ONE_OF * (len(axis.index) + len(points) + _EXTRA) < axis.size:
            first[:] = False
            first[axis.index] = True
            first[np.linspace(0, axis.size - 1, _EXTRA).astype(int)] = True
            first[np.abs(lobatto(axis.size)[:, None] - points[:, n]).argmin(axis=0)] = True
        return first

    def _independent(self, fibres: np.ndarray) -> np.ndarray:
        """Columns that the others do not span, up to noise."""
        _, triangle, order = scipy.linalg.qr(fibres, mode="economic", pivoting=True)
        smallest = noise(self.cut * self.tol, len(fibres), self.scale, _FIBRE_ROUNDOFF)
        return np.sort(order[: int((np.abs(np.diag(triangle)) > smallest).sum())])

    def _sample(self, n: int, points: np.ndarray, grid: np.ndarray) -> np.ndarray:
        lines = np.repeat(points[None], len(grid), axis=0)
        lines[:, :, n] = grid[:, None]
        return self.evaluate(lines.reshape(-1, self.ndim)).reshape(len(grid), len(points))

    def _resolved(self, n: int, axis: Axis) -> bool:
        """Whether the last coefficients are noise, and polynomials hold between the points of the grid."""
        found, least = coefficients(axis.fibres), max(_NOISE * self.mode_tol, _TAIL_ROUNDOFF)
        if np.abs(found[-(axis.size // _TAIL) :]).max() > least * self.scale:
            return False
        basis = Chebyshev(axis.size).basis(axis.pivots[:, n], np)
        missed = np.abs((basis * found.T).sum(axis=1) - axis.spots)
        return bool(missed.max() <= max(_ENOUGH * self.mode_tol, _SPOT_ROUNDOFF) * self.scale)

    def _refine(self, n: int, axis: Axis) -> None:
        """Twice as fine a grid, old values kept."""
        between = lobatto(2 * axis.size - 1)[1::2]
        fine = np.empty((2 * axis.size - 1, axis.fibres.shape[1]))
        fine[::2], fine[1::2] = axis.fibres, self._sample(n, axis.pivots, between)
        axis.level, axis.fibres, axis.index = axis.level + 1, fine, 2 * axis.index

    def update(self) -> None:
        """Factors from the fibres, more core indices, and the new blocks of the core."""
        bases = [self._span(axis.fibres) for axis in self.axes]
        rows = [more_rows(basis, axis.index) for basis, axis in zip(bases, self.axes, strict=True)]
        if self.few and self.residual < _NEAR * self.allowed:
            rows = [self._steady(*pair) for pair in zip(bases, rows, strict=True)]
        places = [lobatto(axis.size)[index] for axis, index in zip(self.axes, rows, strict=True)]
        try:
            self.core.grow(places, self.cut)
        finally:  # out of evaluations, a train may be of use already
            if self.core.shape == tuple(map(len, rows)):
                for axis, basis, index in zip(self.axes, bases, rows, strict=True):
                    axis.index = index
                    axis.factor = coefficients(basis) @ fit_to_rows(basis, index)

    def _steady(self, basis: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Rows chosen for former bases fit this one badly at times, and what fibres miss is multiplied."""
        return steady_rows(basis, index, _STEADY * math.sqrt(len(basis) / basis.shape[1]))

    def _span(self, fibres: np.ndarray) -> np.ndarray:
        return span(fibres, noise(self.cut * self.tol, len(fibres), self.scale))

    # --- looking for what is missed ---------------------------------------------------------------------

    def worst(self, count: int) -> np.ndarray:
        """Points where the approximation is worst: random ones, evaluated, and those of all fibres, free."""
        points = self._random(_RANDOM)
        if not self.few:  # few are near a peak or an edge: half share coordinates with these
            drawn, some = self.rng.random((_SHARING, self.ndim)), points[:_SHARING]
            ends, same = drawn < _SHARED, drawn > 1 - _SHARED
            points[:_SHARING] = np.where(same, self.evaluate.place, np.where(ends, np.sign(some), some))
        gaps = np.abs(self.evaluate(points) - self.values(points))
        self.residual, self.weakest = float(gaps.max()), points[gaps.argmax()]
        order = np.argsort(-gaps)[:count]
        pools, heights = [points[order]], [gaps[order]]
        for n, axis in enumerate(self.axes):
            found, missed = self._along_fibres(n, axis)
            order = np.argsort(-missed)[: count // _SHARE]
            pools, heights = [*pools, found[order]], [*heights, missed[order]]
            self.residual = max(self.residual, float(missed.max()))
        best = np.argsort(-np.concatenate(heights), kind="stable")[:count]
        return np.concatenate(pools)[best]

    def search(self) -> np.ndarray:
        """Points that break the approximation, on lines from where the function and the residual are largest.

        Adversarial: a narrow peak between the random points shows on a line through its flank. Where much was
        evaluated, faces are looked at too, and lines go on from the worst point.
        """
        place = self.evaluate.place
        corners = self._corners()
        count = _CLOUD - len(corners)
        cloud = self._random(count) * np.geomspace(*_REACH, count)[:, None]
        starts = np.stack([place, self.weakest, np.zeros(self.ndim)])
        points = np.concatenate([self._lines(starts), np.clip(place + cloud, -1, 1), corners, self._faces()])
        gaps = self._gaps(points)
        for _ in range(min((self.evaluate.n_evals - _FREE) // _PER_LINE, _LINES)):
            if gaps.max() > _REFUSED * self.allowed:
                break
            more = self._lines(points[[gaps.argmax()]])
            points, gaps = np.concatenate([points, more]), np.concatenate([gaps, self._gaps(more)])
        self.residual = max(self.residual, float(gaps.max()))
        bad = np.flatnonzero(gaps > _REFUSED * self.allowed)
        return points[bad[np.argsort(-gaps[bad])][:_WORST]]

    def _gaps(self, points: np.ndarray) -> np.ndarray:
        return np.abs(self.evaluate(points) - self.values(points))

    def _lines(self, starts: np.ndarray) -> np.ndarray:
        """Points on lines along all axes."""
        some = np.geomspace(*_REACH, _STEPS)[:: math.ceil(self.ndim / _WHOLE)]
        steps = np.concatenate([-some, some])
        lines = np.repeat(starts[:, None, None], self.ndim, axis=1).repeat(len(steps), axis=2)
        for n in range(self.ndim):
            lines[:, n, :, n] += steps
        return np.clip(lines.reshape(-1, self.ndim), -1, 1)

    def _corners(self) -> np.ndarray:
        """Corners, in few dimensions all: where a product or a sum is largest, and few points are."""
        if self.few:
            return np.array(list(itertools.product([-1.0, 1.0], repeat=self.ndim)))
        corners = self.rng.choice([-1.0, 1.0], (_CORNERS, self.ndim))
        corners[:2] = [[-1.0], [1.0]]
        return corners

    def _faces(self) -> np.ndarray:
        """Points on faces and edges, where polynomials err most: the more, the more was evaluated."""
        count = max(min((self.evaluate.n_evals - _FREE) // _PER_FACE, _FACES), 0)
        points = self._random(count)
        ends = np.sign(points) * (1 - np.exp(self.rng.uniform(*_ENDS, points.shape)))
        return np.where(self.rng.random(points.shape) < _AT_ENDS, ends, points)

    def _along_fibres(self, n: int, axis: Axis) -> tuple[np.ndarray, np.ndarray]:
        """The worst point of every fibre of a mode."""
        grid = lobatto(axis.size)
        rows = [None if m == n else a.rows(axis.pivots[:, m]) for m, a in enumerate(self.axes)]
        weights = self.core.along(n, rows)
        gaps = np.abs(axis.fibres - axis.rows(grid) @ weights.T)
        worst = gaps.argmax(axis=0)
        points = axis.pivots.copy()
        points[:, n] = grid[worst]
        return points, gaps[worst, np.arange(len(points))]


def _roughest(fibres: np.ndarray) -> float:
    """The point of the grid where fibres bend most."""
    grid = lobatto(len(fibres))
    slopes = np.diff(fibres, axis=0) / np.diff(grid)[:, None]
    bends = np.abs(np.diff(slopes, axis=0))
    return float(grid[1 + bends.max(axis=1).argmax()])


def _new_lines(points: np.ndarray, pivots: np.ndarray, n: int) -> np.ndarray:
    """Points on lines along mode ``n`` that hold no pivot, one of each line."""
    others = np.delete(points, n, axis=1)
    known = (others[:, None] == np.delete(pivots, n, axis=1)[None]).all(axis=2).any(axis=1)
    twice = (others[:, None] == others[None]).all(axis=2)
    return points[~known & ~np.tril(twice, -1).any(axis=1)]
