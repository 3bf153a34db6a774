"""Small dense oracles and problems for sparse recovery without structure and with missing measurements."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np


def draw(rng: np.random.Generator, shape: tuple[int, ...], complex_: bool) -> np.ndarray:
    """Standard normal numbers, real or circular complex of unit variance."""
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape)) / np.sqrt(2) if complex_ else values


def problem(
    seed: int,
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    count: int = 5,
    *,
    snapshots: int = 1,
    noise: float = 0.01,
    complex_: bool = False,
    box: tuple[int, ...] | None = None,
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Unit-norm factors, measurements ``(*rows, T)``, unknowns ``(N, T)`` at random places or on a box."""
    rng = np.random.default_rng(seed)
    factors = [draw(rng, (m, n), complex_) for m, n in zip(rows, columns, strict=True)]
    factors = [factor / np.linalg.norm(factor, axis=0) for factor in factors]
    x = np.zeros((int(np.prod(columns)), snapshots), dtype=factors[0].dtype)
    if box is None:
        places = rng.choice(len(x), count, replace=False)
    else:
        used = [np.sort(rng.choice(n, k, replace=False)) for n, k in zip(columns, box, strict=True)]
        places = np.ravel_multi_index(np.ix_(*used), columns).reshape(-1)
    x[places] = draw(rng, (len(places), snapshots), complex_)
    y = reduce(np.kron, factors) @ x
    y = y + np.sqrt(noise * np.mean(abs(y) ** 2)) * draw(rng, y.shape, complex_)
    return factors, y.reshape(*rows, snapshots), x


def dense(factors: list[np.ndarray], mask: np.ndarray | None = None) -> np.ndarray:
    """The dictionary, rows that were measured."""
    matrix = reduce(np.kron, factors)
    return matrix if mask is None else matrix[mask.reshape(-1)]


def dense_evidence(matrix: np.ndarray, y: np.ndarray, gammas: np.ndarray, noise: float) -> float:
    """Log density of the columns of ``y`` under N(0, noise I + A diag(gammas) A^H), with all constants."""
    covariance = noise * np.eye(len(matrix)) + (matrix * gammas) @ matrix.conj().T
    logdet = np.linalg.slogdet(covariance)[1]
    quadratic = float(np.sum(y.conj() * np.linalg.solve(covariance, y)).real)
    if np.iscomplexobj(matrix):
        return -y.shape[1] * (logdet + len(matrix) * np.log(np.pi)) - quadratic
    return -0.5 * (y.shape[1] * (logdet + len(matrix) * np.log(2 * np.pi)) + quadratic)


def dense_posterior(
    matrix: np.ndarray, y: np.ndarray, gammas: np.ndarray, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of all unknowns."""
    covariance = noise * np.eye(len(matrix)) + (matrix * gammas) @ matrix.conj().T
    gain = np.linalg.solve(covariance, matrix * gammas).conj().T
    return gain @ y, np.diag(gammas) - gain @ (matrix * gammas)


def nmse(found: Any, x: np.ndarray, columns: tuple[int, ...]) -> float:
    """Relative squared error of an unstructured solution."""
    guess = np.zeros_like(x)
    guess[np.ravel_multi_index(np.asarray(found.indices).T, columns)] = found.mean
    return float(np.sum(abs(guess - x) ** 2) / np.sum(abs(x) ** 2))
