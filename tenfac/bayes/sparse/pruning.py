"""Which columns the evidence can do without: exact gains of single columns, and when they are significant."""

from __future__ import annotations

from typing import Any

from scipy.stats import chi2

from tenfac.bayes.sparse.spectra import Spectrum
from tenfac.bayes.sparse.statistics import (
    Moments,
    Sizes,
    State,
    empty_evidence,
    energy,
    evidence,
    moments,
    others,
    squared,
)
from tenfac.bayes.sparse.updates import in_front, replaced
from tenfac.core.arrays import device_of, eps, spans

# Numbers in a block of pairs of a column and a place of the other modes.
_BLOCK = 2**18


def threshold(alpha: float, count: int) -> float:
    """Least gain in log evidence of a column that is significant at level ``alpha`` among ``count``.

    A variance that is zero is at the border: twice the gain is 0 half of the time, and chi-squared with one
    degree of freedom else. The level is shared among the columns (Bonferroni).

    Examples
    --------
    >>> round(threshold(0.05, 15), 2)
    3.68
    """
    return float(chi2.isf(min(2 * alpha / count, 1.0), 1)) / 2


def column_gains(state: State, i: int, turned: Any, sizes: Sizes, xp: Any) -> Any:
    """Log evidence that each weight of mode ``i`` adds, all other hyperparameters as they are.

    Parameters
    ----------
    state : State
        Its ``turned`` is not read.
    i : int
    turned : array, shape (r_i, rest)
        Measurements in the cyclic order of axes that begins with mode ``i``.
    sizes : Sizes
    xp : module

    Returns
    -------
    array, shape (m,)

    Notes
    -----
    Deleting a column subtracts a matrix of rank one from each block of the covariance; ``n M`` operations in
    blocks. With coupling the rank is the number of columns of a weight, ``k``: ``k^2 M`` operations each.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from tenfac.bayes.sparse.spectra import spectrum
    >>> mode = spectrum(xp.eye(1), xp.arange(1), xp.full(1, 9.0), xp.arange(1), None, xp)
    >>> state, sizes = State((mode,), None, 0.0, 1.0), Sizes(1, xp.ones(1), 0.5, 0.0, (1,))
    >>> column_gains(state, 0, xp.full((1, 1), 4.0), sizes, xp).round(2).tolist()  # (9/10 16 - log 10) / 2
    [6.05]
    """
    mode, rest = state.modes[i], others(state.modes, i, sizes, xp)
    if mode.coupling is not None:
        return _coupled_gains(mode, rest, turned, state.noise, sizes, xp)
    axes = mode.turned * xp.sqrt(mode.gammas)
    shares, back = squared(axes, xp), xp.conj(axes) if sizes.half == 1.0 else axes
    shares, back = xp.matrix_transpose(shares), xp.matrix_transpose(back)
    gains = 0.0
    for span in spans(rest.shape[0], max(_BLOCK // shares.shape[0], 1)):
        inverse = 1.0 / (mode.values[:, None] * rest[span] + state.noise)
        left = 1.0 - shares @ (inverse * rest[span])
        left = xp.where(left > eps(left.dtype), left, eps(left.dtype))
        explained = squared(back @ (turned[:, span] * (inverse * xp.sqrt(rest[span]))), xp)
        gains = gains + xp.sum(xp.log(left) + explained / left, axis=1)
    return sizes.half * gains


def _coupled_gains(mode: Spectrum, rest: Any, turned: Any, noise: float, sizes: Sizes, xp: Any) -> Any:
    """Gains of weights that stand for several columns each."""
    scaled = mode.coupling * mode.weights
    inverse = 1.0 / (mode.values[:, None] * rest + noise)
    part = turned * (inverse * xp.sqrt(rest))
    gains = []
    for j in range(scaled.shape[1]):
        used = scaled[:, j] > 0
        axes = mode.turned[:, used] * xp.sqrt(scaled[used, j])
        back = xp.conj(axes) if sizes.half == 1.0 else axes
        k = axes.shape[1]
        pairs = xp.reshape(back[:, :, None] * axes[:, None, :], (axes.shape[0], k * k))
        shares = xp.matrix_transpose(pairs) @ xp.astype(inverse * rest, pairs.dtype)
        blocks = xp.reshape(xp.matrix_transpose(shares), (-1, k, k))
        values, vectors = xp.linalg.eigh(xp.eye(k, dtype=blocks.dtype, device=device_of(blocks)) - blocks)
        left = xp.where(values > eps(values.dtype), values, eps(values.dtype))
        explained = xp.matrix_transpose(xp.matrix_transpose(back) @ part)  # (rest, k)
        rotated = (
            xp.matrix_transpose(xp.conj(vectors) if sizes.half == 1.0 else vectors) @ explained[:, :, None]
        )
        gains.append(xp.sum(xp.log(left)) + xp.sum(squared(rotated[:, :, 0], xp) / left))
    return sizes.half * xp.stack(gains)


def all_gains(state: State, sizes: Sizes, xp: Any) -> tuple[Any, ...]:
    """Gains of the weights of every mode (see ``column_gains``).

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> all_gains(State((), None, 0.0, 1.0), Sizes(1, xp.ones(1), 0.5, 0.0, ()), xp)
    ()
    """
    found, turned = [], state.turned
    for i in range(len(state.modes)):
        found.append(column_gains(state, i, turned, sizes, xp))
        turned = in_front(xp.matrix_transpose(turned), state.modes, i + 1, sizes, xp)
    return tuple(found)


def pruned(state: State, sums: Moments, sizes: Sizes, alpha: float, xp: Any) -> State | None:
    """Delete the columns whose gain is not significant.

    Returns
    -------
    State or None
        None if nothing is deleted; without modes if nothing is left.

    Notes
    -----
    Gains are those of single columns. Where deleting several together costs more evidence than they may
    have (columns that stand in for each other), only the half with the smallest gains is deleted, and so on.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from tenfac.bayes.sparse.spectra import spectrum
    >>> mode = spectrum(xp.eye(2), xp.arange(2), xp.asarray([9.0, 0.1]), xp.arange(2), None, xp)
    >>> state = State((mode,), mode.vectors.T @ xp.asarray([[4.0], [0.3]]), 0.0, 1.0)
    >>> sizes = Sizes(2, xp.ones(1), 0.5, 0.0, (2,))
    >>> pruned(state, moments(state, sizes, xp), sizes, 0.05, xp).modes[0].labels.tolist()
    [0]
    """
    modes, turned, outside = list(state.modes), state.turned, state.outside
    value, total = evidence(state, sums, sizes), energy(turned, xp) + outside
    found, least = False, threshold(alpha, sum(sizes.counts))
    for i in range(len(modes)):
        gains = column_gains(State(tuple(modes), None, outside, state.noise), i, turned, sizes, xp)
        order = xp.argsort(gains)
        count = int(xp.sum(xp.astype(gains < least, xp.int64)))
        while True:
            mode, moved, lost = _without(modes[i], order[:count], turned, xp)
            if mode is None:
                new_value = empty_evidence(total, state.noise, sizes)
            elif count:
                trial = [*modes[:i], mode, *modes[i + 1 :]]
                new = State(
                    tuple(trial), in_front(moved, trial, i + 1, sizes, xp), outside + lost, state.noise
                )
                new_value = evidence(new, moments(new, sizes, xp, front=(i + 1) % len(modes)), sizes)
            if count < 2 or value - new_value <= count * least:
                break
            count = (count + 1) // 2
        if mode is None:
            return State((), None, total, state.noise)
        if count:
            found, value = True, new_value
        modes[i], outside = mode, outside + lost
        turned = in_front(moved, modes, i + 1, sizes, xp)
    return State(tuple(modes), turned, outside, state.noise) if found else None


def _without(mode: Spectrum, places: Any, turned: Any, xp: Any) -> tuple[Spectrum | None, Any, float]:
    """Delete weights of the mode in front, whose axis goes to the end; None if all go."""
    if not places.shape[0]:
        return mode, xp.matrix_transpose(turned), 0.0
    if places.shape[0] == mode.weights.shape[0]:
        return None, turned, 0.0
    gone = xp.any(xp.arange(mode.weights.shape[0], device=device_of(places))[:, None] == places, axis=1)
    return replaced(mode, mode.weights, ~gone, turned, xp)
