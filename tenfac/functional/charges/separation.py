"""Kernels ``exp(-kappa r) / r`` and ``exp(-kappa r)`` split into Gaussians and a part of short range."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.special

from tenfac.core.arrays import library_name
from tenfac.core.errors import DataError

# Most quadrature nodes per panel; a panel doubles the width.
_NODES = 16
# Distances at which the quadrature is checked.
_CHECKED = 400
# exp(-x^2 / 4) at x = 13 is 4e-19.
_VANISHED = 13


@dataclass(frozen=True, eq=False)
class Separation:
    """``kernel(r) = sum_k w_k exp(-tau_k r^2) + short(r)`` up to a diameter.

    From ``exp(-kappa r) / r = (2 / sqrt(pi)) int_0^inf exp(-r^2 t^2 - kappa^2 / (4 t^2)) dt``, and from its
    derivative by kappa for Slater's ``exp(-kappa r)``: up to ``alpha`` by Gauss-Legendre on panels that
    double, beyond it in closed form, so that nothing is lost between the two.

    Attributes
    ----------
    alpha, kappa : float
        In 1 / length.
    exponents, weights : array, shape (K,)
    error : float
        Of the quadrature, relative to ``scale``.
    slater : bool
        The kernel is ``exp(-kappa r)``, and not ``exp(-kappa r) / r``.

    Examples
    --------
    >>> split = separate(alpha=2.0, diameter=4.0, tol=1e-12)
    >>> r = np.array([0.1, 1.0, 3.0])
    >>> long = np.exp(-np.multiply.outer(r**2, split.exponents)) @ split.weights
    >>> np.round((long + split.short(r)) * r, 10)
    array([1., 1., 1.])
    """

    alpha: float
    kappa: float
    exponents: np.ndarray
    weights: np.ndarray
    error: float
    slater: bool = False

    @property
    def scale(self) -> float:
        """What errors are relative to: Coulomb's long part at 0, or Slater's kernel at 0, which is 1."""
        return 1.0 if self.slater else 2 * self.alpha / math.sqrt(math.pi)

    @property
    def at_zero(self) -> float:
        """The long part at distance 0: what a charge does to itself, and must not."""
        return float(self.weights.sum())

    def cutoff(self, tol: float) -> float:
        """Distance from which the short part is below ``tol`` times ``scale``."""
        low, high = 1e-6 / self.alpha, 1 / self.alpha
        bound = tol * self.scale
        while self.short(np.array(high)) > bound:
            low, high = high, 2 * high
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if self.short(np.array(middle)) > bound else (low, middle)
        return high

    def kernel(self, r: Any) -> Any:
        """The kernel itself, in closed form, at distances above 0; Slater's also at 0."""
        screened = _functions(r).exp(-self.kappa * r)
        return screened if self.slater else screened / r

    def short(self, r: Any) -> Any:
        """The part of short range at distances above 0; ``erfc(alpha r) / r`` for Coulomb's law."""
        f = _functions(r)
        if self.kappa == 0:
            return f.erfc(self.alpha * r) / r
        first, second = self._both(r, f)
        return (second - first) / 2 if self.slater else (first + second) / (2 * r)

    def short_slope(self, r: Any) -> Any:
        """Its derivative by the distance."""
        f = _functions(r)
        if self.slater:
            first, second = self._both(r, f)
            return -self.kappa * (first + second) / 2
        gauss = f.exp(-((self.alpha * r) ** 2) - (self.kappa / (2 * self.alpha)) ** 2)
        tail = 2 * self.alpha / math.sqrt(math.pi) * gauss
        if self.kappa == 0:
            return -(f.erfc(self.alpha * r) / r + tail) / r
        first, second = self._both(r, f)
        return (self.kappa * (first - second) / 2 - tail) / r - (first + second) / (2 * r * r)

    def _both(self, r: Any, f: Any) -> tuple[Any, Any]:
        """``exp(+-kappa r) erfc(alpha r +- kappa / (2 alpha))`` without overflow."""
        shift = self.kappa / (2 * self.alpha)
        gauss = f.exp(-((self.alpha * r) ** 2) - shift**2)
        minus = self.alpha * r - shift
        inside = minus < 0
        above = f.where(inside, 0 * minus, minus)
        below = f.where(inside, minus, 0 * minus)
        second = f.where(inside, f.exp(-self.kappa * r) * f.erfc(below), f.erfcx(above) * gauss)
        return f.erfcx(self.alpha * r + shift) * gauss, second


