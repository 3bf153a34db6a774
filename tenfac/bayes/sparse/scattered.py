"""Posteriors that have no Kronecker structure: of scattered unknowns, and of a box seen through a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np

from tenfac.bayes.sparse.box import Box, outer
from tenfac.core.arrays import device_of, to_numpy


@dataclass(frozen=True, eq=False)
class Scattered(Box):
    """Coefficients at scattered places: a box of one mode, whose factor are their columns of the dictionary.

    Parameters
    ----------
    columns : tuple of arrays, shapes (M_i, k)
        The columns of each factor that they belong to, over all measurements.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> one = xp.ones((1, 1))
    >>> Scattered(one, (one,), (xp.ones(1),), 1.0, xp, columns=(one, 2 * one)).predicted((one, 2 * one)).shape
    (1, 1, 1)
    """

    columns: tuple[Any, ...] = field(default=(), kw_only=True)

    def predicted(self, columns: Sequence[Any]) -> Any:
        """Measurements (M_0, ..., M_{I-1}, T) of the mean, with a column of each factor per coefficient."""
        first = columns[0][:, :, None] * self.mean[None]
        for column in columns[1:]:
            first = first[..., None, :, :] * column[:, :, None]
        return self.xp.sum(first, axis=-2)

    def as_kronecker(self, columns: Sequence[Any]) -> tuple[list[Any], tuple[Any, ...]]:
        """A dictionary and variances of one mode with the same measurements."""
        matrix = columns[0]
        for column in columns[1:]:
            rows = matrix.shape[0] * column.shape[0]
            matrix = self.xp.reshape(matrix[:, None, :] * column[None], (rows, column.shape[1]))
        return [matrix], self.gammas

    def grid(self, support: Sequence[Any]) -> tuple[Any, ...]:
        """Index of the coefficients in an array of all unknowns."""
        return tuple(support)

    def places_of(self, indices: Sequence[Any], support: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Which of the unknowns asked for are coefficients here, and which they are."""
        xp = self.xp
        hits = [index[:, None] == places for index, places in zip(indices, support, strict=True)]
        both = reduce(xp.logical_and, hits)
        return xp.any(both, axis=1), [xp.argmax(xp.astype(both, xp.int64), axis=1)]


@dataclass(frozen=True, eq=False)
class MaskedBox(Box):
    """Coefficients of a box of active columns of which some measurements are missing.

    Parameters
    ----------
    places : array of int, shape (n,)
        The measurements that are there, row-major.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> one, two = xp.ones((1, 1, 1)), xp.ones((2, 1))
    >>> box = MaskedBox(one, (two, two), (xp.ones(1), xp.ones(1)), 1.0, xp, places=xp.arange(1))
    >>> box.variances().tolist()
    [[0.5]]
    """

    places: Any = field(default=None, kw_only=True)

    @property
    def _flat(self) -> Box:
        """The same coefficients as a box of one mode."""
        xp, shape = self.xp, [factor.shape[0] for factor in self.factors]
        rows, device = np.unravel_index(to_numpy(self.places), shape), device_of(self.mean)
        matrix = xp.ones((len(rows[0]), 1), dtype=self.factors[0].dtype, device=device)
        for factor, row in zip(self.factors, rows, strict=True):
            part = factor[xp.asarray(row, device=device), :]
            matrix = xp.reshape(matrix[:, :, None] * part[:, None, :], (len(row), -1))
        gammas = xp.reshape(outer(self.gammas), (-1,))
        mean = xp.reshape(self.mean, (gammas.shape[0], self.mean.shape[-1]))
        return Box(mean, (matrix,), (gammas,), self.noise, xp)

    def variances(self) -> Any:
        """Variances of all coefficients of the box, shape (k_0, ..., k_{I-1})."""
        if 0 in self.shape:
            return super().variances()
        return self.xp.reshape(self._flat.variances(), self.shape)

    def variances_at(self, places: Sequence[Any]) -> Any:
        """Variances at points, one array of places (n,) per mode."""
        return self.variances()[tuple(places)]

    def draws(self, n: int, rng: np.random.Generator) -> Any:
        """Draw from the posterior, shape (n, k_0, ..., k_{I-1}, T)."""
        if 0 in self.shape:
            return super().draws(n, rng)
        return self.xp.reshape(self._flat.draws(n, rng), (n, *self.mean.shape))
