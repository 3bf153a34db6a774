"""Alignment and factor match score: invariances, partners, and what differs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfac import CP, DataError, ShapeError, align, factor_match_score
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_same_kind,
    assert_says,
    to_numpy,
)
from tests.oracles import cp_dense


def random_cp(make, rank=3, shape=(4, 5, 6), seed=0):
    return CP(make(rank, seed=seed), [make(size, rank, seed=seed) for size in shape])


def rewritten(t, seed):
    """The same tensor with its terms in another order, and other signs and scales inside each."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(t.rank)
    scales = rng.choice([-1.0, 1.0], (len(t.factors), t.rank)) * rng.uniform(0.5, 2, (len(t.factors), t.rank))
    factors = [to_numpy(f)[:, order] * s for f, s in zip(t.factors, scales, strict=True)]
    return CP(to_numpy(t.weights)[order] / scales.prod(axis=0), factors)


def test_aligned_columns_are_those_of_the_other_tensor(make):
    a = random_cp(make)
    b = rewritten(a, 1)
    b = CP(make.asarray(b.weights), [make.asarray(f) for f in b.factors])
    got = align(a, b)
    assert_same_kind(got.weights, a.weights)
    assert_close(got.weights, a.weights)
    for mine, theirs in zip(got.factors, a.factors, strict=True):
        assert_close(mine, theirs)


@given(st.integers(0, 999), st.integers(1, 4), st.integers(1, 4))
def test_alignment_changes_the_writing_and_not_the_tensor(seed, rank_a, rank_b):
    rng = np.random.default_rng(seed)
    a, b = (
        CP(rng.standard_normal(r), [rng.standard_normal((i, r)) for i in (3, 4, 2)]) for r in (rank_a, rank_b)
    )
    got = align(a, b)
    assert_equal(got.rank, b.rank)
    assert_close(got.to_tensor(), cp_dense(b.weights, b.factors), factor=1e4)
    if rank_b <= rank_a:
        return
    kept = {tuple(np.round(column, 12)) for column in b.factors[0].T}
    assert {tuple(np.round(column, 12)) for column in got.factors[0].T[rank_a:]} <= kept


@given(st.integers(0, 999))
def test_the_score_does_not_depend_on_how_a_tensor_is_written(seed):
    rng = np.random.default_rng(seed)
    a, b = (CP(rng.standard_normal(3), [rng.standard_normal((i, 3)) for i in (4, 3, 5)]) for _ in range(2))
    score = factor_match_score(a, b)
    assert_close(factor_match_score(rewritten(a, seed), rewritten(b, seed + 1)), score, factor=1e4, scale=1)
    assert_close(factor_match_score(b, a), score, factor=1e4, scale=1)
    assert_close(factor_match_score(a, rewritten(a, seed)), 1.0, factor=1e4)
    assert_close(factor_match_score(a, align(a, b)), score, factor=1e4, scale=1)
    assert_below(score, 1, "score")


def test_the_score_is_the_best_sum_over_all_pairings():
    import itertools

    rng = np.random.default_rng(0)
    a, b = (CP(rng.standard_normal(3), [rng.standard_normal((i, 3)) for i in (4, 3, 5)]) for _ in range(2))
    terms = [[cp_dense(t.weights[[r]], [f[:, [r]] for f in t.factors]) for r in range(3)] for t in (a, b)]

    def score(x, y, weights):
        n, m = np.linalg.norm(x), np.linalg.norm(y)
        return np.sum(x * y) / n / m * ((1 - abs(n - m) / max(n, m)) if weights else 1)

    for weights in (True, False):
        sums = [
            sum(score(terms[0][r], terms[1][order[r]], weights) for r in range(3)) / 3
            for order in itertools.permutations(range(3))
        ]
        assert_close(factor_match_score(a, b, weights=weights), max(sums), factor=1e3)


def test_weights_count_unless_they_are_left_out():
    a = CP(None, [np.eye(3), np.eye(3)])
    b = CP(np.array([0.5, 0.5, 0.5]), [np.eye(3), np.eye(3)])
    assert_close(factor_match_score(a, b), 0.5)
    assert_close(factor_match_score(a, b, weights=False), 1.0)


def test_a_term_without_a_partner_and_a_zero_term_count_zero():
    a = CP(None, [np.eye(3), np.eye(3)])
    assert_close(factor_match_score(a, CP(None, [np.eye(3)[:, :2], np.eye(3)[:, :2]])), 2 / 3)
    assert_close(factor_match_score(a, CP(np.array([1.0, 1.0, 0.0]), [np.eye(3), np.eye(3)])), 2 / 3)


