"""Which components of two CP tensors belong together, and how well they match."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from tenfac.core.arrays import as_float, device_of, dtype_name, namespace_of, to_numpy
from tenfac.core.cp import CP
from tenfac.core.door import door
from tenfac.core.errors import DataError, ShapeError
from tenfac.decompose.cp.start import as_cp


@door
def align(a: CP, b: CP) -> CP:
    """Write a CP tensor with its components in the order, sign and scale of another's.

    Components are paired so that the sum over pairs of the congruence, the cosine between two rank-one terms
    (the product of the cosines of their columns), is largest [1]_.

    Parameters
    ----------
    a : CP or tuple (weights, factors)
        What to match.
    b : CP or tuple (weights, factors)
        What is rewritten; the same shape, any rank.

    Returns
    -------
    CP
        The same tensor as ``b``: its columns have the norms of their partners in ``a`` and a positive inner
        product with them, what is left is in the weights (negative where a term opposes its partner). Terms
        without a partner come last, as they are.

    Raises
    ------
    ShapeError
        If the shapes differ, or one is no CP tensor or a batch.
    DataError
        If one is not finite, or the result does not fit in the dtype of ``b``.

    Notes
    -----
    Cost: ``R^3`` for the assignment. A zero column keeps its scale.

    References
    ----------
    .. [1] G. Tomasi and R. Bro, A comparison of algorithms for fitting the PARAFAC model, Computational
       Statistics & Data Analysis 50 (2006), section 4. doi:10.1016/j.csda.2004.11.013

    Examples
    --------
    >>> a = CP(np.array([2.0, 1.0]), [np.eye(2), np.eye(2)])
    >>> b = CP(np.array([1.0, -2.0]), [np.eye(2)[:, ::-1], -np.eye(2)[:, ::-1]])
    >>> align(a, b).weights, align(a, b).factors[1]
    (array([ 2., -1.]), array([[1., 0.],
           [0., 1.]]))
    """
    a, b = _pair(a, b, "align")
    rows, columns = _matched(congruence(a, b))
    rest = np.setdiff1d(np.arange(b.rank), columns)
    order = np.concatenate([columns, rest]).astype(int)
    before, paired, factors = _read(b.weights)[order], slice(columns.size), []
    weights = before.copy()
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):  # answered below
        for mine, theirs in zip(a.factors, b.factors, strict=True):
            column = _read(theirs)[:, order]
            column[:, paired], scale = _turned(_read(mine)[:, rows], column[:, paired])
            weights[paired] = weights[paired] / scale
            factors.append(column)
        xp, like = namespace_of(b.weights), {"dtype": b.dtype, "device": device_of(b.weights)}
        aligned = CP(xp.asarray(weights, **like), [xp.asarray(f, **like) for f in factors], b.modes)
    lost = (_read(aligned.weights) == 0) & (before != 0)
    if np.any(lost) or not _is_finite(aligned):
        raise DataError(
            f"align: the weights and columns of b in the scale of a must fit in {dtype_name(b.dtype)}; they "
            "overflow or vanish. Give the columns of a norms near 1, or convert both to float64."
        )
    return aligned


@door
def factor_match_score(a: CP, b: CP, *, weights: bool = True) -> float:
    """How well the components of two CP tensors match: 1 if they are the same up to order.

    ``sum_r c_r (1 - |n_r - m_r| / max(n_r, m_r)) / R`` over the best pairs, with ``c_r`` the congruence of a
    pair (the cosine between the two rank-one terms) and ``n_r``, ``m_r`` their norms [1]_.

    Parameters
    ----------
    a, b : CP or tuple (weights, factors)
        The same shape; the terms that the larger rank has more count zero.
    weights : bool, default True
        Compare norms too; False leaves the second factor out.

    Returns
    -------
    float
        At most 1. Negative if terms can only be paired with opposite ones.

    Raises
    ------
    ShapeError
        If the shapes differ, or one is no CP tensor or a batch.
    DataError
        If one is not finite.

    Notes
    -----
    Order, signs and scales that leave each term the same do not matter. Other packages take ``|c_r|``, for
    which a tensor and its negative match.

    References
    ----------
    .. [1] E. Acar, D. M. Dunlavy, T. G. Kolda and M. Morup, Scalable tensor factorizations for incomplete
       data, Chemometrics and Intelligent Laboratory Systems 106 (2011), equation 15.
       doi:10.1016/j.chemolab.2010.08.004

    Examples
    --------
    >>> a = CP(None, [np.eye(3), np.eye(3)])
    >>> factor_match_score(a, CP(2 * np.ones(3), [np.eye(3)[:, ::-1], np.eye(3)[:, ::-1]]))
    0.5
    """
    a, b = _pair(a, b, "factor_match_score")
    scores = congruence(a, b)
    if weights:
        scores = scores * np.exp2(-np.abs(_log_norms(a)[:, None] - _log_norms(b)))
    return float(scores[_matched(scores)].sum() / max(scores.shape))


def congruence(a: CP, b: CP) -> np.ndarray:
    """Cosine between every rank-one term of ``a`` and of ``b``, (R, S); 0 for a zero term.

    Examples
    --------
    >>> a = CP(np.array([1.0, -1.0]), [np.ones((2, 2)), np.ones((3, 2))])
    >>> congruence(a, a).round(6)
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    parts = [(a.weights[None, :], b.weights[None, :]), *zip(a.factors, b.factors, strict=True)]
    cosines = []
    for pair in parts:
        mine, theirs = (_unit(_read(array)) for array in pair)
        cosines.append(mine.conj().T @ theirs)
    return np.real(reduce(np.multiply, cosines))


