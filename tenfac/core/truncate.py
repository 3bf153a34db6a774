"""Sequentially truncated HOSVD of an array, by rank or by error, with a certified error."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from tenfac.core.arrays import device_of, eps, namespace_of, spans, to_number, to_numpy, triangular_factor
from tenfac.core.contract import adjoint, contract
from tenfac.core.errors import RankError, warn_user
from tenfac.core.precision import HALF, double_of, dtype_name, is_complex, wide
from tenfac.core.report import Report
from tenfac.core.tracing import constant, is_traced

# Columns of an unfolding handled at once. Wide enough for GEMM, small next to the tensor.
_COLUMNS = 2**11
# Numbers in a slab of the tensor that is formed again to measure an error of the order of rounding.
_NUMBERS = 2**20
# Below this many roundings of the dtype an error is measured on the tensor: rounded factors add to it.
_ROUNDING = 100
# Squared norms below this have lost digits to underflow.
_SMALLEST = {"float64": 1e-270, "float32": 1e-30}
# Longest mode whose unfolding is squared, in columns of it; fraction of a block of columns from which a layer
# of the tensor is one of its own.
_SQUARED, _LAYER = 2, 0.5
# Share of a tolerance that is left when the result is stored in half precision, whose rounding has its own.
_HALF_SHARE = 0.9
# Residuals below this many roundings are exact.
_EXACT = 8


class _Limits(NamedTuple):
    """Relative errors of a Gram matrix, by the widest dtype."""

    floor: float  # below it the eigenvalues no longer tell what was discarded to 1 %
    trusted: float  # below it the eigenvectors are no longer the best ones either
    hopeless: float  # below it there is no use in trying


_GRAM_LIMITS = {"float64": _Limits(1e-5, 3e-6, 1e-6), "float32": _Limits(0.23, 0.07, 0.023)}


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
    double = dtype_name(double_of(xp))
    if not _SMALLEST[double] < norm2 < math.inf:  # its square root may still be an ordinary number
        largest = to_number(xp.max(xp.abs(tensor)))
        if largest > 0:
            core, found, rel_error = truncate(tensor / largest, ranks, tol, modes=modes)
            return core * largest, found, rel_error
        kept = range(len(shape)) if modes is None else modes
        ranks = [(ranks[n] if ranks else 1) if n in kept else shape[n] for n in range(len(shape))]
        unit = [
            xp.eye(i, r, dtype=tensor.dtype, device=device_of(tensor)) if n in kept else None
            for n, (i, r) in enumerate(zip(shape, ranks, strict=True))
        ]
        return tensor[tuple(slice(r) for r in ranks)], tuple(unit), 0.0
    whole = tensor
    factors: list[Any] = [None] * len(shape)
    lost2 = 0.0
    order = [n for n in _mode_order(shape, ranks) if modes is None or n in modes]
    for done, n in enumerate(order):
        rank = None if ranks is None else ranks[n]
        share2 = math.nan if tol is None else max(tol**2 * norm2 - lost2, 0.0) / (len(order) - done)
        factors[n], tensor, tail2 = _step(tensor, n, rank, share2, norm2, tol, _GRAM_LIMITS[double], xp)
        lost2 += tail2
    rel_error = math.sqrt(lost2 / norm2)
    if modes is None and rel_error < _ROUNDING * eps(tensor.dtype):
        rel_error = math.sqrt(_whole_residual2(whole, tensor, factors, xp) / norm2)
    return tensor, tuple(factors), rel_error


def truncation_report(
    where: str, rel_error: Any, tol: float | None, start: float, notes: tuple[str, ...] = ()
) -> Report:
    """Report on a truncation begun at ``start`` (``perf_counter``); warn if rounding kept it above ``tol``.

    Examples
    --------
    >>> truncation_report("tucker", 0.01, 0.1, perf_counter()).reason
    'tolerance met'
    """
    converged = tol is None or rel_error <= tol
    reason = "rank reached" if tol is None else "tolerance met" if converged else "rounding above tolerance"
    if not converged:
        notes = (
            *notes,
            f"{where}: the relative error is {rel_error:.2g}, above tol={tol:g}, because of rounding. Raise "
            "tol, or convert the data to a wider dtype.",
        )
        warn_user(notes[-1])
    seconds = None if is_traced(rel_error) else perf_counter() - start
    return Report(converged, reason, rel_error=rel_error, seconds=seconds, warnings=notes)


def kept_share(dtype: Any) -> float:
    """Share of a tolerance for a result stored in ``dtype``: the rounding to half precision needs its own.

    Examples
    --------
    >>> kept_share(np.dtype("float64"))
    1.0
    """
    return _HALF_SHARE if dtype_name(dtype) in HALF else 1.0


def truncate_any(
    tensor: Any,
    ranks: Sequence[int] | None,
    tol: float | None,
    ndim: int,
    dtype: Any,
    where: str,
    *,
    norm2: float | None = None,
) -> tuple[Any, Sequence[Any], Any]:
    """``truncate`` for one tensor of known values, ``truncate_fixed`` for a batch or values not known yet.

    Parameters
    ----------
    tensor : array, shape (*b, I_0, ..., I_{D-1})
    ranks, tol
        As for ``truncate``.
    ndim : int
        Number of modes; axes before are a batch.
    dtype : dtype
        What the result is stored in: half precision leaves a part of ``tol`` to its rounding.
    where : str
        Name of the caller, for the message.
    norm2 : float, optional
        ``squared_norm(tensor)`` of one tensor, if it is known.

    Raises
    ------
    RankError
        If ``tol`` should decide on the rank of a batch or of values that are not known.

    Examples
    --------
    >>> import numpy as np
    >>> truncate_any(np.ones((7, 3, 4)), (1, 1), None, 2, np.dtype("float64"), "tucker")[0].shape
    (7, 1, 1)
    """
    if tensor.ndim == ndim and not is_traced(tensor):
        return truncate(tensor, ranks, None if tol is None else kept_share(dtype) * tol, norm2=norm2)
    if ranks is None:
        what = "a batch of tensors" if tensor.ndim > ndim else "values not known yet (jit, vmap, grad)"
        raise RankError(
            f"{where}: tol chooses the ranks from the values, so it needs one tensor with known values; got "
            f"tol={tol:g} and {what}. Give rank instead, or call {where} outside."
        )
    return truncate_fixed(tensor, ranks, ndim)


def truncate_fixed(tensor: Any, ranks: Sequence[int], ndim: int) -> tuple[Any, list[Any], Any]:
    """``truncate`` to given ranks with no branch on values: for batches, ``jit``, ``vmap`` and ``grad``.

    Parameters
    ----------
    tensor : array, shape (*b, I_0, ..., I_{D-1})
    ranks : sequence of D int
    ndim : int
        D; the axes before the last D are a batch.

    Returns
    -------
    core : array, shape (*b, R_0, ..., R_{D-1})
    factors : list of arrays, shapes (*b, I_n, R_n)
    rel_error : array, shape (*b,)
        Norm of what was left out, computed as it stands.

    Notes
    -----
    Bases come from Gram matrices in float64, which decide well down to relative errors of 3e-6; where a value
    can be read and is smaller, all is done again by QR and SVD. Without float64 (JAX) it is QR and SVD.

    Examples
    --------
    >>> import numpy as np
    >>> core, factors, error = truncate_fixed(np.ones((7, 3, 4)), (1, 1), 2)
    >>> core.shape, factors[0].shape, error.shape
    ((7, 1, 1), (7, 3, 1), (7,))
    """
    xp = namespace_of(tensor)
    axes = tuple(range(tensor.ndim - ndim, tensor.ndim))
    largest = xp.max(xp.abs(constant(tensor)), axis=axes, keepdims=True)
    largest = xp.where(largest > 0, largest, xp.ones_like(largest))
    scaled = tensor / largest
    precise = dtype_name(double_of(xp)) == "float32"
    core, factors, rel_error = _fixed(scaled, ranks, axes, precise, xp)
    if not (precise or is_traced(tensor)):
        errors = to_numpy(rel_error)
        trusted = _GRAM_LIMITS["float64"].trusted
        if ((errors < trusted) & (errors > _EXACT * eps(tensor.dtype))).any():
            core, factors, rel_error = _fixed(scaled, ranks, axes, True, xp)
    return core * largest, factors, rel_error


def _fixed(
    tensor: Any, ranks: Sequence[int], axes: Sequence[int], precise: bool, xp: Any
) -> tuple[Any, list[Any], Any]:
    shape = tuple(tensor.shape[axis] for axis in axes)
    norm2, lost2 = _squares(tensor, axes, xp), 0.0
    factors: list[Any] = [None] * len(axes)
    for n in _mode_order(shape, ranks):
        others = [axis for axis in axes if axis != axes[n]]
        order = (*range(axes[0]), axes[n], *others)
        columns = math.prod(tensor.shape[axis] for axis in others)
        flat = xp.reshape(xp.permute_dims(tensor, order), (*tensor.shape[: axes[0]], shape[n], columns))
        thin = _SQUARED * columns <= shape[n]
        basis = (_svd_vectors if precise or thin else _gram_vectors)(wide(flat, xp), ranks[n], xp)
        factors[n] = xp.astype(basis, tensor.dtype, copy=False)
        adjoint = xp.matrix_transpose(xp.conj(factors[n]) if is_complex(tensor) else factors[n])
        small = contract(tensor, [adjoint if m == n else None for m in range(len(axes))], xp=xp)
        back = contract(small, [factors[n] if m == n else None for m in range(len(axes))], xp=xp)
        lost2 = _squares(tensor - back, axes, xp) + lost2
        tensor = small
    share = lost2 / xp.where(norm2 == 0, xp.ones_like(norm2), norm2)
    return tensor, factors, xp.sqrt(share)


def _squares(tensor: Any, axes: Sequence[int], xp: Any) -> Any:
    """Squared norm of each tensor of a batch, in float64 where there is one."""
    tensor = wide(tensor, xp)
    tensor = xp.real(tensor * xp.conj(tensor)) if is_complex(tensor) else tensor * tensor
    return xp.sum(tensor, axis=tuple(axes))


def _gram_vectors(flat: Any, rank: int, xp: Any) -> Any:
    adjoint = xp.matrix_transpose(xp.conj(flat) if is_complex(flat) else flat)
    vectors = xp.linalg.eigh(xp.matmul(flat, adjoint))[1]
    return xp.flip(vectors, axis=-1)[..., :rank]


def _svd_vectors(flat: Any, rank: int, xp: Any) -> Any:
    if flat.shape[-1] > flat.shape[-2]:
        flat = xp.matrix_transpose(xp.linalg.qr(xp.matrix_transpose(flat))[1])
    vectors = xp.linalg.svd(flat, full_matrices=False)[0]
    return _completed(vectors, rank, xp)[..., :rank]


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
    total, step = 0.0, 2**20
    with np.errstate(over="ignore", invalid="ignore"):  # a complex overflow is NaN
        for span in spans(flat.shape[0], step):
            part = wide(flat[span], xp)
            total += to_number(xp.real(xp.vecdot(part, part)) if is_complex(part) else xp.vecdot(part, part))
    return total


def _mode_order(shape: Sequence[int], ranks: Sequence[int] | None) -> list[int]:
    """Order of least work: a step on mode n costs (I + R) times the tensor's size and leaves R / I of it."""
    if ranks is None:
        return sorted(range(len(shape)), key=lambda n: shape[n])

    def work_per_reduction(n: int) -> float:
        return math.inf if ranks[n] == shape[n] else (shape[n] + ranks[n]) / (1 - ranks[n] / shape[n])

    return sorted(range(len(shape)), key=lambda n: (work_per_reduction(n), shape[n]))


