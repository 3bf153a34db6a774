"""Sequentially truncated HOSVD of an array, by rank or by error, with a certified error."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from .arrays import eps, namespace_of, to_number, triangular_factor
from .contract import contract
from .errors import ConvergenceWarning
from .report import Report

# Columns of an unfolding handled at once. Wide enough for GEMM, small next to the tensor.
_COLUMNS = 2048
# Squared norms below this have lost digits to underflow.
_SMALLEST = 1e-270
# Below this relative error the eigenvalues of a float64 Gram matrix no longer tell what was discarded to 1 %.
_GRAM_FLOOR = 1e-5
# Below this relative error its eigenvectors are no longer the best ones either.
_GRAM_TRUSTED = 3e-6


def truncate(
    tensor: Any,
    ranks: Sequence[int] | None,
    tol: float | None = None,
    *,
    norm2: float | None = None,
    modes: Sequence[int] | None = None,
) -> tuple[Any, tuple[Any, ...], float]:
    """Compress an array by orthonormal factors, mode after mode.

    Parameters
    ----------
    tensor : array, shape (I_0, ..., I_{D-1})
        Finite, float or complex, not empty.
    ranks : sequence of D int or None
        Ranks, ``1 <= R_n <= I_n``; None when ``tol`` decides.
    tol : float or None
        Relative Frobenius error to keep.
    norm2 : float, optional
        ``squared_norm(tensor)``, if it is known.
    modes : sequence of int, optional
        Compress these modes only; the others keep their size, and their factor is None.

    Returns
    -------
    core : array, shape (R_0, ..., R_{D-1})
    factors : tuple of arrays, shapes (I_n, R_n)
        Orthonormal columns.
    rel_error : float
        Relative error of the result, from the parts discarded in each mode (they are orthogonal).

    Notes
    -----
    Each step takes the leading left singular vectors of an unfolding of what is left: from its Gram matrix in
    float64, or, where squaring would hide the discarded part, from the triangular factor of a blocked QR. The
    error that one mode does not use of its share of ``tol`` is passed on to the next. Modes go in the order
    of least work. Cost with ranks: about ``2 (I + R) prod(I)`` for the first mode, less for every further
    one.

    References
    ----------
    .. [1] N. Vannieuwenhoven, R. Vandebril and K. Meerbergen, A new truncation strategy for the higher-order
       singular value decomposition, SIAM J. Sci. Comput. 34 (2012), algorithm 1 and theorem 5.1.
       doi:10.1137/110836067

    Examples
    --------
    >>> import numpy as np
    >>> core, factors, error = truncate(np.ones((3, 4, 5)), (1, 1, 1))
    >>> core.shape, error < 1e-15
    ((1, 1, 1), True)
    """
    xp = namespace_of(tensor)
    shape = tuple(tensor.shape)
    norm2 = squared_norm(tensor) if norm2 is None else norm2
    if not _SMALLEST < norm2 < math.inf:  # its square root may still be an ordinary number
        largest = to_number(xp.max(xp.abs(tensor)))
        if largest > 0:
            core, factors, rel_error = truncate(tensor / largest, ranks, tol, modes=modes)
            return core * largest, factors, rel_error
        kept = range(len(shape)) if modes is None else modes
        ranks = [(ranks[n] if ranks else 1) if n in kept else shape[n] for n in range(len(shape))]
        factors = [
            xp.eye(i, r, dtype=tensor.dtype, device=tensor.device) if n in kept else None
            for n, (i, r) in enumerate(zip(shape, ranks, strict=True))
        ]
        return tensor[tuple(slice(r) for r in ranks)], tuple(factors), 0.0
    factors: list[Any] = [None] * len(shape)
    budget2 = 0.0 if tol is None else tol**2 * norm2
    lost2 = 0.0
    order = [n for n in _mode_order(shape, ranks) if modes is None or n in modes]
    for done, n in enumerate(order):
        rank = None if ranks is None else ranks[n]
        share2 = max(budget2 - lost2, 0.0) / (len(order) - done)
        factors[n], tensor, tail2 = _step(tensor, n, rank, share2, norm2, tol, xp)
        lost2 += tail2
    return tensor, tuple(factors), math.sqrt(lost2 / norm2)


def truncation_report(where: str, rel_error: float, tol: float | None, start: float) -> Report:
    """Report on a truncation begun at ``start`` (``perf_counter``); warn if rounding kept it above ``tol``.

    Examples
    --------
    >>> truncation_report("tucker", 0.01, 0.1, perf_counter()).reason
    'tolerance met'
    """
    converged = tol is None or rel_error <= tol
    reason = "rank reached" if tol is None else "tolerance met" if converged else "rounding above tolerance"
    notes: tuple[str, ...] = ()
    if not converged:
        notes = (
            f"{where}: the relative error is {rel_error:.2g}, above tol={tol:g}, because of rounding. Raise "
            "tol, or convert the data to a wider dtype.",
        )
        warnings.warn(notes[0], ConvergenceWarning, stacklevel=3)
    return Report(converged, reason, rel_error=rel_error, seconds=perf_counter() - start, warnings=notes)


def squared_norm(tensor: Any) -> float:
    """Sum of squared magnitudes, accumulated in float64.

    Examples
    --------
    >>> import numpy as np
    >>> squared_norm(np.full((10, 10), 0.1, dtype="float32")) - 1 < 1e-6
    True
    """
    xp = namespace_of(tensor)
    flat = xp.reshape(tensor, (-1,))
    total, step, size = 0.0, 2**20, flat.shape[0]
    with np.errstate(over="ignore", invalid="ignore"):  # a complex overflow is NaN
        for start in range(0, size, step):
            part = _wide(flat[start : min(start + step, size)], xp)  # a stop past the end is not standard
            total += to_number(
                xp.real(xp.vecdot(part, part)) if _is_complex(part, xp) else xp.vecdot(part, part)
            )
    return total


def _mode_order(shape: Sequence[int], ranks: Sequence[int] | None) -> list[int]:
    """Order of least work: a step on mode n costs (I + R) times the tensor's size and leaves R / I of it."""
    if ranks is None:
        return sorted(range(len(shape)), key=lambda n: shape[n])

    def work_per_reduction(n: int) -> float:
        return math.inf if ranks[n] == shape[n] else (shape[n] + ranks[n]) / (1 - ranks[n] / shape[n])

    return sorted(range(len(shape)), key=lambda n: (work_per_reduction(n), shape[n]))


