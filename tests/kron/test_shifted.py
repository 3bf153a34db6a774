"""Kronecker product plus a shift against the dense matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfac import DataError, KroneckerOperator, ShapeError, ShiftedKronecker, SumOfKronecker
from tests.checks import assert_below, assert_close, assert_equal, assert_says, to_numpy
from tests.oracles import kron_all

SHIFT = 0.3


def semidefinite(make, sizes=(3, 4, 2), *, complex_=False):
    """Hermitian positive semidefinite factors, each of rank one less than its size."""
    factors = []
    for n, size in enumerate(sizes):
        half = to_numpy((make.complex if complex_ else make)(size, size - 1, seed=n))
        factors.append(make.asarray(half @ half.conj().T))
    return factors


def dense_shifted(factors, shift=SHIFT):
    dense = kron_all(factors)
    return dense + shift * np.eye(dense.shape[0])


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_products_and_dense_form(make, complex_):
    factors = semidefinite(make, complex_=complex_)
    S, dense = KroneckerOperator(*factors).shifted(SHIFT), dense_shifted(factors)
    x = (make.complex if complex_ else make)(24, 2)
    assert_close(S @ x, dense @ to_numpy(x), like=x)
    assert_close(S.matvec(x[:, 0]), dense @ to_numpy(x)[:, 0], like=x)
    assert_close(S.to_dense(), dense, like=x)
    assert_close(S.diag(), np.diag(dense), like=x)
    assert_close(S.trace()[()], np.trace(dense)[()], like=x)
    assert_close(S.T.to_dense(), dense.T, like=x)
    assert_equal(S.H is S, True)
    assert_close((2 * S).to_dense(), 2 * dense, like=x)
    assert_close(x[:, 0] @ S, to_numpy(x)[:, 0] @ dense, like=x)


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("shape", [(24,), (24, 3), (2, 24, 3)])
def test_solving_equals_the_dense_solve(make, shape, complex_):
    factors = semidefinite(make, complex_=complex_)
    y = (make.complex if complex_ else make)(*shape)
    S, dense = KroneckerOperator(*factors).shifted(SHIFT), dense_shifted(factors)
    wide = to_numpy(y).astype(dense.dtype)
    for matrix, of in ((S, dense), (S.T, dense.T)):
        want = np.linalg.solve(of, wide[:, None])[:, 0] if len(shape) == 1 else np.linalg.solve(of, wide)
        assert_close(matrix.solve(y), want, like=y, factor=np.linalg.cond(dense))


def test_the_residual_of_a_large_solve_is_rounding():
    grid = np.linspace(0, 1, 30)
    kernel = np.exp(-np.abs(grid[:, None] - grid))
    S = KroneckerOperator(kernel, kernel, kernel).shifted(100.0)
    y = np.random.default_rng(0).standard_normal(27_000)
    assert_below(np.linalg.norm(S @ S.solve(y) - y) / np.linalg.norm(y), 1e-13, "relative residual")


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_determinant_and_quadratic_form(make, complex_):
    factors = semidefinite(make, complex_=complex_)
    S, dense = KroneckerOperator(*factors).shifted(SHIFT), dense_shifted(factors)
    scale = np.linalg.cond(dense) * make.eps / 2.0**-52
    assert_close(float(S.logdet()), float(np.linalg.slogdet(dense)[1]), factor=scale, scale=24)
    assert_equal(float(S.slogdet().sign), 1.0)
    y = (make.complex if complex_ else make)(24)
    want = np.vdot(to_numpy(y), np.linalg.solve(dense, to_numpy(y).astype(dense.dtype))).real
    assert_close(float(S.inv_quad(y)), float(want), factor=scale)


def test_the_log_density_of_a_gaussian_process_on_a_grid():
    from scipy.stats import multivariate_normal

    factors = [np.exp(-np.abs(np.subtract.outer(g, g))) for g in (np.linspace(0, 1, 4), np.linspace(0, 2, 5))]
    S, y = KroneckerOperator(*factors).shifted(SHIFT), np.random.default_rng(0).standard_normal(20)
    got = -0.5 * (S.inv_quad(y) + S.logdet() + 20 * np.log(2 * np.pi))
    assert_close(float(got), float(multivariate_normal(cov=dense_shifted(factors)).logpdf(y)))


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_the_square_root_applied_twice_is_the_matrix(make, complex_):
    factors = semidefinite(make, complex_=complex_)
    S = KroneckerOperator(*factors).shifted(SHIFT)
    z = (make.complex if complex_ else make)(2, 24)
    want = to_numpy(z) @ dense_shifted(factors).T
    assert_close(S.sqrt_matvec(S.sqrt_matvec(z)), want, like=z, factor=300)


def test_another_shift_keeps_the_diagonalisation(make):
    factors = semidefinite(make)
    S = KroneckerOperator(*factors).shifted(SHIFT)
    T = S.at(2.0)
    assert_equal(T.eigen is S.eigen, True)
    y = make(24)
    dense = dense_shifted(factors, 2.0)
    assert_close(T.solve(y), np.linalg.solve(dense, to_numpy(y)), like=y, factor=np.linalg.cond(dense))


def test_a_wider_operand_is_solved_in_its_own_dtype():
    factors = [np.array([[2, 1], [1, 2]], dtype="float32"), np.eye(2, dtype="float32")]
    S, y = KroneckerOperator(*factors).shifted(1.0), np.array([1.0, 1e-9, 2.0, 3.0])
    assert_close(S.solve(y), np.linalg.solve(dense_shifted(factors, 1.0), y))
    assert_equal(S.inv_quad(y).dtype.name, "float64")


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 99), st.floats(1e-3, 1e3))
def test_solve_undoes_the_product_for_any_sizes_and_shift(sizes, seed, shift):
    rng = np.random.default_rng(seed)
    halves = [rng.standard_normal((n, n)) for n in sizes]
    S = KroneckerOperator(*(h @ h.T for h in halves)).shifted(shift)
    x = rng.standard_normal(S.shape[0])
    condition = float((S.eigen.values.max() + shift) / shift)
    assert_close(S.solve(S @ x), x, factor=100 * condition)


def test_sums_with_other_operators_and_negative_multiples(make):
    factors, others = semidefinite(make), [make(24, 24)]
    S, K = KroneckerOperator(*factors).shifted(SHIFT), KroneckerOperator(*others)
    dense, other = dense_shifted(factors), kron_all(others)
    for got, want in ((S + K, dense + other), (K - S, other - dense), (-S, -dense), (S * 2 - S, dense)):
        assert_close(got.to_dense(), want, like=factors[0])


@pytest.mark.parametrize("number", [2, 0.5, 0, -0.5, -2])
def test_multiples_by_positive_numbers_stay_and_others_are_sums(make, number):
    factors = semidefinite(make)
    S, dense = number * KroneckerOperator(*factors).shifted(SHIFT), number * dense_shifted(factors)
    assert_equal(type(S), ShiftedKronecker if number > 0 else SumOfKronecker)
    assert_close(S.to_dense(), dense, like=factors[0])
    assert_close(S @ make(24), dense @ to_numpy(make(24)), like=factors[0])


# --- refusals ---------------------------------------------------------------------------------------------


def test_a_matrix_that_is_not_positive_definite_is_refused_with_its_eigenvalue():
    K = KroneckerOperator(np.diag([1.0, 2.0]), np.diag([-1.0, 1.0]))
    assert_close(K.shifted(2.5).diag(), np.array([1.5, 3.5, 0.5, 4.5]))
    for shift in (1.5, 2.0):
        with pytest.raises(DataError) as error:
            K.shifted(shift)
        assert_says(error, "positive definite", f"now {shift:.4g}")


def test_a_shift_lost_in_rounding_is_refused():
    with pytest.raises(DataError) as error:
        KroneckerOperator(np.diag([1e8, 0.0])).shifted(1e-9)
    assert_says(error, "positive definite to working precision", "Raise the shift")


def test_factors_must_be_hermitian_and_square():
    with pytest.raises(DataError) as error:
        KroneckerOperator(np.eye(2), np.triu(np.ones((2, 2)))).shifted(1.0)
    assert_says(error, "factors[1]")
    with pytest.raises(ShapeError):
        KroneckerOperator(np.ones((2, 3))).shifted(1.0)


@pytest.mark.parametrize("shift", [None, "1", 1j, np.ones(2), True, np.nan, np.inf])
def test_a_shift_that_is_no_real_number_is_refused(shift):
    with pytest.raises(DataError) as error:
        KroneckerOperator(np.eye(2)).shifted(shift)
    assert_says(error, "real number", repr(shift))


def test_a_shift_of_another_library_is_refused_by_both_names():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError) as error:
        KroneckerOperator(np.eye(2)).shifted(torch.tensor(1.0))
    assert_says(error, "numpy", "torch", "Convert")


def test_other_operators_and_operands_are_refused():
    with pytest.raises(TypeError) as error:
        ShiftedKronecker(np.eye(2), 1.0)
    assert_says(error, "KroneckerOperator(*factors)")
    with pytest.raises(TypeError):
        ShiftedKronecker(KroneckerOperator(np.eye(2)), 1.0, KroneckerOperator(np.eye(2)).eigh())
    S = KroneckerOperator(np.eye(2)).shifted(1.0)
    for shape in ((3,), (3, 2)):
        with pytest.raises(ShapeError) as error:
            S.solve(np.ones(shape))
        assert_says(error, str(shape))
    with pytest.raises(ShapeError) as error:
        S.inv_quad(np.ones((2, 2)))
    assert_says(error, "reshape(-1)")


def test_repr_says_shift_and_factors(make):
    assert_says(
        repr(KroneckerOperator(*semidefinite(make)).shifted(0.25)), "(24, 24)", "3x3, 4x4", "shift=0.25"
    )
