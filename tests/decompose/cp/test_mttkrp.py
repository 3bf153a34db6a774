"""MTTKRP of dense and sparse arrays against the Khatri-Rao formula, residuals against the dense tensor."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from tenfac import DataError, ShapeError
from tenfac.decompose.cp import mttkrp, sparse_tensor
from tenfac.decompose.cp.mttkrp import DenseTensor, columnwise
from tenfac.decompose.cp.sparse_tensor import SparseTensor
from tenfac.decompose.sparse_input import is_sparse
from tests.checks import assert_below, assert_close, assert_equal, assert_says, to_numpy
from tests.oracles import cp_dense, khatri_rao_dense

SHAPES = [(4, 5), (4, 5, 6), (2, 7, 3), (3, 4, 2, 5), (3, 2, 4, 2, 3), (1, 4, 1), (2, 2, 2, 2, 2, 2)]


def oracle(X, factors, n):
    """``X_(n) conj(khatri_rao(others))`` of factors (I_m, R)."""
    others = [f.conj() for m, f in enumerate(factors) if m != n]
    return np.moveaxis(X, n, 0).reshape(X.shape[n], -1) @ khatri_rao_dense(others)


def products(target, factors):
    """Products of all modes, (R, I_n), of factors (I_n, R) that stay as they are."""
    found = {}
    stacked = [target.xp.asarray(f.T[None], dtype=target.wide) for f in factors]
    target.sweep(stacked, lambda n, product: found.__setitem__(n, to_numpy(product)[0]))
    assert_equal(sorted(found), list(range(len(factors))))
    return found


def sparse_numbers(shape, seed=0, complex_=False):
    rng = np.random.default_rng([seed, *shape])
    values = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if complex_ else 0)
    return np.where(rng.random(shape) < 0.4, values, 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_product_is_the_khatri_rao_formula(make, shape):
    X, factors = make(*shape), [to_numpy(make(size, 3, seed=1)).astype(float) for size in shape]
    for n, product in products(DenseTensor(X), factors).items():
        want = oracle(to_numpy(X).astype(float), factors, n)
        assert_below(np.abs(product.T - want).max(), 200 * make.eps * np.abs(want).max(), f"mode {n}")


@pytest.mark.parametrize("shape", SHAPES)
def test_complex_products_are_with_conjugate_factors(make, shape):
    X, factors = make.complex(*shape), [to_numpy(make.complex(size, 3, seed=1)) for size in shape]
    for n, product in products(DenseTensor(X), factors).items():
        want = oracle(to_numpy(X).astype(complex), factors, n)
        assert_below(np.abs(product.T - want).max(), 200 * make.eps * np.abs(want).max(), f"mode {n}")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [DenseTensor, "sparse"])
def test_a_factor_that_is_returned_is_used_at_once(kind, shape):
    X = sparse_numbers(shape)
    target = DenseTensor(X) if kind is DenseTensor else SparseTensor.from_array(sparse.coo_array(X), "x")
    rng = np.random.default_rng(1)
    factors = [rng.standard_normal((2, 3, size)) for size in shape]

    def visit(n, product):
        for s in range(2):
            want = oracle(X, [f[s].T for f in factors], n)
            assert_below(np.abs(product[s].T - want).max(), 1e-12 * (np.abs(want).max() + 1), f"mode {n}")
        factors[n] = rng.standard_normal(factors[n].shape)
        return factors[n]

    target.sweep(list(factors), visit)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("complex_", [False, True])
def test_sparse_products_and_distances_are_the_dense_ones(shape, complex_):
    X = sparse_numbers(shape, complex_=complex_)
    target = SparseTensor.from_array(sparse.coo_array(X), "x")
    factors = [f[0].T for f in ([np.ones((1, 3, size)) for size in shape])]
    factors = [f + 0.1 * sparse_numbers(f.shape, 1, complex_) for f in factors]
    with mock.patch.object(sparse_tensor, "_ENTRIES", 7):
        blocked = products(SparseTensor.from_array(sparse.coo_array(X), "x"), factors)
    for n, product in products(target, factors).items():
        assert_close(product.T, oracle(X, factors, n))
        assert_close(blocked[n], product)
    distance = np.linalg.norm(X - cp_dense(None, factors))
    assert_close(target.distance([f.T for f in factors]), float(distance))
    assert_close(target.norm, float(np.linalg.norm(X)))


@pytest.mark.parametrize("block", [1, 7, 2**20])
def test_the_distance_is_that_of_the_dense_tensor(make, block):
    X = make(5, 6, 7)
    factors = [to_numpy(make(size, 3, seed=1)).astype(float) for size in X.shape]
    target = DenseTensor(X)
    want = float(np.linalg.norm(to_numpy(X).astype(float) - cp_dense(None, factors)))
    with mock.patch.object(mttkrp, "_BLOCK", block):
        got = target.distance([target.xp.asarray(f.T, dtype=target.wide) for f in factors])
    assert_close(got, want)


@pytest.mark.parametrize("block", [1, 150, 2**20])
@pytest.mark.parametrize("noise", [1e-3, 1e-7, 1e-11])
def test_small_distances_of_sparse_arrays_do_not_cancel(monkeypatch, noise, block):
    monkeypatch.setattr(sparse_tensor, "_BLOCK", block)
    rng = np.random.default_rng(0)
    factors = [np.where(rng.random((size, 2)) < 0.4, 1.0, 0.0) for size in (9, 8, 7)]
    X = cp_dense(None, factors)
    moved = [factors[0] + noise * rng.standard_normal(factors[0].shape), *factors[1:]]
    target = SparseTensor.from_array(sparse.coo_array(X), "x")
    want = np.linalg.norm(X - cp_dense(None, moved))
    assert_below(abs(target.distance([f.T for f in moved]) / want - 1), 1e-4, "relative")


@pytest.mark.parametrize(("size", "off", "dense"), [(9, 0.0, 1), (9, 1.0, 0), (10**6, 0.0, 0)])
def test_a_sparse_array_is_made_dense_only_where_it_is_small_and_its_distance_cancels(
    monkeypatch, size, off, dense
):
    calls = []
    monkeypatch.setattr(SparseTensor, "_dense_distance", lambda *_: calls.append(1) or 0.0)
    target = SparseTensor(np.array([[1], [2], [3]]), np.array([8.0]), (size,) * 3)
    factors = [np.zeros((1, size)) for _ in range(3)]
    for n, factor in enumerate(factors):
        factor[0, n + 1] = 2.0
    factors[0] *= 1 + off
    assert_close(target.distance(factors), 8 * off)
    assert_equal(len(calls), dense)


def test_a_sparse_array_times_matrices_is_the_same_in_blocks_of_entries(monkeypatch):
    X = sparse_numbers((4, 5, 6))
    matrices = [np.random.default_rng(n).standard_normal((n + 2, size)) for n, size in enumerate(X.shape)]
    target = SparseTensor.from_array(sparse.coo_array(X), "x")
    want = np.einsum("ijk,ai,bj,ck->abc", X, *matrices)
    for entries in (1, 4, 2**14):
        monkeypatch.setattr(sparse_tensor, "_ENTRIES", entries)
        assert_close(target.multiplied(matrices), want, factor=1e3)


def test_modes_are_cut_in_two_so_that_what_is_left_between_the_large_products_is_small():
    for shape, cut in {(10,) * 4: 2, (100, 2, 3): 1, (2, 3, 100): 2, (5, 4): 1, (2, 2, 2, 9): 3}.items():
        assert_equal(mttkrp._split(shape), cut)


def test_entries_stored_twice_are_added():
    X = sparse.coo_array(([1.0, 2.0, 4.0], ([0, 0, 1], [1, 1, 1], [2, 2, 0])), shape=(2, 2, 3))
    target = SparseTensor.from_array(X, "x")
    assert_equal(target.values, np.array([3.0, 4.0]))
    assert_equal(target.indices, np.array([[0, 1], [1, 1], [2, 0]]))


def test_sparse_arrays_of_both_libraries_are_read():
    pydata = pytest.importorskip("sparse")
    X = sparse_numbers((4, 5, 6))
    for array in (sparse.coo_array(X), pydata.COO(X), pydata.GCXS.from_numpy(X)):
        assert_equal(is_sparse(array), True)
        target = SparseTensor.from_array(array, "x")
        dense = np.zeros(target.shape)
        dense[tuple(target.indices)] = target.values
        assert_equal(dense, X)
    assert_equal(is_sparse(X), False)
    matrix = SparseTensor.from_array(sparse.csr_array(X[0]), "x")
    assert_equal(matrix.shape, (5, 6))


def test_sparse_arrays_that_cannot_be_used_are_refused():
    pydata = pytest.importorskip("sparse")
    with pytest.raises(DataError) as error:
        SparseTensor.from_array(sparse.coo_array(np.array([[0, 1.0], [np.nan, 0]])), "cp")
    assert_says(error, "cp:", "1 of 2", "(1, 0)", "NaN")
    with pytest.raises(DataError) as error:
        SparseTensor.from_array(pydata.COO(np.ones((2, 2)), fill_value=1.0), "cp")
    assert_says(error, "fill_value=1.0")
    with pytest.raises(ShapeError) as error:
        SparseTensor.from_array(sparse.coo_array((3, 0)), "cp")
    assert_says(error, "(3, 0)")


@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.integers(0, 99))
def test_a_sparse_array_times_matrices_is_the_dense_product(shape, seed):
    X = sparse_numbers(tuple(shape), seed)
    rng = np.random.default_rng(seed)
    matrices = [rng.standard_normal((3, size)) for size in shape]
    want = X
    for n, matrix in enumerate(matrices):
        want = np.moveaxis(np.tensordot(matrix, want, axes=(1, n)), 0, n)
    got = SparseTensor.from_array(sparse.coo_array(X), "x").multiplied(matrices)
    assert_close(got, want, scale=float(np.abs(X).max() * 30 + 1))


def test_columnwise_is_the_khatri_rao_product_transposed(make):
    a, b = make(4, 3), make(5, 3)
    assert_close(columnwise([a.T, b.T]).T, khatri_rao_dense([a, b]), like=a)
