"""The terms of the collapsed model: the product over modes, and main effects beside it.

Each term contributes columns to the design (values of its mode functions at the observations), groups of
unit coefficients that live along the exact mode, and a factor that turns the latter into coefficients of
the former. What its hyperparameters do to the evidence follows from the derivative by the prior covariance of
its coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.basis import ModeBasis, ProductBasis
from tenfac.bayes.collapsed.cells import CellBasis
from tenfac.bayes.collapsed.hyper import Hyper
from tenfac.bayes.collapsed.mode_prior import ModePrior
from tenfac.bayes.collapsed.residual import distance
from tenfac.bayes.exact.smoother import Group
from tenfac.core.modes.still import Constant

Array = NDArray[Any]
Kernels = tuple[str | None, ...]
STEP = 1e-5


@dataclass(frozen=True)
class Gradient:
    """Derivatives of the log evidence, collected term by term in arrays with the shapes of ``Hyper``.

    ``head`` has those by ``scale`` and ``noise``.
    """

    head: Array
    modes: Array
    loadings: tuple[Array, ...]
    mains: Array
    residual: Array
    cells: Array

    @classmethod
    def zero(cls, hyper: Hyper) -> Gradient:
        """Nothing yet."""
        loadings = tuple(np.zeros_like(part) for part in hyper.loadings)
        arrays = (np.zeros_like(part) for part in (hyper.mains, hyper.residual, hyper.cells))
        return cls(np.zeros(2), np.zeros_like(hyper.modes), loadings, *arrays)

    def pack(self) -> Array:
        """In the order of ``Hyper.pack``."""
        parts = [self.head, self.modes, self.mains, self.residual, self.cells, *self.loadings]
        return np.concatenate([part.ravel() for part in parts])


@dataclass(frozen=True)
class Product:
    """``s prod_n (c_n + k_n)``: leading products of mode functions, with constant and Matérn coefficients.

    Parameters
    ----------
    kernels : tuple of (str or None)
        Per mode; None is discrete.
    exact : int
    basis : ProductBasis or CellBasis
        Of the other modes, in their order, S products.
    n_dynamic : int
        How many of the leading products have coefficients that move along a continuous exact mode; all have a
        constant.
    """

    kernels: Kernels
    exact: int
    basis: ProductBasis | CellBasis
    n_dynamic: int

    @property
    def others(self) -> list[int]:
        """The modes that have a basis."""
        return [n for n in range(len(self.kernels)) if n != self.exact]

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.basis.size

    def rows(self, positions: list[Array], count: int, derivative: int | None = None) -> Array:
        """Values of the products at points, one position (N,) per mode: (N, S); or derivatives."""
        return self.basis.rows([positions[n] for n in self.others], count, self._number(derivative))

    def groups(self, hyper: Hyper) -> tuple[Group, ...]:
        """Constants, and what moves."""
        process = hyper.prior(self.exact, self.kernels[self.exact]).process()
        return Group(Constant(), self.basis.size), Group(process, self.n_dynamic)

    def factor(self, hyper: Hyper, cov: Array) -> Array:
        """Coefficients of the rows from unit coefficients, (S, S + n_dynamic), given ``covariance``."""
        lower, constant = root_of(cov), np.exp(0.5 * hyper.modes[self.exact, 0])
        moving = np.zeros((cov.shape[0], self.n_dynamic))
        moving[: self.n_dynamic] = lower[: self.n_dynamic, : self.n_dynamic]
        return np.hstack([constant * lower, moving])

    def covariance(self, hyper: Hyper) -> Array:
        """Prior covariance (S, S) of the coefficients of the products."""
        cov = np.exp(hyper.scale) * self.basis.coefficient_covariance(self._priors(hyper))
        cov[np.diag_indices_from(cov)] *= 1 + 1e-12
        return cov

    def chain_gradient(self, hyper: Hyper, cov: Array, scores: list[Array], out: Gradient) -> None:
        """Add what follows from the derivatives by the covariances of the two groups."""
        still, moving = scores
        lower, size = root_of(cov), self.n_dynamic
        slope = _unwhiten(lower, still)
        slope[:size, :size] += _unwhiten(lower[:size, :size], moving)
        out.modes[self.exact, 0] += np.trace(still)
        self.gradient(hyper, cov, slope, out)

    def gradient(self, hyper: Hyper, cov: Array, slope: Array, out: Gradient) -> None:
        """Add what follows from the derivative by ``covariance``."""
        out.head[0] += np.sum(slope * cov)
        priors, weight = self._priors(hyper), slope * np.exp(hyper.scale)
        for m, n in enumerate(self.others):
            by_covariance, nodes = self.basis.by_mode(weight, priors, m), self.basis.nodes[m]
            out.modes[n] += mode_gradient(hyper, n, self.kernels[n], nodes, by_covariance)
            out.loadings[n][...] += loading_gradient(hyper, n, nodes, by_covariance)

    def averaged_rows(self, mode: int | None, x: Array) -> Array:
        """Products averaged over the nodes of every mode but ``mode``, at its positions x: (N, S)."""
        return self.basis.averaged_rows(None if mode is None else self.others.index(mode), x)

    def left_out(
        self, positions: list[Array], rows: Array, hyper: Hyper, derivative: int | None = None
    ) -> Array:
        """Prior variance at points that the products kept do not carry, shape (N,); or of a derivative."""
        return np.exp(hyper.scale) * sum(self.missing(positions, rows, hyper, derivative))

    def averaged_left_out(self, mode: int | None, x: Array, rows: Array, hyper: Hyper, along: Array) -> Array:
        """The same of averages over the nodes, given ``averaged_rows`` and the exact mode's part, (N,)."""
        total = self.basis.averaged_variance(self._number(mode), x)
        still = self.basis.missing_variance(rows, total)
        moving = self.basis.missing_variance(rows[:, : self.n_dynamic], total)
        constant = hyper.prior(self.exact, self.kernels[self.exact]).constant
        return np.exp(hyper.scale) * (constant * still + (along - constant) * moving)

    def missing(
        self, positions: list[Array], rows: Array, hyper: Hyper, derivative: int | None = None
    ) -> tuple[Array, Array]:
        """The same without the factor s, in its constant and its moving part; or that of a derivative."""
        others, size = [positions[n] for n in self.others], self.n_dynamic
        total = self.basis.variance(others, rows.shape[0], self._number(derivative))
        exact, x = hyper.prior(self.exact, self.kernels[self.exact]), positions[self.exact]
        gaps = self.basis.missing_variance(rows, total), self.basis.missing_variance(rows[:, :size], total)
        if derivative == self.exact:
            return np.zeros(rows.shape[0]), gaps[1] * exact.slope_variance(x)
        return exact.constant * gaps[0], gaps[1] * (exact.variance(x) - exact.constant)

    def missing_covariance(self, positions: list[Array], rows: Array, hyper: Hyper) -> Array:
        """Prior covariance between points of what the products kept do not carry, shape (N, N)."""
        total = np.ones((rows.shape[0],) * 2)
        for n, prior in zip(self.others, self.basis.priors, strict=True):
            total *= prior.covariance(positions[n], positions[n])
        exact, x = hyper.prior(self.exact, self.kernels[self.exact]), positions[self.exact]
        moving = rows[:, : self.n_dynamic]
        cov = exact.constant * (total - rows @ rows.T)
        cov += (exact.covariance(x, x) - exact.constant) * (total - moving @ moving.T)
        return np.exp(hyper.scale) * cov

    def total(self, positions: list[Array], count: int, hyper: Hyper) -> Array:
        """Prior variance at points, shape (N,)."""
        variance = self.basis.variance([positions[n] for n in self.others], count)
        exact = hyper.prior(self.exact, self.kernels[self.exact])
        return np.exp(hyper.scale) * variance * exact.variance(positions[self.exact])

    def _number(self, mode: int | None) -> int | None:
        return self.others.index(mode) if mode in self.others else None

    def _priors(self, hyper: Hyper) -> tuple[ModePrior, ...]:
        return tuple(hyper.prior(n, self.kernels[n]) for n in self.others)


