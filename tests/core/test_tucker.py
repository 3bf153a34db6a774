"""What only Tucker has: rounding, accurate norms, block cores, validation."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from tenfac import CP, Chebyshev, DataError, RankError, ShapeError, Tucker
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_relative,
    assert_says,
    to_numpy,
)
from tests.oracles import tucker_dense


def some(make, shape=(6, 7, 8), rank=(2, 3, 2), seed=0):
    factors = [make(i, r, seed=seed + n) for n, (i, r) in enumerate(zip(shape, rank, strict=True))]
    return Tucker(make(*rank, seed=seed), factors)


def test_rounding_a_sum_gives_back_the_rank_and_the_tensor(make):
    t = some(make)
    doubled = (t + t).round(rank=(2, 3, 2))
    assert_equal(doubled.rank, (2, 3, 2))
    assert_close(doubled.to_tensor(), 2 * tucker_dense(t.core, t.factors), like=t.core)
    assert_equal((t + t).round(tol=1e-5).rank, (2, 3, 2))


def test_rounding_keeps_its_tolerance_and_reports_the_true_error(make):
    a, b = some(make), some(make, rank=(4, 4, 4), seed=5)
    t = a + b * 1e-3
    dense = tucker_dense(t.core, t.factors)
    small = t.round(tol=0.01)
    true = np.linalg.norm(to_numpy(small.to_tensor()) - dense) / np.linalg.norm(dense)
    assert_below(true, 0.01, "true error")
    assert_below(abs(small.info.rel_error / true - 1), 0.01, "reported over true error - 1")
    assert_below(max(small.rank), 3, "rank")


def test_rounded_factors_are_orthonormal(make):
    t = some(make).round(rank=2)
    for factor in t.factors:
        assert_close(factor.T @ factor, np.eye(2), like=factor)


def test_rounding_to_a_rank_the_tensor_does_not_have_changes_nothing(make):
    t = some(make)
    rounded = t.round(rank=(6, 7, 8))
    assert_equal(rounded.rank, (2, 3, 2))
    assert_close(rounded.to_tensor(), t.to_tensor())


def test_rounding_refuses_both_neither_and_ranks_above_the_size(make):
    t = some(make)
    for kwargs in ({}, {"rank": 2, "tol": 0.1}, {"rank": (7, 2, 2)}, {"rank": 0}, {"tol": 2}):
        with pytest.raises(RankError) as error:
            t.round(**kwargs)
        assert_says(error, "round:")


def test_rounding_refuses_nan_and_infinity_by_place(make):
    t = some(make)
    factor = to_numpy(t.factors[1]).copy()
    factor[4, 2], factor[5, 0] = np.nan, np.inf
    bad = Tucker(t.core, [t.factors[0], make.asarray(factor), t.factors[2]])
    for options in ({"rank": 2}, {"tol": 0.1}):
        with pytest.raises(DataError) as error:
            bad.round(**options)
        assert_says(error, "round:", "factors.1", "2 of 21", "(4, 2)", "finite")


@pytest.mark.parametrize(("sizes", "rank"), [((0, 4), (2, 2)), ((3, 4), (0, 2))])
def test_rounding_refuses_what_is_empty(sizes, rank):
    t = Tucker(np.ones(rank), [np.ones(pair) for pair in zip(sizes, rank, strict=True)])
    for options in ({"rank": 1}, {"tol": 0.1}):
        with pytest.raises(ShapeError) as error:
            t.round(**options)
        assert_says(error, "round:", f"rank={rank}", "empty")


def test_a_rank_of_zero_in_one_mode_is_the_zero_tensor(make):
    for rank in ((0, 2, 2), (2, 0, 2), (2, 2, 0), (0, 0, 0)):
        t = Tucker(make(*rank), [make(n, r) for n, r in zip((3, 4, 5), rank, strict=True)])
        assert_close(t.to_tensor(), np.zeros((3, 4, 5)), like=t.core)
        assert_close(t.at([0, 1], 2, 0), np.zeros(2), like=t.core)
        assert_equal(float(t.norm()), 0.0)


def test_the_norm_of_a_difference_of_equal_tensors_is_at_rounding_level(make):
    t = some(make)
    assert_below((t - t).norm(), 100 * make.eps * float(t.norm()), "norm of t - t")


def test_the_norm_of_a_large_format_never_forms_the_tensor():
    rng = np.random.default_rng(0)
    t = Tucker(rng.standard_normal((3, 3, 3)), [rng.standard_normal((200, 3)) for _ in range(3)])
    tracemalloc.start()
    norm, inner = t.norm(), t.inner(t)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_below(peak, 200**3 * 8 / 100, "peak bytes")
    assert_close(float(norm) ** 2, float(inner))


def test_rounding_ten_terms_at_size_300_never_forms_the_tensor():
    rng = np.random.default_rng(0)
    t = Tucker(rng.standard_normal((2, 2, 2)), [rng.standard_normal((300, 2)) for _ in range(3)])
    total = t
    for _ in range(9):
        total = total + t
    tracemalloc.start()
    rounded = total.round(tol=1e-10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_equal(rounded.rank, (2, 2, 2))
    assert_below(peak, 5e6, "peak bytes (dense: 216e6)")
    assert_below((rounded - 10 * t).norm(), 1e-10 * float(10 * t.norm()), "error of rounding")


def test_to_tensor_needs_little_more_than_its_result():
    t = Tucker(np.ones((8, 8, 8)), [np.ones((100, 8))] * 3)
    tracemalloc.start()
    dense = t.to_tensor()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_below(peak, 1.3 * dense.nbytes, "peak bytes")


def test_unpacking_gives_core_and_factors(make):
    t = some(make)
    core, factors = t
    assert core is t.core
    assert_equal(len(factors), 3)
    assert_relative(tucker_dense(core, factors), to_numpy(t.to_tensor()), 1e-5)


@pytest.mark.parametrize(
    ("build", "parts"),
    [
        (lambda: Tucker(np.ones((2, 2)), [np.ones((3, 2))]), ["(2,)", "(2, 2)"]),
        (lambda: Tucker(np.ones((2, 3)), [np.ones((3, 2)), np.ones((3, 2))]), ["(2, 2)", "(2, 3)"]),
        (lambda: Tucker(np.ones(2), [np.ones(3)]), ["factors[0]", "(3,)"]),
        (lambda: Tucker(np.ones(()), []), ["at least one factor"]),
        (lambda: Tucker(np.ones(2), [np.ones((3, 2))], [None]), ["modes", "[3]", "[None]"]),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_their_shapes(build, parts):
    with pytest.raises(ShapeError) as error:
        build()
    assert_says(error, "Tucker:", *parts)


def test_modes_of_the_wrong_number_or_size_are_refused():
    from tenfac import Discrete

    for modes in ([Discrete(4)], [Discrete(3), Discrete(4)], []):
        with pytest.raises(ShapeError) as error:
            Tucker(np.ones(2), [np.ones((3, 2))], modes)
        assert_says(error, "modes", "[3]")


def test_the_rank_of_a_product_of_sums_is_bounded_by_rounding(make):
    t = some(make) + some(make, seed=9)
    assert_equal(t.rank, (4, 6, 4))
    assert_above(float(t.round(rank=1).info.rel_error), 0.05, "error of a rank-1 rounding")


@pytest.mark.parametrize("kind", ["tucker", "train", "cp"])
def test_the_laplacian_of_three_variables_is_the_sum_of_their_second_derivatives(make, kind):
    factors = [make(5, 2, seed=n) for n in range(3)]
    t = CP(None, factors, [Chebyshev(5)] * 3)
    t = {"cp": lambda: t, "tucker": t.to_tucker, "train": t.to_train}[kind]()
    x = np.random.default_rng(0).uniform(-1, 1, (3, 6)).astype(make.dtype)
    want = sum(to_numpy(t.diff(n, order=2).at(*x)) for n in range(3))
    assert_close(t.laplacian().at(*x), want, 1000, like=factors[0])
