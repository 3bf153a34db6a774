"""What ``KroneckerSBL.fit`` does without a Kronecker support, or with measurements missing."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ...core.arrays import device_of, is_array, namespace_of, to_numpy
from ...core.errors import ConvergenceWarning, DataError, ShapeError
from .box import Box
from .masked import Masked
from .masked_fit import cut_rows, fit_masked
from .observed import NOISE_FLOOR, observe
from .problem import Problem, factors_of
from .scattered import MaskedBox, Scattered
from .settings import REPLICAS
from .support_check import SupportEvidence, support_looks_kronecker
from .unstructured import fit_unstructured

_SMALL = 10**5  # unknowns that a look at the support may take
_DOUBTFUL = 0.5  # share of the box that differs from zero below which its support is looked at


class Outcome(NamedTuple):
    """What a variant learned, in the units of the user and in double precision.

    Examples
    --------
    >>> Outcome((), (), None, (), 1.0, -3.0, (-3.0,), (), 0, True, "", 0.0).noise_variance
    1.0
    """

    support: tuple[Any, ...]
    gammas: tuple[Any, ...]
    box: Any
    gains: tuple[Any, ...]
    noise_variance: float
    evidence: float
    trace: tuple[float, ...]
    starts: tuple[float, ...]
    n_iter: int
    converged: bool
    reason: str
    rel_error: float


def mask_of(mask: Any, operator: Any, where: str) -> np.ndarray | None:
    """A mask in the shape of the measurements; None if nothing is missing.

    Raises
    ------
    ShapeError
        If it is not boolean, or of another shape.

    Examples
    --------
    >>> mask_of(np.array([True, False]), [np.eye(2)], "fit")
    array([ True, False])
    """
    if mask is None:
        return None
    rows = tuple(factor.shape[0] for factor in factors_of(operator, where))
    found = to_numpy(mask) if is_array(mask) else np.asarray(mask)
    if found.dtype != bool or found.shape not in (rows, (math.prod(rows),)):
        raise ShapeError(
            f"{where}: `mask` must be boolean and have the shape {rows} of one snapshot, True where "
            f"measured; got {found.dtype} of shape {found.shape}. Snapshots share one mask."
        )
    return None if found.all() else found.reshape(rows)


def filled(measured: Any, mask: np.ndarray | None, snapshots: bool) -> Any:
    """Measurements with zeros where the mask leaves them out, whatever was there.

    Examples
    --------
    >>> filled(np.array([1.0, np.nan]), np.array([True, False]), False)
    array([1., 0.])
    """
    if mask is None or not is_array(measured):
        return measured
    shape = tuple(measured.shape[: measured.ndim - 1]) if snapshots else tuple(measured.shape)
    if math.prod(shape) != mask.size:
        return measured  # of a wrong shape, which is said where shapes are checked
    xp = namespace_of(measured)
    there = xp.asarray(mask.reshape(shape), device=device_of(measured))
    zero = xp.zeros_like(measured)
    return xp.where(there[..., None] if snapshots else there, measured, zero)


def check_variant(model: Any, what: str) -> None:
    """Refuse settings that belong to the Kronecker prior without a mask only.

    Raises
    ------
    DataError

    Examples
    --------
    >>> from tenfac import KroneckerSBL
    >>> check_variant(KroneckerSBL(), "a mask")
    """
    if model.coupling is not None:
        raise DataError(f"KroneckerSBL: `coupling` is not available with {what}. Leave it out.")
    if model.update in REPLICAS:
        raise DataError(
            f"KroneckerSBL: update={model.update!r} is not available with {what}. Take 'fixed_point'."
        )
    if model.values != "full":
        raise DataError(
            f"KroneckerSBL: values={model.values!r} is not available with {what}. Take values='full'."
        )
    if model.n_hops:
        raise DataError(
            f"KroneckerSBL: hops are not available with {what}; got n_hops={model.n_hops}. Set 0."
        )


def recover_variant(model: Any, problem: Problem, mask: np.ndarray | None) -> Outcome:
    """Fit the unstructured prior, or the Kronecker prior through a mask.

    Examples
    --------
    >>> from tenfac import KroneckerSBL
    >>> from tenfac.bayes.sparse.problem import problem_of
    >>> problem = problem_of([np.eye(3)], np.array([9.0, 0.1, -0.1]))
    >>> recover_variant(KroneckerSBL(prior="unstructured", noise=0.1), problem, None).support
    (array([0]),)
    """
    factors, measured = _in_units(problem)
    settings: dict[str, Any] = {
        "noise": None if model.noise is None else float(model.noise),
        "prune_alpha": float(model.prune_alpha) or None,
        "max_iter": int(model.max_iter),
        "tol": float(model.tol),
    }
    if model.prior == "unstructured":
        settings["n_starts"] = min(int(model.n_starts), 2)
        with _said_by_the_estimator():
            scattered = fit_unstructured(factors, measured, mask=mask, **settings)
        return _scattered(problem, factors, scattered, mask)
    with _said_by_the_estimator():
        found = fit_masked(factors, measured, mask, **settings)
    return _masked(problem, factors, measured, found, mask)


@contextmanager
def _said_by_the_estimator() -> Iterator[None]:
    """Leave it to ``KroneckerSBL`` to say that a solver did not converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _in_units(problem: Problem) -> tuple[list[Any], Any]:
    pairs = zip(problem.factors, problem.factor_scales, strict=True)
    return [factor * scale for factor, scale in pairs], problem.measured * problem.scale


