"""The expectation step by mode products against dense formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tenfac.bayes.sparse.estep import posterior
from tests.bayes.sparse.published import dense_posterior, kron
from tests.checks import assert_close, assert_relative


def problem(complex_: bool, shapes: list[tuple[int, int]], T: int, seed: int = 0) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        real = rng.standard_normal(shape)
        return real + 1j * rng.standard_normal(shape) if complex_ else real

    factors = [draw(*shape) for shape in shapes]
    gammas = [rng.gamma(0.5, size=n) for _, n in shapes]
    return factors, gammas, draw(*(m for m, _ in shapes), T)


SHAPES = [
    [(3, 4), (2, 3), (3, 2), (2, 4)],
    [(5, 3), (1, 4), (4, 4)],
    [(6, 9)],
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_mean_variances_evidence_and_noise_step_equal_the_dense_formulas(
    shapes: list[tuple[int, int]], complex_: bool
) -> None:
    factors, gammas, Y = problem(complex_, shapes, 2)
    gammas[0][1] = 0.0
    found = posterior(factors, gammas, Y, 0.3)
    A, gamma, y = kron(factors), kron(gammas), Y.reshape(-1, 2)
    dense = [dense_posterior(A, gamma, y[:, t], 0.3) for t in range(2)]
    for t, (mean, Sigma, _) in enumerate(dense):
        assert_relative(found.mean[..., t].reshape(-1), mean, 1e-11)
        assert_relative(found.variance.reshape(-1), np.diag(Sigma).real, 1e-11)
    assert_close(found.evidence, sum(evidence for *_, evidence in dense), factor=1e4)
    means = np.stack([mean for mean, *_ in dense], axis=-1)
    assert_close(found.residual, float(np.linalg.norm(y - A @ means) ** 2), factor=1e4)
    assert_close(found.fitted, float(np.trace(A @ dense[0][1] @ A.conj().T).real / 0.3), factor=1e4)


def test_variances_and_residual_keep_their_digits_with_tiny_noise() -> None:
    factors, gammas, _ = problem(False, [(3, 3), (4, 4)], 1)
    X = np.random.default_rng(1).standard_normal((3, 4, 1))
    Y = np.einsum("ai,bj,ijt->abt", *factors, X)
    found = posterior(factors, gammas, Y, 1e-12)
    inverse = np.linalg.inv(kron(factors))
    want = 1e-12 * (inverse * inverse).sum(axis=1)
    assert_relative(found.variance.reshape(-1), want, 1e-6)
    G = kron(factors) * kron(gammas) @ kron(factors).T
    assert_relative(np.sqrt(found.residual), np.linalg.norm(1e-12 * np.linalg.solve(G, Y.reshape(-1))), 1e-6)
