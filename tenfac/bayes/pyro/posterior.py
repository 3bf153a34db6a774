"""Draws from the posterior of the Pyro program: predictions at any indices, and a tree that ArviZ reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfac.bayes.columns import ModeIndex
from tenfac.bayes.pyro.prior import TorchHyper, tensor
from tenfac.bayes.pyro.program import PyroModel
from tenfac.bayes.tree import datatree, hyperparameters
from tenfac.core.arrays import generator
from tenfac.core.door import door
from tenfac.core.report import Report

Array = NDArray[Any]
_JITTER = 1e-10  # of the prior variance: f at close points is all but determined


@door
@dataclass(frozen=True, eq=False)
class PyroPosterior:
    """Draws of the function and of the hyperparameters, from ``tenfac.nuts`` or ``tenfac.svi``.

    Parameters
    ----------
    model : PyroModel
    theta : array, shape (chain, draw, H)
        Hyperparameters, as ``Hyper.pack()``; the same in every draw if they were fixed.
    latent : array, shape (chain, draw, U)
        f at the distinct observed points, on the scale on which it is Gaussian.
    diverging : array of bool, shape (chain, draw)
    diagnostics : dict
        Worst over function and hyperparameters: ``r_hat``, ``ess``; ``divergences``; for ``svi`` also
        ``pareto_k``.
    info : Report
    to_columns : callable
        From a table to scaled positions, as ``FunctionalTucker`` reads it.

    Examples
    --------
    >>> import tenfac
    >>> X, y = [[0.0], [0.5], [1.0]], [1.0, 2.0, 3.0]
    >>> model = tenfac.FunctionalTucker(max_iter=0).fit(X, y)
    >>> post = tenfac.svi(model, X, y, fixed=True, max_iter=100, learning_rate=0.1, num_samples=200)
    >>> post.predict([[0.25]]).shape
    (1,)
    """

    model: PyroModel
    theta: Array
    latent: Array
    diverging: NDArray[np.bool_]
    diagnostics: dict[str, float]
    info: Report
    to_columns: Callable[[Any], list[Array]]

    @property
    def f(self) -> Array:
        """Draws of the function at the observed rows, in the unit of y, shape (chain, draw, N)."""
        return self.model.response.observed(self.latent[..., self.model.observations.codes])

    @property
    def _modes(self) -> Sequence[ModeIndex]:
        return self.model.modes

    @property
    def hyperparameters(self) -> dict[str, Array]:
        """Draws of what ``FunctionalTucker`` calls ``noise_``, ``constants_`` and ``lengthscales_``.

        Keys: ``variance`` (of a core entry, with y of variance one) and ``noise``, shape (chain, draw);
        ``constant``, (chain, draw, mode); ``lengthscale`` and ``sharpness``, (chain, draw, continuous_mode);
        ``label_covariance_NAME`` of a discrete mode, if ``label_rank`` is not 0. Of terms beside the product
        ``main_variance``, (chain, draw, mode), ``residual_variance`` and ``cell_variance``, (chain, draw),
        with y of variance one.
        """
        model = self.model
        return hyperparameters(self.theta, model.reference, model.modes, model.response)

    def predict(
        self, X: Any, return_std: bool = False, include_noise: bool = False
    ) -> Array | tuple[Array, Array]:
        """Posterior mean, and standard deviation, at any indices, over all draws.

        Parameters
        ----------
        X : array of shape (N, D), DataFrame, or dict of columns
            As in ``FunctionalTucker.predict``.
        return_std, include_noise : bool
            As in ``FunctionalTucker.predict``.

        Returns
        -------
        array, shape (N,), or two of them
            In the unit of y.

        Notes
        -----
        What is Gaussian given a draw is averaged exactly: given its hyperparameters and y if the program was
        ``collapsed``, else given its f at the observed points.
        """
        points = self._points(X)
        mean, square, spread = (np.zeros(points.shape[0]) for _ in range(3))
        count = 0
        for hyper, latent in self._draws():
            middle, cov = self._given(hyper, points, None if self.model.collapsed else latent)
            variance = cov.diagonal().clamp(min=0.0).numpy()
            noise = self.model.noise_at(hyper, tensor(points)).numpy() if include_noise else 0.0
            for row in np.atleast_2d(middle.numpy()):
                moments = self.model.response.moments(row, variance + noise)
                count += 1
                step = moments[0] - mean
                mean = mean + step / count
                square = square + step * (moments[0] - mean)
                spread = spread + moments[1] ** 2
        std = np.sqrt((square + spread) / count)
        return (mean, std) if return_std else mean

    def sample(self, X: Any, *, random_state: int | np.random.Generator | None = 0) -> Array:
        """Joint draws of the function at any indices, one per posterior draw.

        Parameters
        ----------
        X : array of shape (N, D), DataFrame, or dict of columns
        random_state : int, numpy Generator or None

        Returns
        -------
        array, shape (chain, draw, N)
            In the unit of y; they go with ``f`` and ``hyperparameters`` of the same draw.
        """
        points, rng = self._points(X), generator(random_state)
        out = []
        for hyper, latent in self._draws():
            mean, cov = self._given(hyper, points, latent)
            values, vectors = torch.linalg.eigh(cov)
            root = vectors * values.clamp(min=0.0).sqrt()
            mean = np.atleast_2d(mean.numpy())
            out.append(mean + rng.normal(size=mean.shape) @ root.numpy().T)
        draws = np.concatenate(out).reshape(*self.theta.shape[:2], -1)
        return self.model.response.observed(draws)

    def to_datatree(self) -> Any:
        """The draws as an xarray DataTree that ArviZ reads.

        Returns
        -------
        DataTree
            ``posterior``: ``f`` (chain, draw, observation) and the learned ``hyperparameters``;
            ``sample_stats``: ``diverging``; ``log_likelihood``: ``y``; ``observed_data``: ``y``;
            ``constant_data``: the hyperparameters that were fixed. The observations carry the index of every
            mode, under the mode's name.

        Raises
        ------
        MissingExtraError
            If xarray is not installed.
        DataError
            If a mode has the name of a dimension or variable of the tree.
        """
        seen = self.model.observations
        return datatree(
            "PyroPosterior.to_datatree", self.model.modes, (seen.columns, seen.y),
            (self.f, self._log_likelihood()), self.hyperparameters,
            fixed=self.model.fixed, diverging=self.diverging,
        )  # fmt: skip

    def __repr__(self) -> str:
        chains, draws = self.theta.shape[:2]
        return f"PyroPosterior({chains} x {draws} draws, {self.latent.shape[-1]} points, {self.info})"

    def _points(self, X: Any) -> Array:
        return np.column_stack(self.to_columns(X))

    def _draws(self) -> Iterator[tuple[TorchHyper, Tensor]]:
        """Hyperparameters and f draw by draw; all draws of f at once if the hyperparameters are fixed."""
        theta, latent = (part.reshape(-1, part.shape[-1]) for part in (self.theta, self.latent))
        if self.model.fixed:
            yield self.model.hyper_of(theta[0]), tensor(latent)
            return
        for row, f in zip(theta, latent, strict=True):
            yield self.model.hyper_of(row), tensor(f)

    def _given(self, hyper: TorchHyper, x: Array, latent: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and covariance of f at points (N, D): given f at the observed ones, or else given y."""
        return conditional(self.model, hyper, tensor(x), latent)

    def _log_likelihood(self) -> Array:
        """Log density of every row, in the unit of y, shape (chain, draw, N)."""
        seen = self.model.observations
        scales = self.model.dense.scale_at(self.model.dense.points).numpy()[seen.codes]
        log_noise = self.theta[..., 1:2] + np.log(scales)
        z2 = (seen.latent - self.latent[..., seen.codes]) ** 2 * np.exp(-log_noise)
        normal = -0.5 * (z2 + log_noise + np.log(2 * np.pi))
        return seen.weights * (normal + self.model.response.log_slope(seen.y))


def conditional(
    model: PyroModel, hyper: TorchHyper, x: Tensor, latent: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of f at points (N, D), given f (..., U) at the observed ones, or else given y."""
    dense, at = model.dense, tensor(model.points)
    with torch.no_grad():
        cov = dense.covariance(hyper, at, at)
        if latent is None:
            latent = tensor(model.observations.means)
            extra = model.noise_of_means(hyper)
        else:
            extra = _JITTER * cov.diagonal()
        cross = torch.linalg.solve_triangular(
            torch.linalg.cholesky(cov + torch.diag(extra)),
            torch.cat(
                [dense.covariance(hyper, at, x), latent.T if latent.ndim == 2 else latent[:, None]], dim=1
            ),
            upper=False,
        )
        gain, white = cross[:, : x.shape[0]], cross[:, x.shape[0] :]
        mean = (gain.T @ white).T
        return mean if latent.ndim == 2 else mean[0], dense.covariance(hyper, x, x) - gain.T @ gain
