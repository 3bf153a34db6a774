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
# Distances at which the quadrature is checked, and the nearest but 0, in 1 / alpha.
_CHECKED, _NEAREST = 400, 1e-4
# exp(-x^2 / 4) at x = 13 is 4e-19.
_VANISHED = 13
# Nodes per panel of the quadrature that others are compared with.
_FINE = 40
# Weights below this share of the largest are left out.
_LOST = 1e-18
# Halvings of an interval until the cutoff is known to rounding.
_HALVINGS = 50


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
    slater: bool

    @property
    def scale(self) -> float:
        """What errors are relative to: Coulomb's long part at 0, or Slater's kernel at 0, which is 1."""
        return _scale(self.alpha, self.slater)

    @property
    def at_zero(self) -> float:
        """The long part at distance 0: what a charge does to itself, and must not."""
        return float(self.weights.sum())

    def cutoff(self, tol: float) -> float:
        """Distance from which the short part is below ``tol`` times ``scale``."""
        low, high = 0.0, _VANISHED / self.alpha
        bound = tol * self.scale
        for _ in range(_HALVINGS):
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
        second = f.exp(-self.kappa * r) * f.erfc(self.alpha * r - shift)
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
    r = np.concatenate([[0.0], np.geomspace(_NEAREST / alpha, diameter, _CHECKED)])
    exact = _long(r, alpha, kappa, slater)
    scale = _scale(alpha, slater)
    for nodes in range(1, _NODES + 1):
        t, w = _quadrature(edges, nodes)
        weights = w * _density(t, kappa, slater)
        got = np.exp(-np.multiply.outer(r**2, t**2)) @ weights
        error = float(np.abs(got - exact).max() / scale)
        if error <= tol:
            break
    else:
        raise DataError(
            f"separate: {_NODES} nodes per panel must keep tol={tol:g}; got {error:.2g}. Use a larger tol."
        )
    kept = weights > _LOST * weights.max()
    return Separation(alpha, kappa, t[kept] ** 2, weights[kept], error, slater)


def _scale(alpha: float, slater: bool) -> float:
    """Coulomb's long part at 0, or Slater's kernel at 0."""
    return 1.0 if slater else 2 * alpha / math.sqrt(math.pi)


def _panels(alpha: float, kappa: float) -> int:
    """Halvings of alpha down to where ``exp(-kappa^2 / 4 t^2)`` is below rounding."""
    return math.ceil(math.log2(_VANISHED * alpha / kappa)) if kappa > 0 else 0


def _quadrature(edges: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre on each panel: places and weights."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    sizes = np.diff(edges)[:, None]
    return (edges[:-1, None] + sizes * (x + 1) / 2).ravel(), (sizes * w / 2).ravel()


def _density(t: np.ndarray, kappa: float, slater: bool) -> np.ndarray:
    """What the Gaussian ``exp(-r^2 t^2)`` is weighted with under the integral."""
    u = kappa / (2 * t)
    density = 2 / math.sqrt(math.pi) * np.exp(-(u**2))
    return density * u**2 * (2 / kappa) if slater else density


def _long(r: np.ndarray, alpha: float, kappa: float, slater: bool) -> np.ndarray:
    """The long part in closed form, ascending distances, the first 0."""
    if kappa == 0:
        return np.concatenate([[_scale(alpha, slater)], scipy.special.erf(alpha * r[1:]) / r[1:]])
    # near 0 the difference of two large numbers: there a fine quadrature of the defining integral
    t, w = _quadrature(alpha * 2.0 ** np.arange(-_panels(alpha, kappa), 1.0), _FINE)
    return np.exp(-np.multiply.outer(r**2, t**2)) @ (w * _density(t, kappa, slater))


def _functions(array: Any) -> Any:
    """exp, erfc and erfcx of the library of an array."""
    library = library_name(array)
    if library == "torch":
        import torch

        special = torch.special
        return SimpleNamespace(exp=torch.exp, erfc=special.erfc, erfcx=special.erfcx)
    special = scipy.special
    return SimpleNamespace(exp=np.exp, erfc=special.erfc, erfcx=special.erfcx)
