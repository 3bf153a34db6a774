"""The posterior of the coefficients on the box of active columns, given their variances and the noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tenfac.bayes.sparse.ascent import Climb
from tenfac.bayes.sparse.statistics import squared
from tenfac.core.arrays import device_of
from tenfac.core.contract import adjoint, contract


@dataclass(frozen=True, eq=False)
class Box:
    """Coefficients of the active columns: mean, and what their covariance is made of.

    The covariance is ``G - G A^H (A G A^H + noise)^-1 A G`` with Kronecker products ``A`` of ``factors`` and
    ``G`` of the diagonal ``gammas``; it does not depend on the measurements, and snapshots share it.

    Parameters
    ----------
    mean : array, shape (k_0, ..., k_{I-1}, T)
    factors : tuple of arrays, shapes (M_i, k_i)
        The active columns, float64 or complex128.
    gammas : tuple of arrays, shapes (k_i,)
    noise : float
    xp : module

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> box = Box(xp.ones((1, 1)), (xp.ones((1, 1)),), (xp.ones(1),), 1.0, xp)
    >>> box.variances().tolist()
    [0.5]
    """

    mean: Any
    factors: tuple[Any, ...]
    gammas: tuple[Any, ...]
    noise: float
    xp: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Numbers ``(k_0, ..., k_{I-1})`` of active columns."""
        return tuple(factor.shape[1] for factor in self.factors)

    @property
    def columns(self) -> tuple[Any, ...]:
        """Active columns of each factor over all measurements."""
        return self.factors

    def predicted(self, factors: Sequence[Any]) -> Any:
        """Measurements of the mean, shape (M_0, ..., M_{I-1}, T), with active columns of any rows."""
        return contract(self.mean, [*factors, None], xp=self.xp)

    def as_kronecker(self, factors: Sequence[Any]) -> tuple[Sequence[Any], tuple[Any, ...]]:
        """Factors and variances of the Kronecker prior of measurements with these active columns."""
        return factors, self.gammas

    def grid(self, support: Sequence[Any]) -> tuple[Any, ...]:
        """Index of the coefficients in an array of all unknowns."""
        last = len(support) - 1
        return tuple(self.xp.reshape(one, (-1, *(1,) * (last - n))) for n, one in enumerate(support))

    def places_of(self, indices: Sequence[Any], support: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Which of the unknowns asked for are coefficients here, and which they are per mode."""
        xp, inside, places = self.xp, None, []
        for index, columns in zip(indices, support, strict=True):
            hits = index[:, None] == columns
            known = xp.any(hits, axis=1)
            inside = known if inside is None else inside & known
            places.append(xp.argmax(xp.astype(hits, xp.int64), axis=1))
        return inside, places

    @cached_property
    def _axes(self) -> list[tuple[Any, Any, Any]]:
        """Per mode: axes of the measurements, squared lengths, and the axes of the coefficients."""
        xp = self.xp
        pairs = zip(self.factors, self.gammas, strict=True)
        found = [xp.linalg.svd(a * xp.sqrt(g), full_matrices=False) for a, g in pairs]
        return [(u, s * s, adjoint(v, xp)) for u, s, v in found]

    @cached_property
    def _parts(self) -> tuple[Any, list[Any]]:
        """A core of shrinkages and a nonnegative matrix per mode that together give the variances.

        The last entry of each mode stands for the part of the variances that no measurement sees.
        """
        xp, matrices, values = self.xp, [], []
        for (_, lengths, axes), g in zip(self._axes, self.gammas, strict=True):
            seen = squared(axes, xp) * g[:, None]
            unseen = g - xp.sum(seen, axis=1)
            unseen = xp.where(unseen > 0, unseen, 0.0) if lengths.shape[0] < g.shape[0] else 0.0 * g
            matrices.append(xp.concat([seen, unseen[:, None]], axis=1))
            values.append(xp.concat([lengths, 0.0 * lengths[:1]]))
        core = self.noise / (outer(values) + self.noise)
        return core, matrices

    def variances(self) -> Any:
        """Variances of all coefficients of the box, shape (k_0, ..., k_{I-1}): a sum without cancellation."""
        if 0 in self.shape:
            return self.xp.zeros(self.shape, dtype=self.xp.float64, device=device_of(self.mean))
        core, matrices = self._parts
        return contract(core, matrices, xp=self.xp)

    def variances_at(self, places: Sequence[Any]) -> Any:
        """Variances at points, one array of places (n,) per mode."""
        core, matrices = self._parts
        rows = [matrix[place, :] for matrix, place in zip(matrices, places, strict=True)]
        return contract(core, rows, paired=tuple(range(len(rows))), xp=self.xp)

    def draws(self, n: int, rng: np.random.Generator) -> Any:
        """Draw from the posterior, shape (n, k_0, ..., k_{I-1}, T).

        A draw of prior and noise, corrected by what it says of its own measurements (Matheron's rule).
        """
        xp, mean = self.xp, self.mean
        if 0 in self.shape:
            return xp.zeros((n, *mean.shape), dtype=mean.dtype, device=device_of(mean))
        snapshots = mean.shape[-1]
        lengths = [axes[1].shape[0] for axes in self._axes]
        prior = self._normal((n, *self.shape, snapshots), rng)
        prior = prior * xp.sqrt(outer(self.gammas))[..., None]
        noise = self._normal((n, *lengths, snapshots), rng) * math.sqrt(self.noise)
        turns = [adjoint(axes[0], xp) @ a for axes, a in zip(self._axes, self.factors, strict=True)]
        data = contract(prior, [*turns, None], xp=xp) + noise
        data = data / (outer([axes[1] for axes in self._axes]) + self.noise)[..., None]
        backs = [g[:, None] * adjoint(turn, xp) for turn, g in zip(turns, self.gammas, strict=True)]
        return mean + prior - contract(data, [*backs, None], xp=xp)

    def _normal(self, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
        xp, like = self.xp, self.mean
        if xp.isdtype(like.dtype, "complex floating"):
            values = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / math.sqrt(2)
        else:
            values = rng.standard_normal(shape)
        return xp.asarray(values, device=device_of(like))


def outer(vectors: Sequence[Any]) -> Any:
    """Outer product of vectors, an axis each.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> outer([xp.ones(2), xp.ones(3)]).shape
    (2, 3)
    """
    result = vectors[0]
    for vector in vectors[1:]:
        result = result[..., None] * vector
    return result


def posterior_mean(found: Climb, snapshots: int, xp: Any) -> Any:
    """Mean of the coefficients on the active box, shape (k_0, ..., k_{I-1}, T), in scaled units.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.bayes.sparse.ascent import Options, climb, first_state
    >>> from tenfac.bayes.sparse.problem import problem_of
    >>> problem = problem_of([np.eye(1)], np.array([1.0]))
    >>> state = first_state(problem, [np.ones(1)], 1.0)
    >>> found = climb(state, problem.sizes, Options(1.0, 1.0, 0.0, 0, 1e-5), problem.xp)
    >>> posterior_mean(found, 1, problem.xp).tolist()
    [[0.5]]
    """
    state = found.state
    shape = [mode.values.shape[0] for mode in state.modes]
    total = outer([mode.values for mode in state.modes]) + state.noise
    shrunk = xp.reshape(state.turned, (*shape, snapshots)) / total[..., None]
    backs = [mode.gammas[:, None] * adjoint(mode.turned, xp) for mode in state.modes]
    return contract(shrunk, [*backs, None], xp=xp)
