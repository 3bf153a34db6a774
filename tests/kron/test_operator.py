"""KroneckerOperator against the dense matrix of np.kron."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfac import DataError, KroneckerOperator, ShapeError
from tenfac.core import contract as kernel
from tenfac.kron import operator as module
from tests.checks import assert_below, assert_close, assert_equal, assert_same_kind, assert_says, to_numpy
from tests.oracles import kron_all, least_product_work, product_work

SHAPES = ((2, 3), (4, 2), (3, 5))


def rectangular(make, shapes=SHAPES, *, complex_=False):
    return [(make.complex if complex_ else make)(*shape, seed=n) for n, shape in enumerate(shapes)]


def invertible(make, sizes=(3, 4, 2), *, complex_=False):
    """Square factors of small condition."""
    factors = rectangular(make, [(n, n) for n in sizes], complex_=complex_)
    return [make.asarray(to_numpy(f) / 4 + 2 * np.eye(f.shape[0])) for f in factors]


# --- products ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("shapes", [SHAPES, ((3, 4),), ((1, 4), (5, 1)), ((2, 2), (3, 3))])
def test_a_product_with_a_vector_equals_that_of_the_dense_matrix(make, shapes, complex_):
    factors = rectangular(make, shapes, complex_=complex_)
    K, dense = KroneckerOperator(*factors), kron_all(factors)
    x = (make.complex if complex_ else make)(dense.shape[1], seed=9)
    assert_equal((K.shape, K.row_shape, K.column_shape), (dense.shape, *zip(*shapes, strict=True)))
    assert_close(K @ x, dense @ to_numpy(x), like=factors[0])
    assert_close(K.matvec(x), K @ x)


@pytest.mark.parametrize("batch", [(), (3,), (2, 1), (0,)])
@pytest.mark.parametrize("k", [0, 1, 2, 7])
def test_columns_and_leading_batch_axes_are_those_of_numpy_matmul(make, batch, k):
    factors = rectangular(make)
    K, X = KroneckerOperator(*factors), make(*batch, 30, k)
    want = kron_all(factors) @ to_numpy(X).astype(float)
    assert_close(K @ X, want, like=X)
    assert_close(K.matmat(X), want, like=X)


def test_matvec_takes_vectors_along_the_last_axis(make):
    factors = rectangular(make)
    x = make(2, 3, 30)
    assert_close(KroneckerOperator(*factors).matvec(x), to_numpy(x) @ kron_all(factors).T, like=x)


def test_few_columns_of_a_long_last_mode_are_put_first(make):
    factors = [make(2, 3), make(5, 64, seed=1)]
    for columns, last in ((1, 64), (2, 64), (40, 40)):
        X = make(2, 192, columns)
        with mock.patch.object(module, "contract", side_effect=kernel.contract) as products:
            got = KroneckerOperator(*factors) @ X
        assert_close(got, kron_all(factors) @ to_numpy(X).astype(float), like=X)
        assert_equal(products.call_args.args[0].shape[-1], last)


def test_the_order_of_factors_is_the_cheapest_of_all():
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows, columns = rng.integers(1, 9, 4), rng.integers(1, 9, 4)
        seen = []

        def record(tensor, matrix, axis, *rest, seen=seen, do=kernel._along):
            seen.append(axis - 1)  # mode 0 is the batch
            return do(tensor, matrix, axis, *rest)

        K = KroneckerOperator(*(np.ones(shape) for shape in zip(rows, columns, strict=True)))
        with mock.patch.object(kernel, "_along", record):
            K @ np.ones(K.shape[1])
        assert_equal(product_work(seen, columns, rows), least_product_work(columns, rows))


def test_the_first_factor_is_the_first_mode(make):
    A, B, X = make(2, 3), make(4, 5, seed=1), make(3, 5, seed=2)
    got = KroneckerOperator(A, B) @ X.reshape(-1)
    assert_close(got.reshape(2, 4), to_numpy(A) @ to_numpy(X) @ to_numpy(B).T, like=A)


def test_arrays_on_the_left_multiply_too(make):
    factors = rectangular(make)
    K, dense = KroneckerOperator(*factors), kron_all(factors)
    x, X = make(24), make(2, 3, 24)
    assert_close(x @ K, to_numpy(x) @ dense, like=x)
    assert_close(X @ K, to_numpy(X) @ dense, like=x)


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_transpose_and_adjoint(make, complex_):
    factors = rectangular(make, complex_=complex_)
    K, dense = KroneckerOperator(*factors), kron_all(factors)
    assert_close(K.T.to_dense(), dense.T, like=factors[0])
    assert_close(K.H.to_dense(), dense.conj().T, like=factors[0])
    y = (make.complex if complex_ else make)(24)
    assert_close(K.H @ y, dense.conj().T @ to_numpy(y), like=y)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4), st.integers(0, 99))
def test_the_adjoint_moves_to_the_other_side_of_the_inner_product(shapes, seed):
    rng = np.random.default_rng(seed)
    K = KroneckerOperator(*(rng.standard_normal(s) + 1j * rng.standard_normal(s) for s in shapes))
    x, y = (rng.standard_normal(n) + 1j for n in K.shape[::-1])
    want = np.vdot(y, K @ x)
    assert_close(np.vdot(K.H @ y, x), complex(want), scale=np.linalg.norm(y) * np.linalg.norm(K @ x) + 1e-12)


# --- algebra ----------------------------------------------------------------------------------------------


def test_a_product_of_operators_is_an_operator(make):
    left, right = rectangular(make), rectangular(make, ((3, 2), (2, 3), (5, 1)))
    K = KroneckerOperator(*left) @ KroneckerOperator(*right)
    assert_equal(type(K).__name__, "KroneckerOperator")
    assert_close(K.to_dense(), kron_all(left) @ kron_all(right), like=left[0])


def test_factors_that_do_not_fit_are_refused_with_a_remedy():
    K = KroneckerOperator(np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(ShapeError) as error:
        _ = K @ KroneckerOperator(np.ones((2, 2)), np.ones((3, 2)))
    assert_says(error, "(3, 2)", "(2, 3)", "to_dense")


def test_multiplication_by_a_number(make):
    factors = rectangular(make)
    K, dense = KroneckerOperator(*factors), kron_all(factors)
    for got, want in (
        (2 * K, 2),
        (K * np.float64(3), 3),
        (K / 4, 0.25),
        (-K, -1),
        (K * make.asarray(2.0), 2),
    ):
        assert_close(got.to_dense(), want * dense, like=factors[0])
    with pytest.raises(TypeError):
        _ = K * "2"


def test_sums_and_differences_of_operators(make):
    a, b = rectangular(make), rectangular(make, ((4, 5), (6, 6)))
    A, B = KroneckerOperator(*a), KroneckerOperator(*b)
    assert_close((A + B).to_dense(), kron_all(a) + kron_all(b), like=a[0])
    assert_close((A - B).to_dense(), kron_all(a) - kron_all(b), like=a[0])


# --- numbers of the matrix --------------------------------------------------------------------------------


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_diagonal_trace_and_norm(make, complex_):
    factors = invertible(make, complex_=complex_)
    K, dense = KroneckerOperator(*factors), kron_all(factors)
    assert_close(K.diag(), np.diag(dense), like=factors[0])
    assert_close(K.trace()[()], np.trace(dense)[()], like=factors[0])
    assert_close(float(K.norm()), float(np.linalg.norm(dense)), factor=100 * make.eps / 2.0**-52)


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_an_operator_of_one_factor_is_its_matrix(make, complex_):
    (A,) = invertible(make, (5,), complex_=complex_)
    K, dense = KroneckerOperator(A), kron_all([A])
    x = kron_all([(make.complex if complex_ else make)(5, seed=9)])
    assert_close(K.diag(), np.diag(dense), like=A)
    assert_close(K.trace()[()], np.trace(dense)[()], like=A)
    assert_close(float(K.norm()), float(np.linalg.norm(dense)), factor=100 * make.eps / 2.0**-52)
    assert_close(K.slogdet().sign[()], np.linalg.slogdet(dense)[0], like=A, factor=1000)
    assert_close(K.T.to_dense(), dense.T, like=A)
    assert_close(K.H.to_dense(), dense.conj().T, like=A)
    assert_close((K @ K).to_dense(), dense @ dense, like=A)
    assert_close((2 * K + K).to_dense(), 3 * dense, like=A)
    assert_close(K.solve(make.asarray(dense @ x)), x, like=A, factor=1000)
    even = KroneckerOperator(make.asarray(dense + dense.conj().T))
    dense = kron_all(even.factors)
    assert_close(
        np.sort(to_numpy(even.eigh().values)).astype(float),
        np.linalg.eigvalsh(dense),
        500 * make.eps / 2.0**-52,
    )
    shifted = even.shifted(0.5)
    assert_close(shifted.to_dense(), dense + 0.5 * np.eye(5), like=A)
    assert_close(shifted.solve(make.asarray(dense @ x + 0.5 * x)), x, like=A, factor=1000)


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_the_norm_keeps_the_squares_of_large_and_small_entries(scale):
    assert_close(KroneckerOperator(scale * np.eye(4), np.ones((1, 1))).norm(), 2 * scale)
    assert_equal(float(KroneckerOperator(np.zeros((2, 2))).norm()), 0.0)


def test_determinants_of_nan_are_refused_by_factor():
    for call in (KroneckerOperator.slogdet, KroneckerOperator.logdet):
        with pytest.raises(DataError) as error:
            call(KroneckerOperator(np.eye(2), np.full((2, 2), np.nan)))
        assert_says(error, "factors[1]", "NaN", "Replace")


def test_a_number_of_another_library_is_refused_by_both_names():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError) as error:
        KroneckerOperator(np.eye(2)) * torch.tensor(2.0)
    assert_says(error, "numpy", "torch", "Convert")


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_the_determinant_is_that_of_the_dense_matrix(make, complex_):
    factors = invertible(make, (3, 4, 3), complex_=complex_)
    factors[1] = factors[1] * -1  # the sign is (-1)^9 for real factors of odd powers
    factors[0] = make.asarray(to_numpy(factors[0])[::-1].copy())
    want = np.linalg.slogdet(kron_all(factors))
    got = KroneckerOperator(*factors).slogdet()
    assert_close(got.sign[()], want.sign, like=factors[0], factor=1000)
    assert_close(float(got.logabsdet), float(want.logabsdet), factor=100 * make.eps / 2.0**-52)


@pytest.mark.parametrize(
    ("sizes", "sign"), [((2, 3), -1.0), ((2, 2), 1.0), ((3, 3), -1.0), ((3, 2, 5), 1.0), ((1, 3), -1.0)]
)
def test_the_sign_of_a_real_determinant_follows_the_powers(sizes, sign):
    factors = [np.eye(n) for n in sizes]
    factors[0] = -factors[0] if sizes[0] % 2 else factors[0][::-1]
    got = KroneckerOperator(*factors).slogdet().sign
    assert_equal(float(got), float(np.linalg.slogdet(kron_all(factors)).sign))
    assert_equal(float(got), sign)


def test_a_singular_factor_has_sign_zero_and_logarithm_minus_infinity():
    got = KroneckerOperator(np.eye(2), np.zeros((2, 2))).slogdet()
    assert_equal((float(got.sign), float(got.logabsdet)), (0.0, -np.inf))


def test_the_logarithm_of_a_determinant_that_is_not_positive_is_refused():
    K = KroneckerOperator(np.diag([2.0, 3.0]), np.eye(2))
    assert_close(float(K.logdet()), float(np.log(36)))
    for A in (np.diag([-1.0, 1.0]), np.array([[1j]])):
        with pytest.raises(DataError) as error:
            KroneckerOperator(A, np.eye(1)).logdet()
        assert_says(error, "positive", "slogdet")


# --- solving ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("sizes", [(3, 4, 2), (5,), (1, 4), (2, 2, 2, 2)])
def test_solving_undoes_the_product(make, sizes, complex_):
    factors = invertible(make, sizes, complex_=complex_)
    K, dense = KroneckerOperator(*factors), kron_all(factors)
    N = dense.shape[0]
    for shape in ((N,), (N, 3), (2, N, 3)):
        y = (make.complex if complex_ else make)(*shape)
        wide = to_numpy(y).astype(dense.dtype)
        wide = wide[:, None] if wide.ndim == 1 else wide
        want = np.linalg.solve(dense, wide)[..., 0] if len(shape) == 1 else np.linalg.solve(dense, wide)
        assert_close(K.solve(y), want, like=y, factor=1000)


def test_a_singular_factor_is_named():
    singular = np.array([[1.0, 2.0], [2.0, 4.0]])
    almost = np.diag([1.0, 1e-17])
    for bad in (singular, almost, np.zeros((2, 2))):
        with pytest.raises(DataError) as error:
            KroneckerOperator(np.eye(3), bad).solve(np.ones(6))
        assert_says(error, "factors[1] (2x2)", "singular", "shifted")


def test_a_singular_torch_factor_is_named():
    torch = pytest.importorskip("torch")
    with pytest.raises(DataError) as error:
        KroneckerOperator(torch.zeros(2, 2), torch.eye(3)).solve(torch.ones(6))
    assert_says(error, "factors[0]", "singular")


def test_a_factor_of_tiny_scale_is_not_singular():
    K = KroneckerOperator(1e-200 * np.eye(2), np.eye(2))
    assert_close(K.solve(np.ones(4)), np.full(4, 1e200))


def test_solving_needs_square_factors_and_finite_ones():
    with pytest.raises(ShapeError) as error:
        KroneckerOperator(np.ones((2, 3)), np.ones((3, 2))).solve(np.ones(6))
    assert_says(error, "factors[0]", "(2, 3)")
    with pytest.raises(DataError) as error:
        KroneckerOperator(np.eye(2), np.full((2, 2), np.nan)).solve(np.ones(4))
    assert_says(error, "factors[1]", "NaN")


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_the_eigendecomposition_of_hermitian_factors(make, complex_):
    factors = [make.asarray(to_numpy(f) + to_numpy(f).conj().T) for f in invertible(make, complex_=complex_)]
    eigen, dense = KroneckerOperator(*factors).eigh(), kron_all(factors)
    V = to_numpy(eigen.vectors.to_dense())
    values = to_numpy(eigen.values)
    scale = float(np.abs(dense).max())
    assert_close(make.asarray(V * values @ V.conj().T), dense, like=factors[0], factor=500)
    assert_close(make.asarray(V.conj().T @ V), np.eye(24), like=factors[0])
    assert_close(np.sort(values), np.linalg.eigvalsh(dense).astype(values.dtype), factor=500, scale=scale)


def test_factors_that_are_not_hermitian_are_refused_by_name():
    with pytest.raises(DataError) as error:
        KroneckerOperator(np.eye(2), np.array([[1.0, 2.0], [2.1, 1.0]])).eigh()
    assert_says(error, "factors[1]", "0.1", "(A + A.conj().T) / 2")
    with pytest.raises(DataError) as error:
        KroneckerOperator(np.array([[1, 1j], [1j, 1]])).eigh()
    assert_says(error, "factors[0]")
    with pytest.raises(ShapeError):
        KroneckerOperator(np.ones((2, 3))).eigh()


# --- the class --------------------------------------------------------------------------------------------


def test_repr_says_what_it_is(make):
    K = KroneckerOperator(*rectangular(make))
    assert_says(
        repr(K), "shape=(24, 30)", "2x3, 4x2, 3x5", make.library, make.dtype, "29 numbers", "720 entries"
    )
    assert_equal((K.n_params, " on " in repr(K)), (29, False))  # on the CPU no place is said


def test_operators_are_told_apart_by_identity_and_can_be_keys():
    K = KroneckerOperator(np.eye(2), np.eye(3))

    def made():
        return KroneckerOperator(*K.factors), K.shifted(1.0), K + K, K.eigh(), (K + K).diagonalize()

    these, others = made(), made()
    assert_equal([one == one for one in these], [True] * 5)
    assert_equal([one == other for one, other in zip(these, others, strict=True)], [False] * 5)
    assert_equal(len({*these, *these, *others}), 10)


def test_integers_and_mixed_dtypes_are_promoted(make):
    K = KroneckerOperator(make.index([[1, 2], [3, 4]]), make.index([[1], [1]]))
    assert_same_kind(K.factors[0], make.asarray([1.0]) if make.dtype == "float64" else K.factors[1])
    if make.library == "torch":
        K = KroneckerOperator(make(2, 2))
        assert_equal(str((K @ make.index([1, 2])).dtype), "torch.float64")
    single = KroneckerOperator(np.eye(2, dtype="float32"), np.ones((1, 2), dtype="float32"))
    wide = np.array([1.0, 1e-9, 1.0, 0.0])
    assert_close(single @ wide, np.array([1 + 1e-9, 1.0]))
    assert_equal((single @ wide.astype("float32")).dtype.name, "float32")
    assert_equal((single @ np.arange(4)).dtype.name, "float64")
    assert_equal((single @ (1j * wide)).dtype.name, "complex128")


def test_the_dense_matrix_is_guarded():
    K = KroneckerOperator(np.eye(10), np.eye(10))
    assert_close(K.to_dense(max_bytes=80_000), np.eye(100))
    with pytest.raises(DataError) as error:
        K.to_dense(max_bytes=79_999)
    assert_says(error, "80,000", "79,999", "K @ x")
    with pytest.raises(TypeError) as error:
        np.asarray(K)
    assert_says(error, "to_dense")


def test_it_is_frozen():
    K = KroneckerOperator(np.eye(2))
    with pytest.raises(AttributeError):
        K.factors = ()


@pytest.mark.parametrize(
    ("factors", "kind", "words"),
    [
        ((), ShapeError, "none"),
        ((np.ones(3),), ShapeError, "factors[0]"),
        ((np.eye(2), np.ones((0, 2))), ShapeError, "factors[1]"),
        (([np.eye(2), np.eye(2)],), TypeError, "KroneckerOperator(*factors)"),
        ((np.eye(2), [[1.0]]), TypeError, "numpy.asarray"),
        ((np.eye(2, dtype="longdouble"),), DataError, "float32"),
    ],
)
def test_what_is_no_factor_is_refused(factors, kind, words):
    with pytest.raises(kind) as error:
        KroneckerOperator(*factors)
    assert_says(error, words)


@pytest.mark.parametrize("call", [lambda K, x: K @ x, lambda K, x: K.solve(x)], ids=["product", "solve"])
@pytest.mark.parametrize("shape", [(5,), (5, 2), (2, 5, 4), ()])
def test_an_operand_of_wrong_size_is_refused_with_both_shapes(call, shape):
    with pytest.raises(ShapeError) as error:
        call(KroneckerOperator(np.eye(2), np.eye(2)), np.ones(shape))
    assert_says(error, str(shape), "4 x 4")


def test_arrays_of_two_libraries_are_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError) as error:
        _ = KroneckerOperator(np.eye(2)) @ torch.ones(2)
    assert_says(error, "numpy", "torch")


def test_a_product_does_not_copy_its_factors_or_form_the_matrix():
    import tracemalloc

    K = KroneckerOperator(*(np.ones((40, 40)) for _ in range(3)))
    x = np.ones(64_000)
    tracemalloc.start()
    K @ x
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_below(peak, 3.2 * x.nbytes, "peak bytes")
