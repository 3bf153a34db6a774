"""Where a refusal begins: just inside and just outside of what is allowed."""

from __future__ import annotations

import tracemalloc
from time import perf_counter

import numpy as np
import pytest

from tenfac import DataError, KroneckerOperator, nearest_kronecker
from tenfac.core.progress import Progress
from tenfac.kron.determinant import SignedLog, positive_log
from tenfac.kron.operator import reciprocal_condition
from tenfac.kron.rearranged import alternate, leading_triplets
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_says,
    quietly,
    to_numpy,
)
from tests.conftest import Make

EPS = 2.0**-52


@pytest.mark.parametrize("scale", [1.0, 2.0**600, 2.0**-600])
def test_factors_are_hermitian_to_a_hundred_roundings_of_their_largest_entry(scale: float) -> None:
    for roundings in (0, 100):
        A = scale * np.array([[0.5, 1 + roundings * EPS], [1.0, 0.5]])
        assert_close(np.sort(KroneckerOperator(A).eigh().values), scale * np.array([-0.5, 1.5]), 1000)
    with pytest.raises(DataError) as error:
        KroneckerOperator(scale * np.array([[0.5, 1 + 102 * EPS], [1.0, 0.5]])).eigh()
    assert_says(error, "factors[0]", f"{102 * EPS * scale:.2g}", f"{scale:.2g}")


@pytest.mark.parametrize("scale", [1.0, 2.0**500, 2.0**-500])
def test_a_factor_is_solved_while_its_condition_is_below_the_inverse_of_a_rounding(scale: float) -> None:
    near = scale * np.diag([1.0, 2 * EPS])
    assert_close(KroneckerOperator(near).solve(np.ones(2)), np.array([1.0, 0.5 / EPS]) / scale)
    assert_equal(reciprocal_condition(near), 2 * EPS)
    with pytest.raises(DataError) as error:
        KroneckerOperator(np.eye(3), scale * np.diag([EPS, 1.0])).solve(np.ones(6))
    assert_says(error, "factors[1] (2x2)", "2e-16")


def test_the_condition_of_what_has_no_inverse_is_zero() -> None:
    for bad in (np.zeros((2, 2)), np.full((2, 2), np.nan), np.diag([1e-310, 1e-320])):
        with np.errstate(all="ignore"):
            assert_equal(reciprocal_condition(bad), 0.0)


def test_a_shift_and_a_sum_are_solved_down_to_a_rounding_of_the_largest_eigenvalue() -> None:
    zero, eye = np.diag([1.0, 0.0]), np.eye(2)
    assert_close(KroneckerOperator(zero).shifted(2 * EPS).solve(np.ones(2)), np.array([1.0, 0.5 / EPS]), 1000)
    with pytest.raises(DataError) as error:
        KroneckerOperator(zero).shifted(0.9 * EPS)
    assert_says(error, "smallest value 2e-16", "largest magnitude 1")
    total = KroneckerOperator(np.diag([-1.0, 3.0])) + KroneckerOperator(eye * (1 + 8 * EPS))
    assert_close(total.solve(np.ones(2)), np.array([0.125 / EPS, 0.25]), 1e16)
    with pytest.raises(DataError) as error:
        (KroneckerOperator(np.diag([-1.0, 3.0])) + KroneckerOperator(eye * (1 + 2 * EPS))).solve(np.ones(2))
    assert_says(error, "smallest magnitude 4.4e-16", "largest magnitude 4")


@pytest.mark.parametrize("sign", [1.0, np.complex128(1 + 9e-4j), np.complex128(1 - 9e-4j), np.array(1.0)])
def test_a_determinant_is_positive_up_to_a_thousandth_of_a_turn(sign: complex) -> None:
    assert_equal(positive_log(SignedLog(sign, 2.5), "logdet"), 2.5)


