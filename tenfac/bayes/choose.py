"""Choices made before the search: the exact mode, its kernel, and whether slices have a residual."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tenfac.bayes.hyper import Hyper, log_prior
from tenfac.bayes.search import Learned, Task, learn

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
    task: Task, terms: tuple[str, ...] | None, kernels: tuple[str, ...], max_iter: int, tol: float
) -> tuple[Task, Hyper | None]:
    """Kernel of the exact mode and terms beside the product, with hyperparameters to start from.

    Parameters
    ----------
    task : Task
        Its exact mode is chosen.
    terms : tuple of str or None
        Names of the terms asked for; None lets the evidence decide about the residual.
    kernels : tuple of str
        Candidates for a continuous exact mode.
    max_iter, tol
        Of every search.

    Returns
    -------
    task : Task
        With the kernel chosen.
    start : Hyper or None
        None where there is no choice: the usual start.
    """
    start = Hyper.start(len(task.kernels))
    asked = start.with_terms("mains" in (terms or ()), "residual" in (terms or ()))
    residual = terms is None and can_have_residual(task)
    choices = [task.with_kernel(kernel) for kernel in kernels]
    if max_iter == 0 or (len(choices) == 1 and not residual):
        return choices[0], asked if terms else None
    window, budget = task.window(_WINDOW), min(max_iter, _WINDOW_ITER)
    begin = asked.with_terms(asked.mains.size > 0, True) if residual else asked
    trials = [(one, learn(window.with_kernel(one.exact_kernel), budget, tol, 0, begin)) for one in choices]
    best, learned = max(trials, key=lambda trial: trial[1].objective)
    found = learned.hyper
    if residual:
        found = _worth(window.with_kernel(best.exact_kernel), learned, budget, tol)
    fresh = start.with_terms(found.mains.size > 0, found.residual.size > 0)
    return best, max(found, fresh, key=lambda hyper: best.problem(hyper).log_evidence(hyper))


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
    if task.exact_kernel is None or len(task.kernels) == 1 or task.searched_on_grid:
        return False
    codes = np.searchsorted(task.grids[task.exact], task.positions[task.exact])
    rows = np.bincount(codes).astype(float)
    enough = rows.mean() >= _ROWS_PER_SLICE and np.sum(rows * (rows - 1)) / 2 >= _PAIRS
    return bool(enough and np.sum(rows**3) <= _RESIDUAL_WORK)
