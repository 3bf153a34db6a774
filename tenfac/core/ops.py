"""Multilinear operations on dense arrays, row-major: the first mode is the first Kronecker factor."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from jaxtyping import Shaped

from tenfac.core.arrays import namespace_of, promote
from tenfac.core.contract import contract
from tenfac.core.decomposed import is_pair
from tenfac.core.door import door
from tenfac.core.errors import ShapeError
from tenfac.core.precision import astype, half_of


def check_mode(mode: Any, ndim: int, where: str) -> int:
    """Validate a mode index; negative values count from the end.

    Raises
    ------
    ShapeError
        If ``mode`` is not an integer in ``-ndim..ndim-1``.

    Examples
    --------
    >>> check_mode(-1, 3, "unfold")
    2
    """
    if isinstance(mode, bool) or not hasattr(mode, "__index__") or not -ndim <= mode.__index__() < ndim:
        raise ShapeError(
            f"{where}: `mode` must be an integer from 0 to {ndim - 1} (or {-ndim} to -1, from the end) for a "
            f"{ndim}-way tensor; got {mode!r}."
        )
    return mode.__index__() % ndim


@door
def unfold(tensor: Shaped[Any, "*shape"], mode: int) -> Shaped[Any, "I rest"]:
    """Arrange the mode-``mode`` fibers of a tensor as the columns of a matrix.

    ``unfold(X, n) = moveaxis(X, n, 0).reshape(I_n, -1)``: the other modes keep their order, the last varies
    fastest.

    Parameters
    ----------
    tensor : array, shape (I_0, ..., I_{D-1})
    mode : int
        ``0 <= mode < D``. Negative values count from the end.

    Returns
    -------
    array, shape (I_mode, prod of the other sizes)

    Raises
    ------
    ShapeError
        If there is no such mode.

    Notes
    -----
    Mode 0 of a contiguous array is a view, other modes are copies. Kolda and Bader [1]_ order the columns
    with the first mode fastest: their columns are these, permuted.

    References
    ----------
    .. [1] T. G. Kolda and B. W. Bader, Tensor Decompositions and Applications, SIAM Review 51 (2009), section
       2.4. doi:10.1137/07070111X

    Examples
    --------
    >>> import numpy as np
    >>> unfold(np.arange(6).reshape(1, 2, 3), mode=2)
    array([[0, 3],
           [1, 4],
           [2, 5]])
    """
    xp = namespace_of(tensor)
    mode = check_mode(mode, tensor.ndim, "unfold")
    rest = math.prod(tensor.shape[:mode]) * math.prod(tensor.shape[mode + 1 :])
    return xp.reshape(xp.moveaxis(tensor, mode, 0), (tensor.shape[mode], rest))


@door
def fold(matrix: Shaped[Any, ...], mode: int, shape: Sequence[int]) -> Shaped[Any, "*shape"]:
    """Undo ``unfold``.

    Parameters
    ----------
    matrix : array, shape (I_mode, prod of the other sizes)
    mode : int
        The mode that was unfolded. Negative values count from the end.
    shape : sequence of int
        Shape ``(I_0, ..., I_{D-1})`` of the tensor.

    Returns
    -------
    array, shape (I_0, ..., I_{D-1})

    Raises
    ------
    ShapeError
        If the matrix cannot be the unfolding of a tensor of this shape.

    Notes
    -----
    A view where the library allows it, no arithmetic.

    References
    ----------
    .. [1] T. G. Kolda and B. W. Bader, Tensor Decompositions and Applications, SIAM Review 51 (2009), section
       2.4. doi:10.1137/07070111X

    Examples
    --------
    >>> import numpy as np
    >>> X = np.arange(24).reshape(2, 3, 4)
    >>> (fold(unfold(X, 1), 1, X.shape) == X).all()
    np.True_
    """
    xp = namespace_of(matrix)
    sizes = list(shape) if isinstance(shape, Iterable) else [None]
    if any(isinstance(size, bool) or not hasattr(size, "__index__") or size < 0 for size in sizes):
        raise ShapeError(
            f"fold: `shape` must be the sizes of the tensor, integers of 0 or more; got {shape!r}. "
            "Pass X.shape."
        )
    shape = tuple(size.__index__() for size in sizes)
    mode = check_mode(mode, len(shape), "fold")
    others = shape[:mode] + shape[mode + 1 :]
    want = (shape[mode], math.prod(others))
    if tuple(matrix.shape) != want:
        raise ShapeError(
            f"fold: `matrix` must have shape {want} to become mode {mode} of a tensor of shape {shape}; got "
            f"{tuple(matrix.shape)}. Check `mode` and `shape`."
        )
    return xp.moveaxis(xp.reshape(matrix, (shape[mode], *others)), 0, mode)


@door
def mode_product(tensor: Shaped[Any, "*shape"], matrix: Shaped[Any, ...], mode: int) -> Shaped[Any, "*out"]:
    """Multiply a tensor by a matrix along one mode.

    Computes ``Y[..., j, ...] = sum_i matrix[j, i] * tensor[..., i, ...]``, Kolda and Bader's
    ``tensor x_mode matrix`` [1]_.

    Parameters
    ----------
    tensor : array, shape (I_0, ..., I_{D-1})
    matrix : array, shape (J, I_mode)
        Same library and device as ``tensor``.
    mode : int
        ``0 <= mode < D``. Negative values count from the end.

    Returns
    -------
    array, shape (I_0, ..., J, ..., I_{D-1})
        In the common dtype; integers become float64. float16 and bfloat16 are computed in float32.

    Raises
    ------
    ShapeError
        If ``matrix`` is not 2-way, or its columns do not match mode ``mode``.
    TypeError
        If library or device differ.

    Notes
    -----
    Cost: ``J * prod(I)`` multiplications, no transposed copy.

    References
    ----------
    .. [1] T. G. Kolda and B. W. Bader, Tensor Decompositions and Applications, SIAM Review 51 (2009), section
       2.5. doi:10.1137/07070111X

    Examples
    --------
    >>> import numpy as np
    >>> mode_product(np.ones((2, 3, 4)), np.ones((5, 3)), mode=1).shape
    (2, 5, 4)
    """
    namespace_of(tensor, matrix)
    mode = check_mode(mode, tensor.ndim, "mode_product")
    return _multiply(tensor, [matrix], [mode], "mode_product")


@door
def multi_mode_product(
    tensor: Shaped[Any, "*shape"], matrices: Sequence[Any], modes: Sequence[int] | None = None
) -> Shaped[Any, "*out"]:
    """Multiply a tensor by matrices along several modes.

    ``vec(Y) = (A_0 kron A_1 kron ...) vec(X)`` when every mode has its matrix.

    Parameters
    ----------
    tensor : array, shape (I_0, ..., I_{D-1})
    matrices : sequence of arrays or None, shapes (J_n, I_n)
        None leaves its mode as it is. Same library and device as ``tensor``.
    modes : sequence of int, optional
        Mode of each matrix; all modes in order if not given.

    Returns
    -------
    array, shape (J_0, ..., J_{D-1})
        In the common dtype; integers become float64. float16 and bfloat16 are computed in float32.

    Raises
    ------
    ShapeError
        If the number of matrices or modes is wrong, a mode is named twice, or a matrix does not fit its mode.
    TypeError
        If library or device differ.

    Notes
    -----
    The order of the products is the cheapest one (see ``contract``).

    References
    ----------
    .. [1] T. G. Kolda and B. W. Bader, Tensor Decompositions and Applications, SIAM Review 51 (2009), section
       2.5. doi:10.1137/07070111X

    Examples
    --------
    >>> import numpy as np
    >>> X, A, B = np.ones((2, 3, 4)), np.ones((5, 2)), np.ones((6, 4))
    >>> multi_mode_product(X, [A, None, B]).shape, multi_mode_product(X, [B], modes=[2]).shape
    ((5, 3, 6), (2, 3, 6))
    """
    where = "multi_mode_product"
    matrices = _listed(matrices, where)
    namespace_of(tensor, *(matrix for matrix in matrices if matrix is not None))
    if modes is None and len(matrices) != tensor.ndim:
        raise ShapeError(
            f"{where}: without `modes` there must be one matrix (or None) per mode, {tensor.ndim}; got "
            f"{len(matrices)}. Say which modes with `modes=`."
        )
    if not isinstance(modes, (Iterable, type(None))):
        raise ShapeError(
            f"{where}: `modes` must be a sequence, one mode per matrix; got {modes!r}. Write "
            f"modes=[{modes!r}]."
        )
    modes = range(tensor.ndim) if modes is None else [check_mode(mode, tensor.ndim, where) for mode in modes]
    if len(modes) != len(matrices) or len(set(modes)) != len(modes):
        raise ShapeError(
            f"{where}: `modes` must name a different mode for each of the {len(matrices)} matrices; got "
            f"{list(modes)}."
        )
    return _multiply(tensor, matrices, modes, where)


def _multiply(tensor: Any, matrices: Sequence[Any], modes: Sequence[int], where: str) -> Any:
    given = {mode: matrix for mode, matrix in zip(modes, matrices, strict=True) if matrix is not None}
    for mode, matrix in given.items():
        if matrix.ndim != 2 or matrix.shape[1] != tensor.shape[mode]:
            raise ShapeError(
                f"{where}: `matrix` must have shape (J, {tensor.shape[mode]}) to multiply mode {mode} of a "
                f"tensor of shape {tuple(tensor.shape)}; got {tuple(matrix.shape)}. Did you mean `matrix.T`, "
                "or another `mode`?"
            )
    dtype = half_of(tensor, *given.values())
    tensor, *rest = promote(tensor, *given.values(), where=where)
    given = dict(zip(given, rest, strict=True))
    xp = namespace_of(tensor)
    return astype(contract(tensor, [given.get(n) for n in range(tensor.ndim)], xp=xp), dtype, xp)


def _listed(matrices: Any, where: str) -> list[Any]:
    if not isinstance(matrices, Iterable):
        raise TypeError(
            f"{where}: `matrices` must be a sequence of arrays; got {type(matrices).__name__}. Write [A, B]."
        )
    return list(matrices)


def _matrices(matrices: Sequence[Any], where: str) -> tuple[Any, tuple[Any, ...], Any]:
    """Namespace, matrices in the dtype to compute in, and the half precision to go back to, if any."""
    if hasattr(matrices, "factors") or is_pair(matrices):
        raise TypeError(
            f"{where}: `matrices` must be a sequence of matrices; got a decomposed tensor, "
            f"{type(matrices).__name__}. Pass its factors: [A, B]."
        )
    matrices = _listed(matrices, where)
    if not matrices:
        raise ShapeError(f"{where}: needs at least one matrix; got none.")
    xp = namespace_of(*matrices)
    if any(matrix.ndim != 2 for matrix in matrices):
        raise ShapeError(
            f"{where}: every matrix must be 2-way; got shapes "
            f"{[tuple(matrix.shape) for matrix in matrices]}. Write v[:, None] for a column."
        )
    return xp, promote(*matrices, where=where), half_of(*matrices)


@door
def khatri_rao(matrices: Sequence[Any]) -> Shaped[Any, "rows R"]:
    """Multiply matrices column by column as Kronecker products.

    ``K[(i, j, ...), r] = A[i, r] B[j, r] ...`` with the index of the last matrix varying fastest.

    Parameters
    ----------
    matrices : sequence of arrays, shapes (I_n, R)
        At least one; same library and device.

    Returns
    -------
    array, shape (prod(I_n), R)

    Raises
    ------
    ShapeError
        If a matrix is not 2-way, or the numbers of columns differ.

    Notes
    -----
    Cost: ``R * prod(I)`` multiplications. The mode-0 unfolding of a CP tensor is
    ``A_0 diag(w) khatri_rao([A_1, A_2, ...]).T``. Row by row (face-splitting product), write
    ``khatri_rao([A.T, B.T]).T``.

    References
    ----------
    .. [1] T. G. Kolda and B. W. Bader, Tensor Decompositions and Applications, SIAM Review 51 (2009), section
       2.6. doi:10.1137/07070111X (with the factors in reverse order)

    Examples
    --------
    >>> import numpy as np
    >>> khatri_rao([np.array([[1, 2]]), np.array([[3, 4], [5, 6]])])
    array([[ 3.,  8.],
           [ 5., 12.]])
    """
    xp, matrices, dtype = _matrices(matrices, "khatri_rao")
    columns = [matrix.shape[1] for matrix in matrices]
    if len(set(columns)) > 1:
        raise ShapeError(f"khatri_rao: all matrices must have the same number of columns; got {columns}.")
    result = matrices[0]
    for matrix in matrices[1:]:
        product = result[:, None, :] * matrix[None, :, :]
        result = xp.reshape(product, (result.shape[0] * matrix.shape[0], result.shape[1]))
    return astype(result, dtype, xp)


@door
def kronecker(matrices: Sequence[Any]) -> Shaped[Any, "rows columns"]:
    """Form the Kronecker product of matrices, first mode first.

    ``K[(i, j, ...), (k, l, ...)] = A[i, k] B[j, l] ...``, so that ``kronecker([A, B]) @ X.reshape(-1)``
    equals ``(A @ X @ B.T).reshape(-1)``.

    Parameters
    ----------
    matrices : sequence of arrays, shapes (J_n, I_n)
        At least one; same library and device.

    Returns
    -------
    array, shape (prod(J_n), prod(I_n))

    Raises
    ------
    ShapeError
        If a matrix is not 2-way.

    Notes
    -----
    Dense, ``prod(J) * prod(I)`` numbers; ``multi_mode_product`` applies it without forming it.

    References
    ----------
    .. [1] C. F. Van Loan, The ubiquitous Kronecker product, Journal of Computational and Applied Mathematics
       123 (2000), section 1. doi:10.1016/S0377-0427(00)00393-9

    Examples
    --------
    >>> import numpy as np
    >>> kronecker([np.eye(2), np.array([[1, 2]])])
    array([[1., 2., 0., 0.],
           [0., 0., 1., 2.]])
    """
    xp, matrices, dtype = _matrices(matrices, "kronecker")
    result = matrices[0]
    for matrix in matrices[1:]:
        product = result[:, None, :, None] * matrix[None, :, None, :]
        result = xp.reshape(product, (result.shape[0] * matrix.shape[0], result.shape[1] * matrix.shape[1]))
    return astype(result, dtype, xp)
