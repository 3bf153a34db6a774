"""Dense, slow, obvious answers in numpy float64 (or complex128); never the code under test."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any

import numpy as np
from scipy.special import gamma, kv

from tests.checks import to_numpy

_LETTERS = "abcdefghijklm"
_RANKS = "nopqrstuvwxyz"


def _wide(array: Any) -> np.ndarray:
    array = to_numpy(array)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def product_work(order: Sequence[int], before: Sequence[int], after: Sequence[int]) -> int:
    """Multiplications of mode products that take a tensor from one shape to another in an order."""
    shape, total = list(before), 0
    for n in order:
        total += int(np.prod(shape)) * after[n]
        shape[n] = after[n]
    return total


def least_product_work(before: Sequence[int], after: Sequence[int]) -> int:
    """The same in the best of all orders."""
    orders = itertools.permutations(range(len(before)))
    return min(product_work(order, before, after) for order in orders)


def tucker_dense(core: Any, factors: Sequence[Any]) -> np.ndarray:
    """``X[i, j, ...] = sum_{p, q, ...} G[p, q, ...] A[i, p] B[j, q] ...`` by one einsum."""
    d = len(factors)
    terms = [_RANKS[:d], *(_LETTERS[n] + _RANKS[n] for n in range(d))]
    return np.einsum(f"{','.join(terms)}->{_LETTERS[:d]}", _wide(core), *map(_wide, factors), optimize=True)


def cp_dense(weights: Any, factors: Sequence[Any]) -> np.ndarray:
    """``X[i, j, ...] = sum_r w[r] A[i, r] B[j, r] ...`` by a loop over ``r``."""
    factors = [_wide(factor) for factor in factors]
    weights = np.ones(factors[0].shape[1]) if weights is None else _wide(weights)
    return sum(w * reduce(np.multiply.outer, [f[:, r] for f in factors]) for r, w in enumerate(weights))


def train_dense(cores: Sequence[Any], factors: Sequence[Any]) -> np.ndarray:
    """``X[i, j, ...] = sum G_0[0, p, a] A[i, p] G_1[a, q, b] B[j, q] ...`` by one einsum."""
    d, numbers = len(factors), []
    for n, (core, factor) in enumerate(zip(cores, factors, strict=True)):
        bonds = [2 * d + n, d + n, 2 * d + n + 1]
        numbers += [_wide(core), bonds, _wide(factor), [n, d + n]]
    dense = np.einsum(*numbers, [2 * d, *range(d), 3 * d], optimize=True)
    return dense[0, ..., 0]


def format_dense(t: Any) -> np.ndarray:
    """Every entry of a Tucker, TuckerTrain or CP tensor."""
    first, factors = t
    dense = cp_dense if hasattr(t, "weights") else tucker_dense if hasattr(t, "core") else train_dense
    return dense(first, factors)


def true_error(t: Any, tensor: Any) -> float:
    """Relative error of a Tucker or CP tensor, entry by entry; 0 where a zero tensor is exact."""
    tensor = _wide(tensor)
    lost, norm = np.linalg.norm(format_dense(t) - tensor), np.linalg.norm(tensor)
    return float(lost / norm) if lost else 0.0


def smooth(n: int = 30) -> np.ndarray:
    """Cube whose unfoldings have singular values that fall by about ten a step, down to rounding."""
    x = np.linspace(0, 1, n)
    return 1 / (x[:, None, None] + x[:, None] + x + 0.05)


def with_noise(tensor: Any, noise: float, rng: np.random.Generator) -> np.ndarray:
    """The tensor plus normal noise of this share of its norm."""
    drawn = rng.standard_normal(tensor.shape)
    return tensor + noise * np.linalg.norm(tensor) / np.linalg.norm(drawn) * drawn


def kron_all(matrices: Sequence[Any]) -> np.ndarray:
    """``A_0 (x) A_1 (x) ...`` by ``np.kron``, first mode first."""
    return reduce(np.kron, [_wide(matrix) for matrix in matrices])


def khatri_rao_dense(matrices: Sequence[Any]) -> np.ndarray:
    """Column-wise Kronecker product, one ``np.kron`` per column."""
    matrices = [_wide(matrix) for matrix in matrices]
    columns = [reduce(np.kron, [m[:, r] for m in matrices]) for r in range(matrices[0].shape[1])]
    return np.stack(columns, axis=1)


def mode_product_dense(tensor: Any, matrix: Any, mode: int) -> np.ndarray:
    """``Y[..., j, ...] = sum_i M[j, i] X[..., i, ...]`` by einsum."""
    tensor = _wide(tensor)
    letters = _LETTERS[: tensor.ndim]
    out = letters.replace(letters[mode], "z")
    return np.einsum(f"{letters},z{letters[mode]}->{out}", tensor, _wide(matrix))


def best_rank_by_mode(tensor: Any, tol: float) -> tuple[int, ...]:
    """Smallest rank of each unfolding with relative error ``<= tol`` in that mode alone, by a full SVD."""
    tensor = _wide(tensor)
    ranks = []
    for n in range(tensor.ndim):
        s = np.linalg.svd(np.moveaxis(tensor, n, 0).reshape(tensor.shape[n], -1), compute_uv=False)
        tails = np.sqrt(np.cumsum(s[::-1] ** 2))[::-1]
        ranks.append(int(np.sum(tails > tol * np.linalg.norm(s))))
    return tuple(ranks)


# --- Gaussian processes -----------------------------------------------------------------------------------


def matern_dense(x: Any, z: Any, smoothness: float, lengthscale: float) -> np.ndarray:
    """Matérn correlation by its Bessel function, any smoothness (Rasmussen and Williams, equation 4.14)."""
    r = np.sqrt(2 * smoothness) * np.abs(np.subtract.outer(_wide(x), _wide(z))) / lengthscale
    far = np.where(r > 0, r, 1.0)
    values = 2 ** (1 - smoothness) / gamma(smoothness) * far**smoothness * kv(smoothness, far)
    return np.where(r > 0, values, 1.0)


@cache
def _gauss(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss-Legendre quadrature on 0 to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2


def bent_axis(x: Any, sharpness: float, center: float) -> np.ndarray:
    """The axis whose density is ``1 / sqrt(1 + (sharpness (x - center))^2)`` in 0 to 1, normalised, and
    goes on at the density of the nearer end, by Gauss-Legendre quadrature from 0 to every point."""
    nodes, weights = _gauss(400)

    def density(u: np.ndarray) -> np.ndarray:
        return 1 / np.sqrt(1 + (sharpness * (u - center)) ** 2)

    x = _wide(x)
    inside = np.clip(x, 0, 1)
    area = inside * (density(np.multiply.outer(inside, nodes)) @ weights)
    return (area + (x - inside) * density(inside)) / (density(nodes) @ weights)


def swing_dense(x: Any, z: Any, period: float, quality: float) -> np.ndarray:
    """Covariance of a damped oscillator, from the two complex roots of its equation."""
    root = complex(-0.5 / quality, np.sqrt(1 - 0.25 / quality**2)) * 2 * np.pi / period
    weight = 0.5 * (1 - 1j * root.real / -root.imag)
    return 2 * np.real(weight * np.exp(root * np.abs(np.subtract.outer(x, z))))


@dataclass(frozen=True)
class DenseMode:
    """``constant + k(w(x), w(z))`` of one mode: Matérn of this smoothness, or free levels if it is None.

    Or an oscillator on a straight axis, of period ``lengthscale``.
    """

    smoothness: float | str | None
    constant: float
    lengthscale: float = 1.0
    sharpness: float = 1.0
    center: float = 0.5
    loadings: Any = None

    def covariance(self, x: Any, z: Any) -> np.ndarray:
        if self.smoothness is None:
            alike = self.constant + np.equal.outer(x, z).astype(float)
            for column in [] if self.loadings is None else np.asarray(self.loadings).T:
                alike = alike + np.multiply.outer(column[np.asarray(x, int)], column[np.asarray(z, int)])
            return alike
        if self.smoothness == "oscillator":
            return self.constant + swing_dense(x, z, self.lengthscale, 0.5 + 8 * self.sharpness)
        (x, i), (z, j) = (np.unique(points, return_inverse=True) for points in (x, z))
        bent = [bent_axis(points, self.sharpness, self.center) for points in (x, z)]
        return (self.constant + matern_dense(*bent, self.smoothness, self.lengthscale))[np.ix_(i, j)]


@dataclass(frozen=True)
class DenseDecay:
    """``v exp(-sum_n d_n / l_n)`` over all modes but one; d is a distance, or whether two labels differ."""

    variance: float
    lengthscales: tuple[float, ...]
    discrete: tuple[bool, ...]
    without: int

    def covariance(self, a: Sequence[Any], b: Sequence[Any]) -> np.ndarray:
        out = np.full((len(a[0]), len(b[0])), self.variance)
        for n, (x, z) in enumerate(zip(a, b, strict=True)):
            gap = np.abs(np.subtract.outer(x, z))
            if n != self.without:
                out = out * np.exp(-(np.sign(gap) if self.discrete[n] else gap) / self.lengthscales[n])
        return out


@dataclass(frozen=True)
class DenseLearned:
    """A decay, of which a share at the nodes (one array per mode) is another covariance."""

    decay: DenseDecay
    nodes: tuple[Any, ...]
    values: Any
    share: float

    @property
    def without(self) -> int:
        return self.decay.without

    def covariance(self, a: Sequence[Any], b: Sequence[Any]) -> np.ndarray:
        among = self.decay.covariance(self.nodes, self.nodes)
        left, right = (np.linalg.solve(among, self.decay.covariance(self.nodes, x)).T for x in (a, b))
        new = self.decay.covariance(a, b) - left @ among @ right.T  # given the nodes
        return new + left @ ((1 - self.share) * among + self.share * self.values) @ right.T


@dataclass(frozen=True)
class DenseGP:
    """Gaussian process with covariance ``s prod_n (c_n + k_n)``, seen with Gaussian noise; N x N matrices.

    Points are lists of one array per mode. A weight is a number of repeats: the rows are repeated. Beside the
    product there may be main effects ``(variance, mode)``, an effect of cells, and a residual drawn anew at
    every index of mode ``residual.without``; it and the noise have standard deviations ``spread`` (pairs of
    index and factor) there. ``precision`` is that of every observed row.
    """

    scale: float
    noise_variance: float
    modes: tuple[DenseMode, ...]
    mains: tuple[tuple[float, DenseMode], ...] = ()
    cells: DenseDecay | None = None
    residual: DenseDecay | DenseLearned | None = None
    spread: tuple[tuple[float, float], ...] = ()
    precision: Any = 1.0

    def covariance(self, a: Sequence[Any], b: Sequence[Any]) -> np.ndarray:
        return self.shared(a, b) + self.within(a, b)

    def shared(self, a: Sequence[Any], b: Sequence[Any]) -> np.ndarray:
        """Covariance of what is no residual."""
        parts = [mode.covariance(x, z) for mode, x, z in zip(self.modes, a, b, strict=True)]
        out = self.scale * reduce(np.multiply, parts)
        for n, (variance, mode) in enumerate(self.mains):
            out = out + variance * mode.covariance(a[n], b[n])
        return out if self.cells is None else out + self.cells.covariance(a, b)

    def within(self, a: Sequence[Any], b: Sequence[Any]) -> np.ndarray:
        """Covariance of the residual."""
        if self.residual is None:
            return np.zeros((len(a[0]), len(b[0])))
        same = np.equal.outer(a[self.residual.without], b[self.residual.without])
        return np.outer(self.spreads(a), self.spreads(b)) * same * self.residual.covariance(a, b)

    def spreads(self, points: Sequence[Any]) -> np.ndarray:
        """Standard deviation of noise and residual relative to the usual."""
        if self.residual is None:
            return np.ones(len(points[0]))
        known = dict(self.spread)
        return np.array([known.get(float(t), 1.0) for t in points[self.residual.without]])

    def observed(self, points: Sequence[Any]) -> np.ndarray:
        """Covariance of noisy observations."""
        noise = self.noise_variance * self.spreads(points) ** 2 / self.precision
        return self.covariance(points, points) + np.diag(noise)

    def log_evidence(self, points: Sequence[Any], y: Any) -> float:
        cov = self.observed(points)
        fit = y @ np.linalg.solve(cov, y)
        return -0.5 * float(fit + np.linalg.slogdet(cov)[1] + len(y) * np.log(2 * np.pi))

    def predict(self, points: Sequence[Any], y: Any, at: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean (N,) and covariance (N, N) of the function."""
        cross = self.covariance(at, points)
        gain = np.linalg.solve(self.observed(points), cross.T).T
        return gain @ y, self.covariance(at, at) - gain @ cross.T

    def predict_shared(
        self, points: Sequence[Any], y: Any, at: Sequence[Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same of the function without its residual."""
        cross = self.shared(at, points)
        gain = np.linalg.solve(self.observed(points), cross.T).T
        return gain @ y, self.shared(at, at) - gain @ cross.T

    def marginal(
        self, points: Sequence[Any], y: Any, mode: int, x: Any, grids: Sequence[Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the average of the function over the grids of all modes but one."""
        axes = [x if n == mode else grid for n, grid in enumerate(grids)]
        mesh = [part.ravel() for part in np.meshgrid(*axes, indexing="ij")]
        mean, cov = self.predict(points, y, mesh)
        others = tuple(n for n in range(len(grids)) if n != mode)
        shape = tuple(len(axis) for axis in axes)
        both = others + tuple(len(shape) + n for n in others)
        return mean.reshape(shape).mean(axis=others), np.diag(cov.reshape(shape * 2).mean(axis=both))
