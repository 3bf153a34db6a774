"""The one weighted low-rank problem under SVD, FWSVD, EoRA and AFM compression of a weight."""

from __future__ import annotations

import torch
from torch import Tensor

# Directions of a metric below this share of its largest are lifted to it before they are divided by.
_FLOOR = 1e-10
# Share of the plain metric in one of data: it alone decides where the data see nothing.
_RIDGE = 1e-12


def low_rank(
    target: Tensor, rank: int, *, left: Tensor | None = None, moment: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Best rank-R matrix in a weighted norm: ``argmin || A^(1/2) (T - U V) B^(1/2) ||_F``.

    Parameters
    ----------
    target : tensor, shape (O, *columns)
        ``T``; all modes but the first count as columns.
    rank : int
        ``1 <= R <= O``.
    left : tensor, shape (O,) or (O, O), optional
        The metric ``A`` of the rows: positive weights, or a positive matrix. None is the identity.
    moment : tensor, shape (O, O), optional
        ``T B T'``: the second moment of what ``T`` puts out for inputs of second moment ``B``. None is
        ``B = I``.

    Returns
    -------
    U : tensor, shape (O, R)
    V : tensor, shape (R, *columns)
        In float64.

    Notes
    -----
    With ``Q`` the leading eigenvectors of ``A^(1/2) T B T' A^(1/2)``, the answer is ``U = A^(-1/2) Q`` and
    ``V = Q' A^(1/2) T``; ``U`` is then made orthonormal. Nothing is divided by ``B``: it may be singular, and
    ranks beyond its own are spent as without it. ``A = B = I`` is the SVD; ``A`` a diagonal of Fisher
    information is FWSVD [1]_; ``B`` the second moment of the inputs and ``T`` what rounding has lost is EoRA
    [2]_; ``B`` their covariance is atomic feature mimicking [3]_, the principal components of a layer's
    outputs. Cost: one eigendecomposition of size O, two with ``left``, and ``O R`` multiplications a column.

    References
    ----------
    .. [1] Y.-C. Hsu et al., Language model compression with weighted low-rank factorization, ICLR 2022.
       arXiv:2207.00112
    .. [2] S.-Y. Liu et al., EoRA: fine-tuning-free compensation for compressed LLM with eigenspace low-rank
       approximation, 2024. arXiv:2410.21271
    .. [3] H. Yu and J. Wu, Compressing transformers: features are low-rank, but weights are not, AAAI 2023.

    Examples
    --------
    >>> import torch
    >>> U, V = low_rank(torch.diag(torch.tensor([3.0, 2.0, 1.0])), 2)
    >>> (U @ V).diag().abs()
    tensor([3., 2., 0.], dtype=torch.float64)
    """
    target = target.detach().to(torch.float64)
    flat = target.reshape(target.shape[0], -1)
    plain = flat @ flat.mT
    moment = plain if moment is None else _lifted(moment, plain)
    if left is None:
        vectors = leading(moment, rank)
        return vectors, _times(vectors.mT, target)
    root, inverse = roots(left)
    vectors = leading(root @ moment @ root, rank)
    out, mixing = balanced(inverse @ vectors)
    return out, _times(mixing @ vectors.mT @ root, target)


def leading(gram: Tensor, rank: int) -> Tensor:
    """Eigenvectors of the largest eigenvalues of a symmetric matrix, ``(I, R)``."""
    return torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :rank]


def roots(metric: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric square root of a metric (a vector is a diagonal) and its inverse, in float64.

    A metric that is zero tells nothing: the identity stands in for it.
    """
    metric = metric.detach().to(torch.float64)
    metric = torch.diag(metric) if metric.ndim == 1 else metric
    values, vectors = torch.linalg.eigh(metric)
    values = values if values[-1] > 0 else torch.ones_like(values)
    values = values.clamp_min(_FLOOR * values[-1])
    root = values.sqrt()
    return (vectors * root) @ vectors.mT, (vectors / root) @ vectors.mT


def balanced(factor: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal columns and the matrix that gives the factor back, so that narrow dtypes hold both."""
    return torch.linalg.qr(factor)


def _lifted(moment: Tensor, plain: Tensor) -> Tensor:
    """A moment with a trace of the plain one, which alone decides where there is nothing else."""
    size, whole = torch.trace(moment), torch.trace(plain)
    return moment + _RIDGE * size / whole * plain if size > 0 and whole > 0 else plain


def _times(matrix: Tensor, tensor: Tensor) -> Tensor:
    return torch.tensordot(matrix, tensor, dims=([1], [0]))
