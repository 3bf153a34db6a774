"""Log evidence of the collapsed functional Tucker model, its gradient, and the search for its maximum.

The prior covariance of f at two points is ``s * prod_n (c_n + k_n(x_n, x_n'))``: a Tucker core of
independent Gaussian entries on the modes' Karhunen-Loève functions. Expanded, the product is an ANOVA: a
constant, main effects, and interactions of every order, whose sizes the ``c_n`` set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes import exchangeable, smoother
from tenfac.bayes.basis import ProductBasis
from tenfac.bayes.posterior import CoefficientPosterior, Score
from tenfac.bayes.slices import Slices
from tenfac.core.modes.state_space import StateSpace

Array = NDArray[np.float64]

# Weak log-normal priors (mean, standard deviation of the logarithm), in units where y has variance one
# and every continuous index runs from 0 to 1. They only matter where the data say next to nothing.
_PRIORS = {"scale": (-1.0, 3.0), "noise": (-3.0, 3.0), "constant": (0.0, 2.0), "lengthscale": (-0.7, 1.5)}
_BOUNDS = {"scale": (-14.0, 8.0), "noise": (-18.0, 3.0), "constant": (-9.0, 7.0), "lengthscale": (-9.5, 4.0)}


@dataclass(frozen=True)
class Hyper:
    """Hyperparameters as logarithms.

    Parameters
    ----------
    scale : float
        Of ``s``, the variance of a core entry.
    noise : float
        Of the noise variance.
    constants : array, shape (D,)
        Of ``c_n``.
    lengthscales : array, shape (D,)
        In units of the mode's range; ignored for discrete modes.
    """

    scale: float
    noise: float
    constants: Array
    lengthscales: Array

    @classmethod
    def start(cls, kernels: tuple[str | None, ...]) -> Hyper:
        """A neutral start: equal shares for all interactions, smooth functions, 5 % noise."""
        size = len(kernels)
        return cls(-np.log(2.0) * size, -3.0, np.zeros(size), np.full(size, -0.7))

    def pack(self) -> Array:
        """All logarithms in one vector, shape (2 + 2 D,)."""
        return np.concatenate([[self.scale, self.noise], self.constants, self.lengthscales])

    @classmethod
    def unpack(cls, theta: Array) -> Hyper:
        """Inverse of ``pack``."""
        size = (theta.size - 2) // 2
        return cls(float(theta[0]), float(theta[1]), theta[2 : 2 + size], theta[2 + size :])


def _per_entry(table: dict[str, tuple[float, float]], size: int) -> tuple[Array, Array]:
    names = ["scale", "noise", *["constant"] * size, *["lengthscale"] * size]
    pairs = np.array([table[name] for name in names])
    return pairs[:, 0], pairs[:, 1]


def bounds(size: int) -> list[tuple[float, float]]:
    """Search bounds of ``Hyper.pack()`` for D = ``size`` modes."""
    return list(zip(*_per_entry(_BOUNDS, size), strict=True))


def log_prior(theta: Array) -> tuple[float, Array]:
    """Log density of the weak hyperprior (up to a constant) and its gradient."""
    center, width = _per_entry(_PRIORS, (theta.size - 2) // 2)
    z = (theta - center) / width
    return float(-0.5 * z @ z), -z / width


@dataclass(frozen=True)
class Problem:
    """Everything the evidence needs that does not move during one search.

    Parameters
    ----------
    kernels : tuple of (str or None)
        Per mode; None is discrete.
    exact : int
        The mode integrated out without a basis.
    positions : array, shape (M,)
        Its observed indices (scaled), ascending; codes when discrete.
    basis : ProductBasis
        Of the other modes, in their order.
    slices : Slices
    missing : float
        Average over the observations of the basis' missing variance (``s`` and the exact mode left out).
    """

    kernels: tuple[str | None, ...]
    exact: int
    positions: Array
    basis: ProductBasis
    slices: Slices
    missing: float

    @property
    def others(self) -> list[int]:
        """The modes that have a basis."""
        return [n for n in range(len(self.kernels)) if n != self.exact]

    def solve(self, hyper: Hyper, gradient: bool = True) -> tuple[CoefficientPosterior | None, Score, Array]:
        """Posterior of the whitened coefficients, its score, and the whitening factor (P, P)."""
        factor = np.linalg.cholesky(_coefficient_prior(self, hyper)[0])
        return *self._solve_whitened(hyper, factor, gradient), factor

    def _solve_whitened(
        self, hyper: Hyper, factor: Array, gradient: bool
    ) -> tuple[CoefficientPosterior | None, Score]:
        scale = np.exp(-0.5 * hyper.noise)
        designs = [design @ (factor * scale) for design in self.slices.designs]
        targets = [target * scale for target in self.slices.targets]
        constant = float(np.exp(hyper.constants[self.exact]))
        kernel = self.kernels[self.exact]
        if kernel is None:
            return exchangeable.solve(designs, targets, constant, gradient)
        process = StateSpace(kernel, float(np.exp(hyper.lengthscales[self.exact])))
        prior = smoother.Prior(process, constant, self.basis.size)
        return smoother.solve(designs, targets, self.positions, prior, gradient)

    def log_evidence(self, hyper: Hyper) -> float:
        """Log marginal likelihood of the scaled targets."""
        _, score, _ = self.solve(hyper, gradient=False)
        return score.log_evidence + self.slices.constant_terms(float(np.exp(hyper.noise)))


def _coefficient_prior(problem: Problem, hyper: Hyper) -> tuple[Array, list[tuple[Array, Array, Array]]]:
    """Prior covariance of the product coefficients and, per other mode, (its own, d log c, d log l)."""
    parts = [
        basis.coefficient_covariance(float(np.exp(hyper.constants[n])), float(np.exp(hyper.lengthscales[n])))
        for basis, n in zip(problem.basis.bases, problem.others, strict=True)
    ]
    cov = np.full((problem.basis.size,) * 2, np.exp(hyper.scale))
    for part, column in zip(parts, problem.basis.index.T, strict=True):
        cov *= part[0][np.ix_(column, column)]
    cov[np.diag_indices_from(cov)] *= 1 + 1e-12
    return cov, parts


def value_and_gradient(problem: Problem, theta: Array) -> tuple[float, Array]:
    """Log evidence and its gradient by the packed hyperparameters (no hyperprior).

    The gradient by the prior covariance of the coefficients comes from the smoother (Fisher's identity);
    only the exact mode's own lengthscale is differenced.
    """
    hyper = Hyper.unpack(theta)
    cov, parts = _coefficient_prior(problem, hyper)
    factor = np.linalg.cholesky(cov)
    _, score = problem._solve_whitened(hyper, factor, gradient=True)
    half = np.linalg.solve(factor.T, score.by_covariance)
    slope = np.linalg.solve(factor.T, half.T)  # by the covariance before whitening
    size = len(problem.kernels)
    gradient = np.zeros_like(theta)
    gradient[0] = np.sum(slope * cov)
    gradient[1] = 0.5 * (
        score.misfit + problem.slices.leftover * np.exp(-hyper.noise) - problem.slices.n_obs
    )
    gradient[2 + problem.exact] = score.by_log_constant
    for m, n in enumerate(problem.others):
        by_constant, by_lengthscale = _mode_gradient(problem, slope, np.exp(hyper.scale), parts, m)
        gradient[2 + n] = by_constant
        gradient[2 + size + n] = by_lengthscale
    if problem.kernels[problem.exact] is not None:
        gradient[2 + size + problem.exact] = _difference(problem, hyper, factor)
    value = score.log_evidence + problem.slices.constant_terms(float(np.exp(hyper.noise)))
    return value, gradient


def _mode_gradient(
    problem: Problem, slope: Array, scale: float, parts: list[tuple[Array, Array, Array]], m: int
) -> tuple[float, float]:
    """Derivatives by one mode's log constant and log lengthscale."""
    weight = slope * scale
    for other, (part, column) in enumerate(zip(parts, problem.basis.index.T, strict=True)):
        if other != m:
            weight = weight * part[0][np.ix_(column, column)]
    column = problem.basis.index[:, m]
    member = np.eye(problem.basis.bases[m].size)[column]
    per_function = member.T @ weight @ member
    return float(np.sum(per_function * parts[m][1])), float(np.sum(per_function * parts[m][2]))


def _difference(problem: Problem, hyper: Hyper, factor: Array, step: float = 1e-4) -> float:
    """Central difference of the log evidence by the exact mode's log lengthscale."""
    values = []
    for sign in (1, -1):
        lengthscales = hyper.lengthscales.copy()
        lengthscales[problem.exact] += sign * step
        moved = replace(hyper, lengthscales=lengthscales)
        values.append(problem._solve_whitened(moved, factor, gradient=False)[1].log_evidence)
    return (values[0] - values[1]) / (2 * step)


def maximize(
    problem: Problem, hyper: Hyper, max_iter: int, tol: float, callback: Callable[[], None]
) -> tuple[Hyper, float, int, int, bool]:
    """Maximise log evidence + hyperprior by L-BFGS.

    Returns
    -------
    hyper, objective, iterations, evaluations, converged
    """
    from scipy.optimize import minimize

    count = max(problem.slices.n_obs, 1.0)

    def objective(theta: Array) -> tuple[float, Array]:
        value, gradient = value_and_gradient(problem, theta)
        prior, prior_gradient = log_prior(theta)
        return -(value + prior) / count, -(gradient + prior_gradient) / count

    result = minimize(
        objective, hyper.pack(), jac=True, method="L-BFGS-B", bounds=bounds(len(problem.kernels)),
        callback=lambda _: callback(),
        options={"maxiter": max_iter, "ftol": tol, "gtol": 0.1 * tol**0.5 / count**0.5},
    )  # fmt: skip
    value = -float(result.fun) * count
    return Hyper.unpack(result.x), value, int(result.nit), int(result.nfev), bool(result.success)
