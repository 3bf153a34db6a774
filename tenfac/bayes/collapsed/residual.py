"""The residual within slices: a Gaussian process over the other modes, drawn anew at every exact index.

Given the rest of the model the rows of one slice then have covariance ``R = noise + v K``, a full matrix. The
slices are whitened by the Cholesky factors of their ``R``, all slices with equally many rows at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.cell_covariance import CellCovariance
from tenfac.bayes.collapsed.hyper import Hyper
from tenfac.bayes.collapsed.scales import widened

Array = NDArray[Any]


@dataclass(frozen=True)
class Bucket:
    """The slices with n rows: numbers and scales (B,), distances per mode (B, n, n), noise 1 / w (B, n).

    ``places`` (B, n) are numbers of cells, -1 elsewhere, if there is a covariance of cells.
    """

    slices: NDArray[np.intp]
    scales: Array
    distances: tuple[Array, ...]
    variances: Array
    places: NDArray[np.intp] | None


@dataclass(frozen=True)
class Whitening:
    """Inverse Cholesky factors of every bucket, with the kernel parts that the gradient needs.

    Parameters
    ----------
    roots : list of arrays, shape (B, n, n)
        Inverses of the lower Cholesky factors of ``R``.
    kernels : list of arrays, shape (B, n, n)
        ``v K``, or the share of it that the slices leave to the kernel.
    log_det : float
        Of all ``R``.
    """

    roots: list[Array]
    kernels: list[Array]
    log_det: float


@dataclass(frozen=True)
class Residual:
    """Geometry of the slices.

    Parameters
    ----------
    modes : tuple of int
        The modes other than the exact one.
    points : tuple of tuples of arrays
        Per slice, positions of its rows in every one of ``modes``, shape (n_t,).
    weights : tuple of arrays, shape (n_t,)
        What a row tells relative to the noise.
    repeats : tuple of arrays, shape (n_t,)
        How many rows it stands for.
    scales : array, shape (M,)
        Per slice, what noise and residual are multiplied by.
    dof : float or None
        Degrees of freedom of the scales' prior; None if they are equal.
    discrete : tuple of bool
        Per one of ``modes``.
    learned : CellCovariance or None
        Covariance that the slices have told, beside that of the kernel.
    """

    modes: tuple[int, ...]
    points: tuple[tuple[Array, ...], ...]
    weights: tuple[Array, ...]
    repeats: tuple[Array, ...]
    scales: Array
    dof: float | None
    discrete: tuple[bool, ...]
    learned: CellCovariance | None = None

    def only(self, t: int) -> Residual:
        """Of one slice."""
        part = slice(t, t + 1)
        return replace(
            self, points=self.points[part], weights=self.weights[part], repeats=self.repeats[part],
            scales=self.scales[part],
        )  # fmt: skip

    def joined(self, other: Residual, places: NDArray[np.intp], fresh: NDArray[np.bool_]) -> Residual:
        """Both in one, as ``Slices.joined``."""
        points, weights, repeats = list(self.points), list(self.weights), list(self.repeats)
        scales = self.scales.tolist()
        for i, (place, is_new) in enumerate(zip(places, fresh, strict=True)):
            if is_new:
                points.insert(place, other.points[i])
                weights.insert(place, other.weights[i])
                repeats.insert(place, other.repeats[i])
                scales.insert(place, 1.0)
                continue
            pairs = zip(points[place], other.points[i], strict=True)
            points[place] = tuple(np.concatenate(pair) for pair in pairs)
            weights[place] = np.concatenate([weights[place], other.weights[i]])
            repeats[place] = np.concatenate([repeats[place], other.repeats[i]])
        return replace(
            self,
            points=tuple(points),
            weights=tuple(weights),
            repeats=tuple(repeats),
            scales=np.array(scales),
        )

    @cached_property
    def predictive_scales(self) -> Array:
        """Scales to predict with: those of Gaussians as wide as the Student-t distributions are, (M,)."""
        if self.dof is None:
            return self.scales
        return self.scales * widened(self.dof + self.counts)

    @property
    def counts(self) -> Array:
        """Rows of every slice, repeats counted, (M,)."""
        return np.array([part.sum() for part in self.repeats])

    @property
    def new_scale(self) -> float:
        """The same of a slice without observations."""
        return 1.0 if self.dof is None else float(widened(self.dof))

    @cached_property
    def buckets(self) -> list[Bucket]:
        """Slices by their number of rows."""
        sizes = np.array([w.size for w in self.weights])
        out = []
        for size in np.unique(sizes):
            slices = np.flatnonzero(sizes == size)
            distances = tuple(
                distance(x, x, flag)
                for x, flag in (
                    (np.stack([self.points[t][m] for t in slices]), flag)
                    for m, flag in enumerate(self.discrete)
                )
            )
            variances = 1 / np.stack([self.weights[t] for t in slices])
            places = None
            if self.learned is not None:
                places = np.stack([self.learned.places(self.points[t]) for t in slices])
            out.append(Bucket(slices, self.scales[slices], distances, variances, places))
        return out

    def covariance(self, hyper: Hyper, x: Sequence[Array], z: Sequence[Array]) -> Array:
        """Prior covariance of the residual between points of one slice, (n,) and (m,) -> (n, m)."""
        out = self.smooth(hyper, x, z)
        if self.learned is None:
            return out
        kernel = partial(self.smooth, hyper)
        left, right = self.learned.weights(kernel, x), self.learned.weights(kernel, z)
        return out + left @ self.learned.excess(kernel) @ right.T

    def variance(self, hyper: Hyper, x: Sequence[Array]) -> Array:
        """Its diagonal for equal points, (n,)."""
        out = np.full(x[0].size, np.exp(hyper.residual[0]))
        if self.learned is None:
            return out
        kernel = partial(self.smooth, hyper)
        weights = self.learned.weights(kernel, x)
        return out + np.einsum("nu,uv,nv->n", weights, self.learned.excess(kernel), weights)

    def smooth(self, hyper: Hyper, x: Sequence[Array], z: Sequence[Array]) -> Array:
        """The kernel between points, (n,) and (m,) -> (n, m)."""
        parts = [distance(a[None], b[None], flag)[0] for a, b, flag in zip(x, z, self.discrete, strict=True)]
        return self._kernel(hyper, parts)

    def _in_bucket(self, hyper: Hyper, bucket: Bucket) -> Array:
        """Prior covariance of the residual in the slices of a bucket at scale one, (B, n, n)."""
        codes, learned = bucket.places, self.learned
        if learned is None or codes is None or (codes < 0).any():
            return np.stack([self.covariance(hyper, *[self.points[t]] * 2) for t in bucket.slices])
        told = learned.values[codes[:, :, None], codes[:, None, :]]
        return (1 - learned.share) * self._kernel(hyper, bucket.distances) + learned.share * told

    def _kernel(self, hyper: Hyper, distances: Sequence[Array]) -> Array:
        rates = np.exp(-hyper.residual[1:])
        exponent = sum(rates[n] * d for n, d in zip(self.modes, distances, strict=True))
        return np.exp(hyper.residual[0] - exponent)

    def whitening(self, hyper: Hyper) -> Whitening:
        """Factorise every slice's covariance."""
        roots, kernels, log_det = [], [], 0.0
        for bucket in self.buckets:
            scale = bucket.scales[:, None, None]
            kernel = scale * self._kernel(hyper, bucket.distances)
            if self.learned is None:
                cov = kernel.copy()
            else:
                cov, kernel = scale * self._in_bucket(hyper, bucket), (1 - self.learned.share) * kernel
            index = np.arange(cov.shape[1])
            cov[:, index, index] += np.exp(hyper.noise) * bucket.scales[:, None] * bucket.variances
            factor = np.linalg.cholesky(cov)
            log_det += 2 * float(np.log(factor[:, index, index]).sum())
            roots.append(np.linalg.inv(factor))
            kernels.append(kernel)
        return Whitening(roots, kernels, log_det)

    def before(self, hyper: Hyper, x: Sequence[Array], joint: bool) -> Array:
        """Covariance (n, n) of the residual in a slice without rows, or if not ``joint`` its diagonal."""
        own = self.covariance(hyper, x, x) if joint else self.variance(hyper, x)
        return self.new_scale * own

    def given(self, hyper: Hyper, t: int, x: Sequence[Array], joint: bool) -> tuple[Array, Array]:
        """The residual at points of slice t given what the rest of the model leaves of its rows.

        Returns
        -------
        pull : array, shape (n, n_t)
            The residual's mean is ``pull @ (targets - rest)``.
        cov : array, shape (n, n), or if not ``joint`` its diagonal, (n,)
        """
        cross = self.covariance(hyper, x, self.points[t])
        cov = self.covariance(hyper, self.points[t], self.points[t])
        cov[np.diag_indices_from(cov)] += np.exp(hyper.noise) / self.weights[t]
        pull = np.linalg.solve(cov, cross.T).T
        if joint:
            left = self.covariance(hyper, x, x) - pull @ cross.T
        else:
            left = np.maximum(self.variance(hyper, x) - np.einsum("np,np->n", pull, cross), 0.0)
        wider = 1.0 if self.learned is None else self.learned.widened(self.points[t][0].size)
        return pull, wider * self.predictive_scales[t] * left

    def scatter(self, hyper: Hyper) -> float:
        """Minus log density of what repeats scatter about their mean: nothing, at the noise's own scale."""
        repeats, weights = np.concatenate(self.repeats), np.concatenate(self.weights)
        scales = np.log(np.repeat(self.scales, [part.size for part in self.weights]))
        noise = np.log(2 * np.pi) + hyper.noise + scales - np.log(weights / repeats)
        return 0.5 * float(np.sum((repeats - 1) * noise + np.log(repeats)))

    def apply(self, whitening: Whitening, parts: Sequence[Array]) -> list[Array]:
        """Whitened rows of every slice, shapes (n_t, C) as given."""
        out: list[Array] = [np.empty(0)] * len(parts)
        for bucket, root in zip(self.buckets, whitening.roots, strict=True):
            whitened = root @ np.stack([parts[t] for t in bucket.slices])
            for t, part in zip(bucket.slices, whitened, strict=True):
                out[t] = part
        return out

    def gradient(self, hyper: Hyper, whitening: Whitening, by_noise: Sequence[Array]) -> tuple[float, Array]:
        """Derivatives by ``hyper.noise`` and ``hyper.residual`` from those by the whitened noise."""
        noise, own = 0.0, np.zeros_like(hyper.residual)
        rates = np.exp(-hyper.residual[1:])
        for bucket, root, kernel in zip(self.buckets, whitening.roots, whitening.kernels, strict=True):
            slope = np.stack([by_noise[t] for t in bucket.slices])
            slope = root.mT @ slope @ root
            diagonal = np.diagonal(slope, axis1=1, axis2=2)
            noise += float(np.sum(diagonal * bucket.scales[:, None] * bucket.variances))
            weighted = slope * kernel
            own[0] += weighted.sum()
            for n, distance in zip(self.modes, bucket.distances, strict=True):
                own[1 + n] += rates[n] * np.sum(weighted * distance)
        return noise * float(np.exp(hyper.noise)), own


def distance(x: Array, z: Array, discrete: bool) -> Array:
    """Distances (B, n, m) between positions (B, n) and (B, m); 0 or 1 between labels."""
    gap = x[:, :, None] - z[:, None, :]
    return (gap != 0).astype(float) if discrete else np.abs(gap)
