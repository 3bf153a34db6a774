"""Choices made before the search: the exact mode, its kernel, and whether slices have a residual."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.hyper import Hyper, log_prior
from tenfac.bayes.search import Learned, learn
from tenfac.bayes.task import Task
from tenfac.core.errors import DataError

_TRIAL = 10  # iterations after which two choices of the exact mode are compared
_WINDOW = 128  # neighbouring indices of the exact mode on which kernel and residual are chosen
_WINDOW_ITER = 25
_CLEAR = 30.0  # nats that decide without a second fit
_GAIN = 3.0  # nats that a residual must earn
_ROWS_PER_SLICE = 2.0
_PAIRS = 100  # rows that share a slice, needed to learn how they are alike
_RESIDUAL_WORK = 5e8  # sum over slices of rows cubed


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


def choose_terms(
    task: Task,
    terms: tuple[str, ...] | None,
    kernels: tuple[str, ...],
    max_iter: int,
    tol: float,
    start: Hyper,
) -> tuple[Task, Hyper | None]:
    """Kernel of the exact mode and terms beside the product, with hyperparameters to start from.

    Parameters
    ----------
    task : Task
        Its exact mode is chosen.
    terms : tuple of str or None
        Terms beside the product: "mains", "residual", "cells"; None lets the evidence decide.
    kernels : tuple of str
        Candidates for a continuous exact mode, the usual one first.
    max_iter, tol
        Of every search.
    start : Hyper
        Of the product, to begin with.

    Returns
    -------
    task : Task
        With the kernel chosen.
    start : Hyper or None
        None where there is no choice: the usual start.
    """
    if terms:
        _check_terms(task, terms)
        return task.with_kernel(kernels[0]), start.with_terms(**dict.fromkeys(terms, True))
    if terms is not None or max_iter == 0 or not can_have_residual(task):
        return task.with_kernel(kernels[0]) if task.exact_kernel else task, None
    window, budget = task.window(_WINDOW), min(max_iter, _WINDOW_ITER)
    choices = [window.with_kernel(kernel) for kernel in kernels]
    trials = [(one, learn(one, budget, tol, 0, start.with_terms(residual=True))) for one in choices]
    window, learned = max(trials, key=lambda trial: trial[1].objective)
    found = _worth(window, learned, budget, tol)
    task = task.with_kernel(window.exact_kernel)
    extra = {"residual": found.residual.size > 0, "cells": found.residual.size > 0 and task.cells is not None}
    both = found.with_terms(**extra), start.with_terms(**extra)
    return task, max(both, key=lambda hyper: task.problem(hyper).log_evidence(hyper))


def _check_terms(task: Task, terms: tuple[str, ...]) -> None:
    """Refuse terms that the data do not allow."""
    if task.exact_kernel is None or len(task.kernels) == 1:
        what = "a discrete longest mode" if task.exact_kernel is None else "one mode"
        raise DataError(
            f"FunctionalTucker: terms {terms} need two modes or more, the longest continuous; got {what}. "
            "Leave `terms` out."
        )
    if "cells" in terms and task.cells is None:
        raise DataError(
            "FunctionalTucker: the term 'cells' needs three modes or more and rank='auto'; the indices of "
            "all but the longest must have more than 64 combinations and occur in at most 128; got indices "
            f"{tuple(grid.size for grid in task.grids)}. Leave it out."
        )
    if "residual" in terms and np.sum(_rows_per_slice(task) ** 3) > _RESIDUAL_WORK:
        raise DataError(
            "FunctionalTucker: the term 'residual' factorises every slice of the longest mode, and these "
            f"have too many rows, up to {int(_rows_per_slice(task).max())}. Leave it out."
        )


def _worth(task: Task, learned: Learned, max_iter: int, tol: float) -> Hyper:
    """The hyperparameters learned with a residual, or others without, if that tells as much."""
    hyper = learned.hyper
    noise = np.logaddexp(hyper.noise, hyper.residual[0])
    without = replace(hyper, noise=float(noise), residual=np.zeros(0))
    value = task.problem(without).log_evidence(without) + log_prior(without)[0]
    if learned.objective - value > _CLEAR:
        return hyper
    other = learn(task, max_iter, tol, 0, without)
    return hyper if learned.objective - other.objective > _GAIN else other.hyper


def can_have_residual(task: Task) -> bool:
    """Whether slices hold enough rows to learn how they are alike, and few enough to factorise."""
    if task.exact_kernel is None or len(task.kernels) == 1 or task.grid_to_learn() is not None:
        return False
    rows, distinct = _rows_per_slice(task), _rows_per_slice(task, distinct=True)
    pairs = np.sum(distinct * (distinct - 1)) / 2
    enough = distinct.mean() >= _ROWS_PER_SLICE and pairs >= _PAIRS
    return bool(enough and np.sum(rows**3) <= _RESIDUAL_WORK)


def _rows_per_slice(task: Task, distinct: bool = False) -> NDArray[np.float64]:
    """Number of rows of every slice, or of their distinct places."""
    codes = [np.searchsorted(grid, x) for grid, x in zip(task.grids, task.positions, strict=True)]
    if not distinct:
        return np.bincount(codes[task.exact]).astype(float)
    cells = np.unique(np.column_stack([codes[task.exact], *[codes[n] for n in task.others]]), axis=0)
    return np.bincount(cells[:, 0]).astype(float)
