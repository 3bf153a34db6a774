"""From a checked problem to its best solution: several starts, chosen by their evidence."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import chi2

from ...core.arrays import device_of, to_number
from ...core.progress import Progress
from .ascent import Climb, Options, climb, first_state
from .problem import Problem
from .pruning import all_gains
from .search import best_of_many, one_mode
from .solution import Solution
from .starts import found_weights, hop_start, plain_start, random_start
from .statistics import Moments, State, empty_evidence, energy, evidence, moments

# Starts tried at once for a mode with few rows, and how often all such modes are gone through.
_MANY = 16
_ROUNDS = 2


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
    problem: Problem,
    options: Options,
    n_starts: int,
    n_hops: int,
    rng: np.random.Generator,
    progress: Progress | None = None,
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
    progress = progress or Progress("recover")
    if problem.total == 0 or any(energy(factor, problem.xp) == 0 for factor in problem.factors):
        return _nothing(problem, options, "nothing but noise can be in the measurements")
    starts: list[float] = []
    best: Any = None
    for number in range(n_starts + n_hops):
        state = _start(problem, options, best, number, n_starts, rng)
        tried = climb(state, problem.sizes, options, problem.xp)
        tried = _searched(problem, options, tried, rng)
        starts.append(_in_units(problem, tried.evidence))
        columns = [mode.labels.shape[0] for mode in tried.state.modes]
        progress.log("start %d: log evidence %.6g, columns %s", number + 1, starts[-1], columns)
        progress.move()
        best = tried if best is None or tried.evidence > best.evidence else best
    best = _without_chance(problem, options, best)
    return Found(best, _solution(problem, best, options), tuple(starts), _gains(problem, best))


def found_by(problem: Problem, solution: Solution) -> Found:
    """What the engine makes of a solution that another solver found: posterior, gains, residual.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.bayes.sparse.problem import problem_of
    >>> problem = problem_of([np.eye(2)], np.array([4.0, 0.0]))
    >>> solution = Solution((np.array([9.0, 0.0]),), 1.0, -3.0, (), 1, True, "")
    >>> found_by(problem, solution).climb.state.modes[0].columns.tolist()
    [0]
    """
    if problem.total == 0 or any(to_number(problem.xp.max(g)) == 0 for g in solution.gammas):
        options = Options(solution.noise_variance / problem.scale**2, 1.0, 0.0, 0, 1.0)
        return _nothing(problem, options, solution.reason)
    xp, sizes = problem.xp, problem.sizes
    weights = [xp.astype(g, xp.float64) for g in solution.gammas]
    weights[-1] = weights[-1] / problem.unit**2
    state = first_state(problem, weights, solution.noise_variance / problem.scale**2)
    sums = moments(state, sizes, xp)
    made = Climb(state, sums, evidence(state, sums, sizes), solution.trace, solution.converged)
    return Found(made, solution, (solution.evidence,), all_gains(state, sizes, xp))


def _start(
    problem: Problem,
    options: Options,
    best: Climb | None,
    number: int,
    n_starts: int,
    rng: np.random.Generator,
) -> State:
    """All columns alike; then the hardest mode anew; then all modes at random; hops: one mode at random."""
    if best is None:
        return plain_start(problem, options.noise)
    if not best.state.modes or 1 < number < n_starts:
        return random_start(problem, options.noise, rng)
    rows = problem.measured.shape
    if number == 1 < n_starts:
        taken = [mode.weights.shape[0] / m for mode, m in zip(best.state.modes, rows, strict=False)]
        i = int(np.argmax(taken))
    else:
        hardness = np.array([(n / m) ** 2 for n, m in zip(problem.sizes.counts, rows, strict=False)])
        i = int(rng.choice(len(hardness), p=hardness / hardness.sum()))
    return hop_start(problem, best, i, options.noise, rng)


def _searched(problem: Problem, options: Options, found: Climb, rng: np.random.Generator) -> Climb:
    """Try many starts at once for each mode that has at least half as many active columns as rows."""
    for _ in range(_ROUNDS):
        before = found
        for i in range(len(problem.factors)):
            if not found.state.modes:
                return found
            rows, columns = problem.measured.shape[i], problem.sizes.counts[i]
            if rows >= columns or 2 * found.state.modes[i].weights.shape[0] < rows:
                continue
            one = one_mode(problem, found, i)
            better = best_of_many(one, problem.sizes.half, _MANY, rng, problem.xp)
            if better is not None:
                weights = found_weights(problem, found)
                weights[i] = better
                state = first_state(problem, weights, found.state.noise)
                tried = climb(state, problem.sizes, options, problem.xp)
                found = tried if tried.evidence > found.evidence else found
        if found is before:
            break
    return found


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
        noise_variance=found.state.noise * problem.scale**2,
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