@dataclass(frozen=True)
class Main:
    """Main effect of a mode that has a basis: a function of its index alone.

    Parameters
    ----------
    mode : int
    kernel : str or None
    basis : ModeBasis
    among : array, shape (U,)
        Positions that an average over the mode counts alike.
    """

    mode: int
    kernel: str | None
    basis: ModeBasis
    among: Array

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.basis.size

    def rows(self, positions: list[Array], count: int, derivative: int | None = None) -> Array:
        """Values of the mode's functions at points, shape (N, K), or derivatives by one mode."""
        if derivative is None:
            return self.basis.rows(positions[self.mode])
        if derivative == self.mode:
            return self.basis.slopes(positions[self.mode])
        return np.zeros((count, self.width))

    def groups(self, hyper: Hyper) -> tuple[Group, ...]:
        """Constants along the exact mode."""
        return (Group(Constant(), self.basis.size),)

    def covariance(self, hyper: Hyper) -> Array:
        """Prior covariance (K, K) of the coefficients."""
        cov = self.basis.coefficient_covariance(hyper.main(self.mode, self.kernel))
        cov[np.diag_indices_from(cov)] *= 1 + 1e-12
        return np.exp(hyper.mains[self.mode, 0]) * cov

    def factor(self, hyper: Hyper, cov: Array) -> Array:
        """Coefficients of the rows from unit coefficients, (K, K)."""
        return root_of(cov)

    def chain_gradient(self, hyper: Hyper, cov: Array, scores: list[Array], out: Gradient) -> None:
        """Add what follows from the derivative by the covariance of the group."""
        slope = _unwhiten(root_of(cov), scores[0])
        out.mains[self.mode, 0] += float(np.trace(scores[0]))
        if self.kernel is None:
            return
        nodes, half = self.basis.nodes, self.basis.half
        weight = half @ slope @ half.T * np.exp(hyper.mains[self.mode, 0])
        for entry in (1, 2) if self.kernel == "oscillator" else (2, 3, 5):
            change = _difference(
                lambda at: at.main(self.mode, self.kernel).covariance(nodes, nodes), hyper, self.mode, entry
            )
            target = out.modes if entry < 4 else out.mains
            target[self.mode, entry % 4] += float(np.sum(weight * change))

    def averaged_rows(self, mode: int | None, x: Array) -> Array:
        """The functions at x for this mode, else their average over ``among``, shape (N, K)."""
        if mode == self.mode:
            return self.basis.rows(x)
        return np.tile(self.basis.rows(self.among).mean(axis=0), (x.size, 1))

    def left_out(
        self, positions: list[Array], rows: Array, hyper: Hyper, derivative: int | None = None
    ) -> Array:
        """Prior variance at points that the functions kept do not carry, shape (N,); or of a derivative."""
        if derivative is None:
            return self._gap(np.ones(rows.shape[0]), rows, hyper)
        if derivative != self.mode:
            return np.zeros(rows.shape[0])
        return self._gap(self.basis.prior.slope_variance(positions[self.mode]), rows, hyper)

    def missing_covariance(self, positions: list[Array], rows: Array, hyper: Hyper) -> Array:
        """The same between points, shape (N, N)."""
        x = positions[self.mode]
        return np.exp(hyper.mains[self.mode, 0]) * (self.basis.prior.covariance(x, x) - rows @ rows.T)

    def averaged_left_out(self, mode: int | None, x: Array, rows: Array, hyper: Hyper, along: Array) -> Array:
        """The same of what ``averaged_rows`` describes, shape (N,)."""
        if mode == self.mode:
            return self._gap(np.ones(x.size), rows, hyper)
        average = self.basis.prior.covariance(self.among, self.among).mean()
        return self._gap(np.full(x.size, average), rows, hyper)

    def _gap(self, variance: Array, rows: Array, hyper: Hyper) -> Array:
        gap = variance - np.einsum("np,np->n", rows, rows)
        return np.exp(hyper.mains[self.mode, 0]) * np.where(gap > 1e-10 * variance, gap, 0.0)


