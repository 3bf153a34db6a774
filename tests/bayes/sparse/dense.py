"""Dense formulas of sparse Bayesian recovery: every matrix formed, nothing of the package used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


def kron_dense(matrices: Sequence[Any]) -> np.ndarray:
    """Kronecker product of arrays of any library, as numpy."""
    result = np.ones((1, 1))
    for matrix in matrices:
        result = np.kron(result, np.asarray(matrix).reshape(len(matrix), -1))
    return result


@dataclass(frozen=True)
class Dense:
    """``y = A x + noise`` with ``x ~ N(0, diag(gammas))``, snapshots as columns of ``y``."""

    A: np.ndarray
    y: np.ndarray
    gammas: np.ndarray
    noise: float

    @property
    def covariance(self) -> np.ndarray:
        """Of the measurements."""
        return (self.A * self.gammas) @ self.A.conj().T + self.noise * np.eye(len(self.A))

    @property
    def mean(self) -> np.ndarray:
        return self.gammas[:, None] * (self.A.conj().T @ np.linalg.solve(self.covariance, self.y))

    @property
    def posterior(self) -> np.ndarray:
        """Covariance of the coefficients."""
        cross = self.A * self.gammas
        return np.diag(self.gammas) - cross.conj().T @ np.linalg.solve(self.covariance, cross)

    @property
    def evidence(self) -> float:
        complex_ = np.iscomplexobj(self.A) or np.iscomplexobj(self.y)
        c = 1.0 if complex_ else 0.5
        logdet = np.linalg.slogdet(self.covariance)[1]
        quadratic = np.sum(self.y.conj() * np.linalg.solve(self.covariance, self.y)).real
        count, snapshots = self.y.shape
        return float(-c * (snapshots * (logdet + count * np.log(np.pi / c)) + quadratic))


def sparse_problem(
    rows: Sequence[int],
    columns: Sequence[int],
    active: int,
    *,
    snr_db: float = 20.0,
    snapshots: int = 1,
    complex_: bool = False,
    seed: int = 0,
) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray], np.ndarray]:
    """Factors, measurements (..., T), support per mode, and values on it, drawn independently."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        values = rng.standard_normal(shape)
        return (values + 1j * rng.standard_normal(shape)) / np.sqrt(2) if complex_ else values

    factors = [normal(m, n) / np.sqrt(m) for m, n in zip(rows, columns, strict=True)]
    support = [np.sort(rng.choice(n, min(active, n), replace=False)) for n in columns]
    values = normal(*(len(one) for one in support), snapshots)
    active = [a[:, s] for a, s in zip(factors, support, strict=True)]
    clean = kron_dense(active) @ values.reshape(-1, snapshots)
    noise = np.mean(np.abs(clean) ** 2) * 10 ** (-snr_db / 10)
    y = clean + np.sqrt(noise) * normal(*clean.shape)
    return factors, y.reshape(*rows, snapshots), support, values
