"""From a start to a maximum of the evidence: guarded sweeps, and pruning where they have converged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from tenfac.bayes.sparse.problem import Problem
from tenfac.bayes.sparse.pruning import pruned
from tenfac.bayes.sparse.spectra import first_spectrum
from tenfac.bayes.sparse.statistics import Moments, Sizes, State, energy, evidence, moments
from tenfac.bayes.sparse.updates import sweep
from tenfac.core.contract import contract

# An evidence is taken as known to this share of the sum of its terms.
_ROUNDING = 1e-13


class Options(NamedTuple):
    """How to climb.

    Parameters
    ----------
    noise : float or None
        Variance of the noise of the scaled measurements; None learns it.
    exponent : float
        1 for the fixed point, 1/2 for the monotone step.
    alpha : float
        Level of the pruning; 0 for none.
    max_iter : int
        Most sweeps.
    tol : float
        Converged when a sweep gains less than this per measurement.

    Examples
    --------
    >>> Options(None, 1.0, 0.05, 500, 1e-5).max_iter
    500
    """

    noise: float | None
    exponent: float
    alpha: float
    max_iter: int
    tol: float


class Climb(NamedTuple):
    """Where a climb ended, and what it went through.

    Examples
    --------
    >>> Climb(None, None, -1.0, (-1.0,), True).converged
    True
    """

    state: State
    sums: Moments
    evidence: float
    trace: tuple[float, ...]
    converged: bool


def first_state(problem: Problem, weights: Sequence[Any], noise: float) -> State:
    """Put the measurements into the axes of a prior.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.bayes.sparse.problem import problem_of
    >>> problem = problem_of([np.eye(3, 1), np.eye(2)], np.ones((3, 2)))
    >>> state = first_state(problem, [np.ones(1), np.ones(2)], 1.0)
    >>> state.turned.shape, state.outside
    ((1, 2), 4.0)
    """
    xp, y = problem.xp, problem.measured
    pairs = [
        first_spectrum(factor, weight, one, xp)
        for factor, weight, one in zip(problem.factors, weights, problem.coupling, strict=True)
    ]
    modes, turns = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    turned = contract(y, [*turns, None], xp=xp)
    outside = 0.0
    if any(turn.shape[0] < turn.shape[1] for turn in turns):
        back = [xp.conj(xp.matrix_transpose(turn)) for turn in turns]
        outside = energy(y - contract(turned, [*back, None], xp=xp), xp)
    return State(tuple(modes), xp.reshape(turned, (turned.shape[0], -1)), outside, noise)


def climb(state: State, sizes: Sizes, options: Options, xp: Any) -> Climb:
    """Sweep until converged, prune, and sweep again until nothing more is pruned.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.bayes.sparse.problem import problem_of
    >>> problem = problem_of([np.eye(3)], np.array([9.0, 0.1, -0.1]))
    >>> state = first_state(problem, [np.ones(3)], 0.001)
    >>> climb(state, problem.sizes, Options(0.001, 1.0, 0.05, 100, 1e-5), problem.xp).converged
    True
    """
    sums = moments(state, sizes, xp)
    value = evidence(state, sums, sizes)
    trace, converged = [value], False
    while len(trace) <= options.max_iter:
        state, sums, value, converged = _guarded(state, sums, value, trace, sizes, options, xp)
        if not converged or not options.alpha:
            break
        slimmer = pruned(state, sums, sizes, options.alpha, xp)
        if slimmer is None:
            break
        state = slimmer
        if not state.modes:
            break
        sums = moments(state, sizes, xp)
        value = evidence(state, sums, sizes)
        converged = False
    return Climb(state, sums, value, tuple(trace), converged)


def _guarded(
    state: State, sums: Moments, value: float, trace: list[float], sizes: Sizes, options: Options, xp: Any
) -> tuple[State, Moments, float, bool]:
    """Sweep until a sweep gains next to nothing; a sweep that loses is done again the monotone way."""
    learn = options.noise is None
    least = options.tol * sizes.measurements * sizes.ones.shape[0]
    while len(trace) <= options.max_iter:
        exponent = options.exponent
        while True:
            new = sweep(state, sums, sizes, exponent, learn, xp)
            new_sums = moments(new, sizes, xp)
            new_value = evidence(new, new_sums, sizes)
            slack = _ROUNDING * (
                abs(new_sums.logdet) + new_sums.quadratic + new.outside / new.noise + abs(value)
            )
            if new_value >= value - slack or exponent < 1.0:
                break
            exponent = 0.5
        gain = new_value - value
        if not math.isfinite(new_value) or gain < -slack:
            return state, sums, value, True  # rounding is all that is left
        state, sums, value = new, new_sums, new_value
        trace.append(value)
        if gain < least:
            return state, sums, value, True
    return state, sums, value, False