@dataclass(frozen=True)
class Level:
    """Main effect of a continuous exact mode: a process of its own, common to all other indices.

    Parameters
    ----------
    mode : int
    kernel : str
    """

    mode: int
    kernel: str

    @property
    def width(self) -> int:
        """Number of columns."""
        return 1

    def rows(self, positions: list[Array], count: int, derivative: int | None = None) -> Array:
        """One everywhere, shape (N, 1); nothing for a derivative by another mode."""
        return np.full((count, 1), float(derivative in (None, self.mode)))

    def groups(self, hyper: Hyper) -> tuple[Group, ...]:
        """One process."""
        return (Group(hyper.main(self.mode, self.kernel).process(), 1),)

    def covariance(self, hyper: Hyper) -> Array:
        """Its variance, shape (1, 1)."""
        return np.exp(hyper.mains[self.mode, :1])[None]

    def factor(self, hyper: Hyper, cov: Array) -> Array:
        """Its standard deviation, shape (1, 1)."""
        return np.sqrt(cov)

    def chain_gradient(self, hyper: Hyper, cov: Array, scores: list[Array], out: Gradient) -> None:
        """Add the derivative by the logarithm of the variance."""
        out.mains[self.mode, 0] += float(scores[0][0, 0])

    def averaged_rows(self, mode: int | None, x: Array) -> Array:
        """One everywhere, shape (N, 1)."""
        return np.ones((x.size, 1))

    def left_out(
        self, positions: list[Array], rows: Array, hyper: Hyper, derivative: int | None = None
    ) -> Array:
        """Nothing, shape (N,)."""
        return np.zeros(rows.shape[0])

    def missing_covariance(self, positions: list[Array], rows: Array, hyper: Hyper) -> Array:
        """Nothing, shape (N, N)."""
        return np.zeros((rows.shape[0],) * 2)

    def averaged_left_out(self, mode: int | None, x: Array, rows: Array, hyper: Hyper, along: Array) -> Array:
        """Nothing, shape (N,)."""
        return np.zeros(x.size)


