"""The Gaussian-process prior of one mode: a constant, plus a Matérn process on a bent axis or free levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tenfac.core.modes.state_space import StateSpace, correlation

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ModePrior:
    """Covariance ``c + k(w(x), w(x'))`` of a continuous mode, ``c + [x = x']`` of a discrete one.

    The axis may be bent: ``w`` is a scaled ``asinh(sharpness * (x - center))``, near which the function
    varies fastest. Many real axes need it (time after a reaction starts, dose around its threshold), and
    a small sharpness leaves the axis straight. Beyond the observed range 0 to 1 the axis goes on straight.

    Parameters
    ----------
    kernel : str or None
        Matérn kernel; None for a discrete mode.
    constant : float
        ``c``, the variance shared by all indices; what varies has variance one.
    lengthscale : float
        On the bent axis, which again runs from 0 to 1.
    sharpness, center : float
        Of the bend; ``center`` in units of the observed range.
    """

    kernel: str | None
    constant: float
    lengthscale: float
    sharpness: float
    center: float

    @property
    def variance(self) -> float:
        """Prior variance, the same at every index."""
        return self.constant + 1.0

    def process(self) -> StateSpace:
        """The Matérn part as a state-space model over bent positions."""
        return StateSpace(str(self.kernel), self.lengthscale)

    def bend(self, x: Array) -> Array:
        """Positions on the bent axis, shape (N,); codes of a discrete mode stay."""
        if self.kernel is None:
            return x
        start = np.arcsinh(-self.sharpness * self.center)
        scale = np.arcsinh(self.sharpness * (1 - self.center)) - start
        inside = np.clip(x, 0.0, 1.0)
        bent = (np.arcsinh(self.sharpness * (inside - self.center)) - start) / scale
        return bent + (x - inside) * self.slope(inside)

    def slope(self, x: Array) -> Array:
        """Derivative of ``bend`` inside the observed range, shape (N,)."""
        scale = np.arcsinh(self.sharpness * (1 - self.center)) + np.arcsinh(self.sharpness * self.center)
        return self.sharpness / np.sqrt(1 + (self.sharpness * (x - self.center)) ** 2) / scale

    def covariance(self, x: Array, z: Array) -> Array:
        """Prior covariance between indices, shapes (N,) and (M,) -> (N, M)."""
        if self.kernel is None:
            return self.constant + (x[:, None] == z[None, :])
        return self.constant + correlation(self.bend(x), self.bend(z), self.kernel, self.lengthscale)
