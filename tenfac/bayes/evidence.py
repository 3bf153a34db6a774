"""Log evidence of the collapsed functional Tucker model, its gradient, and the search for its maximum.

The prior covariance of f at two points is ``s * prod_n (c_n + k_n(x_n, x_n'))``: a Tucker core of
independent Gaussian entries on the modes' Karhunen-Loève functions. Expanded, the product is an ANOVA: a
constant, main effects, and interactions of every order, whose sizes the ``c_n`` set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes import levels, smoother
from tenfac.bayes.basis import ProductBasis
from tenfac.bayes.journal import Journal
from tenfac.bayes.mode_prior import ModePrior
from tenfac.bayes.posterior import CoefficientPosterior, Score
from tenfac.bayes.slices import Slices

Array = NDArray[np.float64]

# Weak hyperpriors (mean, standard deviation), in units where y has variance one and every continuous index
# runs from 0 to 1. They only matter where the data say next to nothing. Order: s, noise variance, then per
# mode c, lengthscale, sharpness (all as logarithms), center. The sharpness is bounded so that no part of an
# axis is stretched more than about sevenfold: the evidence cannot see inside a gap between indices.
_CENTER = np.array([-1.0, -3.0, 0.0, -0.7, -1.0, 0.5])
_WIDTH = np.array([3.0, 3.0, 2.0, 1.5, 1.5, 0.5])
_LOWER = np.array([-14.0, -18.0, -9.0, -9.5, -4.0, 0.0])
_UPPER = np.array([8.0, 3.0, 7.0, 4.0, 3.4, 1.0])
_START = np.array([0.0, -3.0, 0.0, -0.7, 0.0, 0.5])
# Loadings have mean zero and this standard deviation, in units of what a level has of its own.
_LOADING_WIDTH = 4.0
_SMALL_LOADING, _LARGEST_LOADING = 0.3, 100.0
STEP = 1e-5


@dataclass(frozen=True)
class Hyper:
    """Hyperparameters.

    Parameters
    ----------
    scale : float
        ``log s``: s is the variance of a core entry.
    noise : float
        Logarithm of the noise variance.
    modes : array, shape (D, 4)
        Per mode: logarithms of constant, lengthscale and sharpness, and the center of the bend. A discrete
        mode uses the first only.
    loadings : tuple of D arrays, shapes (M_n, r_n)
        Per discrete mode, what makes its levels alike; ``r_n = 0`` where they are exchangeable, and for
        continuous modes.
    """

    scale: float
    noise: float
    modes: Array
    loadings: tuple[Array, ...]

    @classmethod
    def start(cls, size: int) -> Hyper:
        """A neutral start for D = ``size`` modes: prior variance one, equal shares, smooth functions."""
        none = (np.zeros((1, 0)),) * size
        return cls(-np.log(2.0) * size, float(_START[1]), np.tile(_START[2:], (size, 1)), none)

    def with_loadings(self, sizes: tuple[int, ...], rank: int) -> Hyper:
        """A copy with small loadings, ``rank`` columns or one less than there are levels, to start from.

        ``sizes`` has the number of levels per mode, 0 for a continuous one.
        """
        loadings = []
        for size in sizes:
            column = np.arange(1, min(rank, max(size - 1, 0)) + 1)
            waves = np.cos(np.pi * (np.arange(max(size, 1))[:, None] + 0.5) * column / max(size, 1))
            loadings.append(_SMALL_LOADING * waves)
        return replace(self, loadings=tuple(loadings))

    def prior(self, mode: int, kernel: str | None) -> ModePrior:
        """The prior of one mode."""
        constant, lengthscale, sharpness = np.exp(self.modes[mode, :3])
        return ModePrior(
            kernel,
            float(constant),
            float(lengthscale),
            float(sharpness),
            float(self.modes[mode, 3]),
            self.loadings[mode],
        )

    def moved(self, mode: int, entry: int, step: float) -> Hyper:
        """A copy with one number of one mode changed."""
        modes = self.modes.copy()
        modes[mode, entry] += step
        return replace(self, modes=modes)

    @property
    def n_loadings(self) -> int:
        """Number of loadings in all."""
        return sum(part.size for part in self.loadings)

    def pack(self) -> Array:
        """All numbers in one vector, shape (2 + 4 D + sum(M_n r_n),)."""
        return np.concatenate(
            [[self.scale, self.noise], self.modes.ravel(), *[part.ravel() for part in self.loadings]]
        )

    def unpack(self, theta: Array) -> Hyper:
        """Inverse of ``pack``, for loadings of the shapes these have."""
        end = 2 + self.modes.size
        ends = end + np.cumsum([part.size for part in self.loadings])
        parts = np.split(theta[end:], ends[:-1] - end)
        loadings = tuple(part.reshape(old.shape) for part, old in zip(parts, self.loadings, strict=True))
        return Hyper(float(theta[0]), float(theta[1]), theta[2:end].reshape(-1, 4), loadings)

    def spread_out(self, table: Array, loading: float) -> Array:
        """Entries of a table (6,), and one number for all loadings, for every entry of ``pack()``."""
        rest = np.full(self.n_loadings, loading)
        return np.concatenate([table[:2], np.tile(table[2:], self.modes.shape[0]), rest])


def hyperprior(hyper: Hyper) -> tuple[Array, Array, Array, Array]:
    """Mean, standard deviation, lower and upper bound of every entry of ``hyper.pack()``; no bound is inf."""
    return (
        hyper.spread_out(_CENTER, 0.0),
        hyper.spread_out(_WIDTH, _LOADING_WIDTH),
        hyper.spread_out(_LOWER, -np.inf),
        hyper.spread_out(_UPPER, np.inf),
    )


def log_prior(hyper: Hyper) -> tuple[float, Array]:
    """Log density of the weak hyperprior (up to a constant) and its gradient."""
    center, width, _, _ = hyperprior(hyper)
    z = (hyper.pack() - center) / width
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
    missing, total : float
        Averages over the observations: of the prior variance that the basis leaves out, and of the whole
        prior variance (without the factor ``s``).
    """

    kernels: tuple[str | None, ...]
    exact: int
    positions: Array
    basis: ProductBasis
    slices: Slices
    missing: float
    total: float

    def left_out(self, hyper: Hyper) -> float:
        """Average variance of f at the observations that the basis leaves out."""
        return self.missing * float(np.exp(hyper.scale))

    @property
    def others(self) -> list[int]:
        """The modes that have a basis."""
        return [n for n in range(len(self.kernels)) if n != self.exact]

    def prior(self, hyper: Hyper, mode: int) -> ModePrior:
        """The prior of one mode at these hyperparameters."""
        return hyper.prior(mode, self.kernels[mode])

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
        mode = self.prior(hyper, self.exact)
        if mode.kernel is None:
            return levels.solve(designs, targets, mode.shared(len(designs)), gradient)
        return smoother.solve(designs, targets, mode.bend(self.positions), self.state_prior(hyper), gradient)

    def state_prior(self, hyper: Hyper) -> smoother.Prior:
        """Prior of the state that a continuous exact mode has."""
        mode = self.prior(hyper, self.exact)
        return smoother.Prior(mode.process(), mode.constant, self.basis.size)

    def value_and_gradient(self, hyper: Hyper) -> tuple[float, Array]:
        """Log evidence and its gradient by ``hyper.pack()`` (no hyperprior).

        The gradient by the prior covariance of the coefficients and by the noise comes from the smoother; the
        small matrices of each mode (its covariance, or its process) are differenced.
        """
        value, head, by_mode, by_loadings = self._derivatives(hyper)
        loadings = [part.ravel() for part in by_loadings]
        return value, np.concatenate([head, by_mode.ravel(), *loadings])

    def _derivatives(self, hyper: Hyper) -> tuple[float, list[float], Array, list[Array]]:
        """Log evidence; its derivatives by scale and noise, by ``modes``, and by ``loadings``."""
        cov, parts = _coefficient_prior(self, hyper)
        factor = np.linalg.cholesky(cov)
        _, score = self._solve_whitened(hyper, factor, gradient=True)
        half = np.linalg.solve(factor.T, score.by_covariance)
        slope = np.linalg.solve(factor.T, half.T)  # by the covariance before whitening
        by_mode, by_loadings = np.zeros_like(hyper.modes), [np.zeros_like(part) for part in hyper.loadings]
        for m, n in enumerate(self.others):
            by_covariance = _by_covariance(self, slope * np.exp(hyper.scale), parts, m)
            nodes = self.basis.bases[m].nodes
            by_mode[n] = mode_gradient(hyper, n, self.kernels[n], nodes, by_covariance)
            by_loadings[n] = loading_gradient(hyper, n, by_covariance)
        if self.kernels[self.exact] is None:
            shared = self.prior(hyper, self.exact).shared(self.positions.size)
            by_mode[self.exact, 0] = 0.5 * np.sum(score.by_shared[:, 0] * shared[:, 0])
            by_loadings[self.exact] = score.by_shared[:, 1:].reshape(hyper.loadings[self.exact].shape)
        else:
            by_mode[self.exact, 0] = score.by_log_constant
            by_mode[self.exact, 1:] = _process_gradient(self, hyper, score)
        by_noise = 0.5 * (score.misfit + self.slices.leftover * np.exp(-hyper.noise) - self.slices.n_obs)
        value = score.log_evidence + self.slices.constant_terms(float(np.exp(hyper.noise)))
        return value, [float(np.sum(slope * cov)), float(by_noise)], by_mode, by_loadings

    @property
    def n_obs(self) -> float:
        """Number of observations, repeats counted."""
        return self.slices.n_obs

    def log_evidence(self, hyper: Hyper) -> float:
        """Log marginal likelihood of the scaled targets."""
        _, score, _ = self.solve(hyper, gradient=False)
        return score.log_evidence + self.slices.constant_terms(float(np.exp(hyper.noise)))