@dataclass(frozen=True)
class Cells:
    """Effects of the cells of the other modes, alike in all slices: ``v exp(-sum_n |x_n - z_n| / l_n)``.

    Beside the product, which is smoother, it holds what is particular to a place.

    Parameters
    ----------
    others : tuple of int
        The modes other than the exact one.
    discrete : tuple of bool
        Per one of them.
    nodes : tuple of arrays, shape (U,)
        Positions of the cells.
    reference : Hyper
        Hyperparameters at which values elsewhere are written in terms of those of the cells.
    """

    others: tuple[int, ...]
    discrete: tuple[bool, ...]
    nodes: tuple[Array, ...]
    reference: Hyper

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.nodes[0].size

    def rows(self, positions: list[Array], count: int, derivative: int | None = None) -> Array:
        """Weights of the cells' effects at points, shape (N, U): one cell's own at a cell.

        The effects have no derivative: nothing is said of it.
        """
        if derivative is not None:
            return np.zeros((count, self.width))
        points = np.column_stack([positions[n] for n in self.others])
        distinct, codes = np.unique(points, axis=0, return_inverse=True)
        cross = self._kernel(self.reference, self._distances(tuple(distinct.T), self.nodes))
        return np.linalg.solve(self._unit(self.reference), cross.T).T[codes.reshape(count)]

    def groups(self, hyper: Hyper) -> tuple[Group, ...]:
        """Constants along the exact mode."""
        return (Group(Constant(), self.width),)

    def covariance(self, hyper: Hyper) -> Array:
        """Prior covariance (U, U) of the cells' effects."""
        return np.exp(hyper.cells[0]) * self._unit(hyper)

    def factor(self, hyper: Hyper, cov: Array) -> Array:
        """Effects from unit coefficients, (U, U)."""
        return root_of(cov)

    def chain_gradient(self, hyper: Hyper, cov: Array, scores: list[Array], out: Gradient) -> None:
        """Add what follows from the derivative by the covariance of the group."""
        out.cells[0] += float(np.trace(scores[0]))
        weighted = _unwhiten(root_of(cov), scores[0]) * cov
        for n, gap in zip(self.others, self._distances(self.nodes, self.nodes), strict=True):
            out.cells[1 + n] += float(np.sum(weighted * gap)) * np.exp(-hyper.cells[1 + n])

    def averaged_rows(self, mode: int | None, x: Array) -> Array:
        """Weights averaged over the cells in every mode but ``mode``, at its positions x: (N, U)."""
        count = self.width
        positions = {n: np.tile(part, x.size) for n, part in zip(self.others, self.nodes, strict=True)}
        if mode in positions:
            positions[mode] = np.repeat(x, count)
        points = [positions.get(n, np.zeros(0)) for n in range(max(self.others) + 1)]
        return self.rows(points, x.size * count).reshape(x.size, count, count).mean(axis=1)

    def left_out(
        self, positions: list[Array], rows: Array, hyper: Hyper, derivative: int | None = None
    ) -> Array:
        """Prior variance at points that is not that of the cells' effects, shape (N,)."""
        total = np.full(rows.shape[0], float(derivative is None))
        return self._gap(total, rows, hyper)

    def missing_covariance(self, positions: list[Array], rows: Array, hyper: Hyper) -> Array:
        """The same between points, shape (N, N)."""
        points = [positions[n] for n in self.others]
        total = self._kernel(hyper, self._distances(points, points))
        return np.exp(hyper.cells[0]) * (total - rows @ self._unit(hyper) @ rows.T)

    def averaged_left_out(self, mode: int | None, x: Array, rows: Array, hyper: Hyper, along: Array) -> Array:
        """The same of what ``averaged_rows`` describes, shape (N,)."""
        parts = self._distances(self.nodes, self.nodes)
        shared = [gap if n != mode else 0 * gap for n, gap in zip(self.others, parts, strict=True)]
        average = self._kernel(hyper, shared).mean()
        return self._gap(np.full(x.size, average), rows, hyper)

    def _gap(self, variance: Array, rows: Array, hyper: Hyper) -> Array:
        gap = variance - np.einsum("nu,uv,nv->n", rows, self._unit(hyper), rows)
        return np.exp(hyper.cells[0]) * np.where(gap > 1e-10, gap, 0.0)

    def _unit(self, hyper: Hyper) -> Array:
        cov = self._kernel(hyper, self._distances(self.nodes, self.nodes))
        cov[np.diag_indices_from(cov)] *= 1 + 1e-12
        return cov

    def _kernel(self, hyper: Hyper, distances: list[Array]) -> Array:
        return np.exp(
            -sum(np.exp(-hyper.cells[1 + n]) * d for n, d in zip(self.others, distances, strict=True))
        )

    def _distances(self, points: Sequence[Array], others: Sequence[Array]) -> list[Array]:
        """From points to others, per mode, shape (N, M)."""
        parts = zip(points, others, self.discrete, strict=True)
        return [distance(x[None], z[None], flag)[0] for x, z, flag in parts]


