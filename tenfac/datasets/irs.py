"""Made channels of a mobile, a reflecting surface and a base station, in the angular domain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.core.arrays import generator
from tenfac.core.door import door
from tenfac.core.errors import DataError, ShapeError
from tenfac.datasets.sparse import normal, with_noise

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class IRSChannel:
    """Pilots received through an intelligent reflecting surface, and the channel they came through.

    The measurements are ``y[k, t, b] = sum_{i, j, l} A_1[k, i] A_2[t, j] A_3[b, l] x[i, j, l] + noise`` for
    reflection pattern k, pilot t and base antenna b; the coefficients x over angles have a Kronecker support.

    Parameters
    ----------
    factors : tuple of complex ndarray, shapes (patterns, R), (pilots, R), (base, R)
        Dictionaries, R angles each.
    y : complex ndarray, shape (patterns, pilots, base)
    noise : float
        Standard deviation of the noise (of a complex number: of both parts together).
    support : tuple of int ndarray
        Angles of the three modes that carry values, ascending.
    coef : complex ndarray, shape (spread, 1, spread)
        Values on their box, an outer product.
    channel : complex ndarray, shape (patterns, mobile, base)
        Channel from mobile to base antennas under each pattern.
    mobile_dictionary : complex ndarray, shape (mobile, R)
        Conjugate responses of the mobile's antennas.
    pilots : complex ndarray, shape (mobile, pilots)
    patterns : ndarray, shape (elements, patterns)
        Reflection coefficients of the surface.

    Examples
    --------
    >>> made = make_irs_channel(12.0, random_state=0)
    >>> made
    IRSChannel(patterns=6, pilots=3, base=16, mobile=6, angles=18)
    >>> made.channel_nmse(made.coef_tensor()) < 1e-20
    True
    """

    factors: tuple[Array, ...]
    y: Array
    noise: float
    support: tuple[Array, ...]
    coef: Array
    channel: Array
    mobile_dictionary: Array
    pilots: Array
    patterns: Array

    def coef_tensor(self) -> Array:
        """Return all coefficients, shape (R, R, R)."""
        dense = np.zeros([A.shape[1] for A in self.factors], dtype=self.coef.dtype)
        dense[np.ix_(*self.support)] = self.coef
        return dense

    def channel_of(self, X: Any) -> Array:
        """Channel that coefficients stand for, shape (patterns, mobile, base).

        Parameters
        ----------
        X : array, shape (R, R, R) or (R^3,)

        Raises
        ------
        ShapeError
            If ``X`` has another size.
        """
        shape = tuple(A.shape[1] for A in self.factors)
        X = np.asarray(X)
        if X.shape not in (shape, (math.prod(shape),)):
            raise ShapeError(f"IRSChannel.channel_of: X must have shape {shape}; got {X.shape}.")
        matrices = self.factors[0], self.mobile_dictionary, self.factors[2]
        return np.einsum("ki,aj,bl,ijl->kab", *matrices, X.reshape(shape), optimize=True)

    def channel_nmse(self, X: Any) -> float:
        """Normalized mean squared error of the channel of coefficients, averaged over the patterns.

        Parameters
        ----------
        X : array, shape (R, R, R) or (R^3,)

        Returns
        -------
        float
        """
        error = np.abs(self.channel_of(X) - self.channel) ** 2
        return float(np.mean(error.sum(axis=(1, 2)) / (np.abs(self.channel) ** 2).sum(axis=(1, 2))))

    def __repr__(self) -> str:
        patterns, pilots, base = self.y.shape
        mobile, angles = self.mobile_dictionary.shape
        return (
            f"IRSChannel(patterns={patterns}, pilots={pilots}, base={base}, mobile={mobile}, angles={angles})"
        )


@door
def make_irs_channel(
    snr_db: float = 20.0,
    *,
    mobile: int = 6,
    base: int = 16,
    elements: int = 256,
    angles: int = 18,
    pilots: int = 3,
    patterns: int = 6,
    spread: int = 3,
    design: IRSChannel | None = None,
    random_state: int | np.random.Generator | None = 0,
) -> IRSChannel:
    """Make the uplink channel of the experiment of He and Joseph, and noisy pilots that came through it.

    Mobile to surface: one angle of departure, ``spread`` neighbouring angles of arrival. Surface to base: the
    same. Gains are circular complex normal, antennas stand in lines half a wavelength apart, angles lie on a
    grid of ``angles`` cosines, and the sender sends random QPSK pilots under random patterns of signs.

    Parameters
    ----------
    snr_db : float
        Mean power of the received pilots over the variance of the noise, in decibels.
    mobile, base, elements : int
        Antennas of mobile and base, elements of the surface.
    angles : int
        R, columns of every dictionary.
    pilots, patterns : int
        Pilots sent under each pattern, and patterns.
    spread : int
        Neighbouring angles at each arrival.
    design : IRSChannel, optional
        Take pilots and patterns from it. The paper draws them once for its 50 channels.
    random_state : int, numpy.random.Generator or None
        None draws another problem every time.

    Returns
    -------
    IRSChannel

    Raises
    ------
    DataError
        If a number is not positive, or ``spread`` is more than ``angles``.

    References
    ----------
    .. [1] Y. He and G. Joseph, Bayesian Algorithms for Kronecker-structured Sparse Vector Recovery With
       Application to IRS-MIMO Channel Estimation, IEEE Transactions on Signal Processing (2024), channel
       estimation. arXiv:2307.14719

    Examples
    --------
    >>> made = make_irs_channel(20.0, random_state=0)
    >>> made.y.shape, [A.shape for A in made.factors]
    ((6, 3, 16), [(6, 18), (3, 18), (16, 18)])
    """
    _check(
        snr_db,
        {
            "mobile": mobile,
            "base": base,
            "elements": elements,
            "angles": angles,
            "pilots": pilots,
            "patterns": patterns,
            "spread": spread,
        },
    )
    if design is not None and not isinstance(design, IRSChannel):
        raise TypeError(
            f"make_irs_channel: `design` must be a channel made before; got {type(design).__name__}. Leave "
            "it out to draw pilots and patterns."
        )
    rng = generator(random_state)
    sent, signs = _design(rng, design, (mobile, pilots), (elements, patterns))
    at_mobile, at_base, at_surface = (steering(n, angles) for n in (mobile, base, elements))
    gains = [normal(rng, (spread,), True) for _ in range(2)]
    arrival, base_first = (int(rng.integers(angles - spread + 1)) for _ in range(2))
    leaving_mobile, leaving_surface = (int(rng.integers(angles)) for _ in range(2))
    # The product of an arriving and a leaving response depends on the difference of their angles alone.
    cascade = at_surface[:, :1] * at_surface.conj()
    factors = (signs.T @ cascade, sent.T @ at_mobile.conj(), at_base)
    rows = (leaving_surface - arrival - np.arange(spread)) % angles
    order = np.argsort(rows)
    scale = elements * math.sqrt(base * mobile) / spread
    coef = scale * gains[0][order][:, None, None] * gains[1]
    support = (rows[order], np.array([leaving_mobile]), base_first + np.arange(spread))
    used = [A[:, s] for A, s in zip(factors, support, strict=True)]
    clean = np.einsum("ki,tj,bl,ijl->ktb", *used, coef, optimize=True)
    y, noise = with_noise(rng, clean, snr_db)
    dictionary = at_mobile.conj()
    channel = np.einsum("ki,aj,bl,ijl->kab", used[0], dictionary[:, support[1]], used[2], coef, optimize=True)
    return IRSChannel(factors, y, noise, support, coef, channel, dictionary, sent, signs)


def steering(antennas: int, angles: int) -> Array:
    """Responses of antennas in a line, half a wavelength apart, to waves from a grid of cosines.

    ``a[k, r] = exp(i pi k c_r) / sqrt(antennas)`` with ``c_r = 2 r / angles - 1``.

    Parameters
    ----------
    antennas, angles : int

    Returns
    -------
    complex ndarray, shape (antennas, angles)

    Examples
    --------
    >>> steering(2, 2).real.round(3)
    array([[ 0.707,  0.707],
           [-0.707,  0.707]])
    """
    cosines = 2 * np.arange(angles) / angles - 1
    return np.exp(1j * np.pi * np.outer(np.arange(antennas), cosines)) / math.sqrt(antennas)


def _design(
    rng: np.random.Generator, design: IRSChannel | None, pilots: tuple[int, int], patterns: tuple[int, int]
) -> tuple[Array, Array]:
    """Pilots (mobile, pilots) and patterns (elements, patterns)."""
    if design is None:
        parts = rng.choice([-1.0, 1.0], (2, *pilots))
        signs = rng.choice([-1.0, 1.0], patterns) / math.sqrt(patterns[0])
        return (parts[0] + 1j * parts[1]) / math.sqrt(2 * pilots[0]), signs
    if (design.pilots.shape, design.patterns.shape) != (pilots, patterns):
        raise ShapeError(
            f"make_irs_channel: `design` must have pilots {pilots} and patterns {patterns}; got "
            f"{design.pilots.shape} and {design.patterns.shape}. Ask for the sizes it was made with."
        )
    return design.pilots, design.patterns


def _check(snr_db: Any, counts: dict[str, Any]) -> None:
    if not isinstance(snr_db, Real) or math.isnan(snr_db) or snr_db == -math.inf:
        raise DataError(f"make_irs_channel: `snr_db` must be a number of decibels; got {snr_db!r}.")
    for name, n in counts.items():
        if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
            raise DataError(f"make_irs_channel: `{name}` must be a whole number from 1 up; got {n!r}.")
    if counts["spread"] > counts["angles"]:
        raise DataError(
            f"make_irs_channel: `spread` must be at most the {counts['angles']} angles; got "
            f"{counts['spread']}."
        )
