"""Predictions from the posterior of the coefficient functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tenfac.bayes.evidence import Hyper, Problem
from tenfac.bayes.mode_prior import ModePrior
from tenfac.bayes.posterior import CoefficientPosterior, root_of

Array = NDArray[np.float64]
_BLOCK = 64  # exact-mode indices at a time
_ROWS = 8192  # rows at a time
_JOINT = 1024  # rows whose parts outside the basis are drawn together
_NUMBERS = 4_000_000  # numbers that the coefficients drawn at a time may hold


class Affine(NamedTuple):
    """``f = offset + rows @ h(t) + e`` at N points, ``e`` independent of the whitened coefficients ``h``.

    Parameters
    ----------
    rows : array, shape (N, P)
    offset : array, shape (N,)
    variance : array, shape (N,)
        Of ``e``.
    """

    rows: Array
    offset: Array
    variance: Array


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
    def exact_prior(self) -> ModePrior:
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
        for numbers in self._blocks(positions[self.problem.exact]):
            points = [x[numbers] for x in positions]
            part = self.affine(points)
            mean[numbers], told = self._moments(points[self.problem.exact], part.rows, with_variance)
            mean[numbers] += part.offset
            if with_variance:
                variance[numbers] = told + part.variance
                noisy[numbers] = variance[numbers] + self._noise(part.variance)
        return mean, variance, noisy

    def derivative(self, positions: list[Array], mode: int) -> tuple[Array, Array]:
        """Mean and variance of the derivative of f by the position of a continuous mode, shapes (N,)."""
        mean, variance = np.empty(positions[0].size), np.empty(positions[0].size)
        by_exact = mode == self.problem.exact
        for numbers in self._blocks(positions[self.problem.exact]):
            points = [x[numbers] for x in positions]
            part = self.affine(points, mode)
            mean[numbers], told = self._moments(points[self.problem.exact], part.rows, True, int(by_exact))
            mean[numbers] += part.offset
            variance[numbers] = told + part.variance
        return mean, variance

    def cov(self, positions: list[Array]) -> tuple[Array, Array, Array]:
        """Mean (N,) and covariance (N, N) of f at N points, and the noise variance of observations (N,)."""
        part, place = self.affine(positions), self.exact_prior.bend(positions[self.problem.exact])
        mean = part.offset + self._moments(positions[self.problem.exact], part.rows, False)[0]
        cov = self.posterior.cov(place, part.rows)
        cov[np.diag_indices_from(cov)] = np.maximum(np.diag(cov), 0.0)
        for numbers, spread in self.spread(positions, part.variance, max(mean.size, 1)):
            cov[np.ix_(numbers, numbers)] += spread
        return mean, cov, self._noise(part.variance)

    def sample(
        self, positions: list[Array], n: int, rng: np.random.Generator, include_noise: bool = False
    ) -> Array:
        """``n`` joint draws of f, or of observations, at N points, shape (n, N)."""
        exact = positions[self.problem.exact]
        places, codes = np.unique(self.exact_prior.bend(exact), return_inverse=True)
        out, variance = np.empty((n, exact.size)), np.empty(exact.size)
        chunk = max(1, _NUMBERS // max(1, places.size * self.problem.basis.size))
        for start in range(0, n, chunk):
            draws = self.posterior.sample(min(chunk, n - start), places, rng)
            for numbers in self._blocks(exact):
                part = self.affine([x[numbers] for x in positions])
                variance[numbers] = part.variance
                for code in np.unique(codes[numbers]):
                    own = codes[numbers] == code
                    values = draws[:, code] @ part.rows[own].T + part.offset[own]
                    out[start : start + chunk, numbers[own]] = values
        for numbers, spread in self.spread(positions, variance, _JOINT):
            root = root_of(spread)
            out[:, numbers] += rng.standard_normal((n, root.shape[1])) @ root.T
        if include_noise:
            for row in out:
                row += np.sqrt(self._noise(variance)) * rng.standard_normal(row.size)
        return out

    def affine(self, points: list[Array], derivative: int | None = None) -> Affine:
        """What f, or its derivative by the position of one mode, is made of at N points."""
        problem, basis, exact = self.problem, self.problem.basis, points[self.problem.exact]
        others = [points[n] for n in problem.others]
        by = problem.others.index(derivative) if derivative in problem.others else None
        rows = basis.rows(others, exact.size, by)
        left_out = basis.missing_variance(rows, basis.variance(others, exact.size, by))
        prior = self.exact_prior
        by_exact = derivative == problem.exact
        whole = prior.slope_variance(exact) if by_exact else prior.variance(exact)
        white = rows @ self.factor
        if by_exact:
            white = white * prior.slope(exact)[:, None]
        return Affine(white, np.zeros(exact.size), np.exp(self.hyper.scale) * whole * left_out)

    def spread(
        self, points: list[Array], variance: Array, most: int
    ) -> Iterator[tuple[NDArray[np.intp], Array]]:
        """Row numbers and covariances of independent parts of ``e``, which has ``variance`` (N,).

        Blocks of ``most`` rows in the order of the exact mode; rows of two blocks count as independent.
        """
        problem, exact = self.problem, points[self.problem.exact]
        open_rows = np.flatnonzero(variance > 0)
        open_rows = open_rows[np.argsort(exact[open_rows], kind="stable")]
        for start in range(0, open_rows.size, most):
            numbers = open_rows[start : start + most]
            others = [points[n][numbers] for n in problem.others]
            rows = problem.basis.rows(others, numbers.size)
            left_out = problem.basis.covariance(others, numbers.size) - rows @ rows.T
            along = self.exact_prior.covariance(exact[numbers], exact[numbers])
            cov = np.exp(self.hyper.scale) * along * left_out
            cov[np.diag_indices_from(cov)] = variance[numbers]
            yield numbers, cov

    def _blocks(self, exact: Array) -> Iterator[NDArray[np.intp]]:
        """Row numbers that share few exact-mode indices, so that few covariances are held at a time."""
        _, codes = np.unique(exact, return_inverse=True)
        order = np.argsort(codes, kind="stable")
        group = codes[order] // _BLOCK
        for part in np.split(order, np.flatnonzero(np.diff(group)) + 1):
            yield from np.split(part, range(_ROWS, part.size, _ROWS))

    def _moments(
        self, exact: Array, white: Array, with_variance: bool, derivative: int = 0
    ) -> tuple[Array, Array]:
        """Mean and variance of ``white[n] @ h``, or of a derivative of ``h``, at exact-mode indices (N,)."""
        indices, codes = np.unique(exact, return_inverse=True)
        means, covs = self.posterior.at(self.exact_prior.bend(indices), derivative)
        mean, variance = np.einsum("np,np->n", white, means[codes]), np.zeros(exact.size)
        if with_variance:
            for code, cov in enumerate(covs):
                own = codes == code
                variance[own] = np.einsum("np,np->n", white[own] @ cov, white[own])
        return mean, np.maximum(variance, 0.0)

    def _noise(self, variance: Array) -> Array:
        """Variance that noise adds to f, which has ``variance`` (N,) outside the basis.

        What the basis leaves out at the observations on average was learned as noise: not counted twice.
        """
        return np.maximum(np.exp(self.hyper.noise) - np.minimum(variance, self.left_out), 0.0)

    def marginal(self, mode: int, x: Array) -> tuple[Array, Array]:
        """Mean and variance of the average of f over all modes but one, at positions ``x`` (N,)."""
        problem = self.problem
        if mode == problem.exact:
            rows = self._averaged_rows(None, x[:1])
            white = rows[0] @ self.factor
            means, covs = self.posterior.at(self.exact_prior.bend(x))
            mean, variance = means @ white, np.einsum("p,upq,q->u", white, covs, white)
            along = self.exact_prior.variance(x)
        else:
            rows = self._averaged_rows(mode, x)
            white = rows @ self.factor
            shape = problem.positions.size, rows.shape[1]
            middle, cov = self.posterior.total(np.full(shape, 1 / shape[0]), np.eye(shape[1]))
            mean, variance = white @ middle, np.einsum("np,pq,nq->n", white, cov, white)
            along = self._exact_average()
        left_out = problem.basis.missing_variance(rows, self._averaged_variance(mode, x))
        return mean, np.maximum(variance, 0.0) + np.exp(self.hyper.scale) * along * left_out

    def _averaged_rows(self, mode: int | None, x: Array) -> Array:
        """Product functions averaged over the nodes of every basis mode but ``mode``, shape (N, P)."""
        basis = self.problem.basis
        out = np.ones((x.size, basis.size))
        for part, n, column in zip(basis.bases, self.problem.others, basis.index.T, strict=True):
            rows = part.rows(x) if n == mode else part.rows(part.nodes).mean(axis=0, keepdims=True)
            out *= rows[:, column]
        return out

    def _averaged_variance(self, mode: int, x: Array) -> Array:
        """Prior variance of what ``_averaged_rows`` describes, exact mode left out, shape (N,) or (1,)."""
        out = np.ones(x.size if mode != self.problem.exact else 1)
        for part, n in zip(self.problem.basis.bases, self.problem.others, strict=True):
            prior, nodes = part.prior, part.nodes
            out = out * (prior.variance(x) if n == mode else prior.covariance(nodes, nodes).mean())
        return out

    def _exact_average(self) -> float:
        """Prior variance of the average over the exact mode's indices, in units of a coefficient's."""
        prior, grid = self.exact_prior, self.problem.positions
        sums = sum(float(prior.covariance(grid[i : i + 512], grid).sum()) for i in range(0, grid.size, 512))
        return sums / grid.size**2
