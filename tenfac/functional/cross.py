"""Adaptive cross approximation of a function of several variables: few fibres, a nested core, honest residuals.

The function is known on *fibres*, lines parallel to an axis through pivot points, sampled on nested Lobatto
grids. The fibres of a mode span its factor; rows of the factor chosen by conditional pivoting index the core, so
that what has been evaluated stays of use when ranks or degrees grow. What the approximation misses is looked for
at random points and, without an evaluation, along all fibres; the worst points are the next pivots.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.linalg

from ..core.contract import contract
from ..core.modes.chebyshev import Chebyshev, coefficients, lobatto

# Share of the tolerance, relative to the largest value seen, at which coefficients and singular values are noise.
_NOISE = 0.1
# Share of a factor's coefficients, the highest degrees, that must be noise before its grid is fine enough.
_TAIL = 8
_FIRST_LEVEL, _FIRST_PIVOTS, _RANDOM, _MAX_ROUNDS = 4, 4, 100, 100
# New pivots a round, as a share of the largest rank; residual, in tolerances, at which the search begins.
_GROWTH, _ENOUGH = 0.35, 0.5
# Steps of the search along an axis, as shares of the cube's half edge: down to peaks a thousandth wide.
_STEPS = np.geomspace(1e-3, 1, 16)


@dataclass
class Axis:
    """One mode of the cross: its grid, the fibres along it and what they span."""

    level: int = _FIRST_LEVEL
    fibres: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))  # (m, number of pivots)
    index: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=int))  # rows that index the core
    factor: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))  # coefficients, (m, r)

    @property
    def size(self) -> int:
        """Points of the grid."""
        return 2**self.level + 1

    def rows(self, x: np.ndarray) -> np.ndarray:
        """Rows of the factor at points of [-1, 1], ``(N, r)``."""
        return Chebyshev(self.factor.shape[0]).rows(self.factor, x)


class Cross:
    """State of an adaptive cross: pivots, axes and the core, refined until the residual is below the tolerance.

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

    def __init__(self, evaluate: Any, ndim: int, tol: float, rng: np.random.Generator, max_level: int) -> None:
        self.evaluate, self.ndim, self.tol, self.rng, self.max_level = evaluate, ndim, tol, rng, max_level
        self.axes = [Axis() for _ in range(ndim)]
        self.pivots = np.empty((0, ndim))
        self.core = np.zeros((0,) * ndim)
        self.residual, self.rounds = np.inf, 0
        self.unresolved: set[int] = set()

    @property
    def scale(self) -> float:
        """Largest magnitude seen."""
        return self.evaluate.largest

    def values(self, points: np.ndarray) -> np.ndarray:
        """The approximation at points of the cube."""
        rows = [axis.rows(points[:, n]) for n, axis in enumerate(self.axes)]
        return contract(self.core, rows, paired=range(self.ndim))

    def run(self, hints: np.ndarray) -> None:
        """Refine until the residual is below the tolerance or nothing is gained any more."""
        points = np.concatenate([hints, self.rng.uniform(-1, 1, (_FIRST_PIVOTS, self.ndim))])
        for _ in range(_MAX_ROUNDS):
            self.add_pivots(points)
            self.update()
            self.rounds += 1
            largest = max(len(axis.index) for axis in self.axes)
            points = self.worst(max(2, int(_GROWTH * largest)))
            if self.residual <= _ENOUGH * self.tol * self.scale:
                points = self.search()
                if not len(points):
                    return
            if self.unresolved:
                return

    # --- growing ----------------------------------------------------------------------------------------

    def add_pivots(self, points: np.ndarray) -> None:
        """Draw the fibres through new pivots, and refine the grids until they are resolved."""
        self.pivots = np.concatenate([self.pivots, points])
        for n, axis in enumerate(self.axes):
            new = self._sample(n, points, lobatto(axis.size))
            axis.fibres = new if not axis.fibres.size else np.concatenate([axis.fibres, new], axis=1)
        for n, axis in enumerate(self.axes):
            while not self._resolved(axis):
                if axis.level == self.max_level:
                    self.unresolved.add(n)
                    break
                self._refine(n, axis)

    def _sample(self, n: int, points: np.ndarray, grid: np.ndarray) -> np.ndarray:
        lines = np.repeat(points[None], len(grid), axis=0)
        lines[:, :, n] = grid[:, None]
        return self.evaluate(lines.reshape(-1, self.ndim)).reshape(len(grid), len(points))

    def _resolved(self, axis: Axis) -> bool:
        tail = coefficients(axis.fibres)[-max(axis.size // _TAIL, 2) :]
        return bool(np.abs(tail).max() <= _NOISE * self.tol * self.scale)

    def _refine(self, n: int, axis: Axis) -> None:
        """Twice as fine a grid, old values kept."""
        between = lobatto(2 * axis.size - 1)[1::2]
        fine = np.empty((2 * axis.size - 1, axis.fibres.shape[1]))
        fine[::2], fine[1::2] = axis.fibres, self._sample(n, self.pivots, between)
        axis.level, axis.fibres, axis.index = axis.level + 1, fine, 2 * axis.index

    def update(self) -> None:
        """Factors from the fibres, more core indices, and the new blocks of the core."""
        old = [len(axis.index) for axis in self.axes]
        for axis in self.axes:
            basis = self._span(axis.fibres)
            axis.index = _more_rows(basis, axis.index)
            inverse = np.linalg.pinv(basis[axis.index], rcond=1e-15)
            axis.factor = coefficients(basis) @ inverse
        self.core = self._grown(old)

    def _span(self, fibres: np.ndarray) -> np.ndarray:
        left, sizes, _ = np.linalg.svd(fibres, full_matrices=False)
        rank = max(int((sizes > _NOISE * self.tol * self.scale).sum()), 1)
        return left[:, :rank]

    def _grown(self, old: list[int]) -> np.ndarray:
        """The core at all index combinations; only the new ones are evaluated."""
        new = [len(axis.index) for axis in self.axes]
        core = np.empty(new)
        core[tuple(map(slice, old))] = self.core
        for n in range(self.ndim):  # blocks: old below mode n, new in mode n, all above
            spans = [range(old[m]) if m < n else range(new[m]) for m in range(self.ndim)]
            spans[n] = range(old[n], new[n])
            where = np.array(list(itertools.product(*spans)), dtype=int).reshape(-1, self.ndim)
            if len(where):
                points = np.stack([lobatto(a.size)[a.index[where[:, m]]] for m, a in enumerate(self.axes)], axis=1)
                core[tuple(where.T)] = self.evaluate(points)
        return core

    # --- looking for what is missed ---------------------------------------------------------------------

    def worst(self, count: int) -> np.ndarray:
        """Points where the approximation is worst: random ones, evaluated, and those of all fibres, free."""
        points = self.rng.uniform(-1, 1, (_RANDOM, self.ndim))
        gaps = np.abs(self.evaluate(points) - self.values(points))
        self.residual = float(gaps.max())
        chosen = [points[np.argsort(-gaps)[:count]]]
        for n, axis in enumerate(self.axes):
            found, missed = self._along_fibres(n, axis)
            if missed.max() >= gaps.max():
                chosen.append(found[[missed.argmax()]])
            self.residual = max(self.residual, float(missed.max()))
        return np.concatenate(chosen)

    def search(self) -> np.ndarray:
        """Points that break the approximation, on lines from where the function and the residual are largest.

        Adversarial: a narrow peak between the random points shows on a line through its flank.
        """
        points = self.rng.uniform(-1, 1, (_RANDOM, self.ndim))
        gaps = np.abs(self.evaluate(points) - self.values(points))
        starts = np.stack([self.evaluate.place, points[gaps.argmax()], np.zeros(self.ndim)])
        steps = np.concatenate([-_STEPS, _STEPS])
        lines = np.repeat(starts[:, None, None], self.ndim, axis=1).repeat(len(steps), axis=2)
        for n in range(self.ndim):
            lines[:, n, :, n] += steps
        lines = np.clip(lines.reshape(-1, self.ndim), -1, 1)
        missed = np.abs(self.evaluate(lines) - self.values(lines))
        points, gaps = np.concatenate([points, lines]), np.concatenate([gaps, missed])
        self.residual = max(self.residual, float(gaps.max()))
        bad = np.flatnonzero(gaps > self.tol * self.scale)
        return points[bad[np.argsort(-gaps[bad])][:4]]

    def _along_fibres(self, n: int, axis: Axis) -> tuple[np.ndarray, np.ndarray]:
        """The worst point of every fibre of a mode."""
        grid = lobatto(axis.size)
        others = [m for m in range(self.ndim) if m != n]
        rows = [None if m == n else a.rows(self.pivots[:, m]) for m, a in enumerate(self.axes)]
        weights = contract(self.core, rows, paired=others) if others else self.core[None]
        gaps = np.abs(axis.fibres - axis.rows(grid) @ weights.T)
        worst = gaps.argmax(axis=0)
        points = self.pivots.copy()
        points[:, n] = grid[worst]
        return points, gaps[worst, np.arange(len(points))]


def _more_rows(basis: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Rows that make the basis well conditioned, those chosen before kept: pivoted QR of what they leave."""
    missing = basis.shape[1] - len(index)
    if missing <= 0:
        return index
    rest = basis
    if len(index):
        row_space = scipy.linalg.orth(basis[index].T)
        rest = basis - (basis @ row_space) @ row_space.T
    _, _, order = scipy.linalg.qr(rest.T, mode="economic", pivoting=True)
    fresh = [row for row in order[: missing + len(index)] if row not in set(index.tolist())]
    return np.concatenate([index, np.array(fresh[:missing], dtype=int)])
