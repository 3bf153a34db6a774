"""The functions of one mode: their prior, their joint posterior, and steps on their hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.cep.bridge import rates, steps
from tenfac.bayes.cep.chain import Chain, ChainPosterior, _shrunk, _t
from tenfac.core.modes.state_space import KERNELS

Array = NDArray[Any]
_LENGTHS = (1e-4, 30.0)  # in units of the observed range
_VARIANCES = (1e-10, 1e4)
_PROBE = 1e-3  # relative change of a lengthscale that measures a slope


@dataclass(frozen=True, eq=False)
class Functions:
    """Joint Gaussian over Q functions at the M indices of a mode.

    Parameters
    ----------
    chain : Chain or int
        A Gauss-Markov prior, or the number of levels of a discrete mode, which are independent.
    lengthscales, variances : arrays, shape (Q,)
        Of the prior, one per function.
    posterior : ChainPosterior
        Of a discrete mode without ``cross``.
    kl : float
        Divergence of the posterior from the prior.
    slopes : array, shape (2, Q)
        Derivatives of the collapsed bound by log lengthscale and log variance.
    """

    chain: Chain | int
    lengthscales: Array
    variances: Array
    posterior: ChainPosterior
    kl: float
    slopes: Array

    @classmethod
    def start(cls, chain: Chain | int, mean: Array, lengthscales: Array, variances: Array) -> Functions:
        """Functions known exactly: where the iteration starts."""
        order = chain.order if isinstance(chain, Chain) else 1
        count, size = mean.shape[0], mean.shape[1] * order
        states = np.zeros((count, size))
        states[:, ::order] = mean
        known = ChainPosterior(
            states, np.zeros((count, size, size)), np.zeros((max(count - 1, 0), size, size)), 0.0
        )
        return cls(chain, lengthscales, variances, known, 0.0, np.zeros((2, mean.shape[1])))

    @property
    def order(self) -> int:
        """States per function."""
        return self.chain.order if isinstance(self.chain, Chain) else 1

    @property
    def mean(self) -> Array:
        """Means of the functions, shape (M, Q)."""
        return self.posterior.mean[:, :: self.order]

    @property
    def cov(self) -> Array:
        """Covariances between the functions at each index, shape (M, Q, Q)."""
        return self.posterior.cov[:, :: self.order, :: self.order]

    def average(self) -> tuple[Array, Array]:
        """Mean (Q,) and covariance (Q, Q) of the functions' averages over the observed indices."""
        if isinstance(self.chain, Chain):
            mean, cov = self.posterior.average()
            return mean[:: self.order], cov[:: self.order, :: self.order]
        return self.mean.mean(axis=0), self.cov.sum(axis=0) / self.mean.shape[0] ** 2

    def updated(self, information: Array, shift: Array, learn: bool) -> Functions:
        """Posterior for new sites, of shapes (M, Q, Q) and (M, Q); slopes when ``learn``."""
        posterior = self._solve(information, shift, self.lengthscales)
        new = replace(self, posterior=posterior)
        mean, second = new.mean, new.cov + new.mean[:, :, None] * new.mean[:, None, :]
        expected = float(np.vdot(shift, mean)) - 0.5 * float(np.vdot(information, second))
        slopes = np.zeros_like(self.slopes)
        if learn:
            slopes[0] = new._length_slopes(information, shift)
            slopes[1] = 0.5 * (shift * mean - (information * second).sum(axis=2)).sum(axis=0)
        return replace(new, kl=expected - posterior.log_z, slopes=slopes)

    def _solve(self, information: Array, shift: Array, lengthscales: Array) -> ChainPosterior:
        if isinstance(self.chain, Chain):
            return self.chain.solve(information, shift, lengthscales, self.variances)
        prior = np.broadcast_to(np.diag(self.variances), information.shape)
        cov, logdet = _shrunk(prior, information)
        mean = (cov @ shift[:, :, None])[:, :, 0]
        return ChainPosterior(mean, cov, cov[:0], 0.5 * float(np.vdot(shift, mean)) - 0.5 * logdet)

    def _length_slopes(self, information: Array, shift: Array) -> Array:
        if not isinstance(self.chain, Chain) or self.chain.positions.size == 1:
            return np.zeros(self.variances.size)
        if self.order < 3:  # Fisher: the slope of the expected log prior, without solving again
            up, down = self._expected_log_prior(1 + _PROBE), self._expected_log_prior(1 - _PROBE)
            return (up - down) / (2 * _PROBE)
        slopes = np.empty(self.variances.size)
        for r in range(slopes.size):
            changed = self.lengthscales.copy()
            changed[r] *= 1 + _PROBE
            slopes[r] = (self._solve(information, shift, changed).log_z - self.posterior.log_z) / _PROBE
        return slopes

    def _expected_log_prior(self, factor: float) -> Array:
        """Of each function's path under its posterior, at lengthscales times ``factor``; shape (Q,)."""
        chain, order, count = self.chain, self.order, self.variances.size
        assert isinstance(chain, Chain)
        rate = rates(chain.kernel, self.lengthscales * factor)
        resized = factor ** np.arange(order)  # derivatives are in units of the rate
        here, ahead = self._blocks()
        here, ahead = here * resized[:, None] * resized, ahead * resized[:, None] * resized
        move, spread = steps(chain.kernel, rate, np.diff(chain.positions))
        moved = move @ ahead
        left = here[1:] - moved - _t(moved) + move @ here[:-1] @ _t(move)
        start = here[0] @ np.linalg.inv(chain.stationary(np.ones(1)))
        if order == 1:
            ratio, logdet = (left / spread)[:, :, 0, 0], np.log(spread[:, :, 0, 0])
        else:
            det = spread[..., 0, 0] * spread[..., 1, 1] - spread[..., 0, 1] ** 2
            ratio = spread[..., 1, 1] * left[..., 0, 0] + spread[..., 0, 0] * left[..., 1, 1]
            ratio = (ratio - spread[..., 0, 1] * (left[..., 0, 1] + left[..., 1, 0])) / det
            logdet = np.log(det)
        quadratic = np.trace(start, axis1=1, axis2=2) + ratio.sum(axis=0)
        jacobian = chain.positions.size * (order * (order - 1) / 2) * np.log(factor)
        out = -0.5 * quadratic / self.variances - 0.5 * logdet.sum(axis=0) + jacobian
        return out.reshape(count)

    def _blocks(self) -> tuple[Array, Array]:
        """Second moments of each function's state, at an index and with the next; (M, Q, o, o) each."""
        order, post = self.order, self.posterior
        states = post.mean.reshape(post.mean.shape[0], -1, order)
        here, ahead = [], []
        for r in range(states.shape[1]):
            part, own = slice(r * order, (r + 1) * order), states[:, r]
            here.append(post.cov[:, part, part] + own[:, :, None] * own[:, None, :])
            ahead.append(post.cross[:, part, part] + own[:-1, :, None] * own[1:, None, :])
        return np.stack(here, axis=1), np.stack(ahead, axis=1)

    def rescaled(self, by: Array) -> Functions:
        """The functions times ``by`` (Q,): their divergence from the prior stays."""
        s = np.repeat(by, self.order)
        post = self.posterior
        outer = s[:, None] * s
        post = replace(post, mean=post.mean * s, cov=post.cov * outer, cross=post.cross * outer)
        return replace(self, variances=self.variances * by**2, posterior=post)

    def without(self, place: int) -> Functions:
        """The functions with one of them zero."""
        by = np.ones(self.variances.size)
        by[place] = np.sqrt(_VARIANCES[0] / self.variances[place])
        return self.rescaled(by)

    def at(self, x: Array) -> tuple[Array, Array]:
        """Means and covariances of the Q functions at positions or level codes x (U,)."""
        if isinstance(self.chain, Chain):
            return self.chain.at(x, self.posterior, self.lengthscales, self.variances)
        code = np.minimum(x.astype(int), self.chain)
        prior = np.diag(self.variances)[None]
        mean = np.concatenate([self.mean, np.zeros((1, self.variances.size))])
        return mean[code], np.concatenate([self.cov, prior])[code]