def _scattered(problem: Problem, factors: list[Any], found: Any, mask: np.ndarray | None) -> Outcome:
    xp = problem.xp
    support = tuple(found.indices[:, n] for n in range(len(factors)))
    columns = tuple(factor[:, one] for factor, one in zip(factors, support, strict=True))
    box = Scattered(found.mean, (), (found.gammas,), found.noise_variance, xp, columns=columns)
    (matrix,), _ = box.as_kronecker(columns)
    box = Scattered(
        found.mean, (matrix[_rows(mask, matrix)],), (found.gammas,), found.noise_variance, xp, columns=columns
    )
    half, snapshots = problem.sizes.half, found.mean.shape[-1]
    variances = xp.real(xp.linalg.diagonal(found.covariance))
    s = 1 / variances - 1 / found.gammas
    m = xp.sum(xp.abs(found.mean) ** 2, axis=1) / snapshots / variances**2
    ratio = found.gammas / (1 + found.gammas * s)
    gains = half * snapshots * (m * ratio - xp.log1p(found.gammas * s))
    return Outcome(
        support, (found.gammas,), box, (gains,), found.noise_variance, found.evidence, found.trace,
        found.starts, found.n_iter, found.converged, found.reason, _residual(problem, box, mask),
    )  # fmt: skip


def _masked(
    problem: Problem, factors: list[Any], measured: Any, found: Any, mask: np.ndarray | None
) -> Outcome:
    xp = problem.xp
    support = tuple(xp.nonzero(gamma > 0)[0] for gamma in found.gammas)
    used = [to_numpy(one) for one in support]
    active = tuple(factor[:, one] for factor, one in zip(factors, support, strict=True))
    gammas = tuple(gamma[one] for gamma, one in zip(found.gammas, support, strict=True))
    data = cut_rows(observe(factors, measured, mask, "KroneckerSBL.fit"))
    shape = (*(len(one) for one in used), measured.shape[-1])
    if 0 in shape:
        mean, gains = np.zeros(shape), tuple(np.zeros(0) for _ in used)
    else:
        own = [to_numpy(gamma) for gamma in found.gammas]
        own[-1] = own[-1] / data.scale**2
        state = Masked(data, own, found.noise_variance / data.scale**2)
        mean = np.moveaxis(state.posterior_mean(used), 0, -1) * data.scale
        gains = tuple(_gains_of(state, i, one) for i, one in enumerate(used))
    like = device_of(measured)
    box = MaskedBox(
        xp.asarray(mean, dtype=measured.dtype, device=like),
        active, gammas, found.noise_variance, xp,
        places=xp.asarray(np.flatnonzero(np.asarray(mask)), device=like),
    )  # fmt: skip
    return Outcome(
        support, found.gammas, box, tuple(xp.asarray(one, device=like) for one in gains),
        found.noise_variance, found.evidence, found.trace, (found.evidence,), found.n_iter,
        found.converged, found.reason, _residual(problem, box, mask),
    )  # fmt: skip


