"""One sign, scale and order for the functions of a fit: products can trade all three."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.cep.result import RELEVANT, CepFit

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Canonical:
    """Which functions of each mode count, and what each is multiplied by.

    A function has mean square one over the observed indices and is positive where it is largest in size. The
    one with the largest share in the variance of y comes first; those without a share are left out.

    Parameters
    ----------
    fit : CepFit
    places : tuple of arrays, shape (R_d,)
    by : tuple of arrays, shape (R_d,)
    """

    fit: CepFit
    places: tuple[NDArray[np.intp], ...]
    by: tuple[Array, ...]

    @classmethod
    def of(cls, fit: CepFit) -> Canonical:
        """Order and scale the functions of a fit; main effects of a CP are no part of its products."""
        first = fit.form.products.start
        places, by = [], []
        for share, functions in zip(fit.relevance, fit.state.functions, strict=True):
            order = np.argsort(-share[first:], kind="stable") + first
            own = order[share[order] > RELEVANT]
            mean = functions.mean[:, own]
            peak = np.take_along_axis(mean, np.abs(mean).argmax(axis=0)[None], axis=0)[0]
            size = np.sqrt(np.mean(mean**2, axis=0))
            places.append(own)
            by.append(np.where(peak < 0, -1.0, 1.0) / size)
        return cls(fit, tuple(places), tuple(by))

    def functions(self, mode: int, x: Array) -> tuple[Array, Array]:
        """Means and standard deviations at positions or codes, shape (N, R_d) each."""
        mean, cov = self.fit.moments_of(mode, x)
        own, by = self.places[mode], self.by[mode]
        std = np.sqrt(np.maximum(np.diagonal(cov, axis1=1, axis2=2), 0.0))
        return mean[:, own] * by, std[:, own] * np.abs(by)

    def lengthscale(self, mode: int) -> float:
        """Of the function with the largest share, or of the main effect if no other has one."""
        own = self.places[mode]
        return float(self.fit.state.functions[mode].lengthscales[own[0] if own.size else 0])

    def core_in(self, offset: float, spread: float) -> Array:
        """Posterior mean of what multiplies the functions, for ``y = offset + spread * f``.

        CP: shape (R,). Tucker: shape (1 + R_0, 1 + R_1, ...); place 0 of a mode is the function that is 1, so
        that the first entry is the level and its neighbors along the modes make main effects.
        """
        fit = self.fit
        if fit.form.diagonal:
            return spread * fit.spread * np.prod([1 / by for by in self.by], axis=0)
        core = spread * fit.spread * fit.state.core.mean.reshape(fit.form.sizes)
        for mode, (own, by) in enumerate(zip(self.places, self.by, strict=True)):
            core = np.moveaxis(core.take(np.append(0, own + 1), axis=mode), mode, -1)
            core = np.moveaxis(core * np.append(1.0, 1 / by), -1, mode)
        core[(0,) * core.ndim] += offset + spread * fit.center
        return core
