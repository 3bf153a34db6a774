"""A fit to most rows, scored at the others: which start to take, and after how many sweeps to stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.cep.forms import CPForm, TuckerForm, moments
from tenfac.bayes.cep.mode import Functions
from tenfac.bayes.cep.result import relevance
from tenfac.bayes.cep.rows import Rows, Sorted
from tenfac.bayes.cep.sweep import Core, State, Sweeper

Array = NDArray[Any]
_FIRST_SWEEPS = 12  # of every start, before the best goes on
_PATIENCE = 8  # sweeps without a gain
_SLACK = 0.005  # relative to the best score: the first sweep as good as that is taken
_BLOCK = 2**22  # numbers in one block of predictions


@dataclass(frozen=True, eq=False)
class Trial:
    """A sweeper over the rows kept, and the rows held out.

    Parameters
    ----------
    sweeper : Sweeper
    held : Sorted
    """

    sweeper: Sweeper
    held: Sorted

    @classmethod
    def split(cls, sweeper: Sweeper, out: NDArray[np.intp]) -> Trial:
        """Hold out the rows ``out`` of a sweeper, counted in the order of the first mode."""
        every = sweeper.rows.by_mode[0]
        sizes = [part.size for part in sweeper.rows.by_mode]
        kept = np.ones(every.y.size, dtype=bool)
        kept[out] = False
        parts = [
            Rows.of([c[own] for c in every.codes], sizes, every.y[own], every.weights[own])
            for own in (kept, ~kept)
        ]
        kept_rows = Sweeper(parts[0], sweeper.form, sweeper.order, sweeper.tick)
        return cls(kept_rows, parts[1].by_mode[0])

    def best(self, starts: list[State], max_iter: int, tol: float) -> Run:
        """The start with the highest held-out score."""
        first = min(_FIRST_SWEEPS, max_iter)
        runs = []
        for start in starts:
            run = Run(self, start)
            run.go(first, tol)
            runs.append(run)
        run = max(runs, key=lambda run: max(run.scores))
        if not run.over:
            run.go(max_iter - len(run.scores), tol)
        return run

    def score(self, state: State) -> float:
        """Minus the log of the mean CRPS of the held-out rows, which a few outliers do not decide."""
        from scipy.special import ndtr

        form, held = self.sweeper.form, self.held
        both = [moments(f.mean, f.cov) for f in state.functions]
        second, total = state.core.second, 0.0
        step = max(64, _BLOCK // max(form.n_terms**2, 16))
        for begin in range(0, held.y.size, step):
            rows = slice(begin, begin + step)
            firsts = [m[0][c[rows]] for m, c in zip(both, held.codes, strict=True)]
            seconds = [m[1][c[rows]] for m, c in zip(both, held.codes, strict=True)]
            mean, square = form.evaluate(firsts, seconds, state.core.mean, second)
            variance = np.maximum(square - mean**2, 0.0) + state.noise
            std = np.sqrt(variance)
            z = (held.y[rows] - mean) / std
            density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
            crps = std * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
            total += float(held.weights[rows] @ crps)
        return -float(np.log(total / float(held.weights.sum())))


class Run:
    """One start, its sweeps so far, and their scores; ``over`` when the best one was passed."""

    def __init__(self, trial: Trial, start: State) -> None:
        self.trial, self.start, self.state = trial, start, start
        self.climbers = trial.sweeper.climbers(start)
        self.scores: list[float] = []
        self.over = False

    @property
    def form(self) -> CPForm | TuckerForm:
        """The terms of its function."""
        return self.trial.sweeper.form

    @property
    def sweeps(self) -> int:
        """The first number of sweeps with a score near the best."""
        return int(np.argmax(np.asarray(self.scores) >= max(self.scores) - _SLACK)) + 1

    def go(self, sweeps: int, tol: float) -> None:
        """Sweep until the score has not gained ``tol`` for a while."""
        for _ in range(sweeps):
            self.state = self.trial.sweeper.sweep(self.state, self.climbers)
            self.scores.append(self.trial.score(self.state))
            before = self.scores[:-_PATIENCE]
            if before and max(self.scores[-_PATIENCE:]) < max(before) + tol:
                self.over = True
                return


def pruned(run: Run, max_iter: int, tol: float) -> Run:
    """The run with the fewest functions whose held-out score is near the best, found one by one.

    Of each mode (all modes at once in a CP) the function with the smallest share goes, as long as a fit that
    never had it does as well. A Tucker keeps one function per mode.
    """
    best = max(run.scores)
    modes = [None] if run.form.diagonal else list(range(len(run.form.sizes)))
    going = True
    while going:
        going = False
        for mode in modes:
            smaller = _without_weakest(run, mode)
            if smaller is None:
                continue
            smaller.go(min(max_iter, max(_FIRST_SWEEPS, run.sweeps)), tol)
            if max(smaller.scores) >= best - _SLACK:
                run, best, going = smaller, max(best, *smaller.scores), True
    return run


def _without_weakest(run: Run, mode: int | None) -> Run | None:
    """A run that begins without the weakest function of a mode, or without the weakest product."""
    form, start, sweeper = run.form, run.start, run.trial.sweeper
    shares = relevance(form, run.state)
    first, count = form.products.start, shares[mode or 0].size
    if count - first == (0 if form.diagonal else 1):
        return None
    place = first + int(np.argmin(shares[mode or 0][first:]))
    if isinstance(form, CPForm):
        smaller: CPForm | TuckerForm = CPForm(len(form.sizes), count - first - 1, first > 0)
    else:
        smaller = TuckerForm(tuple(size - 1 - (d == mode) for d, size in enumerate(form.sizes)))
    functions = tuple(
        _dropped(f, place) if mode is None or d == mode else f for d, f in enumerate(start.functions)
    )
    terms = smaller.n_terms
    precision = np.append(start.core.precision[0], np.full(terms - 1, start.core.precision[-1]))
    core = Core(smaller.start, np.zeros((terms, terms)), precision, 0.0)
    other = Sweeper(sweeper.rows, smaller, sweeper.order, sweeper.tick)
    return Run(Trial(other, run.trial.held), State(functions, core, start.noise, start.bound))


def _dropped(functions: Functions, place: int) -> Functions:
    """Functions at their start, without one."""
    mean, lengths, variances = functions.mean, functions.lengthscales, functions.variances
    rest = [np.delete(part, place, axis=-1) for part in (mean, lengths, variances)]
    return Functions.start(functions.chain, *rest)
