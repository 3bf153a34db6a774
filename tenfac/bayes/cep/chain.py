"""Posterior of R Matérn processes on one axis, jointly, given Gaussian sites that couple them at each index.

Sites multiply the prior by ``exp(-x_i^T L_i x_i / 2 + h_i^T x_i)`` at index i, with ``x_i`` the R values
there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.cep.bridge import Level, bridges, joined, rates, steps, thinned
from tenfac.core.modes.state_space import KERNELS

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ChainPosterior:
    """Moments of the states (value and derivatives of every process) at M indices.

    Parameters
    ----------
    mean, cov : arrays, shapes (M, S) and (M, S, S)
    cross : array, shape (M - 1, S, S)
        Covariance of the states at an index and at the next.
    log_z : float
        Log of the integral of prior times sites.
    """

    mean: Array
    cov: Array
    cross: Array
    log_z: float

    def average(self) -> tuple[Array, Array]:
        """Mean (S,) and covariance (S, S) of the average of the states over the indices.

        The posterior is a Markov chain: what an index knows of all before it goes through the one before.
        """
        count = self.mean.shape[0]
        sums = total = self.cov[0]
        for gain, own in zip(self._gains(), self.cov[1:], strict=True):
            carried = sums @ gain
            sums = carried + own
            total = total + carried + carried.T + own
        return self.mean.mean(axis=0), _symmetric(total) / count**2

    def _gains(self) -> Array:
        """``cov_i^-1 cross_i``, on the scale of correlations, where a state may be all but known."""
        std = np.sqrt(np.maximum(np.diagonal(self.cov[:-1], axis1=1, axis2=2), np.finfo(float).tiny))
        correlations = self.cov[:-1] / std[:, :, None] / std[:, None, :]
        scaled = np.linalg.pinv(correlations, rcond=1e-12, hermitian=True)
        return scaled @ (self.cross / std[:, :, None]) / std[:, :, None]


@dataclass(frozen=True, eq=False)
class _Gone:
    gain: Array
    cov: Array
    offset: Array


class Chain:
    """R independent Matérn processes of one smoothness at M distinct ascending positions."""

    def __init__(self, positions: Array, kernel: str) -> None:
        self.positions, self.kernel, self.order = positions, kernel, KERNELS[kernel]
        self.levels = thinned(positions.size)

    def solve(
        self, information: Array, shift: Array, lengthscales: Array, variances: Array
    ) -> ChainPosterior:
        """Posterior for sites of shapes (M, R, R) and (M, R); lengthscales and variances of shape (R,)."""
        size = lengthscales.size * self.order
        rate, count = rates(self.kernel, lengthscales), self.positions.size
        node = np.zeros((count, size, size))
        node[:, :: self.order, :: self.order] = information
        pull = np.zeros((count, size))
        pull[:, :: self.order] = shift
        edge = np.zeros((max(count - 1, 0), size, size))
        gone, log_z = [], 0.0
        for level in self.levels:
            node, pull, edge, kept, gain = self._take_out(level, node, pull, edge, rate, variances)
            gone.append(kept)
            log_z += gain
        mean, cov, cross, gain = self._ends(node, pull, edge, rate, variances)
        for level, kept in zip(reversed(self.levels), reversed(gone), strict=True):
            mean, cov, cross = _put_back(level, kept, mean, cov, cross)
        return ChainPosterior(mean, cov, cross, log_z + gain)

    def _take_out(
        self, level: Level, node: Array, pull: Array, edge: Array, rate: Array, variances: Array
    ) -> tuple[Array, Array, Array, _Gone, float]:
        t, scale = self.positions, variances[None, :, None, None]
        left, right, spread = bridges(
            self.kernel, rate, t[level.out] - t[level.left], t[level.right] - t[level.out]
        )
        bridge = np.concatenate([joined(left), joined(right)], axis=2)
        coupled = np.concatenate([_t(edge[level.gone - 1]), edge[level.gone]], axis=2)
        known, told = node[level.gone], pull[level.gone]
        cov, logdet = _shrunk(joined(spread * scale), known)
        drawn = coupled + known @ bridge
        gain = bridge - cov @ drawn
        both = _t(gain) @ drawn + _t(coupled) @ bridge
        told_both = (told[:, None, :] @ gain)[:, 0]
        offset = (cov @ told[:, :, None])[:, :, 0]
        size = node.shape[1]
        node, pull = node.copy(), pull.copy()
        node[level.gone - 1] += _symmetric(both[:, :size, :size])
        node[level.gone + 1] += _symmetric(both[:, size:, size:])
        pull[level.gone - 1] += told_both[:, :size]
        pull[level.gone + 1] += told_both[:, size:]
        merged = both[:, :size, size:]
        if level.carried:
            merged = np.concatenate([merged, edge[-1:]])
        log_z = 0.5 * float(np.vdot(told, offset)) - 0.5 * logdet
        return node[level.kept], pull[level.kept], merged, _Gone(gain, cov, offset), log_z

    def _ends(
        self, node: Array, pull: Array, edge: Array, rate: Array, variances: Array
    ) -> tuple[Array, Array, Array, float]:
        """Solve for the first and the last index (or the only one)."""
        count, size = pull.shape
        prior = np.zeros((count * size, count * size))
        known = np.zeros_like(prior)
        stationary = self.stationary(variances)
        for i in range(count):
            part = slice(i * size, (i + 1) * size)
            prior[part, part], known[part, part] = stationary, node[i]
        if count == 2:
            span = self.positions[-1:] - self.positions[:1]
            ahead = joined(steps(self.kernel, rate, span)[0])[0] @ stationary
            prior[size:, :size], prior[:size, size:] = ahead, ahead.T
            known[:size, size:], known[size:, :size] = edge[0], edge[0].T
        cov, logdet = _shrunk(prior[None], known[None])
        mean = cov[0] @ pull.ravel()
        log_z = 0.5 * float(pull.ravel() @ mean) - 0.5 * logdet
        covs = np.stack([cov[0, i * size : (i + 1) * size, i * size : (i + 1) * size] for i in range(count)])
        return mean.reshape(count, size), covs, cov[:, :size, size:] if count == 2 else edge, log_z

    def stationary(self, variances: Array) -> Array:
        """Prior covariance of the state, shape (S, S)."""
        from tenfac.core.modes.state_space import StateSpace

        unit = StateSpace(self.kernel, 1.0).stationary()
        return joined((variances[:, None, None] * unit)[None])[0]

    def at(
        self, x: Array, posterior: ChainPosterior, lengthscales: Array, variances: Array
    ) -> tuple[Array, Array]:
        """Mean and covariance of the R values at any positions, shapes (U, R) and (U, R, R)."""
        t, rate = self.positions, rates(self.kernel, lengthscales)
        place = np.clip(np.searchsorted(t, x, side="right"), 0, t.size)
        mean = np.empty((x.size, rate.size))
        cov = np.empty((x.size, rate.size, rate.size))
        before, after = place == 0, place == t.size
        ends = (before, 0, t[0] - x), (after, t.size - 1, x - t[-1])
        for rows, node, distance in ends:
            if rows.any():
                mean[rows], cov[rows] = self._beyond(distance[rows], node, posterior, rate, variances)
        rows = ~(before | after)
        if rows.any():
            i = place[rows] - 1
            left, right, spread = bridges(self.kernel, rate, x[rows] - t[i], t[i + 1] - x[rows])
            gain = np.concatenate([joined(left), joined(right)], axis=2)
            pair = _pairs(posterior.cov[i], posterior.cross[i], posterior.cov[i + 1])
            means = np.concatenate([posterior.mean[i], posterior.mean[i + 1]], axis=1)
            gain = gain[:, :: self.order]
            own = joined(spread * variances[None, :, None, None])[:, :: self.order, :: self.order]
            mean[rows] = (gain @ means[:, :, None])[:, :, 0]
            cov[rows] = own + gain @ pair @ _t(gain)
        return mean, _symmetric(cov)

    def _beyond(
        self, distance: Array, node: int, posterior: ChainPosterior, rate: Array, variances: Array
    ) -> tuple[Array, Array]:
        moved, spread = steps(self.kernel, rate, distance)
        if node == 0:  # a stationary process read backwards: odd derivatives change sign
            sign = (-1.0) ** np.arange(self.order)
            moved = moved * sign[:, None] * sign
            spread = spread * sign[:, None] * sign
        gain = joined(moved)[:, :: self.order]
        own = joined(spread * variances[None, :, None, None])[:, :: self.order, :: self.order]
        return gain @ posterior.mean[node], own + gain @ posterior.cov[node] @ _t(gain)


def _put_back(level: Level, gone: _Gone, mean: Array, cov: Array, cross: Array) -> tuple[Array, ...]:
    taken, size = level.gone.size, mean.shape[1]
    pair = _pairs(cov[:taken], cross[:taken], cov[1 : taken + 1])
    means = np.concatenate([mean[:taken], mean[1 : taken + 1]], axis=1)
    with_pair = gone.gain @ pair
    total = mean.shape[0] + taken
    all_mean, all_cov = np.empty((total, size)), np.empty((total, size, size))
    all_cross = np.empty((total - 1, size, size))
    all_mean[level.kept], all_cov[level.kept] = mean, cov
    all_mean[level.gone] = gone.offset + (gone.gain @ means[:, :, None])[:, :, 0]
    all_cov[level.gone] = _symmetric(gone.cov + with_pair @ _t(gone.gain))
    all_cross[level.gone - 1] = _t(with_pair[:, :, :size])
    all_cross[level.gone] = with_pair[:, :, size:]
    if level.carried:
        all_cross[-1] = cross[-1]
    return all_mean, all_cov, all_cross


def _pairs(first: Array, cross: Array, second: Array) -> Array:
    size = first.shape[1]
    out = np.empty((first.shape[0], 2 * size, 2 * size))
    out[:, :size, :size], out[:, size:, size:] = first, second
    out[:, :size, size:], out[:, size:, :size] = cross, _t(cross)
    return out


def _shrunk(prior: Array, known: Array) -> tuple[Array, float]:
    """``(prior^-1 + known)^-1`` without inverting either, and the sum of ``log det(I + prior known)``."""
    ratio = prior @ known
    ratio[:, np.arange(ratio.shape[1]), np.arange(ratio.shape[1])] += 1.0
    cov = _symmetric(np.linalg.solve(ratio, prior))
    return cov, float(np.linalg.slogdet(ratio)[1].sum())


def _symmetric(matrix: Array) -> Array:
    return 0.5 * (matrix + _t(matrix))


def _t(matrix: Array) -> Array:
    return np.swapaxes(matrix, -1, -2)
