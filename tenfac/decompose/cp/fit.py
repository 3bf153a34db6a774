"""The stages of a CP fit: compress, search, polish; then normalise, sort and report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

from tenfac.core.arrays import eps, seed_of, to_numpy
from tenfac.core.cp import CP
from tenfac.core.errors import warn_user
from tenfac.core.progress import STOPPED
from tenfac.core.report import Report
from tenfac.core.truncate import truncate
from tenfac.decompose.checks import rescaled
from tenfac.decompose.cp.degenerate import degeneracy
from tenfac.decompose.cp.mttkrp import DenseTensor
from tenfac.decompose.cp.search import Options, search
from tenfac.decompose.cp.sparse_tensor import SparseTensor
from tenfac.decompose.cp.start import detached, expanded, given_start
from tenfac.decompose.cp.sweep import Starts

# Arrays of this many entries or fewer are fitted as they are, in double precision, on the CPU.
_SMALL = 2**16
# Random starts: in a core or a small array, and where each sweep passes over all data.
_STARTS = (10, 3)
# A core is searched in place of the array where it has at most this share of the entries, and is polished on
# the array unless what it leaves out is this many roundings or fewer.
_WORTHWHILE, _NOTHING = 0.5, 10


@dataclass(frozen=True)
class Fit:
    """Factors found, and how.

    Parameters
    ----------
    target : DenseTensor or SparseTensor
        What was fitted, ``scale`` times smaller than the data.
    factors : list of numpy arrays, shapes (R, I_n)
    converged : bool
    reason : str
    scale : float

    Examples
    --------
    >>> Fit(DenseTensor(np.ones((2, 2))), [np.ones((1, 2))] * 2, True, "error no longer falls").scale
    1.0
    """

    target: Any
    factors: list[np.ndarray]
    converged: bool
    reason: str
    scale: float = 1.0


def fit_dense(X: Any, norm2: float, options: Options) -> Fit:
    """Fit a finite dense array.

    Examples
    --------
    >>> fit_dense(np.ones((2, 3, 4)), 24.0, Options(rank=1)).reason
    'exact to rounding'
    """
    X, norm2, scale = rescaled(detached(X), norm2)
    target = DenseTensor(X, math.sqrt(norm2))
    if norm2 == 0:
        return _zero(target, options.rank)
    factors = _given(target, options, scale)
    work = target
    if math.prod(target.shape) <= _SMALL:
        work = DenseTensor(_wide(X), target.norm)
        factors = None if factors is None else [_wide(factor) for factor in factors]
    return replace(_fit_array(work, factors, options), target=target, scale=scale)


def fit_sparse(target: SparseTensor, options: Options) -> Fit:
    """Fit a sparse array; entries that are not stored are zeros.

    Examples
    --------
    >>> X = SparseTensor(np.zeros((3, 1), dtype=int), np.ones(1), (3, 4, 5))
    >>> fit_sparse(X, Options(rank=1)).reason
    'exact to rounding'
    """
    target, scale = target.rescaled()
    if target.norm == 0:
        return _zero(target, options.rank)
    factors = _given(target, options, scale)
    if factors is not None:
        return replace(_from_start(target, factors, options), scale=scale)
    return replace(_of(target, search(target, options, _STARTS[1]), options), scale=scale)


def _given(target: Any, options: Options, scale: float) -> list[Any] | None:
    if options.init is None:
        return None
    return given_start(options.init, target, options.rank, scale=scale, nonnegative=options.nonnegative)


def _fit_array(target: DenseTensor, factors: list[Any] | None, options: Options) -> Fit:
    """From factors if they are given; else by search in the Tucker core, polished on the array."""
    shape, size, norm2 = target.shape, math.prod(target.shape), target.norm**2
    if factors is not None:
        return _from_start(target, factors, options)
    if len(shape) == 2 and not options.nonnegative:
        return Fit(target, _singular_vectors(target.array, options.rank, norm2), True, "exact by SVD")
    ranks = [min(options.rank, i) for i in shape]
    if options.nonnegative or math.prod(ranks) > _WORTHWHILE * size:
        return _of(target, search(target, options, _STARTS[size > _SMALL or options.nonnegative]), options)
    core, bases, lost = truncate(target.array, ranks, norm2=norm2)
    small, progress = DenseTensor(_wide(core)), options.progress
    progress.log("compressed to %s, which leaves out %.3g", tuple(core.shape), lost)
    share = small.norm / target.norm
    progress.total = lambda error: math.hypot(lost, error * share)
    starts = search(small, options, _STARTS[0])
    factors = expanded(starts.factors, [_wide(basis) for basis in bases])
    if lost <= _NOTHING * eps(target.dtype):
        return Fit(target, [factor[0] for factor in factors], *_end(starts, options))
    progress.total = float
    like = {"dtype": target.wide, "device": target.device}
    return _from_start(target, [target.xp.asarray(factor, **like) for factor in factors], options)


def _from_start(target: Any, factors: list[Any], options: Options) -> Fit:
    starts = Starts(target, factors, options.tol, nonnegative=options.nonnegative)
    starts.advance(options.progress.left, options.progress)
    return _of(target, starts, options)


def _of(target: Any, starts: Starts, options: Options) -> Fit:
    return Fit(target, [to_numpy(factor)[0] for factor in starts.factors], *_end(starts, options))


def _end(starts: Starts, options: Options) -> tuple[bool, str]:
    """Whether the only start left has converged, and why it stopped."""
    if options.progress.stopped:
        return False, STOPPED
    if starts.exact[0]:
        return True, "exact to rounding"
    return (True, "error no longer falls") if starts.done[0] else (False, "max_iter reached")


def _singular_vectors(X: Any, rank: int, norm2: float) -> list[np.ndarray]:
    core, bases, _ = truncate(X, (rank, rank), norm2=norm2)
    left, values, right = np.linalg.svd(_wide(core))
    return [values[:, None] * (_wide(bases[0]) @ left).T, right @ _wide(bases[1]).T]


def _zero(target: Any, rank: int) -> Fit:
    factors = [np.zeros((rank, size)) for size in target.shape]
    return Fit(target, factors, True, "X is zero")


def _wide(array: Any) -> np.ndarray:
    array = to_numpy(array)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def normalized(factors: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Weights, positive and falling, and factors ``(I_n, R)`` with unit columns of settled sign.

    Examples
    --------
    >>> weights, factors = normalized([np.array([[3.0, 4.0]]), np.array([[-2.0]])])
    >>> weights, factors[0][:, 0], factors[1][:, 0]
    (array([10.]), array([-0.6, -0.8]), array([1.]))
    """
    weights, columns = np.ones(factors[0].shape[0]), []
    for factor in factors:
        norms = np.linalg.norm(factor, axis=1)
        weights = weights * norms
        columns.append((factor / np.maximum(norms, np.finfo(float).tiny)[:, None]).T)
    order = np.argsort(-weights, kind="stable")
    columns = [column[:, order] for column in columns]
    for n in range(1, len(columns)):
        top = np.take_along_axis(columns[n], np.argmax(np.abs(columns[n]), axis=0)[None], axis=0)[0]
        phase = np.where(top == 0, 1.0, np.sign(top))
        columns[n] = columns[n] * np.conj(phase)
        columns[0] = columns[0] * phase
    return weights[order], columns


