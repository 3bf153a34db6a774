"""Distance of evidence, gradients and predictions from dense Gaussian formulas, on up to 300 random rows.

Two levels: the state space of one mode, and the whole estimator. Places are those observed, between them,
and beyond both ends. The dense side is that of the tests: Bessel functions and N x N matrices.
"""

from __future__ import annotations

import warnings

import numpy as np

from tenfac import FunctionalTucker
from tenfac.bayes.exact.filter import filter_smooth
from tenfac.bayes.exact.sites import Sites
from tenfac.core.modes.state_space import StateSpace
from tests.bayes.toys import scaled, twin
from tests.oracles import matern_dense

SMOOTHNESS = {"matern12": 0.5, "matern32": 1.5, "matern52": 2.5}
Errors = dict[str, float]


def state_space(kernel: str, count: int, seed: int) -> Errors:
    """One process at irregular, partly repeated places: evidence, its gradient, mean and variance."""
    rng = np.random.default_rng([seed, count])
    length, noise = rng.uniform(0.05, 0.5), rng.uniform(0.01, 0.3)
    x = rng.choice(np.sort(rng.random(max(count - count // 5, 2))), count)
    y = np.sin(6 * x) + np.sqrt(noise) * rng.normal(size=count)
    at = np.concatenate([x[:50], rng.uniform(-1, 2, 100), [-30.0, 30.0]])
    found = filter_smooth(StateSpace(kernel, length), x, Sites.from_observations(y, noise))

    def cov(a: np.ndarray, b: np.ndarray, length: float = length) -> np.ndarray:
        return matern_dense(a, b, SMOOTHNESS[kernel], length)

    total = cov(x, x) + noise * np.eye(count)
    gain = np.linalg.solve(total, cov(x, at)).T
    evidence = -0.5 * (
        y @ np.linalg.solve(total, y) + np.linalg.slogdet(total)[1] + count * np.log(2 * np.pi)
    )
    mean, variance = found.at(at)
    dense = 1 - np.einsum("ij,ij->i", gain, cov(at, x))
    step = 1e-3 * length
    near, far = (cov(x, x, length + n * step) - cov(x, x, length - n * step) for n in (1, 2))
    slope = (8 * near - far) / (12 * step)  # central difference of fourth order
    solved = np.linalg.solve(total, y)
    by_length = 0.5 * float(solved @ slope @ solved - np.trace(np.linalg.solve(total, slope)))
    return {
        "evidence, relative": abs(float(found.log_evidence) - evidence) / abs(evidence),
        "gradient by lengthscale, relative": _gradient_error(kernel, length, x, y, noise, by_length),
        "mean": float(np.abs(mean - gain @ y).max()),
        "variance": float(np.abs(variance - dense).max()),
        "least variance": float(variance.min()),
    }


def _gradient_error(
    kernel: str, length: float, x: np.ndarray, y: np.ndarray, noise: float, want: float
) -> float:
    """Error of torch's derivative by the lengthscale; the dense one differentiates the covariance."""
    import torch

    free = torch.tensor(length, dtype=torch.float64, requires_grad=True)
    sites = Sites.from_observations(torch.as_tensor(y), noise)
    filter_smooth(StateSpace(kernel, free), torch.as_tensor(x), sites).log_evidence.backward()
    return abs(float(free.grad) - want) / (1 + abs(want))


def estimator(kernel: str, ndim: int, count: int, settings: dict[str, int]) -> Errors:
    """A fit of few iterations against the dense process at the hyperparameters it reached."""
    rng = np.random.default_rng([ndim, count])
    grids = [np.sort(rng.random(size)) for size in (max(count // 4, 2), 8, 5)[:ndim]]
    X = np.stack([grid[rng.integers(0, grid.size, count)] for grid in grids], axis=1)
    y = 3 + np.sin(5 * X.sum(axis=1)) + 0.2 * rng.normal(size=count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = FunctionalTucker(kernel=kernel, max_iter=5, **settings).fit(X, y)
    new = np.concatenate([X[:40], rng.uniform(-1, 2, (80, ndim)), np.full((1, ndim), -30.0)])
    mean, std = model.predict(new, return_std=True)
    spread, dense, points = float(y.std()), twin(model), scaled(model, list(X.T))
    z, at = (y - y.mean()) / spread, scaled(model, list(new.T))
    want, cov = dense.predict(points, z, at)
    evidence = dense.log_evidence(points, z) - y.size * np.log(spread)
    prior = np.sqrt(float(dense.covariance([a[:1] for a in at], [a[:1] for a in at])[0, 0]))
    return {
        "evidence, relative": abs(model.log_evidence_ - evidence) / abs(evidence),
        "mean": float(np.abs((mean - y.mean()) / spread - want).max() / prior),
        "std": float(np.abs(std / spread - np.sqrt(np.clip(np.diag(cov), 0, None))).max() / prior),
        "least variance": float((std / spread).min() ** 2),
    }


def worst(rows: list[Errors]) -> Errors:
    """Largest errors, least variances."""
    return {key: (min if key.startswith("least") else max)(row[key] for row in rows) for key in rows[0]}


def run() -> dict[str, Errors]:
    """Worst errors per kernel; the estimator with every function kept, and with as many as it keeps alone."""
    offers = "max_functions" in FunctionalTucker().get_params()
    every = {"max_functions": 400} if offers else {}
    tables = [(ndim, count) for ndim in (1, 2, 3) for count in (30, 100, 300)]
    out = {}
    for kernel in SMOOTHNESS:
        rows = [state_space(kernel, count, seed) for seed in range(3) for count in (1, 20, 100, 300)]
        out[f"state space, {kernel}"] = worst(rows)
        out[f"estimator, {kernel}"] = worst([estimator(kernel, *size, every) for size in tables])
        if every:
            row = worst([estimator(kernel, *size, {}) for size in tables])
            out[f"functions by default, {kernel}"] = row
    for name, row in out.items():
        print(f"accuracy  {name:32} " + ", ".join(f"{key} {value:.1e}" for key, value in row.items()))
    return out
