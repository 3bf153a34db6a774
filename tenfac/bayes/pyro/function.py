"""The draws of the Pyro program as a function over scaled positions, for the estimator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfac.bayes.fitted import MarginalsOnly
from tenfac.bayes.pyro.posterior import PyroPosterior, conditional
from tenfac.bayes.pyro.prior import TorchHyper, one_thread, tensor

Array = NDArray[Any]
Cross = Callable[[TorchHyper], tuple[Tensor, Tensor]]
_LAST = 5  # parts of the history of SVI whose average is the bound
_ROWS = 4096  # rows at a time


@dataclass(frozen=True, eq=False)
class PyroFunction(MarginalsOnly):
    """Averages over the draws of the hyperparameters; what is Gaussian given a draw is exact.

    Parameters
    ----------
    posterior : PyroPosterior
        Of a program whose function was integrated out, without terms beside the product.
    inference : {"svi", "nuts"}
    """

    posterior: PyroPosterior
    inference: str

    @property
    def log_evidence(self) -> float | None:
        """The bound of SVI; None after NUTS."""
        history = self.posterior.info.history
        return float(np.mean(history[-_LAST:])) if history else None

    def at(
        self,
        positions: list[Array],
        with_variance: bool = True,  # noqa: ARG002 (the variance costs nothing more)
    ) -> tuple[Array, Array, Array]:
        """Mean, variance of f, variance of an observation at N points; all three come in one pass."""
        model, points = self.posterior.model, np.column_stack(positions)
        observed, parts = tensor(model.points), []
        for start in range(0, points.shape[0], _ROWS):
            x = tensor(points[start : start + _ROWS])

            def between(hyper: TorchHyper, x: Tensor = x) -> tuple[Tensor, Tensor]:
                return model.dense.covariance(hyper, observed, x), model.dense.variance(hyper, x)

            parts.append(self._moments(between))
        mean, variance = (np.concatenate(part) for part in zip(*parts, strict=True))
        return mean, variance, variance + self._noise

    def marginal(self, mode: int, x: Array) -> tuple[Array, Array]:
        """Mean and variance of the average of f over all modes but one, at positions ``x`` (N,)."""
        model = self.posterior.model
        observed, x = tensor(model.points), tensor(x)
        grids = [tensor(index.positions(index.values)) for index in model.modes]

        def between(hyper: TorchHyper) -> tuple[Tensor, Tensor]:
            cross, variance = hyper.scale.exp(), hyper.scale.exp()
            for n, kernel in enumerate(model.dense.kernels):
                at = observed[:, n]
                if n == mode:
                    cross = cross * kernel.covariance(hyper, n, at, x)
                    variance = variance * kernel.variance(hyper, n, x)
                else:
                    cross = cross * kernel.covariance(hyper, n, at, grids[n]).mean(dim=1)[:, None]
                    variance = variance * kernel.covariance(hyper, n, grids[n], grids[n]).mean()
            return cross, variance

        return self._moments(between)

    def sample(  # type: ignore[override]  # the base class refuses whatever is asked
        self, positions: list[Array], n: int, rng: np.random.Generator, include_noise: bool = False
    ) -> Array:
        """Joint draws of f (or of new observations) at N points, shape (n, N).

        ``O(N^3)`` per draw of the hyperparameters that occurs among them.
        """
        model, points = self.posterior.model, tensor(np.column_stack(positions))
        theta = self.posterior.theta.reshape(-1, self.posterior.theta.shape[-1])
        chosen = rng.integers(theta.shape[0], size=n)
        out = rng.normal(size=(n, points.shape[0]))
        with one_thread():
            for draw in np.unique(chosen):
                own, hyper = chosen == draw, model.hyper_of(theta[draw])
                mean, cov = conditional(model, hyper, points, None)
                values, vectors = np.linalg.eigh(cov.numpy())
                root = vectors * np.sqrt(np.maximum(values, 0.0))
                out[own] = mean.numpy() + out[own] @ root.T
                if include_noise:
                    noise = np.sqrt(model.noise_at(hyper, points).numpy())
                    out[own] += noise * rng.normal(size=out[own].shape)
        return out

    @cached_property
    def _noise(self) -> float:
        return float(np.exp(self.posterior.theta[..., 1]).mean())

    def _draws(self) -> Iterator[tuple[TorchHyper, Tensor]]:
        """Hyperparameters, and a factor of the covariance of the observed averages."""
        model = self.posterior.model
        observed = tensor(model.points)
        for theta in self.posterior.theta.reshape(-1, self.posterior.theta.shape[-1]):
            hyper = model.hyper_of(theta)
            cov = model.dense.covariance(hyper, observed, observed)
            yield hyper, torch.linalg.cholesky(cov + torch.diag(model.noise_of_means(hyper)))

    def _moments(self, between: Cross) -> tuple[Array, Array]:
        """Mean and variance over all draws of a linear function of f, by its covariance with f observed."""
        means = tensor(self.posterior.model.observations.means)[:, None]
        count = 0
        mean: Any = 0.0
        square: Any = 0.0
        spread: Any = 0.0
        with torch.no_grad(), one_thread():
            for hyper, factor in self._draws():
                cross, variance = between(hyper)
                both = torch.linalg.solve_triangular(factor, torch.cat([cross, means], dim=1), upper=False)
                gain, white = both[:, :-1], both[:, -1]
                own = (white @ gain).numpy()
                count += 1
                step = own - mean
                mean = mean + step / count
                square = square + step * (own - mean)
                spread = spread + (variance - gain.square().sum(dim=0)).clamp(min=0.0).numpy()
        return mean, (square + spread) / count
