"""Core consistency against its dense formula, and error and consistency over ranks."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import sparse

from tenfac import CP, DataError, RankError, ShapeError, corcondia, cp, cp_scree
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_says, to_numpy
from tests.oracles import cp_dense, kron_all, with_noise


def dense_formula(X, t):
    """Least-squares core by a pseudo-inverse of the Kronecker product of factors with weights in them."""
    share = np.abs(t.weights) ** (1 / t.ndim)
    factors = [to_numpy(f) * share for f in t.factors]
    factors[0] = factors[0] * np.sign(t.weights)
    core = np.linalg.lstsq(kron_all(factors), X.reshape(-1), rcond=None)[0].reshape((t.rank,) * t.ndim)
    ideal = np.zeros_like(core)
    ideal[(np.arange(t.rank),) * t.ndim] = 1
    return 100 * (1 - np.sum(np.abs(core - ideal) ** 2) / t.rank)


def noisy(rank, shape=(8, 9, 10), noise=0.05, seed=0):
    rng = np.random.default_rng(seed)
    X = cp_dense(None, [rng.standard_normal((size, rank)) for size in shape])
    return with_noise(X, noise, rng)


@pytest.mark.parametrize("shape", [(4, 5, 6), (3, 4, 3, 5), (6, 7)])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_core_consistency_is_the_dense_formula(shape, rank):
    rng = np.random.default_rng(0)
    X = rng.standard_normal(shape)
    t = CP(rng.standard_normal(rank), [rng.standard_normal((size, rank)) for size in shape])
    assert_close(corcondia(X, t), float(dense_formula(X, t)), factor=1e4)


@pytest.mark.parametrize("weights", [[2 + 1j, -3j], [-2.0, 0.5], [0.0, 3.0]])
def test_complex_negative_and_zero_weights_stand_in_the_terms(weights):
    rng = np.random.default_rng(0)
    shapes = [(4, 5, 6), (4, 2), (5, 2), (6, 2)]
    X, *factors = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape) for shape in shapes)
    t = CP(np.array(weights, dtype=complex), factors)
    assert_close(corcondia(X, t), float(dense_formula(X, t)), factor=1e5)


def test_core_consistency_is_the_same_for_data_so_small_that_their_weights_are_subnormal():
    rng = np.random.default_rng(0)
    t = CP(np.array([3.0, -2.0]), [rng.standard_normal((size, 2)) for size in (4, 5, 6)])
    X, small = with_noise(cp_dense(t.weights, t.factors), 0.05, rng), 2.0**-1025
    got = corcondia(small * X, CP(small * t.weights, t.factors))
    assert_close(got, float(dense_formula(X, t)), factor=1e3)


def test_terms_that_are_nearly_the_same_take_the_smallest_core():
    rng = np.random.default_rng(0)
    X, factors = rng.standard_normal((4, 5, 6)), [rng.standard_normal((size, 3)) for size in (4, 5, 6)]
    factors[0][:, 2] = factors[0][:, :2] @ [0.3, 0.7]
    t = CP(None, factors)
    assert_close(corcondia(X, t), float(dense_formula(X, t)), factor=1e6)


def test_a_rank_above_a_size_takes_the_smallest_core():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2, 5, 6))
    t = CP(None, [rng.standard_normal((size, 4)) for size in X.shape])
    assert_close(corcondia(X, t), float(dense_formula(X, t)), factor=1e5)


def test_every_library_and_dtype_gives_the_same(make):
    X, t = make(4, 5, 6), CP(make(2), [make(size, 2, seed=1) for size in (4, 5, 6)])
    wide = CP(to_numpy(t.weights).astype(float), [to_numpy(f).astype(float) for f in t.factors])
    want = corcondia(to_numpy(X).astype(float), wide)
    assert_below(abs(corcondia(X, t) - want), 1e4 * make.eps * abs(want), "difference")


def test_a_sparse_array_gives_what_the_dense_one_gives():
    rng = np.random.default_rng(0)
    X = np.where(rng.random((5, 6, 7)) < 0.3, rng.standard_normal((5, 6, 7)), 0)
    t = CP(rng.standard_normal(2), [rng.standard_normal((size, 2)) for size in X.shape])
    assert_close(corcondia(sparse.coo_array(X), t), corcondia(X, t), factor=1e4)


def test_it_is_100_at_the_true_rank_and_low_above():
    X = noisy(3)
    scree = cp_scree(X, [2, 3, 4], max_iter=400)
    assert_equal([point.rank for point in scree], [2, 3, 4])
    assert_above(scree[1].core_consistency, 95, "consistency at the true rank")
    assert_below(scree[2].core_consistency, 50, "consistency one above")
    assert_below(scree[1].rel_error, 0.05, "error at the true rank")
    assert_above(scree[0].rel_error, 0.2, "error one below")
    for point in scree:
        assert_equal(point.rel_error, point.cp.info.rel_error)
        assert_equal(point.core_consistency, corcondia(X, point.cp))
        assert_equal(point.cp.rank, point.rank)


def test_rank_one_is_always_consistent():
    X = np.random.default_rng(0).standard_normal((4, 5, 6))
    assert_close(corcondia(X, cp(X, 1)), 100.0, factor=1e6)


def test_it_does_not_depend_on_the_order_of_modes_or_where_weights_stand():
    X = noisy(2, (4, 5, 6), 0.3)
    t = cp(X, 2)
    want = corcondia(X, t)
    turned = CP(t.weights, [t.factors[n] for n in (2, 0, 1)])
    assert_close(corcondia(X.transpose(2, 0, 1), turned), want, factor=1e4)
    negative = CP(-t.weights, [t.factors[0], -t.factors[1], t.factors[2]])
    assert_close(corcondia(X, negative), want, factor=1e4)


def test_a_scree_keeps_its_warnings_in_the_reports():
    X = noisy(1, (4, 5, 6), 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        point = cp_scree(X, [3], max_iter=3)[0]
    assert_equal(point.cp.info.converged, False)


def test_a_scree_logs_a_line_for_each_rank_and_else_says_nothing(caplog, capsys):
    cp_scree(noisy(2, (4, 5, 6), 0.3), [1])
    assert_equal((capsys.readouterr().err, caplog.text), ("", ""))
    with caplog.at_level("INFO", logger="tenfac"):
        (point,) = cp_scree(noisy(2, (4, 5, 6), 0.3), [2], verbose=2)
    line = f"rank 2: relative error {point.rel_error:.3g}, core consistency {point.core_consistency:.3g}"
    assert_says(caplog.text, line)


def test_what_does_not_fit_is_refused():
    t = CP(None, [np.ones((3, 1)), np.ones((4, 1))])
    with pytest.raises(ShapeError) as error:
        corcondia(np.ones((4, 3)), t)
    assert_says(error, "corcondia:", "(4, 3)", "(3, 4)")
    with pytest.raises(DataError) as error:
        corcondia(np.full((3, 4), np.nan), t)
    assert_says(error, "corcondia:", "12 of 12")
    for ranks in ([], 3, [1, 0], [99]):
        with pytest.raises(RankError) as error:
            cp_scree(np.ones((3, 4, 5)), ranks)
        assert_says(error, "cp_scree:")
    with pytest.raises(TypeError):
        corcondia([[1.0]], t)
    with pytest.raises(TypeError):
        cp_scree([[1.0]], [1])