def _step(
    tensor: Any,
    n: int,
    rank: int | None,
    share2: float,
    norm2: float,
    tol: float | None,
    limits: _Limits,
    xp: Any,
) -> tuple[Any, Any, float]:
    """Truncate one mode: its factor, the smaller tensor, and the squared norm of what was discarded."""
    if _SQUARED * math.prod(tensor.shape) <= tensor.shape[n] ** 2:  # the unfolding has few columns
        factor, small, _ = _project(tensor, n, *_thin_basis(tensor, n, rank, xp), rank, share2, xp)
        return factor, small, _residual2(tensor, factor, small, n, xp)
    floor, trusted, hopeless = limits
    if tol is None or tol >= hopeless:
        factor, small, tail2 = _project(tensor, n, *_gram_basis(tensor, n, xp), rank, share2, xp)
        if tail2 > floor**2 * norm2:
            return factor, small, tail2
        tail2 = _residual2(tensor, factor, small, n, xp)
        exact = factor.shape[1] == factor.shape[0] or tail2 <= (_EXACT * eps(tensor.dtype)) ** 2 * norm2
        if exact or (tail2 <= share2 if rank is None else tail2 > trusted**2 * norm2):
            return factor, small, tail2
    factor, small, _ = _project(tensor, n, *_qr_basis(tensor, n, xp), rank, share2, xp)
    return factor, small, _residual2(tensor, factor, small, n, xp)


