"""Which rank, degrees and ridge fit scattered points best, judged by rows left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from tenfac.core.contract import contract
from tenfac.core.progress import Progress
from tenfac.functional.points.fit import PointsProblem, State
from tenfac.functional.points.start import PolynomialFit, Prior

# Models of this many numbers at most, and of this share of the rows.
_PARAMS, _SHARE = 1200, 0.7
# Steps in the search, relative fall of the objective at which they end, and how much better (in mean square)
# a model must be to be taken.
_STEPS, _SETTLED, _GAIN = 6, 1e-3, 0.998
# Models that may fail to be better in a row while the rank grows.
_PATIENCE = 1
# Models tried at most.
MODELS = 80
# Mean square of rounding, in units of that of the values: nothing is left to find.
_EXACT = 1e-26
# What singular values of the first fit are cut at in turn, as shares of the largest: down to rounding.
_CUTS = 0.6 ** np.arange(1, 69)
# Changes that are tried: of the ridge, which stays above the third (of a row), and of decays.
_RIDGED, _SMOOTHED, _LEAST_RIDGE = (0.05, 8.0), (0.8, 1.25), 1e-18
# Coefficients of a variable: at least; a part of their number, and at least so many, that are added.
_SHORTEST, _PART, _ADDED = 2, 3, 2


@dataclass(frozen=True)
class Model:
    """What is chosen: ranks, numbers of coefficients, decays and ridge.

    Examples
    --------
    >>> Model((2, 2), (5, 5), Prior((2.0, 2.0)), 1e-3).rank
    (2, 2)
    """

    rank: tuple[int, ...]
    sizes: tuple[int, ...]
    prior: Prior
    ridge: float


@dataclass(frozen=True)
class Found:
    """A model fitted: plain coefficients and the mean square at rows left out.

    Examples
    --------
    >>> Found(Model((1,), (1,), Prior((2.0,)), 0.0), np.ones(1), (np.ones((1, 1)),), 0.5).score
    0.5
    """

    model: Model
    core: np.ndarray
    factors: tuple[np.ndarray, ...]
    score: float


class Search:
    """Fit models of growing rank, then change one thing at a time for as long as rows left out gain by it.

    Parameters
    ----------
    bases : sequence of D arrays, shapes (N, K_n)
        Basis functions at the points, as many as a model may use.
    y, weights : arrays, shape (N,)
    first : PolynomialFit
    fixed : sequence of str
        Among ``"rank"``, ``"sizes"``, ``"ridge"``: not to be changed.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 40)
    >>> bases, prior = [np.polynomial.chebyshev.chebvander(x, 9)], Prior((3.0,))
    >>> search = Search(bases, np.exp(x), np.ones(40), PolynomialFit(bases, np.ones(40), prior))
    >>> found = search.run(Model((1,), (6,), prior, 1e-9))
    >>> bool(found.score < 1e-12)
    True
    """

    def __init__(
        self,
        bases: Sequence[np.ndarray],
        y: np.ndarray,
        weights: np.ndarray,
        first: PolynomialFit,
        fixed: Sequence[str] = (),
    ) -> None:
        self.bases, self.y, self.weights, self.first = tuple(bases), y, weights, first
        self.fixed, self.progress = set(fixed), Progress("chebyshev_from_points")
        self.most = tuple(basis.shape[1] for basis in bases)
        self.tried, self.exhausted = 0, False  # exhausted: moves were left when the last model was spent

    def run(self, model: Model) -> Found:
        """The best model found, from one that has its sizes, prior and ridge."""
        tensor = self.first.coefficients(self.y, model.prior, model.ridge)
        eyes = [np.eye(size) for size in tensor.shape]
        first = self.fit if "rank" in self.fixed else self._grown
        return self._improved(first(model, tensor, eyes))

    def problem(self, model: Model) -> PointsProblem:
        """The least squares of a model."""
        bases = [basis[:, :size] for basis, size in zip(self.bases, model.sizes, strict=True)]
        return PointsProblem(bases, model.prior.scales(model.sizes), self.y, self.weights)

    def fit(self, model: Model, core: np.ndarray, factors: Sequence[np.ndarray]) -> Found:
        """Fit a model from coefficients near it."""
        self.tried += 1
        problem = self.problem(model)
        state, _, _ = problem.solve(problem.adopted(core, factors, model.rank), model.ridge, _STEPS, _SETTLED)
        score, _ = problem.leave_one_out(state, model.ridge)
        self.progress.move()
        self.progress.log(
            "model %d: rank %s, degree %s, score %.3g", self.tried, model.rank, model.sizes, score
        )
        return Found(model, *_plain(problem, state), score)

    def settled(self, found: Found, max_iter: int, tol: float) -> tuple[Found, int, bool]:
        """The same model fitted to the end, the steps it took, and whether it came to rest."""
        model, problem = found.model, self.problem(found.model)
        state = problem.adopted(found.core, found.factors, model.rank)
        state, steps, at_rest = problem.solve(state, model.ridge, max_iter, tol)
        score, _ = problem.leave_one_out(state, model.ridge)
        return Found(model, *_plain(problem, state), score), steps, at_rest

    def fits(self, model: Model) -> bool:
        """Whether a model has fewer numbers than there are rows, and no rank is idle."""
        rank, sizes = np.array(model.rank), model.sizes
        if (rank > sizes).any() or (rank < 1).any() or (rank.astype(float) ** 2 > rank.prod()).any():
            return False
        numbers = rank.prod() + sum(r * (k - r) for r, k in zip(model.rank, sizes, strict=True))
        return numbers <= min(_PARAMS, _SHARE * len(self.y))

    def _may_try(self, trial: Model, model: Model) -> bool:
        same = (trial.rank, trial.sizes) == (model.rank, model.sizes)
        return same or self.fits(trial)

    def _grown(self, model: Model, tensor: np.ndarray, eyes: Sequence[np.ndarray]) -> Found:
        """The best rank on the path that singular values of the first fit show."""
        values = [
            np.linalg.svd(np.moveaxis(tensor, n, 0).reshape(size, -1), compute_uv=False)
            for n, size in enumerate(tensor.shape)
        ]
        best = self.fit(self._shortened(replace(model, rank=(1,) * len(values))), tensor, eyes)
        failed, seen = 0, best.model.rank
        for cut in max(v[0] for v in values) * _CUTS:
            if failed > _PATIENCE or best.score <= _EXACT:
                break
            rank = self._allowed(tuple(max(int((v > cut).sum()), 1) for v in values), model)
            if rank == seen:
                continue
            seen = rank
            trial = self._shortened(replace(best.model, rank=rank))
            if not self.fits(trial):
                break
            found = self.fit(trial, *self._more(best))
            better = found.score < _GAIN * best.score
            best, failed = (found, 0) if better else (best, failed + 1)
        return best

    def _shortened(self, model: Model) -> Model:
        """Fewer coefficients where there are too few rows; the ridge makes the last of them small anyway."""
        least = tuple(max(r, _SHORTEST) if decay else k for r, k, decay in self._of_modes(model))
        while not self.fits(model) and "sizes" not in self.fixed:
            sizes = tuple(max(k - 1, low) for k, low in zip(model.sizes, least, strict=True))
            if sizes == model.sizes:
                break
            model = replace(model, sizes=sizes)
        return model

    def _of_modes(self, model: Model) -> Iterator[tuple[int, int, float]]:
        return zip(model.rank, model.sizes, model.prior.decays, strict=True)

    def _allowed(self, rank: tuple[int, ...], model: Model) -> tuple[int, ...]:
        """Ranks of which none is larger than the product of the others."""
        made = [min(r, size) for r, size in zip(rank, model.sizes, strict=True)]
        for _ in made:
            total = math.prod(made)
            made = [min(r, total // r) for r in made]
        return tuple(made)

    def _more(self, found: Found) -> tuple[np.ndarray, list[np.ndarray]]:
        """A fit and a polynomial fit of what it leaves."""
        rows = [b[:, : len(f)] @ f for b, f in zip(self.bases, found.factors, strict=True)]
        left = self.y - contract(found.core, rows, paired=range(len(rows)))
        more = self.first.coefficients(left, found.model.prior, found.model.ridge)
        core = np.zeros([r + k for r, k in zip(found.core.shape, more.shape, strict=True)])
        core[tuple(slice(r) for r in found.core.shape)] = found.core
        core[tuple(slice(r, None) for r in found.core.shape)] = more
        factors = []
        for factor, size in zip(found.factors, more.shape, strict=True):
            joined = np.zeros((max(len(factor), size), factor.shape[1] + size))
            joined[: len(factor), : factor.shape[1]] = factor
            joined[:size, factor.shape[1] :] = np.eye(size)
            factors.append(joined)
        return core, factors

    def _improved(self, best: Found) -> Found:
        """Moves in turn, until each was tried in vain since the last that helped."""
        moves = list(self._moves(best.model))
        idle = 0
        while idle < len(moves) and best.score > _EXACT and self.tried < MODELS:
            move = moves.pop(0)
            moves.append(move)
            idle += 1
            while self.tried < MODELS:  # what helped is repeated, to the last digit
                trial = move(best.model)
                if trial == best.model or not self._may_try(trial, best.model):
                    break
                larger = any(a > b for a, b in zip(trial.rank, best.model.rank, strict=True))
                start = self._more(best) if larger else (best.core, best.factors)
                found = self.fit(trial, *start)
                if not found.score < _GAIN * best.score:
                    break
                best, idle = found, 1  # which is tried again at once
        self.exhausted = idle < len(moves) and best.score > _EXACT
        return best

    def _moves(self, model: Model) -> Iterator[Callable[[Model], Model]]:
        if "ridge" not in self.fixed:
            for factor in _RIDGED:
                yield partial(self._ridged, factor=factor)
        if "sizes" not in self.fixed:
            yield lambda m: replace(m, sizes=self._longer(m))
        for factor in _SMOOTHED:
            yield partial(_smoothed, factor=factor)
        if "rank" not in self.fixed and len(model.rank) > 1:
            for change in (1, -1):
                yield partial(_ranked, change=change, modes=range(len(model.rank)))
            for n in range(len(model.rank)):
                yield partial(_ranked, change=-1, modes=(n,))

    def _ridged(self, model: Model, factor: float) -> Model:
        return replace(model, ridge=max(model.ridge * factor, _LEAST_RIDGE * len(self.y)))

    def _longer(self, model: Model) -> tuple[int, ...]:
        return tuple(
            min(size + max(size // _PART, _ADDED), most)
            for size, most in zip(model.sizes, self.most, strict=True)
        )


def _smoothed(model: Model, factor: float) -> Model:
    return replace(model, prior=model.prior.changed(factor))


def _ranked(model: Model, change: int, modes: Sequence[int]) -> Model:
    return replace(model, rank=tuple(r + change * (n in modes) for n, r in enumerate(model.rank)))


def _plain(problem: PointsProblem, state: State) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    core, factors = problem.coefficients(state)
    return core, tuple(factors)