def _coefficient_prior(problem: Problem, hyper: Hyper) -> tuple[Array, list[Array]]:
    """Prior covariance of the product coefficients, and the factor of every other mode in it."""
    parts = [
        basis.coefficient_covariance(problem.prior(hyper, n))
        for basis, n in zip(problem.basis.bases, problem.others, strict=True)
    ]
    cov = np.full((problem.basis.size,) * 2, np.exp(hyper.scale))
    for part, column in zip(parts, problem.basis.index.T, strict=True):
        cov *= part[np.ix_(column, column)]
    cov[np.diag_indices_from(cov)] *= 1 + 1e-12
    return cov, parts


def _by_covariance(problem: Problem, weight: Array, parts: list[Array], m: int) -> Array:
    """Derivative by the node covariance of one mode that has a basis."""
    for other, (part, column) in enumerate(zip(parts, problem.basis.index.T, strict=True)):
        if other != m:
            weight = weight * part[np.ix_(column, column)]
    basis = problem.basis.bases[m]
    member = np.eye(basis.size)[problem.basis.index[:, m]]
    return basis.half @ (member.T @ weight @ member) @ basis.half.T


def mode_gradient(
    hyper: Hyper, n: int, kernel: str | None, nodes: Array, by_covariance: Array
) -> list[float]:
    """Derivatives by the numbers of one mode, from that by its covariance (M, M) on the nodes."""
    gradient = [0.0] * 4
    for entry in range(1 if kernel is None else 4):
        above, below = (
            hyper.moved(n, entry, sign * STEP).prior(n, kernel).covariance(nodes, nodes) for sign in (1, -1)
        )
        gradient[entry] = float(np.sum(by_covariance * (above - below))) / (2 * STEP)
    return gradient


