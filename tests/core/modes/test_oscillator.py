"""The damped oscillator: its short steps, its limit without a swing, its gradients, what it refuses."""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

import numpy as np
import pytest
from scipy.linalg import expm

from tenfac.core.errors import DataError
from tenfac.core.modes.oscillator import Oscillator
from tenfac.core.modes.state_space import StateSpace
from tests.checks import assert_close, assert_equal, assert_relative, assert_says

STEPS = np.array([0.0, 1e-9, 1e-4, 0.03, 0.079, 0.08, 0.4, 1.7, 9.0, 60.0])


@pytest.mark.parametrize("quality", [0.5, 0.51, 1.0, 7.0, 1e4])
def test_transitions_are_those_of_the_differential_equation(quality: float) -> None:
    process = Oscillator(1.0, quality)
    drift = 2 * pi * np.array([[0.0, 1.0], [-1.0, -1 / quality]])
    for move, step in zip(process.transition(STEPS), STEPS, strict=True):
        assert_close(move, expm(step * drift), scale=1.0, factor=1e5)


@pytest.mark.parametrize("quality", [0.5, 0.7, 30.0])
@pytest.mark.parametrize("step", [1e-12, 1e-6, 1e-3, 0.0795, 0.0797, 0.9])
def test_innovation_is_the_integral_of_the_squared_response_entry_by_entry(
    quality: float, step: float
) -> None:
    nodes, weights = np.polynomial.legendre.leggauss(60)
    s, weights = pi * step * (nodes + 1), pi * step * weights
    a = 0.5 / quality
    eta = sqrt(1 - a * a) or 1e-9
    swing = np.exp(-a * s) * np.sin(eta * s) / eta
    speed = np.exp(-a * s) * np.cos(eta * s) - a * swing
    got = Oscillator(1.0, quality).innovation(np.array([step]))[0]
    for (i, j), product in {(0, 0): swing**2, (0, 1): swing * speed, (1, 1): speed**2}.items():
        assert_relative(got[i, j], 4 * a * (weights @ product), 1e-11, f"Q[{i}, {j}]")


def test_without_a_swing_it_is_a_matern_process() -> None:
    got, want = Oscillator(3.0, 0.5), StateSpace("matern32", sqrt(3) * 3.0 / (2 * pi))
    pair = [(p.observation(STEPS)[:, None] @ p.transition(STEPS))[:, 0, 0] for p in (got, want)]
    assert_close(*pair)
    assert_close(got.innovation(STEPS)[:, 0, 0], want.innovation(STEPS)[:, 0, 0])
    assert_close(got.observation(STEPS, 1), want.observation(STEPS, 1))


@pytest.mark.parametrize("quality", [0.5, 0.55, 6.0])
def test_every_part_has_gradients_by_period_and_quality(quality: float) -> None:
    torch = pytest.importorskip("torch")
    steps = torch.tensor([0.0, 1e-3, 0.11, 0.4, 1.99, 30.0], dtype=torch.float64)

    def parts(period: Any, excess: Any) -> tuple[Any, ...]:
        process = Oscillator(period, quality + excess)
        return process.transition(steps), process.innovation(steps), process.observation(steps, 1)

    start = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.3, 0.0)]
    assert torch.autograd.gradcheck(parts, start)


def test_the_slope_of_its_correlation_is_the_difference_quotient() -> None:
    process, x, z, step = Oscillator(2.0, 5.0), np.array([-1.0, 0.3, 5.0]), np.array([0.0, 0.3]), 1e-5
    up, down = (process.correlation(x + sign * step, z) for sign in (1, -1))
    assert_relative(process.correlation_slope(x, z), (up - down) / (2 * step), 1e-8)


def test_its_slope_has_the_variance_of_the_frequency() -> None:
    process = Oscillator(2.0, 5.0)
    row = process.observation(np.zeros(1), 1)[0]
    assert_close(np.float64(row @ process.stationary() @ row), np.float64(pi**2))
    assert_equal(process.smoothness, 1)


@pytest.mark.parametrize(
    ("period", "quality", "parts"),
    [
        (0.0, 1.0, ("`period`", "0.0")),
        (1.0, float("nan"), ("`quality`", "nan")),
        (1.0, 0.49, ("`quality`", "1/2 or more", "0.49", "matern12")),
    ],
)
def test_what_cannot_be_used_is_refused(period: float, quality: float, parts: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as error:
        (2.0 * Oscillator(period, quality)).check("here")
    assert_says(error, "here:", *parts)
