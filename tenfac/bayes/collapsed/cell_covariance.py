"""How the residuals of cells go together, learned from the slices.

A kernel says that near cells are alike. Where few cells recur in many slices these tell more: which weather
stations went on at the same time, which shops follow the same promotion. The covariance of the cells'
residuals has an inverse-Wishart prior around the kernel, so that slices enough move it, and few do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class CellCovariance:
    """Covariance ``(1 - share) K + share C`` of the residuals at the cells, at scale one.

    Elsewhere ``K(x, z) + share A(x) (C - K) A(z)^T`` with ``A(x) = K(x, cells) K^-1``: what the prior expects
    given the cells.

    Parameters
    ----------
    nodes : tuple of arrays, shape (U,)
        Positions of the cells, per mode, in lexicographic order.
    values : array, shape (U, U)
        ``C``: average over slices of the products of residuals.
    share : float
        What the slices weigh, from 0 to 1.
    strength : float
        How many slices C is worth, those that stand for the kernel counted.

    References
    ----------
    .. [1] P. J. Brown, N. D. Le, J. V. Zidek, Multivariate spatial interpolation and exposure to air
       pollutants, Canadian Journal of Statistics 22 (1994), section 3.
    """

    nodes: tuple[Array, ...]
    values: Array
    share: float
    strength: float = np.inf

    @classmethod
    def unknown(cls, nodes: tuple[Array, ...]) -> CellCovariance:
        """What no slice has told: the kernel's."""
        return cls(nodes, np.zeros((nodes[0].size,) * 2), 0.0)

    def told(self, values: Array, slices: int, prior: float) -> CellCovariance:
        """From so many slices, where the kernel is worth ``prior`` of them."""
        return replace(self, values=values, share=slices / (slices + prior), strength=slices + prior)

    def widened(self, count: int) -> float:
        """What not knowing C adds to the variance given ``count`` cells of the slice, to first order.

        One part is that of regression weights learned from so many slices, one that of their residuals.
        """
        return 1 + 2 * count / self.strength

    def places(self, points: Sequence[Array]) -> NDArray[np.intp]:
        """Numbers of the cells that points (N,) per mode are, -1 elsewhere."""
        cells = zip(*(x.tolist() for x in points), strict=True)
        return np.array([self._numbers.get(cell, -1) for cell in cells], dtype=np.intp)

    @cached_property
    def _numbers(self) -> dict[tuple[float, ...], int]:
        cells = zip(*(x.tolist() for x in self.nodes), strict=True)
        return {cell: number for number, cell in enumerate(cells)}

    def weights(self, kernel: Callable[..., Array], points: Sequence[Array]) -> Array:
        """``A`` at points, shape (N, U): one cell's own at a cell."""
        places = self.places(points)
        out = np.zeros((places.size, self.values.shape[0]))
        out[np.arange(places.size), places] = 1.0
        new = places < 0
        if new.any():
            among, cross = kernel(self.nodes, self.nodes), kernel([x[new] for x in points], self.nodes)
            among[np.diag_indices_from(among)] *= 1 + 1e-12
            out[new] = np.linalg.solve(among, cross.T).T
        return out

    def excess(self, kernel: Callable[..., Array]) -> Array:
        """What it adds to the kernel between cells, shape (U, U)."""
        return self.share * (self.values - kernel(self.nodes, self.nodes))