@pytest.mark.parametrize(
    ("sign", "said"),
    [
        (0.0, "its sign is 0. Use"),
        (-1.0, "its sign is -1. Use"),
        (np.float64(-1.0), "its sign is -1. Use"),
        (np.complex128(1 + 1.1e-3j), "its sign is 1+0.0011j. Use"),
        (np.complex128(1 - 1.1e-3j), "its sign is 1-0.0011j. Use"),
        (np.complex128(-1), "its sign is -1. Use"),
    ],
)
def test_other_determinants_are_told_by_their_sign(sign: complex, said: str) -> None:
    with pytest.raises(DataError) as error:
        positive_log(SignedLog(sign, 2.5), "here")
    assert_says(error, "here: ", said)


# --- iterations ---------------------------------------------------------------------------------------------


def test_long_iterations_are_looked_at_every_fifth_time_and_the_bar_follows() -> None:
    M = np.random.default_rng(0).standard_normal((100, 121))
    seen = []
    for most, looks in ((9, 9), (10, 10), (12, 11), (17, 12), (22, 13)):
        with Progress("nearest_kronecker", most, 1) as tell:
            found = leading_triplets(M, 1, 1e-300, most, np.random.default_rng(0), tell)
            seen.append((found.n_iter, len(found.history), tell._bar.n))
        assert_equal(seen[-1], (most, looks, most))
    assert_equal((found.converged, found.reason), (False, "max_iter reached"))


@pytest.mark.parametrize("terms", [1, 3])
def test_the_history_of_two_factors_is_the_largest_residual_of_a_triplet(terms: int) -> None:
    M = np.random.default_rng(0).standard_normal((90, 100))
    found = leading_triplets(M, terms, 1e-300, 3, np.random.default_rng(0))
    sizes = np.linalg.norm(found.vectors[0], axis=0)
    u, v = found.vectors[0] / sizes, found.vectors[1]
    residuals = np.linalg.norm(M.T @ u - v * sizes, axis=0)
    assert_close(found.history[-1], float(residuals.max() / np.linalg.norm(M)), 1e4)
    assert_close(M @ v, found.vectors[0], 1e4)