def _gains_of(state: Masked, i: int, used: np.ndarray) -> np.ndarray:
    """Evidence lost if one active column of mode ``i`` were deleted."""
    gains = []
    for j in used:
        less = state.gammas[i].copy()
        less[j] = 0.0
        gains.append(state.evidence - state.with_mode(i, less).evidence)
    return np.array(gains)


def _rows(mask: np.ndarray | None, like: Any) -> Any:
    return slice(None) if mask is None else namespace_of(like).asarray(np.flatnonzero(np.asarray(mask)))


def _residual(problem: Problem, box: Box, mask: np.ndarray | None) -> float:
    """Relative residual of the measurements that are there."""
    if problem.total == 0:
        return 0.0
    _, measured = _in_units(problem)
    left = to_numpy(measured - box.predicted(box.columns))
    there = slice(None) if mask is None else mask
    return float(np.linalg.norm(left[there]) / np.linalg.norm(to_numpy(measured)[there]))


def doubt_about_support(model: Any, problem: Problem, mask: np.ndarray | None, solution: Any) -> str | None:
    """What to warn of if the unstructured prior explains small measurements better; None if it does not.

    Looked at only if less than half of the coefficients of the box differ from zero by two of their standard
    deviations, which costs one fit of the unstructured prior.

    Examples
    --------
    >>> from tenfac import KroneckerSBL
    >>> from tenfac.bayes.sparse.problem import problem_of
    >>> model = KroneckerSBL().fit([np.eye(3)], np.array([9.0, 0.1, -0.1]))
    >>> doubt_about_support(model, problem_of([np.eye(3)], np.ones(3)), None, None)
    """
    if len(problem.factors) == 1:
        return None
    box = solution.box
    if 0 in box.shape or math.prod(problem.shape) > _SMALL:
        return None
    count = math.prod(problem.measured.shape) * (1.0 if mask is None else mask.mean())
    if model.noise is not None and model.noise**2 < NOISE_FLOOR * problem.total * problem.scale**2 / count:
        return None  # below what the unstructured prior resolves
    xp = problem.xp
    size = xp.mean(xp.abs(box.mean) ** 2, axis=-1)
    known = to_numpy(size > 4 * box.variances()).mean()
    if known >= _DOUBTFUL:
        return None
    factors, measured = _in_units(problem)
    found = compare(model, factors, measured, mask, solution)
    if found.looks_kronecker:
        return None
    return (
        "KroneckerSBL: the support does not look Kronecker. The unstructured prior explains the measurements "
        f"with {found.solution.gammas.shape[0]} coefficients, log evidence {found.unstructured:.6g}; the box "
        f"has {math.prod(box.shape)}, log evidence {found.kronecker:.6g}. Fit with prior='unstructured'."
    )


def compare(
    model: Any, factors: Sequence[Any], measured: Any, mask: np.ndarray | None, solution: Any
) -> SupportEvidence:
    """Evidence of both priors for a fitted model (see ``support_looks_kronecker``).

    Examples
    --------
    >>> from tenfac import KroneckerSBL
    >>> from tenfac.bayes.sparse.solution import Solution
    >>> box = Solution((np.ones(1),), 1.0, -1.0, (), 1, True, "")
    >>> compare(KroneckerSBL(noise=1.0), [np.eye(1)], np.ones((1, 1)), None, box).kronecker
    -1.0
    """
    with _said_by_the_estimator():
        noise = None if model.noise is None else float(model.noise)
        return support_looks_kronecker(factors, measured, solution, noise=noise, mask=mask, max_iter=100)
