"""Many starts at once for the weights of one mode, all others held: where few rows leave local maxima."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tenfac.bayes.sparse.ascent import Climb
from tenfac.bayes.sparse.problem import Problem
from tenfac.bayes.sparse.spectra import first_spectrum
from tenfac.bayes.sparse.statistics import products, squared
from tenfac.core.arrays import device_of, to_number
from tenfac.core.contract import adjoint, contract

# Sweeps of each start: enough to tell the good ones from the others.
_SWEEPS = 25
# Numbers in the largest array of all starts together.
_LARGEST = 2**22


class OneMode(NamedTuple):
    """A mode on its own: blocks ``t`` of measurements with covariance ``w_t A diag(g) A^H + noise``.

    Parameters
    ----------
    factor : array, shape (M, N)
    coupling : array, shape (N, m), or None
    blocks : array, shape (M, R)
    scales : array, shape (R,)
        ``w``.
    noise : float
    weights : array, shape (m,)
        Those found so far, zeros included.

    Examples
    --------
    >>> OneMode(None, None, None, None, 1.0, None).noise
    1.0
    """

    factor: Any
    coupling: Any
    blocks: Any
    scales: Any
    noise: float
    weights: Any


def one_mode(problem: Problem, found: Climb, i: int) -> OneMode:
    """The problem of mode ``i`` given what was found for the others.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.bayes.sparse.ascent import Options, climb, first_state
    >>> from tenfac.bayes.sparse.problem import problem_of
    >>> problem = problem_of([np.eye(2), np.eye(3)], np.ones((2, 3)))
    >>> start = first_state(problem, [np.ones(2), np.ones(3)], 0.1)
    >>> found = climb(start, problem.sizes, Options(0.1, 1.0, 0.0, 1, 1e-5), problem.xp)
    >>> one_mode(problem, found, 0).blocks.shape
    (2, 3)
    """
    xp, state = problem.xp, found.state
    turns: list[Any] = []
    values: list[Any] = []
    for k, mode in enumerate(state.modes):
        if k == i:
            turns.append(None)
            continue
        again, turn = first_spectrum(problem.factors[k][:, mode.columns], mode.weights, mode.coupling, xp)
        turns.append(turn)
        values.append(again.values)
    blocks = xp.moveaxis(contract(problem.measured, [*turns, None], xp=xp), i, 0)
    ones = problem.sizes.ones
    weights = xp.zeros(problem.sizes.counts[i], dtype=xp.float64, device=device_of(problem.measured))
    weights[state.modes[i].labels] = state.modes[i].weights
    return OneMode(
        problem.factors[i],
        problem.coupling[i],
        xp.reshape(blocks, (blocks.shape[0], -1)),
        products([*values, ones], xp),
        state.noise,
        weights,
    )


def best_of_many(one: OneMode, half: float, count: int, rng: np.random.Generator, xp: Any) -> Any:
    """Weights of the best of several random starts, or None if it is no better than what was found.

    Returns
    -------
    array, shape (m,), or None

    Notes
    -----
    All starts are swept together, ``count M (N + R)`` numbers at a time.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> import numpy as np
    >>> A = xp.asarray([[1.0, 0.0, 0.8], [0.0, 1.0, 0.6]])
    >>> one = OneMode(A, None, A[:, 2:] * 3, xp.ones(1), 1e-4, xp.asarray([5.0, 3.0, 0.0]))
    >>> best_of_many(one, 0.5, 8, np.random.default_rng(0), xp).argmax().tolist()
    2
    """
    columns = one.weights.shape[0]
    count = min(count, _LARGEST // (one.factor.shape[0] * (one.factor.shape[1] + one.scales.shape[0])))
    if count < 2:
        return None
    drawn = xp.asarray(rng.gamma(0.5, size=(count, columns)), device=device_of(one.weights))
    lengths = xp.sum(squared(one.factor, xp), axis=0)
    lengths = lengths if one.coupling is None else lengths @ one.coupling
    power = to_number(xp.sum(one.weights * lengths))
    weights = drawn * (power / xp.sum(drawn * lengths, axis=1))[:, None]
    weights = xp.concat([one.weights[None, :], weights])
    for _ in range(_SWEEPS):
        weights, _ = _sweep(one, weights, half, xp)
    _, values = _sweep(one, weights, half, xp)
    best = int(xp.argmax(values))
    gain = to_number(values[best] - values[0])
    return weights[best, :] if best and gain > 0.5 else None


def _sweep(one: OneMode, weights: Any, half: float, xp: Any) -> tuple[Any, Any]:
    """A fixed-point step of every start (B, m), and the evidence before it but for a constant."""
    gammas = weights if one.coupling is None else weights @ xp.matrix_transpose(one.coupling)
    scaled = one.factor * xp.sqrt(gammas)[:, None, :]
    gram = scaled @ adjoint(scaled, xp)
    values, vectors = xp.linalg.eigh(gram)
    values = xp.where(values > 0, values, 0.0)
    back = adjoint(vectors, xp)
    total = values[:, :, None] * one.scales + one.noise
    turned = back @ one.blocks
    evidence = -half * xp.sum(xp.log(total) + squared(turned, xp) / total, axis=(1, 2))
    part = turned * (xp.sqrt(one.scales) / total)
    axes = back @ one.factor
    product = (part @ adjoint(part, xp)) @ axes
    if half == 1.0:
        above = xp.sum(xp.real(axes) * xp.real(product) + xp.imag(axes) * xp.imag(product), axis=1)
    else:
        above = xp.sum(axes * product, axis=1)
    below = xp.sum(squared(axes, xp) * xp.sum(one.scales / total, axis=2)[:, :, None], axis=1)
    if one.coupling is not None:
        above, below = above @ one.coupling, below @ one.coupling
    return weights * above / (below + (below == 0)), evidence