def _project(
    tensor: Any, n: int, basis: Any, squares: Any, rank: int | None, share2: float, xp: Any
) -> tuple[Any, Any, float]:
    """Keep ``rank`` columns of the basis, or as many as leave at most ``share2``; project on them."""
    values = np.maximum(to_numpy(squares).astype(np.float64), 0.0)
    tails = np.append(np.cumsum(values[::-1])[::-1], 0.0)
    if rank is None:
        rank = max(int(np.argmax(tails <= share2)), 1)
    factor = xp.astype(basis[:, :rank], tensor.dtype, copy=False)
    turned = adjoint(factor, xp)
    matrices = [turned if m == n else None for m in range(tensor.ndim)]
    return factor, contract(tensor, matrices, xp=xp), float(values[rank:].sum())


def _gram_basis(tensor: Any, n: int, xp: Any) -> tuple[Any, Any]:
    """Left singular vectors and squared singular values of an unfolding, from its Gram matrix in float64."""
    gram = None
    for block in _blocks(tensor, n, xp):
        product = block @ adjoint(block, xp)
        gram = product if gram is None else gram + product
    values, vectors = xp.linalg.eigh(gram)
    return xp.flip(vectors, axis=1), xp.flip(values, axis=0)


def _qr_basis(tensor: Any, n: int, xp: Any) -> tuple[Any, Any]:
    """The same, to full precision: SVD of the triangular factor of a blocked QR."""
    upper: Any = None
    for block in _blocks(tensor, n, xp):
        rows = block.T if upper is None else xp.concat([upper, block.T], axis=0)
        upper = triangular_factor(rows)
    vectors, values, _ = xp.linalg.svd(upper.T)
    return vectors, values**2


