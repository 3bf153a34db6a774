"""Factor functions of the posterior: a Tucker form whose order, signs and scales are not free.

On the observed indices of one mode and a grid of the others the posterior mean is a matrix; its left
singular vectors are that mode's factor of the higher-order SVD of the mean [1]_. What is given here at any
index x is the function f itself, seen through the right singular vector and divided by the singular value,
``u_r(x) = sum_j f(x, j) v_r(j) / sigma_r``. It is linear in f: its posterior is Gaussian, known exactly,
and its mean at the observed indices is the singular vector.

References
----------
.. [1] L. De Lathauwer, B. De Moor, J. Vandewalle, A Multilinear Singular Value Decomposition, SIAM J. Matrix
   Anal. Appl. 21 (2000), theorem 2. doi:10.1137/S0895479896305696
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.cells import CellBasis
from tenfac.bayes.collapsed.prediction import Prediction
from tenfac.core.errors import DataError

Array = NDArray[Any]
_SMALLEST = 1e-7  # singular value relative to the largest: below, rounding


class ModeFunctions(NamedTuple):
    """Means and standard deviations (N, R) at N positions, and singular values (R,), descending."""

    mean: Array
    std: Array
    singular_values: Array


def mode_functions(post: Prediction, mode: int, observed: Array, x: Array, rank: int) -> ModeFunctions:
    """At most ``rank`` leading functions of a mode at positions ``x`` (N,); ``observed`` has shape (M,)."""
    problem = post.problem
    if isinstance(problem.basis, CellBasis) or len(problem.terms) > 1:
        raise DataError(
            "FunctionalTucker.mode_functions: the model must be a product over modes alone; this one has "
            "terms beside it, or joint functions of modes. Fit with terms=(), or use mode_posterior."
        )
    exact = post.exact_prior.bend(problem.positions)
    means = post.posterior.at(exact)[0] @ post.product_factor.T  # coefficients, (T, P)
    if mode == problem.exact:
        return _of_exact_mode(post, means, x, rank)
    return _of_basis_mode(post, mode, means, observed, x, rank)


def _of_exact_mode(post: Prediction, means: Array, x: Array, rank: int) -> ModeFunctions:
    # on the nodes of the other modes the products are orthogonal, with these squared lengths
    lengths = np.sqrt(_squared_lengths(post, None))
    left, sigma, right = np.linalg.svd(means * lengths, full_matrices=False)
    _, sigma, right = _leading(left, sigma, right.T, rank)
    rows = (right * lengths[:, None] / sigma).T @ post.product_factor
    h, covs = post.posterior.at(post.exact_prior.bend(x))
    variance = np.einsum("rp,upq,rq->ur", rows, covs, rows)
    return ModeFunctions(h @ rows.T, np.sqrt(np.maximum(variance, 0.0)), sigma)


def _of_basis_mode(
    post: Prediction, mode: int, means: Array, observed: Array, x: Array, rank: int
) -> ModeFunctions:
    problem = post.problem
    m = problem.others.index(mode)
    kept: Any = problem.basis
    basis, column = kept.bases[m], kept.index[:, m]
    others = np.delete(kept.index, m, axis=1)
    _, group = np.unique(others, axis=0, return_inverse=True)
    group = group.ravel()
    lengths = _squared_lengths(post, m)  # of the other modes' products, (P,)
    unfolded = _unfolded(means * np.sqrt(lengths), column, group, basis.size)  # (K, T, groups)
    orthonormal, triangle = np.linalg.qr(basis.rows(observed))
    wide = triangle @ unfolded.reshape(basis.size, -1)
    inner, sigma, right = np.linalg.svd(wide, full_matrices=False)
    _, sigma, right = _leading(orthonormal @ inner, sigma, right.T, rank)
    seen = right.T.reshape(sigma.size, *unfolded.shape[1:])  # right singular vectors, (R, T, groups)
    rows = basis.rows(x)[:, column]
    out = np.empty((2, x.size, sigma.size))
    for r, vector in enumerate(seen):
        weights = vector[:, group] * np.sqrt(lengths) / sigma[r]
        mean, cov = post.posterior.total(weights, post.product_factor)
        out[0, :, r] = rows @ mean
        out[1, :, r] = np.einsum("np,pq,nq->n", rows, cov, rows)
        out[1, :, r] += _left_out(post, m, vector / sigma[r], group, lengths, rows, x)
    return ModeFunctions(out[0], np.sqrt(np.maximum(out[1], 0.0)), sigma)


def _squared_lengths(post: Prediction, left_out: int | None) -> Array:
    """Sums of squares over the nodes of the products of functions, one basis left out, shape (P,)."""
    basis: Any = post.problem.basis
    out = np.ones(basis.size)
    for m, (part, column) in enumerate(zip(basis.bases, basis.index.T, strict=True)):
        if m != left_out:
            out = out * part.eigenvalues[column]
    return out


def _unfolded(means: Array, column: NDArray[np.intp], group: NDArray[np.intp], size: int) -> Array:
    """Coefficients by function of the mode, exact index, and product of the other modes, (K, T, groups)."""
    out = np.zeros((size, means.shape[0], int(group.max()) + 1))
    out[column, :, group] = means.T
    return out


def _leading(left: Array, sigma: Array, right: Array, rank: int) -> tuple[Array, Array, Array]:
    """The leading triplets; the largest entry of every left vector is positive."""
    keep = sigma > _SMALLEST * sigma[:1]
    count = min(rank, int(np.sum(keep & (sigma > 0))))
    left, sigma, right = left[:, :count], sigma[:count], right[:, :count]
    if count == 0:
        return left, sigma, right
    signs = np.sign(left[np.argmax(np.abs(left), axis=0), np.arange(count)])
    return left * signs, sigma, right * signs


def _left_out(
    post: Prediction, m: int, vector: Array, group: NDArray[np.intp], lengths: Array, rows: Array, x: Array
) -> Array:
    """Variance (N,) of what no kept product carries, summed over the grid with weights ``vector``.

    ``vector`` (T, groups) is in units of the other modes' products of length one.
    """
    prior, grid = post.exact_prior, post.problem.positions
    along = np.zeros(vector.shape[1])
    for start in range(0, grid.size, 512):
        block = prior.covariance(grid[start : start + 512], grid) @ vector
        along += np.einsum("tg,tg->g", vector[start : start + 512], block)
    basis: Any = post.problem.basis
    variance = basis.bases[m].prior.variance(x)
    kept = np.zeros((x.size, vector.shape[1]))
    np.add.at(kept.T, group, np.square(rows).T)
    gap = variance[:, None] - kept
    gap = np.where(gap > 1e-10 * variance[:, None], gap, 0.0)
    by_group = np.zeros(vector.shape[1])
    by_group[group] = lengths
    return np.exp(post.hyper.scale) * gap @ (by_group * along)