def as_result(fit: Fit, options: Options, random_state: Any, start: float, warn: bool) -> CP:
    """The CP tensor of a fit in the dtype of its data, with its report; warns where it did not converge.

    Examples
    --------
    >>> options = Options(rank=1)
    >>> fit = fit_dense(np.ones((2, 3, 4)), 24.0, options)
    >>> as_result(fit, options, 0, perf_counter(), True).weights.round(6)
    array([4.898979])
    """
    target, progress, xp = fit.target, options.progress, fit.target.xp
    weights, columns = normalized(fit.factors)
    notes = tuple(filter(None, [degeneracy(weights, columns, target.norm)]))
    converged, reason = (
        (False, "two-factor degeneracy") if notes and not progress.stopped else (fit.converged, fit.reason)
    )
    if reason == "max_iter reached":
        notes += (
            f"cp: after max_iter={progress.max_iter} sweeps the error still falls by more than tol="
            f"{options.tol:g} of itself a sweep. Raise max_iter or tol.",
        )
    like = {"dtype": target.dtype, "device": target.device}
    factors = [xp.asarray(np.ascontiguousarray(column), **like) for column in columns]
    kept = xp.asarray(weights, **like)
    wide = [xp.astype(xp.matrix_transpose(factor), target.wide) for factor in factors]
    wide[0] = wide[0] * xp.astype(kept, target.wide)[:, None]
    rel_error = target.distance(wide) / max(target.norm, np.finfo(float).tiny)
    report = Report(
        converged, reason, n_iter=progress.n_iter, rel_error=rel_error, history=tuple(progress.history),
        seconds=perf_counter() - start, random_state=seed_of(random_state), warnings=notes,
    )  # fmt: skip
    if warn and not converged and not progress.stopped:
        warn_user(" ".join(notes))
    return CP(kept * fit.scale, factors, info=report)
