"""The prior of ``FunctionalTucker`` in torch: covariances with gradients, and its state-space form.

The covariance of f is ``s prod_n (c_n + k_n)``, and of the terms beside it. The dense form multiplies the
modes' covariances; the state-space form (an SDE) of the product runs along one continuous mode, with one
process per distinct point of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfac.core.modes.bend import bent
from tenfac.core.modes.state_space import KERNELS

_FAR = 1e3  # as in core.modes.state_space: distances beyond are all the same
_JITTER = 1e-13  # of the trace: what rounding may take from the smallest eigenvalue
_FACTORIALS = (1.0, 1.0, 2.0, 6.0, 24.0)


@dataclass(frozen=True)
class TorchHyper:
    """Hyperparameters as tensors, in the meaning of ``Hyper``.

    Parameters
    ----------
    scale, noise : tensors, shape ()
        Logarithms of the variance of a core entry and of the noise.
    modes : tensor, shape (D, 4)
        Per mode: logarithms of constant, lengthscale, sharpness; center.
    mains : tensor, shape (D, 2) or (0, 2)
        Per mode, logarithms of variance and lengthscale of its main effect.
    residual, cells : tensors, shape (1 + D,) or (0,)
        Logarithms of variance and lengthscales.
    loadings : tuple of D tensors, shape (M_n, r_n)
    """

    scale: Tensor
    noise: Tensor
    modes: Tensor
    mains: Tensor
    residual: Tensor
    cells: Tensor
    loadings: tuple[Tensor, ...]


@dataclass(frozen=True)
class ModeKernel:
    """Covariance ``c + k`` of one mode.

    Parameters
    ----------
    name : str or None
        A Matérn kernel; None is discrete.
    given : callable or None
        A GPyTorch kernel that stands in for the Matérn, on the bent axis in units of the lengthscale.
    """

    name: str | None
    given: Callable[..., object] | None = None

    def covariance(self, hyper: TorchHyper, mode: int, x: Tensor, z: Tensor) -> Tensor:
        """Prior covariance between indices, shapes (N,) and (M,) -> (N, M)."""
        cov, loadings = hyper.modes[mode, 0].exp() + self.own(hyper, mode, x, z), hyper.loadings[mode]
        return cov + loadings[x.long()] @ loadings[z.long()].T if loadings.shape[1] else cov

    def own(
        self, hyper: TorchHyper, mode: int, x: Tensor, z: Tensor, log_lengthscale: Tensor | None = None
    ) -> Tensor:
        """Correlation of what every index has of its own, (N,) and (M,) -> (N, M).

        The lengthscale is that of the product, unless another is given; the axis is bent as there.
        """
        if self.name is None:
            return (x[:, None] == z[None, :]).to(x.dtype)
        lengthscale = (hyper.modes[mode, 1] if log_lengthscale is None else log_lengthscale).exp()
        x, z = (bend(hyper, mode, points) / lengthscale for points in (x, z))
        if self.given is not None:
            return torch.as_tensor(_dense(self.given(x[:, None], z[:, None])))
        return matern((x[:, None] - z[None, :]).abs(), KERNELS[self.name])

    def variance(self, hyper: TorchHyper, mode: int, x: Tensor) -> Tensor:
        """Prior variance at every index, shape (N,); a kernel that stands in has variance one."""
        own = hyper.modes[mode, 0].exp() + torch.ones_like(x)
        loadings = hyper.loadings[mode]
        return own + loadings.square().sum(dim=1)[x.long()] if loadings.shape[1] else own


def bend(hyper: TorchHyper, mode: int, x: Tensor) -> Tensor:
    """Positions on the bent axis, as ``ModePrior.bend``, shape (N,)."""
    return bent(x, hyper.modes[mode, 2].exp(), hyper.modes[mode, 3], torch)


def matern(distance: Tensor, order: int) -> Tensor:
    """Matérn correlation of smoothness ``order - 1/2`` at distances in units of the lengthscale."""
    r = (np.sqrt(2 * order - 1.0) * distance).clamp(max=_FAR)
    polynomial = (torch.ones_like(r), 1 + r, 1 + r + r * r / 3)[order - 1]
    return polynomial * torch.exp(-r)


def transitions(steps: Tensor, order: int) -> Tensor:
    """``A`` over steps (in units of the lengthscale), shape (len(steps), order, order)."""
    s = (np.sqrt(2 * order - 1.0) * steps).clamp(max=_FAR)[:, None, None]
    if order == 1:
        return torch.exp(-s)
    drift = [[1.0, 1.0], [-1.0, -1.0]]
    if order == 3:
        drift = [[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [-1.0, -3.0, -2.0]]
    drift = steps.new_tensor(drift)
    curve = torch.eye(order, dtype=steps.dtype) + s * drift
    return torch.exp(-s) * (curve + 0.5 * s * s * (drift @ drift) if order == 3 else curve)


def innovations(steps: Tensor, order: int) -> Tensor:
    """``Q`` over steps (in units of the lengthscale), shape (len(steps), order, order).

    Written out, so that a short step does not cancel to rounding noise.
    """
    t = 2 * np.sqrt(2 * order - 1.0) * steps
    g = [f * torch.special.gammainc(torch.full_like(t, n + 1.0), t) for n, f in enumerate(_FACTORIALS)]
    if order == 1:
        return g[0][:, None, None]
    if order == 2:
        cross = g[1] - g[2] / 2
        return _symmetric([[g[2] / 2], [cross, 2 * (g[0] - g[1] + g[2] / 4)]])
    m = [8 / 3 * part / 2**n for n, part in enumerate(g)]
    first = m[3] / 2 - m[4] / 4
    second = m[2] / 2 - m[3] + m[4] / 4
    middle = m[2] - m[3] + m[4] / 4
    cross = m[1] - 2.5 * m[2] + 1.5 * m[3] - m[4] / 4
    last = m[0] - 4 * m[1] + 5 * m[2] - 2 * m[3] + m[4] / 4
    return _symmetric([[m[4] / 4], [first, middle], [second, cross, last]])


def stationary(order: int) -> Tensor:
    """Covariance of the state of a unit-variance Matérn process."""
    cov = torch.eye(order, dtype=torch.float64)
    if order == 3:
        cov[0, 2] = cov[2, 0] = -1 / 3
        cov[1, 1] = 1 / 3
    return cov


def cholesky(cov: Tensor) -> Tensor:
    """Lower Cholesky factor of a covariance that may be singular to rounding."""
    eye = torch.eye(cov.shape[-1], dtype=cov.dtype)
    return torch.linalg.cholesky(cov + _JITTER * cov.diagonal().sum() * eye)


def _symmetric(lower: list[list[Tensor]]) -> Tensor:
    """Symmetric matrices from the rows of their lower triangles."""
    size = len(lower)
    rows = [[lower[max(i, j)][min(i, j)] for j in range(size)] for i in range(size)]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _dense(matrix: Any) -> Any:
    return matrix.to_dense() if hasattr(matrix, "to_dense") else matrix


@dataclass(frozen=True)
class SliceScales:
    """What noise and residual are multiplied by in each slice of the exact mode; held as learned.

    Parameters
    ----------
    positions, values : tensors, shape (M,)
        Exact positions, ascending, and their scales; empty if all are one.
    new : float
        Of all other slices.
    """

    positions: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))
    values: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))
    new: float = 1.0

    def at(self, x: Tensor) -> Tensor:
        """Scales at exact positions, shape (N,)."""
        if not self.positions.numel():
            return torch.full_like(x, self.new)
        t = torch.searchsorted(self.positions, x.contiguous()).clamp(max=self.positions.numel() - 1)
        return torch.where(self.positions[t] == x, self.values[t], self.new)


@dataclass(frozen=True)
class DensePrior:
    """f at distinct points as one Gaussian vector.

    Parameters
    ----------
    kernels : tuple of ModeKernel
    points : tensor, shape (U, D)
        Distinct observed points, scaled.
    exact : int
        The mode whose slices have a residual, if the hyperparameters have one.
    scales : SliceScales
    """

    kernels: tuple[ModeKernel, ...]
    points: Tensor
    exact: int = 0
    scales: SliceScales = field(default_factory=SliceScales)

    @property
    def size(self) -> int:
        """Numbers that make f."""
        return self.points.shape[0]

    def covariance(self, hyper: TorchHyper, x: Tensor, z: Tensor) -> Tensor:
        """Prior covariance of f between points, shapes (N, D) and (M, D) -> (N, M).

        Of the product and of the terms beside it that have hyperparameters.
        """
        parts = [k.covariance(hyper, n, x[:, n], z[:, n]) for n, k in enumerate(self.kernels)]
        cov = hyper.scale.exp() * reduce(torch.mul, parts)
        for n, (log_variance, length) in enumerate(hyper.mains):
            cov = cov + log_variance.exp() * self.kernels[n].own(hyper, n, x[:, n], z[:, n], length)
        if hyper.residual.numel():
            cov = cov + self._within_slices(x, z) * self._joint(hyper.residual, x, z)
        return cov + self._joint(hyper.cells, x, z) if hyper.cells.numel() else cov

    def variance(self, hyper: TorchHyper, x: Tensor) -> Tensor:
        """Prior variance of f at points (N, D), shape (N,)."""
        own = torch.stack([k.variance(hyper, n, x[:, n]) for n, k in enumerate(self.kernels)])
        cov = hyper.scale.exp() * own.prod(dim=0) + hyper.mains[:, 0].exp().sum()
        if hyper.residual.numel():
            cov = cov + self.scale_at(x) * hyper.residual[0].exp()
        return cov + hyper.cells[0].exp() if hyper.cells.numel() else cov

    def scale_at(self, x: Tensor) -> Tensor:
        """What the noise is multiplied by at points (N, D), shape (N,)."""
        return self.scales.at(x[:, self.exact])

    def _within_slices(self, x: Tensor, z: Tensor) -> Tensor:
        """The scale of the slice that two points share, or else 0, shape (N, M)."""
        same = x[:, None, self.exact] == z[None, :, self.exact]
        return torch.where(same, self.scale_at(x)[:, None], 0.0)

    def _joint(self, logs: Tensor, x: Tensor, z: Tensor) -> Tensor:
        """``v exp(-sum_n |x_n - z_n| / l_n)`` over the modes that are not exact; labels are 0 or 1 apart."""
        total = -logs[0]
        for n, kernel in enumerate(self.kernels):
            if n != self.exact:
                gap = x[:, None, n] - z[None, :, n]
                gap = (gap != 0).to(x.dtype) if kernel.name is None else gap.abs()
                total = total + gap / logs[1 + n].exp()
        return torch.exp(-total)

    def function(self, hyper: TorchHyper, white: Tensor) -> Tensor:
        """f at the points from standard normal numbers, shapes (..., size) -> (..., U)."""
        return white @ cholesky(self.covariance(hyper, self.points, self.points)).T

    def log_density(self, hyper: TorchHyper, y: Tensor, variance: Tensor) -> Tensor:
        """Log density of noisy values at the points (U,), f integrated out."""
        cov = self.covariance(hyper, self.points, self.points) + torch.diag(variance)
        factor = torch.linalg.cholesky(cov)
        white = torch.linalg.solve_triangular(factor, y[:, None], upper=False)[:, 0]
        return -0.5 * (white @ white + y.shape[0] * np.log(2 * np.pi)) - factor.diagonal().log().sum()


@dataclass(frozen=True)
class StatePrior:
    """The same f as a state-space model along one continuous mode: the product, without terms beside it.

    ``f = sum_p L[p] h_p(t)``: L is a root of the other modes' covariance at their distinct points, and
    ``h_p(t) = sqrt(c) b_p + g_p(t)`` are independent, with the Matérn process g in its state-space form.

    Parameters
    ----------
    dense : DensePrior
    mode : int
        The mode that the states run along.
    times, others : tensors, shapes (T,) and (P, D)
        Distinct indices of that mode, ascending; distinct points of the other modes.
    at, of : tensors of int, shape (U,)
        Which of them every point has.
    """

    dense: DensePrior
    mode: int
    times: Tensor
    others: Tensor
    at: Tensor
    of: Tensor

    @classmethod
    def along(cls, dense: DensePrior, mode: int) -> StatePrior:
        """The states of ``dense`` along one mode."""
        points = dense.points.numpy()
        times, at = np.unique(points[:, mode], return_inverse=True)
        rest = points.copy()
        rest[:, mode] = times[0]
        others, of = np.unique(rest, axis=0, return_inverse=True)
        return cls(dense, mode, *map(torch.as_tensor, (times, others, at, of.reshape(-1))))

    @property
    def order(self) -> int:
        """Dimension of one process state."""
        return KERNELS[str(self.dense.kernels[self.mode].name)]

    @property
    def size(self) -> int:
        """Numbers that make f."""
        return self.others.shape[0] * (1 + self.order * self.times.shape[0])

    def _root(self, hyper: TorchHyper) -> Tensor:
        """Rows of the other modes' covariance root, one per point, shape (U, P)."""
        cov = hyper.scale.exp() * torch.ones((self.others.shape[0],) * 2, dtype=torch.float64)
        for n, kernel in enumerate(self.dense.kernels):
            if n != self.mode:
                cov = cov * kernel.covariance(hyper, n, self.others[:, n], self.others[:, n])
        return cholesky(cov)[self.of]

    def _moves(self, hyper: TorchHyper) -> tuple[Tensor, Tensor]:
        steps = bend(hyper, self.mode, self.times).diff() / hyper.modes[self.mode, 1].exp()
        return transitions(steps, self.order), innovations(steps, self.order)

    def function(self, hyper: TorchHyper, white: Tensor) -> Tensor:
        """f at the points from standard normal numbers, shapes (..., size) -> (..., U)."""
        count = self.others.shape[0]
        shared, new = white[..., :count], white[..., count:]
        new = new.reshape(*white.shape[:-1], self.times.shape[0], self.order, count)
        moves, noises = self._moves(hyper)
        roots = torch.linalg.cholesky(torch.cat([stationary(self.order)[None], noises]))
        new = roots @ new
        state, path = new[..., 0, :, :], []
        path.append(state[..., 0, :])
        for t, move in enumerate(moves):
            state = move @ state + new[..., t + 1, :, :]
            path.append(state[..., 0, :])
        h = torch.stack(path, dim=-2) + (0.5 * hyper.modes[self.mode, 0]).exp() * shared[..., None, :]
        return (h[..., self.at, :] * self._root(hyper)).sum(-1)

    def log_density(self, hyper: TorchHyper, y: Tensor, variance: Tensor) -> Tensor:
        """Log density of noisy values at the points (U,), by a Kalman filter: f integrated out."""
        root, (moves, noises) = self._root(hyper), self._moves(hyper)
        count = self.others.shape[0]
        eye = torch.eye(count, dtype=torch.float64)
        constant = (0.5 * hyper.modes[self.mode, 0]).exp()
        fixed = torch.eye(1, dtype=torch.float64)
        cov = torch.kron(torch.block_diag(fixed, stationary(self.order)), eye)
        mean, value = torch.zeros(cov.shape[0], dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        pad = torch.zeros(y.shape[0], (self.order - 1) * count, dtype=torch.float64)
        design = torch.cat([constant * root, root, pad], dim=1)
        for t in range(self.times.shape[0]):
            if t:
                move = torch.kron(torch.block_diag(fixed, moves[t - 1]), eye)
                noise = torch.kron(torch.block_diag(0 * fixed, noises[t - 1]), eye)
                mean, cov = move @ mean, move @ cov @ move.T + noise
            here = self.at == t
            rows, left = design[here], y[here] - design[here] @ mean
            factor = torch.linalg.cholesky(rows @ cov @ rows.T + torch.diag(variance[here]))
            gain = torch.linalg.solve_triangular(factor, rows @ cov, upper=False)
            residual = torch.linalg.solve_triangular(factor, left[:, None], upper=False)[:, 0]
            value = value - 0.5 * residual @ residual - factor.diagonal().log().sum()
            mean, cov = mean + gain.T @ residual, cov - gain.T @ gain
        return value - 0.5 * y.shape[0] * np.log(2 * np.pi)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread meanwhile: on small matrices more cost a hundred times what they give."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


def tensor(values: NDArray[np.float64]) -> Tensor:
    """A float64 tensor with the values of an array."""
    return torch.as_tensor(np.array(values, dtype=np.float64))
