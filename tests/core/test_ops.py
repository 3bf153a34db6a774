"""Multilinear operations against Kronecker products and einsum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfac import ShapeError, Tucker, fold, khatri_rao, kronecker, mode_product, multi_mode_product, unfold
from tests.checks import assert_close, assert_equal, assert_says
from tests.oracles import khatri_rao_dense, kron_all, mode_product_dense

SHAPE = (3, 4, 2)


@pytest.mark.parametrize("mode", [0, 1, 2, -1, -3])
def test_unfolding_puts_the_mode_first_and_keeps_the_order_of_the_rest(make, mode):
    X = make(*SHAPE)
    want = np.moveaxis(np.arange(24).reshape(SHAPE), mode, 0).reshape(SHAPE[mode], -1)
    got = unfold(make.index(np.arange(24).reshape(SHAPE)), mode)
    assert_equal(got, make.index(want))
    assert_equal(fold(unfold(X, mode), mode, SHAPE), X)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.data())
def test_fold_undoes_unfold_for_any_shape(shape, data):
    mode = data.draw(st.integers(-len(shape), len(shape) - 1))
    X = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    assert_equal(fold(unfold(X, mode), mode, shape), X)


@pytest.mark.parametrize("mode", [0, 1, 2, -2])
def test_mode_product_equals_einsum(make, mode):
    X, A = make(*SHAPE), make(5, SHAPE[mode])
    assert_close(mode_product(X, A, mode), mode_product_dense(X, A, mode % 3), like=X)


def test_multi_mode_product_is_the_kronecker_product_of_the_matrices_on_vec(make):
    X, matrices = make(*SHAPE), [make(5, 3), make(2, 4, seed=1), make(6, 2, seed=2)]
    want = (kron_all(matrices) @ np.asarray(X, dtype="float64").reshape(-1)).reshape(5, 2, 6)
    assert_close(multi_mode_product(X, matrices), want, like=X)


def test_multi_mode_product_leaves_open_modes_alone(make):
    X, A = make(*SHAPE), make(5, 2)
    assert_equal(multi_mode_product(X, [None, None, A]), multi_mode_product(X, [A], modes=[-1]))
    assert_close(multi_mode_product(X, [A], modes=[2]), mode_product_dense(X, A, 2), like=X)


def test_products_of_kronecker_and_khatri_rao_equal_numpy(make):
    matrices = [make(2, 3), make(4, 3, seed=1), make(3, 3, seed=2)]
    assert_close(kronecker(matrices), kron_all(matrices), like=matrices[0])
    assert_close(khatri_rao(matrices), khatri_rao_dense(matrices), like=matrices[0])
    assert_equal(khatri_rao(matrices[:1]), matrices[0])


def test_integers_and_mixed_precision_are_promoted(make):
    wide = make.asarray(np.eye(3)) if make.dtype == "float64" else make(3, 3)
    got = mode_product(make.index(np.ones((3, 2))), wide, 0)
    want = to64(make, wide).sum(axis=1, keepdims=True).repeat(2, axis=1)
    assert_close(np.asarray(got), want, like=np.ones(1))


def to64(make, array):
    return np.asarray(array).astype("float64")


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (
            lambda X: mode_product(X, np.ones((3, 5)), 1),
            ["mode_product", "(J, 4)", "(3, 4, 2)", "(3, 5)", ".T"],
        ),
        (lambda X: mode_product(X, np.ones(4), 1), ["(J, 4)", "(4,)"]),
        (lambda X: mode_product(X, np.ones((3, 4)), 3), ["`mode`", "0 to 2", "3"]),
        (lambda X: mode_product(X, np.ones((3, 4)), True), ["`mode`", "True"]),
        (lambda X: unfold(X, -4), ["unfold", "-4"]),
        (lambda X: unfold(X, 1.0), ["1.0"]),
        (lambda _: fold(np.ones((3, 9)), 0, (3, 4, 2)), ["fold", "(3, 8)", "(3, 9)"]),
        (lambda _: fold(np.ones((3, 8)), 0, (3.5, 4, 2)), ["fold", "`shape`", "3.5", "integers"]),
        (lambda _: fold(np.ones((3, 8)), 0, (3, -1, 2)), ["fold", "-1"]),
        (lambda _: fold(np.ones((3, 8)), 0, None), ["fold", "None", "X.shape"]),
        (lambda X: multi_mode_product(X, [np.eye(3)], modes=0), ["`modes`", "[0]"]),
        (lambda X: multi_mode_product(X, [np.eye(3)]), ["3", "1", "modes="]),
        (lambda X: multi_mode_product(X, [np.eye(3), np.eye(3)], modes=[0, -3]), ["[0, 0]"]),
        (lambda _: khatri_rao([np.ones((2, 3)), np.ones((2, 4))]), ["[3, 4]"]),
        (lambda _: khatri_rao([]), ["at least one"]),
        (lambda _: kronecker([np.ones(3)]), ["2-way", "(3,)", "v[:, None]"]),
    ],
)
def test_wrong_shapes_are_answered_with_both_shapes_and_a_remedy(call, parts):
    with pytest.raises(ShapeError) as error:
        call(np.ones(SHAPE))
    assert_says(error, *parts)


@pytest.mark.parametrize("call", [khatri_rao, kronecker])
def test_a_decomposed_tensor_is_told_to_pass_its_factors(call):
    t = Tucker(np.ones((1, 1)), [np.ones((2, 1)), np.ones((3, 1))])
    for decomposed in (t, (t.core, list(t.factors))):
        with pytest.raises(TypeError) as error:
            call(decomposed)
        assert_says(error, type(decomposed).__name__, "Pass its factors")


def test_lists_and_mixed_libraries_are_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError) as error:
        mode_product([[1.0]], np.ones((1, 1)), 0)
    assert_says(error, "list")
    with pytest.raises(TypeError) as error:
        mode_product(torch.ones((1, 1)), np.ones((1, 1)), 0)
    assert_says(error, "numpy", "torch")
    for call in (khatri_rao, kronecker, lambda none: multi_mode_product(np.ones((2, 2)), none)):
        with pytest.raises(TypeError) as error:
            call(None)
        assert_says(error, "`matrices`", "NoneType", "[A, B]")
