"""Low-rank approximation of a rearranged matrix: singular triplets by block Lanczos, CP by least squares."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tenfac.core.arrays import device_of, eps, namespace_of, to_number, to_numpy
from tenfac.core.contract import adjoint, contract
from tenfac.core.ops import unfold
from tenfac.core.progress import Progress
from tenfac.core.truncate import squared_norm

# A shorter side up to this is decomposed at once.
_SMALL = 64
# Times a block is made orthogonal to a basis: the second removes what rounding left of the first.
_PASSES = 2
# The small SVD grows: it is made in each of the first iterations, then in every so many.
_FIRST, _EVERY = 10, 5
# A sweep that lowers the squared error by less than this many roundings of the squared norm lowers nothing.
_GAIN = 4


class LowRank(NamedTuple):
    """Vectors of the terms, one array ``(size, terms)`` per mode, and how they came about.

    Examples
    --------
    >>> LowRank([], True, "tolerance met", 3, ()).n_iter
    3
    """

    vectors: list[Any]
    converged: bool
    reason: str
    n_iter: int | None
    history: tuple[float, ...]


# --- two modes --------------------------------------------------------------------------------------------


def leading_triplets(
    R: Any, terms: int, tol: float, max_iter: int, rng: np.random.Generator, progress: Progress | None = None
) -> LowRank:
    """Best approximation of a matrix of rank ``terms``, by block Lanczos bidiagonalisation.

    Stops when ``||R^H u - s v|| <= tol ||R||`` for every triplet; ``R v = s u`` holds by construction. Bases
    are orthogonalised in full. If they grow to half the shorter side, a full SVD takes over.

    Examples
    --------
    >>> leading_triplets(np.diag([3.0, 2.0, 1.0]), 1, 1e-8, 10, np.random.default_rng(0)).reason
    'singular value decomposition'
    """
    xp = namespace_of(R)
    short = min(R.shape)
    if short <= _SMALL:
        return _all_triplets(R, terms, (), xp)
    tell = progress or Progress("nearest_kronecker")
    norm, RH = math.sqrt(squared_norm(R)), adjoint(R, xp)
    start = xp.asarray(rng.standard_normal((R.shape[1], terms)), device=device_of(R))
    right = xp.linalg.qr(xp.astype(start, R.dtype))[0]
    left, corner = _orthonormal(R @ right, None, xp)
    small, history, told = to_numpy(corner), [], 0
    for n_iter in range(1, max_iter + 1):
        new, corner = _orthonormal(RH @ left[:, -terms:], right, xp)
        beyond = to_numpy(corner)
        if n_iter < _FIRST or n_iter % _EVERY == 0 or n_iter == max_iter:
            X, values, ZH = np.linalg.svd(small)
            residuals = np.linalg.norm(beyond @ X[-terms:, :terms], axis=0)
            history.append(float(residuals.max()) / norm)
            tell(history[-1], n_iter - told)
            told = n_iter
            if history[-1] <= tol:
                break
        if 2 * (right.shape[1] + terms) > short:
            return _all_triplets(R, terms, history, xp)
        if n_iter < max_iter:
            right = xp.concat([right, new], axis=1)
            new, corner = _orthonormal(R @ new, left, xp)
            left = xp.concat([left, new], axis=1)
            zeros = np.zeros((len(small) - terms, terms), dtype=small.dtype)
            above = np.concatenate([zeros, beyond.conj().T])
            below = np.concatenate(
                [np.zeros((terms, len(small)), dtype=small.dtype), to_numpy(corner)], axis=1
            )
            small = np.concatenate([np.concatenate([small, above], axis=1), below])
    converged = history[-1] <= tol

    def lifted(basis: Any, coordinates: Any) -> Any:
        return basis @ xp.asarray(np.ascontiguousarray(coordinates), device=device_of(R))

    vectors = [lifted(left, X[:, :terms] * values[:terms]), _conj(lifted(right, ZH[:terms].conj().T), xp)]
    reason = "tolerance met" if converged else "max_iter reached"
    return LowRank(vectors, converged, reason, n_iter, tuple(history))


def _all_triplets(R: Any, terms: int, history: Any, xp: Any) -> LowRank:
    left, values, right = xp.linalg.svd(R, full_matrices=False)
    vectors = [left[:, :terms] * values[:terms], xp.matrix_transpose(right[:terms, :])]
    return LowRank(vectors, True, "singular value decomposition", len(history) or None, tuple(history))


def _orthonormal(block: Any, basis: Any, xp: Any) -> tuple[Any, Any]:
    """Orthonormal Q, orthogonal to the basis too, and C with ``block = basis (...) + Q C``."""
    total = None
    for _ in range(_PASSES):
        if basis is not None:
            block = block - basis @ (adjoint(basis, xp) @ block)
        block, upper = xp.linalg.qr(block)
        total = upper if total is None else upper @ total
    return block, total


def _conj(array: Any, xp: Any) -> Any:
    return xp.conj(array) if xp.isdtype(array.dtype, "complex floating") else array


# --- more modes -------------------------------------------------------------------------------------------


def alternate(
    tensor: Any,
    terms: int,
    tol: float,
    max_iter: int,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> LowRank:
    """CP approximation of an array by alternating least squares, from leading singular vectors.

    Stops when a sweep lowers the squared error by less than ``tol`` of it, or changes the factors (columns of
    unit norm but for the last mode) by less than ``tol`` of their norm.

    Examples
    --------
    >>> found = alternate(np.ones((2, 3, 4)), 1, 1e-8, 10, np.random.default_rng(0))
    >>> found.n_iter, found.vectors[2].shape
    (2, (4, 1))
    """
    xp = namespace_of(tensor)
    tell = progress or Progress("nearest_kronecker")
    d, history, norm2, fitted2 = tensor.ndim, [], squared_norm(tensor), 0.0
    vectors = [_leading_vectors(tensor, n, terms, rng, xp) for n in range(d)]
    for n_iter in range(1, max_iter + 1):
        change2 = 0.0
        for n in range(d):
            new, inner = _least_squares(tensor, vectors, n, xp)
            if n < d - 1:
                norms = xp.linalg.vector_norm(new, axis=0)
                new = new / xp.where(norms > 0, norms, xp.ones_like(norms))
            length2 = squared_norm(new)
            if length2:
                change2 += squared_norm(new - vectors[n]) / length2
            vectors[n] = new
        before2, fitted2 = fitted2, inner  # of a least-squares fit: the inner product with the tensor
        error2 = max(norm2 - fitted2, 0.0)
        history.append(math.sqrt(error2 / norm2))
        tell(history[-1])
        settled = fitted2 - before2 <= tol * error2 + _GAIN * eps(tensor.dtype) * norm2
        if settled or math.sqrt(change2) <= tol:
            return LowRank(vectors, True, "tolerance met", n_iter, tuple(history))
    return LowRank(vectors, False, "max_iter reached", max_iter, tuple(history))


def _leading_vectors(tensor: Any, n: int, terms: int, rng: np.random.Generator, xp: Any) -> Any:
    """Leading left singular vectors of an unfolding; random columns where it has too few."""
    matrix = unfold(tensor, n)
    vectors = xp.flip(xp.linalg.eigh(matrix @ adjoint(matrix, xp))[1], axis=1)[:, :terms]
    missing = terms - vectors.shape[1]
    if not missing:
        return vectors
    more = xp.asarray(rng.standard_normal((tensor.shape[n], missing)), device=device_of(tensor))
    return xp.concat([vectors, xp.astype(more, tensor.dtype)], axis=1)


def _least_squares(tensor: Any, vectors: list[Any], n: int, xp: Any) -> tuple[Any, float]:
    """The vectors of mode n that fit best to those of the other modes, and the squared norm of the fit."""
    others = [m for m in range(tensor.ndim) if m != n]
    rows = [None if m == n else xp.matrix_transpose(_conj(v, xp)) for m, v in enumerate(vectors)]
    terms = vectors[n].shape[1]
    if terms == 1:  # one row per mode is a grid of one point, and costs less
        projected = xp.reshape(contract(tensor, rows, xp=xp), (-1, 1))
    else:
        projected = xp.matrix_transpose(contract(tensor, rows, paired=others, xp=xp))
    gram = 1
    for m in others:
        gram = gram * (xp.matrix_transpose(vectors[m]) @ _conj(vectors[m], xp))
    complex_ = xp.isdtype(tensor.dtype, "complex floating")
    new = projected @ xp.linalg.pinv(gram)
    return new, to_number(xp.sum(xp.real(_conj(new, xp) * projected) if complex_ else new * projected))