def drawn(dtype, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    parts = [rng.standard_normal((size, 3)) * scale for size in (4, 5, 3)]
    if dtype is complex:
        parts = [part + 1j * rng.standard_normal(part.shape) for part in parts]
    return CP(rng.standard_normal(3).astype(dtype), parts)


@pytest.mark.parametrize("dtype", [float, complex])
def test_columns_have_the_norms_of_their_partners_and_a_positive_inner_product_with_them(dtype):
    a, b = drawn(dtype, 0), drawn(dtype, 1, scale=7.0)
    got = align(a, b)
    assert_close(got.to_tensor(), cp_dense(b.weights, b.factors), factor=1e3)
    for mine, theirs in zip(got.factors, a.factors, strict=True):
        inner = np.sum(theirs.conj() * mine, axis=0)
        assert_close(inner, np.abs(inner).astype(dtype))
        assert_close(np.linalg.norm(mine, axis=0), np.linalg.norm(theirs, axis=0))


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_a_column_orthogonal_to_its_partner_has_its_norm_and_keeps_its_sign(scale):
    a = CP(None, [np.array([[2.0], [0.0]]), np.ones((3, 1))])
    b = CP(None, [np.array([[0.0], [scale]]), np.ones((3, 1))])
    got = align(a, b)
    assert_close(got.factors[0], np.array([[0.0], [2.0]]))
    assert_close(got.weights, np.array([scale / 2]))


@pytest.mark.parametrize("zero", ["a", "b"])
def test_a_column_stays_as_it_is_where_it_or_its_partner_is_zero(zero):
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((size, 1)) for size in (4, 5, 3)]
    hollow = [0 * factors[0], *factors[1:]]
    a, b = (CP(None, hollow if zero == name else factors) for name in "ab")
    b = CP(np.array([3.0]), [5.0 * b.factors[0], -2.0 * b.factors[1], b.factors[2]])
    got = align(a, b)
    assert_close(got.factors[0], b.factors[0])
    assert_close(got.weights, np.array([-6.0]))
    assert_close(got.factors[1], a.factors[1])


def test_a_tensor_and_its_negative_do_not_match():
    a = CP(None, [np.eye(2), np.eye(2)])
    assert_below(factor_match_score(a, -1.0 * a), 0.0, "score")
    assert_equal(align(a, -1.0 * a).weights, np.array([-1.0, -1.0]))


def test_complex_phases_inside_a_term_do_not_matter():
    rng = np.random.default_rng(0)
    a = CP(None, [rng.standard_normal((i, 2)) + 1j * rng.standard_normal((i, 2)) for i in (4, 5, 3)])
    phase = np.exp(1j * np.array([0.3, 2.0]))
    b = CP(None, [a.factors[0] * phase, a.factors[1] / phase, a.factors[2]])
    assert_close(factor_match_score(a, b), 1.0)
    got = align(a, CP(b.weights, [f[:, ::-1] for f in b.factors]))
    assert_close(got.factors[0], a.factors[0])
    assert_close(got.weights, a.weights)


def test_tuples_and_tensorly_tensors_are_taken():
    a = CP(None, [np.eye(3), np.eye(3)])
    assert_above(factor_match_score(a.to_tensorly(), tuple(a)), 1 - 1e-15, "score")


@pytest.mark.parametrize(("weight", "scale"), [(1e200, 1e120), (1e-200, 1e-120), (1.0, 1e200)])
def test_norms_that_overflow_or_vanish_are_compared(weight, scale):
    rng = np.random.default_rng(0)
    a = CP(rng.uniform(1, 2, 3), [rng.standard_normal((i, 3)) for i in (4, 3, 5)])
    b = CP(a.weights, [f[:, ::-1] for f in a.factors])
    large = [CP(t.weights * weight, [f * scale for f in t.factors]) for t in (a, b)]
    assert_close(factor_match_score(*large), factor_match_score(a, b), factor=1e4)
    assert_close(factor_match_score(*large, weights=False), 1.0)
    for got, want in zip(align(*large).factors, large[0].factors, strict=True):
        assert_close(got, want)
    assert_close(align(*large).weights, large[1].weights[::-1])


def test_a_result_that_does_not_fit_in_the_dtype_is_refused():
    a = CP(None, [np.ones((2, 1)), np.ones((3, 1))])
    for scale in (1e160, 1e-170):
        with pytest.raises(DataError) as error:
            align(a, CP(None, [f * scale for f in a.factors]))
        assert_says(error, "align:", "float64", "overflow or vanish")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_compared_and_its_dtype_kept(dtype):
    torch = pytest.importorskip("torch")
    a = CP(None, [torch.eye(3, dtype=getattr(torch, dtype))] * 2)
    assert_close(factor_match_score(a, a), 1.0)
    assert_equal(align(a, a).dtype, getattr(torch, dtype))


@pytest.mark.parametrize("call", [align, factor_match_score])
def test_batches_and_tensors_that_are_not_finite_are_refused(call):
    a = CP(None, [np.ones((3, 2)), np.ones((4, 2))])
    batch = CP(None, [np.ones((5, 3, 2)), np.ones((5, 4, 2))])
    for pair, name in [((a, batch), "`b`"), ((batch, batch), "`a`")]:
        with pytest.raises(ShapeError) as error:
            call(*pair)
        assert_says(error, f"{call.__name__}:", name, "batch of shape (5,)")
    for value in (np.nan, np.inf):
        with pytest.raises(DataError) as error:
            call(a, CP(np.array([1.0, value]), a.factors))
        assert_says(error, f"{call.__name__}:", "of b must be finite")


def test_what_does_not_fit_is_refused():
    a = CP(None, [np.eye(3), np.eye(3)])
    with pytest.raises(ShapeError) as error:
        align(a, CP(None, [np.eye(3), np.ones((4, 3))]))
    assert_says(error, "align:", "(3, 3)", "(3, 4)")
    with pytest.raises(TypeError) as error:
        factor_match_score(a, np.ones((3, 3)))
    assert_says(error, "factor_match_score:", "`b`", "ndarray")
