"""Rows that arrive after the fit: the posterior of all rows at the hyperparameters of the first ones.

What ``fit`` learned stays: hyperparameters, scaling of x and y, mode functions. New rows change the
regressions of their slices. With a continuous exact mode the filter goes on from the first slice that
changed, one step per slice, and what lies behind is smoothed when a prediction asks for it. With a discrete
one the levels that changed are solved anew, and joined with the others.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.evidence import Problem
from tenfac.bayes.collapsed.hyper import Hyper
from tenfac.bayes.collapsed.prediction import Prediction
from tenfac.bayes.collapsed.search import Task
from tenfac.bayes.columns import ModeIndex, numbers_of, weights_of
from tenfac.bayes.exact import levels, smoother
from tenfac.bayes.exact.posterior import CoefficientPosterior
from tenfac.bayes.posterior_methods import PosteriorMethods
from tenfac.bayes.threads import one_thread
from tenfac.core.errors import DataError

Array = NDArray[Any]


class Filtered(NamedTuple):
    """State moments given the slices up to one, and the log evidence of those."""

    mean: Array
    cov: Array
    log_evidence: float


class Rows(NamedTuple):
    """Added rows: a checked column per mode, values in the unit of y, weights."""

    columns: tuple[NDArray[Any], ...]
    y: Array
    weights: Array


@dataclass(frozen=True, eq=False)
class StreamedPosterior:
    """Posterior of a continuous exact mode of which only the filter has run.

    Beyond the last index the filter is all there is to know; elsewhere all slices are smoothed, once.

    Parameters
    ----------
    problem : Problem
    hyper : Hyper
    last : Filtered
        At the last index.
    """

    problem: Problem
    hyper: Hyper
    last: Filtered

    @cached_property
    def smoothed(self) -> CoefficientPosterior:
        """The whole posterior."""
        with one_thread():
            found: Any = self.problem.solve(self.hyper)[0]
            return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.smoothed, name)

    def at(self, positions: Array, derivative: int = 0) -> tuple[Array, Array]:
        """Means (U, P) and covariances (U, P, P) of ``h``, or of a derivative, at bent positions."""
        mode = self.problem.prior(self.hyper, self.problem.exact)
        end = float(mode.bend(self.problem.positions[-1:])[0])
        if derivative or "smoothed" in vars(self) or positions.min(initial=np.inf) < end:
            return self.smoothed.at(positions, derivative)
        prior = self.problem.chain(self.hyper)
        means, covs = np.empty((positions.size, prior.size)), np.empty((positions.size, *[prior.size] * 2))
        for u, position in enumerate(positions):
            step = np.array([position - end])
            mean, cov = _moved(self.last, prior.transitions(step)[0], prior.innovations(step)[0])
            means[u], covs[u] = prior.observe(mean), prior.observe(prior.observe(cov).T)
        return means, covs


@dataclass(frozen=True, eq=False)
class Stream:
    """A prediction that takes further rows.

    Parameters
    ----------
    modes : tuple of ModeIndex
        Of the first fit.
    rows : tuple of Rows
        What was added since.
    prediction : Prediction
        Of all rows.
    slices : tuple of (Filtered or levels.Seen)
        Per index of the exact mode, what need not be computed again while its rows stay (and, if
        continuous, those before it).
    squares : float
        Weighted sum of squares of the scaled targets.
    beyond : float
        What the response adds to the log evidence of the first fit.
    """

    modes: tuple[ModeIndex, ...]
    rows: tuple[Rows, ...]
    prediction: Prediction
    slices: tuple[Any, ...]
    squares: float
    beyond: float

    @classmethod
    def begin(cls, modes: tuple[ModeIndex, ...], prediction: Prediction, beyond: float) -> Stream:
        """Of a fitted model: one pass over its slices."""
        slices = prediction.problem.slices
        squares = slices.leftover + sum(float(target @ target) for target in slices.targets)
        size = len(slices.targets)
        done = _pass(prediction, prediction.problem, [None] * size, np.arange(size))
        return cls(modes, (), prediction, done, squares, beyond)

    @property
    def all_rows(self) -> Rows:
        """What was added, in one."""
        columns = tuple(np.concatenate(parts) for parts in zip(*[r.columns for r in self.rows], strict=True))
        y, weights = (np.concatenate([r[part] for r in self.rows]) for part in (1, 2))
        return Rows(columns, y, weights)

    def joined(self, rows: Rows, batch: Problem, before: Array, squares: float) -> Stream:
        """With further rows.

        Parameters
        ----------
        rows : Rows
        batch : Problem
            The same rows on the products that the prediction has.
        before : array, shape (M,)
            Positions of the indices so far (new labels may have moved them).
        squares : float
            Of the batch.
        """
        problem = self.prediction.problem
        positions = np.union1d(before, batch.positions)
        places = np.searchsorted(positions, batch.positions)
        fresh = ~np.isin(batch.positions, before)
        slices = problem.slices.joined(batch.slices, places, fresh, problem.residual is not None)
        share = batch.n_obs / slices.n_obs
        problem = replace(
            problem,
            positions=positions,
            slices=slices,
            missing=(
                (1 - share) * problem.missing[0] + share * batch.missing[0],
                (1 - share) * problem.missing[1] + share * batch.missing[1],
            ),
            residual=None
            if problem.residual is None or batch.residual is None
            else problem.residual.joined(batch.residual, places, fresh),
            total=(1 - share) * problem.total + share * batch.total,
        )
        known = list(self.slices)
        for place in places[fresh]:
            known.insert(place, None)
        done = _pass(self.prediction, problem, known, places)
        squares += self.squares
        prediction = _predicting(self.prediction, problem, done, squares)
        return Stream(self.modes, (*self.rows, rows), prediction, done, squares, self.beyond)


def _moved(last: Filtered, move: Array, noise: Array) -> tuple[Array, Array]:
    """State moments one step later."""
    return move @ last.mean, move @ last.cov @ move.T + noise


def _pass(
    prediction: Prediction, problem: Problem, known: list[Any], changed: NDArray[np.intp]
) -> tuple[Any, ...]:
    """What ``Stream.slices`` holds, where it is known but for ascending places that have changed."""
    hyper, out = prediction.hyper, list(known)
    if problem.kernels[problem.exact] is None:
        for t in changed:
            out[t] = levels.see(*problem.whitened_slice(hyper, prediction.factor, t)[:2])
        return tuple(out)
    prior, begin = problem.chain(hyper), int(changed[0])
    bent = problem.prior(hyper, problem.exact).bend(problem.positions[max(begin - 1, 0) :])
    moves, noises = prior.transitions(np.diff(bent)), prior.innovations(np.diff(bent))
    start = Filtered(np.zeros(prior.dim), prior.initial(), 0.0)
    last = out[begin - 1] if begin else start
    for t in range(begin, len(out)):
        step = t - max(begin, 1)
        mean, cov = _moved(last, moves[step], noises[step]) if t else last[:2]
        design, target, constant = problem.whitened_slice(hyper, prediction.factor, t)
        seen = smoother.see(prior, mean, cov, design, target)
        last = out[t] = Filtered(seen.mean, seen.cov, last.log_evidence + seen.log_evidence + constant)
    return tuple(out)


def _predicting(
    prediction: Prediction, problem: Problem, slices: tuple[Any, ...], squares: float
) -> Prediction:
    """The prediction of all rows from what ``_pass`` returns."""
    hyper = prediction.hyper
    posterior: Any
    if problem.kernels[problem.exact] is None:
        shared = problem.prior(hyper, problem.exact).shared(len(slices))
        inverses, own, told = (np.stack(part) for part in zip(*slices, strict=True))
        posterior, log_evidence = levels.join(inverses, own, told, shared)
    else:
        posterior, log_evidence = StreamedPosterior(problem, hyper, slices[-1]), slices[-1].log_evidence
    if problem.residual is None:
        variance = float(np.exp(hyper.noise))
        log_evidence -= 0.5 * (problem.n_obs * np.log(2 * np.pi * variance) + squares / variance)
    return Prediction(problem, hyper, posterior, prediction.factor, log_evidence)


class StreamingMethods(PosteriorMethods):
    """The part of ``FunctionalTucker`` that takes rows after the fit."""

    _tree: Any
    exact_mode_: int
    _task: Task
    _beyond: float

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Add rows; the first call is ``fit``.

        Hyperparameters, mode functions, and the scaling of indices and y stay those of the first call: give
        it enough rows to learn from. Given them, the posterior is that of all rows at once, in whatever order
        they came.

        Parameters
        ----------
        X : array of shape (N, D), DataFrame, or dict of columns
            Continuous indices may lie anywhere, also between or before those seen. The exact mode may have
            new labels if ``label_rank`` is 0, other discrete modes may not.
        y : array, shape (N,)
        sample_weight : array, shape (N,), optional
            Numbers of repeats.

        Returns
        -------
        FunctionalTucker
            The estimator itself. ``indices_``, ``rank_``, ``log_evidence_`` and the seconds and warnings of
            ``info_`` count all rows, everything else learned stays.

        Raises
        ------
        ValueError
            Before anything changes: as in ``fit``; for a new label where none may be, and for a y at or
            beyond ``bounds_`` (DataError).

        Notes
        -----
        Cost, with a continuous exact mode: one filter step, ``O(P^3)``, per slice from the first one that the
        rows belong to; rows after the last index are cheapest. The first prediction at earlier indices
        smooths all slices. With a discrete one: ``O(P^3)`` per label that the rows have, and ``O(M P^2)``.

        Slices that come new to a model with scales of slices have the usual scale.

        ``mode_posterior`` averages over the indices of the first call in modes other than the exact one.

        Examples
        --------
        >>> from tenfac import FunctionalTucker
        >>> model = FunctionalTucker(max_iter=0).partial_fit([[0.0], [1.0]], [1.0, 3.0])
        >>> model.partial_fit([[2.0]], [2.0]).indices_[0].tolist()
        [0.0, 1.0, 2.0]
        """
        if not hasattr(self, "info_"):
            return self.fit(X, y, sample_weight)  # type: ignore[attr-defined]
        if self._fitted_by != "collapsed":
            raise DataError(
                f"FunctionalTucker.partial_fit: inference={self._fitted_by!r} takes no rows after the "
                "fit. Fit all rows again, or with inference='collapsed'."
            )
        if self._task.precision is not None:
            raise DataError(
                "FunctionalTucker.partial_fit: only Gaussian noise, alike in all rows, takes rows after the "
                f"fit; got likelihood={self.likelihood!r}, noise={self.noise!r}. Fit all rows again."
            )
        started = time.perf_counter()
        columns = self._read_columns(X)
        y = self._check_added(y, columns[0].size)
        weights = weights_of(sample_weight, y, "FunctionalTucker.partial_fit")
        keep = weights > 0
        if not keep.any():
            raise DataError(
                "FunctionalTucker.partial_fit: every sample_weight is zero; at least one row must count."
            )
        self._add(Rows(tuple(column[keep] for column in columns), y[keep], weights[keep]))
        seconds = (self.info_.seconds or 0.0) + time.perf_counter() - started
        notes = self._notes_with_more_rows()  # type: ignore[attr-defined]
        self.info_ = replace(self.info_, seconds=seconds, warnings=notes)
        return self

    def _check_added(self, y: Any, count: int) -> Array:
        where = "FunctionalTucker.partial_fit"
        y = np.asarray(numbers_of(y, where), dtype=float)
        if count == 0:
            raise DataError(f"{where}: the table is empty; give at least one row.")
        if y.shape != (count,):
            raise DataError(f"{where}: y must have one value per row; got shape {y.shape} for {count} rows.")
        if not np.isfinite(y).all():
            raise DataError(
                f"{where}: y contains {int((~np.isfinite(y)).sum())} NaN or infinite values; leave missing "
                "cells out of the table."
            )
        low, high = self._response.bounds
        beyond = (y <= low) | (y >= high)
        if beyond.any():
            first = int(np.argmax(beyond))
            raise DataError(
                f"{where}: y must lie between the bounds that fit has learned, {low:.6g} and {high:.6g}; got "
                f"{y[first]:.6g} in row {first}. Fit all rows again, or leave it out."
            )
        return y

    def _add(self, rows: Rows) -> None:
        """Join rows that are checked, but for their labels."""
        modes = [
            index.extended(column) if not index.discrete or self._may_grow(n) else index
            for n, (index, column) in enumerate(zip(self._modes, rows.columns, strict=True))
        ]
        positions = tuple(i.positions(column) for i, column in zip(modes, rows.columns, strict=True))
        exact, latent = self.exact_mode_, self._response.latent(rows.y)
        stream = self._stream or Stream.begin(tuple(self._modes), self._prediction, self._beyond)
        grids = list(self._task.grids)
        grids[exact] = np.unique(positions[exact])
        task = replace(
            self._task, grids=tuple(grids), positions=positions, y=latent, weights=rows.weights, scales=None
        )
        problem = stream.prediction.problem
        batch = task.on(problem.product, problem.mains, stream.prediction.hyper)
        before = modes[exact].positions(self._modes[exact].values)
        squares = float(rows.weights @ latent**2)
        self._stream = stream.joined(rows, batch, before, squares)
        self._prediction, self._tree = self._stream.prediction, None
        self._modes = modes
        self._beyond += float(rows.weights @ self._response.log_slope(rows.y))
        self.indices_ = [index.values for index in modes]
        self.rank_ = tuple(modes[exact].size if n == exact else rank for n, rank in enumerate(self.rank_))
        self.log_evidence_ = self._prediction.log_evidence + self._beyond
        residual = self._prediction.problem.residual
        if residual is not None and residual.dof is not None:
            self.slice_scales_ = {self.mode_names_[exact]: residual.scales}

    def _may_grow(self, n: int) -> bool:
        """Whether labels of a discrete mode need not have been seen: exchangeable ones that have no basis."""
        return n == self.exact_mode_ and not self.label_rank
