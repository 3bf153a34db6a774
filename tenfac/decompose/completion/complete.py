"""CP and Tucker decomposition from the observed entries of a tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tenfac.core.arrays import to_numpy
from tenfac.core.cp import CP
from tenfac.core.door import door
from tenfac.core.errors import RankError
from tenfac.core.rank import cp_rank, tucker_rank
from tenfac.core.truncate import truncate
from tenfac.core.tucker import Tucker
from tenfac.decompose.completion.cp import CPProblem, normalized
from tenfac.decompose.completion.observed import Observed, observed_entries
from tenfac.decompose.completion.search import Settings, complete, root_mean_square
from tenfac.decompose.completion.tucker import TuckerProblem


@door
def cp_complete(
    X: Any,
    rank: int,
    *,
    mask: Any = None,
    n_init: int = 10,
    max_iter: int = 300,
    tol: float = 1e-5,
    holdout: float = 0.1,
    random_state: int | np.random.Generator | None = 0,
    verbose: int = 0,
    callback: Callable[[int, float], Any] | None = None,
) -> CP:
    """Fit a CP tensor to the observed entries of an array.

    ``X[i, j, ...] ~ sum_r w[r] A[i, r] B[j, r] ...`` at observed entries, by regularised alternating least
    squares from several starts; which start is best is judged on entries held out.

    Parameters
    ----------
    X : array, masked array or sparse array, shape (I_0, ..., I_{D-1})
        Array of numpy, torch or JAX in which NaN is missing (or see ``mask``), or a COO array of scipy or
        ``sparse`` whose stored entries, zeros included, are the observed ones. At least two modes.
    rank : int
        Number of terms R; may exceed the sizes.
    mask : array of bool, shape of ``X``, optional
        True where ``X`` is observed; other entries are not read.
    n_init : int
        Starts at most. No more are made once two have reached the best validation error.
    max_iter : int
        Sweeps of the last fit, to all entries, at most.
    tol : float
        The last fit stops when the error changes by less than this share of itself in a sweep.
    holdout : float
        Share of the observed entries on which starts are judged, above 0 and at most 0.5.
    random_state : int, numpy Generator or None
        Draws the held-out entries and the starts.
    verbose : {0, 1, 2}
        1 shows a progress bar, 2 logs each start too (logger ``tenfac``).
    callback : callable, optional
        ``callback(n_iter, error)`` after each sweep, of the starts and of the last fit, with the error on the
        entries that it fitted; a true answer stops.

    Returns
    -------
    CP
        Unit columns, weights in descending order, signs arbitrary. ``info.rel_error`` is the error on the
        observed entries, ``info.validation_error`` that of the best start on held-out entries, both relative
        to the root mean square of what was observed; ``info.history`` has the former for each of the
        ``info.n_iter`` sweeps, those of one start after the other, then those of the last fit. A row of a
        factor whose index has no observed entry is zero, and ``info.warnings`` says so. Library, dtype and
        device of ``X``; integers become float64; float16 and bfloat16 are returned in float32.

    Raises
    ------
    DataError
        If an observed entry is NaN or infinite, stored twice, there are fewer than two, or the dtype is not
        supported.
    ShapeError
        If there are fewer than two modes, an empty one, or ``mask`` has another shape.
    RankError, TypeError, DataError
        If ``rank``, ``mask`` or another option is not valid.

    Warns
    -----
    ConvergenceWarning
        If the validation error is more than three times the training error (twice where it is more than half
        of what predicting zero or the mean gives), or no better than predicting zero or the mean; or if
        ``max_iter`` is reached. Then ``info.converged`` is False.

    Notes
    -----
    A sweep costs about ``N D R^2`` multiplications for N observed entries; the dense tensor is never formed.
    A start mixes at random the leading eigenvectors of the Gram matrices of the zero-filled unfoldings, their
    diagonals deleted [1]_. Sweeps follow while the ridge falls, from up to half of the mean diagonal of the
    normal equations to 1e-6 of it. Then, while that helps, the component missed least is replaced by the
    leading one of the residual. The last sweeps, with momentum, have the ridge that makes their end the mode
    of the posterior for Gaussian factors and noise of the variance of the residuals. All is computed in
    float64.

    References
    ----------
    .. [1] C. Cai, G. Li, Y. Chi, H. V. Poor and Y. Chen, Subspace estimation from unbalanced and incomplete
       data matrices, Annals of Statistics 49 (2021), algorithm 1. doi:10.1214/20-AOS1986
    .. [2] G. Tomasi and R. Bro, PARAFAC and missing values, Chemometrics and Intelligent Laboratory Systems
       75 (2005), section 3. doi:10.1016/j.chemolab.2004.07.003

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(1, 2, 12)
    >>> X = np.multiply.outer(np.multiply.outer(x, x), x) + 1
    >>> observed = np.random.default_rng(1).random(X.shape) < 0.3
    >>> t = cp_complete(np.where(observed, X, np.nan), rank=2)
    >>> t
    CP(shape=(12, 12, 12), rank=2, numpy.float64, 74 numbers for 1,728 entries)
    >>> bool(np.abs(t.to_tensor() - X).max() < 1e-6)
    True
    """
    settings = Settings("cp_complete", n_init, max_iter, tol, holdout, random_state, verbose, callback)
    rank = cp_rank(rank, "cp_complete")
    data = observed_entries(X, mask, "cp_complete")
    if rank > data.values.shape[0]:
        raise RankError(
            f"cp_complete: rank must be at most the number of observed entries, {data.values.shape[0]}; "
            f"got {rank}. Entries are predicted by ranks far below."
        )

    def make(entries: Observed, rng: np.random.Generator) -> CPProblem:
        return CPProblem(entries, rank, rng)

    factors, report, scale = complete(make, data, settings)
    weights, factors = normalized(factors, scale)
    arrays = [data.restore(array) for array in (weights, *factors)]
    return _with_error(CP(arrays[0], arrays[1:], info=report), data, scale)


@door
def tucker_complete(
    X: Any,
    rank: int | Sequence[int],
    *,
    mask: Any = None,
    n_init: int = 10,
    max_iter: int = 300,
    tol: float = 1e-5,
    holdout: float = 0.1,
    random_state: int | np.random.Generator | None = 0,
    verbose: int = 0,
    callback: Callable[[int, float], Any] | None = None,
) -> Tucker:
    """Fit a Tucker tensor to the observed entries of an array.

    ``X[i, j, ...] ~ sum_{p, q, ...} G[p, q, ...] A[i, p] B[j, q] ...`` at observed entries, by regularised
    alternating least squares from several starts; which start is best is judged on entries held out.

    Parameters
    ----------
    X : array, masked array or sparse array, shape (I_0, ..., I_{D-1})
        Array of numpy, torch or JAX in which NaN is missing (or see ``mask``), or a COO array of scipy or
        ``sparse`` whose stored entries, zeros included, are the observed ones. At least two modes.
    rank : int or sequence of int
        One rank for all modes, or one per mode, at most the number of rows with observed entries.
    mask : array of bool, shape of ``X``, optional
        True where ``X`` is observed; other entries are not read.
    n_init : int
        Starts at most. No more are made once two have reached the best validation error.
    max_iter : int
        Sweeps of the last fit, to all entries, at most.
    tol : float
        The last fit stops when the error changes by less than this share of itself in a sweep.
    holdout : float
        Share of the observed entries on which starts are judged, above 0 and at most 0.5.
    random_state : int, numpy Generator or None
        Draws the held-out entries and the starts.
    verbose : {0, 1, 2}
        1 shows a progress bar, 2 logs each start too (logger ``tenfac``).
    callback : callable, optional
        ``callback(n_iter, error)`` after each sweep, of the starts and of the last fit, with the error on the
        entries that it fitted; a true answer stops.

    Returns
    -------
    Tucker
        Orthonormal columns ordered by energy, signs arbitrary. ``info``, dtype and rows without observed
        entries as for ``cp_complete``: float16 and bfloat16 are returned in float32.

    Raises
    ------
    DataError
        If an observed entry is NaN or infinite, stored twice, there are fewer than two, or the dtype is not
        supported.
    ShapeError
        If there are fewer than two modes, an empty one, or ``mask`` has another shape.
    RankError, TypeError, DataError
        If ``rank``, ``mask`` or another option is not valid.

    Warns
    -----
    ConvergenceWarning
        If the validation error is more than three times the training error (twice where it is more than half
        of what predicting zero or the mean gives), or no better than predicting zero or the mean; or if
        ``max_iter`` is reached. Then ``info.converged`` is False.

    Notes
    -----
    A sweep costs about ``N D prod(R)`` multiplications for N observed entries, and some steps of conjugate
    gradients on the core; the dense tensor is never formed. A start has the leading eigenvectors of the Gram
    matrices of the zero-filled unfoldings, their diagonals deleted [1]_, and a random core. The ridge falls
    and is chosen as in ``cp_complete``. All is computed in float64.

    References
    ----------
    .. [1] C. Cai, G. Li, Y. Chi, H. V. Poor and Y. Chen, Subspace estimation from unbalanced and incomplete
       data matrices, Annals of Statistics 49 (2021), algorithm 1. doi:10.1214/20-AOS1986

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(1, 2, 12)
    >>> X = np.log(np.multiply.outer(np.multiply.outer(x, x), x))
    >>> observed = np.random.default_rng(1).random(X.shape) < 0.3
    >>> t = tucker_complete(X, rank=2, mask=observed)
    >>> t
    Tucker(shape=(12, 12, 12), rank=(2, 2, 2), numpy.float64, 80 numbers for 1,728 entries)
    >>> bool(np.abs(t.to_tensor() - X).max() < 1e-6)
    True
    """
    settings = Settings("tucker_complete", n_init, max_iter, tol, holdout, random_state, verbose, callback)
    data = observed_entries(X, mask, "tucker_complete")
    ranks = tucker_rank(rank, data.shape, "tucker_complete")
    _check_supported(ranks, data)

    def make(entries: Observed, rng: np.random.Generator) -> TuckerProblem:
        return TuckerProblem(entries, ranks, rng)

    (core, factors), report, scale = complete(make, data, settings)
    core, turns, _ = truncate(core * (scale * math.sqrt(math.prod(data.shape))), ranks)
    factors = [f @ turn / math.sqrt(len(f)) for f, turn in zip(factors, turns, strict=True)]
    t = Tucker(data.restore(core), [data.restore(factor) for factor in factors], info=report)
    return _with_error(t, data, scale)


def _with_error(t: Any, data: Observed, scale: float) -> Any:
    """Put the error of the format itself, after rounding to its dtype, into its report."""
    first, factors = t
    same = type(t)(to_numpy(first), [to_numpy(factor) for factor in factors])
    misfit = same.at(*data.indices) / scale - data.values / scale
    return replace(t, info=replace(t.info, rel_error=root_mean_square(misfit)))


def _check_supported(ranks: tuple[int, ...], data: Observed) -> None:
    """Refuse a rank above the number of rows that have entries."""
    for n, (r, unseen) in enumerate(zip(ranks, data.unseen(), strict=True)):
        seen = len(unseen) - np.count_nonzero(unseen)
        if r > seen:
            raise RankError(
                f"tucker_complete: the rank of mode {n} must be at most its number of rows with observed "
                f"entries, {seen} of {len(unseen)}; got {r}. Lower it, or drop the rows without entries."
            )
