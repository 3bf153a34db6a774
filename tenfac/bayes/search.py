"""Learning the hyperparameters: alternate between mode bases and evidence maximisation."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.basis import ModeBasis, ProductBasis, nodes_of
from tenfac.bayes.evidence import Hyper, Problem, maximize
from tenfac.bayes.slices import Slices
from tenfac.core.modes.state_space import KERNELS
from tenfac.core.report import Report

Array = NDArray[np.float64]
_LOG = logging.getLogger("tenfac")
_ITERATIONS_PER_BASIS = 20
_COMPLETE_BELOW = 64  # so few products are all kept, whatever their prior variance
_NEGLIGIBLE = 0.02  # prior variance that may be left out, relative to the noise variance


@dataclass(frozen=True)
class Task:
    """The observations in scaled positions, and what was asked for.

    Parameters
    ----------
    kernels : tuple of (str or None)
        Per mode; None is discrete.
    exact : int
        The mode to integrate out exactly.
    grids : tuple of arrays, shape (M_n,)
        Distinct positions per mode, ascending.
    positions : tuple of arrays, shape (N,)
        Position of every observation, per mode.
    y, weights : arrays, shape (N,)
        ``y`` centered and scaled to variance one; weights are numbers of repeats.
    rank : tuple of (int or None)
        Most functions per mode.
    most : int
        Most products of mode functions.
    """

    kernels: tuple[str | None, ...]
    exact: int
    grids: tuple[Array, ...]
    positions: tuple[Array, ...]
    y: Array
    weights: Array
    rank: tuple[int | None, ...]
    most: int

    @property
    def limit(self) -> int:
        """``most``, lowered until one evaluation of the evidence takes about a second on one core."""
        size, kernel = self.grids[self.exact].size, self.kernels[self.exact]
        if kernel is None:
            affordable = (2e9 / size) ** (1 / 3)
        else:
            affordable = (5e8 / size) ** (1 / 3) / (1 + KERNELS[kernel])
        return max(1, min(self.most, int(max(affordable, 4))))

    def problem(self, hyper: Hyper) -> Problem:
        """Mode bases at these hyperparameters, their leading products, and the grouped observations."""
        others = [n for n in range(len(self.kernels)) if n != self.exact]
        bases = tuple(self._basis(n, hyper) for n in others)
        basis = ProductBasis.leading(bases, self.limit, self._negligible(bases, hyper))
        rows = basis.rows([self.positions[n] for n in others]) if others else np.ones((self.y.size, 1))
        grid = self.grids[self.exact]
        codes = np.searchsorted(grid, self.positions[self.exact])
        slices = Slices.group(rows, self.y, self.weights, codes, grid.size)
        missing = float(np.average(basis.missing_variance(rows), weights=self.weights))
        return Problem(self.kernels, self.exact, grid, basis, slices, missing)

    def is_complete(self, problem: Problem) -> bool:
        """Whether the basis spans the prior on the data, so that new hyperparameters need no new basis."""
        bases = problem.basis.bases
        full = all(basis.size == self.grids[n].size for basis, n in zip(bases, problem.others, strict=True))
        return full and problem.basis.size == int(np.prod([basis.size for basis in bases]))

    def _basis(self, n: int, hyper: Hyper) -> ModeBasis:
        kernel = self.kernels[n]
        nodes = self.grids[n] if kernel is None else nodes_of(self.grids[n])
        constant, lengthscale = float(np.exp(hyper.constants[n])), float(np.exp(hyper.lengthscales[n]))
        basis = ModeBasis.build(kernel, nodes, constant, lengthscale)
        limit = self.rank[n]
        return basis if limit is None else basis.truncate(limit)

    def _negligible(self, bases: tuple[ModeBasis, ...], hyper: Hyper) -> float:
        """Share of the prior variance that the products may leave out."""
        if np.prod([float(basis.size) for basis in bases]) <= min(_COMPLETE_BELOW, self.limit):
            return 0.0
        variance = np.exp(hyper.scale) * np.prod([basis.prior_variance() for basis in bases])
        return float(min(0.5, _NEGLIGIBLE * np.exp(hyper.noise) / variance))


@dataclass(frozen=True)
class Learned:
    """Outcome of ``learn``."""

    problem: Problem
    hyper: Hyper
    history: tuple[float, ...]
    n_iter: int
    n_evals: int
    converged: bool

    def report(self, max_iter: int, missing_share: float, started: float) -> Report:
        """The same as a Report."""
        notes: tuple[str, ...] = ()
        if missing_share > 0.05:
            notes = (
                f"the {self.problem.basis.size} products kept carry {100 * (1 - missing_share):.0f} % of the "
                "prior variance; raise max_functions or drop a mode to keep more",
            )
        reason = "evidence stopped improving" if self.converged else f"max_iter={max_iter} reached"
        if max_iter == 0:
            reason = "hyperparameters kept at their start"
        return Report(
            converged=self.converged, reason=reason, n_iter=self.n_iter, n_evals=self.n_evals,
            history=self.history, seconds=time.perf_counter() - started, warnings=notes,
        )  # fmt: skip


def learn(task: Task, max_iter: int, tol: float, verbose: int) -> Learned:
    """Maximise evidence and hyperprior; rebuild the basis where the hyperparameters went, and repeat."""
    hyper = Hyper.start(task.kernels)
    problem = task.problem(hyper)
    if max_iter == 0:
        return Learned(problem, hyper, (), 0, 0, True)
    hyper = _start_lengthscale(problem, hyper)
    history: list[float] = []
    n_iter = n_evals = 0
    converged = False
    with _progress(verbose, max_iter) as bar:
        while n_iter < max_iter and not converged:
            problem = task.problem(hyper) if history else problem
            budget = min(max_iter - n_iter, max_iter if task.is_complete(problem) else _ITERATIONS_PER_BASIS)
            hyper, value, iterations, evals, settled = maximize(problem, hyper, budget, tol, bar.update)
            history.append(value)
            n_iter, n_evals = n_iter + max(iterations, 1), n_evals + evals
            _LOG.info("basis %d: %d functions, objective %.6g", len(history), problem.basis.size, value)
            gain = value - history[-2] if len(history) > 1 else np.inf
            # between two bases the evidence itself shifts a little: half a nat, or 1e-5 per observation
            standing = abs(gain) < max(0.5, 1e-5 * problem.slices.n_obs)
            converged = settled and (task.is_complete(problem) or standing)
    return Learned(task.problem(hyper), hyper, tuple(history), n_iter, n_evals, converged)


def _start_lengthscale(problem: Problem, hyper: Hyper) -> Hyper:
    """Best of a few starting lengthscales for the exact mode, down to the spacing of its indices."""
    if problem.kernels[problem.exact] is None or problem.positions.size < 3:
        return hyper
    spacing = float(np.median(np.diff(problem.positions)))
    candidates = []
    for lengthscale in np.unique(np.clip([0.5, 0.1, 0.02, 0.004], spacing, None)):
        lengthscales = hyper.lengthscales.copy()
        lengthscales[problem.exact] = np.log(lengthscale)
        candidates.append(replace(hyper, lengthscales=lengthscales))
    return max(candidates, key=problem.log_evidence)


def _progress(verbose: int, total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc="FunctionalTucker", unit="iter", disable=verbose < 1, leave=False)
