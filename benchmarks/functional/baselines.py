"""What a user would reach for first: slice mean, neighbors, boosting, a sparse Gaussian process.

Every method takes a fold and returns the mean at the scored rows and a standard deviation, one number or one
per row, or None where the method has none.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from benchmarks.functional.data import SLICE, Fold

Answer = tuple[np.ndarray, "np.ndarray | float | None"]
COUNTS = (1, 2, 3, 5, 8, 12, 20)
SCALES = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)


def slice_mean(fold: Fold) -> Answer:
    """Mean of the training rows of the same index, shrunk to the mean of all where there are few.

    The shrinkage is that of variances within and between slices; the deviation is that of leaving one out.
    """
    (X, y), (new, _) = fold.train, fold.scored
    index, code = np.unique(X[:, SLICE], return_inverse=True)
    count, total = np.bincount(code), np.bincount(code, y)
    means = total / count
    within = np.sum((y - means[code]) ** 2) / max(y.size - index.size, 1)
    between = max(float(np.var(means) - np.mean(within / count)), 1e-12)
    shrink = within / between
    place = np.minimum(np.searchsorted(index, new[:, SLICE]), index.size - 1)
    seen = index[place] == new[:, SLICE]
    shrunk = (total + shrink * y.mean()) / (count + shrink)
    left = (total[code] - y + shrink * y.mean()) / (count[code] - 1 + shrink)
    return np.where(seen, shrunk[place], y.mean()), float(np.sqrt(np.mean((y - left) ** 2)))


def neighbors(fold: Fold) -> Answer:
    """Nearest rows weighted by inverse distance; scale of the longest mode and number by 3-fold CV."""
    (X, y), (new, _) = fold.train, fold.scored
    part = np.random.default_rng(0).integers(0, 3, y.size)
    losses = {}
    for scale in SCALES:
        stretch = np.ones(X.shape[1])
        stretch[SLICE] = scale
        errors = np.zeros((len(COUNTS), y.size))
        for held in range(3):
            own = part == held
            guess = _weighted(X[~own] * stretch, y[~own], X[own] * stretch)
            errors[:, own] = guess - y[own]
        for count, error in zip(COUNTS, errors, strict=True):
            losses[scale, count] = float(np.mean(error**2))
    scale, count = min(losses, key=losses.__getitem__)
    stretch = np.ones(X.shape[1])
    stretch[SLICE] = scale
    mean = _weighted(X * stretch, y, new * stretch)[COUNTS.index(count)]
    return mean, float(np.sqrt(losses[scale, count]))


def _weighted(X: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Guesses for every number of neighbors, shape (len(COUNTS), M)."""
    far, near = cKDTree(X).query(new, k=COUNTS[-1])
    weight = 1 / np.maximum(far, 1e-9)
    sums, weights = np.cumsum(weight * y[near], axis=1), np.cumsum(weight, axis=1)
    return (sums / weights)[:, np.array(COUNTS) - 1].T


def nearest_cells(fold: Fold) -> Answer:
    """Same year at the nearest cells, by inverse distance; scale of latitude and number by leaving cells out.

    The year's mean where no cell was seen that year.
    """
    (X, y), (new, _) = fold.train, fold.scored
    places, cell = np.unique(X[:, :2], axis=0, return_inverse=True)
    goals, goal = np.unique(new[:, :2], axis=0, return_inverse=True)
    years, year = np.unique(np.concatenate([X[:, SLICE], new[:, SLICE]]), return_inverse=True)
    table = np.full((places.shape[0], years.size), np.nan)
    table[cell, year[: y.size]] = y
    losses = {}
    for scale in (0.1, 0.3, 1, 3, 10):
        for count in COUNTS[:6]:
            guess = _from_cells(places * [scale, 1], table, places * [scale, 1], count)
            losses[scale, count] = float(np.mean((guess[cell, year[: y.size]] - y) ** 2))
    scale, count = min(losses, key=losses.__getitem__)
    guess = _from_cells(places * [scale, 1], table, goals * [scale, 1], count)
    return guess[goal, year[y.size :]], float(np.sqrt(losses[scale, count]))


def _from_cells(places: np.ndarray, table: np.ndarray, goals: np.ndarray, count: int) -> np.ndarray:
    """Every year at every goal, shape (goals, years), from other places than the goal itself."""
    out = np.empty((goals.shape[0], table.shape[1]))
    level = np.nanmean(table)
    for row, goal in zip(out, goals, strict=True):
        far = np.sqrt(np.sum((places - goal) ** 2, axis=1))
        order = np.argsort(far)[int(far.min() == 0) :]
        seen = ~np.isnan(table[order])
        kept = seen & (np.cumsum(seen, axis=0) <= count)
        weight = kept / np.maximum(far[order], 1e-9)[:, None]
        total = weight.sum(axis=0)
        values = np.where(kept, table[order], 0.0)
        row[:] = np.where(total > 0, np.sum(weight * values, axis=0) / np.where(total > 0, total, 1), level)
    return out


def boosting(fold: Fold) -> Answer:
    """scikit-learn's histogram gradient boosting as it comes."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        return HistGradientBoostingRegressor(random_state=0).fit(*fold.train).predict(fold.scored[0]), None


def sparse_gp(fold: Fold, seconds: float, inducing: int = 500) -> Answer:
    """GPyTorch's stochastic variational GP: Matérn-3/2 with one lengthscale per mode, stopped at a time."""
    import gpytorch
    import torch

    stop = time.process_time() + seconds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    (X, y), (new, _) = fold.train, fold.scored
    low, span, level, spread = X.min(0), np.ptp(X, axis=0), y.mean(), y.std()
    x = torch.as_tensor((X - low) / span, dtype=torch.float32)
    z = torch.as_tensor((y - level) / spread, dtype=torch.float32)
    model = _svgp(x[torch.randperm(x.shape[0])[:inducing]])
    likelihood = gpytorch.likelihoods.GaussianLikelihood()
    bound = gpytorch.mlls.VariationalELBO(likelihood, model, num_data=z.numel())
    adam = torch.optim.Adam([*model.parameters(), *likelihood.parameters()], lr=0.02)
    while time.process_time() < stop:
        for rows in torch.randperm(z.numel()).split(1024):
            adam.zero_grad()
            (-bound(model(x[rows]), z[rows])).backward()
            adam.step()
            if time.process_time() >= stop:
                break
    model.eval()
    likelihood.eval()
    with torch.no_grad():
        found = likelihood(model(torch.as_tensor((new - low) / span, dtype=torch.float32)))
        return level + spread * found.mean.double().numpy(), spread * found.stddev.double().numpy()


def _svgp(inducing: Any) -> Any:
    import gpytorch

    class Model(gpytorch.models.ApproximateGP):
        def __init__(self) -> None:
            size, dims = inducing.shape
            inner = gpytorch.variational.CholeskyVariationalDistribution(size)
            super().__init__(gpytorch.variational.VariationalStrategy(self, inducing, inner))
            self.mean_module = gpytorch.means.ConstantMean()
            kernel = gpytorch.kernels.MaternKernel(nu=1.5, ard_num_dims=dims)
            self.covar_module = gpytorch.kernels.ScaleKernel(kernel)

        def forward(self, x: Any) -> Any:
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    return Model()
