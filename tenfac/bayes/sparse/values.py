"""Which structure the coefficients on the active box have: free, of rank one, a few terms, or Tucker."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from tenfac.bayes.sparse.box import Box
from tenfac.bayes.sparse.statistics import energy, squared
from tenfac.bayes.sparse.structured import Structured, ranges
from tenfac.core.arrays import to_numpy
from tenfac.core.contract import adjoint, contract
from tenfac.core.errors import ConvergenceWarning
from tenfac.core.truncate import truncate
from tenfac.decompose.cp.als import cp
from tenfac.decompose.hooi import hooi

_MAX_TERMS = 8
_MAX_JACOBIAN = 10**7  # numbers in the derivative of a sum of rank-one terms


class Structure(NamedTuple):
    """The box with the structure chosen, its name, and the criterion of all that were fitted.

    Examples
    --------
    >>> Structure(None, "full", {"full": 3.0}).name
    'full'
    """

    box: Box
    name: str
    bic: dict[str, float]


def structured(box: Box, measured: Any, values: str) -> Structure:
    """Fit low-rank coefficients on the active box by least squares, and choose by BIC if asked to.

    Parameters
    ----------
    box : Box
        The free posterior.
    measured : array, shape (M_0, ..., M_{I-1}, T)
    values : {"rank1", "auto"}

    Returns
    -------
    Structure

    Notes
    -----
    The measurements are projected on the ranges of the active columns; there a structure of the coefficients
    is the same structure of the projection, and least squares is its best approximation. The noise is that
    of the box. "auto" forms several arrays of the size of the box.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> Y, eye = xp.asarray([[[4.0], [2.0]], [[2.0], [1.0]]]), xp.eye(2)
    >>> box = Box(Y, (eye, eye), (xp.ones(2), xp.ones(2)), 0.01, xp)
    >>> structured(box, Y, "auto").name
    'rank1'
    """
    if 0 in box.shape:
        return Structure(box, "full", {})
    xp = box.xp
    bases = [ranges(factor, xp)[0] for factor in box.factors]
    seen = contract(measured, [*(adjoint(one, xp) for one in bases), None], xp=xp)
    left = energy(measured - contract(seen, [*bases, None], xp=xp), xp)
    score = _score(box, measured, left)
    one = _tucker(box, seen, [1] * seen.ndim)
    tried = {"full": (box, score(math.prod(seen.shape), 0.0)), "rank1": _scored(one, seen, score)}
    if values == "auto":
        core, _, _ = truncate(seen, seen.shape)
        least = _errors(to_numpy(squared(core, xp)))
        _try_tucker(box, seen, least, score, tried)
        _try_sums(box, seen, least / seen.ndim, score, tried)
    name = "rank1" if values == "rank1" else min(tried, key=lambda key: tried[key][1])
    return Structure(tried[name][0], name, {key: found[1] for key, found in tried.items()})


Score = Callable[[Any, Any], Any]


def _score(box: Box, measured: Any, left: float) -> Score:
    """BIC of a model with so many coefficients to learn and so much energy not explained in the ranges."""
    double = 2 if box.xp.isdtype(measured.dtype, "complex floating") else 1
    count = double * math.prod(measured.shape)
    fixed = count * math.log(2 * math.pi * box.noise / double)

    def score(numbers: Any, error: Any) -> Any:
        return fixed + double * (left + error) / box.noise + double * numbers * math.log(count)

    return score


def _scored(found: Structured, seen: Any, score: Score) -> tuple[Structured, float]:
    sizes, core, xp = seen.shape, found.core, found.xp
    if core.ndim == seen.ndim:
        numbers = _numbers(sizes, core.shape)
        fit = contract(core, found.vectors, xp=xp)
    else:
        numbers = core.shape[0] * (sum(sizes) - len(sizes) + 1)
        fit = _sum_of(core, found.vectors, xp)
    return found, float(score(numbers, energy(seen - fit, xp)))


def _numbers(sizes: Sequence[int], ranks: Sequence[Any]) -> Any:
    """Free parameters of a Tucker array."""
    return math.prod(ranks) + sum(r * (z - r) for z, r in zip(sizes, ranks, strict=True))


def _try_tucker(box: Box, seen: Any, error: np.ndarray, score: Score, tried: dict[str, Any]) -> None:
    """The ranks that the higher-order SVD prefers, unless even the best fit of such ranks cannot win.

    The best fit has at least one I-th of the squared error of the higher-order SVD.
    """
    ranks = np.meshgrid(*(np.arange(1, z + 1) for z in seen.shape), indexing="ij")
    numbers = _numbers(seen.shape, ranks)
    bound = score(numbers, error / seen.ndim)
    guess = np.where(bound < min(one[1] for one in tried.values()), score(numbers, error), np.inf)
    guess[(0,) * seen.ndim] = guess[(-1,) * seen.ndim] = np.inf
    guess[np.max(ranks, axis=0) ** 2 > np.prod(ranks, axis=0)] = np.inf  # no Tucker array has such ranks
    place = np.unravel_index(int(np.argmin(guess)), guess.shape)
    if guess[place] < np.inf:
        best = [int(r) + 1 for r in place]
        tried[f"tucker{_shown(best, box)}"] = _scored(_tucker(box, seen, best), seen, score)


def _errors(energies: np.ndarray) -> np.ndarray:
    """What truncating the higher-order SVD to ranks ``index + 1`` leaves out; a sum without cancellation."""
    error, inside = np.zeros(energies.shape), energies
    for axis in range(energies.ndim):
        tail = np.flip(np.cumsum(np.flip(inside, axis), axis), axis)
        tail = np.delete(np.insert(tail, tail.shape[axis], 0.0, axis), 0, axis)
        error = error + tail.sum(axis=tuple(range(axis + 1, energies.ndim)), keepdims=True)
        inside = np.cumsum(inside, axis)
    return error


def _shown(ranks: Sequence[int], box: Box) -> str:
    """Ranks of the modes, and of the snapshots if there are any."""
    shown = ranks if box.mean.shape[-1] > 1 else ranks[:-1]
    return "(" + ", ".join(map(str, shown)) + ")"


def _try_sums(box: Box, seen: Any, least: np.ndarray, score: Score, tried: dict[str, Any]) -> None:
    """Sums of two, three, ... rank-one terms, while they win; of matrices they are Tucker arrays.

    ``least[r_0 - 1, r_1 - 1, ...]`` is an error below which no array of these ranks comes.
    """
    sizes, total = seen.shape, math.prod(seen.shape)
    if sum(z > 1 for z in sizes) < 3:
        return
    each, before = sum(sizes) - len(sizes) + 1, tried["rank1"][1]
    for terms in range(2, min(_MAX_TERMS, total // max(sizes)) + 1):
        best = min(one[1] for one in tried.values())
        if terms * each * total > _MAX_JACOBIAN or score(terms * each, 0.0) >= best:
            return
        if score(terms * each, least[tuple(min(terms, z) - 1 for z in sizes)]) >= best:
            continue
        found = _scored(_sum(box, seen, terms), seen, score)
        tried[f"cp({terms})"] = found
        if found[1] > before:
            return
        before = found[1]


def _tucker(box: Box, seen: Any, ranks: Sequence[int]) -> Structured:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = hooi(seen, ranks, max_iter=300, tol=1e-10)
    return _filled(box, found.core, found.factors)


def _sum(box: Box, seen: Any, terms: int) -> Structured:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = cp(seen, terms, n_init=4, max_iter=500)
    return _filled(box, found.weights, found.factors)


def _filled(box: Box, core: Any, vectors: Sequence[Any]) -> Structured:
    """The coefficients that a low-rank array in the ranges of the factors stands for."""
    xp = box.xp
    found = Structured(box.mean, box.factors, box.gammas, box.noise, xp, core=core, vectors=tuple(vectors))
    ahead = [back @ one for back, one in zip(found._backs, vectors, strict=True)]
    mean = contract(core, ahead, xp=xp) if core.ndim == len(ahead) else _sum_of(core, ahead, xp)
    return replace(found, mean=mean)


def _sum_of(weights: Any, vectors: Sequence[Any], xp: Any) -> Any:
    """Sum of weighted rank-one terms."""
    result = vectors[0] * weights
    for one in vectors[1:]:
        result = result[..., None, :] * one
    return xp.sum(result, axis=-1)
