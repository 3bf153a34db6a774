"""From likelihood, response and noise to what is learned: the one place that knows which go how."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.choose import Choice, choose_terms
from tenfac.bayes.collapsed.count_sites import CountSites
from tenfac.bayes.collapsed.hyper import Hyper
from tenfac.bayes.collapsed.margin import Fit, learn_with_response
from tenfac.bayes.collapsed.noise_scales import NoiseScales, Scales
from tenfac.bayes.collapsed.search import Learned, learn, with_start_lengthscale
from tenfac.bayes.collapsed.site_loop import Solved, learn_sites, with_sites
from tenfac.bayes.collapsed.slice_learning import choose_likeness, learn_likeness, with_scales
from tenfac.bayes.collapsed.task import Task
from tenfac.bayes.likelihoods.named import COUNTS, NoiseShape, start_counts
from tenfac.bayes.likelihoods.response import Response

Array = NDArray[Any]
_SLICES, _BLOCK = 448, 32  # slices that a search begins with, in blocks of neighbours
_BLOCK_ITER = 12
_BEGIN_ROUNDS = 4


@dataclass(frozen=True)
class Observed:
    """Values, and how they came about.

    Parameters
    ----------
    likelihood, response : str
    terms : tuple of str or None
        Beside the product; None lets the evidence decide.
    kernels : tuple of str
        Candidates for a continuous exact mode.
    scaled : bool
        Whether slices may have scales of their own, if they have a residual.
    y : array, shape (N,)
        In its own unit.
    start : Hyper
        Where the search begins, if nothing is to be chosen.
    settings : tuple
        ``max_iter``, ``tol``, ``verbose``.
    """

    likelihood: str
    response: str
    terms: tuple[str, ...] | None
    kernels: tuple[str | None, ...]
    scaled: bool
    y: Array
    start: Hyper
    settings: tuple[int, float, int]


def task_to_choose_exact(likelihood: str, response: str, task: Task) -> Task:
    """The task with Gaussian targets close to what was observed, which ``task`` has in its own unit."""
    if likelihood in COUNTS:
        return with_sites(task, _first_sites(likelihood, task.y, task.weights))
    return replace(task, y=Response.start(response, task.y, task.weights).latent(task.y))


def learn_observed(observed: Observed, task: Task, slice_mode: int | None) -> tuple[Fit, NoiseShape]:
    """Hyperparameters, posterior, and the shape of the noise."""
    max_iter, tol, _ = observed.settings
    if observed.likelihood in COUNTS:
        sites = _first_sites(observed.likelihood, observed.y, task.weights)
        known = replace(observed.start, noise=0.0)
        choice = choose_terms(task, observed.terms or (), observed.kernels, max_iter, tol, known)
        solved = learn_sites(choice.task, sites, *observed.settings, choice.start)
        return Fit(sites.likelihood.response, solved, 0.0), NoiseShape()
    parts = _scales(observed.likelihood, task, slice_mode)

    def solve(latent: Array, start: Solved | None) -> Solved:
        if start is None:
            own = replace(task, y=latent)
            choice = choose_terms(own, observed.terms, observed.kernels, max_iter, tol, observed.start)
        else:
            choice = Choice(replace(start.task, y=latent), start.learned.hyper)
        choice = choice._replace(start=choice.start or _begin(choice.task, observed.start))
        if not parts:
            return _learn_gaussian(choice, observed)
        sites = NoiseScales(latent, parts) if start is None else start.sites.with_targets(latent)
        return learn_sites(choice.task, sites, *observed.settings, choice.start)

    search = observed.settings[0] > 0
    fit = learn_with_response(observed.response, observed.y, task.weights, solve, search)
    return fit, _shape(fit, observed.likelihood, slice_mode)


def _begin(task: Task, start: Hyper) -> Hyper:
    return replace(start, noise=task.start().noise)


def _first_sites(likelihood: str, y: Array, weights: Array) -> CountSites:
    return CountSites.start(start_counts(likelihood, y, weights), y, weights)


def _learn_gaussian(choice: Choice, observed: Observed) -> Solved:
    """With equal noise; then, if the slices tell of different scales, once more with these.

    One step of feasible generalised least squares: scales from a fit without any. Where slices are many, the
    first fit is one to blocks of them.
    """
    task = choice.task
    several = choice.start is not None and choice.start.residual.size > 0
    part = task.in_blocks(_SLICES, _BLOCK) if several and choice.begun is None else task
    max_iter, tol, verbose = observed.settings
    first = max_iter if part is task else min(max_iter, _BLOCK_ITER)
    learned = _learn_chosen(choice._replace(task=part), first, tol, verbose)
    prior = None
    if several and observed.scaled and task.scales is None and learned.hyper.residual.size:
        told = with_scales(task, learned.hyper)
        prior = choose_likeness(told, learned.hyper)
        if prior is not None:
            told, learned = _begin_likeness(told, learned, prior)
        if told is not task:
            task = part = told
            learned = _go_on(task, learned, *observed.settings)
    if part is not task:
        learned = _go_on(task, learned, *observed.settings)
    if prior is not None:
        task = learn_likeness(task, learned.hyper, prior)
    return Solved(task, learned, learned.prediction(task), None, 0.0)


def _begin_likeness(task: Task, learned: Learned, prior: float) -> tuple[Task, Learned]:
    """With what the slices tell of the cells; and hyperparameters to go on from.

    The product has had to follow what slices have for themselves: now it may begin as slow as usual.
    """
    hyper, exact = learned.hyper, task.exact
    modes = hyper.modes.copy()
    modes[exact, 1:] = Hyper.start(len(task.kernels)).modes[exact, 1:]
    task = learn_likeness(task, hyper, prior, _BEGIN_ROUNDS)
    slow = with_start_lengthscale(task, replace(hyper, modes=modes))
    trials = []
    for one in (hyper, slow):
        own = learn_likeness(task, one, prior, _BEGIN_ROUNDS)
        trials.append((own.problem(one).log_evidence(one), own, one))
    _, task, hyper = max(trials, key=lambda trial: trial[0])
    return task, replace(learned, hyper=hyper)


def _learn_chosen(choice: Choice, max_iter: int, tol: float, verbose: int) -> Learned:
    """The search, or what is left of it where the choice was one."""
    if choice.begun is None:
        return learn(choice.task, max_iter, tol, verbose, choice.start)
    return (
        choice.begun if choice.begun.converged else _go_on(choice.task, choice.begun, max_iter, tol, verbose)
    )


def _go_on(task: Task, learned: Learned, max_iter: int, tol: float, verbose: int) -> Learned:
    """A search from where another ended, with the iterations that it left."""
    left = max_iter - learned.n_iter
    if max_iter == 0:
        return learned
    if left <= 0:
        return replace(learned, converged=False)
    return learned.then(learn(task, left, tol, verbose, learned.hyper))


def _scales(likelihood: str, task: Task, slice_mode: int | None) -> tuple[Scales, ...]:
    """Scales of rows, of slices, or both."""
    parts = [Scales.of_rows(task.weights)] if likelihood == "student_t" else []
    if slice_mode is not None:
        grid = task.grids[slice_mode]
        codes = np.searchsorted(grid, task.positions[slice_mode])
        parts.append(Scales.of_slices(task.weights, codes, grid.size))
    return tuple(parts)


def _shape(fit: Fit, likelihood: str, slice_mode: int | None) -> NoiseShape:
    parts: Any = () if fit.solved.sites is None else fit.solved.sites.parts
    shape = NoiseShape(parts[0].dof if likelihood == "student_t" else None)
    if slice_mode is None:
        return shape
    own = parts[-1]
    return replace(shape, slice_dof=own.dof, shapes=own.shapes, rates=own.rates)
