"""From a checked problem to its best solution: several starts, chosen by their evidence."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import chi2

from ...core.arrays import device_of
from .ascent import Climb, Options, climb
from .problem import Problem
from .pruning import all_gains
from .solution import Solution
from .starts import plain_start
from .statistics import Moments, State, empty_evidence


class Found(NamedTuple):
    """The best climb in scaled units, the solution in those of the user, evidences of starts, gains.

    Examples
    --------
    >>> Found(None, None, (-1.0,), ()).starts
    (-1.0,)
    """

    climb: Climb
    solution: Solution
    starts: tuple[float, ...]
    gains: tuple[Any, ...]


def recover(
    problem: Problem, options: Options, n_starts: int, n_hops: int, rng: np.random.Generator
) -> Found:
    """Maximise the evidence from several starts.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.bayes.sparse.problem import problem_of
    >>> problem = problem_of([np.eye(4)], np.array([9.0, 0.1, -0.1, 0.1]))
    >>> found = recover(problem, Options(None, 1.0, 0.05, 500, 1e-5), 1, 0, np.random.default_rng(0))
    >>> found.solution.gammas[0].nonzero()
    (array([0]),)
    """
    if problem.total == 0:
        return _nothing(problem, options, "the measurements are zero")
    xp, sizes = problem.xp, problem.sizes
    best = climb(plain_start(problem, options.noise), sizes, options, xp)
    starts = [best.evidence]
    best = _without_chance(problem, options, best)
    solution = _solution(problem, best, options)
    gains = _gains(problem, best)
    return Found(best, solution, tuple(_in_units(problem, one) for one in starts), gains)


def _gains(problem: Problem, best: Climb) -> tuple[Any, ...]:
    if best.state.modes:
        return all_gains(best.state, problem.sizes, problem.xp)
    xp, like = problem.xp, problem.measured
    return tuple(xp.zeros(0, dtype=xp.float64, device=device_of(like)) for _ in problem.factors)


def _in_units(problem: Problem, value: float) -> float:
    """An evidence of the scaled measurements as one of the measurements."""
    count = math.prod(problem.measured.shape)
    return value - 2 * problem.sizes.half * count * math.log(problem.scale)


def empty_climb(problem: Problem, options: Options, trace: tuple[float, ...] = ()) -> Climb:
    """The model in which the measurements are nothing but noise.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.bayes.sparse.problem import problem_of
    >>> empty_climb(problem_of([np.eye(1)], np.ones(1)), Options(None, 1.0, 0.05, 9, 1e-5)).state.noise
    1.0
    """
    total = problem.total
    noise = total / math.prod(problem.measured.shape) if options.noise is None else options.noise
    value = empty_evidence(total, noise, problem.sizes) if noise > 0 else math.inf
    return Climb(State((), None, total, noise), Moments(0.0, 0.0, 0.0, 0.0), value, (*trace, value), True)


def _without_chance(problem: Problem, options: Options, best: Climb) -> Climb:
    """The empty model, if what was found is no better than what chance finds among as many boxes."""
    empty = empty_climb(problem, options, best.trace)
    if not best.state.modes:
        return empty
    if not options.alpha:
        return best
    chances = 0.0
    for mode, count in zip(best.state.modes, problem.sizes.counts, strict=True):
        k = mode.weights.shape[0]
        chances += math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
    level = math.log(2 * options.alpha) - chances
    least = float(chi2.isf(math.exp(level), 1)) / 2 if level > -600 else -level
    return best if best.evidence - empty.evidence > least else empty


def _nothing(problem: Problem, options: Options, reason: str) -> Found:
    best = empty_climb(problem, options)
    return Found(
        best,
        _solution(problem, best, options, reason),
        (_in_units(problem, best.evidence),),
        _gains(problem, best),
    )


def _solution(problem: Problem, found: Climb, options: Options, reason: str | None = None) -> Solution:
    if reason is None:
        what = "a sweep gained less than tol" if found.state.modes else "nothing but noise was found"
        reason = what if found.converged else f"stopped after max_iter={options.max_iter} sweeps"
    return Solution(
        gammas=_gammas(problem, found.state),
        noise=found.state.noise * problem.scale**2,
        evidence=_in_units(problem, found.evidence),
        trace=tuple(_in_units(problem, value) for value in found.trace),
        n_iter=len(found.trace) - 1,
        converged=found.converged,
        reason=reason,
    )


def _gammas(problem: Problem, state: State) -> tuple[Any, ...]:
    """Variances of full length in the units of the user: unit norm but for the last mode."""
    xp, like = problem.xp, problem.measured
    zeros = [xp.zeros(size, dtype=xp.float64, device=device_of(like)) for size in problem.shape]
    if not state.modes:
        return tuple(zeros)
    scale = problem.unit**2
    result: list[Any] = []
    for i, (mode, full) in enumerate(zip(state.modes, zeros, strict=True)):
        norm = float(xp.linalg.vector_norm(mode.gammas))
        last = i + 1 == len(zeros)
        full[mode.columns] = mode.gammas * (scale if last else 1 / norm)
        scale *= norm
        result.append(full)
    return tuple(result)