def _thin_basis(tensor: Any, n: int, rank: int | None, xp: Any) -> tuple[Any, Any]:
    """The same for an unfolding with few columns: no square matrix of the size of the mode is formed."""
    rows = (tensor.shape[n], math.prod(tensor.shape) // tensor.shape[n])
    flat = wide(xp.reshape(xp.moveaxis(tensor, n, 0), rows), xp)
    vectors, values, _ = xp.linalg.svd(flat, full_matrices=False)
    return vectors if rank is None else _completed(vectors, rank, xp), values**2


def _completed(vectors: Any, rank: int, xp: Any) -> Any:
    """Orthonormal columns, with as many more as ``rank`` asks for."""
    size, known = vectors.shape[-2:]
    if rank <= known:
        return vectors
    unit = xp.eye(size, rank - known, dtype=vectors.dtype, device=device_of(vectors))
    unit = xp.broadcast_to(unit, (*vectors.shape[:-2], *unit.shape))
    more = xp.linalg.qr(xp.concat([vectors, unit], axis=-1))[0]
    return xp.concat([vectors, more[..., known:]], axis=-1)


def _residual2(tensor: Any, factor: Any, small: Any, n: int, xp: Any) -> float:
    """``||tensor - factor x_n small||^2`` of the stored numbers, accumulated in float64."""
    basis = wide(factor, xp)
    total = 0.0
    for block, kept in zip(_blocks(tensor, n, xp), _blocks(small, n, xp, tensor.shape[n]), strict=True):
        total += squared_norm(block - basis @ kept)
    return total


def _whole_residual2(tensor: Any, core: Any, factors: Sequence[Any], xp: Any) -> float:
    """``||tensor - core x_0 A x_1 B ...||^2`` of the stored numbers, slab by slab of the first mode."""
    core, first, *rest = (wide(array, xp) for array in (core, *factors))
    step = max(_NUMBERS // max(math.prod(tensor.shape[1:]), 1), 1)
    total = 0.0
    for span in spans(tensor.shape[0], step):
        slab = tensor[span, ...]
        total += squared_norm(wide(slab, xp) - contract(core, [first[span, :], *rest], xp=xp))
    return total


def _blocks(tensor: Any, n: int, xp: Any, size: int | None = None) -> Iterator[Any]:
    """Yield the mode-n unfolding in double precision, in blocks of columns (as wide as for ``size`` rows)."""
    left, right = math.prod(tensor.shape[:n]), math.prod(tensor.shape[n + 1 :])
    stack = xp.reshape(tensor, (left, tensor.shape[n], right))
    columns = max(_COLUMNS, 4 * (size or tensor.shape[n]))
    if right == 1:
        matrix = stack[:, :, 0].T
        for span in spans(left, columns):
            yield wide(matrix[:, span], xp)
    elif right >= _LAYER * columns:
        for layer in range(left):
            for span in spans(right, columns):
                yield wide(stack[layer, :, span], xp)
    else:
        group = columns // right
        for span in spans(left, group):
            part = wide(xp.permute_dims(stack[span, :, :], (1, 0, 2)), xp)
            yield xp.reshape(part, (tensor.shape[n], part.shape[1] * right))