def _pair(a: Any, b: Any, where: str) -> tuple[CP, CP]:
    a, b = as_cp(a, where, "a"), as_cp(b, where, "b")
    if a.modes != b.modes:
        raise ShapeError(f"{where}: a and b must have the same shape and modes; got {a} and {b}.")
    for name, t in (("a", a), ("b", b)):
        if not _is_finite(t):
            raise DataError(
                f"{where}: weights and factors of {name} must be finite; got NaN or infinite ones. Leave "
                "their components out."
            )
    return a, b


def _is_finite(t: CP) -> bool:
    return all(bool(np.isfinite(_read(array)).all()) for array in (t.weights, *t.factors))


def _read(array: Any) -> np.ndarray:
    """A copy in numpy and double precision."""
    array = to_numpy(as_float(array))
    return array.astype(np.result_type(array.dtype, np.float64))


def _matched(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return linear_sum_assignment(scores, maximize=True)


def _lengths(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Norms of columns, whose squares may overflow, as products of a number above zero and 0 or about 1."""
    largest = np.maximum(np.max(np.abs(columns), axis=0), np.finfo(float).tiny)
    return largest, np.linalg.norm(columns / largest, axis=0)


def _unit(columns: np.ndarray) -> np.ndarray:
    largest, shares = _lengths(columns)
    return columns / largest / np.maximum(shares, np.finfo(float).tiny)


def _log_norms(t: CP) -> np.ndarray:
    """Binary logarithms of the norms of terms; any number for a zero term, whose congruences are zero."""
    with np.errstate(divide="ignore"):
        logs = [
            np.log2(part) for array in (t.weights[None, :], *t.factors) for part in _lengths(_read(array))
        ]
    return np.nan_to_num(sum(logs))


def _turned(like: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns with the norms of ``like`` and a positive inner product with it, and their scale.

    Where one of both is zero the norm stays.
    """
    inner = np.sum(_unit(like).conj() * _unit(columns), axis=0)
    inner = inner if np.iscomplexobj(columns) else np.real(inner)
    phase = np.conj(np.where(inner == 0, 1.0, np.sign(inner)))
    (wanted, mine), (largest, theirs) = _lengths(like), _lengths(columns)
    kept = mine * theirs == 0
    wanted, ratio = np.where(kept, largest, wanted), np.where(kept, 1.0, mine / theirs)
    return columns / largest * (wanted * ratio * phase), wanted / largest * ratio * phase
