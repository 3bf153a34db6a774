"""How ``FunctionalTucker`` fits with ``inference="collapsed"``: the part of the estimator that searches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.choose import choose_exact
from tenfac.bayes.collapsed.fitting import Observed, learn_observed, task_to_choose_exact
from tenfac.bayes.collapsed.hyper import Hyper
from tenfac.bayes.collapsed.journal import Journal
from tenfac.bayes.collapsed.leftover import MAYBE_ALIKE, structure, what_is_left_over
from tenfac.bayes.collapsed.margin import Fit
from tenfac.bayes.collapsed.mode_prior import ModePrior
from tenfac.bayes.collapsed.prediction import Prediction
from tenfac.bayes.collapsed.search import Task
from tenfac.bayes.columns import ModeIndex
from tenfac.bayes.likelihoods.named import COUNTS, likelihood_of
from tenfac.bayes.reading import FittedModel
from tenfac.bayes.settings import (
    candidates_of,
    first_lengthscales,
    limits_of,
    slice_mode_of,
    terms_of,
)
from tenfac.core.arrays import generator
from tenfac.core.errors import warn_user

Array = NDArray[Any]
_KEPT = "products of mode functions kept"
_NOT_SHORT = (None, "oscillator")  # labels, and periods, which were sought
_SHORT = 0.1  # lengthscale, of a range, that a second search starts from


class CollapsedMethods(FittedModel):
    """The part of ``FunctionalTucker`` that searches hyperparameters and describes what was found."""

    def _search(
        self,
        columns: list[NDArray[Any]],
        y: Array,
        weights: Array,
        started: float,
        journal: Journal | None,
    ) -> None:
        """Learn the hyperparameters and keep what prediction needs."""
        positions = tuple(index.positions(column) for index, column in zip(self._modes, columns, strict=True))
        max_iter, tol = limits_of(self)
        task = replace(self._make_task(positions, y, weights, 0), journal=journal)
        exact = choose_exact(task_to_choose_exact(self.likelihood, self.response, task), max_iter, tol).exact
        observed = Observed(
            self.likelihood, self.response, terms_of(self.terms),
            candidates_of(self.kernel, self._modes)[exact], self.noise == "auto", y, self._first_hyper(),
            (max_iter, tol, int(self.verbose)),
        )  # fmt: skip
        self.exact_mode_ = exact
        self._slice_mode = slice_mode_of(self.noise, self.likelihood, self.mode_names_, exact)
        fit, self._noise_shape = learn_observed(observed, replace(task, exact=exact), self._slice_mode)
        plain = self.likelihood == "gaussian" and fit.solved.sites is None and max_iter > 0
        if plain and structure(fit.solved.prediction, fit.solved.task) > MAYBE_ALIKE:
            fit = self._again(observed, replace(task, exact=exact), fit)
        self._counted = y if self.likelihood in COUNTS else None
        self._response, solved, self._beyond = fit.response, fit.solved, fit.beyond
        self._task, self._learned = replace(solved.task, journal=None), solved.learned
        learned = self._learned
        self._kernels = self._task.kernels
        self._set_posterior(solved.prediction)
        self.n_iter_ = max(learned.n_iter, 1)
        notes = self._notes()
        left = what_is_left_over(self._prediction, self._task) if plain else ()
        self.info_ = learned.report(max_iter, notes + left, started)
        chosen = self.max_functions is None and isinstance(self.rank, str)
        if notes and chosen and self._prediction.missing_noise_share > 0.5:
            warn_user(f"FunctionalTucker: {notes[0]}", UserWarning)
        if not self.info_.converged:
            warn_user(
                f"FunctionalTucker: the evidence was still rising when max_iter={max_iter} was reached; "
                "the best hyperparameters so far are kept. Raise max_iter."
            )

    def _again(self, observed: Observed, task: Task, first: Fit) -> Fit:
        """The better of a fit and one that starts where functions vary fast, as a ridge across modes does."""
        modes = observed.start.modes.copy()
        lengths = first_lengthscales(self.kernel, self._modes)
        named = enumerate(self._kernels)
        free = [n for n, kernel in named if lengths[n] is None and kernel not in _NOT_SHORT]
        modes[free, 1] = np.log(_SHORT)
        if not free:
            return first
        again, _ = learn_observed(replace(observed, start=replace(observed.start, modes=modes)), task, None)
        if again.solved.task.scales is not None or first.solved.task.scales is not None:
            return first  # evidence given scales is not comparable
        return max(first, again, key=lambda fit: fit.log_evidence)

    def _first_hyper(self) -> Hyper:
        """Neutral hyperparameters, but for lengthscales that came with a kernel."""
        hyper = Hyper.start(len(self._modes))
        for n, length in enumerate(first_lengthscales(self.kernel, self._modes)):
            if length is not None:
                hyper = hyper.moved(n, 1, float(np.log(length)) - hyper.modes[n, 1])
        return hyper

    def _make_task(self, positions: tuple[Array, ...], y: Array, weights: Array, exact: int) -> Task:
        grids = tuple(index.positions(index.values) for index in self._modes)
        return Task(
            self._kernels, exact, grids, positions, y, weights, self._rank,
            None if self.max_functions is None else int(self.max_functions), int(self.label_rank),
            generator(self.random_state),
        )  # fmt: skip

    def _notes(self) -> tuple[str, ...]:
        missing = self._prediction.missing_share
        if missing <= 0.05 or {"residual", "cells"} & set(self._prediction.hyper.terms):
            return ()
        return (
            f"the {self._prediction.problem.basis.size} {_KEPT} carry "
            f"{100 * (1 - missing):.0f} % of the prior variance, the rest counts as uncertainty. Round mode "
            f"{self.mode_names_[self.exact_mode_]!r} to fewer distinct indices, or set max_functions higher "
            "and wait longer.",
        )

    def _notes_with_more_rows(self) -> tuple[str, ...]:
        """Notes when rows were added: what the fit left over of its own rows stays."""
        return (*self._notes(), *(note for note in self.info_.warnings if _KEPT not in note))

    def _set_posterior(self, prediction: Prediction) -> None:
        self._prediction, self._stream, self._tree = prediction, None, None
        problem, hyper = prediction.problem, prediction.hyper
        ranks = iter(problem.basis.rank)
        self.rank_ = tuple(
            index.size if n == self.exact_mode_ else next(ranks) for n, index in enumerate(self._modes)
        )
        self.kernels_ = {
            index.name: kernel
            for index, kernel in zip(self._modes, problem.kernels, strict=True)
            if kernel is not None
        }
        self.terms_ = hyper.terms
        self.lengthscales_ = {
            index.name: _local_lengthscale(problem.prior(hyper, n), index)
            for n, index in enumerate(self._modes)
            if not index.discrete
        }
        self.qualities_ = {
            index.name: problem.prior(hyper, n).quality
            for n, index in enumerate(self._modes)
            if problem.kernels[n] == "oscillator"
        }
        self.constants_ = {
            index.name: problem.prior(hyper, n).constant for n, index in enumerate(self._modes)
        }
        labels = {n: np.arange(index.size) for n, index in enumerate(self._modes) if index.discrete}
        self.label_covariances_ = {
            self.mode_names_[n]: problem.prior(hyper, n).covariance(codes, codes)
            for n, codes in labels.items()
            if self.label_rank
        }
        response, shape = self._response, self._noise_shape
        variance = float(np.exp(hyper.noise))
        self._likelihood = likelihood_of(self.likelihood, response, variance, shape)
        self.noise_ = float("nan") if self._task.fixed_noise else np.sqrt(variance) * response.unit
        self.dof_ = np.inf if shape.dof is None else shape.dof
        self.slice_dof_ = np.inf if shape.slice_dof is None else shape.slice_dof
        self.slice_scales_ = {}
        if self._slice_mode is not None and shape.shapes is not None and shape.rates is not None:
            self.slice_scales_[self.mode_names_[self._slice_mode]] = shape.rates / shape.shapes
        if problem.residual is not None and problem.residual.dof is not None:
            self.slice_dof_ = problem.residual.dof
            self.slice_scales_[self.mode_names_[self.exact_mode_]] = problem.residual.scales
        self.bounds_ = response.bounds
        self.log_evidence_ = prediction.log_evidence + self._beyond


def _local_lengthscale(prior: ModePrior, index: ModeIndex) -> float:
    """Lengthscale in the unit of the column, where the axis is bent: at the median observed index."""
    slope = float(prior.slope(np.asarray(np.median(index.positions(index.values)))))
    return prior.lengthscale / slope * index.span
