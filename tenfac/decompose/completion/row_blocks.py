"""Observed entries sorted by one index and padded, so that all rows of a factor are solved in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

# The signal is taken to be at least this share of the mean square.
LEAST_SIGNAL = 0.01
# Entries of one block: few enough for its features to stay in the cache.
_ENTRIES = 2**15
# Rows of one block differ in their number of entries by this ratio at most; shorter ones are padded.
_RATIO = 1.25
# A row's equations get at least this share of the mean diagonal, so that they always have one solution.
_JITTER = 1e-12
# Up to this many rows (and pairs of entries in one fibre) all eigenvectors of a Gram matrix are computed; so
# they are, whatever the pairs, up to this many rows, and this many for each vector wanted.
_DENSE_ROWS, _DENSE_PAIRS, _FEW_ROWS, _FEW_ROWS_EACH = 256, 3e7, 32, 3
# Else an iteration goes on for so many rounds or to this accuracy: it is where a search starts.
_ROUNDS, _ACCURACY = 20, 1e-2


@dataclass(frozen=True)
class RowBlock:
    """``B`` rows of one factor with ``C`` entries each, padded.

    Parameters
    ----------
    rows : array of int, shape (B,)
    indices : tuple of D arrays of int, shapes (B, C)
        Where the entries stand in each mode; padding has index ``I_n``, one past the last.
    values : array, shape (B, C)
        Observed values; padding is 0.

    Examples
    --------
    >>> block = row_blocks((np.array([0, 0, 2]), np.array([0, 1, 1])), np.ones(3), (3, 2), 0)[0]
    >>> block.rows, block.indices[1]
    (array([2]), array([[1]]))
    """

    rows: np.ndarray
    indices: tuple[np.ndarray, ...]
    values: np.ndarray


def row_blocks(
    indices: Sequence[np.ndarray], values: np.ndarray, shape: Sequence[int], mode: int
) -> list[RowBlock]:
    """Sort entries by their index in ``mode``, and put rows with nearly equally many together.

    Rows without entries are in no block.

    Examples
    --------
    >>> blocks = row_blocks((np.array([0, 0, 2]), np.array([0, 1, 1])), np.array([5.0, 6, 7]), (3, 2), 0)
    >>> [block.values for block in blocks]
    [array([[7.]]), array([[5., 6.]])]
    """
    order = np.argsort(indices[mode], kind="stable")
    counts = np.bincount(indices[mode], minlength=shape[mode])
    starts = np.cumsum(counts) - counts
    by_count = np.argsort(counts, kind="stable")
    by_count = by_count[counts[by_count] > 0]
    sizes = counts[by_count]
    level = np.ceil(np.log(sizes) / np.log(_RATIO)).astype(int)
    blocks, begin = [], 0
    while begin < len(by_count):
        end = int(np.searchsorted(level, level[begin], "right"))
        end = min(end, begin + max(1, _ENTRIES // int(sizes[end - 1])))
        rows, width = by_count[begin:end], int(sizes[end - 1])
        places = starts[rows][:, None] + np.arange(width)
        padding = np.arange(width) >= counts[rows][:, None]
        entry = order[np.minimum(places, len(values) - 1)]
        where = tuple(np.where(padding, size, i[entry]) for i, size in zip(indices, shape, strict=True))
        blocks.append(RowBlock(rows, where, np.where(padding, 0, values[entry])))
        begin = end
    return blocks


def padded(factor: np.ndarray) -> np.ndarray:
    """Add the zero row that padding points to.

    Examples
    --------
    >>> padded(np.ones((1, 2)))
    array([[1., 1.],
           [0., 0.]])
    """
    return np.concatenate([factor, np.zeros((1, factor.shape[1]), factor.dtype)])


def solve_rows(
    blocks: Sequence[RowBlock],
    features: Callable[[RowBlock], np.ndarray],
    factor: np.ndarray,
    ridge: float,
    penalty: float,
) -> tuple[np.ndarray, float]:
    """Fit each row of a factor to its entries by regularised least squares.

    Row i becomes the minimiser of ``||y_i - H_i a||^2 + penalty_i ||a||^2``.

    Parameters
    ----------
    blocks : sequence of RowBlock
    features : callable
        Block to its features H, shape (B, C, R), zero at padding.
    factor : array, shape (I, R)
        Sets shape and dtype; rows without entries become zero.
    ridge : float
        Penalty as a share of the mean diagonal of ``H^H H`` over all rows of a block.
    penalty : float
        Least penalty.

    Returns
    -------
    factor : array, shape (I, R)
    residual2 : float
        Sum of squared residuals after the step.

    Examples
    --------
    >>> blocks = row_blocks((np.array([0, 0]), np.array([0, 1])), np.array([2.0, 4.0]), (1, 2), 0)
    >>> solve_rows(blocks, lambda block: np.ones((1, 2, 1)), np.zeros((1, 1)), 0.0, 0.0)
    (array([[3.]]), 2.0...)
    """
    solved, residual2 = np.zeros_like(factor), 0.0
    diagonal = np.arange(factor.shape[1])
    for block in blocks:
        h = features(block)
        adjoint = np.conj(h).swapaxes(1, 2) if np.iscomplexobj(h) else h.swapaxes(1, 2)
        gram = adjoint @ h
        mean = float(np.mean(gram[:, diagonal, diagonal].real))
        gram[:, diagonal, diagonal] += max(ridge * mean, penalty, _JITTER * mean, np.finfo(float).tiny)
        rows = np.linalg.solve(gram, adjoint @ block.values[..., None])
        solved[block.rows] = rows[..., 0]
        residual2 += squared(block.values - (h @ rows)[..., 0])
    return solved, residual2


def squared(x: np.ndarray) -> float:
    """Sum of squared magnitudes.

    Examples
    --------
    >>> squared(np.array([3.0, 4j]))
    25.0
    """
    return float(np.vdot(x, x).real)


def spectral_basis(
    indices: Sequence[np.ndarray],
    values: np.ndarray,
    shape: Sequence[int],
    mode: int,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Estimate the leading singular vectors of an unfolding from its observed entries.

    Eigenvectors of the Gram matrix of the zero-filled unfolding with its diagonal deleted [1]_: off the
    diagonal the expected entries are those of the full tensor times a constant, on it they are not.

    Parameters
    ----------
    indices, values : D arrays of int and one of values, shapes (N,)
    shape : sequence of int
    mode : int
    count : int
        Vectors wanted, ``1 <= count <= I_mode``.
    rng : numpy Generator
        Starts the iteration where there are many rows.

    Returns
    -------
    array, shape (I_mode, count)
        Orthonormal columns.

    Notes
    -----
    Only the entries are used, never the dense tensor: its ``N`` nonzero numbers times some tens of steps.

    References
    ----------
    .. [1] C. Cai, G. Li, Y. Chi, H. V. Poor and Y. Chen, Subspace estimation from unbalanced and incomplete
       data matrices, Annals of Statistics 49 (2021), algorithm 1. doi:10.1214/20-AOS1986

    Examples
    --------
    >>> indices = np.unravel_index(np.arange(12), (3, 4))
    >>> basis = spectral_basis(indices, np.ones(12), (3, 4), 0, 1, np.random.default_rng(0))
    >>> np.abs(basis[:, 0]).round(3)
    array([0.577, 0.577, 0.577])
    """
    size = shape[mode]
    fibre, counts = _fibres([i for m, i in enumerate(indices) if m != mode], len(values))
    matrix = csr_array((values, (indices[mode], fibre)), shape=(size, len(counts)))
    adjoint = csr_array(matrix.conj().T)
    pairs = float(np.sum(counts.astype(float) ** 2))
    if size <= max(_FEW_ROWS_EACH * count, _FEW_ROWS) or (size <= _DENSE_ROWS and pairs <= _DENSE_PAIRS):
        gram = (matrix @ adjoint).toarray()
        np.fill_diagonal(gram, 0)
        return np.linalg.eigh(gram)[1][:, ::-1][:, :count]
    weights = np.bincount(indices[mode], weights=np.abs(values) ** 2, minlength=size)
    operator = LinearOperator(
        (size, size),
        matvec=lambda v: matrix @ (adjoint @ v.ravel()) - weights * v.ravel(),
        dtype=values.dtype,
    )
    start = rng.standard_normal(size)
    try:
        vectors = eigsh(operator, k=count, which="LA", v0=start, tol=_ACCURACY, maxiter=_ROUNDS)[1]
    except ArpackNoConvergence as stopped:  # no gap: any direction does as well
        found = stopped.eigenvectors.astype(values.dtype)  # real where there are none
        vectors = np.concatenate([found, rng.standard_normal((size, count - found.shape[1]))], axis=1)
    return np.linalg.qr(vectors)[0]


def _fibres(others: Sequence[np.ndarray], n_entries: int) -> tuple[np.ndarray, np.ndarray]:
    """Number the fibres that hold entries; which one each entry is in, and how many each holds."""
    code = np.zeros(n_entries, dtype=np.int64)
    for index in others:
        code = code * (int(index.max()) + 1) + index
        code, counts = np.unique(code, return_inverse=True, return_counts=True)[1:]
    return code.reshape(-1), counts


def predictions(
    evaluate: Callable[[Sequence[np.ndarray]], np.ndarray], indices: Sequence[np.ndarray]
) -> np.ndarray:
    """Evaluate a model at entries, block by block.

    Examples
    --------
    >>> predictions(lambda index: 2.0 * index[0], [np.arange(3)])
    array([0., 2., 4.])
    """
    n = len(indices[0])
    parts = [[i[begin : begin + _ENTRIES] for i in indices] for begin in range(0, n, _ENTRIES)]
    return np.concatenate([evaluate(part) for part in parts])
