"""Where climbs of the evidence begin."""

from __future__ import annotations

import math

from ...core.arrays import device_of
from .ascent import first_state
from .problem import Problem
from .statistics import State, squared

# Share of the measurements' energy that a start takes for noise.
_NOISE_SHARE = 0.1


def plain_start(problem: Problem, noise: float | None) -> State:
    """All weights equal, scaled so that the covariance of the measurements has their energy.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.bayes.sparse.problem import problem_of
    >>> plain_start(problem_of([np.eye(2)], np.array([1.0, 1.0])), None).modes[0].weights.tolist()
    [0.9, 0.9]
    """
    xp, y = problem.xp, problem.measured
    count = math.prod(y.shape)
    power = problem.total / count
    noise = _NOISE_SHARE * power if noise is None else noise
    traces = []
    for factor, one in zip(problem.factors, problem.coupling, strict=True):
        lengths = xp.sum(squared(factor, xp), axis=0)
        lengths = lengths if one is None else lengths @ one
        traces.append(float(xp.sum(lengths)))
    rows = math.prod(y.shape[:-1])
    signal = max(power - noise, _NOISE_SHARE * power) * rows
    share = signal ** (1 / len(traces))
    weights = [
        xp.full(count, share / trace, dtype=xp.float64, device=device_of(y))
        for count, trace in zip(problem.sizes.counts, traces, strict=True)
    ]
    return first_state(problem, weights, noise)
