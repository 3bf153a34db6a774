"""What the slices tell beside hyperparameters: their scales, and how the residuals of cells go together.

Both come by expectation maximisation at given hyperparameters. How much the slices weigh against the kernel
is chosen by the log density of rows left out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.cell_covariance import CellCovariance
from tenfac.bayes.collapsed.evidence import Problem
from tenfac.bayes.collapsed.hyper import Hyper
from tenfac.bayes.collapsed.prediction import Prediction
from tenfac.bayes.collapsed.scales import FEW, update
from tenfac.bayes.collapsed.task import Task
from tenfac.bayes.threads import one_thread

Array = NDArray[Any]
_LEAST_SLICES = 32
_HELD = 5  # one row in so many is left out to choose
_PRIORS = (1.0, 0.25)  # slices that the kernel is worth, per cell: with fewer the cells follow single slices
_TRIAL_ROUNDS, _ROUNDS = 4, 24
_CLEAR = 0.01  # nats per row left out that a covariance of cells must earn


def with_scales(task: Task, hyper: Hyper) -> Task:
    """The task with scales of slices, if the data tell of different ones."""
    scales, dof = update(*task.problem(hyper).slice_squares(hyper))
    return replace(task, scales=scales, slice_dof=dof) if dof < FEW else task


def choose_likeness(task: Task, hyper: Hyper) -> float | None:
    """Slices that the kernel is worth beside what they tell of the cells, or None: they tell nothing more.

    From the largest number on, as long as rows left out become more likely, and then than without.
    """
    if task.cells is None or task.grids[task.exact].size < _LEAST_SLICES:
        return None
    held = _held(task)
    if held.sum() < _LEAST_SLICES:
        return None
    part = replace(task.rows_of(~held), likeness=None)
    without = _density(task, part, hyper, held)
    best, found = -np.inf, None
    for prior in (share * task.cells[0].size for share in _PRIORS):
        part = learn_likeness(part, hyper, prior, _TRIAL_ROUNDS, task.cells)
        value = _density(task, part, hyper, held)
        if value <= best:
            break
        best, found = value, prior
    return found if best > without + _CLEAR else None


def learn_likeness(
    task: Task, hyper: Hyper, prior: float, rounds: int = _ROUNDS, cells: tuple[Array, ...] | None = None
) -> Task:
    """The task with the covariance of its cells, and scales of slices if it has any, some rounds on.

    Parameters
    ----------
    task : Task
    hyper : Hyper
    prior : float
        Slices that the kernel is worth.
    rounds : int
        How many.
    cells : tuple of arrays, or None
        Positions of the cells; those of the task.
    """
    nodes: Any = cells or task.cells
    with one_thread():
        likeness = task.likeness or CellCovariance.unknown(nodes)
        task = replace(task, likeness=likeness)
        problem, slices = task.problem(hyper), task.grids[task.exact].size
        for _ in range(rounds):
            squares, counts, products = problem.slice_products(hyper)
            if task.slice_dof is not None:
                scales, dof = update(squares, counts)
                task = replace(task, scales=scales, slice_dof=dof)
            likeness = likeness.told(products, slices, prior)
            task = replace(task, likeness=likeness)
            problem = _again(problem, task)
    return task


def _again(problem: Problem, task: Task) -> Problem:
    """The same with what the slices of the task tell."""
    own: Any = problem.residual
    scales = own.scales if task.scales is None else task.scales
    return replace(problem, residual=replace(own, scales=scales, dof=task.slice_dof, learned=task.likeness))


def _held(task: Task) -> NDArray[np.bool_]:
    """Rows to leave out, not the first of any slice, whatever their order: (N,)."""
    order = np.lexsort([*task.positions, task.positions[task.exact]])
    exact = task.positions[task.exact][order]
    chosen = np.random.default_rng(0).random(order.size) < 1 / _HELD
    chosen[np.unique(exact, return_index=True)[1]] = False
    held = np.zeros(order.size, dtype=bool)
    held[order] = chosen
    return held


def _density(task: Task, part: Task, hyper: Hyper, held: NDArray[np.bool_]) -> float:
    """Average log density of the rows left out, given a task of the others."""
    with one_thread():
        prediction = Prediction.build(part.problem(hyper), hyper)
    mean, variance, noisy = prediction.at([x[held] for x in task.positions])
    spread = variance + (noisy - variance) / task.strength[held]
    logs = np.log(2 * np.pi * spread) + (task.y[held] - mean) ** 2 / spread
    return -0.5 * float(np.average(logs, weights=task.weights[held]))
