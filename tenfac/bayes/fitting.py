"""From likelihood, response and noise to what is learned: the one place that knows which go how."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.choose import choose_terms
from tenfac.bayes.count_sites import CountSites
from tenfac.bayes.hyper import Hyper
from tenfac.bayes.likelihoods import COUNTS, NoiseShape, start_counts
from tenfac.bayes.margin import Fit, learn_with_response
from tenfac.bayes.noise_scales import NoiseScales, Scales
from tenfac.bayes.response import Response
from tenfac.bayes.scales import FEW, update
from tenfac.bayes.search import learn
from tenfac.bayes.site_loop import Solved, learn_sites, with_sites
from tenfac.bayes.task import Task

Array = NDArray[np.float64]


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
    kernels: tuple[str, ...]
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
        task, first = choose_terms(task, observed.terms or (), observed.kernels, max_iter, tol, known)
        solved = learn_sites(task, sites, *observed.settings, first)
        return Fit(sites.likelihood.response, solved, 0.0), NoiseShape()
    parts = _scales(observed.likelihood, task, slice_mode)

    def solve(latent: Array, start: Solved | None) -> Solved:
        if start is None:
            own, hyper = choose_terms(
                replace(task, y=latent), observed.terms, observed.kernels, max_iter, tol, observed.start
            )
        else:
            own, hyper = replace(start.task, y=latent), start.learned.hyper
        hyper = hyper or _begin(own, observed.start)
        if not parts:
            return _learn_gaussian(own, observed, hyper)
        sites = NoiseScales(latent, parts) if start is None else start.sites.with_targets(latent)
        return learn_sites(own, sites, *observed.settings, hyper)

    search = observed.settings[0] > 0
    fit = learn_with_response(observed.response, observed.y, task.weights, solve, search)
    return fit, _shape(fit, observed.likelihood, slice_mode)


def _begin(task: Task, start: Hyper) -> Hyper:
    return replace(start, noise=task.start().noise)


def _first_sites(likelihood: str, y: Array, weights: Array) -> CountSites:
    return CountSites.start(start_counts(likelihood, y, weights), y, weights)


def _learn_gaussian(task: Task, observed: Observed, start: Hyper | None) -> Solved:
    """With equal noise; then, if the slices tell of different scales, once more with these.

    One step of feasible generalised least squares: scales from a fit without any.
    """
    learned = learn(task, *observed.settings, start)
    prediction = learned.prediction(task)
    if observed.scaled and task.scales is None and prediction.problem.residual is not None:
        scales, dof = update(*prediction.problem.slice_squares(learned.hyper))
        if dof < FEW:
            task = replace(task, scales=scales, slice_dof=dof)
            learned = learned.then(learn(task, *observed.settings, learned.hyper))
            prediction = learned.prediction(task)
    return Solved(task, learned, prediction, None, 0.0)


def _scales(likelihood: str, task: Task, slice_mode: int | None) -> tuple[Scales, ...]:
    """Scales of rows, of slices, or both."""
    parts = [Scales.of_rows(task.weights)] if likelihood == "student_t" else []
    if slice_mode is not None:
        grid = task.grids[slice_mode]
        codes = np.searchsorted(grid, task.positions[slice_mode])
        parts.append(Scales.of_slices(task.weights, codes, grid.size))
    return tuple(parts)


def _shape(fit: Fit, likelihood: str, slice_mode: int | None) -> NoiseShape:
    parts = () if fit.solved.sites is None else fit.solved.sites.parts
    shape = NoiseShape(parts[0].dof if likelihood == "student_t" else None)
    if slice_mode is None:
        return shape
    own = parts[-1]
    return replace(shape, slice_dof=own.dof, shapes=own.shapes, rates=own.rates)
