"""Predictions from the posterior of the coefficient functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.evidence import Problem
from tenfac.bayes.collapsed.hyper import Hyper
from tenfac.bayes.collapsed.mode_prior import ModePrior
from tenfac.bayes.exact.posterior import CoefficientPosterior, root_of
from tenfac.bayes.threads import one_thread

Array = NDArray[Any]
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
    gap, residual : arrays, shape (N,)
        Variances of ``e``: what the functions kept leave out, and the residual within slices.
    """

    rows: Array
    offset: Array
    gap: Array
    residual: Array

    @property
    def variance(self) -> Array:
        """Of ``e``, shape (N,)."""
        return self.gap + self.residual


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
        with one_thread():
            found: Any = problem.solve(hyper, gradient=continuous)
            posterior, log_evidence, factor = found
        return cls(problem, hyper, posterior, factor, log_evidence)

    @property
    def exact_prior(self) -> ModePrior:
        return self.problem.prior(self.hyper, self.problem.exact)

    @property
    def missing_share(self) -> float:
        """Share of the prior variance at the observations that the basis leaves out."""
        return sum(self.problem.missing) / self.problem.total

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
                noisy[numbers] = variance[numbers] + self._noise(points, part.gap)
        return mean, variance, noisy

    def in_basis(self, positions: list[Array]) -> tuple[Array, Array]:
        """Mean and variance of f without what the functions kept leave out, at N points."""
        mean, variance = np.empty(positions[0].size), np.empty(positions[0].size)
        for numbers in self._blocks(positions[self.problem.exact]):
            points = [x[numbers] for x in positions]
            part = self.affine(points)
            mean[numbers], told = self._moments(points[self.problem.exact], part.rows, True)
            mean[numbers] += part.offset
            variance[numbers] = told + part.residual
        return mean, variance

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
        for numbers, spread in self.spread(positions, part.gap, max(mean.size, 1)):
            cov[np.ix_(numbers, numbers)] += spread
        return mean, cov, self._noise(positions, part.gap)

    def sample(
        self, positions: list[Array], n: int, rng: np.random.Generator, include_noise: bool = False
    ) -> Array:
        """``n`` joint draws of f, or of observations, at N points, shape (n, N)."""
        exact = positions[self.problem.exact]
        places, codes = np.unique(self.exact_prior.bend(exact), return_inverse=True)
        out, gap = np.empty((n, exact.size)), np.empty(exact.size)
        chunk = max(1, _NUMBERS // max(1, places.size * self.factor.shape[1]))
        for start in range(0, n, chunk):
            draws = self.posterior.sample(min(chunk, n - start), places, rng)
            for numbers in self._blocks(exact):
                part = self.affine([x[numbers] for x in positions])
                gap[numbers] = part.gap
                for code in np.unique(codes[numbers]):
                    own = codes[numbers] == code
                    values = draws[:, code] @ part.rows[own].T + part.offset[own]
                    out[start : start + chunk, numbers[own]] = values
        for numbers, spread in self.spread(positions, gap, _JOINT):
            root = root_of(spread)
            out[:, numbers] += rng.standard_normal((n, root.shape[1])) @ root.T
        if include_noise:
            noise = np.sqrt(self._noise(positions, gap))
            for row in out:
                row += noise * rng.standard_normal(row.size)
        return out

    def affine(self, points: list[Array], derivative: int | None = None) -> Affine:
        """What f, or its derivative by the position of one mode, is made of at N points.

        The residual within slices has no derivative: the rest of f is differentiated.
        """
        problem, exact = self.problem, points[self.problem.exact]
        rows = problem.rows(points, exact.size, derivative)
        offset, residual = np.zeros(exact.size), np.zeros(exact.size)
        if derivative is not None:
            gap = problem.gap(points, rows, self.hyper, derivative)
            white = rows @ self.factor
            if derivative == problem.exact:
                white = white * self.exact_prior.slope(exact)[:, None]
            return Affine(white, offset, gap, residual)
        cells = problem.cell_gap(points, rows, self.hyper)
        gap = cells + self._unknown(problem.gap(points, rows, self.hyper) - cells)
        if problem.residual is not None:
            for own in _same(exact):
                part = [x[own] for x in points]
                found = problem.residual_at(float(exact[own[0]]), part, self.hyper, joint=False)
                known, offset[own], residual[own] = found
                rows[own] -= known
        return Affine(rows @ self.factor, offset, gap, residual)

    def spread(self, points: list[Array], gap: Array, most: int) -> Iterator[tuple[NDArray[np.intp], Array]]:
        """Row numbers and covariances of independent parts of ``e``, which add.

        What the functions leave out has variance ``gap`` (N,): blocks of ``most`` rows in the order of the
        exact mode; rows of two blocks count as independent. The residual is independent between slices, and
        between blocks of ``most`` rows of one.
        """
        problem, exact = self.problem, points[self.problem.exact]
        open_rows = np.flatnonzero(gap > 0)
        open_rows = open_rows[np.argsort(exact[open_rows], kind="stable")]
        for start in range(0, open_rows.size, most):
            numbers = open_rows[start : start + most]
            part = [x[numbers] for x in points]
            cov = problem.gap_covariance(part, self.hyper)
            whole = np.diagonal(cov).copy()
            shrink = np.sqrt(np.clip(gap[numbers] / np.maximum(whole, 1e-300), 0.0, 1.0))
            cov *= shrink[:, None] * shrink
            cov[np.diag_indices_from(cov)] = gap[numbers]
            yield numbers, cov
        if problem.residual is not None:
            for whole in _same(exact):
                for own in np.split(whole, range(most, whole.size, most)):
                    part = [x[own] for x in points]
                    yield own, problem.residual_at(float(exact[own[0]]), part, self.hyper)[2]

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

    def _unknown(self, gap: Array) -> Array:
        """What is left of the variance that the functions kept leave out at points, cells' effects apart.

        All of it, or beside a residual within slices, which has taken it up at the observations, what exceeds
        almost all of theirs: nothing up to that, everything from twice as much on.
        """
        if self.problem.residual is None:
            return gap
        usual = self.problem.usual_gap * float(np.exp(self.hyper.scale))
        return gap * np.clip((gap - usual) / max(usual, 1e-300), 0.0, 1.0)

    def _noise(self, points: list[Array], gap: Array) -> Array:
        """Variance that noise adds to f at N points, where the functions kept leave out ``gap`` (N,).

        What they leave out at the observations on average was learned as noise, if there is no residual to
        take it up: not counted twice.
        """
        noise = np.exp(self.hyper.noise)
        if self.problem.residual is not None:
            return noise * self.problem.scale_at(points[self.problem.exact])
        return np.maximum(noise - np.minimum(gap, self.left_out), 0.0)

    @property
    def product_factor(self) -> Array:
        """The rows of ``factor`` that make the coefficients of the products."""
        return self.factor[: self.problem.product.width]

    def marginal(self, mode: int, x: Array) -> tuple[Array, Array]:
        """Mean and variance of the average of f over all modes but one, at positions ``x`` (N,).

        Without the residual within slices: that is what one slice has beside the function that all share,
        and no function of an index.
        """
        problem = self.problem
        if mode == problem.exact:
            rows = self._averaged_rows(None, x[:1])
            white = rows[0] @ self.factor
            means, covs = self.posterior.at(self.exact_prior.bend(x))
            mean, variance = means @ white, np.einsum("p,upq,q->u", white, covs, white)
            along = self.exact_prior.variance(x)
        else:
            rows = self._averaged_rows(mode, x)
            mean, variance = self._averaged_over_exact(rows @ self.factor)
            along = np.full(x.size, self._exact_average())
        left_out = self._averaged_left_out(mode, x, rows, along)
        return mean, np.maximum(variance, 0.0) + left_out

    def _averaged_over_exact(self, white: Array) -> tuple[Array, Array]:
        """Mean and variance of the average of ``white @ h`` over the exact mode's indices, shapes (N,)."""
        few = len(white) < white.shape[1]
        factor, count = white if few else np.eye(white.shape[1]), self.problem.positions.size
        mean, cov = self.posterior.total(np.full((count, len(factor)), 1 / count), factor)
        return (mean, np.diag(cov)) if few else (white @ mean, np.einsum("np,pq,nq->n", white, cov, white))

    def _averaged_rows(self, mode: int | None, x: Array) -> Array:
        """Rows averaged over the nodes of every basis mode but ``mode``, shape (N, C)."""
        return np.hstack([term.averaged_rows(mode, x) for term in self.problem.terms])

    def _averaged_left_out(self, mode: int, x: Array, rows: Array, along: Array) -> Array:
        """Prior variance that the functions leave out of the average described by ``rows``, shape (N,)."""
        parts, number = self.problem.parts(rows), None if mode == self.problem.exact else mode
        left = (term.averaged_left_out(number, x, part, self.hyper, along) for term, part in parts)
        return sum(left, np.zeros(x.size))

    def _exact_average(self) -> float:
        """Prior variance of the average over the exact mode's indices, in units of a coefficient's."""
        prior, grid = self.exact_prior, self.problem.positions
        sums = sum(float(prior.covariance(grid[i : i + 512], grid).sum()) for i in range(0, grid.size, 512))
        return sums / grid.size**2


def _same(values: Array) -> list[NDArray[np.intp]]:
    """Numbers of the rows with equal values, group by group."""
    _, codes = np.unique(values, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1) if values.size else []
