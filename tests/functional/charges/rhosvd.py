"""The way to a Gaussian sum that ``GaussianBasis`` is compared with: all terms collected, then compressed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tenfac.core.arrays import spans
from tenfac.core.modes.chebyshev import Chebyshev, coefficients
from tenfac.core.tucker import Tucker
from tenfac.functional.charges.checks import check_box
from tenfac.functional.charges.gaussian_basis import row_products

# Numbers formed at once: 32 MB in float64.
_NUMBERS = 2**22


def gaussian_rhosvd(
    centers: np.ndarray,
    amplitudes: np.ndarray,
    exponents: np.ndarray,
    weights: np.ndarray,
    *,
    domain: Sequence[tuple[float, float]],
    size: int = 129,
    tol: float = 1e-7,
) -> Tucker:
    """Sum Gaussians over centers by collecting all ``N K`` terms: the paper's way, to compare with.

    Each term is a product of functions of one variable; all columns of a mode are interpolated at ``size``
    Chebyshev points, their singular value decomposition is cut, and the core is summed over all terms (the
    reduced higher-order SVD).

    Parameters
    ----------
    centers : array, shape (N, D)
    amplitudes : array, shape (N,)
    exponents, weights : array, shape (K,)
    domain : sequence of (float, float)
    size : int
        Chebyshev coefficients per mode.
    tol : float
        What is cut of each mode, relative to its columns, each weighted by ``|z_nu w_k|``.

    Returns
    -------
    Tucker
        With Chebyshev modes.

    References
    ----------
    .. [1] P. Benner, V. Khoromskaia, B. Khoromskij and B. Sun, arXiv:2503.01696, algorithm 3.3, with analytic
       samples in the place of splines, and weights in the singular value decomposition.

    Examples
    --------
    >>> import numpy as np
    >>> centers, one = np.zeros((1, 3)), np.ones(1)
    >>> made = gaussian_rhosvd(centers, one, one, one, domain=[(-1, 1)] * 3, size=17)
    >>> made.rank, round(float(made.at(0.0, 0.0, 0.0)), 6)
    ((1, 1, 1), 1.0)
    """
    box = check_box(domain, "gaussian_rhosvd")
    modes = [Chebyshev(size, interval) for interval in box]
    scale = np.multiply.outer(amplitudes, weights).reshape(-1)
    bases, columns = [], []
    for n, mode in enumerate(modes):
        distance = (mode.nodes()[:, None] - centers[:, n]) ** 2
        samples = np.exp(-distance[:, :, None] * np.asarray(exponents)).reshape(size, -1)
        found = coefficients(samples)
        triangle: Any = np.linalg.qr((found * np.abs(scale)).T, mode="r")
        u, s, _ = np.linalg.svd(triangle.T, full_matrices=False)
        tails = np.sqrt(np.cumsum((s**2)[::-1])[::-1])
        rank = max(int(np.sum(tails > tol * tails[0] / math.sqrt(len(box)))), 1)
        bases.append(u[:, :rank])
        columns.append(u[:, :rank].T @ found)
    core = np.zeros([basis.shape[1] for basis in bases])
    for span in spans(len(scale), max(_NUMBERS // max(core[0].size, 1), 64)):
        first, *rest = (column[:, span].T for column in columns)
        core += ((first * scale[span, None]).T @ row_products(rest, len(first), np)).reshape(core.shape)
    return Tucker(core, bases, modes)


def sinc_terms(terms: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussians of ``1 / r`` from the point of a grid next to 0 on: ``t = sinh(s)``, trapezoidal rule."""
    r = np.geomspace(3**0.5 / n, 3**0.5, 300)
    best = None
    for step in np.linspace(0.15, 0.6, 91):
        s = step * np.arange(terms)
        tau, w = np.sinh(s) ** 2, 2 / np.sqrt(np.pi) * step * np.cosh(s) * np.where(s == 0, 0.5, 1.0)
        error = np.abs(r * (np.exp(-np.multiply.outer(r**2, tau)) @ w) - 1).max()
        if best is None or error < best[0]:
            best = (error, tau, w)
    return best[1], best[2]
