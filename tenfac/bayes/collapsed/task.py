"""The observations in scaled units, and how much of the prior they call for: bases, products, terms."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.basis import MAX_NODES, ModeBasis, ProductBasis, nodes_of
from tenfac.bayes.collapsed.cell_covariance import CellCovariance
from tenfac.bayes.collapsed.cells import CellBasis
from tenfac.bayes.collapsed.evidence import Problem
from tenfac.bayes.collapsed.grid_evidence import GridProblem
from tenfac.bayes.collapsed.hyper import Hyper
from tenfac.bayes.collapsed.journal import Journal
from tenfac.bayes.collapsed.mode_prior import ORDERS
from tenfac.bayes.collapsed.residual import Residual
from tenfac.bayes.collapsed.slices import Slices, rows_by_slice
from tenfac.bayes.collapsed.terms import Cells, Level, Main, Product

Array = NDArray[Any]
_COMPLETE_BELOW = 64  # so few products are all kept, whatever their prior variance
_NEGLIGIBLE = 0.1  # a product is kept if one slice of data could tell more about it than this (in nats)
_NEGLIGIBLE_IN_SLICES = 1.0  # the same beside a residual within slices, which takes up what is left out
_SHARE_IN_SLICES = 0.2  # of the work on the state, beside a residual
_MOST_CELLS = 128  # distinct cells of the other modes up to which these have joint functions
_FILLED = 0.7  # share of a grid's cells that must be observed to learn on the grid
_LARGEST_MODE = 256  # indices per mode up to which a grid is diagonalised
_LARGEST_GRID = 4e6  # cells
_ROOM_BESIDE_CELLS = 16  # of the state, for the product beside effects of cells
_MOST_PRODUCTS = 400
_MOST_MAIN = 32  # functions of a main effect
_STATE_WORK = 1e8  # indices of the exact mode times the cube of the state
_STATE_WORK_ONCE = 2e9  # the same where hyperparameters are learned on a grid, and the state is solved once
_LEVELS_TO_LEARN_FROM = 16  # levels of a discrete exact mode are exchangeable: some speak for all


@dataclass(frozen=True)
class Task:
    """The observations in scaled positions, and what was asked for.

    Parameters
    ----------
    kernels : tuple of (str or None)
        Per mode; None is discrete.
    exact : int
        The mode to integrate out exactly.
    grids : tuple of arrays, shape (M_n,)
        Distinct positions per mode, ascending.
    positions : tuple of arrays, shape (N,)
        Position of every observation, per mode.
    y, weights : arrays, shape (N,)
        ``y`` centered and scaled to variance one; weights are numbers of repeats.
    rank : tuple of (int or None)
        Most functions per mode.
    most : int or None
        Most products of mode functions; None keeps one evaluation of the evidence to about a second.
    label_rank : int
        Columns of loadings of a discrete mode.
    rng : numpy Generator
        Draws missing cells of a grid.
    precision : array, shape (N,), or None
        What one repeat of a row tells relative to the noise; None is one.
    scales : array, shape (M,), or None
        Per index of the exact mode, what noise and residual are multiplied by; None is one.
    slice_dof : float or None
        Degrees of freedom of the prior of the scales.
    likeness : CellCovariance or None
        How residuals of cells go together, as the slices tell.
    fixed_noise : bool
        Whether the noise variance is one, and not learned: ``precision`` says it all.
    journal : Journal or None
        Where evaluations of the evidence are kept.
    """

    kernels: tuple[str | None, ...]
    exact: int
    grids: tuple[Array, ...]
    positions: tuple[Array, ...]
    y: Array
    weights: Array
    rank: tuple[int | None, ...]
    most: int | None
    label_rank: int
    rng: np.random.Generator
    scales: Array | None = None
    slice_dof: float | None = None
    likeness: CellCovariance | None = None
    precision: Array | None = None
    fixed_noise: bool = False
    journal: Journal | None = None

    @property
    def strength(self) -> Array:
        """What every row tells relative to the noise, repeats counted."""
        return self.weights if self.precision is None else self.weights * self.precision

    def start(self) -> Hyper:
        """Hyperparameters to begin with."""
        hyper = Hyper.start(len(self.kernels))
        return replace(hyper, noise=0.0) if self.fixed_noise else hyper

    def fixed(self, hyper: Hyper) -> NDArray[np.bool_] | None:
        """Entries of ``hyper.pack()`` that are not learned."""
        noise = np.arange(hyper.pack().size) == 1
        if self.likeness is None:
            return noise if self.fixed_noise else None
        return hyper.is_residual | (noise & self.fixed_noise)

    @property
    def limit(self) -> int:
        """Most products: as asked for, else what keeps an evaluation to about a second on one core."""
        if self.most is not None:
            return self.most
        size = self.grids[self.exact].size
        if self.kernels[self.exact] is not None:
            affordable = (_STATE_WORK / size) ** (1 / 3)
        else:
            shared = 1 + min(self.label_rank, size - 1)
            affordable = min((2e10 / size) ** (1 / 3), (5e7 / size) ** 0.5, 3e3 / shared)
        return max(4, min(_MOST_PRODUCTS, int(affordable)))

    @property
    def exact_kernel(self) -> str | None:
        """Of the exact mode; None if that is discrete."""
        return self.kernels[self.exact]

    def with_kernel(self, kernel: str | None) -> Task:
        """A copy with another kernel of the exact mode."""
        kernels = list(self.kernels)
        kernels[self.exact] = kernel
        return replace(self, kernels=tuple(kernels))

    def grid_to_learn(self) -> GridProblem | None:
        """The grid from which hyperparameters of the product alone are learned, if they are."""
        grid = self.grid()
        few = self.needed <= min(_COMPLETE_BELOW, self.limit)
        return None if grid is None or (few and grid.missing.any()) else grid

    @cached_property
    def _on_grid(self) -> bool:
        return self.grid_to_learn() is not None

    def in_blocks(self, size: int, length: int) -> Task:
        """About ``size`` indices of the exact mode in evenly spread blocks of ``length``, or all."""
        grid = self.grids[self.exact]
        if grid.size <= 1.5 * size:
            return self
        starts = np.linspace(0, grid.size - length, size // length).round().astype(int)
        chosen = np.unique(starts[:, None] + np.arange(length))
        return self.rows_of(np.isin(self.positions[self.exact], grid[chosen]))

    def window(self, size: int) -> Task:
        """The rows of neighbouring indices of the exact mode, ``size`` in the middle, or one more."""
        grid = self.grids[self.exact]
        spare = (grid.size - size) // 2
        if spare <= 0:
            return self
        middle = grid[spare : grid.size - spare]
        return self.rows_of(np.isin(self.positions[self.exact], middle))

    def rows_of(self, chosen: NDArray[np.bool_]) -> Task:
        """Some rows, and the indices that occur in them."""
        positions = tuple(x[chosen] for x in self.positions)
        grids = tuple(
            np.unique(x) if kernel is not None else grid
            for x, kernel, grid in zip(positions, self.kernels, self.grids, strict=True)
        )
        return replace(
            self,
            grids=grids,
            positions=positions,
            y=self.y[chosen],
            weights=self.weights[chosen],
            label_rank=0,
            precision=None if self.precision is None else self.precision[chosen],
        )

    def with_loadings(self, hyper: Hyper) -> Hyper:
        """Hyperparameters with loadings to start from."""
        sizes = (g.size if k is None else 0 for k, g in zip(self.kernels, self.grids, strict=True))
        return hyper.with_loadings(tuple(sizes), self.label_rank)

    @property
    def needed(self) -> float:
        """Products that the prior has on the nodes, the exact mode left out."""
        sizes = [min(grid.size, MAX_NODES) for n, grid in enumerate(self.grids) if n != self.exact]
        return float(np.prod(sizes))

    @property
    def keeps_all(self) -> bool:
        """Whether all these can be kept, constant and moving."""
        order = 0 if self.exact_kernel is None else ORDERS[self.exact_kernel]
        room = self.limit if self.exact_kernel is None else self._room(beside_residual=False)
        return self.needed <= self.limit and self.needed * (1 + order) <= room

    def grid(self) -> GridProblem | None:
        """The observations as a grid, if they fill most of one and none is repeated or weighted."""
        shape = tuple(grid.size for grid in self.grids)
        cells = float(np.prod([float(size) for size in shape]))
        if len(shape) == 1 and self.kernels[0] is not None:
            return None  # the Kalman filter is linear in the number of indices
        if max(shape) > _LARGEST_MODE or cells > _LARGEST_GRID or any(r is not None for r in self.rank):
            return None
        weighted = self.fixed_noise or (self.strength != 1).any()
        if self.y.size < _FILLED * cells or self.y.size < 2 or weighted:
            return None
        codes = [np.searchsorted(grid, x) for grid, x in zip(self.grids, self.positions, strict=True)]
        place = np.ravel_multi_index(codes, shape)
        missing = np.ones(shape, dtype=bool)
        missing.ravel()[place] = False
        if missing.sum() != missing.size - self.y.size:
            return None
        values = np.zeros(shape)
        values.ravel()[place] = self.y
        return GridProblem(self.kernels, self.grids, values, missing)

    def for_learning(self) -> Task:
        """The rows the hyperparameters are learned from: all, or those of evenly chosen exact levels."""
        grid = self.grids[self.exact]
        if self.kernels[self.exact] is not None or grid.size <= _LEVELS_TO_LEARN_FROM:
            return self
        chosen = np.unique(np.linspace(0, grid.size - 1, _LEVELS_TO_LEARN_FROM).round())
        rows = np.isin(self.positions[self.exact], chosen)
        positions = [x[rows] for x in self.positions]
        positions[self.exact] = np.searchsorted(chosen, positions[self.exact]).astype(float)
        grids = [
            np.unique(x) if n == self.exact else grid
            for n, (x, grid) in enumerate(zip(positions, self.grids, strict=True))
        ]
        precision = None if self.precision is None else self.precision[rows]
        return replace(
            self, grids=tuple(grids), positions=tuple(positions), y=self.y[rows], weights=self.weights[rows],
            precision=precision,
        )  # fmt: skip

    def problem(self, hyper: Hyper, at_least: tuple[int, int] = (1, 0)) -> Problem:
        """Terms at these hyperparameters, of no fewer products than ``at_least``, and the observations."""
        product = self._product(hyper, at_least)
        mains: tuple[Main | Level | Cells, ...] = ()
        if hyper.mains.size:
            mains = tuple(self._main(n, hyper) for n in range(len(self.kernels)))
        if hyper.cells.size and self.cells is not None:
            discrete = tuple(self.kernels[n] is None for n in self.others)
            mains += (Cells(tuple(self.others), discrete, self.cells, hyper),)
        return self.on(product, mains, hyper)

    def on(self, product: Product, mains: tuple[Main | Level | Cells, ...], hyper: Hyper) -> Problem:
        """The grouped observations on given terms."""
        grid = self.grids[self.exact]
        codes = np.searchsorted(grid, self.positions[self.exact])
        missing, total = np.zeros((2, self.y.size)), np.zeros(self.y.size)

        def rows_of(chosen: NDArray[np.intp]) -> Array:
            points = [x[chosen] for x in self.positions]
            rows = [term.rows(points, chosen.size) for term in (product, *mains)]
            missing[:, chosen] = product.missing(points, rows[0], hyper)
            total[chosen] = product.total(points, chosen.size, hyper)
            return np.hstack(rows)

        residual = self._residual(codes) if hyper.residual.size else None
        whole = residual is not None
        slices = Slices.group(rows_of, self.y, self.weights, codes, grid.size, self.precision, whole=whole)
        constant, moving, total = np.average([*missing, total], axis=1, weights=self.strength)
        return Problem(
            self.kernels, self.exact, grid, product, mains, residual, slices,
            (float(constant), float(moving)), float(np.quantile(missing.sum(axis=0), 0.95)),
            float(total * np.exp(-hyper.scale)),
        )  # fmt: skip

    def _product(self, hyper: Hyper, at_least: tuple[int, int]) -> Product:
        """Leading functions: those with a constant, and how many of them also move along the exact mode."""
        once = not hyper.terms and self._on_grid
        room = 0 if self.exact_kernel is None else self._room(hyper.residual.size > 0, once)
        if hyper.cells.size and hyper.residual.size and self.most is None:
            room = min(room, _ROOM_BESIDE_CELLS)
        cells = self.cells
        if cells is not None:
            priors = tuple(hyper.prior(n, self.kernels[n]) for n in self.others)
            basis: ProductBasis | CellBasis = CellBasis.leading(priors, cells, cells[0].size)
            floors = self._floors(cells[0].size, hyper)
        else:
            bases = tuple(self._basis(n, hyper) for n in self.others)
            floors = self._floors(math.prod([float(basis.nodes.size) for basis in bases]), hyper)
            if np.prod([float(basis.size) for basis in bases]) <= min(_COMPLETE_BELOW, self.limit):
                floors = 0.0, 0.0
            basis = ProductBasis.leading(bases, self.limit, min(floors), max(at_least))
        if self.exact_kernel is None:
            return Product(self.kernels, self.exact, basis, basis.size)
        still = max(at_least[0], 1, int(np.sum(basis.eigenvalues > floors[0])))
        moving = max(at_least[1], int(np.sum(basis.eigenvalues > floors[1])))
        order = ORDERS[self.exact_kernel]
        moving = min(moving, max((room - still) // order, room // (2 * order)), basis.size)
        still = min(max(still, moving), max(room - order * moving, moving, 1), basis.size)
        return Product(self.kernels, self.exact, basis.truncate(still), moving)

    @property
    def others(self) -> list[int]:
        """The modes that are not the exact one."""
        return [n for n in range(len(self.kernels)) if n != self.exact]

    @cached_property
    def cells(self) -> tuple[Array, ...] | None:
        """Distinct positions in the other modes, if there are two or more and few cells; else None."""
        if self.exact_kernel is None or len(self.others) < 2 or any(r is not None for r in self.rank):
            return None
        if self.needed <= min(_COMPLETE_BELOW, self.limit):
            return None
        most = min(_MOST_CELLS, self.limit if self.most is not None else _MOST_CELLS)
        if max(self.grids[n].size for n in self.others) > most:
            return None  # there are no fewer cells than indices: no need to sort the rows
        distinct = np.unique(np.column_stack([self.positions[n] for n in self.others]), axis=0)
        return tuple(distinct.T) if len(distinct) <= most else None

    def _main(self, n: int, hyper: Hyper) -> Main | Level:
        """Main effect of one mode, of as many functions as the data could notice."""
        kernel = self.kernels[n]
        if n == self.exact:
            return Level(n, str(kernel))
        nodes = self.grids[n] if kernel is None else nodes_of(self.grids[n])
        basis = ModeBasis.build(hyper.main(n, kernel), nodes)
        noticed = np.exp(hyper.mains[n, 0]) * basis.eigenvalues * self.strength.sum() / nodes.size
        count = int(np.sum(noticed > _NEGLIGIBLE * np.exp(hyper.noise)))
        among = nodes if self.cells is None else self.cells[self.others.index(n)]
        return Main(n, kernel, basis.truncate(min(max(count, 1), _MOST_MAIN)), among)

    def _residual(self, codes: NDArray[np.intp]) -> Residual:
        """Geometry of the slices."""
        others = tuple(self.others)
        parts = rows_by_slice(codes, self.grids[self.exact].size)
        points = tuple(tuple(self.positions[n][part] for n in others) for part in parts)
        weights, repeats = ([values[part] for part in parts] for values in (self.strength, self.weights))
        scales = np.ones(len(parts)) if self.scales is None else self.scales
        return Residual(
            others,
            points,
            tuple(weights),
            tuple(repeats),
            scales,
            self.slice_dof,
            tuple(self.kernels[n] is None for n in others),
            self.likeness,
        )

    def _room(self, beside_residual: bool, once: bool = False) -> int:
        """Largest state that keeps an evaluation to about a second, or to some if it is the only one."""
        if self.most is not None:
            return self.most * (1 + ORDERS[str(self.exact_kernel)])
        work = _STATE_WORK_ONCE if once else _STATE_WORK * (_SHARE_IN_SLICES if beside_residual else 1.0)
        return max(8, int((work / self.grids[self.exact].size) ** (1 / 3)))

    def is_complete(self, problem: Problem) -> bool:
        """Whether the basis spans the prior on the data, so that new hyperparameters need no new basis."""
        basis = problem.basis
        if isinstance(basis, CellBasis):
            full = basis.is_complete
        else:
            parts = zip(basis.bases, problem.others, strict=True)
            full = all(part.size == self.grids[n].size for part, n in parts)
            full &= basis.size == int(np.prod([part.size for part in basis.bases]))
        full &= all(m.basis.size == self.grids[m.mode].size for m in problem.mains if isinstance(m, Main))
        return full and basis.size == problem.product.n_dynamic

    def _basis(self, n: int, hyper: Hyper) -> ModeBasis:
        nodes = self.grids[n] if self.kernels[n] is None else nodes_of(self.grids[n])
        basis = ModeBasis.build(hyper.prior(n, self.kernels[n]), nodes)
        limit = self.rank[n]
        return basis if limit is None else basis.truncate(limit)

    def _floors(self, cells: float, hyper: Hyper) -> tuple[float, float]:
        """Smallest eigenvalues, of so many nodes, that the data could notice: constant, and moving."""
        prior = hyper.prior(self.exact, self.exact_kernel)
        exact = float(prior.variance(self.grids[self.exact]).mean())
        count, slices = float(self.strength.sum()), self.grids[self.exact].size
        noise = np.exp(hyper.noise) + (np.exp(hyper.residual[0]) if hyper.residual.size else 0.0)
        share = _NEGLIGIBLE_IN_SLICES if hyper.residual.size else _NEGLIGIBLE
        least = float(share * noise * cells / np.exp(hyper.scale))
        if self.exact_kernel is None:
            return 0.0, least / (exact * count / slices)
        # neighbours within a lengthscale tell about one another
        near = max(1.0, slices * min(1.0, np.exp(hyper.modes[self.exact, 1])))
        moving = exact - prior.constant
        return least / (prior.constant * count), least / (moving * count / slices * near)