def _step(
    tensor: Any, n: int, rank: int | None, share2: float, norm2: float, tol: float | None, xp: Any
) -> tuple[Any, Any, float]:
    """Truncate one mode: its factor, the smaller tensor, and the squared norm of what was discarded."""
    if tol is None or tol >= 1e-6:
        factor, small, tail2 = _project(tensor, n, *_gram_basis(tensor, n, xp), rank, share2, xp)
        if tail2 > _GRAM_FLOOR**2 * norm2:
            return factor, small, tail2
        tail2 = _residual2(tensor, factor, small, n, xp)
        exact = factor.shape[1] == factor.shape[0] or tail2 <= (8 * eps(tensor.dtype)) ** 2 * norm2
        if exact or (tail2 <= share2 if rank is None else tail2 > _GRAM_TRUSTED**2 * norm2):
            return factor, small, tail2
    factor, small, _ = _project(tensor, n, *_qr_basis(tensor, n, xp), rank, share2, xp)
    return factor, small, _residual2(tensor, factor, small, n, xp)


def _project(
    tensor: Any, n: int, basis: Any, squares: Any, rank: int | None, share2: float, xp: Any
) -> tuple[Any, Any, float]:
    """Keep ``rank`` columns of the basis, or as many as leave at most ``share2``; project on them."""
    values = [max(to_number(value), 0.0) for value in squares]
    tails = np.append(np.cumsum(values[::-1])[::-1], 0.0)
    if rank is None:
        rank = max(int(np.argmax(tails <= share2)), 1)
    factor = xp.astype(basis[:, :rank], tensor.dtype, copy=False)
    adjoint = xp.conj(factor.T) if _is_complex(factor, xp) else factor.T
    matrices = [adjoint if m == n else None for m in range(tensor.ndim)]
    return factor, contract(tensor, matrices, xp=xp), float(tails[rank])


def _gram_basis(tensor: Any, n: int, xp: Any) -> tuple[Any, Any]:
    """Left singular vectors and squared singular values of an unfolding, from its Gram matrix in float64."""
    gram = 0.0
    for block in _blocks(tensor, n, xp):
        adjoint = xp.conj(block.T) if _is_complex(block, xp) else block.T
        gram = block @ adjoint + gram
    values, vectors = xp.linalg.eigh(gram)
    return xp.flip(vectors, axis=1), xp.flip(values, axis=0)


def _qr_basis(tensor: Any, n: int, xp: Any) -> tuple[Any, Any]:
    """The same, to full precision: SVD of the triangular factor of a blocked QR."""
    upper = None
    for block in _blocks(tensor, n, xp):
        rows = block.T if upper is None else xp.concat([upper, block.T], axis=0)
        upper = triangular_factor(rows)
    vectors, values, _ = xp.linalg.svd(upper.T, full_matrices=upper.shape[0] < upper.shape[1])
    missing = vectors.shape[1] - values.shape[0]
    if missing:
        values = xp.concat([values, xp.zeros(missing, dtype=values.dtype, device=values.device)])
    return vectors, values**2


def _residual2(tensor: Any, factor: Any, small: Any, n: int, xp: Any) -> float:
    """``||tensor - factor x_n small||^2`` of the stored numbers, accumulated in float64."""
    wide = _wide(factor, xp)
    total = 0.0
    for block, kept in zip(_blocks(tensor, n, xp), _blocks(small, n, xp, tensor.shape[n]), strict=True):
        total += squared_norm(block - wide @ kept)
    return total


def _blocks(tensor: Any, n: int, xp: Any, size: int | None = None) -> Iterator[Any]:
    """Yield the mode-n unfolding in double precision, in blocks of columns (as wide as for ``size`` rows)."""
    left, right = math.prod(tensor.shape[:n]), math.prod(tensor.shape[n + 1 :])
    stack = xp.reshape(tensor, (left, tensor.shape[n], right))
    columns = max(_COLUMNS, 4 * (size or tensor.shape[n]))
    if right == 1:
        matrix = stack[:, :, 0].T
        for start in range(0, left, columns):
            yield _wide(matrix[:, start : start + columns], xp)
    elif 2 * right >= columns:
        for layer in range(left):
            for start in range(0, right, columns):
                yield _wide(stack[layer, :, start : start + columns], xp)
    else:
        group = columns // right
        for start in range(0, left, group):
            part = _wide(xp.permute_dims(stack[start : start + group], (1, 0, 2)), xp)
            yield xp.reshape(part, (tensor.shape[n], part.shape[1] * right))


def _wide(array: Any, xp: Any) -> Any:
    return xp.astype(array, xp.complex128 if _is_complex(array, xp) else xp.float64, copy=False)


def _is_complex(array: Any, xp: Any) -> bool:
    return xp.isdtype(array.dtype, "complex floating")
