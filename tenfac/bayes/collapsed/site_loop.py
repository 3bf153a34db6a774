"""Sites and hyperparameters in turn, until their bound of the log evidence stops rising."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.hyper import Hyper, hyperprior, log_prior
from tenfac.bayes.collapsed.prediction import Prediction
from tenfac.bayes.collapsed.search import Learned, Task, learn
from tenfac.core.progress import Progress

Array = NDArray[Any]
_FIRST, _AGAIN = 40, 10  # L-BFGS iterations before the first update of the sites, and between updates
_STEPS_BETWEEN, _STEPS_AT_END = 4, 200
_ROUNDS = 100
_SMALLEST_STEP, _LARGEST_STEP = 1e-3, 16.0
_ROUND, _SLACK = 10.0, 1e-9  # in units of tol, and of one


class Sites(Protocol):
    """Gaussian observations that stand for others, and how they are improved."""

    fixed_noise: bool

    @property
    def targets(self) -> Array:
        """Values, shape (N,)."""
        ...

    @property
    def precision(self) -> Array:
        """Of one repeat of every row relative to the noise, shape (N,)."""
        ...

    def updated(self, mean: Array, variance: Array, hyper: Hyper, learn: bool) -> tuple[Any, Hyper]:
        """Sites given the moments of f at the rows, and the noise where that belongs to them."""
        ...

    def towards(self, other: Any, share: float) -> Any:
        """A part of the way to other sites."""
        ...

    def bound_beyond_evidence(self, mean: Array, variance: Array) -> float:
        """Bound of the log evidence less the log evidence of the sites."""
        ...


class Solved(NamedTuple):
    """Sites, hyperparameters and posterior that belong together.

    ``beyond`` is what the bound of the log evidence has beside the log evidence of the sites.
    """

    task: Task
    learned: Learned
    prediction: Prediction
    sites: Any
    beyond: float


@dataclass(frozen=True)
class _Point:
    """The posterior for some sites and hyperparameters, and its bound (hyperprior included)."""

    task: Task
    sites: Any
    prediction: Prediction
    mean: Array
    variance: Array
    beyond: float
    value: float

    @classmethod
    def at(cls, task: Task, sites: Any, hyper: Hyper) -> _Point:
        task = with_sites(task, sites)
        prediction = Learned(hyper, (), 0, 0, True).prediction(task)
        mean, variance = prediction.in_basis(list(task.positions))
        with np.errstate(over="ignore", invalid="ignore"):
            beyond = sites.bound_beyond_evidence(mean, variance)
            value = beyond + prediction.log_evidence + log_prior(hyper)[0]
        return cls(task, sites, prediction, mean, variance, beyond, value if np.isfinite(value) else -np.inf)

    @property
    def hyper(self) -> Hyper:
        return self.prediction.hyper


def learn_sites(
    task: Task, sites: Sites, max_iter: int, tol: float, verbose: int, start: Hyper | None = None
) -> Solved:
    """Alternate between steps of the sites, and L-BFGS iterations on their evidence.

    At sites that are optimal for the hyperparameters, the gradients of bound and of evidence agree. Both
    kinds of steps are shortened until the bound does not fall.
    """
    task = with_sites(task, sites)
    stage = Progress("FunctionalTucker", None, verbose)
    learned = learn(task, min(max_iter, _FIRST), tol, verbose, start)
    n_iter, n_evals = learned.n_iter, learned.n_evals
    history: list[float] = []
    close = tol * float(task.weights.sum())
    hyper = learned.hyper if max_iter == 0 else learned.prediction(task).hyper
    point, converged = _Point.at(task, sites, hyper), max_iter == 0
    while not converged and n_iter < max_iter and len(history) < _ROUNDS:
        before = point.value
        point, _ = _settle(point, _STEPS_BETWEEN, close, learn=True)
        point, iterations, evals = _relearn(point, min(_AGAIN, max_iter - n_iter), tol)
        n_iter, n_evals = n_iter + max(iterations, 1), n_evals + evals
        history.append(float(point.value))
        stage.log("round %d: bound %.6g after %d iterations", len(history), point.value, n_iter)
        converged = bool(abs(point.value - before) <= _ROUND * close)
    point, settled = _settle(point, _STEPS_AT_END, close, learn=False)
    learned = Learned(point.hyper, (*history, float(point.value)), n_iter, n_evals, converged and settled)
    return Solved(point.task, learned, point.prediction, point.sites, point.beyond)


def with_sites(task: Task, sites: Any) -> Task:
    """The task with the sites as its observations."""
    return replace(task, y=sites.targets, precision=sites.precision, fixed_noise=sites.fixed_noise)


def _settle(point: _Point, most: int, close: float, learn: bool) -> tuple[_Point, bool]:
    """Steps of the sites until one gains less than ``close``; whether that happened."""
    for _ in range(most):
        sites, hyper = point.sites.updated(point.mean, point.variance, point.hyper, learn)
        better = _line_search(point, sites, hyper)
        gain, point = better.value - point.value, better
        if gain <= close:
            return point, True
    return point, False


def _line_search(point: _Point, sites: Any, hyper: Hyper) -> _Point:
    """The longest step of 1, 1/2, 1/4, ... that does not lower the bound; none if all do."""
    share = 1.0
    while share > _SMALLEST_STEP:
        trial = _Point.at(point.task, point.sites.towards(sites, share), hyper)
        if trial.value >= point.value - _SLACK * abs(point.value):
            return trial
        share /= 2
    return point


def _relearn(point: _Point, budget: int, tol: float) -> tuple[_Point, int, int]:
    """Hyperparameters of higher evidence at these sites, as far as the bound rises with it, and beyond.

    The evidence of fixed sites is highest too close to where they were learned: alternating would creep.
    """
    learned = learn(point.task, budget, tol, 0, point.hyper)
    old, new = point.hyper.pack(), learned.hyper.pack()
    best = _Point.at(point.task, point.sites, learned.hyper)
    counts = learned.n_iter, learned.n_evals
    if old.size != new.size:
        return best, *counts
    lower, upper = hyperprior(point.hyper)[2:]

    def moved(share: float) -> _Point:
        theta = np.clip(old + share * (new - old), lower, upper)
        return _Point.at(point.task, point.sites, point.hyper.unpack(theta))

    share = 1.0
    if best.value >= point.value:
        while share < _LARGEST_STEP and (trial := moved(2 * share)).value > best.value:
            best, share = trial, 2 * share
        return best, *counts
    while best.value < point.value and share > _SMALLEST_STEP:
        share /= 4
        best = moved(share)
    return (best if best.value >= point.value else point), *counts
