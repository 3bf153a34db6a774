"""Learning the hyperparameters: alternate between mode bases and evidence maximisation."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tenfac.bayes.collapsed.evidence import Problem, maximize
from tenfac.bayes.collapsed.grid_evidence import GridProblem
from tenfac.bayes.collapsed.hyper import Hyper, log_prior
from tenfac.bayes.collapsed.prediction import Prediction
from tenfac.bayes.collapsed.task import Task
from tenfac.bayes.threads import one_thread
from tenfac.core.progress import Progress
from tenfac.core.report import Report

_ITERATIONS_PER_BASIS = 12
_COARSE = 2e-5  # gain per observation that ends a round of iterations on a basis that will be replaced
_SHARES = (0.5, 0.25, 0.1)  # of a step that a new basis does not confirm
_MANY_ROWS = 200_000  # beyond, a discrete exact mode is learned from some of its levels
_DRAWS = 4  # times that missing cells of a grid are drawn
# Periods tried first: up to two ranges, each a fraction longer than the one before.
_LONGEST, _PERIOD_RATIO, _MOST_PERIODS = 2.0, 0.12, 64


@dataclass(frozen=True)
class Learned:
    """Outcome of ``learn``: hyperparameters, and how they came about."""

    hyper: Hyper
    history: tuple[float, ...]
    n_iter: int
    n_evals: int
    converged: bool
    from_grid: bool = False

    @property
    def objective(self) -> float:
        """Log evidence and hyperprior at the end."""
        return self.history[-1]

    def followed_by(self, other: Learned, task: Task) -> Learned:
        """Both as one outcome: that of higher evidence."""
        better = max(self, other, key=lambda learned: learned.prediction(task).log_evidence)
        return self.then(other, better)

    def then(self, other: Learned, better: Learned | None = None) -> Learned:
        """Both as one outcome, the other's unless another is named."""
        return replace(
            better or other,
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
        with one_thread():
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
    with one_thread(), Progress("FunctionalTucker", max_iter, verbose, unit="iteration") as bar:
        learned = _learn(task, start or task.start(), max_iter, tol, bar)
        if task.label_rank == 0 or learned.hyper.n_loadings > 0 or max_iter == 0:
            return learned
        more = _learn(task, task.with_loadings(learned.hyper), max_iter, tol, bar)
        return learned.followed_by(more, task)


def _learn(task: Task, hyper: Hyper, max_iter: int, tol: float, bar: Progress) -> Learned:
    if max_iter == 0:
        return Learned(hyper, (), 0, 0, True)
    hyper = _start_periods(task, hyper)
    # loadings of labels need all labels
    part = task.for_learning() if hyper.loadings[task.exact].shape[1] == 0 else task
    grid = None
    if not hyper.terms:  # a grid has the product alone
        grid = (part if task.y.size > _MANY_ROWS else task).grid_to_learn()
    if grid is None:
        return _learn_by_bases(part, hyper, max_iter, tol, bar)
    return _learn_on_grid(grid, hyper, max_iter, tol, task, bar)


def _learn_on_grid(
    grid: GridProblem, hyper: Hyper, max_iter: int, tol: float, task: Task, bar: Progress
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
            grid, hyper, budget, tol, bar.move, journal=task.journal
        )
        history.append(value)
        n_iter, n_evals = n_iter + iterations, n_evals + evals
        bar.log("grid of %d cells, draw %d: objective %.6g", grid.values.size, len(history), value)
    return Learned(hyper, tuple(history), n_iter, n_evals, settled, from_grid=True)


def _learn_by_bases(task: Task, hyper: Hyper, max_iter: int, tol: float, bar: Progress) -> Learned:
    """Alternate: bases at the current hyperparameters, some iterations on them, new bases.

    A basis tells the evidence of the hyperparameters that it was made at; of others it may tell too much.
    So where bases are incomplete, hyperparameters are compared on bases of their own, and the search ends
    when these no longer gain.
    """
    problem = task.problem(hyper)
    hyper = _start_lengthscale(problem, hyper)
    problem = task.problem(hyper)
    best, history = hyper, [_objective(problem, hyper)]
    ends: list[Any] = []
    n_iter = n_evals = 0
    converged = False
    while n_iter < max_iter and not converged:
        complete = task.is_complete(problem)
        per_basis = _ITERATIONS_PER_BASIS * (3 if ends else 1)  # the first basis is at a start, far off
        budget = min(max_iter - n_iter, max_iter if complete else per_basis)
        least = tol if complete else max(tol, _COARSE)
        hyper, value, iterations, evals, settled = maximize(
            problem, best, budget, least, bar.move, task.fixed(hyper), task.journal
        )
        ends.append(value)
        n_iter, n_evals = n_iter + max(iterations, 1), n_evals + evals
        bar.log("basis %d: %d functions, objective %.6g", len(ends), problem.basis.size, value)
        problem = task.problem(hyper)
        again = task.is_complete(problem)
        history.append(value if complete and again else _objective(problem, hyper))
        gain = history[-1] - history[-2]
        if gain < 0 and not (complete and again):  # the old basis told far too much: go part of the way
            hyper, problem, history[-1] = _part_of_the_way(task, best, hyper, (problem, history[-1]))
            n_evals, gain = n_evals + len(_SHARES), history[-1] - history[-2]
        if gain > 0:
            best = hyper
        # between two bases the evidence itself shifts a little: half a nat, or 1e-4 per observation
        standing = gain < max(0.5, 1e-4 * problem.n_obs)
        converged = settled if complete and again else bool(standing)
        if standing and not (complete and again):
            history = history if gain > 0 else history[:-1]
    return Learned(best, tuple(history), n_iter, n_evals, converged)


def _part_of_the_way(
    task: Task, start: Hyper, end: Hyper, there: tuple[Problem, float]
) -> tuple[Hyper, Problem, float]:
    """Best place between two, on bases of their own; ``there`` is what holds at the end."""
    best = (end, *there)
    for share in _SHARES:
        hyper = start.unpack(start.pack() + share * (end.pack() - start.pack()))
        problem = task.problem(hyper)
        value = _objective(problem, hyper)
        if value > best[2]:
            best = hyper, problem, value
    return best


def _objective(problem: Problem, hyper: Hyper) -> float:
    """Log evidence and hyperprior."""
    return float(problem.log_evidence(hyper) + log_prior(hyper)[0])


def _start_lengthscale(problem: Problem, hyper: Hyper) -> Hyper:
    """Best of a few starting lengthscales for the exact mode, down to the spacing of its indices.

    One that was learned or given stays.
    """
    usual = Hyper.start(len(problem.kernels)).modes[problem.exact, 1]
    known = hyper.modes[problem.exact, 1] != usual
    if known or problem.kernels[problem.exact] in (None, "oscillator") or problem.positions.size < 3:
        return hyper
    spacing = float(np.median(np.diff(problem.positions)))
    now = hyper.modes[problem.exact, 1]
    candidates = [
        hyper.moved(problem.exact, 1, float(np.log(lengthscale)) - now)
        for lengthscale in np.unique(np.clip([np.exp(now), 0.5, 0.1, 0.02, 0.004], spacing, None))
    ]
    return max(candidates, key=problem.log_evidence)


def with_start_lengthscale(task: Task, hyper: Hyper) -> Hyper:
    """The same with the best of a few lengthscales of the exact mode, if it has the usual one."""
    with one_thread():
        hyper = _start_periods(task, hyper)
        return _start_lengthscale(task.problem(hyper), hyper)


def _start_periods(task: Task, hyper: Hyper) -> Hyper:
    """Best of many periods for every oscillator that has the usual one, from twice the spacing up.

    The evidence has a peak per period that the data could have: a search from afar finds none.
    """
    usual = Hyper.start(1).modes[0, 1]
    sought = [n for n, kernel in enumerate(task.kernels) if kernel == "oscillator"]
    sought = [n for n in sought if hyper.modes[n, 1] == usual and task.grids[n].size > 2]
    part = task.for_learning() if sought else task  # which draws
    for n in sought:
        grid = task.grids[n]
        shortest = min(2 * float(np.median(np.diff(grid))), 1.0)
        count = int(np.log(_LONGEST / shortest) / _PERIOD_RATIO) + 2
        periods = np.geomspace(shortest, _LONGEST, min(count, _MOST_PERIODS))
        starts = [hyper.moved(n, 1, float(np.log(period)) - usual) for period in periods]
        hyper = max(starts, key=lambda start: _objective(part.problem(start), start))
    return hyper
