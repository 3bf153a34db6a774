"""From likelihood, response and noise to what is learned: the one place that knows which go how."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.count_sites import CountSites
from tenfac.bayes.likelihoods import COUNTS, NoiseShape, start_counts
from tenfac.bayes.margin import Fit, learn_with_response
from tenfac.bayes.noise_scales import NoiseScales, Scales
from tenfac.bayes.response import Response
from tenfac.bayes.search import Task, learn
from tenfac.bayes.site_loop import Solved, learn_sites, with_sites

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Observed:
    """Values, and how they came about.

    Parameters
    ----------
    likelihood, response : str
    y : array, shape (N,)
        In its own unit.
    settings : tuple
        ``max_iter``, ``tol``, ``verbose``.
    """

    likelihood: str
    response: str
    y: Array
    settings: tuple[int, float, int]

    def first_sites(self, weights: Array) -> CountSites:
        """Of counts."""
        return CountSites.start(start_counts(self.likelihood, self.y, weights), self.y, weights)


def task_to_choose_exact(observed: Observed, task: Task) -> Task:
    """The task with Gaussian targets close to what was observed."""
    if observed.likelihood in COUNTS:
        return with_sites(task, observed.first_sites(task.weights))
    return replace(task, y=Response.start(observed.response, observed.y, task.weights).latent(observed.y))


def learn_observed(observed: Observed, task: Task, slice_mode: int | None) -> tuple[Fit, NoiseShape]:
    """Hyperparameters, posterior, and the shape of the noise."""
    if observed.likelihood in COUNTS:
        sites = observed.first_sites(task.weights)
        solved = learn_sites(task, sites, *observed.settings)
        return Fit(sites.likelihood.response, solved, 0.0), NoiseShape()
    parts = _scales(observed.likelihood, task, slice_mode)

    def solve(latent: Array, start: Solved | None) -> Solved:
        hyper = None if start is None else start.learned.hyper
        own = replace(task, y=latent)
        if not parts:
            learned = learn(own, *observed.settings, hyper)
            return Solved(own, learned, learned.prediction(own), None, 0.0)
        sites = NoiseScales(latent, parts) if start is None else start.sites.with_targets(latent)
        return learn_sites(own, sites, *observed.settings, hyper)

    search = observed.settings[0] > 0
    fit = learn_with_response(observed.response, observed.y, task.weights, solve, search)
    return fit, _shape(fit, observed.likelihood, slice_mode)


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
