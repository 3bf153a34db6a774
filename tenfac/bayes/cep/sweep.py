"""Block updates: each mode, the coefficients of the terms, the noise; and the bound they climb."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.cep.forms import CPForm, TuckerForm, moments
from tenfac.bayes.cep.mode import Climber, Functions
from tenfac.bayes.cep.rows import Rows

Array = NDArray[Any]
_NOISE = 1e-10  # least noise variance, relative to that of y
_SHARPEST = 1e10  # largest prior precision of a coefficient
LEVEL = 1.0  # prior variance of the level, relative to that of y


@dataclass(frozen=True, eq=False)
class Core:
    """Posterior of the coefficients of the terms.

    Parameters
    ----------
    mean, cov : arrays, shapes (P,) and (P, P)
    precision : array, shape (P,)
        Of the prior; only that of free coefficients counts.
    kl : float
    """

    mean: Array
    cov: Array
    precision: Array
    kl: float

    @property
    def second(self) -> Array:
        """Second moments, shape (P, P)."""
        return self.cov + self.mean[:, None] * self.mean

    def updated(self, free: Array, quadratic: Array, linear: Array) -> Core:
        """Posterior of the free coefficients for sums that are already divided by the noise variance."""
        from scipy.linalg import cho_factor, cho_solve

        fixed = self.mean.copy()
        fixed[free] = 0.0
        among = np.ix_(free, free)
        root = 1 / np.sqrt(self.precision[free])  # whitened: well conditioned however sharp the prior
        known = np.eye(free.size) + root[:, None] * quadratic[among] * root
        factor = cho_factor(known, lower=True)
        inverse = cho_solve(factor, np.eye(free.size))
        mean, cov = fixed, np.zeros_like(self.cov)
        white = cho_solve(factor, root * (linear - quadratic @ fixed)[free])
        mean[free] = root * white
        cov[among] = root[:, None] * (0.5 * (inverse + inverse.T)) * root
        logdet = 2 * float(np.log(np.diag(factor[0])).sum())
        kl = 0.5 * (float(white @ white) + float(np.trace(inverse)) - free.size + logdet)
        return replace(self, mean=mean, cov=cov, kl=kl)

    def relearned(self, free: Array) -> Core:
        """The same posterior under prior precisions that fit it best; that of the level stays."""
        own = np.square(self.mean) + np.diag(self.cov)
        best = np.minimum(1 / np.maximum(own, 1 / _SHARPEST), _SHARPEST)
        chosen = self.precision.copy()
        chosen[free[1:]] = best[free[1:]]
        change = 0.5 * float((own * (chosen - self.precision) - np.log(chosen / self.precision))[free].sum())
        return replace(self, precision=chosen, kl=self.kl + change)

    def rescaled(self, by: Array) -> Core:
        """Coefficients times ``by`` (P,)."""
        return replace(
            self,
            mean=self.mean * by,
            cov=self.cov * by[:, None] * by,
            precision=np.clip(self.precision / by**2, 1 / _SHARPEST, None),
        )


@dataclass(frozen=True, eq=False)
class State:
    """Everything one sweep changes.

    Parameters
    ----------
    functions : tuple of Functions
    core : Core
    noise : float
        Variance.
    bound : float
        Lower bound of the log evidence of the scaled y.
    """

    functions: tuple[Functions, ...]
    core: Core
    noise: float
    bound: float


class Sweeper:
    """Runs sweeps of one form over one set of rows.

    Parameters
    ----------
    rows : Rows
    form : CPForm or TuckerForm
    order : list of int
        Modes in the order of their updates.
    tick : callable, optional
        Called after every sweep.
    """

    def __init__(
        self,
        rows: Rows,
        form: CPForm | TuckerForm,
        order: list[int],
        tick: Callable[[], object] | None = None,
    ) -> None:
        self.rows, self.form, self.order, self.tick = rows, form, order, tick

    def climbers(self, state: State) -> list[Climber]:
        """Step sizes to start from, one set per mode."""
        return [Climber(f.variances.size) for f in state.functions]

    def sweep(
        self, state: State, climbers: list[Climber] | None, learn_noise: bool = True, learn_core: bool = True
    ) -> State:
        """Update every block once; step the hyperparameters of the modes when ``climbers`` are given."""
        rows, form = self.rows, self.form
        functions, core, noise = list(state.functions), state.core, state.noise
        both = [moments(f.mean, f.cov) for f in functions]
        tables = [form.table(d, both[d][1]) for d in range(len(functions))]
        misfit = 0.0
        for d in self.order:
            wide, narrow = form.sums(rows.by_mode[d], tables)
            if climbers is not None:
                functions[d] = climbers[d].moved(functions[d])
            quadratic, linear = form.sites(d, wide, narrow, core.mean, core.second)
            shift = (linear[:, 1:] - quadratic[:, 1:, 0]) / noise
            functions[d] = functions[d].updated(quadratic[:, 1:, 1:] / noise, shift, climbers is not None)
            both[d] = moments(functions[d].mean, functions[d].cov)
            tables[d] = form.table(d, both[d][1])
            if learn_core:
                sums = form.core_sums(d, wide, narrow, *both[d])
                core = core.updated(form.free, sums[0] / noise, sums[1] / noise)
                if climbers is not None and not form.diagonal:
                    core = core.relearned(form.free)
        sums = form.core_sums(self.order[-1], wide, narrow, *both[self.order[-1]])
        misfit = rows.square - 2 * float(sums[1] @ core.mean) + float(np.vdot(sums[0], core.second))
        if learn_noise:
            noise = max(misfit / rows.total, _NOISE)
        bound = -0.5 * (rows.total * np.log(2 * np.pi * noise) + misfit / noise)
        bound -= core.kl + sum(f.kl for f in functions)
        if self.tick is not None:
            self.tick()
        return self.balanced(State(tuple(functions), core, noise, float(bound)))

    def balanced(self, state: State) -> State:
        """The same fit with scales shared evenly: unit functions (Tucker), equal ones over modes (CP)."""
        form, dims = self.form, len(state.functions)
        stds = [np.sqrt(f.variances) for f in state.functions]
        if form.diagonal:
            products = [s[form.products] for s in stds]
            even = np.exp(sum(np.log(s) for s in products) / dims)
            by = [np.ones_like(s) for s in stds]
            for factor, own in zip(by, products, strict=True):
                factor[form.products] = even / own
            core = state.core
        else:
            by = [1 / s for s in stds]
            scale = np.ones(form.n_terms)
            for index, s in zip(form.index, stds, strict=True):
                scale *= np.concatenate([[1.0], s])[index]
            core = state.core.rescaled(scale)
        functions = tuple(f.rescaled(b) for f, b in zip(state.functions, by, strict=True))
        return replace(state, functions=functions, core=core)
