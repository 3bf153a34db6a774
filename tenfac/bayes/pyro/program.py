"""The generative model of ``FunctionalTucker`` as a Pyro program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfac.bayes.collapsed.hyper import Hyper, hyperprior
from tenfac.bayes.columns import ModeIndex
from tenfac.bayes.likelihoods.response import Response
from tenfac.bayes.pyro.prior import DensePrior, StatePrior, TorchHyper, tensor

Array = NDArray[Any]


@dataclass(frozen=True)
class Observations:
    """What was observed, on the scale on which f is Gaussian, and its summary by distinct points.

    Parameters
    ----------
    columns : tuple of D arrays, shape (N,)
        Indices as the user gave them.
    y, latent, weights : arrays, shape (N,)
        Values, values on the Gaussian scale, numbers of repeats.
    points : array, shape (U, D)
        Distinct points, scaled.
    codes : array of int, shape (N,)
        The point of every row.
    """

    columns: tuple[NDArray[np.generic], ...]
    y: Array
    latent: Array
    weights: Array
    points: Array
    codes: NDArray[np.intp]

    @property
    def counts(self) -> Array:
        """Repeats of every distinct point, shape (U,)."""
        return np.bincount(self.codes, self.weights)

    @property
    def means(self) -> Array:
        """Average latent value at every distinct point, shape (U,)."""
        return np.bincount(self.codes, self.weights * self.latent) / self.counts

    @property
    def scatter(self) -> Array:
        """Weighted sum of squares around the average of every distinct point, shape (U,)."""
        return np.bincount(self.codes, self.weights * (self.latent - self.means[self.codes]) ** 2)


@dataclass(frozen=True, eq=False)
class PyroModel:
    """A Pyro program: call it without arguments under Pyro's handlers, guides and samplers.

    Its sites are standard normal a priori, whatever the data:

    - ``hyper``: the hyperparameters, each the image of a standard normal number under its weak hyperprior
      (a normal on the logarithm, truncated at the bounds of ``FunctionalTucker``). Absent if ``fixed``.
      Scales of slices are no part of them: they are held as learned.
    - ``white``: the Tucker core, whitened: f at the distinct observed points is a linear map of it, by the
      hyperparameters. At the reference hyperparameters its axes are the Karhunen-Loève functions of f on the
      observed points. Absent if ``collapsed``: f is then integrated out.
    - ``y``: the observed averages of the distinct points (or a factor if ``collapsed``).

    Made by ``tenfac.pyro_model``.

    Parameters
    ----------
    modes : sequence of ModeIndex
    observations : Observations
    response : Response
        From y to the scale on which f is Gaussian; held as it is.
    prior : DensePrior or StatePrior
        How f is made from white numbers, or integrated out.
    reference : Hyper
        The hyperparameters if ``fixed``, and those of the axes of ``white``.
    fixed, collapsed : bool

    Examples
    --------
    >>> import tenfac
    >>> model = tenfac.FunctionalTucker(max_iter=0).fit([[0.0], [1.0]], [1.0, 3.0])
    >>> program = tenfac.pyro_model(model, [[0.0], [1.0]], [1.0, 3.0])
    >>> bool(abs(program.log_density() - model._prediction.log_evidence) < 1e-9)
    True
    """

    modes: Sequence[ModeIndex]
    observations: Observations
    response: Response
    prior: DensePrior | StatePrior
    reference: Hyper
    fixed: bool
    collapsed: bool

    def __call__(self) -> Tensor:
        """Run the program: sample what is unknown, observe y; returns f at the distinct points, or y."""
        hyper = self._sample_hyper()
        means, variance = self._means, self.noise_of_means(hyper)
        if self.observations.weights.sum() != means.shape[0]:
            pyro.factor("repeats", self._repeats(hyper))
        if self.collapsed:
            pyro.factor("y", self.prior.log_density(hyper, means, variance))
            return means
        normal = dist.Normal(torch.zeros(self.prior.size, dtype=torch.float64), 1.0)
        white = pyro.sample("white", normal.to_event(1))
        f = white @ self._map if self.fixed else self.function(hyper, white)
        pyro.sample("y", dist.Normal(f, variance.sqrt()).to_event(1), obs=means)
        return f

    def __repr__(self) -> str:
        form = "state space" if isinstance(self.prior, StatePrior) else "dense"
        sites = [*([] if self.fixed else ["hyper"]), *([] if self.collapsed else ["white"])]
        return f"PyroModel({len(self.points)} points, {form} prior, sites: {', '.join(sites) or 'none'})"

    @property
    def points(self) -> Array:
        """Distinct observed points, scaled, shape (U, D)."""
        return self.observations.points

    @property
    def dense(self) -> DensePrior:
        """The prior as covariances."""
        return self.prior.dense if isinstance(self.prior, StatePrior) else self.prior

    @cached_property
    def free(self) -> NDArray[np.bool_]:
        """Entries of ``reference.pack()`` that mean something: labels have no lengthscale in the product."""
        labels, at = [n for n, index in enumerate(self.modes) if index.discrete], self.reference
        parts = at.modes, at.mains, at.residual, at.cells
        used, mains, residual, cells = (np.ones(part.shape, dtype=bool) for part in parts)
        used[labels, 1:] = False
        if mains.size:
            mains[labels, 1:] = False
        for part in (residual, cells):
            part[1 + self.dense.exact : 2 + self.dense.exact] = False
        loadings = np.ones(at.n_loadings, dtype=bool)
        return np.concatenate([[True, True], used.ravel(), mains.ravel(), residual, cells, loadings])

    def theta(self, white: Tensor) -> Tensor:
        """``Hyper.pack()`` from values of the site ``hyper``, shapes (..., n) -> (..., size of pack)."""
        center, width, low, high = self._hyperprior
        bounded = high - low < 1
        share = torch.where(bounded, low + (high - low) * torch.special.ndtr(white), 0.5)
        values = center + width * torch.where(
            bounded, torch.special.ndtri(share.clamp(1e-15, 1 - 1e-15)), white
        )
        theta = tensor(self.reference.pack()).expand(*white.shape[:-1], self.free.size).clone()
        theta[..., torch.as_tensor(self.free)] = values
        return theta

    def hyper_of(self, theta: Tensor | Array) -> TorchHyper:
        """Hyperparameters from a vector ``Hyper.pack()``."""
        theta, at = theta if isinstance(theta, Tensor) else tensor(theta), self.reference
        shapes = [part.shape for part in (at.modes, at.mains, at.residual, at.cells, *at.loadings)]
        pieces = theta[2:].split([int(np.prod(shape)) for shape in shapes])
        modes, mains, residual, cells, *loadings = (
            piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)
        )
        return TorchHyper(theta[0], theta[1], modes, mains, residual, cells, tuple(loadings))

    def function(self, hyper: TorchHyper, white: Tensor) -> Tensor:
        """f at the distinct points from values of the site ``white``, shapes (..., n) -> (..., U)."""
        return self.prior.function(hyper, white @ self.axes)

    def log_density(self, theta: Array | None = None) -> float:
        """Log density of the observed values (on the Gaussian scale), f integrated out.

        ``theta`` is a vector ``Hyper.pack()``, by default that of the reference.
        """
        hyper = self.hyper_of(self.reference.pack() if theta is None else theta)
        value = self.prior.log_density(hyper, self._means, self.noise_of_means(hyper))
        return float(value + self._repeats(hyper))

    @cached_property
    def axes(self) -> Tensor:
        """Rows: directions of the white numbers that move f most first, at the reference; orthogonal."""
        at = self.hyper_of(self.reference.pack())
        plain = self.prior.function(at, torch.eye(self.prior.size, dtype=torch.float64))
        return torch.linalg.svd(plain.T)[2]

    def expected_variances(self) -> Tensor:
        """Posterior variances of the site ``white`` at the reference, correlations left out, shape (n,)."""
        noise = self.noise_of_means(self.hyper_of(self.reference.pack()))
        return 1 / (1 + (self._map**2 / noise).sum(dim=1))

    def noise_at(self, hyper: TorchHyper, x: Tensor) -> Tensor:
        """Variance of the noise of one observation at points (N, D), shape (N,)."""
        return hyper.noise.exp() * self.dense.scale_at(x)

    def noise_of_means(self, hyper: TorchHyper) -> Tensor:
        """Variance of the noise of the observed averages, shape (U,)."""
        return hyper.noise.exp() * self._scales / self._counts

    @cached_property
    def _map(self) -> Tensor:
        """f from the site ``white`` at the reference hyperparameters, shape (n, U)."""
        return self.function(
            self.hyper_of(self.reference.pack()), torch.eye(self.prior.size, dtype=torch.float64)
        )

    @cached_property
    def _counts(self) -> Tensor:
        return tensor(self.observations.counts)

    @cached_property
    def _scales(self) -> Tensor:
        return self.dense.scale_at(self.dense.points)

    @cached_property
    def _means(self) -> Tensor:
        return tensor(self.observations.means)

    @cached_property
    def _hyperprior(self) -> tuple[Tensor, ...]:
        """Centers and widths of the free hyperparameters, and the mass of the normal below their bounds."""
        center, width, lower, upper = (tensor(part[self.free]) for part in hyperprior(self.reference))
        low, high = (torch.special.ndtr((bound - center) / width) for bound in (lower, upper))
        return center, width, low, high

    def _sample_hyper(self) -> TorchHyper:
        if self.fixed:
            return self.hyper_of(self.reference.pack())
        normal = dist.Normal(torch.zeros(int(self.free.sum()), dtype=torch.float64), 1.0)
        return self.hyper_of(self.theta(pyro.sample("hyper", normal.to_event(1))))

    def _repeats(self, hyper: TorchHyper) -> Tensor:
        """Log density of the rows given their averages by distinct point."""
        more = self._counts - 1
        constant = 0.5 * (self._counts.log() + more * (self._scales.log() + np.log(2 * np.pi))).sum()
        scatter = (tensor(self.observations.scatter) / self._scales).sum()
        return -constant - 0.5 * more.sum() * hyper.noise - 0.5 * scatter * torch.exp(-hyper.noise)
