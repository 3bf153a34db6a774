"""The nearest Kronecker product against the full SVD of the rearranged matrix, and against exact recovery."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfac import ConvergenceWarning, DataError, RankError, ShapeError, nearest_kronecker
from tenfac.core.arrays import namespace_of
from tenfac.kron import nearest
from tenfac.kron import rearranged as module
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_same_kind,
    assert_says,
    to_numpy,
)
from tests.oracles import kron_all


def rearranged(M, shapes):
    """Row (i, k) and column (j, l) hold ``M[(i, j), (k, l)]``, entry by entry."""
    (m, p), (n, q) = shapes
    M = to_numpy(M)
    R = np.empty((m * p, n * q), dtype=np.complex128 if np.iscomplexobj(M) else np.float64)
    for i, k, j, l in np.ndindex(m, p, n, q):  # noqa: E741
        R[i * p + k, j * q + l] = M[i * n + j, k * q + l]
    return R


def best_error(M, shapes, terms=1):
    s = np.linalg.svd(rearranged(M, shapes), compute_uv=False)
    return float(np.linalg.norm(s[terms:]) / np.linalg.norm(s))


def true_error(K, M):
    M = to_numpy(M)
    terms = getattr(K, "terms", (K,))
    dense = sum(kron_all(term.factors) for term in terms)
    return float(np.linalg.norm(dense - M) / np.linalg.norm(M))


def noisy(make, shapes, noise, *, terms=1, complex_=False):
    draw = make.complex if complex_ else make
    exact = sum(
        kron_all([draw(*shape, seed=10 * t + n) for n, shape in enumerate(shapes)]) for t in range(terms)
    )
    return make.asarray(exact + noise * to_numpy(draw(*exact.shape, seed=99)))


SMALL, LONG = ((3, 4), (5, 2)), ((9, 8), (7, 10))  # LONG: both sides above what is decomposed at once


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("terms", [1, 3])
@pytest.mark.parametrize("shapes", [SMALL, LONG], ids=["at once", "Lanczos"])
def test_two_factors_reach_the_error_of_the_full_svd(make, shapes, terms, complex_):
    M = noisy(make, shapes, 0.3, terms=terms, complex_=complex_)
    K = nearest_kronecker(M, shapes, terms=terms)
    best = best_error(M, shapes, terms)
    assert_below(true_error(K, M), best * (1 + 1e-9 + 10 * make.eps), "error")
    assert_close(K.info.rel_error, best, factor=100 * make.eps / 2.0**-52)
    assert_equal(K.info.converged, True)
    assert_same_kind(getattr(K, "terms", [K])[0].factors[0], M)
    assert_equal(K.shape, tuple(M.shape))


@pytest.mark.parametrize("shapes", [SMALL, LONG, ((3, 2), (2, 4), (5, 1)), ((2, 2),) * 5])
def test_a_kronecker_product_is_recovered(make, shapes):
    M = noisy(make, shapes, 0)
    K = nearest_kronecker(M, shapes)
    assert_below(true_error(K, M), 50 * make.eps, "error")
    assert_below(K.info.rel_error, 50 * make.eps, "reported error")
    assert_equal([tuple(f.shape) for f in K.factors], list(shapes))


def test_noise_alone_reaches_the_error_of_the_full_svd():
    M = np.random.default_rng(0).standard_normal((100, 121))
    shapes = ((10, 11), (10, 11))
    for terms in (1, 2, 7):
        K = nearest_kronecker(M, shapes, terms=terms)
        assert_close(true_error(K, M), best_error(M, shapes, terms), factor=1e3)
        assert_equal(K.info.converged, True)


def test_equal_singular_values_are_all_found():
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((100, 100)))[0][:, :4] for _ in range(2))
    R = U @ np.diag([1.0, 1.0, 1.0, 0.5]) @ V.T
    M = R.reshape(10, 10, 10, 10).transpose(0, 2, 1, 3).reshape(100, 100)
    K = nearest_kronecker(M, ((10, 10), (10, 10)), terms=3)
    assert_close(K.info.rel_error, 0.5 / np.sqrt(3.25), factor=1e3)
    assert_below(nearest_kronecker(M, ((10, 10), (10, 10)), terms=5).info.rel_error, 1e-14, "error")


def test_the_full_svd_is_not_formed_when_few_terms_are_wanted(make):
    M = noisy(make, LONG, 0.1)
    with mock.patch.object(module, "_all_triplets", side_effect=AssertionError("full SVD")):
        K = nearest_kronecker(M, LONG)
    assert_equal(K.info.reason, "tolerance met")
    assert_below(K.info.n_iter, 8, "iterations")
    assert_equal(len(K.info.history), K.info.n_iter)  # looked at after each of the first


def test_many_terms_fall_back_to_the_full_svd():
    M = np.random.default_rng(0).standard_normal((81, 81))
    K = nearest_kronecker(M, ((9, 9), (9, 9)), terms=60)
    assert_equal(K.info.reason, "singular value decomposition")
    assert_close(true_error(K, M), best_error(M, ((9, 9), (9, 9)), 60), factor=1e3)


def test_a_positive_definite_matrix_has_positive_definite_factors():
    rng = np.random.default_rng(0)
    half = rng.standard_normal((90, 90))
    K = nearest_kronecker(half @ half.T, ((9, 9), (10, 10)))
    for factor in K.factors:
        assert_close(factor, factor.T, factor=1e9)  # to the tolerance of the iteration
        assert_above(np.linalg.eigvalsh(factor).min(), 0, "smallest eigenvalue")


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_factors_have_equal_norms_and_a_positive_largest_entry(make, complex_):
    shapes = ((2, 3), (3, 1), (2, 2))
    K = nearest_kronecker(noisy(make, shapes, 0.1, complex_=complex_), shapes)
    norms = [float(np.linalg.norm(to_numpy(f))) for f in K.factors]
    assert_close(norms[0], norms[1], factor=100 * make.eps / 2.0**-52)
    assert_close(norms[0], norms[2], factor=100 * make.eps / 2.0**-52)
    for factor in K.factors[:-1]:
        peak = to_numpy(factor).ravel()[np.argmax(np.abs(to_numpy(factor)))]
        assert_above(peak.real, abs(peak.imag) * 1e4, "largest entry")


def test_the_error_does_not_depend_on_the_blocks_it_is_summed_in(make):
    M = noisy(make, LONG, 0.3)
    want = nearest_kronecker(M, LONG).info.rel_error
    with mock.patch.object(nearest, "_ROWS", 1):
        assert_close(nearest_kronecker(M, LONG).info.rel_error, want, factor=100 * make.eps / 2.0**-52)


def test_a_new_basis_block_is_orthogonal_even_if_it_lay_in_the_old_basis(make):
    xp = namespace_of(make(1))
    basis = xp.linalg.qr(make(50, 5))[0]
    block = basis @ make(5, 2) + 30 * make.eps * make(50, 2, seed=1)
    Q, C = module._orthonormal(block, basis, xp)
    assert_close(basis.T @ Q, np.zeros((5, 2)), like=basis, scale=1.0, factor=10)
    assert_close(Q.T @ Q, np.eye(2), like=basis)
    inside = basis @ (basis.T @ block)
    assert_close(inside + Q @ C, block, factor=10)


# --- more than two factors --------------------------------------------------------------------------------


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_three_factors_are_stationary_and_not_worse_than_successive_splits(make, complex_):
    shapes = ((3, 2), (2, 4), (3, 3))
    M = noisy(make, shapes, 0.5, complex_=complex_)
    K = nearest_kronecker(M, shapes, tol=1e-14)
    first = nearest_kronecker(M, ((3, 2), (6, 12)))
    second = nearest_kronecker(first.factors[1], shapes[1:])
    splits = kron_all([first.factors[0], *second.factors])
    assert_below(
        true_error(K, M), np.linalg.norm(splits - to_numpy(M)) / np.linalg.norm(to_numpy(M)), "error"
    )
    assert_close(K.info.rel_error, true_error(K, M), factor=100 * make.eps / 2.0**-52)
    residual = (kron_all(K.factors) - to_numpy(M)).reshape(3, 2, 3, 2, 4, 3)
    others = np.einsum("bd,cf->bcdf", *map(np.conj, map(to_numpy, K.factors[1:])))
    gradient = np.einsum("abcxdf,bcdf->ax", residual, others)
    assert_below(np.abs(gradient).max(), 10 * make.eps**0.5 * np.linalg.norm(to_numpy(M)), "gradient")


def test_a_sum_of_three_factor_products_is_recovered(make):
    shapes = ((3, 3), (2, 4), (3, 2))
    M = noisy(make, shapes, 0, terms=2)
    K = nearest_kronecker(M, shapes, terms=2)
    assert_equal((len(K.terms), K.info.converged), (2, True))
    assert_below(true_error(K, M), 1e-7 if make.dtype == "float64" else 1e-4, "error")


def test_more_terms_than_a_mode_has_entries_are_possible():
    shapes = ((1, 2), (3, 3), (4, 2))
    M = np.random.default_rng(0).standard_normal((12, 12))
    few = nearest_kronecker(M, shapes, terms=2).info.rel_error
    assert_below(nearest_kronecker(M, shapes, terms=4, tol=1e-4).info.rel_error, few, "error")


# --- honesty ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shapes", [((10, 10), (10, 10)), ((5, 5), (5, 5), (4, 4))])
def test_too_few_iterations_are_said_once_with_the_knob_to_turn(shapes):
    M = np.random.default_rng(0).standard_normal((100, 100))
    with pytest.warns(ConvergenceWarning, match="Raise max_iter, now 2") as caught:
        K = nearest_kronecker(M, shapes, max_iter=2)
    assert_equal(len(caught), 1)
    assert_equal(caught[0].filename, __file__)
    assert_equal((K.info.converged, K.info.n_iter, len(K.info.warnings)), (False, 2, 1))
    assert_equal(len(K.info.history), 2)
    assert_close(K.info.rel_error, true_error(K, M), factor=1e3)


def test_the_same_random_state_gives_the_same_numbers():
    M = np.random.default_rng(0).standard_normal((90, 90))
    runs = [
        nearest_kronecker(M, ((9, 9), (10, 10)), random_state=seed)
        for seed in (3, 3, np.random.default_rng(3))
    ]
    for other in runs[1:]:
        assert_equal(runs[0].factors[0], other.factors[0])
    assert_equal([run.info.random_state for run in runs], [3, 3, None])


@pytest.mark.parametrize("scale", [1e-250, 1e-120, 1e120, 1e250])
def test_scaling_the_matrix_scales_the_factors(scale):
    M = np.kron(np.arange(1.0, 7).reshape(2, 3), np.arange(1.0, 5).reshape(2, 2))
    K = nearest_kronecker(M * scale, ((2, 3), (2, 2)))
    assert_close(kron_all(K.factors) / scale, M)
    assert_below(K.info.rel_error, 1e-14, "reported error")


def test_a_zero_matrix_gives_zero_factors(make):
    for shapes in (((2, 2), (3, 3)), ((2, 2), (3, 1), (1, 3))):
        K = nearest_kronecker(make(6, 6) * 0, shapes)
        assert_equal(K.to_dense(), make(6, 6) * 0)
        assert_equal(K.info.rel_error, 0.0)


def test_more_terms_than_the_matrix_has_are_zero():
    K = nearest_kronecker(np.kron(np.ones((2, 2)), np.eye(2)), ((2, 2), (2, 2)), terms=3)
    assert_close(K.to_dense(), np.kron(np.ones((2, 2)), np.eye(2)))


def test_the_factors_of_a_term_that_is_zero_are_all_zero():
    M = np.zeros((4, 6))
    M[0, 0] = 2.0  # the second singular value is zero, and its vectors are not
    one, none = nearest_kronecker(M, ((2, 2), (2, 3)), terms=2).terms
    assert_close(one.to_dense(), M)
    assert_equal([bool(factor.any()) for factor in none.factors], [False, False])


def test_memory_layout_does_not_matter_and_the_input_is_left_alone():
    M = np.asfortranarray(np.random.default_rng(0).standard_normal((90, 90)))
    M.flags.writeable = False
    got, want = (nearest_kronecker(x, ((9, 9), (10, 10))) for x in (M, np.ascontiguousarray(M)))
    assert_equal(got.factors[0], want.factors[0])


def test_integers_are_taken_as_float64():
    K = nearest_kronecker(np.kron(np.eye(2, dtype=int), np.array([[1, 2]])), ((2, 2), (1, 2)))
    assert_close(K.to_dense(), np.kron(np.eye(2), np.array([[1.0, 2.0]])))


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=2, max_size=3), st.integers(0, 99))
def test_the_error_is_never_above_that_of_the_zero_matrix(shapes, seed):
    rng = np.random.default_rng(seed)
    M = kron_all([rng.standard_normal(shape) for shape in shapes])
    M = M + rng.standard_normal(M.shape)
    K = nearest_kronecker(M, shapes, tol=1e-3)
    assert_below(true_error(K, M), 1.0, "error")
    assert_close(K.info.rel_error, true_error(K, M), scale=1.0)


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((2, 2), (2, 3)), "(4, 6)"),
        (((4, 6),), "at least two"),
        (((2, 2), (2,)), "rows, columns"),
        (((0, 2), (2, 3)), "rows, columns"),
        (((2.5, 7), (2, 1)), "integers"),
        (((2, "a"), (2, 1)), "rows, columns"),
        ((4, 7), "(4, 7)"),
        (None, "None"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, words):
    with pytest.raises(ShapeError) as error:
        nearest_kronecker(np.ones((4, 7)), shapes)
    assert_says(error, words)


@pytest.mark.parametrize("terms", [0, -1, 5, 1.0, True, None])
def test_a_number_of_terms_that_cannot_be_is_refused(terms):
    with pytest.raises(RankError) as error:
        nearest_kronecker(np.ones((4, 4)), ((2, 2), (2, 2)), terms=terms)
    assert_says(error, "from 1 to 4", repr(terms))


@pytest.mark.parametrize(
    "options",
    [{"tol": 0}, {"tol": np.nan}, {"max_iter": 0}, {"tol": "a"}, {"max_iter": 1.5}, {"max_iter": None}],
)
def test_options_that_cannot_be_are_refused(options):
    with pytest.raises(DataError) as error:
        nearest_kronecker(np.ones((4, 4)), ((2, 2), (2, 2)), **options)
    assert_says(error, next(iter(options)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_entries_that_are_not_finite_are_counted(make, value):
    M = to_numpy(make(4, 4)).copy()
    M[1, 2] = M[3, 3] = value
    with pytest.raises(DataError) as error:
        nearest_kronecker(make.asarray(M), ((2, 2), (2, 2)))
    assert_says(error, "2 of 16", "(1, 2)")
