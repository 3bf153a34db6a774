"""Matérn kernels as state-space models: the two forms agree, at every step length, with every reference."""

from __future__ import annotations

from fractions import Fraction
from math import comb, factorial

import numpy as np
import pytest
from scipy.linalg import expm
from sklearn.gaussian_process.kernels import Matern

from tenfac.core.errors import DataError
from tenfac.core.modes.state_space import KERNELS, StateSpace, check_kernel, correlation, correlation_slope
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_relative,
    assert_says,
)
from tests.oracles import matern_dense

SMOOTHNESS = {"matern12": 0.5, "matern32": 1.5, "matern52": 2.5}
STEPS = np.array([0.0, 1e-9, 1e-4, 0.03, 0.4, 1.7, 9.0, 60.0])

every_kernel = pytest.mark.parametrize("kernel", list(SMOOTHNESS))
every_lengthscale = pytest.mark.parametrize("lengthscale", [0.02, 1.3, 1e6])


def exact_model(order: int) -> tuple[list[list[Fraction]], list[list[Fraction]]]:
    """Drift of ``(d/ds + 1)^order f = white noise`` and its stationary covariance, in exact fractions.

    The covariance of the derivatives ``i`` and ``j`` is ``(-1)^j k^(i + j)(0)``, with the Taylor
    coefficients of the Matérn correlation at 0 (odd orders below ``2 order`` vanish).
    """
    last = [Fraction(-comb(order, j)) for j in range(order)]
    drift = [[Fraction(int(j == i + 1)) for j in range(order)] for i in range(order - 1)] + [last]
    second = {1: {}, 2: {2: Fraction(-1)}, 3: {2: Fraction(-1, 3), 4: Fraction(1)}}[order]
    derivative = {0: Fraction(1), **second}
    cov = [[(-1) ** j * derivative.get(i + j, Fraction(0)) for j in range(order)] for i in range(order)]
    return drift, cov


def times(a: list[list[Fraction]], b: list[list[Fraction]]) -> list[list[Fraction]]:
    return [
        [sum(x * y for x, y in zip(row, column, strict=True)) for column in zip(*b, strict=True)] for row in a
    ]


def exact_innovation(order: int, step: float) -> np.ndarray:
    """``P - A P A^T`` in exact fractions, with ``A = expm(F step)`` from 40 terms of its series."""
    drift, cov = exact_model(order)
    power = [[Fraction(int(i == j)) for j in range(order)] for i in range(order)]
    move = [[Fraction(0)] * order for _ in range(order)]
    for k in range(40):
        weight = Fraction(step) ** k / factorial(k)
        move = [
            [m + weight * p for m, p in zip(*rows, strict=True)] for rows in zip(move, power, strict=True)
        ]
        power = times(power, drift)
    after = times(times(move, cov), [list(column) for column in zip(*move, strict=True)])
    return np.array(
        [[float(c - a) for c, a in zip(*rows, strict=True)] for rows in zip(cov, after, strict=True)]
    )


# --- the kernel -------------------------------------------------------------------------------------------


@every_kernel
@every_lengthscale
def test_correlation_is_the_matern_kernel_of_scikit_learn(kernel: str, lengthscale: float) -> None:
    rng = np.random.default_rng(1)
    x, z = rng.random(9) * 5 * lengthscale, rng.random(7) * 5 * lengthscale
    z[0] = x[0]
    want = Matern(length_scale=lengthscale, nu=SMOOTHNESS[kernel])(x[:, None], z[:, None])
    assert_close(correlation(x, z, kernel, lengthscale), want)
    assert_close(correlation(x, z, kernel, lengthscale), matern_dense(x, z, SMOOTHNESS[kernel], lengthscale))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 2026-07: gpytorch's own import, torch.jit
@every_kernel
def test_correlation_is_the_matern_kernel_of_gpytorch(kernel: str) -> None:
    torch = pytest.importorskip("torch")
    kernels = pytest.importorskip("gpytorch.kernels")
    x, z = np.linspace(0, 3, 8), np.linspace(-1, 2, 5) ** 3
    peer = kernels.MaternKernel(nu=SMOOTHNESS[kernel]).double()
    peer.lengthscale = torch.tensor(0.7, dtype=torch.float64)
    want = peer(torch.from_numpy(x), torch.from_numpy(z)).to_dense().detach().numpy()
    # gpytorch centers its inputs, which rounds their distances
    assert_close(correlation(x, z, kernel, 0.7), want, factor=1e4)


