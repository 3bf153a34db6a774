"""Where climbs of the evidence begin: all columns alike, drawn at random, or one mode drawn anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tenfac.bayes.sparse.ascent import Climb, first_state
from tenfac.bayes.sparse.problem import Problem
from tenfac.bayes.sparse.statistics import State, squared
from tenfac.core.arrays import device_of, to_number

# Share of the measurements' energy that a start takes for noise.
_NOISE_SHARE = 0.1
# Squared length of a column, over the median, beyond which it does not count for more in a start.
_LONGEST = 1e4


def plain_start(problem: Problem, noise: float | None) -> State:
    """All weights equal, scaled so that the covariance of the measurements has their energy.

    Weights of columns that are more than 100 times longer or shorter than the median are such that the
    columns count as if they were 100 times so: the units of columns may differ by many orders.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.bayes.sparse.problem import problem_of
    >>> plain_start(problem_of([np.eye(2)], np.array([1.0, 1.0])), None).modes[0].weights.tolist()
    [0.9, 0.9]
    """
    lengths = [column_lengths(problem, i) for i in range(len(problem.factors))]
    return _scaled(problem, [evened(one, problem.xp) for one in lengths], noise)


def evened(lengths: Any, xp: Any) -> Any:
    """Weights of columns of these squared lengths: ones, but for columns far from the median.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> evened(xp.asarray([1.0, 2.0, 0.0, 4e8]), xp).tolist()
    [1.0, 1.0, 1.0, 5e-05]
    """
    used = lengths > 0
    if not to_number(xp.any(used)):
        return xp.ones_like(lengths)
    share = xp.where(used, lengths / xp.sort(lengths[used])[(int(xp.sum(used)) - 1) // 2], 1.0)
    near = xp.where(share < _LONGEST, share, _LONGEST)
    return xp.where(near > 1 / _LONGEST, near, 1 / _LONGEST) / share


def random_start(problem: Problem, noise: float | None, rng: np.random.Generator) -> State:
    """All weights drawn at random, scaled as in ``plain_start``.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.bayes.sparse.problem import problem_of
    >>> problem = problem_of([np.eye(2)], np.array([1.0, 1.0]))
    >>> random_start(problem, None, np.random.default_rng(0)).noise
    0.1
    """
    xp, device = problem.xp, device_of(problem.measured)
    drawn = [xp.asarray(_draws(rng, count), device=device) for count in problem.sizes.counts]
    return _scaled(problem, drawn, noise)


def hop_start(problem: Problem, found: Climb, i: int, noise: float | None, rng: np.random.Generator) -> State:
    """What was found, with all weights of mode ``i`` drawn anew and the noise between start and end.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.bayes.sparse.ascent import Options, climb
    >>> from tenfac.bayes.sparse.problem import problem_of
    >>> problem = problem_of([np.eye(2), np.eye(3)], np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.1]]))
    >>> options = Options(None, 1.0, 0.05, 9, 1e-5)
    >>> found = climb(plain_start(problem, None), problem.sizes, options, problem.xp)
    >>> hop_start(problem, found, 0, None, np.random.default_rng(0)).modes[0].weights.shape
    (2,)
    """
    xp, weights = problem.xp, found_weights(problem, found)
    lengths = column_lengths(problem, i)
    drawn = xp.asarray(_draws(rng, problem.sizes.counts[i]), device=device_of(problem.measured))
    weights[i] = drawn * (xp.sum(weights[i] * lengths) / xp.sum(drawn * lengths))
    first = _NOISE_SHARE * problem.total / math.prod(problem.measured.shape)
    return first_state(problem, weights, math.sqrt(first * found.state.noise) if noise is None else noise)


def found_weights(problem: Problem, found: Climb) -> list[Any]:
    """Weights of full length, zeros where a climb has let them go.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.bayes.sparse.problem import problem_of
    >>> problem = problem_of([np.eye(2)], np.array([1.0, 1.0]))
    >>> found = Climb(plain_start(problem, None), None, 0.0, (), True)
    >>> found_weights(problem, found)[0].tolist()
    [0.9, 0.9]
    """
    xp, device = problem.xp, device_of(problem.measured)
    weights = [xp.zeros(count, dtype=xp.float64, device=device) for count in problem.sizes.counts]
    for weight, mode in zip(weights, found.state.modes, strict=True):
        weight[mode.labels] = mode.weights
    return weights


def column_lengths(problem: Problem, i: int) -> Any:
    """What each weight of a mode adds to the trace of its covariance, shape (m,).

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.bayes.sparse.problem import problem_of
    >>> column_lengths(problem_of([np.eye(2)], np.ones(2)), 0).tolist()
    [1.0, 1.0]
    """
    lengths = problem.xp.sum(squared(problem.factors[i], problem.xp), axis=0)
    return lengths if problem.coupling[i] is None else lengths @ problem.coupling[i]


def _draws(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.gamma(0.5, size=count) + 1e-9


def _scaled(problem: Problem, weights: Sequence[Any], noise: float | None) -> State:
    """Weights scaled so that the covariance has the energy of the measurements."""
    shape = problem.measured.shape
    power = problem.total / math.prod(shape)
    noise = _NOISE_SHARE * power if noise is None else noise
    signal = max(power - noise, _NOISE_SHARE * power) * math.prod(shape[:-1])
    share = signal ** (1 / len(weights))
    traces = [to_number(problem.xp.sum(w * column_lengths(problem, i))) for i, w in enumerate(weights)]
    scaled = [w * (share / t) if t > 0 else w for w, t in zip(weights, traces, strict=True)]
    return first_state(problem, scaled, noise)
