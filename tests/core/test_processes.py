"""Processes in state-space form: their covariance is the kernel's, alone, summed and multiplied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import ive

from tenfac.core.errors import DataError
from tenfac.core.modes.process import Independent, Product, Sum, _kron
from tenfac.core.modes.state_space import StateSpace
from tenfac.core.modes.still import Constant, Linear, Periodic
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative, assert_says
from tests.processes import CASES, LINE, M12, M32, M52, PERIODIC

STEPS = np.array([0.0, 1e-9, 1e-4, 0.03, 0.4, 1.7, 9.0, 60.0])
every_case = pytest.mark.parametrize("name", list(CASES))


# --- the kernel -------------------------------------------------------------------------------------------


@every_case
def test_covariance_of_the_state_space_form_is_the_kernel(name: str) -> None:
    process, kernel = CASES[name]
    x = np.linspace(-3, 5, STEPS.size)
    ahead = process.observation(x + STEPS)[:, None, :] @ process.transition(STEPS)
    got = (ahead @ process.stationary() @ process.observation(x)[..., None])[:, 0, 0]
    assert_close(got, np.diag(kernel(x + STEPS, x)), factor=1e3)


@every_case
def test_a_step_and_its_innovation_leave_the_stationary_covariance(name: str) -> None:
    process, _ = CASES[name]
    move, stationary = process.transition(STEPS), process.stationary()
    after = move @ stationary @ move.mT + process.innovation(STEPS)
    assert_equal(stationary.shape, (process.order,) * 2)
    assert_close(after, np.broadcast_to(stationary, after.shape))


@every_case
def test_innovation_is_symmetric_and_positive_semidefinite(name: str) -> None:
    for q in CASES[name][0].innovation(STEPS):
        assert_close(q, np.ascontiguousarray(q.T), scale=max(float(np.abs(q).max()), 1e-300))
        assert_above(np.linalg.eigvalsh(q)[0], -1e-14 * np.abs(q).max(), "smallest eigenvalue")


def test_innovation_of_a_product_is_accurate_at_tiny_steps() -> None:
    # the product of two Matérn-1/2 processes is one, whose rate is the sum of theirs
    steps = np.array([1e-14, 1e-9, 1e-3, 1.0])
    got = (StateSpace("matern12", 0.5) * StateSpace("matern12", 3.0)).innovation(steps)[:, 0, 0]
    for value, step in zip(got, steps, strict=True):
        assert_relative(value, -np.expm1(-2 * step * (1 / 0.5 + 1 / 3.0)), 1e-14, f"step {step}")


@every_case
def test_steps_may_be_integers_or_of_single_precision_and_are_taken_in_double(name: str) -> None:
    process, _ = CASES[name]
    for steps in (np.array([0, 1, 3]), np.array([0.0, 1.0, 3.0], dtype=np.float32)):
        for part in ("transition", "innovation", "observation"):
            want = getattr(process, part)(steps.astype(float))
            assert_close(getattr(process, part)(steps), want, scale=1.0)


@every_case
def test_torch_gives_the_numbers_of_numpy(name: str) -> None:
    torch = pytest.importorskip("torch")
    process, _ = CASES[name]
    steps = torch.from_numpy(STEPS)
    for part in ("transition", "innovation", "observation"):
        assert_close(getattr(process, part)(steps), torch.from_numpy(getattr(process, part)(STEPS)))
    assert_close(process.stationary(steps), torch.from_numpy(process.stationary()))


def test_sums_and_products_are_written_with_plus_and_times() -> None:
    assert_equal(M12 + M32, Sum((M12, M32)))
    assert_equal(M12 * M32, Product((M12, M32)))
    assert_equal((2.0 * M12).stationary().tolist(), [[2.0]])
    assert_equal((M32 + M52).order, 5)
    assert_equal((M32 * M52).order, 6)
    assert_equal((M32 + M52 * PERIODIC).smoothness, 1)


def test_hyperparameters_that_are_arrays_are_listed_of_a_process_and_its_parts() -> None:
    torch = pytest.importorskip("torch")
    a, b, c = (torch.tensor(value) for value in (1.0, 2.0, 3.0))
    process = a * (StateSpace("matern12", b) + M32) + Periodic(1.0, c)
    assert_equal([float(value) for value in process.tensors()], [1.0, 2.0, 3.0])
    assert_equal((M12 + M32 * PERIODIC).tensors(), [])


def test_independent_processes_keep_their_rows_apart() -> None:
    process = Independent((M52, M12, M32))
    rows, stationary = process.observation(np.zeros(1))[0], process.stationary()
    assert_close(rows @ stationary @ rows.T, np.eye(3))
    assert_equal(process.observation(np.zeros(2)).shape, (2, 3, 6))


@pytest.mark.parametrize("kind", [Sum, Product])
def test_a_sum_and_a_product_of_one_process_are_that_process(kind: Any) -> None:
    for part in ("transition", "innovation", "observation"):
        assert_close(getattr(kind((M52,)), part)(STEPS), getattr(M52, part)(STEPS))
    assert_close(kind((M52,)).stationary(), M52.stationary())


def test_kronecker_products_are_taken_over_the_last_two_axes() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 2, 3)), rng.normal(size=(4, 5))
    assert_close(_kron(a, b), np.stack([np.kron(one, b) for one in a]))


# --- the periodic process ---------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [1, 3, 6])
@pytest.mark.parametrize("lengthscale", [1e-3, 0.4, 1.0, 3.0])
def test_the_stated_truncation_is_the_largest_error_and_is_reached(terms: int, lengthscale: float) -> None:
    process, lags = Periodic(7.0, lengthscale, terms=terms), np.linspace(0, 7, 141)
    want = np.exp(-2 * (np.sin(np.pi * lags / 7.0) / lengthscale) ** 2)
    got = process.observation(lags) @ process.stationary() @ process.observation(np.zeros(1))[0]
    assert_close(np.abs(got - want).max(), process.truncation, factor=1e3, scale=1.0)
    assert_equal(process.order, 1 + 2 * terms)


def test_the_stated_truncation_is_all_that_many_cosines_leave_out() -> None:
    process = Periodic(7.0, 0.01, terms=300)
    row = process.observation(np.zeros(1))[0]
    assert_below(abs(1 - row @ process.stationary() @ row - process.truncation), 1e-13, "what is not said")
    assert_above(process.truncation, 1e-3, "what is left out")


@pytest.mark.parametrize("lengthscale", [0.05, 0.4, 1.0, 30.0, 1e8])
def test_the_chosen_number_of_cosines_is_enough_and_not_one_more(lengthscale: float) -> None:
    process = Periodic(7.0, lengthscale)
    assert_below(process.truncation, 1e-14, "truncation")
    assert_equal(process.cosines > 1, lengthscale < 1e8)
    if process.cosines > 1:
        assert_above(Periodic(7.0, lengthscale, terms=process.cosines - 1).truncation, 1e-14, "one less")


def test_a_periodic_process_has_its_phase_also_a_billion_periods_from_zero() -> None:
    process, x = Periodic(0.5, 1.0, terms=5), np.array([0.0, 0.125, 0.3125])
    assert_close(process.observation(x + 2.0**30), process.observation(x), scale=1.0)


@pytest.mark.parametrize("process", [Constant(2.0), LINE, PERIODIC, Constant(2.0) + LINE])
def test_what_stands_still_is_seen_in_derivatives_by_those_of_its_rows(process: Any) -> None:
    x, step = np.array([-1.0, 0.4, 7.7]), 1e-4
    ahead, here, behind = (process.observation(x + shift) for shift in (step, 0.0, -step))
    size = 1.0 + np.abs(process.observation(x, 2)).max()
    for order, want in ((1, (ahead - behind) / (2 * step)), (2, (ahead - 2 * here + behind) / step**2)):
        assert_below(np.abs(process.observation(x, order) - want).max(), 1e-5 * size, "difference")


def test_without_numbers_a_process_has_unit_variance_a_line_starts_at_zero() -> None:
    assert_equal((Constant(), Linear(), Periodic(7.0)), (Constant(1.0), Linear(1.0, 0.0), Periodic(7.0, 1.0)))


# --- gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["matern12", "matern32", "matern52"])
def test_steps_have_gradients_by_the_lengthscale_also_a_step_of_zero(kernel: str) -> None:
    torch = pytest.importorskip("torch")
    steps = torch.tensor([0.0, 1e-3, 0.4, 1.99, 2.01, 30.0], dtype=torch.float64)

    def parts(lengthscale: Any) -> tuple[Any, ...]:
        process = StateSpace(kernel, lengthscale)
        return process.transition(steps), process.innovation(steps), process.observation(steps)

    assert torch.autograd.gradcheck(parts, torch.tensor(0.7, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("lengthscale", [0.1, 0.3, 1.0, 5.0])
def test_a_tensor_as_lengthscale_gives_the_periodic_process_of_the_number(lengthscale: float) -> None:
    torch = pytest.importorskip("torch")
    like = torch.zeros(1, dtype=torch.float64)
    want = Periodic(3.0, lengthscale).stationary(like)
    assert_close(Periodic(3.0, torch.tensor(lengthscale, dtype=torch.float64)).stationary(like), want, 1e3)


def test_a_second_derivative_of_a_product_follows_the_product_rule() -> None:
    x, step = np.array([-1.0, 0.4, 7.7]), 1e-4
    process = Linear(1.0, center=2.0) * Periodic(3.0, 0.9)
    ahead, here, behind = (process.observation(x + shift) for shift in (step, 0.0, -step))
    got, want = process.observation(x, 2), (ahead - 2 * here + behind) / step**2
    assert_relative(got[:, :5], want[:, :5], 1e-5)


def test_every_hyperparameter_of_a_combination_has_a_gradient() -> None:
    torch = pytest.importorskip("torch")
    x = torch.linspace(-1, 4, 3, dtype=torch.float64)

    def parts(period: Any, width: Any, slope: Any, center: Any, level: Any, scale: Any) -> tuple[Any, ...]:
        season = Periodic(period, width, terms=2) * Constant(level)
        process = scale * StateSpace("matern12", 2.0) * season + Linear(slope, center)
        return process.innovation(x.abs()), process.stationary(x), process.observation(x)

    start = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (3.1, 0.8, 0.5, 0.2, 2.0, 1.5)]
    assert torch.autograd.gradcheck(parts, start)


# --- the door ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), "long", None, True])
@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("lengthscale", lambda v: M12 + StateSpace("matern32", v)),
        ("variance", lambda v: M12 * Constant(v)),
        ("variance", Linear),
        ("period", Periodic),
        ("lengthscale", lambda v: Periodic(1.0, v)),
    ],
)
def test_a_hyperparameter_that_is_not_positive_is_refused(name: str, build: Any, bad: Any) -> None:
    with pytest.raises(DataError) as error:
        build(bad).check("here")
    assert_says(error, "here:", f"`{name}`", repr(bad))


def test_a_periodic_process_of_too_many_cosines_is_refused() -> None:
    for short, shown in ((1e-3, "0.001"), (1e-20, "1e-20")):
        with pytest.raises(DataError) as error:
            Periodic(1.0, short).check("here")
        assert_says(error, shown, "200 cosines", "`terms`")
    Periodic(1.0, 1e-3, terms=1).check("here")
    with pytest.raises(DataError) as error:
        Periodic(1.0, 1.0, terms=0).check("here")
    assert_says(error, "`terms`", "got 0")


def test_an_unknown_kernel_and_an_empty_sum_are_refused() -> None:
    with pytest.raises(DataError) as error:
        StateSpace("rbf", 1.0).check("here")
    assert_says(error, "'rbf'", "matern12")
    with pytest.raises(DataError) as error:
        Sum(())
    assert_says(error, "Sum:", "one process or more", "()")


def test_a_process_plus_a_number_is_refused_by_python() -> None:
    with pytest.raises(TypeError):
        M12 + 1.0


def test_a_periodic_process_is_refused_where_two_hundred_cosines_leave_more_than_1e_14():
    def left_out(z):
        return 2 * ive(np.arange(201, 700), z).sum()

    for share, refused in ((0.9, False), (1.1, True)):
        z = brentq(lambda z, share=share: np.log(left_out(z) / (share * 1e-14)), 100.0, 4000.0)
        process = Periodic(1.0, z**-0.5)
        if refused:
            with pytest.raises(DataError) as error:
                process.check("here")
            assert_says(error, "here", "lengthscale", "200 cosines")
        else:
            process.check("here")
            assert_equal(process.cosines, 200)
            assert_below(process.truncation, 1e-14, "what is left out")
