"""Parameters inside the dictionary, learned by the gradient of the evidence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from tenfac import KroneckerSBL, kronecker_log_evidence
from tests.checks import assert_above, assert_below, assert_equal, assert_relative

ROWS = (16, 12)


def steering(torch: Any, sines: Any, antennas: int) -> Any:
    """Responses of a line of antennas to plane waves, a column per angle."""
    phase = torch.pi * torch.arange(antennas, dtype=torch.float64)[:, None] * sines
    return torch.exp(1j * phase) / antennas**0.5


def waves(torch: Any, seed: int) -> tuple[list[np.ndarray], Any, Any]:
    """Sines of angles between those of a grid of 32, clean and noisy measurements at 15 dB."""
    rng = np.random.default_rng(seed)
    places = [np.sort(rng.choice(np.arange(2, 30, 5), 2, replace=False)) for _ in ROWS]
    sines = [one / 16 - 1 + rng.uniform(-0.03, 0.03, 2) for one in places]
    first, second = (steering(torch, torch.from_numpy(s), m) for s, m in zip(sines, ROWS, strict=True))
    normal = [rng.standard_normal(n) + 1j * rng.standard_normal(n) for n in ((2, 2), ROWS)]
    clean = first @ torch.from_numpy(normal[0]) @ second.T
    noise = torch.mean(torch.abs(clean) ** 2) * 10**-1.5
    return sines, clean, clean + torch.sqrt(noise / 2) * torch.from_numpy(normal[1])


def refined(torch: Any, model: KroneckerSBL, grid: Any, y: Any) -> list[Any]:
    """Sines of highest evidence near those of a fitted grid, with all variances learned too."""
    sines = [grid[one] for one in model.support_]
    pairs = zip(model.gammas_, model.support_, strict=True)
    logs = [torch.log(g[one]) for g, one in pairs]
    counts = [len(one) for one in (*sines, *logs)]

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        given = torch.from_numpy(x).requires_grad_()
        *parts, log_noise = torch.split(given, [*counts, 1])
        factors = [steering(torch, s, m) for s, m in zip(parts[:2], ROWS, strict=True)]
        value = kronecker_log_evidence(factors, y, [one.exp() for one in parts[2:]], (log_noise[0] / 2).exp())
        value.backward()
        return -float(value.detach()), -given.grad.numpy()

    start = torch.cat([*sines, *logs, 2 * torch.tensor([model.noise_]).log()]).numpy()
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100})
    return list(torch.split(torch.from_numpy(found.x), [*counts, 1]))[:2]


def gain_of(torch: Any, seed: int) -> tuple[float, float]:
    """Squared error with the grid over that with learned angles, and the largest error of an angle."""
    sines, clean, y = waves(torch, seed)
    grid = torch.arange(32, dtype=torch.float64) / 16 - 1
    coarse = KroneckerSBL().fit([steering(torch, grid, m) for m in ROWS], y)
    found = refined(torch, coarse, grid, y)
    fine = KroneckerSBL().fit([steering(torch, s, m) for s, m in zip(found, ROWS, strict=True)], y)
    assert_above(fine.log_evidence_, coarse.log_evidence_ + 10, "log evidence of learned angles")
    errors = [float(torch.linalg.norm(model.predict() - clean)) ** 2 for model in (coarse, fine)]
    kept = [s[one].numpy() for s, one in zip(found, fine.support_, strict=True)]
    away = max(np.abs(k[:, None] - s).min(0).max() for k, s in zip(kept, sines, strict=True))
    return errors[0] / errors[1], away


def test_angles_off_the_grid_are_learned_by_the_gradient_of_the_evidence() -> None:
    torch = pytest.importorskip("torch")
    gain, away = gain_of(torch, 0)
    assert_above(gain, 5.0, "error of the grid over that of learned angles")
    assert_below(away, 0.002, "largest error of an angle; the grid has 0.03")


def test_jax_differentiates_the_evidence_too() -> None:
    jax = pytest.importorskip("jax")
    rng = np.random.default_rng(0)
    A, B, y = rng.standard_normal((3, 4)), rng.standard_normal((2, 5)), rng.standard_normal((3, 2))

    def value(scale: Any, xp: Any) -> Any:
        factors = [xp.asarray(A) * xp.sin(scale), xp.asarray(B)]
        gammas = [xp.ones(4) * scale, xp.ones(5)]
        return kronecker_log_evidence(factors, xp.asarray(y), gammas, 0.3 * scale)

    with jax.enable_x64(True):
        got = jax.jit(jax.grad(lambda scale: value(scale, jax.numpy)))(0.8)
    want = (value(0.8 + 1e-5, np) - value(0.8 - 1e-5, np)) / 2e-5
    assert_relative(np.asarray(got), want, 1e-8)


@pytest.mark.slow
def test_learned_angles_are_several_times_better_than_a_grid() -> None:
    torch = pytest.importorskip("torch")
    gains = [gain_of(torch, seed)[0] for seed in range(7)]
    assert_equal(len(gains), 7)
    assert_above(np.median(gains), 4.0, "median of the error of the grid over that of learned angles")
    assert_above(min(gains), 1.5, "least gain")
