"""Choices made before the search: the exact mode, its kernel, and whether slices have a residual."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.hyper import Hyper, log_prior
from tenfac.bayes.collapsed.mode_prior import ORDERS
from tenfac.bayes.collapsed.search import Learned, learn
from tenfac.bayes.collapsed.task import Task
from tenfac.core.errors import DataError

_TRIAL = 10  # iterations after which two choices of the exact mode are compared
_WINDOW = 128  # neighbouring indices of the exact mode on which kernel and residual are chosen
_WINDOW_ITER = 25
_CLEAR = 30.0  # nats that decide without a second fit
_GAIN = 3.0  # nats that a residual must earn
_ROWS_PER_SLICE = 2.0
_PAIRS = 100  # rows that share a slice, needed to learn how they are alike
_RESIDUAL_WORK = 5e8  # sum over slices of rows cubed


class Choice(NamedTuple):
    """What a search begins with.

    Parameters
    ----------
    task : Task
        With the kernel chosen.
    start : Hyper or None
        None where there is no choice: the usual start.
    begun : Learned or None
        A search of all rows that chose, if it can go on; its hyperparameters are ``start``.
    """

    task: Task
    start: Hyper | None
    begun: Learned | None = None


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
    if longest.keeps_all or max_iter == 0:
        return longest
    trials = [learn(one, min(_TRIAL, max_iter), tol, 0).prediction(one) for one in (longest, levels)]
    return longest if trials[0].log_evidence >= trials[1].log_evidence else levels


def choose_terms(
    task: Task,
    terms: tuple[str, ...] | None,
    kernels: tuple[str | None, ...],
    max_iter: int,
    tol: float,
    start: Hyper,
) -> Choice:
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
    Choice
    """
    if terms:
        _check_terms(task, terms)
        return Choice(task.with_kernel(kernels[0]), start.with_terms(**dict.fromkeys(terms, True)))
    if terms is not None or max_iter == 0 or not can_have_residual(task):
        return Choice(task.with_kernel(kernels[0]) if task.exact_kernel else task, None)
    window, budget = task.window(_WINDOW), min(max_iter, _WINDOW_ITER)
    whole = window is task
    choices = [replace(window.with_kernel(kernel), label_rank=0) for kernel in kernels]
    trials, begin = [], start.with_terms(residual=True, cells=window.cells is not None)
    for one in choices:
        trials.append((one, learn(one, budget, tol, 0, begin)))
        begin = trials[-1][1].hyper  # the other kernel is not far
    window, learned = _best(trials)
    found = _worth(window, learned, budget, tol)
    task, hyper = task.with_kernel(window.exact_kernel), found.hyper
    extra = {"residual": hyper.residual.size > 0, "cells": hyper.cells.size > 0 and task.cells is not None}
    both = hyper.with_terms(**extra), start.with_terms(**extra)
    if whole and task.label_rank == 0 and both[0].pack().size == hyper.pack().size:
        return Choice(task, hyper, found)
    return Choice(task, max(both, key=lambda hyper: task.problem(hyper).log_evidence(hyper)))


def _best(trials: list[tuple[Task, Learned]]) -> tuple[Task, Learned]:
    """The trial of highest objective; the smaller state unless another tells more."""
    best = max(learned.objective for _, learned in trials)
    enough = [trial for trial in trials if trial[1].objective > best - _GAIN]
    return min(enough, key=lambda trial: ORDERS[str(trial[0].exact_kernel)])


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


def _worth(task: Task, learned: Learned, max_iter: int, tol: float) -> Learned:
    """What was learned with a residual, or without, if that tells as much."""
    hyper = learned.hyper
    noise = np.logaddexp(hyper.noise, hyper.residual[0])
    without = replace(hyper, noise=float(noise), residual=np.zeros(0))
    value = task.problem(without).log_evidence(without) + log_prior(without)[0]
    if learned.objective - value > _CLEAR:
        return learned
    other = learn(task, max_iter, tol, 0, without)
    return learned if learned.objective - other.objective > _GAIN else other


def can_have_residual(task: Task) -> bool:
    """Whether slices hold enough rows to learn how they are alike, and few enough to factorise."""
    if task.exact_kernel is None or len(task.kernels) == 1 or task.grid_to_learn() is not None:
        return False
    if np.sum(_rows_per_slice(task) ** 3) > _RESIDUAL_WORK:
        return False
    distinct = _rows_per_slice(task, distinct=True)
    pairs = np.sum(distinct * (distinct - 1)) / 2
    return bool(distinct.mean() >= _ROWS_PER_SLICE and pairs >= _PAIRS)


def _rows_per_slice(task: Task, distinct: bool = False) -> NDArray[np.float64]:
    """Number of rows of every slice, or of their distinct places."""
    codes = [np.searchsorted(grid, x) for grid, x in zip(task.grids, task.positions, strict=True)]
    if not distinct:
        return np.bincount(codes[task.exact]).astype(float)
    cells = np.unique(np.column_stack([codes[task.exact], *[codes[n] for n in task.others]]), axis=0)
    return np.bincount(cells[:, 0]).astype(float)