class Climber:
    """Steps on log hyperparameters along the sign of their slopes, longer while the sign stays.

    References
    ----------
    .. [1] M. Riedmiller, H. Braun, A direct adaptive method for faster backpropagation learning: the RPROP
       algorithm, IEEE ICNN (1993). doi:10.1109/ICNN.1993.298623
    """

    def __init__(self, count: int) -> None:
        self.step, self.last = np.full((2, count), 0.3), np.zeros((2, count))

    def moved(self, functions: Functions) -> Functions:
        """Functions whose prior has gone one step uphill; the posterior is that of before."""
        sign = np.sign(np.where(np.abs(functions.slopes) > 1e-6, functions.slopes, 0.0))
        agree = sign * self.last
        self.step = np.clip(self.step * np.where(agree > 0, 1.3, np.where(agree < 0, 0.5, 1.0)), 1e-4, 0.7)
        self.last = sign
        by = np.exp(sign * self.step)
        return replace(
            functions,
            lengthscales=np.clip(functions.lengthscales * by[0], *_LENGTHS),
            variances=np.clip(functions.variances * by[1], *_VARIANCES),
        )


def check_kernels(kernels: list[str | None]) -> None:
    """Nothing but the known kernels, or None for a discrete mode."""
    from tenfac.core.modes.state_space import check_kernel

    for kernel in kernels:
        if kernel is not None and kernel not in KERNELS:
            check_kernel(kernel, "fit_cep")
