"""Charges on a regular grid: moments by one axis after the other, near neighbors by one convolution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.signal

from tenfac.core.arrays import device_of, eps, namespace_of, to_numpy
from tenfac.core.contract import contract
from tenfac.core.tucker import Tucker
from tenfac.functional.charges.gaussian_basis import GaussianBasis, rows_of
from tenfac.functional.charges.separation import Separation

# Cells of the grid per charge up to which it is used: 8 hold a diamond crystal.
_SPARSEST = 8
# Distance said of planes where there is one only.
_ALONE = 1.0


@dataclass(frozen=True, eq=False)
class Lattice:
    """Places ``origin + step * cell`` of a grid, each at most once; cells may be empty.

    Attributes
    ----------
    origin, step : array, shape (3,)
    shape : tuple of int
        Cells in each direction.
    cells : array, shape (N,)
        Number of the cell of each place, in C order.
    """

    origin: np.ndarray
    step: np.ndarray
    shape: tuple[int, ...]
    cells: np.ndarray

    def axes(self, like: Any) -> list[Any]:
        """Coordinates of the planes, in the library and dtype of ``like``."""
        xp = namespace_of(like)
        planes = [o + h * np.arange(n) for o, h, n in zip(self.origin, self.step, self.shape, strict=True)]
        return [xp.asarray(x, dtype=like.dtype, device=device_of(like)) for x in planes]

    def filled(self, values: Any) -> Any:
        """Values at the places as an array over all cells, zero in empty ones."""
        grid = np.zeros(math.prod(self.shape), to_numpy(values).dtype)
        grid[self.cells] = to_numpy(values)
        return namespace_of(values).asarray(grid.reshape(self.shape), device=device_of(values))

    def moments(self, basis: GaussianBasis, charges: Any) -> Any:
        """``basis.moments`` of the charges, at a cost of ``2 r`` per cell in place of ``2 r^3``."""
        xp = namespace_of(charges)
        rows = []
        for n, x in enumerate(self.axes(charges)):
            factor = xp.asarray(basis.factors[n], dtype=charges.dtype, device=device_of(charges))
            rows.append(xp.matrix_transpose(rows_of(basis.modes[n], factor, x, 0, xp)))
        return contract(self.filled(charges), rows, xp=xp)

    def long(self, function: Tucker, gradient: bool) -> tuple[Any, Any]:
        """A function at the places, and its gradient if asked for."""
        xp = namespace_of(function.core)
        axes = self.axes(function.core)
        made = [function, *(function.diff(n) for n in range(3))] if gradient else [function]
        cells = xp.asarray(self.cells, device=device_of(function.core))
        value, *slopes = [xp.take(xp.reshape(f.on_grid(*axes), (-1,)), cells, axis=0) for f in made]
        return value, xp.stack(slopes, axis=1) if gradient else None

    def short(self, split: Separation, cutoff: float, charges: Any, gradient: bool) -> tuple[Any, Any]:
        """Potential of the part of short range at the places, and its gradient if asked for."""
        reach = [min(int(cutoff / h), n - 1) for h, n in zip(self.step, self.shape, strict=True)]
        sides = [h * np.arange(-m, m + 1) for h, m in zip(self.step, reach, strict=True)]
        delta = np.stack(np.meshgrid(*sides, indexing="ij"))
        r = np.sqrt((delta**2).sum(axis=0))
        near = (r > 0) & (r < cutoff)
        safe = np.where(near, r, cutoff)
        kernels = [split.short(safe)]
        if gradient:
            kernels += list(split.short_slope(safe) / safe * delta)
        grid = to_numpy(self.filled(charges)).astype(float)
        xp = namespace_of(charges)
        found = [
            scipy.signal.fftconvolve(grid, np.where(near, kernel, 0.0), mode="same").reshape(-1)[self.cells]
            for kernel in kernels
        ]
        value, *slopes = [xp.asarray(x, dtype=charges.dtype, device=device_of(charges)) for x in found]
        return value, xp.stack(slopes, axis=1) if gradient else None


def find_lattice(places: np.ndarray) -> Lattice | None:
    """The grid that places lie on, to rounding; None if there is none that is nearly full.

    Parameters
    ----------
    places : array, shape (N, 3)

    Examples
    --------
    >>> find_lattice(np.array([[0.0, 0.0, 1.0], [0.5, 0.0, 1.0], [1.5, 0.0, 1.0]])).shape
    (4, 1, 1)
    >>> find_lattice(np.random.default_rng(0).uniform(size=(10, 3))) is None
    True
    """
    steps, index = [], []
    for x in places.T:
        step = _step(x, _SPARSEST * len(x))
        if step is None:
            return None
        steps.append(step)
        index.append(np.rint((x.astype(float) - float(x.min())) / step).astype(np.int64))
    shape = tuple(int(i.max()) + 1 for i in index)
    if math.prod(shape) > _SPARSEST * len(places):
        return None
    cells = np.ravel_multi_index(index, shape)
    if len(np.unique(cells)) < len(cells):
        return None
    return Lattice(places.min(axis=0).astype(float), np.array(steps), shape, cells)


def _step(x: np.ndarray, most: int) -> float | None:
    """Distance of the planes on which coordinates lie, ``most`` planes at most."""
    planes = np.unique(x).astype(float)
    off = planes - planes.min()
    rounding = 8 * eps(x.dtype) * np.abs(planes).max()
    span, gaps = off.max(), np.diff(off)
    if span <= rounding:
        return _ALONE
    count = round(span / float(gaps[gaps > rounding].min(initial=span)))
    if count >= most:
        return None
    step = span / count
    off -= step * np.rint(off / step)
    return float(step) if np.abs(off).max() <= rounding else None
