"""One mode of a Kronecker prior: its active columns, their variances, and the axes that make it diagonal."""

from __future__ import annotations

from typing import Any, NamedTuple

from tenfac.core.arrays import device_of, to_number, triangular_factor
from tenfac.core.contract import adjoint

# From this many columns per row on, the axes are those of the triangular factor of the columns.
_WIDE = 1.5


class Spectrum(NamedTuple):
    """A factor ``A`` (r, n), r <= n, with variances ``t = C h`` of its columns, diagonalised.

    ``A diag(t) A^H = vectors diag(values) vectors^H``. The rows of ``A`` are coordinates in the range of the
    active columns of the factor that the user gave.

    Parameters
    ----------
    factor : array, shape (r, n)
    columns : array of int, shape (n,)
        Which columns of the given factor these are.
    weights : array, shape (m,)
        ``h``, the numbers that are learned.
    labels : array of int, shape (m,)
        Which of the weights these are.
    coupling : array, shape (n, m), or None
        ``C``; None where ``t = h``.
    gammas : array, shape (n,)
        ``t``.
    vectors : array, shape (r, r)
    values : array, shape (r,)
        Nonnegative, descending.
    turned : array, shape (r, n)
        ``vectors^H factor``.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> spectrum(xp.eye(2), xp.arange(2), xp.asarray([1.0, 4.0]), xp.arange(2), None, xp).values.tolist()
    [4.0, 1.0]
    """

    factor: Any
    columns: Any
    weights: Any
    labels: Any
    coupling: Any
    gammas: Any
    vectors: Any
    values: Any
    turned: Any


def spectrum(factor: Any, columns: Any, weights: Any, labels: Any, coupling: Any, xp: Any) -> Spectrum:
    """Diagonalise a mode (see ``Spectrum``): a singular value decomposition, never the Gram matrix.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> spectrum(xp.asarray([[3.0, 4.0]]), xp.arange(2), xp.ones(2), xp.arange(2), None, xp).values.round(9)
    array([25.])
    """
    gammas = weights if coupling is None else coupling @ weights
    scaled = factor * xp.sqrt(gammas)
    if factor.shape[1] > _WIDE * factor.shape[0]:
        scaled = adjoint(triangular_factor(adjoint(scaled, xp)), xp)
    vectors, roots, _ = xp.linalg.svd(scaled, full_matrices=False)
    turned = adjoint(vectors, xp) @ factor
    return Spectrum(factor, columns, weights, labels, coupling, gammas, vectors, roots * roots, turned)


def kept(mode: Spectrum, weights: Any, keep: Any, xp: Any) -> tuple[Spectrum, Any]:
    """Give a mode new weights, and only those of ``keep``.

    Parameters
    ----------
    mode : Spectrum
    weights : array, shape (m,)
    keep : array of bool, shape (m,), or None
        None keeps all.

    Returns
    -------
    mode : Spectrum
    turn : array, shape (r', r)
        Takes coordinates in the old ``vectors`` to coordinates in the new; ``r' < r`` if fewer columns than
        rows are left: the rest of the old range is then outside the model.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> old = spectrum(xp.eye(2), xp.arange(2), xp.ones(2), xp.arange(2), None, xp)
    >>> new, turn = kept(old, old.weights, xp.asarray([True, False]), xp)
    >>> new.factor.shape, turn.shape
    ((1, 1), (1, 2))
    """
    factor, columns, labels, coupling = mode.factor, mode.columns, mode.labels, mode.coupling
    basis = None
    if keep is not None:
        weights, labels = weights[keep], labels[keep]
        if coupling is None:
            used = keep
        else:
            coupling = coupling[:, keep]
            used = xp.sum(coupling, axis=1) > 0
            coupling = coupling[used, :]
        factor, columns = factor[:, used], columns[used]
        if factor.shape[1] < factor.shape[0]:
            basis, factor = xp.linalg.qr(factor)
    new = spectrum(factor, columns, weights, labels, coupling, xp)
    vectors = new.vectors if basis is None else basis @ new.vectors
    return new, adjoint(vectors, xp) @ mode.vectors


def first_spectrum(factor: Any, weights: Any, coupling: Any, xp: Any) -> tuple[Spectrum, Any]:
    """Diagonalise a factor as given, of any shape (M, N), without columns whose variance is zero.

    Returns
    -------
    mode : Spectrum
    turn : array, shape (min(M, N), M)
        Takes measurements to coordinates in the axes of the mode.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> mode, turn = first_spectrum(xp.ones((3, 1)), xp.ones(1), None, xp)
    >>> mode.factor.shape, turn.shape
    ((1, 1), (1, 3))
    """
    device = device_of(factor)
    columns = xp.arange(factor.shape[1], device=device)
    labels = xp.arange(weights.shape[0], device=device)
    used = weights > 0
    if not to_number(xp.all(used)):
        weights, labels = weights[used], labels[used]
        coupling = None if coupling is None else coupling[:, used]
    active = used if coupling is None else xp.sum(coupling, axis=1) > 0
    if not to_number(xp.all(active)):
        coupling = None if coupling is None else coupling[active, :]
        factor, columns = factor[:, active], columns[active]
    basis = None
    if factor.shape[1] < factor.shape[0]:
        basis, factor = xp.linalg.qr(factor)
    mode = spectrum(factor, columns, weights, labels, coupling, xp)
    vectors = mode.vectors if basis is None else basis @ mode.vectors
    return mode, adjoint(vectors, xp)
