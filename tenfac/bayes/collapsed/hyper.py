"""Hyperparameters of the collapsed model, and the weak priors that hold them where the data say nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.mode_prior import ModePrior

Array = NDArray[Any]

# Weak hyperpriors (mean, standard deviation), in units where y has variance one and every continuous index
# runs from 0 to 1. They only matter where the data say next to nothing. Order: s, noise variance, then per
# mode c, lengthscale, sharpness (all as logarithms), center. The sharpness is bounded so that no part of an
# axis is stretched more than about sevenfold: the evidence cannot see inside a gap between indices.
_CENTER = np.array([-1.0, -3.0, 0.0, -0.7, -1.0, 0.5])
_WIDTH = np.array([3.0, 3.0, 2.0, 1.5, 1.5, 0.5])
_LOWER = np.array([-14.0, -18.0, -9.0, -9.5, -4.0, 0.0])
_UPPER = np.array([8.0, 3.0, 7.0, 4.0, 3.4, 1.0])
_START = np.array([0.0, -3.0, 0.0, -0.7, 0.0, 0.5])
# Loadings have mean zero and this standard deviation, in units of what a level has of its own.
_LOADING_WIDTH = 4.0
_SMALL_LOADING, LARGEST_LOADING = 0.3, 100.0
# Variance and lengthscales of a main effect and of the slice residual, as logarithms.
_EXTRA_CENTER, _EXTRA_WIDTH = np.array([-2.0, -1.5]), np.array([3.0, 2.0])
_EXTRA_LOWER, _EXTRA_UPPER = np.array([-14.0, -9.5]), np.array([6.0, 4.0])
_EXTRA_START = np.array([-2.0, -1.5])


def _none(shape: tuple[int, ...]) -> Array:
    return np.zeros(shape)


@dataclass(frozen=True)
class Hyper:
    """Hyperparameters.

    Parameters
    ----------
    scale : float
        ``log s``: s is the variance of a core entry.
    noise : float
        Logarithm of the noise variance.
    modes : array, shape (D, 4)
        Per mode: logarithms of constant, lengthscale and sharpness, and the center of the bend. A discrete
        mode uses the first only, an oscillator the first three (see ``ModePrior``).
    loadings : tuple of D arrays, shapes (M_n, r_n)
        Per discrete mode, what makes its levels alike; ``r_n = 0`` where they are exchangeable, and for
        continuous modes.
    mains : array, shape (D, 2) or (0, 2)
        Per mode, logarithms of variance and lengthscale of its main effect; empty if the model has none
        beside those of the product. A discrete mode uses the first only.
    residual : array, shape (1 + D,) or (0,)
        Logarithms of the variance of the residual within slices and of its lengthscale per mode (that of the
        exact mode is not used); empty if the model has no such residual.
    cells : array, shape (1 + D,) or (0,)
        The same of an effect of each cell of the other modes that all slices share.
    """

    scale: float
    noise: float
    modes: Array
    loadings: tuple[Array, ...]
    mains: Array = field(default_factory=lambda: _none((0, 2)))
    residual: Array = field(default_factory=lambda: _none((0,)))
    cells: Array = field(default_factory=lambda: _none((0,)))

    @classmethod
    def start(cls, size: int) -> Hyper:
        """A neutral start for D = ``size`` modes: prior variance one, equal shares, smooth functions."""
        none = (np.zeros((1, 0)),) * size
        return cls(-np.log(2.0) * size, float(_START[1]), np.tile(_START[2:], (size, 1)), none)

    def with_loadings(self, sizes: tuple[int, ...], rank: int) -> Hyper:
        """A copy with small loadings, ``rank`` columns or one less than there are levels, to start from.

        ``sizes`` has the number of levels per mode, 0 for a continuous one.
        """
        loadings = []
        for size in sizes:
            column = np.arange(1, min(rank, max(size - 1, 0)) + 1)
            waves = np.cos(np.pi * (np.arange(max(size, 1))[:, None] + 0.5) * column / max(size, 1))
            loadings.append(_SMALL_LOADING * waves)
        return replace(self, loadings=tuple(loadings))

    def with_terms(self, mains: bool = False, residual: bool = False, cells: bool = False) -> Hyper:
        """A copy with or without main effects, slice residual, cell effects; new ones at a start."""
        size = self.modes.shape[0]
        start_mains, start = np.tile(_EXTRA_START, (size, 1)), np.repeat(_EXTRA_START, [1, size])
        return replace(
            self,
            mains=(self.mains if self.mains.size else start_mains) if mains else _none((0, 2)),
            residual=(self.residual if self.residual.size else start) if residual else _none((0,)),
            cells=(self.cells if self.cells.size else start) if cells else _none((0,)),
        )

    def prior(self, mode: int, kernel: str | None) -> ModePrior:
        """The prior of one mode in the product."""
        constant, lengthscale, sharpness = np.exp(self.modes[mode, :3])
        return ModePrior(
            kernel,
            float(constant),
            float(lengthscale),
            float(sharpness),
            float(self.modes[mode, 3]),
            self.loadings[mode],
        )

    def main(self, mode: int, kernel: str | None) -> ModePrior:
        """The prior of one mode's main effect, for variance one: on the axis as the product bends it.

        An oscillator has one period for both.
        """
        lengthscale = float(np.exp(self.modes[mode, 1] if kernel == "oscillator" else self.mains[mode, 1]))
        none = np.zeros((1, 0))
        return replace(self.prior(mode, kernel), constant=0.0, lengthscale=lengthscale, loadings=none)

    def moved(self, mode: int, entry: int, step: float) -> Hyper:
        """A copy with one number of one mode changed; entries 4 and 5 are those of its main effect."""
        modes, mains = self.modes.copy(), self.mains.copy()
        if entry < 4:
            modes[mode, entry] += step
        else:
            mains[mode, entry - 4] += step
        return replace(self, modes=modes, mains=mains)

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms beside the product."""
        return tuple(name for name in ("mains", "residual", "cells") if getattr(self, name).size)

    @property
    def n_loadings(self) -> int:
        """Number of loadings in all."""
        return sum(part.size for part in self.loadings)

    @property
    def is_residual(self) -> NDArray[np.bool_]:
        """Which entries of ``pack()`` are those of the residual."""
        first = 2 + self.modes.size + self.mains.size
        place = np.arange(self.pack().size) - first
        return (place >= 0) & (place < self.residual.size)

    def _parts(self) -> list[Array]:
        head = np.array([self.scale, self.noise])
        return [head, self.modes, self.mains, self.residual, self.cells, *self.loadings]

    def pack(self) -> Array:
        """All numbers in one vector: scale, noise, modes, mains, residual, cells, loadings."""
        return np.concatenate([part.ravel() for part in self._parts()])

    def unpack(self, theta: Array) -> Hyper:
        """Inverse of ``pack``, for parts of the shapes these have."""
        old = self._parts()
        pieces = np.split(theta, np.cumsum([part.size for part in old])[:-1])
        head, modes, mains, residual, cells, *loadings = (
            piece.reshape(part.shape) for piece, part in zip(pieces, old, strict=True)
        )
        return Hyper(float(head[0]), float(head[1]), modes, tuple(loadings), mains, residual, cells)

    def spread_out(self, table: Array, extra: Array, loading: float) -> Array:
        """One number for every entry of ``pack()``: from a table (6,), one of extra terms (2,), one more."""
        size = self.modes.shape[0]
        return np.concatenate(
            [
                table[:2],
                np.tile(table[2:], size),
                np.tile(extra, self.mains.shape[0]),
                *[np.repeat(extra, [1, size]) for part in (self.residual, self.cells) if part.size],
                np.full(self.n_loadings, loading),
            ]
        )


def hyperprior(hyper: Hyper) -> tuple[Array, Array, Array, Array]:
    """Mean, standard deviation, lower and upper bound of every entry of ``hyper.pack()``; no bound is inf."""
    return (
        hyper.spread_out(_CENTER, _EXTRA_CENTER, 0.0),
        hyper.spread_out(_WIDTH, _EXTRA_WIDTH, _LOADING_WIDTH),
        hyper.spread_out(_LOWER, _EXTRA_LOWER, -np.inf),
        hyper.spread_out(_UPPER, _EXTRA_UPPER, np.inf),
    )


def log_prior(hyper: Hyper) -> tuple[float, Array]:
    """Log density of the weak hyperprior (up to a constant) and its gradient."""
    center, width, _, _ = hyperprior(hyper)
    z = (hyper.pack() - center) / width
    return float(-0.5 * z @ z), -z / width
