"""The nearest Kronecker product, or sum of Kronecker products, of a dense matrix."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Shaped

from tenfac.core.arrays import as_float, device_of, eps, generator, namespace_of, seed_of, spans, to_number
from tenfac.core.door import door
from tenfac.core.errors import DataError, RankError, ShapeError, warn_user
from tenfac.core.progress import Progress
from tenfac.core.report import Report
from tenfac.core.truncate import squared_norm
from tenfac.kron.base import known
from tenfac.kron.operator import KroneckerOperator
from tenfac.kron.rearranged import LowRank, alternate, leading_triplets
from tenfac.kron.spectral import detached
from tenfac.kron.sums import SumOfKronecker

# Rows of the rearranged matrix whose residual is formed at once.
_ROWS = 2**6
# Smallest tolerance, in roundings of the dtype.
_ROUNDINGS = 50
# Squared norms between these need no scaling: squares of the entries are ordinary numbers.
_PLAIN = (1e-30, 1e30)


@door
def nearest_kronecker(
    M: Shaped[Any, ...],
    shapes: Sequence[Sequence[int]],
    *,
    terms: int = 1,
    tol: float = 1e-8,
    max_iter: int = 500,
    random_state: int | np.random.Generator | None = 0,
    verbose: int = 0,
) -> KroneckerOperator | SumOfKronecker:
    """Approximate a dense matrix by a Kronecker product, or by a sum of a few.

    Minimises ``||M - sum_t A_t kron B_t kron ...||`` in the Frobenius norm. The entries of ``M`` are
    rearranged into a tensor with one mode per factor, where a Kronecker product is a tensor of rank one [1]_.

    Parameters
    ----------
    M : array, shape (prod M_k, prod N_k)
        Real or complex, finite. Integers become float64.
    shapes : sequence of pairs of int
        Shapes ``(M_k, N_k)`` of at least two factors, first mode first.
    terms : int
        Number of Kronecker products to sum.
    tol : float
        Stop when the equations of a stationary point hold to ``tol`` relative to ``||M||`` (two factors), or
        when a sweep lowers the squared error by less than ``tol`` of it (more factors). Not below 50 times
        the spacing of the dtype.
    max_iter : int
        Most iterations.
    random_state : int, numpy Generator or None
        For the starting vectors.
    verbose : {0, 1, 2}
        1 shows a bar of iterations, 2 also logs a line on the result (logger ``tenfac``).

    Returns
    -------
    KroneckerOperator, or SumOfKronecker if ``terms`` is more than 1
        ``info.rel_error`` is the relative Frobenius error, computed from the residual itself. No gradient
        passes.

    Raises
    ------
    ShapeError
        If the shapes do not multiply to that of ``M``, or there are fewer than two.
    RankError
        If ``terms`` is not an integer of 1 or more, or larger than a rearrangement can have.
    DataError
        If ``M`` is not finite or ``tol`` not positive.

    Notes
    -----
    **Two factors**: the best approximation, from the leading singular triplets of the rearranged matrix, by
    block Lanczos bidiagonalisation: a few passes over ``M`` instead of its singular value decomposition. If
    ``M`` is symmetric, or positive definite, so are the factors of one term where the leading singular value
    is simple. **More factors**: a rank-``terms`` CP approximation by alternating least squares from the
    leading singular vectors of every mode: each sweep lowers the error, and the result is a local minimum
    that need not be the best. Factors of a term have equal norms, and except for the last their largest entry
    is real and positive. Memory: one rearranged copy of ``M``.

    References
    ----------
    .. [1] C. F. Van Loan and N. Pitsianis, Approximation with Kronecker products, in Linear Algebra for Large
       Scale and Real-Time Applications (1993), sections 2 and 3. doi:10.1007/978-94-015-8196-7_17
    .. [2] G. H. Golub, F. T. Luk and M. L. Overton, A block Lanczos method for computing the singular values
       and corresponding singular vectors of a matrix, ACM Trans. Math. Softw. 7 (1981).
       doi:10.1145/355945.355946

    Examples
    --------
    >>> import numpy as np
    >>> A, B = np.array([[2.0, 1.0], [1.0, 3.0]]), np.eye(3)
    >>> K = nearest_kronecker(np.kron(A, B), [(2, 2), (3, 3)])
    >>> K
    KroneckerOperator(shape=(6, 6), factors=2x2, 3x3, numpy.float64, 13 numbers for 36 entries)
    >>> bool(np.linalg.norm(K.to_dense() - np.kron(A, B)) < 1e-12)
    True
    """
    start, where = perf_counter(), "nearest_kronecker"
    progress = Progress(where, max_iter, verbose, unit="iteration")
    xp = namespace_of(M)
    M = detached(as_float(M, where))
    shapes = _checked_shapes(M, shapes)
    sizes = [m * n for m, n in shapes]
    _check_options(sizes, terms, tol, max_iter)
    rng = generator(random_state)
    scaled, scale = _scaled(M, xp)
    tensor = rearrange(scaled, shapes, xp)
    tol = max(tol, _ROUNDINGS * eps(M.dtype))
    if not scale:
        vectors = [xp.zeros((size, terms), dtype=M.dtype, device=device_of(M)) for size in sizes]
        found = LowRank(vectors, True, "M is zero", None, ())
    else:
        solve = leading_triplets if len(shapes) == 2 else alternate
        with progress:
            found = solve(tensor, terms, tol, max_iter, rng, progress)
        progress.log("%s after %s iterations", found.reason, found.n_iter)
    rel_error = _rel_error(tensor, found.vectors, xp) if scale else 0.0
    notes: tuple[str, ...] = ()
    if not found.converged:
        notes = (
            f"{where}: not converged after {found.n_iter} iterations (relative error {rel_error:.3g}). Raise "
            f"max_iter, now {max_iter}, or tol, now {tol:g}.",
        )
        warn_user(notes[0])
    seed = seed_of(random_state)
    info = Report(
        found.converged,
        found.reason,
        n_iter=found.n_iter,
        rel_error=rel_error,
        history=found.history,
        seconds=perf_counter() - start,
        random_state=seed,
        warnings=notes,
    )
    products = [_term([v[:, t] for v in found.vectors], shapes, scale, xp) for t in range(terms)]
    if terms == 1:
        return KroneckerOperator(*products[0], info=info)
    return SumOfKronecker(*(KroneckerOperator(*factors) for factors in products), info=info)


def rearrange(M: Any, shapes: Sequence[tuple[int, int]], xp: Any) -> Any:
    """Rearrange a matrix into a tensor ``(M_0 N_0, M_1 N_1, ...)`` where a Kronecker product has rank one.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> rearrange(np.kron(np.ones((2, 2)), [[1.0, 2.0]]), [(2, 2), (1, 2)], xp).tolist()
    [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
    """
    d = len(shapes)
    split = xp.reshape(M, (*(m for m, _ in shapes), *(n for _, n in shapes)))
    paired = xp.permute_dims(split, tuple(axis for k in range(d) for axis in (k, d + k)))
    return xp.reshape(paired, tuple(m * n for m, n in shapes))


def _checked_shapes(M: Any, shapes: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    where = "nearest_kronecker"
    try:
        pairs: list[Any] = [tuple(operator.index(size) for size in shape) for shape in shapes]
    except TypeError:
        pairs = []
    if len(pairs) < 2 or any(len(pair) != 2 or min(pair) < 1 for pair in pairs):
        raise ShapeError(
            f"{where}: `shapes` must hold the shapes (rows, columns) of at least two factors, "
            f"integers of 1 or more; got {shapes!r}. Write [(2, 3), (4, 5)]."
        )
    want = tuple(math.prod(pair[axis] for pair in pairs) for axis in (0, 1))
    if tuple(M.shape) != want:
        raise ShapeError(
            f"{where}: factors of shapes {pairs} make a matrix of shape {want}; got M of shape "
            f"{tuple(M.shape)}. Their rows multiply to those of M, and their columns."
        )
    return pairs


def _check_options(sizes: Sequence[int], terms: Any, tol: float, max_iter: int) -> None:
    where = "nearest_kronecker"
    most = math.prod(sizes) // max(sizes)
    if isinstance(terms, bool) or not isinstance(terms, (int, np.integer)) or not 1 <= terms <= most:
        raise RankError(
            f"{where}: `terms` must be an integer from 1 to {most} (more cannot be needed for these shapes); "
            f"got {terms!r}."
        )
    real = isinstance(tol, numbers.Real) and not isinstance(tol, bool)
    whole = isinstance(max_iter, numbers.Integral) and not isinstance(max_iter, bool)
    if not (real and tol > 0) or not (whole and max_iter >= 1):
        raise DataError(
            f"{where}: `tol` must be a positive number and `max_iter` an integer of 1 or more; got "
            f"tol={tol!r}, max_iter={max_iter!r}. Leave them out for 1e-8 and 500."
        )


def _scaled(M: Any, xp: Any) -> tuple[Any, float]:
    """A matrix whose squares are safe numbers, and what it was divided by, 0 if it is zero.

    Refuses NaN and infinity.
    """
    smallest, largest = _PLAIN
    if smallest < squared_norm(M) < largest:
        return M, 1.0
    if known(xp.all(xp.isfinite(M))) == 0:
        bad = ~xp.isfinite(M)
        count, first = int(xp.count_nonzero(bad)), tuple(int(index[0]) for index in xp.nonzero(bad))
        raise DataError(
            f"nearest_kronecker: every entry must be finite; M has {count} of {math.prod(M.shape)} entries "
            f"that are not, the first at {first}. Replace them first."
        )
    scale = to_number(xp.max(xp.abs(M)))
    return M / scale if scale else M, scale


def _rel_error(tensor: Any, vectors: Sequence[Any], xp: Any) -> float:
    """``||T - sum of outer products|| / ||T||`` from the residual, a block of rows at a time."""
    first, rest = vectors[0], vectors[1]
    for factor in vectors[2:]:
        rest = xp.reshape(rest[:, None, :] * factor, (-1, rest.shape[1]))
    rest = xp.matrix_transpose(rest)
    matrix = xp.reshape(tensor, (tensor.shape[0], -1))
    error2 = 0.0
    for block in spans(matrix.shape[0], max(_ROWS, _ROWS * 1024 // matrix.shape[1])):
        error2 += squared_norm(matrix[block, :] - first[block, :] @ rest)
    return math.sqrt(error2 / squared_norm(tensor))


def _term(vectors: Sequence[Any], shapes: Sequence[tuple[int, int]], scale: float, xp: Any) -> list[Any]:
    """Factors of one term from its vectors: equal norms, and a positive largest entry in all but the last."""
    norms = [to_number(xp.linalg.vector_norm(vector)) for vector in vectors]
    if not all(norms):
        return [
            xp.reshape(xp.zeros_like(vector), shape) for vector, shape in zip(vectors, shapes, strict=True)
        ]
    size = math.exp(sum(map(math.log, (*norms, scale))) / len(norms))
    factors, turn = [], 1.0
    for vector, norm in zip(vectors[:-1], norms, strict=False):
        peak = vector[int(xp.argmax(xp.abs(vector)))]
        phase = peak / xp.abs(peak)
        turn = turn * phase
        factors.append(vector / phase * (size / norm))
    factors.append(vectors[-1] * turn * (size / norms[-1]))
    return [xp.reshape(factor, shape) for factor, shape in zip(factors, shapes, strict=True)]