def loading_gradient(hyper: Hyper, n: int, by_covariance: Array) -> Array:
    """Derivatives by the loadings of one mode, from that by its covariance."""
    loadings = hyper.loadings[n]
    return 2 * by_covariance @ loadings if loadings.shape[1] else np.zeros_like(loadings)


def _process_gradient(problem: Problem, hyper: Hyper, score: Score) -> list[float]:
    """Derivatives by lengthscale, sharpness and center of a continuous exact mode."""
    gradient = []
    for entry in (1, 2, 3):
        moved = []
        for sign in (1, -1):
            prior = problem.prior(hyper.moved(problem.exact, entry, sign * STEP), problem.exact)
            gaps = np.diff(prior.bend(problem.positions))
            moved.append((prior.process().transition(gaps), prior.process().innovation(gaps)))
        (above, above_noise), (below, below_noise) = moved
        slope = np.sum(score.by_transition * (above - below))
        slope += np.sum(score.by_innovation * (above_noise - below_noise))
        gradient.append(float(slope) / (2 * STEP))
    return gradient


class Objective(Protocol):
    """A log evidence that can be maximised."""

    @property
    def n_obs(self) -> float:
        """Number of observations."""
        ...

    def value_and_gradient(self, hyper: Hyper) -> tuple[float, Array]:
        """Log evidence and its gradient by ``hyper.pack()``."""
        ...


def maximize(
    problem: Objective,
    hyper: Hyper,
    max_iter: int,
    tol: float,
    callback: Callable[[], None],
    journal: Journal | None = None,
) -> tuple[Hyper, float, int, int, bool]:
    """Maximise log evidence + hyperprior by L-BFGS; evaluations that a journal knows are not repeated.

    Returns
    -------
    hyper, objective, iterations, evaluations, converged
    """
    from scipy.optimize import minimize

    count = max(problem.n_obs, 1.0)
    evaluate = problem.value_and_gradient if journal is None else journal.watch(problem)

    def objective(theta: Array) -> tuple[float, Array]:
        at = hyper.unpack(theta)
        value, gradient = evaluate(at)
        prior, prior_gradient = log_prior(at)
        return -(value + prior) / count, -(gradient + prior_gradient) / count

    lower = hyper.spread_out(_LOWER, -_LARGEST_LOADING)
    upper = hyper.spread_out(_UPPER, _LARGEST_LOADING)
    result = minimize(
        objective,
        hyper.pack(),
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(lower, upper, strict=True)),
        callback=lambda _: callback(),
        options={"maxiter": max_iter, "ftol": tol, "gtol": 0.1 * tol**0.5 / count**0.5},
    )
    value = -float(result.fun) * count
    return hyper.unpack(result.x), value, int(result.nit), int(result.nfev), bool(result.success)
