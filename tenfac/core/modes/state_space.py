"""Matérn kernels, as covariance functions and as linear state-space models (SDEs).

A Matérn process of smoothness 1/2, 3/2 or 5/2 is the first component of a Gauss-Markov state of
dimension 1, 2 or 3: the value and its derivatives. Between two points a distance ``dt`` apart,
``x(t + dt) = A(dt) x(t) + w`` with ``w ~ N(0, Q(dt))`` and stationary covariance ``P_inf``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.core.arrays import namespace_of
from tenfac.core.errors import DataError, nearest_name
from tenfac.core.modes.process import Process, like_of, matrices, steps_of

KERNELS = {"matern12": 1, "matern32": 2, "matern52": 3}
_USUAL = "matern32"
_FAR = 1e3  # distances beyond, in units of the decay length, are all the same: exp(-1e3) is 0
_SPLIT = 2.0  # below, an incomplete gamma function is summed from its series, above from the terms before it
_TERMS = 30  # of that series: 2^30 / 30! is far below rounding


def check_kernel(kernel: str, where: str, also: tuple[str, ...] = ()) -> str:
    """Return ``kernel`` if it names a known kernel, or is in ``also``; else raise DataError listing these."""
    known = (*also, *KERNELS)
    if not isinstance(kernel, str) or kernel not in known:
        hint = nearest_name(kernel, (_USUAL, *known))
        raise DataError(f"{where}: `kernel` must be one of {', '.join(known)}; got {kernel!r}.{hint}")
    return kernel


def correlation(
    x: NDArray[np.float64], z: NDArray[np.float64], kernel: str, lengthscale: float
) -> NDArray[np.float64]:
    """Matérn correlation between two sets of points.

    Parameters
    ----------
    x : array, shape (N,)
    z : array, shape (M,)
    kernel : {"matern12", "matern32", "matern52"}
    lengthscale : float
        In the unit of ``x``.

    Returns
    -------
    array, shape (N, M)
        ``k(|x_i - z_j| / lengthscale)``, 1 on coinciding points.

    References
    ----------
    .. [1] C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning,
       MIT Press (2006), equations 4.16-4.17.

    Examples
    --------
    >>> correlation(np.array([0.0, 1.0]), np.array([0.0]), "matern12", 1.0).round(4).tolist()
    [[1.0], [0.3679]]
    """
    order = KERNELS[kernel]
    r = np.minimum(np.sqrt(2 * order - 1.0) / lengthscale * np.abs(x[:, None] - z[None, :]), _FAR)
    if order == 1:
        return np.exp(-r)
    polynomial = 1 + r if order == 2 else 1 + r + r * r / 3
    return polynomial * np.exp(-r)


def correlation_slope(
    x: NDArray[np.float64], z: NDArray[np.float64], kernel: str, lengthscale: float
) -> NDArray[np.float64]:
    """Derivative of ``correlation`` by ``x``, for kernels with one: not "matern12".

    Parameters
    ----------
    x : array, shape (N,)
    z : array, shape (M,)
    kernel : {"matern32", "matern52"}
    lengthscale : float
        In the unit of ``x``.

    Returns
    -------
    array, shape (N, M)

    Examples
    --------
    >>> correlation_slope(np.array([0.0, 1.0]), np.array([0.0]), "matern32", 3.0**0.5).round(4).tolist()
    [[-0.0], [-0.3679]]
    """
    order = KERNELS[kernel]
    rate = np.sqrt(2 * order - 1.0) / lengthscale
    signed = np.clip(rate * (x[:, None] - z[None, :]), -_FAR, _FAR)
    r = np.abs(signed)
    polynomial = signed if order == 2 else signed * (1 + r) / 3
    return -rate * polynomial * np.exp(-r)


@dataclass(frozen=True)
class StateSpace(Process):
    """A unit-variance Matérn process as a linear stochastic differential equation.

    Parameters
    ----------
    kernel : {"matern12", "matern32", "matern52"}
    lengthscale : float
        In the unit of the index.

    Notes
    -----
    The state holds the value and its derivatives scaled by powers of ``rate = sqrt(2 nu) / lengthscale``,
    so that every entry of ``P_inf`` is of order one whatever the unit of the index.

    References
    ----------
    .. [1] J. Hartikainen and S. Särkkä, Kalman filtering and smoothing solutions to temporal Gaussian
       process regression models, MLSP (2010), section 3. doi:10.1109/MLSP.2010.5589113

    Examples
    --------
    >>> model = StateSpace("matern32", lengthscale=2.0)
    >>> model.transition(np.array([0.0, 2.0]))[:, 0, 0].round(4).tolist()
    [1.0, 0.4834]
    """

    kernel: str
    lengthscale: Any
    positive = ("lengthscale",)

    def check(self, where: str) -> None:
        """Raise DataError if the kernel is unknown or the lengthscale not a positive number."""
        check_kernel(self.kernel, where)
        super().check(where)

    @property
    def order(self) -> int:
        """Dimension of the state."""
        return KERNELS[self.kernel]

    @property
    def smoothness(self) -> float:
        """Number of derivatives."""
        return self.order - 1

    @property
    def rate(self) -> Any:
        """``sqrt(2 nu) / lengthscale``: the decay rate of the process."""
        return float(np.sqrt(2 * self.order - 1.0)) / self.lengthscale

    def stationary(self, like: Any = None) -> Any:
        """Stationary covariance ``P_inf`` of the state, shape (order, order)."""
        xp, keywords = like_of(like)
        if self.order < 3:
            return xp.eye(self.order, **keywords)
        third = 1 / 3
        return xp.asarray([[1.0, 0.0, -third], [0.0, third, 0.0], [-third, 0.0, 1.0]], **keywords)

    def transition(self, dt: Any) -> Any:
        """Transition matrices ``A(dt) = expm(F dt)``, shape (len(dt), order, order)."""
        dt = steps_of(dt)
        xp, keywords = like_of(dt)
        s = xp.clip(self.rate * dt, None, _FAR)
        decay = xp.exp(-s)[:, None, None]
        if self.order == 1:
            return decay
        if self.order == 2:
            return decay * matrices([[1 + s, s], [-s, 1 - s]], xp)
        s = s[:, None, None]
        drift = xp.asarray([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [-1.0, -3.0, -2.0]], **keywords)
        return decay * (xp.eye(3, **keywords) + s * drift + 0.5 * s * s * (drift @ drift))

    def innovation(self, dt: Any) -> Any:
        """Innovation covariances ``Q(dt) = P_inf - A P_inf A^T``, shape (len(dt), order, order).

        Written out, so that a short step does not cancel to rounding noise.
        """
        dt = steps_of(dt)
        xp = namespace_of(dt)
        s = self.rate * dt
        if self.order == 1:
            return -xp.expm1(-2 * s)[:, None, None]
        tails = _gamma_tails(2 * s, 2 * self.order - 1, xp)
        return _innovation_32(tails, xp) if self.order == 2 else _innovation_52(tails, xp)

    def observation(self, x: Any, derivative: int = 0) -> Any:
        """``H``: entry ``derivative`` of the state, times the power of ``rate`` that it is scaled by."""
        x = steps_of(x)
        xp, keywords = like_of(x)
        unit = xp.eye(self.order, **keywords)[derivative : derivative + 1, :]
        return xp.ones_like(x)[:, None] * (unit * self.rate**derivative)


def _gamma_tails(t: Any, terms: int, xp: Any) -> list[Any]:
    """``integral_0^t u^n exp(-u) du`` for n = 0 .. terms - 1, without cancellation at small ``t``."""
    factorials = [1.0, 1.0, 2.0, 6.0, 24.0]
    if isinstance(t, np.ndarray):
        from scipy.special import gammainc

        return [factorials[n] * gammainc(n + 1, t) for n in range(terms)]
    return [factorials[n] * _gamma_ratio(n, t, xp) for n in range(terms)]


def _gamma_ratio(n: int, t: Any, xp: Any) -> Any:
    """``exp(-t) sum_{k > n} t^k / k!``, with a gradient at ``t = 0`` too, where torch's own gives NaN."""
    near, far = xp.clip(t, None, _SPLIT), xp.clip(t, _SPLIT, _FAR)
    series = below = xp.ones_like(t)
    for k in range(n + _TERMS, n + 1, -1):
        series = 1.0 + near / k * series
    for k in range(1, n + 2):
        series = series * near / k
    for k in range(n, 0, -1):
        below = 1.0 + far / k * below
    return xp.where(t < _SPLIT, xp.exp(-near) * series, 1.0 - xp.exp(-far) * below)


def _innovation_32(g: list[Any], xp: Any) -> Any:
    # Q = integral of b b^T over the step, b(s) = exp(-s) (s, 1 - s) * 2 is the impulse response; u = 2 s
    cross = g[1] - g[2] / 2
    return matrices([[g[2] / 2, cross], [cross, 2 * (g[0] - g[1] + g[2] / 4)]], xp)


def _innovation_52(g: list[Any], xp: Any) -> Any:
    # b(s) = c exp(-s) (s^2/2, s - s^2/2, 1 - 2 s + s^2/2), c^2 = 16/3; u = 2 s, ds = du/2
    c = 8 / 3
    m = [g[n] / 2**n for n in range(5)]  # moments of s^n exp(-2 s) times 2
    q01 = c * (m[3] / 2 - m[4] / 4)
    q02 = c * (m[2] / 2 - m[3] + m[4] / 4)
    q12 = c * (m[1] - 2.5 * m[2] + 1.5 * m[3] - m[4] / 4)
    q22 = c * (m[0] - 4 * m[1] + 5 * m[2] - 2 * m[3] + m[4] / 4)
    return matrices([[c * m[4] / 4, q01, q02], [q01, c * (m[2] - m[3] + m[4] / 4), q12], [q02, q12, q22]], xp)
