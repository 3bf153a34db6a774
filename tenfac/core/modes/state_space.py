"""Matérn kernels, as covariance functions and as linear state-space models (SDEs).

A Matérn process of smoothness 1/2, 3/2 or 5/2 is the first component of a Gauss-Markov state of
dimension 1, 2 or 3: the value and its derivatives. Between two points a distance ``dt`` apart,
``x(t + dt) = A(dt) x(t) + w`` with ``w ~ N(0, Q(dt))`` and stationary covariance ``P_inf``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tenfac.core.errors import DataError

KERNELS = {"matern12": 1, "matern32": 2, "matern52": 3}
_FAR = 1e3  # distances beyond, in units of the decay length, are all the same: exp(-1e3) is 0


def check_kernel(kernel: str, where: str) -> str:
    """Return ``kernel`` if it names a known kernel, else raise DataError listing the known ones."""
    if kernel not in KERNELS:
        raise DataError(f"{where}: `kernel` must be one of {', '.join(KERNELS)}; got {kernel!r}.")
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


@dataclass(frozen=True)
class StateSpace:
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
    >>> model.transition(np.array([0.0]))[0].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    kernel: str
    lengthscale: float

    @property
    def order(self) -> int:
        """Dimension of the state."""
        return KERNELS[self.kernel]

    @property
    def rate(self) -> float:
        """``sqrt(2 nu) / lengthscale``: the decay rate of the process."""
        return float(np.sqrt(2 * self.order - 1.0)) / self.lengthscale

    def stationary(self) -> NDArray[np.float64]:
        """Stationary covariance ``P_inf`` of the state, shape (order, order)."""
        if self.order == 1:
            return np.eye(1)
        if self.order == 2:
            return np.eye(2)
        third = 1 / 3
        return np.array([[1.0, 0.0, -third], [0.0, third, 0.0], [-third, 0.0, 1.0]])

    def transition(self, dt: NDArray[np.float64]) -> NDArray[np.float64]:
        """Transition matrices ``A(dt) = expm(F dt)``, shape (len(dt), order, order)."""
        s = np.minimum(self.rate * np.asarray(dt, dtype=float), _FAR)[:, None, None]
        decay = np.exp(-s)
        if self.order == 1:
            return decay
        if self.order == 2:
            eye, drift = np.eye(2), np.array([[1.0, 1.0], [-1.0, -1.0]])
            return decay * (eye + s * drift)
        drift = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [-1.0, -3.0, -2.0]])
        return decay * (np.eye(3) + s * drift + 0.5 * s * s * (drift @ drift))

    def innovation(self, dt: NDArray[np.float64]) -> NDArray[np.float64]:
        """Innovation covariances ``Q(dt) = P_inf - A P_inf A^T``, shape (len(dt), order, order).

        Written out, so that a short step does not cancel to rounding noise.
        """
        s = self.rate * np.asarray(dt, dtype=float)
        if self.order == 1:
            return -np.expm1(-2 * s)[:, None, None]
        tails = _gamma_tails(2 * s, 2 * self.order - 1)
        return _innovation_32(tails) if self.order == 2 else _innovation_52(tails)


def _gamma_tails(t: NDArray[np.float64], terms: int) -> list[NDArray[np.float64]]:
    """``integral_0^t u^n exp(-u) du`` for n = 0 .. terms - 1, without cancellation at small ``t``."""
    from scipy.special import gammainc

    factorials = [1.0, 1.0, 2.0, 6.0, 24.0]
    return [factorials[n] * gammainc(n + 1, t) for n in range(terms)]


def _innovation_32(g: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    # Q = integral of b b^T over the step, b(s) = exp(-s) (s, 1 - s) * 2 is the impulse response; u = 2 s
    q = np.empty((g[0].size, 2, 2))
    q[:, 0, 0] = g[2] / 2
    q[:, 0, 1] = q[:, 1, 0] = g[1] - g[2] / 2
    q[:, 1, 1] = 2 * (g[0] - g[1] + g[2] / 4)
    return q


def _innovation_52(g: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    # b(s) = c exp(-s) (s^2/2, s - s^2/2, 1 - 2 s + s^2/2), c^2 = 16/3; u = 2 s, ds = du/2
    c = 8 / 3
    m = [g[n] / 2**n for n in range(5)]  # moments of s^n exp(-2 s) times 2
    q = np.empty((g[0].size, 3, 3))
    q[:, 0, 0] = c * m[4] / 4
    q[:, 0, 1] = q[:, 1, 0] = c * (m[3] / 2 - m[4] / 4)
    q[:, 0, 2] = q[:, 2, 0] = c * (m[2] / 2 - m[3] + m[4] / 4)
    q[:, 1, 1] = c * (m[2] - m[3] + m[4] / 4)
    q[:, 1, 2] = q[:, 2, 1] = c * (m[1] - 2.5 * m[2] + 1.5 * m[3] - m[4] / 4)
    q[:, 2, 2] = c * (m[0] - 4 * m[1] + 5 * m[2] - 2 * m[3] + m[4] / 4)
    return q
