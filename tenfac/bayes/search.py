"""Learning the hyperparameters: alternate between mode bases and evidence maximisation."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tenfac.bayes.basis import MAX_NODES, ModeBasis, ProductBasis, nodes_of
from tenfac.bayes.evidence import Hyper, Problem, maximize
from tenfac.bayes.grid_evidence import GridProblem
from tenfac.bayes.journal import Journal
from tenfac.bayes.prediction import Prediction
from tenfac.bayes.slices import Slices
from tenfac.core.modes.state_space import KERNELS
from tenfac.core.report import Report

Array = NDArray[np.float64]
_LOG = logging.getLogger("tenfac")
_ITERATIONS_PER_BASIS = 12
_COMPLETE_BELOW = 64  # so few products are all kept, whatever their prior variance
_NEGLIGIBLE = 0.1  # a product is kept if one slice of data could tell more about it than this (in nats)
_FILLED = 0.7  # share of a grid's cells that must be observed to learn on the grid
_LARGEST_MODE = 256  # indices per mode up to which a grid is diagonalised
_LARGEST_GRID = 4e6  # cells
_MOST_PRODUCTS = 400
_TRIAL = 10  # iterations after which two choices of the exact mode are compared
_MANY_ROWS = 200_000  # beyond, a discrete exact mode is learned from some of its levels
_DRAWS = 4  # times that missing cells of a grid are drawn
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
    journal: Journal | None = None

    @property
    def limit(self) -> int:
        """Most products: as asked for, else what keeps an evaluation to about a second on one core."""
        if self.most is not None:
            return self.most
        size, kernel = self.grids[self.exact].size, self.kernels[self.exact]
        if kernel is None:
            shared = 1 + min(self.label_rank, size - 1)
            affordable = min((2e10 / size) ** (1 / 3), (5e7 / size) ** 0.5, 3e3 / shared)
        else:
            affordable = (1e8 / size) ** (1 / 3) / (1 + KERNELS[kernel])
        return max(4, min(_MOST_PRODUCTS, int(affordable)))

    def with_loadings(self, hyper: Hyper) -> Hyper:
        """Hyperparameters with loadings to start from."""
        sizes = (g.size if k is None else 0 for k, g in zip(self.kernels, self.grids, strict=True))
        return hyper.with_loadings(tuple(sizes), self.label_rank)

    @property
    def needed(self) -> float:
        """Products that the prior has on the nodes, the exact mode left out."""
        sizes = [min(grid.size, MAX_NODES) for n, grid in enumerate(self.grids) if n != self.exact]
        return float(np.prod(sizes))

    def grid(self) -> GridProblem | None:
        """The observations as a grid, if they fill most of one and none is repeated or weighted."""
        shape = tuple(grid.size for grid in self.grids)
        cells = float(np.prod([float(size) for size in shape]))
        if len(shape) == 1 and self.kernels[0] is not None:
            return None  # the Kalman filter is linear in the number of indices
        if max(shape) > _LARGEST_MODE or cells > _LARGEST_GRID or any(r is not None for r in self.rank):
            return None
        if self.y.size < _FILLED * cells or self.y.size < 2 or (self.weights != 1).any():
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
        return replace(
            self, grids=tuple(grids), positions=tuple(positions), y=self.y[rows], weights=self.weights[rows]
        )

    def problem(self, hyper: Hyper, at_least: int = 1) -> Problem:
        """Mode bases at these hyperparameters, their leading products, and the grouped observations."""
        others = [n for n in range(len(self.kernels)) if n != self.exact]
        bases = tuple(self._basis(n, hyper) for n in others)
        return self.on(ProductBasis.leading(bases, self.limit, self._floor(bases, hyper), at_least), hyper)

    def on(self, basis: ProductBasis, hyper: Hyper) -> Problem:
        """The grouped observations on given products."""
        others = [n for n in range(len(self.kernels)) if n != self.exact]
        grid = self.grids[self.exact]
        codes = np.searchsorted(grid, self.positions[self.exact])
        total = basis.variance([self.positions[n] for n in others], self.y.size)
        exact = hyper.prior(self.exact, self.kernels[self.exact]).variance(self.positions[self.exact])
        gaps = np.zeros(self.y.size)

        def rows_of(chosen: NDArray[np.intp]) -> Array:
            rows = basis.rows([self.positions[n][chosen] for n in others], chosen.size)
            gaps[chosen] = basis.missing_variance(rows, total[chosen])
            return rows

        slices = Slices.group(rows_of, self.y, self.weights, codes, grid.size)
        missing, total = (float(np.average(exact * part, weights=self.weights)) for part in (gaps, total))
        return Problem(self.kernels, self.exact, grid, basis, slices, missing, total)

    def is_complete(self, problem: Problem) -> bool:
        """Whether the basis spans the prior on the data, so that new hyperparameters need no new basis."""
        bases = problem.basis.bases
        full = all(basis.size == self.grids[n].size for basis, n in zip(bases, problem.others, strict=True))
        return full and problem.basis.size == int(np.prod([basis.size for basis in bases]))

    def _basis(self, n: int, hyper: Hyper) -> ModeBasis:
        nodes = self.grids[n] if self.kernels[n] is None else nodes_of(self.grids[n])
        basis = ModeBasis.build(hyper.prior(n, self.kernels[n]), nodes)
        limit = self.rank[n]
        return basis if limit is None else basis.truncate(limit)

    def _floor(self, bases: tuple[ModeBasis, ...], hyper: Hyper) -> float:
        """Smallest prior variance (an eigenvalue product) that the data could notice."""
        if np.prod([float(basis.size) for basis in bases]) <= min(_COMPLETE_BELOW, self.limit):
            return 0.0
        prior = hyper.prior(self.exact, self.kernels[self.exact])
        exact = np.exp(hyper.scale) * prior.variance(self.grids[self.exact]).mean()
        per_slice = self.weights.sum() / self.grids[self.exact].size
        if self.kernels[self.exact] is not None:  # neighbours within a lengthscale tell about one another
            per_slice *= max(1.0, self.grids[self.exact].size * min(1.0, np.exp(hyper.modes[self.exact, 1])))
        density = per_slice / np.prod([float(basis.nodes.size) for basis in bases])
        return float(_NEGLIGIBLE * np.exp(hyper.noise) / (exact * density))


@dataclass(frozen=True)
class Learned:
    """Outcome of ``learn``: hyperparameters, and how they came about."""

    hyper: Hyper
    history: tuple[float, ...]
    n_iter: int
    n_evals: int
    converged: bool
    from_grid: bool = False

    def followed_by(self, other: Learned, task: Task) -> Learned:
        """Both as one outcome: that of higher evidence."""
        better = max(self, other, key=lambda learned: learned.prediction(task).log_evidence)
        return replace(
            better,
            history=self.history + other.history,
            n_iter=self.n_iter + other.n_iter,
            n_evals=self.n_evals + other.n_evals,
        )

    def numbers(self) -> dict[str, Any]:
        """Everything but the hyperparameters, as JSON holds it."""
        return {
            "history": list(self.history), "n_iter": self.n_iter, "n_evals": self.n_evals,
            "converged": self.converged, "from_grid": self.from_grid,
        }  # fmt: skip

    @classmethod
    def from_numbers(cls, numbers: dict[str, Any], hyper: Hyper) -> Learned:
        """Inverse of ``numbers``."""
        return cls(hyper, **{**numbers, "history": tuple(numbers["history"])})

    def prediction(self, task: Task) -> Prediction:
        """The posterior at these hyperparameters."""
        with threadpool_limits(limits=1, user_api="blas"):
            problem = task.problem(self.hyper)
        hyper = self.hyper
        if self.from_grid:
            # the grid's evidence kept every function; what the basis leaves out is noise to the posterior
            noise = np.exp(hyper.noise) + problem.left_out(hyper)
            hyper = replace(hyper, noise=float(np.log(noise)))
        return Prediction.build(problem, hyper)

    def report(self, max_iter: int, notes: tuple[str, ...], started: float) -> Report:
        """The same as a Report."""
        reason = "evidence stopped improving" if self.converged else f"max_iter={max_iter} reached"
        if max_iter == 0:
            reason = "hyperparameters kept at their start"
        return Report(
            converged=self.converged, reason=reason, n_iter=self.n_iter, n_evals=self.n_evals,
            history=self.history, seconds=time.perf_counter() - started, warnings=notes,
        )  # fmt: skip


def learn(task: Task, max_iter: int, tol: float, verbose: int, start: Hyper | None = None) -> Learned:
    """Maximise evidence and hyperprior; rebuild the basis where the hyperparameters went, and repeat.

    Labels begin as exchangeable, unless ``start`` has loadings; theirs are learned from where that ends.
    """
    # the matrices are small: threads of the linear algebra library cost more than they give
    with threadpool_limits(limits=1, user_api="blas"), _progress(verbose, max_iter) as bar:
        learned = _learn(task, start or Hyper.start(len(task.kernels)), max_iter, tol, bar)
        if task.label_rank == 0 or learned.hyper.n_loadings > 0 or max_iter == 0:
            return learned
        more = _learn(task, task.with_loadings(learned.hyper), max_iter, tol, bar)
        return learned.followed_by(more, task)


def choose_exact(task: Task, max_iter: int, tol: float) -> Task:
    """The task with the mode to integrate out exactly: the longest, or the longest discrete one.

    The discrete one is taken when it has half as many indices or more, because its levels are independent
    given what they share. When the other one leaves more products than can be kept, both are tried for some
    iterations and the higher evidence wins.
    """
    sizes = np.array([grid.size for grid in task.grids])
    longest = replace(task, exact=int(np.argmax(sizes)))
    discrete = [n for n, kernel in enumerate(task.kernels) if kernel is None]
    if not discrete:
        return longest
    task = replace(task, label_rank=0)
    levels = replace(task, exact=max(discrete, key=lambda n: sizes[n]))
    if 2 * sizes[levels.exact] >= sizes[longest.exact]:
        return levels
    if longest.needed <= longest.limit or max_iter == 0:
        return longest
    trials = [learn(one, min(_TRIAL, max_iter), tol, 0).prediction(one) for one in (longest, levels)]
    return longest if trials[0].log_evidence >= trials[1].log_evidence else levels


def _learn(task: Task, hyper: Hyper, max_iter: int, tol: float, bar: Any) -> Learned:
    if max_iter == 0:
        return Learned(hyper, (), 0, 0, True)
    # loadings of labels need all labels
    part = task.for_learning() if hyper.loadings[task.exact].shape[1] == 0 else task
    grid = part.grid() if task.y.size > _MANY_ROWS else task.grid()
    if grid is None or (grid.missing.any() and task.needed <= min(_COMPLETE_BELOW, task.limit)):
        return _learn_by_bases(part, hyper, max_iter, tol, bar)
    return _learn_on_grid(grid, hyper, max_iter, tol, task, bar)


def _learn_on_grid(
    grid: GridProblem, hyper: Hyper, max_iter: int, tol: float, task: Task, bar: Any
) -> Learned:
    """Maximise the grid's evidence; with missing cells, alternate with drawing them."""
    rounds = _DRAWS if grid.missing.any() else 1
    history: list[float] = []
    n_iter = n_evals = 0
    settled = False
    for left in range(rounds, 0, -1):
        if n_iter >= max_iter:
            settled = False
            break
        grid = grid.redrawn(hyper, task.rng)
        budget = max(1, (max_iter - n_iter) // (2 if left > 1 else 1))
        hyper, value, iterations, evals, settled = maximize(
            grid, hyper, budget, tol, bar.update, task.journal
        )
        history.append(value)
        n_iter, n_evals = n_iter + iterations, n_evals + evals
        _LOG.info("grid of %d cells, draw %d: objective %.6g", grid.values.size, len(history), value)
    return Learned(hyper, tuple(history), n_iter, n_evals, settled, from_grid=True)


def _learn_by_bases(task: Task, hyper: Hyper, max_iter: int, tol: float, bar: Any) -> Learned:
    """Alternate: bases at the current hyperparameters, some iterations on them, new bases."""
    problem = task.problem(hyper)
    hyper = _start_lengthscale(problem, hyper)
    history: list[float] = []
    n_iter = n_evals = 0
    converged = False
    while n_iter < max_iter and not converged:
        # a basis that could shrink again might alternate with a larger one for ever
        problem = task.problem(hyper, problem.basis.size) if history else problem
        complete = task.is_complete(problem)
        budget = min(max_iter - n_iter, max_iter if complete else _ITERATIONS_PER_BASIS)
        hyper, value, iterations, evals, settled = maximize(
            problem, hyper, budget, tol, bar.update, task.journal
        )
        history.append(value)
        n_iter, n_evals = n_iter + max(iterations, 1), n_evals + evals
        _LOG.info("basis %d: %d functions, objective %.6g", len(history), problem.basis.size, value)
        gain = value - history[-2] if len(history) > 1 else np.inf
        # between two bases the evidence itself shifts a little: half a nat, or 1e-5 per observation
        standing = abs(gain) < max(0.5, 1e-5 * problem.n_obs)
        converged = settled if complete else standing
    return Learned(hyper, tuple(history), n_iter, n_evals, converged)


def _start_lengthscale(problem: Problem, hyper: Hyper) -> Hyper:
    """Best of a few starting lengthscales for the exact mode, down to the spacing of its indices."""
    if problem.kernels[problem.exact] is None or problem.positions.size < 3:
        return hyper
    spacing = float(np.median(np.diff(problem.positions)))
    now = hyper.modes[problem.exact, 1]
    candidates = [
        hyper.moved(problem.exact, 1, float(np.log(lengthscale)) - now)
        for lengthscale in np.unique(np.clip([np.exp(now), 0.5, 0.1, 0.02, 0.004], spacing, None))
    ]
    return max(candidates, key=problem.log_evidence)


def _progress(verbose: int, total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc="FunctionalTucker", unit="iter", disable=verbose < 1, leave=False)
