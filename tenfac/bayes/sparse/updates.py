"""Sweeps over the modes: the block fixed point and its monotone form, each with the noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tenfac.bayes.sparse.spectra import Spectrum, kept
from tenfac.bayes.sparse.statistics import Moments, Sizes, State, energy, noise_ratio, squared, weight_ratios
from tenfac.core.arrays import to_number

# Weights that add less than this share of the largest to the variance are let go during the sweeps.
_FLOOR = 1e-8


def sweep(state: State, sums: Moments, sizes: Sizes, exponent: float, learn_noise: bool, xp: Any) -> State:
    """Update the noise and every mode once.

    Each weight is multiplied by ``(a / b)**exponent``: exponent 1 is MacKay's fixed point, 1/2 the
    majorise-minimise step, under which the evidence cannot fall [1]_.

    References
    ----------
    .. [1] H. Zhou, L. Hu, J. Zhou, K. Lange, MM Algorithms for Variance Components Models, Journal of
       Computational and Graphical Statistics 28 (2019), section 3. arXiv:1509.07426

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from tenfac.bayes.sparse.spectra import spectrum
    >>> from tenfac.bayes.sparse.statistics import moments
    >>> mode = spectrum(xp.eye(1), xp.arange(1), xp.ones(1), xp.arange(1), None, xp)
    >>> state, sizes = State((mode,), xp.full((1, 1), 2.0), 0.0, 1.0), Sizes(1, xp.ones(1), 0.5, 0.0, (1,))
    >>> sweep(state, moments(state, sizes, xp), sizes, 1.0, False, xp).modes[0].weights.tolist()
    [2.0]
    """
    noise = state.noise
    if learn_noise:
        noise = max(noise * noise_ratio(state, sums, sizes) ** exponent, sizes.least_noise)
    modes, turned, outside = list(state.modes), state.turned, state.outside
    for i in range(len(modes)):
        above, below = weight_ratios(modes, i, turned, noise, sizes, xp)
        ratio = above / (below + (below == 0))
        weights = modes[i].weights * (ratio if exponent == 1.0 else ratio**exponent)
        modes[i], turned, lost = replaced(modes[i], weights, _keep(modes[i], weights, xp), turned, xp)
        turned, outside = in_front(turned, modes, i + 1, sizes, xp), outside + lost
    return State(tuple(modes), turned, outside, noise)


def _keep(mode: Spectrum, weights: Any, xp: Any) -> Any:
    lengths = xp.sum(squared(mode.turned, xp), axis=0)
    added = weights * (lengths if mode.coupling is None else lengths @ mode.coupling)
    keep = added > _FLOOR * xp.max(added)
    return None if to_number(xp.all(keep)) else keep


def replaced(mode: Spectrum, weights: Any, keep: Any, turned: Any, xp: Any) -> tuple[Spectrum, Any, float]:
    """Give the mode in front new weights, and move its axis to the end.

    Parameters
    ----------
    mode : Spectrum
    weights : array, shape (m,)
    keep : array of bool, shape (m,), or None
        The weights that stay; None for all.
    turned : array, shape (r, rest)
    xp : module

    Returns
    -------
    mode : Spectrum
    turned : array, shape (rest, r')
    lost : float
        Energy of the measurements that the range of the mode has lost.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from tenfac.bayes.sparse.spectra import spectrum
    >>> old = spectrum(xp.eye(2), xp.arange(2), xp.ones(2), xp.arange(2), None, xp)
    >>> _, turned, lost = replaced(old, old.weights, xp.asarray([True, False]), xp.ones((2, 3)), xp)
    >>> turned.shape, lost
    ((3, 1), 3.0)
    """
    new, turn = kept(mode, weights, keep, xp)
    flipped = xp.matrix_transpose(turned)
    result = flipped @ xp.matrix_transpose(turn)
    if turn.shape[0] == turn.shape[1]:
        return new, result, 0.0
    back = xp.conj(turn) if xp.isdtype(turn.dtype, "complex floating") else turn
    return new, result, energy(flipped - result @ back, xp)


def in_front(turned: Any, modes: Sequence[Spectrum], i: int, sizes: Sizes, xp: Any) -> Any:
    """Flatten all axes but the first, that of mode ``i``; after the last mode, begin again with mode 0.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from tenfac.bayes.sparse.spectra import spectrum
    >>> mode = spectrum(xp.eye(2), xp.arange(2), xp.ones(2), xp.arange(2), None, xp)
    >>> in_front(xp.ones((6, 2)), [mode], 1, Sizes(2, xp.ones(6), 0.5, 0.0, (1,)), xp).shape
    (2, 6)
    """
    if i < len(modes):
        return xp.reshape(turned, (modes[i].values.shape[0], -1))
    snapshots = sizes.ones.shape[0]
    if snapshots > 1:  # they are in front, and belong at the end
        turned = xp.matrix_transpose(xp.reshape(turned, (snapshots, -1)))
    return xp.reshape(turned, (modes[0].values.shape[0], -1))
