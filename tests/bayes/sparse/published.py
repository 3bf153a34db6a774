"""The published Kronecker SBL algorithms with N x N matrices, word for word: slow and obvious."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from scipy.optimize import nnls


def kron(parts: Sequence[Any]) -> Any:
    return reduce(np.kron, parts)


def dense_posterior(A: Any, gamma: Any, y: Any, noise: float) -> tuple[Any, Any, float]:
    """Mean, covariance and log evidence of ``x ~ N(0, diag(gamma))`` given ``y = A x + noise``."""
    S = noise * np.eye(len(y)) + (A * gamma) @ A.conj().T
    gain = (gamma[:, None] * A.conj().T) @ np.linalg.inv(S)
    c, kappa = (1.0, 1.0) if np.iscomplexobj(A) else (0.5, 2.0)
    quadratic = (y.conj() @ np.linalg.solve(S, y)).real
    evidence = -c * (np.linalg.slogdet(S)[1] + quadratic + len(y) * np.log(kappa * np.pi))
    return gain @ y, np.diag(gamma) - gain @ A * gamma, float(evidence)


@dataclass(frozen=True)
class Settings:
    kind: str
    relative: tuple[float, ...]
    floor: float = 0.0
    inner_tol: float = 1e-5
    inner_relative: bool = False
    inner_most: float = np.inf
    couplings: tuple[Any, ...] | None = None


def dense_em(
    factors: Sequence[Any], y: Any, noise: float | None, s: Settings, max_iter: int, tol: float = 1e-4
) -> dict[str, Any]:
    """Prune, posterior, new hyperparameters, noise; until the full hyperparameters stand still."""
    factors, sizes = list(factors), [A.shape[1] for A in factors]
    couplings = s.couplings or (None,) * len(sizes)
    C = [np.eye(n) if c is None else c for n, c in zip(sizes, couplings, strict=True)]
    g = [c @ np.ones(n) for n, c in zip(sizes, C, strict=True)]
    kept = [np.arange(n) for n in sizes]
    learn, noise = noise is None, 0.1 * np.var(y, ddof=1) if noise is None else noise
    full, change, n_iter = kron(g), 1.0, 0
    while n_iter < max_iter and change > tol:
        before = full
        for i in range(len(g)):
            stay = ~((g[i] < s.relative[i] * g[i].max()) | (g[i] < s.floor))
            g[i], kept[i], factors[i] = g[i][stay], kept[i][stay], factors[i][:, stay]
            C[i] = C[i][np.ix_(stay, stay)]
        gamma = kron(g)
        mu, Sigma, _ = dense_posterior(kron(factors), gamma, y, noise)
        variance = np.diag(Sigma).real
        Lambda = variance + abs(mu) ** 2
        g = _svd(Lambda, g) if s.kind == "svd" else _am(Lambda, g, C, s)
        if learn:
            misfit = np.linalg.norm(y - kron(factors) @ mu) ** 2
            noise = (misfit + noise * (1 - variance / gamma).sum()) / len(y)
        full = np.zeros(before.size)
        full[_places(kept, sizes)] = kron(g)
        change = np.linalg.norm(full - before) / np.linalg.norm(before)
        n_iter += 1
    mu, _, evidence = dense_posterior(kron(factors), kron(g), y, noise)
    x = np.zeros(full.size, dtype=mu.dtype)
    x[_places(kept, sizes)] = mu
    return {"gamma": full, "x": x, "noise": noise, "n_iter": n_iter, "evidence": evidence}


def _places(kept: list[Any], sizes: list[int]) -> Any:
    return np.ravel_multi_index(np.ix_(*kept), sizes).reshape(-1)


def _am(Lambda: Any, g: list[Any], C: list[Any], s: Settings) -> list[Any]:
    g, change, cycles = list(g), 1.0, 0
    while change > s.inner_tol and cycles < s.inner_most:
        old = kron(g)
        for i in range(len(g)):
            row = kron([np.eye(len(v)) if k == i else 1 / v[:, None] for k, v in enumerate(g)])
            mean = row.T @ Lambda * len(g[i]) / Lambda.size
            if s.couplings is not None and s.couplings[i] is not None:
                g[i] = 1e-5 + C[i] @ nnls(C[i], mean)[0]
            else:
                g[i] = mean
        norms = [np.linalg.norm(v) for v in g[:-1]]
        g = [*(v / n for v, n in zip(g[:-1], norms, strict=True)), g[-1] * np.prod(norms)]
        change = np.linalg.norm(kron(g) - old) / (np.linalg.norm(old) if s.inner_relative else 1.0)
        cycles += 1
    return g


def _svd(Lambda: Any, g: list[Any]) -> list[Any]:
    new, rest = [], Lambda
    for v in g[:-1]:
        U, s, V = np.linalg.svd(rest.reshape(len(v), -1))
        new, rest = [*new, abs(U[:, 0])], abs(s[0] * V[0])
    return [*new, rest]
