"""The search behind completion: starts judged on entries held out, then a fit to all."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from tenfac.core.arrays import eps, generator, seed_of
from tenfac.core.errors import DataError, warn_user
from tenfac.core.progress import STOPPED, Progress
from tenfac.core.rank import check_tol
from tenfac.core.report import Report
from tenfac.decompose.checks import check_count
from tenfac.decompose.completion.observed import Observed
from tenfac.decompose.completion.row_blocks import squared

# The ridge falls geometrically from a share of the mean diagonal to the last: for starts from these in turn
# (a large one finds its way where entries are few, a small one keeps weak components), for repairs in order.
_RIDGE_STARTS, _RIDGE_REPAIRS, _RIDGE_LAST = (0.5, 0.05, 0.005), (1e-2, 1e-3), 1e-6
# Sweeps while the ridge of a repair falls; a start says its own.
_REPAIR_SWEEPS = 15
# Sweeps after the ridge has fallen, at most, and the change of the training error that ends them.
_SETTLE, _SETTLED = 30, 2e-3
# Changes of the error are averaged over this many sweeps.
_CALM = 3
# Growth of the momentum in each sweep.
_MOMENTUM = 0.25
# Two starts whose validation errors are this near have found the same fit, and a repair must gain this much.
_SAME, _GAIN = 1.02, 0.995
# Validation errors below this are success whatever the training error.
_SUCCESS = 1e-5
# A fit has failed when its validation error is above these shares of the errors of predicting zero and of
# predicting the mean, or this many times its training error: the smaller number where it is large itself.
_OF_ZERO, _OF_MEAN = 0.95, 1.05
_OVERFIT, _OVERFIT_LARGE = 3.0, 2.0


@dataclass(frozen=True)
class Settings:
    """What a completion was asked, validated.

    Parameters
    ----------
    where : str
        Name of the caller, for messages.
    n_init, max_iter : int
    tol, holdout : float
    random_state : int, Generator or None
    verbose : {0, 1, 2}
    callback : callable or None

    Raises
    ------
    DataError, RankError, TypeError
        If one is not valid.

    Examples
    --------
    >>> Settings("cp_complete", 10, 300, 1e-5, 0.1, 0, 0, None).progress.where
    'cp_complete'
    """

    where: str
    n_init: int
    max_iter: int
    tol: float
    holdout: float
    random_state: Any
    verbose: int
    callback: Callable[[int, float], Any] | None
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        check_count(self.n_init, "n_init", self.where)
        check_count(self.max_iter, "max_iter", self.where)
        check_tol(self.tol, where=self.where)
        if not (isinstance(self.holdout, numbers.Real) and 0 < self.holdout <= 0.5):
            raise DataError(
                f"{self.where}: holdout is a share of the observed entries, above 0 and at most 0.5; got "
                f"{self.holdout!r}."
            )
        object.__setattr__(self, "progress", Progress(self.where, None, self.verbose, self.callback))


@dataclass(frozen=True)
class _Fit:
    """A fit to the training entries, with its errors relative to the root mean square of all entries."""

    state: Any
    train: float
    validation: float

    def is_sound(self, limit: float) -> bool:
        """Whether it predicts entries it has not seen about as well as those it has, and below a limit."""
        times = _OVERFIT_LARGE if self.validation > limit / 2 else _OVERFIT
        return self.validation <= max(_SUCCESS, min(times * self.train, limit))


def complete(
    make: Callable[[Observed, np.random.Generator], Any], data: Observed, settings: Settings
) -> tuple[Any, Report, float]:
    """Search on part of the entries, then fit all.

    Parameters
    ----------
    make : callable
        Makes the problem, a ``CPProblem`` or ``TuckerProblem``, from entries and a generator.
    data : Observed
    settings : Settings

    Returns
    -------
    state : the problem's
    report : Report
        Without ``rel_error``, which is that of the result after rounding.
    scale : float
        What the values were divided by.

    Examples
    --------
    >>> from tenfac.decompose.completion.cp import CPProblem
    >>> data = Observed((3, 4), np.unravel_index(np.arange(12), (3, 4)), np.full(12, 5.0), np.ones(0))
    >>> settings = Settings("cp_complete", 10, 300, 1e-5, 0.1, 0, 0, None)
    >>> complete(lambda entries, rng: CPProblem(entries, 1, rng), data, settings)[2]
    5.0
    """
    start = perf_counter()
    where, progress = settings.where, settings.progress
    rng = generator(settings.random_state)
    if data.size < 2:
        raise DataError(f"{where}: needs at least two observed entries, one to hold out; got {data.size}.")
    scale = _scale(data.values)
    data = data.divided_by(scale)
    train, held = _split(data, settings.holdout, rng)
    limit = _limit(held, train)
    problem = make(data, rng)
    with progress:
        fit, n_starts = _search(make(train, rng), held, limit, settings.n_init, rng, progress)
        state, settled = fit.state, False
        if not progress.stopped:
            state, _, settled = _settle(
                problem, state, fit.train, settings.max_iter, settings.tol, eps(data.like.dtype), progress
            )
    notes = [] if progress.stopped else _failures(fit, limit, n_starts, problem, settled, settings)
    if notes:
        warn_user(notes[0])
    reason = "error settled" if settled else "max_iter reached"
    if not fit.is_sound(limit):
        reason = "no fit that predicts"
    report = Report(
        converged=not notes and not progress.stopped,
        reason=STOPPED if progress.stopped else reason,
        n_iter=progress.n_iter,
        validation_error=fit.validation,
        history=tuple(progress.history),
        seconds=perf_counter() - start,
        random_state=seed_of(settings.random_state),
        warnings=(*notes, *_notes_on_rows(data, where)),
    )
    return state, report, scale


def _failures(
    fit: _Fit, limit: float, n_starts: int, problem: Any, settled: bool, settings: Settings
) -> list[str]:
    """What keeps the fit from being one to rely on, worst first."""
    where, notes = settings.where, []
    if not fit.is_sound(limit):
        notes.append(
            f"{where}: the fit does not predict entries it has not seen: relative error {fit.validation:.2g} "
            f"on held-out entries, {fit.train:.2g} on the others, best of {n_starts} starts. There are too "
            f"few entries for this rank ({problem.entries.size:,} for {problem.n_params:,} parameters), the "
            "data have no such structure, or no start was good. Lower rank, add entries, or raise n_init."
        )
    if not settled:
        notes.append(
            f"{where}: the error on observed entries still fell by more than tol={settings.tol:g} of "
            f"itself in a sweep after max_iter={settings.max_iter} sweeps. Raise max_iter or tol."
        )
    return notes


def _notes_on_rows(data: Observed, where: str) -> list[str]:
    """Say which rows have no entries."""
    notes = []
    for n, unseen in enumerate(data.unseen()):
        rows = np.flatnonzero(unseen)
        if len(rows):
            more = ", ..." if len(rows) > 10 else ""
            notes.append(
                f"{where}: {len(rows):,} of {len(unseen):,} rows of mode {n} have no observed entry: "
                f"{', '.join(map(str, rows[:10]))}{more}. They are zero in its factor, and so is every "
                "prediction there."
            )
    return notes


def _scale(values: np.ndarray) -> float:
    """Root mean square, safe from overflow; 1 if all values are zero."""
    largest = float(np.max(np.abs(values)))
    return largest * math.sqrt(squared(values / largest) / values.size) if largest > 0 else 1.0


def _split(data: Observed, holdout: float, rng: np.random.Generator) -> tuple[Observed, Observed]:
    """Training and held-out entries, both in their order."""
    n_held = max(round(holdout * data.size), 1)
    held = np.zeros(data.size, dtype=bool)
    held[rng.permutation(data.size)[:n_held]] = True
    return data.take(~held), data.take(held)


def _limit(held: Observed, train: Observed) -> float:
    """Validation error that predictions of zero, or of the mean, nearly reach."""
    of_zero, of_mean = (root_mean_square(held.values - constant) for constant in (0.0, np.mean(train.values)))
    return min(_OF_ZERO * of_zero, _OF_MEAN * of_mean)


def root_mean_square(values: np.ndarray) -> float:
    """Of real or complex values.

    Examples
    --------
    >>> float(root_mean_square(np.array([3.0, 4.0j, 0.0, 0.0])))
    2.5
    """
    return math.sqrt(squared(values) / values.size)


def _search(
    problem: Any, held: Observed, limit: float, n_init: int, rng: np.random.Generator, progress: Progress
) -> tuple[_Fit, int]:
    """Start until the best validation error is sound and reached twice; best fit, number of starts."""
    fits: list[_Fit] = []
    for n in range(n_init):
        ridge = _RIDGE_STARTS[n % len(_RIDGE_STARTS)]
        fit = _anneal(problem, problem.start(rng), ridge, problem.sweeps, held, progress)
        fit = _repaired(problem, fit, held, progress)
        progress.log(
            "start %d: relative error %.3g, %.3g on entries held out", n + 1, fit.train, fit.validation
        )
        fits.append(fit)
        fits.sort(key=lambda fit: fit.validation)
        best = fits[0]
        again = len(fits) > 1 and fits[1].validation <= _SAME * best.validation
        if progress.stopped or best.validation <= _SUCCESS or (again and best.is_sound(limit)):
            break
    return fits[0], len(fits)


def _repaired(problem: Any, fit: _Fit, held: Observed, progress: Progress) -> _Fit:
    """Repair a fit for as long as that lowers its validation error, with less ridge when it does not."""
    ridges = list(_RIDGE_REPAIRS)
    for _ in range(2 * problem.max_repairs):
        if progress.stopped or not ridges or fit.validation <= _SUCCESS:
            break
        tried = _anneal(problem, problem.repair(fit.state), ridges[0], _REPAIR_SWEEPS, held, progress)
        if tried.validation < _GAIN * fit.validation:
            fit, ridges = tried, list(_RIDGE_REPAIRS)
        else:
            ridges.pop(0)
    return fit


def _anneal(problem: Any, state: Any, first: float, sweeps: int, held: Observed, progress: Progress) -> _Fit:
    """Sweep while the ridge falls, then a few times with the ridge that the noise calls for."""
    for ridge in np.geomspace(first, _RIDGE_LAST, sweeps):
        state, residual2 = problem.sweep(state, ridge, 0.0)
        train = math.sqrt(residual2 / problem.entries.size)
        if progress(train):
            break
    if not progress.stopped:
        state, train, _ = _settle(problem, state, train, _SETTLE, _SETTLED, 0.0, progress)
    validation = root_mean_square(problem.evaluate(state, held.indices) - held.values)
    return _Fit(state, train, math.inf if math.isnan(validation) else validation)  # NaN has no order


def _settle(
    problem: Any, state: Any, error: float, max_iter: int, tol: float, precision: float, progress: Progress
) -> tuple[Any, float, bool]:
    """Sweep until the error changes by less than ``tol`` of itself a sweep; state, error, whether it did.

    Each sweep starts from a point ahead, in the direction of the last step and ever further; when the error
    rises, the point ahead is given up.
    """
    ahead, momentum, history = state, 0.0, [error]
    for _ in range(max_iter):
        new, residual2 = problem.sweep(ahead, 0.0, _noise2(problem, history[-1]))
        error = math.sqrt(residual2 / problem.entries.size)
        if not error <= history[-1] and ahead is not state:
            ahead, momentum, error = state, 0.0, history[-1]
        else:
            ahead, state = problem.extrapolate(new, state, momentum), new
            momentum += _MOMENTUM
        history.append(error)
        calm = len(history) > _CALM + 1 and history[-1 - _CALM] - error <= _CALM * tol * error
        settled = progress(error) or calm or error <= 4 * precision
        if settled:
            break
    return state, error, settled and not progress.stopped


def _noise2(problem: Any, error: float) -> float:
    """Variance of the noise: the sum of squared residuals over what the parameters leave free."""
    size = problem.entries.size
    return error**2 * size / max(size - problem.n_params, size / 10)
