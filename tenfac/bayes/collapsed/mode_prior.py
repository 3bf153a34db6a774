"""The Gaussian-process prior of one mode: a constant, and a Matérn process on a bent axis or levels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.core.modes.bend import bent, steepness
from tenfac.core.modes.oscillator import Oscillator
from tenfac.core.modes.state_space import KERNELS, StateSpace, correlation, correlation_slope

Array = NDArray[Any]

ORDERS = {**KERNELS, "oscillator": Oscillator.order}  # states per process
_QUALITY = 8.0  # of an oscillator above 1/2, where the sharpness is 1


@dataclass(frozen=True)
class ModePrior:
    """Covariance ``c + k(w(x), w(x'))``, or ``c + [x = x'] + W_x . W_x'`` when the mode is discrete.

    The axis may be bent (``core.modes.bend``): ``w`` is a scaled ``asinh(sharpness * (x - center))``, near
    which the function varies fastest. Many real axes need it (time after a reaction starts, dose around its
    threshold), and a small sharpness leaves the axis straight. Beyond the observed range 0 to 1 the axis goes
    on straight.

    Parameters
    ----------
    kernel : str or None
        Matérn kernel or "oscillator"; None for a discrete mode.
    constant : float
        ``c``, the variance shared by all indices; what varies has variance one.
    lengthscale : float
        On the bent axis, which again runs from 0 to 1; the period of an oscillator.
    sharpness, center : float
        Of the bend; ``center`` in units of the observed range. The axis of an oscillator is straight, and its
        quality is ``1/2 + 8 sharpness``.
    loadings : array, shape (M, r)
        ``W``: what makes the M levels of a discrete mode alike or opposite; none by default, when levels are
        exchangeable.
    """

    kernel: str | None
    constant: float
    lengthscale: float
    sharpness: float
    center: float
    loadings: Array = field(default_factory=lambda: np.zeros((1, 0)))

    @property
    def exchangeable(self) -> bool:
        """Whether it is discrete and no two levels are more alike than others."""
        return self.kernel is None and self.loadings.shape[1] == 0

    def variance(self, x: Array) -> Array:
        """Prior variance at every index, shape (N,)."""
        own = np.full(x.shape, self.constant + 1.0)
        if self.loadings.shape[1] == 0:
            return own
        return own + np.square(self.loadings).sum(axis=1)[x.astype(int)]

    def shared(self, size: int) -> Array:
        """Rows ``a`` of what ``size`` levels share, ``covariance = I + a a^T``, shape (size, 1 + r)."""
        constant = np.full((size, 1), np.sqrt(self.constant))
        return np.hstack([constant, self.loadings]) if self.loadings.shape[1] else constant

    @property
    def swings(self) -> bool:
        """Whether it is an oscillator, on a straight axis."""
        return self.kernel == "oscillator"

    @property
    def quality(self) -> float:
        """Of an oscillator."""
        return 0.5 + _QUALITY * self.sharpness

    def process(self) -> StateSpace | Oscillator:
        """The part that varies as a state-space model over bent positions."""
        if self.swings:
            return Oscillator(self.lengthscale, self.quality)
        return StateSpace(str(self.kernel), self.lengthscale)

    def bend(self, x: Array) -> Array:
        """Positions on the bent axis, shape (N,); codes of a discrete mode stay."""
        if self.kernel is None or self.swings:
            return x
        return bent(x, self.sharpness, self.center, np)

    def slope(self, x: Array) -> Array:
        """Derivative of ``bend``, shape (N,)."""
        if self.swings:
            return np.ones_like(x)
        return steepness(x, self.sharpness, self.center, np)

    def covariance(self, x: Array, z: Array) -> Array:
        """Prior covariance between indices, shapes (N,) and (M,) -> (N, M)."""
        if self.kernel is None:
            alike = self.constant + (x[:, None] == z[None, :])
            if self.loadings.shape[1] == 0:
                return alike
            return alike + self.loadings[x.astype(int)] @ self.loadings[z.astype(int)].T
        return self.constant + self.varying(x, z)

    def varying(self, x: Array, z: Array) -> Array:
        """Covariance of what varies along a continuous mode, shape (N, M): variance one."""
        if self.swings:
            return Oscillator(self.lengthscale, self.quality).correlation(x, z)
        return correlation(self.bend(x), self.bend(z), str(self.kernel), self.lengthscale)

    def covariance_slope(self, x: Array, z: Array) -> Array:
        """Derivative of ``covariance`` by ``x`` for a continuous mode with a derivative, shape (N, M)."""
        if self.swings:
            return Oscillator(self.lengthscale, self.quality).correlation_slope(x, z)
        slope = correlation_slope(self.bend(x), self.bend(z), str(self.kernel), self.lengthscale)
        return self.slope(x)[:, None] * slope

    def slope_variance(self, x: Array) -> Array:
        """Prior variance of the derivative by a continuous index, shape (N,)."""
        process = self.process()
        row = process.observation(np.zeros(1), 1)[0]
        return float(row @ process.stationary() @ row) * self.slope(x) ** 2
