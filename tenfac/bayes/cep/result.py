"""What ``fit_cep`` returns: predictions and factor functions at any indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.cep.chain import Chain
from tenfac.bayes.cep.forms import CPForm, TuckerForm, moments
from tenfac.bayes.fitted import MarginalsOnly
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.report import Report

if TYPE_CHECKING:
    from tenfac.bayes.cep.sweep import State

Array = NDArray[Any]
_BYTES = 2**25
RELEVANT = 1e-4  # least share in the variance of y of a function that counts


@dataclass(frozen=True, eq=False)
class CepFit(MarginalsOnly):
    """Posterior of a CP or Tucker function with learned factor functions.

    Parameters
    ----------
    form : CPForm or TuckerForm
    state : State
        In units of the scaled y.
    grids : tuple of arrays
        Observed indices per mode.
    center, spread : float
        Mean and standard deviation of y.
    total : float
        Number of observations.
    info : Report
        ``history`` holds the bound of every sweep, in units of the scaled y.
    """

    form: CPForm | TuckerForm
    state: State
    grids: tuple[Array, ...]
    center: float
    spread: float
    total: float
    info: Report = field(repr=False)
    inference = "cep"

    @property
    def bound(self) -> float:
        """Lower bound of the log evidence of y."""
        return self.state.bound - self.total * float(np.log(self.spread))

    @property
    def log_evidence(self) -> float:
        """The bound, by the name that every fitted function has for it."""
        return self.bound

    @property
    def noise(self) -> float:
        """Standard deviation of the noise, in the unit of y."""
        return self.spread * float(np.sqrt(self.state.noise))

    @property
    def relevance(self) -> tuple[Array, ...]:
        """Per mode, the share of each function's terms in the variance of y, shape (Q,).

        Above 1 where terms cancel.
        """
        return relevance(self.form, self.state)

    @property
    def rank(self) -> tuple[int, ...]:
        """Per mode, functions in products (CP) or all (Tucker) with more than 1e-4 of the variance of y."""
        return tuple(int((share[self.form.products] > RELEVANT).sum()) for share in self.relevance)

    @property
    def lengthscales(self) -> tuple[Array | None, ...]:
        """Per mode, the lengthscale of each function in the unit of its positions; None when discrete."""
        return tuple(f.lengthscales if isinstance(f.chain, Chain) else None for f in self.state.functions)

    def predict(self, positions: list[Array], with_noise: bool = False) -> tuple[Array, Array]:
        """Mean and variance of the function (or of a new observation) at any indices, shape (N,) each.

        Parameters
        ----------
        positions : sequence of D arrays, shape (N,)
            A code that was not observed has its prior.
        with_noise : bool
            Add the variance of the noise.
        """
        columns = [np.asarray(column, dtype=float) for column in positions]
        shapes = {column.shape for column in columns}
        if len(columns) != len(self.grids) or len(shapes) != 1 or columns[0].ndim != 1:
            raise ShapeError(
                f"CepFit.predict: `positions` must be {len(self.grids)} columns of one length; got shapes "
                f"{[column.shape for column in columns]}."
            )
        for d, column in enumerate(columns):
            if not np.isfinite(column).all():
                raise DataError(f"CepFit.predict: `positions[{d}]` must be finite. Drop these rows.")
        mean, variance = self._rows(columns)
        return mean, variance + self.noise**2 if with_noise else variance

    def at(
        self,
        positions: list[Array],
        with_variance: bool = True,  # noqa: ARG002 (the variance costs nothing more)
    ) -> tuple[Array, Array, Array]:
        """Mean, variance of f, variance of an observation; all three come in one pass."""
        mean, variance = self.predict(positions)
        return mean, variance, variance + self.noise**2

    def marginal(self, mode: int, x: Array) -> tuple[Array, Array]:
        """Mean and variance of the average of f over the other modes' observed indices, at ``x`` (N,)."""
        return self._rows([x if d == mode else None for d in range(len(self.grids))])

    def _rows(self, columns: Sequence[Array | None]) -> tuple[Array, Array]:
        """Moments of f by blocks of rows; a mode without a column is averaged over its observed indices."""
        count = next(column.size for column in columns if column is not None)
        mean, variance = np.empty(count), np.empty(count)
        block = max(64, _BYTES // (8 * max(self.form.n_terms, 4) ** 2))
        for start in range(0, count, block):
            rows = slice(start, min(start + block, count))
            own = [None if column is None else column[rows] for column in columns]
            mean[rows], variance[rows] = self._block(own, rows.stop - rows.start)
        return self.center + self.spread * mean, self.spread**2 * variance

    def _block(self, columns: list[Array | None], count: int) -> tuple[Array, Array]:
        firsts, seconds = [], []
        for mode, column in enumerate(columns):
            if column is None:
                own, cov = self.state.functions[mode].average()
                first, second = moments(own[None], cov[None])
                places = np.zeros(count, dtype=np.intp)
            else:
                x, places = np.unique(column, return_inverse=True)
                first, second = moments(*self.moments_of(mode, x))
            firsts.append(first[places.ravel()])
            seconds.append(second[places.ravel()])
        core = self.state.core
        mean, square = self.form.evaluate(firsts, seconds, core.mean, core.second)
        return mean, np.maximum(square - mean**2, 0.0)

    def moments_of(self, mode: int, x: Array) -> tuple[Array, Array]:
        """Means (U, Q) and covariances (U, Q, Q) of all functions of a mode, as they are in ``state``."""
        functions = self.state.functions[mode]
        if isinstance(functions.chain, Chain):
            return functions.at(x)
        seen = self.grids[mode]
        places = np.minimum(np.searchsorted(seen, x), seen.size - 1)
        return functions.at(np.where(seen[places] == x, places, seen.size))

    def factors(self, mode: int, x: Array | None = None) -> tuple[Array, Array]:
        """Mean and standard deviation of the functions of one mode, at its observed indices or any others.

        Parameters
        ----------
        mode : int
        x : array, shape (U,), optional

        Returns
        -------
        mean, std : arrays, shape (U, Q)
            The main effect comes first in a CP with mains. Each function is turned so that its mean over the
            observed indices is largest in size where positive; the coefficients are those of ``state``.
        """
        functions = self.state.functions[mode]
        mean, cov = self.moments_of(mode, self.grids[mode] if x is None else np.asarray(x, dtype=float))
        own = functions.mean
        peak = own[np.abs(own).argmax(axis=0), np.arange(own.shape[1])]
        sign = np.where(peak < 0, -1.0, 1.0)
        return mean * sign, np.sqrt(np.maximum(np.diagonal(cov, axis1=1, axis2=2), 0.0))


def relevance(form: CPForm | TuckerForm, state: State) -> tuple[Array, ...]:
    """Per mode, the mean squared size of the terms that each function takes part in, shape (Q,)."""
    strength = np.square(state.core.mean)
    for f, index in zip(state.functions, form.index, strict=True):
        strength = strength * np.concatenate([[1.0], np.mean(np.square(f.mean), axis=0)])[index]
    return tuple(
        np.array([strength[index == j].sum() for j in range(1, size)])
        for index, size in zip(form.index, form.sizes, strict=True)
    )
