"""Predictions from the posterior of the coefficient functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tenfac.bayes.evidence import Hyper, Problem
from tenfac.bayes.mode_prior import ModePrior
from tenfac.bayes.posterior import CoefficientPosterior

Array = NDArray[np.float64]
_BLOCK = 64  # exact-mode indices at a time
_ROWS = 8192  # rows at a time


@dataclass(frozen=True)
class Prediction:
    """The fitted function, in scaled units.

    Parameters
    ----------
    problem : Problem
        With its basis at ``hyper``.
    hyper : Hyper
    posterior : CoefficientPosterior
        Of the whitened coefficients.
    factor : array, shape (P, P)
        Coefficients are ``factor @ whitened``.
    log_evidence : float
        Of the scaled observations.
    """

    problem: Problem
    hyper: Hyper
    posterior: CoefficientPosterior
    factor: Array
    log_evidence: float

    @classmethod
    def build(cls, problem: Problem, hyper: Hyper) -> Prediction:
        """Solve once at the learned hyperparameters."""
        # levels have their posterior without the gradient; the smoother's backward pass gives both
        continuous = problem.kernels[problem.exact] is not None
        with threadpool_limits(limits=1, user_api="blas"):
            posterior, score, factor = problem.solve(hyper, gradient=continuous)
        constant = problem.slices.constant_terms(float(np.exp(hyper.noise)))
        return cls(problem, hyper, posterior, factor, score.log_evidence + constant)

    @property
    def _exact_prior(self) -> ModePrior:
        return self.problem.prior(self.hyper, self.problem.exact)

    @property
    def missing_share(self) -> float:
        """Share of the prior variance at the observations that the basis leaves out."""
        return self.problem.missing / self.problem.total

    @property
    def missing_noise_share(self) -> float:
        """The variance that the basis leaves out at the observations, relative to the learned noise."""
        return self.left_out * float(np.exp(-self.hyper.noise))

    @property
    def left_out(self) -> float:
        """Average variance of f at the observations that the basis leaves out."""
        return self.problem.left_out(self.hyper)

    def at(self, positions: list[Array], with_variance: bool = True) -> tuple[Array, Array, Array]:
        """Mean, variance of f, variance of an observation at N points (one scaled position per mode)."""
        count = positions[0].size
        mean, variance, noisy = np.empty(count), np.zeros(count), np.zeros(count)
        for rows in self._blocks(positions[self.problem.exact]):
            points = [x[rows] for x in positions]
            mean[rows], variance[rows], noisy[rows] = self._block(points, with_variance)
        return mean, variance, noisy

    def in_basis(self, positions: list[Array]) -> tuple[Array, Array]:
        """Mean and variance of what the basis carries of f, at N points (one scaled position per mode)."""
        mean, variance = np.empty(positions[0].size), np.empty(positions[0].size)
        for rows in self._blocks(positions[self.problem.exact]):
            points = [x[rows] for x in positions]
            mean[rows], variance[rows] = self._block_in_basis(points, self._rows(points), True)
        return mean, variance

    def _blocks(self, exact: Array) -> Iterator[NDArray[np.intp]]:
        """Row numbers that share few exact-mode indices, so that few covariances are held at a time."""
        _, codes = np.unique(exact, return_inverse=True)
        order = np.argsort(codes, kind="stable")
        group = codes[order] // _BLOCK
        for part in np.split(order, np.flatnonzero(np.diff(group)) + 1):
            yield from np.split(part, range(_ROWS, part.size, _ROWS))

    def _block(self, points: list[Array], with_variance: bool) -> tuple[Array, Array, Array]:
        rows = self._rows(points)
        mean, variance = self._block_in_basis(points, rows, with_variance)
        if not with_variance:
            return mean, variance, variance
        gap = self._gap(points, rows)
        # what the basis leaves out at the observations on average was learned as noise: not counted twice
        noisy = variance + np.maximum(gap - self.left_out, 0.0) + np.exp(self.hyper.noise)
        return mean, variance + gap, np.maximum(noisy, variance + gap)

    def _block_in_basis(self, points: list[Array], rows: Array, with_variance: bool) -> tuple[Array, Array]:
        white = rows @ self.factor
        indices, codes = np.unique(points[self.problem.exact], return_inverse=True)
        means, covs = self.posterior.at(self._exact_prior.bend(indices))
        mean = np.einsum("np,np->n", white, means[codes])
        variance = np.zeros(mean.size)
        if with_variance:
            for code, cov in enumerate(covs):
                own = codes == code
                variance[own] = np.einsum("np,np->n", white[own] @ cov, white[own])
        return mean, np.maximum(variance, 0.0)

    def _rows(self, points: list[Array]) -> Array:
        others = [points[n] for n in self.problem.others]
        return self.problem.basis.rows(others, points[0].size)

    def _gap(self, points: list[Array], rows: Array) -> Array:
        """Variance of f that the basis leaves out."""
        basis = self.problem.basis
        total = basis.variance([points[n] for n in self.problem.others], rows.shape[0])
        exact = self._exact_prior.variance(points[self.problem.exact])
        return np.exp(self.hyper.scale) * exact * basis.missing_variance(rows, total)

    def marginal(self, mode: int, x: Array) -> tuple[Array, Array]:
        """Mean and variance of the average of f over all modes but one, at positions ``x`` (N,)."""
        problem = self.problem
        if mode == problem.exact:
            white = self._averaged_rows(None, x[:1])[0] @ self.factor
            means, covs = self.posterior.at(self._exact_prior.bend(x))
            return means @ white, np.maximum(np.einsum("p,upq,q->u", white, covs, white), 0.0)
        white = self._averaged_rows(mode, x) @ self.factor
        mean, cov = self.posterior.average()
        variance = np.maximum(np.einsum("np,pq,nq->n", white, cov, white), 0.0)
        return white @ mean, variance + self._marginal_left_out(mode, x)

    def _averaged_rows(self, mode: int | None, x: Array) -> Array:
        """Product functions averaged over the nodes of every basis mode but ``mode``, shape (N, P)."""
        basis = self.problem.basis
        out = np.ones((x.size, basis.size))
        for part, n, column in zip(basis.bases, self.problem.others, basis.index.T, strict=True):
            rows = part.rows(x) if n == mode else part.rows(part.nodes).mean(axis=0, keepdims=True)
            out *= rows[:, column]
        return out

    def _marginal_left_out(self, mode: int, x: Array) -> Array:
        """Variance of the marginal function between the nodes of its mode."""
        problem, total = self.problem, np.exp(self.hyper.scale)
        for part, n in zip(problem.basis.bases, problem.others, strict=True):
            if n == mode:
                variance = part.prior.variance(x)
                gap = variance - np.einsum("nk,nk->n", part.rows(x), part.rows(x))
                at_nodes = part.prior.variance(part.nodes) - np.square(part.rows(part.nodes)).sum(axis=1)
                gap = np.where(gap > 1e-10 * variance, np.maximum(gap - at_nodes.mean(), 0), 0.0)
                total = total * gap
            else:
                total = total * np.square(part.rows(part.nodes).mean(axis=0)).sum()
        return total * self._exact_average()

    def _exact_average(self) -> float:
        """Prior variance of the average over the exact mode's indices, in units of a coefficient's."""
        prior, grid = self._exact_prior, self.problem.positions
        sums = sum(float(prior.covariance(grid[i : i + 512], grid).sum()) for i in range(0, grid.size, 512))
        return sums / grid.size**2
