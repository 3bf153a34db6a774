"""What the evidence needs of the measurements, without any array of the size of the unknowns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from tenfac.bayes.sparse.spectra import Spectrum
from tenfac.core.arrays import spans, to_number
from tenfac.core.contract import adjoint

# Numbers in a block of measurements: small enough for all passes over it to stay in the cache.
_BLOCK = 2**15


class Sizes(NamedTuple):
    """What stays the same while hyperparameters change.

    Parameters
    ----------
    measurements : int
        M, of one snapshot.
    ones : array, shape (T,)
        A one per snapshot.
    half : float
        1/2 for real measurements, 1 for complex ones.
    least_noise : float
        Below it, noise is not learned.
    counts : tuple of int
        Numbers of weights per mode.

    Examples
    --------
    >>> import numpy as np
    >>> Sizes(10, np.ones(1), 0.5, 0.0, (1,)).measurements
    10
    """

    measurements: int
    ones: Any
    half: float
    least_noise: float
    counts: tuple[int, ...]


class State(NamedTuple):
    """Hyperparameters, and the measurements in the axes where their covariance is diagonal.

    Parameters
    ----------
    modes : tuple of Spectrum
    turned : array, shape (r_0, rest)
        ``W``, the measurements in the axes of the modes, flat but for the first; snapshots come last.
    outside : float
        Energy of the measurements outside the range of the active columns.
    noise : float
        Variance of the noise.

    Examples
    --------
    >>> State((), None, 0.0, 1.0).noise
    1.0
    """

    modes: tuple[Spectrum, ...]
    turned: Any
    outside: float
    noise: float


class Moments(NamedTuple):
    """Sums over all axes of the measurements, with ``D = 1 / (P + noise)``.

    ``logdet`` of ``P + noise``; ``quadratic`` of ``|W|^2 D``; ``spread`` of ``D``; ``left`` of ``|W D|^2``.

    Examples
    --------
    >>> Moments(0.0, 1.0, 1.0, 1.0).quadratic
    1.0
    """

    logdet: float
    quadratic: float
    spread: float
    left: float


def products(vectors: Sequence[Any], xp: Any) -> Any:
    """Outer product of vectors, flat, the last fastest.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> products([xp.asarray([1.0, 2.0]), xp.asarray([1.0, 10.0])], xp).tolist()
    [1.0, 10.0, 2.0, 20.0]
    """
    result = vectors[0]
    for vector in vectors[1:]:
        result = xp.reshape(result[:, None] * vector, (-1,))
    return result


def squared(array: Any, xp: Any) -> Any:
    """Squared magnitudes of the entries.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> squared(xp.asarray([3.0, 4j]), xp).tolist()
    [9.0, 16.0]
    """
    if xp.isdtype(array.dtype, "complex floating"):
        return xp.real(array) ** 2 + xp.imag(array) ** 2
    return array * array


def energy(array: Any, xp: Any) -> float:
    """Sum of squared magnitudes.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> energy(xp.asarray([3.0, 4.0]), xp)
    25.0
    """
    return to_number(xp.sum(squared(array, xp)))


def others(modes: Sequence[Spectrum], i: int, sizes: Sizes, xp: Any) -> Any:
    """Products of the values of all modes but ``i``, in the cyclic order ``i + 1, ..., snapshots, 0, ...``.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> others([None], 0, Sizes(1, xp.ones(2), 0.5, 0.0, (1,)), xp).tolist()
    [1.0, 1.0]
    """
    parts = [mode.values for mode in modes[i + 1 :]]
    if len(modes) == 1 or sizes.ones.shape[0] > 1:
        parts.append(sizes.ones)
    parts.extend(mode.values for mode in modes[:i])
    return products(parts, xp)


def moments(state: State, sizes: Sizes, xp: Any, front: int = 0) -> Moments:
    """Sums that give the evidence and the step of the noise; ``front`` is the mode of the first axis.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from tenfac.bayes.sparse.spectra import spectrum
    >>> mode = spectrum(xp.eye(2), xp.arange(2), xp.ones(2), xp.arange(2), None, xp)
    >>> moments(State((mode,), xp.ones((2, 1)), 0.0, 1.0), Sizes(2, xp.ones(1), 0.5, 0.0, (1,)), xp).quadratic
    1.0
    """
    values, rest = state.modes[front].values[:, None], others(state.modes, front, sizes, xp)
    width = max(_BLOCK // values.shape[0], 1)
    found = [0.0, 0.0, 0.0, 0.0]
    for span in spans(rest.shape[0], width):
        total = values * rest[span] + state.noise
        inverse = 1.0 / total
        weighted = squared(state.turned[:, span], xp) * inverse
        part = (xp.log(total), weighted, inverse, weighted * inverse)
        found = [old + to_number(xp.sum(new)) for old, new in zip(found, part, strict=True)]
    return Moments(*found)


def evidence(state: State, sums: Moments, sizes: Sizes) -> float:
    """Log marginal likelihood of the measurements, all constants included.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from tenfac.bayes.sparse.spectra import spectrum
    >>> mode = spectrum(xp.eye(1), xp.arange(1), xp.ones(1), xp.arange(1), None, xp)
    >>> state, sizes = State((mode,), xp.zeros((1, 1)), 0.0, 1.0), Sizes(1, xp.ones(1), 0.5, 0.0, (1,))
    >>> round(evidence(state, moments(state, sizes, xp), sizes), 4)
    -1.2655
    """
    snapshots = sizes.ones.shape[0]
    beyond = snapshots * (sizes.measurements - math.prod(mode.values.shape[0] for mode in state.modes))
    constant = sizes.measurements * snapshots * math.log(math.pi / sizes.half)
    logdet = sums.logdet + beyond * math.log(state.noise) + constant
    return -sizes.half * (logdet + sums.quadratic + state.outside / state.noise)


def empty_evidence(total: float, noise: float, sizes: Sizes) -> float:
    """Log marginal likelihood of measurements of energy ``total`` that are nothing but noise.

    Examples
    --------
    >>> import numpy as np
    >>> round(empty_evidence(0.0, 1.0, Sizes(1, np.ones(1), 0.5, 0.0, (1,))), 4)
    -0.9189
    """
    count = sizes.measurements * sizes.ones.shape[0]
    return -sizes.half * (count * math.log(noise * math.pi / sizes.half) + total / noise)


def noise_ratio(state: State, sums: Moments, sizes: Sizes) -> float:
    """Squared residual over what it would be if the noise were right: above 1, more noise is more likely.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from tenfac.bayes.sparse.spectra import spectrum
    >>> mode = spectrum(xp.eye(1), xp.arange(1), xp.ones(1), xp.arange(1), None, xp)
    >>> state, sizes = State((mode,), xp.full((1, 1), 2.0), 0.0, 1.0), Sizes(1, xp.ones(1), 0.5, 0.0, (1,))
    >>> noise_ratio(state, moments(state, sizes, xp), sizes)
    2.0
    """
    snapshots, noise = sizes.ones.shape[0], state.noise
    beyond = snapshots * (sizes.measurements - math.prod(mode.values.shape[0] for mode in state.modes))
    return (noise * sums.left + state.outside / noise) / (beyond + noise * sums.spread)


def weight_ratios(
    modes: Sequence[Spectrum], i: int, turned: Any, noise: float, sizes: Sizes, xp: Any
) -> tuple[Any, Any]:
    """Numerators and denominators ``a / h`` and ``b / h`` of the weights of mode ``i``.

    The derivative of the evidence by ``log h`` is ``half * (a - b)``.

    Parameters
    ----------
    modes : sequence of Spectrum
    i : int
    turned : array, shape (r_i, rest)
        The measurements, axes in the cyclic order that begins with mode ``i``.
    noise : float
    sizes : Sizes
    xp : module

    Returns
    -------
    array, shape (m,); array, shape (m,)

    Notes
    -----
    Cost: ``O(M r_i + r_i^2 n)``; nothing larger than the measurements is formed.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from tenfac.bayes.sparse.spectra import spectrum
    >>> mode = spectrum(xp.eye(1), xp.arange(1), xp.ones(1), xp.arange(1), None, xp)
    >>> sizes = Sizes(1, xp.ones(1), 0.5, 0.0, (1,))
    >>> [float(x[0]) for x in weight_ratios([mode], 0, xp.full((1, 1), 2.0), 1.0, sizes, xp)]
    [1.0, 0.5]
    """
    mode, rest = modes[i], others(modes, i, sizes, xp)
    values, roots = mode.values[:, None], xp.sqrt(rest)
    gram, slope = 0.0, 0.0
    for span in spans(rest.shape[0], max(_BLOCK // values.shape[0], 1)):
        inverse = 1.0 / (values * rest[span] + noise)
        slope = slope + inverse @ rest[span]
        part = turned[:, span] * (inverse * roots[span])
        gram = gram + part @ adjoint(part, xp)
    axes, product = mode.turned, gram @ mode.turned
    if xp.isdtype(axes.dtype, "complex floating"):
        above = xp.sum(xp.real(axes) * xp.real(product) + xp.imag(axes) * xp.imag(product), axis=0)
    else:
        above = xp.sum(axes * product, axis=0)
    below = slope @ squared(axes, xp)
    if mode.coupling is not None:
        above, below = above @ mode.coupling, below @ mode.coupling
    return above, below