def test_a_long_matrix_has_no_singular_vectors_for_each_of_its_columns() -> None:
    M = np.random.default_rng(0).standard_normal((3, 3000))
    tracemalloc.start()
    nearest_kronecker(M, ((3, 1), (1, 3000)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_below(peak, 20 * M.nbytes, "peak bytes")


@pytest.mark.parametrize("side", [64, 65])
def test_a_short_side_of_64_is_decomposed_at_once_and_a_longer_one_is_not(side: int) -> None:
    M = np.random.default_rng(0).standard_normal((side, 80))
    for R in (M, M.T):
        found = leading_triplets(R, 1, 0.5, 3, np.random.default_rng(0))
        assert_equal((found.n_iter is None, found.reason == "tolerance met"), (side == 64, side == 65))


def test_a_fit_that_falls_back_to_the_svd_keeps_what_it_did() -> None:
    M = np.random.default_rng(0).standard_normal((66, 70))
    found = leading_triplets(M, 12, 1e-300, 50, np.random.default_rng(0))
    assert_equal((found.n_iter, len(found.history)), (2, 2))  # 2 * (2 * 12 + 12) > 66
    U, s, VH = np.linalg.svd(M, full_matrices=False)
    assert_close(found.vectors[0] @ found.vectors[1].T, (U[:, :12] * s[:12]) @ VH[:12], 1e4)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_alternating_stops_after_two_sweeps_of_a_product(dtype: str) -> None:
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal(n).astype(dtype) for n in (2, 3, 4))
    tensor = np.einsum("i,j,k->ijk", a, b, c * (1 + 1j) if dtype == "complex128" else c)
    found = alternate(tensor, 1, 1e-8, 10, np.random.default_rng(0))
    assert_equal((found.converged, found.n_iter, len(found.history)), (True, 2, 2))
    assert_close(np.einsum("ir,jr,kr->ijk", *found.vectors), tensor, 1000)
    assert_equal(quietly(alternate, tensor, 1, 1e-8, 1, np.random.default_rng(0)).converged, False)


@pytest.mark.parametrize(("tol", "scale"), [(1e-2, 30), (1e-2, 1e-9), (1e-4, 30)])
def test_alternating_ends_with_the_first_sweep_that_gains_less_than_the_tolerance(
    tol: float, scale: float
) -> None:
    tensor = scale * np.random.default_rng(0).standard_normal((6, 7, 8))
    found = alternate(tensor, 2, tol, 500, np.random.default_rng(0))
    dense = np.einsum("ir,jr,kr->ijk", *found.vectors)
    assert_close(found.history[-1], float(np.linalg.norm(dense - tensor) / np.linalg.norm(tensor)), 1e4)
    squares = np.array(found.history) ** 2
    gains = (squares[:-1] - squares[1:]) / squares[1:]
    assert_equal([*(gains > tol)], [True] * (len(gains) - 1) + [False])
    assert_equal((found.converged, found.n_iter), (True, len(squares)))


def test_alternating_ends_where_the_vectors_stand_still_though_the_error_still_falls() -> None:
    near = [
        np.stack([a, a + 0.5 * b], axis=1) for a, b in np.random.default_rng(0).standard_normal((3, 2, 6))
    ]
    tensor, tol = np.einsum("ir,jr,kr->ijk", *near), 1e-2
    found = alternate(tensor, 2, tol, 500, np.random.default_rng(0))
    assert_equal(found.converged, True)
    gain = found.history[-2] ** 2 - found.history[-1] ** 2
    assert_above(gain, 2 * tol * found.history[-1] ** 2, "gain of the last sweep")
    two, one = (
        quietly(alternate, tensor, 2, tol, found.n_iter - k, np.random.default_rng(0)).vectors for k in (2, 1)
    )
    for old, new, still in ((two, one, False), (one, found.vectors, True)):
        changes = [np.sum((b - a) ** 2) / np.sum(b**2) for a, b in zip(old, new, strict=True)]
        assert_equal(bool(np.sqrt(sum(changes)) <= tol), still)


def test_alternating_ends_at_rounding_whatever_the_tolerance() -> None:
    tensor = np.random.default_rng(0).standard_normal((3, 4, 2))
    assert_equal(alternate(tensor, 1, 1e-300, 500, np.random.default_rng(0)).reason, "tolerance met")


def test_one_iteration_may_be_the_most_and_a_tolerance_below_rounding_is_met() -> None:
    M = np.random.default_rng(0).standard_normal((90, 90))
    assert_equal(quietly(nearest_kronecker, M, ((9, 9), (10, 10)), max_iter=1).info.n_iter, 1)
    for dtype in ("float64", "float32"):
        K = nearest_kronecker(np.kron(M[:9, :9], M[:10, :10]).astype(dtype), ((9, 9), (10, 10)), tol=1e-99)
        assert_equal((K.info.converged, K.info.reason), (True, "tolerance met"))


def test_the_report_tells_the_seconds_it_took() -> None:
    start = perf_counter()
    K = nearest_kronecker(np.ones((4, 4)), ((2, 2), (2, 2)))
    assert_below(K.info.seconds, perf_counter() - start, "seconds")
    assert_above(K.info.seconds, 0, "seconds")


def test_more_terms_than_entries_of_a_mode_are_fitted_by_columns_of_unit_norm() -> None:
    tensor = np.random.default_rng(0).standard_normal((1, 3, 4))
    found = alternate(tensor, 3, 1e-12, 200, np.random.default_rng(0))
    assert_close(np.einsum("ir,jr,kr->ijk", *found.vectors), tensor, 1e8)
    for vectors in found.vectors[:-1]:
        assert_close(np.linalg.norm(vectors, axis=0), np.ones(3))


@pytest.mark.parametrize("scale", [1e-16, 1e-14, 1e14, 1e16, 1e-170, 1e170])
def test_the_reported_error_is_true_at_every_scale(scale: float) -> None:
    make = Make("numpy", "float64")
    M = np.kron(make(3, 2), make(2, 4, seed=1)) + 0.1 * make(6, 8, seed=2)
    want = nearest_kronecker(M, ((3, 2), (2, 4)))
    K = nearest_kronecker(scale * M, ((3, 2), (2, 4)))
    assert_close(to_numpy(K.to_dense()) / scale, want.to_dense(), 1e4)
    assert_close(K.info.rel_error, want.info.rel_error, 1e4)