# --- the state-space form ---------------------------------------------------------------------------------


@every_kernel
@every_lengthscale
def test_covariance_of_the_state_space_form_is_the_kernel(kernel: str, lengthscale: float) -> None:
    model = StateSpace(kernel, lengthscale)
    got = (model.transition(STEPS * lengthscale) @ model.stationary())[:, 0, 0]
    want = Matern(length_scale=1.0, nu=SMOOTHNESS[kernel])(STEPS[:, None], np.zeros((1, 1)))[:, 0]
    assert_close(got, want)


@every_kernel
def test_state_covariance_and_drift_are_those_of_the_differential_equation(kernel: str) -> None:
    drift, cov = (np.array(part, dtype=float) for part in exact_model(KERNELS[kernel]))
    model = StateSpace(kernel, 2.0)
    assert_equal(model.order, drift.shape[0])
    assert_close(model.stationary(), cov)
    assert_close(model.transition(np.array([0.8]))[0], expm(0.8 * model.rate * drift))


@every_kernel
@every_lengthscale
def test_a_step_and_its_innovation_leave_the_stationary_covariance(kernel: str, lengthscale: float) -> None:
    model = StateSpace(kernel, lengthscale)
    move, stationary = model.transition(STEPS * lengthscale), model.stationary()
    after = move @ stationary @ move.transpose(0, 2, 1) + model.innovation(STEPS * lengthscale)
    assert_close(after, np.broadcast_to(stationary, after.shape))


@every_kernel
def test_two_steps_are_one_step_of_their_sum(kernel: str) -> None:
    model = StateSpace(kernel, 0.3)
    a, b = np.array([0.0, 1e-6, 0.2, 0.5]), np.array([0.7, 0.1, 1e-3, 2.0])
    assert_close(model.transition(a) @ model.transition(b), model.transition(a + b))


@every_kernel
@pytest.mark.parametrize("step", [1e-12, 1e-6, 1e-3, 0.1, 1.0])
def test_innovation_is_accurate_entry_by_entry_at_tiny_steps(kernel: str, step: float) -> None:
    model = StateSpace(kernel, 1.0)
    want = exact_innovation(model.order, step * model.rate)
    got = model.innovation(np.array([step]))[0]
    for i in range(model.order):
        for j in range(model.order):
            # entries differ by many powers of the step: each is compared on its own scale
            assert_relative(got[i : i + 1, j], want[i : i + 1, j], 1e-12, f"Q[{i}, {j}]")


@every_kernel
def test_innovation_is_symmetric_and_positive_semidefinite(kernel: str) -> None:
    model = StateSpace(kernel, 1.0)
    for q in model.innovation(np.concatenate([STEPS, np.geomspace(1e-10, 1e2, 40)])):
        assert_equal(q, np.ascontiguousarray(q.T))
        assert_above(np.linalg.eigvalsh(q)[0], -1e-15 * np.abs(q).max(), "smallest eigenvalue")


@every_kernel
def test_a_step_of_zero_moves_nothing_and_a_long_one_forgets(kernel: str) -> None:
    model = StateSpace(kernel, 1.0)
    steps = np.array([0.0, 1e3])
    assert_equal(model.transition(steps)[0], np.eye(model.order))
    assert_close(model.innovation(steps)[0], np.zeros((model.order,) * 2))
    assert_close(model.transition(steps)[1], np.zeros((model.order,) * 2))
    assert_close(model.innovation(steps)[1], model.stationary())


# --- the door ---------------------------------------------------------------------------------------------


@every_kernel
def test_a_known_kernel_passes(kernel: str) -> None:
    assert_equal(check_kernel(kernel, "here"), kernel)


def test_an_unknown_kernel_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(DataError) as error:
        check_kernel("rbf", "here")
    assert_says(error, "here:", "'rbf'", "matern12, matern32, matern52")


@pytest.mark.parametrize("kernel", ["matern32", "matern52"])
def test_the_slope_of_a_correlation_is_its_difference_quotient(kernel: str) -> None:
    x, z, step = np.array([-1.0, 0.3, 0.31, 5.0, 1e9]), np.array([0.0, 0.3, 2.0]), 1e-5
    up, down = (correlation(x + sign * step, z, kernel, 0.7) for sign in (1, -1))
    got = correlation_slope(x, z, kernel, 0.7)
    assert_below(np.abs(got - (up - down) / (2 * step)).max(), 1e-8, "distance")
    assert_equal(got[1, 1], np.float64(0.0))
