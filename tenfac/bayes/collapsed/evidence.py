"""Log evidence of the collapsed functional Tucker model, its gradient, and the search for its maximum.

The prior covariance of f at two points is ``s * prod_n (c_n + k_n(x_n, x_n'))``: a Tucker core of
independent Gaussian entries on the modes' Karhunen-Loève functions. Expanded, the product is an ANOVA: a
constant, main effects, and interactions of every order, whose sizes the ``c_n`` set. Main effects with scales
of their own, and a residual within the slices of the exact mode, may stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.basis import ProductBasis
from tenfac.bayes.collapsed.cells import CellBasis
from tenfac.bayes.collapsed.hyper import LARGEST_LOADING, Hyper, hyperprior, log_prior
from tenfac.bayes.collapsed.journal import Journal
from tenfac.bayes.collapsed.mode_prior import ModePrior
from tenfac.bayes.collapsed.residual import Residual, Whitening
from tenfac.bayes.collapsed.slices import Slices
from tenfac.bayes.collapsed.terms import STEP, Cells, Gradient, Level, Main, Product, Term, root_of
from tenfac.bayes.exact import levels, smoother
from tenfac.bayes.exact.posterior import CoefficientPosterior

Array = NDArray[Any]


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
    product : Product
    mains : tuple of (Main, Level or Cells)
    residual : Residual or None
    slices : Slices
    missing : tuple of two floats
        Averages over the observations of the prior variance that the products leave out (without the factor
        ``s``), of the constant and the moving part.
    usual_gap : float
        What 95 % of the observations do not exceed of the same, both parts together.
    total : float
        Average of the whole prior variance of the product (without ``s``).
    """

    kernels: tuple[str | None, ...]
    exact: int
    positions: Array
    product: Product
    mains: tuple[Main | Level | Cells, ...]
    residual: Residual | None
    slices: Slices
    missing: tuple[float, float]
    usual_gap: float
    total: float

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms that have coefficients."""
        return (self.product, *self.mains)

    @property
    def basis(self) -> ProductBasis | CellBasis:
        """Of the product."""
        return self.product.basis

    @property
    def others(self) -> list[int]:
        """The modes that have a basis."""
        return self.product.others

    @property
    def n_obs(self) -> float:
        """Number of observations, repeats counted."""
        return self.slices.n_obs

    def left_out(self, hyper: Hyper) -> float:
        """Average variance of f at the observations that the products leave out."""
        return sum(self.missing) * float(np.exp(hyper.scale))

    def prior(self, hyper: Hyper, mode: int) -> ModePrior:
        """The prior of one mode in the product, at these hyperparameters."""
        return hyper.prior(mode, self.kernels[mode])

    def rows(self, positions: list[Array], count: int, derivative: int | None = None) -> Array:
        """Values of all terms' functions at points, one position (N,) per mode: (N, C); or derivatives."""
        return np.hstack([term.rows(positions, count, derivative) for term in self.terms])

    def scale_at(self, positions: Array) -> Array:
        """Variance of noise and residual relative to the usual, at exact positions, shape (N,)."""
        if self.residual is None:
            return np.ones(positions.size)
        t = np.minimum(np.searchsorted(self.positions, positions), self.positions.size - 1)
        return np.where(
            self.positions[t] == positions, self.residual.predictive_scales[t], self.residual.new_scale
        )

    def residual_at(
        self, position: float, points: list[Array], hyper: Hyper, joint: bool = True
    ) -> tuple[Array, Array, Array]:
        """The residual at points of one slice: what it subtracts from their rows, its mean, its covariance.

        Returns
        -------
        rows : array, shape (N, C)
        offset : array, shape (N,)
        cov : array, shape (N, N), or if not ``joint`` its diagonal, (N,)
        """
        x = [points[n] for n in self.others]
        if self.residual is None:
            none = np.zeros(x[0].size if x else points[self.exact].size)
            return none[:, None], none, np.zeros((none.size,) * 2) if joint else none
        t = int(np.searchsorted(self.positions, position))
        if t == self.positions.size or self.positions[t] != position:
            return np.zeros((x[0].size, 1)), np.zeros(x[0].size), self.residual.before(hyper, x, joint)
        pull, cov = self.residual.given(hyper, t, x, joint)
        return pull @ self.slices.designs[t], pull @ self.slices.targets[t], cov

    def gap(self, positions: list[Array], rows: Array, hyper: Hyper, derivative: int | None = None) -> Array:
        """Variance of f, or a derivative, at points that the functions kept leave out of ``rows``, (N,)."""
        parts = self.parts(rows)
        gaps = (term.left_out(positions, part, hyper, derivative) for term, part in parts)
        return sum(gaps, np.zeros(rows.shape[0]))

    def cell_gap(self, positions: list[Array], rows: Array, hyper: Hyper) -> Array:
        """The part of ``gap`` that is of cells' effects, (N,): zero at the cells that were seen."""
        parts = [(term, part) for term, part in self.parts(rows) if isinstance(term, Cells)]
        return sum((term.left_out(positions, part, hyper) for term, part in parts), np.zeros(rows.shape[0]))

    def gap_covariance(self, positions: list[Array], hyper: Hyper) -> Array:
        """Covariance between points of what the functions kept leave out of f, shape (N, N)."""
        parts = self.parts(self.rows(positions, positions[self.exact].size))
        missing = (term.missing_covariance(positions, part, hyper) for term, part in parts)
        return sum(missing, np.zeros((positions[self.exact].size,) * 2))

    def parts(self, rows: Array) -> Iterable[tuple[Term, Array]]:
        """Every term with its columns."""
        ends = np.cumsum([term.width for term in self.terms])[:-1]
        return zip(self.terms, np.split(rows, ends, axis=1), strict=True)

    def solve(self, hyper: Hyper, gradient: bool = True) -> tuple[CoefficientPosterior | None, float, Array]:
        """Posterior of the unit coefficients, log evidence, and the factor (C, P) on them.

        The function at a point is ``rows @ factor @ u``, and its residual.
        """
        solved = self._solve(hyper, [term.covariance(hyper) for term in self.terms], gradient)
        return solved.posterior, solved.log_evidence, solved.factor

    def log_evidence(self, hyper: Hyper) -> float:
        """Log marginal likelihood of the scaled targets."""
        return self.solve(hyper, gradient=False)[1]

    def value_and_gradient(self, hyper: Hyper) -> tuple[float, Array]:
        """Log evidence and its gradient by ``hyper.pack()`` (no hyperprior).

        The gradient by the prior covariances of the coefficients and of the noise comes from the solver; the
        small matrices of each mode (its covariance, or its process) are differenced.
        """
        covs = [term.covariance(hyper) for term in self.terms]
        solved, out = self._solve(hyper, covs, gradient=True), Gradient.zero(hyper)
        score = solved.score
        if isinstance(score, levels.Score):
            self._levels_gradient(hyper, covs[0], solved.factor, score, out)
        else:
            self._chain_gradient(hyper, covs, solved, score, out)
        return solved.log_evidence, out.pack()

    def _solve(self, hyper: Hyper, covs: list[Array], gradient: bool) -> Solved:
        mode = self.prior(hyper, self.exact)
        if mode.kernel is None:
            factor = root_of(covs[0])
            designs, targets, constant, _ = self._whitened(hyper, factor)
            posterior, score = levels.solve(designs, targets, mode.shared(len(designs)), gradient)
            return Solved(posterior, score, score.log_evidence + constant, factor, None)
        factor = _block_diagonal([t.factor(hyper, cov) for t, cov in zip(self.terms, covs, strict=True)])
        designs, targets, constant, whitening = self._whitened(hyper, factor)
        prior = self.chain(hyper)
        found, scored = smoother.solve(designs, targets, mode.bend(self.positions), prior, gradient)
        return Solved(found, scored, scored.log_evidence + constant, factor, whitening)

    def slice_squares(self, hyper: Hyper) -> tuple[Array, Array]:
        """Per slice, expected squared norm of its noise and residual, whitened at scale one, and its rows.

        Repeats count as rows: they agree, so that their scatter adds nothing to the squares.
        """
        own: Any = self.residual
        return self._squares(self._scored(hyper)), own.counts

    def slice_products(self, hyper: Hyper) -> tuple[Array, Array, Array]:
        """The same, and expected products of cells' residuals at scale one: average over slices, (U, U)."""
        own: Any = self.residual
        solved = self._scored(hyper)
        nodes = own.learned.nodes
        prior = own.covariance(hyper, nodes, nodes)
        moved = np.zeros_like(prior)
        for bucket, roots in zip(own.buckets, solved.whitening.roots, strict=True):
            for t, place, scale, root in zip(bucket.slices, bucket.places, bucket.scales, roots, strict=True):
                reach = prior[:, place] @ root.T
                moved += 2 * scale * (reach @ solved.score.by_noise[t] @ reach.T)
        return self._squares(solved), own.counts, prior + moved / len(own.points)

    def _scored(self, hyper: Hyper) -> Solved:
        return self._solve(hyper, [term.covariance(hyper) for term in self.terms], gradient=True)

    def _squares(self, solved: Solved) -> Array:
        norms = np.array([2 * np.trace(slope) + slope.shape[0] for slope in solved.score.by_noise])
        own: Any = self.residual
        return norms * own.scales

    def chain(self, hyper: Hyper) -> smoother.Prior:
        """Processes of the unit coefficients along a continuous exact mode."""
        return smoother.Prior(tuple(group for term in self.terms for group in term.groups(hyper)))

    def _whitened(
        self, hyper: Hyper, factor: Array
    ) -> tuple[list[Array], list[Array], float, Whitening | None]:
        """Designs and targets with unit noise, and the part of the log evidence that no prior changes."""
        if self.residual is None:
            scale = np.exp(-0.5 * hyper.noise)
            designs = [design @ (factor * scale) for design in self.slices.designs]
            targets = [target * scale for target in self.slices.targets]
            return designs, targets, self.slices.constant_terms(float(np.exp(hyper.noise))), None
        whitening = self.residual.whitening(hyper)
        both = [np.column_stack([d @ factor, z]) for d, z in zip(*self.slices.pair, strict=True)]
        both = self.residual.apply(whitening, both)
        designs, targets = [part[:, :-1] for part in both], [part[:, -1] for part in both]
        squares = sum(float(z @ z) for z in targets)
        constant = -0.5 * (self.slices.n_rows * np.log(2 * np.pi) + whitening.log_det + squares)
        constant -= self.residual.scatter(hyper)
        return designs, targets, constant, whitening

    def whitened_slice(self, hyper: Hyper, factor: Array, t: int) -> tuple[Array, Array, float]:
        """Design and target of one slice with unit noise; with a residual, its constant terms."""
        design, target = self.slices.designs[t] @ factor, self.slices.targets[t]
        if self.residual is None:
            scale = np.exp(-0.5 * hyper.noise)
            return design * scale, target * scale, 0.0
        own = self.residual.only(t)
        whitening = own.whitening(hyper)
        root = whitening.roots[0][0]
        design, target = root @ design, root @ target
        told = target.size * np.log(2 * np.pi) + whitening.log_det + target @ target
        return design, target, -0.5 * float(told) - own.scatter(hyper)

    def _levels_gradient(
        self, hyper: Hyper, cov: Array, factor: Array, score: levels.Score, out: Gradient
    ) -> None:
        half = np.linalg.solve(factor.T, score.by_covariance)
        slope = np.linalg.solve(factor.T, half.T)  # by the covariance before whitening
        self.product.gradient(hyper, cov, slope, out)
        shared = self.prior(hyper, self.exact).shared(self.positions.size)
        out.modes[self.exact, 0] = 0.5 * np.sum(score.by_shared[:, 0] * shared[:, 0])
        out.loadings[self.exact][...] = score.by_shared[:, 1:].reshape(hyper.loadings[self.exact].shape)
        out.head[1] = 0.5 * (score.misfit + self.slices.leftover * np.exp(-hyper.noise) - self.n_obs)

    def _chain_gradient(
        self, hyper: Hyper, covs: list[Array], solved: Solved, score: smoother.Score, out: Gradient
    ) -> None:
        scores = list(score.by_covariance)
        for term, cov in zip(self.terms, covs, strict=True):
            own = [scores.pop(0) for _ in term.groups(hyper)]
            term.chain_gradient(hyper, cov, own, out)
        self._process_gradient(hyper, score, out)
        if solved.whitening is None or self.residual is None:
            change = sum(2 * np.trace(slope) + slope.shape[0] for slope in score.by_noise)
            out.head[1] = 0.5 * (change + self.slices.leftover * np.exp(-hyper.noise) - self.n_obs)
        else:
            noise, residual = self.residual.gradient(hyper, solved.whitening, score.by_noise)
            out.head[1] = noise - 0.5 * (self.n_obs - self.slices.n_rows)
            out.residual[...] = residual

    def _process_gradient(self, hyper: Hyper, score: smoother.Score, out: Gradient) -> None:
        """Derivatives by lengthscales, sharpness and center of a continuous exact mode."""
        for entry in (1, 2, 3, 5) if hyper.mains.size else (1, 2, 3):
            slope = 0.0
            for sign in (1, -1):
                moved = hyper.moved(self.exact, entry, sign * STEP)
                gaps = np.diff(self.prior(moved, self.exact).bend(self.positions))
                groups = self.chain(moved).groups
                for (process, _), move, noise in zip(
                    groups, score.by_transition, score.by_innovation, strict=True
                ):
                    slope += sign * np.sum(move * process.transition(gaps))
                    slope += sign * np.sum(noise * process.innovation(gaps))
            target = out.modes if entry < 4 else out.mains
            target[self.exact, entry % 4] += float(slope) / (2 * STEP)


@dataclass(frozen=True)
class Solved:
    """Outcome of one solve: posterior, score, log evidence, factor, and how the slices were whitened."""

    posterior: CoefficientPosterior | None
    score: Any  # levels.Score or smoother.Score
    log_evidence: float
    factor: Array
    whitening: Any  # Whitening, or None without a residual


def _block_diagonal(blocks: list[Array]) -> Array:
    from scipy.linalg import block_diag

    return blocks[0] if len(blocks) == 1 else block_diag(*blocks)


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
    fixed: NDArray[np.bool_] | None = None,
    journal: Journal | None = None,
) -> tuple[Hyper, float, int, int, bool]:
    """Maximise log evidence + hyperprior by L-BFGS; evaluations that a journal knows are not repeated.

    Entries of ``hyper.pack()`` where ``fixed`` is true stay as they are.

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

    _, _, lower, upper = hyperprior(hyper)
    lower, upper = np.maximum(lower, -LARGEST_LOADING), np.minimum(upper, LARGEST_LOADING)
    if fixed is not None:
        lower, upper = (np.where(fixed, hyper.pack(), bound) for bound in (lower, upper))
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