def separate(
    alpha: float, diameter: float, tol: float, kappa: float = 0.0, *, slater: bool = False
) -> Separation:
    """Split ``exp(-kappa r) / r``, or ``exp(-kappa r)``, for distances up to a diameter.

    Parameters
    ----------
    alpha : float
        Where to split, in 1 / length: the short part ends a few ``1 / alpha`` away.
    diameter : float
        Largest distance.
    tol : float
        Error allowed, relative to the long part of Coulomb's law at 0, or to Slater's kernel at 0.
    kappa : float
        Screening, in 1 / length; 0 for Coulomb's law.
    slater : bool
        Split ``exp(-kappa r)``.

    Returns
    -------
    Separation
        With the fewest nodes per panel that keep ``tol``.

    Examples
    --------
    >>> [len(separate(alpha, 2 * 3**0.5, 5e-13).weights) for alpha in (4.0, 8.0, 16.0)]
    [50, 60, 70]
    """
    if kappa > 10 * alpha:
        raise DataError(
            f"separate: alpha must be kappa / 10 or more, for screening leaves no long part; got "
            f"alpha={alpha:g} for "
            f"kappa={kappa:g}. Use a larger alpha."
        )
    panels = max(math.ceil(math.log2(alpha * diameter)), _panels(alpha, kappa), 0)
    edges = np.concatenate([[0.0], alpha * 2.0 ** np.arange(-panels, 1.0)])
    r = diameter * np.concatenate([[0.0], np.geomspace(1e-4 / max(alpha * diameter, 1.0), 1.0, _CHECKED)])
    exact = _long(r, alpha, kappa, slater)
    scale = 1.0 if slater else 2 * alpha / math.sqrt(math.pi)
    for nodes in range(2, _NODES + 1):
        x, w = np.polynomial.legendre.leggauss(nodes)
        half = np.diff(edges)[:, None] / 2
        t = (edges[:-1, None] + half * (1 + x)).ravel()
        weights = (half * w).ravel() * _density(t, kappa, slater)
        got = np.exp(-np.multiply.outer(r**2, t**2)) @ weights
        error = float(np.abs(got - exact).max() / scale)
        if error <= tol:
            break
    else:
        raise DataError(
            f"separate: {_NODES} nodes per panel must keep tol={tol:g}; got {error:.2g}. Use a larger tol."
        )
    kept = weights > 1e-18 * weights.max()
    return Separation(alpha, kappa, t[kept] ** 2, weights[kept], error, slater)


def _panels(alpha: float, kappa: float) -> int:
    """Halvings of alpha down to where ``exp(-kappa^2 / 4 t^2)`` is below rounding."""
    return math.ceil(math.log2(_VANISHED * alpha / kappa)) if kappa > 0 else 0


def _density(t: np.ndarray, kappa: float, slater: bool) -> np.ndarray:
    """What the Gaussian ``exp(-r^2 t^2)`` is weighted with under the integral."""
    u = np.minimum(kappa / (2 * t), 40.0)
    density = 2 / math.sqrt(math.pi) * np.exp(-(u**2))
    return density * u**2 * (2 / kappa) if slater else density


def _long(r: np.ndarray, alpha: float, kappa: float, slater: bool) -> np.ndarray:
    """The long part in closed form, ascending distances, the first 0."""
    if kappa == 0:
        return np.concatenate([[2 * alpha / math.sqrt(math.pi)], scipy.special.erf(alpha * r[1:]) / r[1:]])
    # near 0 the difference of two large numbers: there a fine quadrature of the defining integral
    x, w = np.polynomial.legendre.leggauss(40)
    edges = alpha * 2.0 ** np.arange(-max(40.0, _panels(alpha, kappa)), 1.0)
    half = np.diff(edges)[:, None] / 2
    t, w = (edges[:-1, None] + half * (1 + x)).ravel(), (half * w).ravel()
    return np.exp(-np.multiply.outer(r**2, t**2)) @ (w * _density(t, kappa, slater))


def _functions(array: Any) -> Any:
    """exp, erfc, erfcx and where of the library of an array."""
    library = library_name(array)
    if library == "torch":
        import torch

        special = torch.special
        return SimpleNamespace(exp=torch.exp, erfc=special.erfc, erfcx=special.erfcx, where=torch.where)
    special = scipy.special
    return SimpleNamespace(exp=np.exp, erfc=special.erfc, erfcx=special.erfcx, where=np.where)
