"""Sums of Kronecker products against the sum of the dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfac import DataError, KroneckerOperator, ShapeError, SumOfKronecker
from tests.checks import assert_close, assert_equal, assert_says, to_numpy
from tests.oracles import kron_all

SIZES = (3, 2, 4)


def hermitian(make, seed, *, complex_=False):
    factors = [
        to_numpy((make.complex if complex_ else make)(n, n, seed=seed + k)) for k, n in enumerate(SIZES)
    ]
    return [make.asarray(f + f.conj().T) for f in factors]


def definite(make, seed, *, complex_=False):
    factors = [
        to_numpy((make.complex if complex_ else make)(n, n, seed=seed + k)) for k, n in enumerate(SIZES)
    ]
    return [make.asarray(f @ f.conj().T / 2 + np.eye(f.shape[0])) for f in factors]


def condition(A, B):
    """How much rounding two terms may be magnified: of the sum, and of the definite factors."""
    total = kron_all(A) + kron_all(B)
    return np.linalg.cond(total) * np.linalg.cond(kron_all(B))


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_products_adjoint_and_diagonal_of_any_terms(make, complex_):
    draw = make.complex if complex_ else make
    parts = [[draw(4, 3), draw(2, 5)], [draw(2, 5, seed=1), draw(4, 3, seed=2)], [draw(8, 15, seed=3)]]
    S, dense = SumOfKronecker(*(KroneckerOperator(*p) for p in parts)), sum(map(kron_all, parts))
    x = draw(15, 2)
    assert_equal(S.shape, (8, 15))
    assert_close(S @ x, dense @ to_numpy(x), like=x)
    assert_close(S.matvec(x[:, 0]), dense @ to_numpy(x)[:, 0], like=x)
    assert_close(S.to_dense(), dense, like=x)
    assert_close(S.T.to_dense(), dense.T, like=x)
    assert_close(S.H.to_dense(), dense.conj().T, like=x)
    assert_close((S * 3 - S).to_dense(), 2 * dense, like=x)


def test_sums_are_flat_and_keep_their_order(make):
    A, B = (KroneckerOperator(*hermitian(make, seed)) for seed in (0, 9))
    S = A + (B + A) + B
    assert_equal([term is A or term is B for term in S.terms], [True] * 4)
    assert_equal([term is A for term in S.terms], [True, False, True, False])
    assert_close(S.diag(), 2 * np.diag(kron_all(A.factors) + kron_all(B.factors)), like=A.factors[0])
    assert_close(S.trace()[()], 2 * (A.trace() + B.trace())[()], factor=300)


def test_terms_of_two_dtypes_become_the_wider():
    S = KroneckerOperator(np.eye(2, dtype="float32")) + KroneckerOperator(1j * np.eye(2))
    assert_equal(S.dtype.name, "complex128")
    assert_close(S @ np.ones(2), np.full(2, 1 + 1j))


def test_a_wider_operand_is_multiplied_and_solved_in_its_own_dtype():
    A, B = np.diag([2, 1, 3]).astype("float32"), np.eye(3, dtype="float32")
    S, y = KroneckerOperator(A) + KroneckerOperator(B), np.array([1.0, 1e-9, 2.0])
    assert_close(S @ y, y * [3, 2, 4])
    assert_close(S.solve(y), y / [3, 2, 4])
    assert_close(S @ (y + 0j), y * [3, 2, 4] + 0j)
    assert_equal((S @ y.astype("float32")).dtype.name, "float32")
    third = np.array([[1 / 3, 0.1, 0], [0.1, 0.7, 0.2], [0, 0.2, 0.9]], dtype="float32")
    S = KroneckerOperator(third) + KroneckerOperator(B)
    assert_close(S.solve(y), np.linalg.solve(third.astype("float64") + np.eye(3), y))


def test_sums_are_not_multiplied_with_each_other():
    K = KroneckerOperator(np.eye(2))
    for left, right in ((K + K, K), (K, K + K), (K.shifted(1.0), K), (K + K, K.shifted(1.0))):
        with pytest.raises(TypeError):
            _ = left @ right


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("swap", [False, True], ids=["second definite", "first definite"])
@pytest.mark.parametrize("shape", [(24,), (24, 3), (2, 24, 3)])
def test_two_terms_are_solved_as_the_dense_sum(make, shape, swap, complex_):
    A, B = hermitian(make, 0, complex_=complex_), definite(make, 5, complex_=complex_)
    terms = [KroneckerOperator(*B), KroneckerOperator(*A)][:: 1 if swap else -1]
    S, dense = SumOfKronecker(*terms), kron_all(A) + kron_all(B)
    y = (make.complex if complex_ else make)(*shape)
    wide = to_numpy(y).astype(dense.dtype)
    want = np.linalg.solve(dense, wide[:, None])[:, 0] if len(shape) == 1 else np.linalg.solve(dense, wide)
    assert_close(S.solve(y), want, like=y, factor=condition(A, B))


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_the_determinant_of_two_terms(make, complex_):
    A, B = hermitian(make, 0, complex_=complex_), definite(make, 5, complex_=complex_)
    S, dense = KroneckerOperator(*A) + KroneckerOperator(*B), kron_all(A) + kron_all(B)
    want = np.linalg.slogdet(dense)
    got = S.slogdet()
    assert_equal(float(got.sign), float(np.real(want.sign).round(9)))
    assert_close(float(got.logabsdet), float(want.logabsdet), condition(A, B) * make.eps / 2.0**-52)


def test_the_basis_makes_the_sum_diagonal(make):
    A, B = hermitian(make, 0), definite(make, 5)
    found = (KroneckerOperator(*A) + KroneckerOperator(*B)).diagonalize()
    W = to_numpy(found.basis.to_dense()).astype(float)
    total = W.T @ (kron_all(A) + kron_all(B)) @ W
    assert_close(make.asarray(total), np.diag(to_numpy(found.values)), like=A[0], factor=3000)
    y = make(24)
    want = np.linalg.solve(kron_all(A) + kron_all(B), to_numpy(y))
    assert_close(found.solve(y), want, like=y, factor=condition(A, B))


def test_a_kronecker_sum_of_indefinite_matrices_is_solved(make):
    # A kron I + I kron B: in each mode one of the two factors is the identity
    a, b = hermitian(make, 0)[0], hermitian(make, 0)[2]
    eyes = [make.asarray(np.eye(3)), make.asarray(np.eye(4))]
    S = KroneckerOperator(a, eyes[1]) + KroneckerOperator(eyes[0], b)
    dense = np.kron(to_numpy(a), np.eye(4)) + np.kron(np.eye(3), to_numpy(b))
    y = make(12)
    assert_close(S.solve(y), np.linalg.solve(dense, to_numpy(y)), like=y, factor=20 * np.linalg.cond(dense))
    assert_close(float(S.slogdet().logabsdet), float(np.linalg.slogdet(dense)[1]), 1000 * make.eps / 2.0**-52)


@given(st.integers(0, 999), st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_two_definite_terms_have_the_determinant_of_their_sum(seed, sizes):
    rng = np.random.default_rng(seed)
    A, B = ([(h := rng.standard_normal((n, n))) @ h.T + np.eye(n) for n in sizes] for _ in range(2))
    S = KroneckerOperator(*A) + KroneckerOperator(*B)
    want = float(np.linalg.slogdet(kron_all(A) + kron_all(B))[1])
    assert_close(float(S.logdet()), want, scale=abs(want) + S.shape[0])


# --- refusals ---------------------------------------------------------------------------------------------


def test_a_mode_without_a_definite_factor_is_named(make):
    indefinite = make.asarray(np.diag([1.0, -1.0]))
    eye = make.asarray(np.eye(3))
    S = KroneckerOperator(eye, indefinite) + KroneckerOperator(eye, indefinite)
    with pytest.raises(DataError) as error:
        S.solve(make(6))
    assert_says(error, "mode 1", "positive definite", "to_scipy")


def test_a_singular_sum_is_refused_and_its_determinant_is_zero():
    I2 = np.eye(2)
    S = KroneckerOperator(I2, -np.diag([1.0, 2.0])) + KroneckerOperator(I2, I2)
    with pytest.raises(DataError) as error:
        S.solve(np.ones(4))
    assert_says(error, "invertible", "smallest magnitude 0")
    assert_equal((float(S.slogdet().sign)), 0.0)
    with pytest.raises(DataError) as error:
        (KroneckerOperator(-2 * np.eye(1)) + KroneckerOperator(np.eye(1))).logdet()
    assert_says(error, "slogdet")


def test_three_terms_or_other_sizes_are_refused_with_a_remedy():
    K, L = KroneckerOperator(np.eye(2), np.eye(3)), KroneckerOperator(np.eye(3), np.eye(2))
    for S in (K + K + K, K + L):
        with pytest.raises(ShapeError) as error:
            S.solve(np.ones(6))
        assert_says(error, "two terms", "cg(S.to_scipy(), y)")


def test_factors_of_two_terms_must_be_hermitian():
    S = KroneckerOperator(np.triu(np.ones((2, 2)))) + KroneckerOperator(np.eye(2))
    with pytest.raises(DataError) as error:
        S.solve(np.ones(2))
    assert_says(error, "factors[0]", "conjugate transpose")


def test_a_list_is_told_what_to_write():
    with pytest.raises(TypeError) as error:
        (KroneckerOperator(np.eye(2)) + KroneckerOperator(np.eye(2))).diagonalize().solve([1.0, 2.0])
    assert_says(error, "Diagonalized.solve", "numpy.asarray(x)")


def test_terms_must_fit_and_be_operators():
    with pytest.raises(ShapeError) as error:
        KroneckerOperator(np.eye(2)) + KroneckerOperator(np.eye(3))
    assert_says(error, "(2, 2)", "(3, 3)")
    with pytest.raises(TypeError) as error:
        SumOfKronecker(np.eye(2))
    assert_says(error, "KroneckerOperator(*factors)")
    with pytest.raises(ShapeError):
        SumOfKronecker()
    with pytest.raises(TypeError):
        _ = KroneckerOperator(np.eye(2)) + 1.0


def test_repr_lists_the_first_terms():
    K = KroneckerOperator(np.eye(2), np.eye(3))
    assert_says(repr(K + K), "terms=(2x2, 3x3) + (2x2, 3x3)", "26 numbers")
    assert_says(repr(K + K + K + K + K), "(2x2, 3x3) + 2 more")
    assert_says(repr(K + K + K + K), "(2x2, 3x3) + 1 more")
    assert_equal("more" in repr(K + K + K), False)


def test_a_sum_of_one_is_its_term():
    K = KroneckerOperator(np.ones((2, 3)), np.eye(3))
    S = SumOfKronecker(K)
    assert_equal((S.shape, len(S.terms)), ((6, 9), 1))
    assert_equal(S @ np.arange(9.0), K @ np.arange(9.0))