Term = Product | Main | Level | Cells


def root_of(cov: Array) -> Array:
    """Cholesky factor of a covariance that rounding may have left indefinite, with the least jitter.

    Coefficients of functions that are a rounding error of the largest keep few digits when hyperparameters
    move: far from where a basis was made, 1e-6 of the trace may be wrong, in what hardly shows in f.
    """
    for jitter in (0.0, 1e-14, 1e-12, 1e-10, 1e-8, 1e-6):
        try:
            return np.linalg.cholesky(cov + jitter * np.trace(cov) * np.eye(cov.shape[0]))
        except np.linalg.LinAlgError:
            continue
    return np.linalg.cholesky(cov + 1e-4 * np.trace(cov) * np.eye(cov.shape[0]))


def _unwhiten(lower: Array, slope: Array) -> Array:
    """Derivative by ``lower @ lower.T`` from that by the identity in whitened coordinates."""
    half = np.linalg.solve(lower.T, slope)
    return np.linalg.solve(lower.T, half.T)


def _difference(covariance: Callable[[Hyper], Array], hyper: Hyper, mode: int, entry: int) -> Array:
    """Derivative of a covariance matrix by one number of one mode."""
    above, below = (covariance(hyper.moved(mode, entry, sign * STEP)) for sign in (1, -1))
    return (above - below) / (2 * STEP)


def mode_gradient(
    hyper: Hyper, n: int, kernel: str | None, nodes: Array, by_covariance: Array
) -> list[float]:
    """Derivatives by the numbers of one mode, from that by its covariance (M, M) on the nodes."""
    gradient = [0.0] * 4
    for entry in range(1 if kernel is None else 4):
        change = _difference(lambda at: at.prior(n, kernel).covariance(nodes, nodes), hyper, n, entry)
        gradient[entry] = float(np.sum(by_covariance * change))
    return gradient


def loading_gradient(hyper: Hyper, n: int, nodes: Array, by_covariance: Array) -> Array:
    """Derivatives by the loadings of one mode, from that by its covariance between nodes."""
    loadings = hyper.loadings[n]
    if loadings.shape[1] == 0:
        return np.zeros_like(loadings)
    member = np.eye(loadings.shape[0])[nodes.astype(int)]
    return 2 * member.T @ (by_covariance @ loadings[nodes.astype(int)])
