"""``tucker`` of a batch: each tensor as if it were alone, in one go."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import RankError, ShapeError, load, save, tucker
from tests.checks import (
    assert_below,
    assert_close,
    assert_equal,
    assert_relative,
    assert_same_kind,
    assert_says,
    to_numpy,
)
from tests.oracles import smooth, true_error


def stack_of(make):
    return make.asarray(np.stack([smooth(7) ** k for k in (1, 2, 3)]).reshape(3, 1, 7, 7, 7))


def test_a_batch_gives_what_a_loop_gives(make):
    X = stack_of(make)
    many = tucker(X, (2, 3, 2), batch=2)
    assert_equal((many.batch_shape, many.shape, many.rank), ((3, 1), (7, 7, 7), (2, 3, 2)))
    assert_same_kind(many.core, X)
    assert_equal(tuple(many.info.rel_error.shape), (3, 1))
    dense = to_numpy(many.to_tensor())
    for k in range(3):
        one = tucker(X[k, 0], (2, 3, 2))
        assert_relative(dense[k, 0], to_numpy(one.to_tensor()), 1e3 * make.eps)
        assert_below(
            abs(float(many.info.rel_error[k, 0]) / one.info.rel_error - 1), 0.01, "error against one - 1"
        )


def test_the_factors_of_a_batch_are_orthonormal(make):
    many = tucker(stack_of(make), 3, batch=2)
    for factor in many.factors:
        gram = np.einsum("abir,abis->abrs", to_numpy(factor), to_numpy(factor))
        assert_close(make.asarray(gram), np.broadcast_to(np.eye(3), gram.shape), like=many.core)


@pytest.mark.parametrize("rank", [4, 6, 7, 8])
def test_small_errors_of_a_batch_are_as_small_as_they_can_be(rank):
    X = np.stack([smooth(9), smooth(9) ** 2])
    many = tucker(X, rank, batch=1)
    for k in range(2):
        one = tucker(X[k], rank)
        mine = type(one)(many.core[k], [f[k] for f in many.factors])
        assert_below(true_error(mine, X[k]), 1.05 * true_error(one, X[k]), "error against that of one")
        assert_below(abs(many.info.rel_error[k] / true_error(mine, X[k]) - 1), 0.01, "reported over true - 1")


def test_zero_huge_and_tiny_tensors_stand_side_by_side():
    X = np.stack([0 * smooth(6), 1e200 * smooth(6), 1e-200 * smooth(6)])
    many = tucker(X, 2, batch=1)
    want = tucker(smooth(6), 2)
    dense = many.to_tensor()
    assert_close(dense[0], np.zeros((6, 6, 6)))
    assert_relative(dense[1] / 1e200, want.to_tensor(), 1e-12)
    assert_relative(dense[2] / 1e-200, want.to_tensor(), 1e-12)
    assert_close(many.info.rel_error[1:], np.full(2, want.info.rel_error), 1e6)


def test_more_columns_than_rest_are_filled_up(make):
    X = make(3, 6, 2)
    many = tucker(X, (5, 2), batch=1)
    assert_equal(many.rank, (5, 2))
    assert_close(many.to_tensor(), X)


def test_a_batch_is_saved_with_its_errors(tmp_path):
    many = tucker(np.stack([smooth(5)] * 2), 2, batch=1)
    save(many, tmp_path / "many")
    back = load(tmp_path / "many")
    assert_equal(back.info.rel_error, many.info.rel_error)
    assert_says(repr(back), "batch=(2,)")
    assert_says(repr(back.info), "rel_error<=")


def test_methods_of_a_batch_act_on_each_tensor():
    X = np.random.default_rng(0).standard_normal((4, 5, 6, 3))
    many = tucker(X, 3, batch=1)
    ones = [type(many)(many.core[k], [f[k] for f in many.factors]) for k in range(4)]
    vector = np.arange(6.0)
    rows = {
        "norm": lambda t: t.norm(),
        "inner": lambda t: t.inner(2 * t),
        "at": lambda t: t.at([0, 4], [5, 1], [2, 2]),
        "slice": lambda t: t[1, ::2].to_tensor(),
        "entry": lambda t: t[1, 2, 0],
        "+": lambda t: (t + t).to_tensor(),
        "*": lambda t: (t * t).to_tensor(),
        "contract": lambda t: t.contract({1: vector}).to_tensor(),
        "sum": lambda t: t.sum(),
        "round": lambda t: (t + t).round(rank=2).to_tensor(),
        "to_cp": lambda t: t.to_cp().to_tensor(),
        "to_cp norm": lambda t: t.to_cp().norm(),
        "to_tucker": lambda t: t.to_cp()[:2].to_tucker().to_tensor(),
    }
    for name, run in rows.items():
        assert_relative(run(many), np.stack([run(t) for t in ones]), 1e-12, name)


def test_a_tolerance_for_a_batch_and_a_wrong_batch_are_refused():
    with pytest.raises(RankError) as error:
        tucker(np.ones((2, 3, 3)), tol=0.1, batch=1)
    assert_says(error, "tol", "batch", "rank")
    for batch in (-1, 3, 1.0, True):
        with pytest.raises(ShapeError) as error:
            tucker(np.ones((2, 3, 3)), 1, batch=batch)
        assert_says(error, "`batch`", "0 to 2", repr(batch))
    many = tucker(np.ones((2, 3, 3)), 1, batch=1)
    with pytest.raises(ShapeError) as error:
        many.to_tensorly()
    assert_says(error, "batch", "(2,)")
