"""Every accepted form of rank and tol, and every refused one."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import RankError
from tenfac.core.rank import at_most, check_tol, cp_rank, rank_or_tol, tucker_rank
from tests.checks import assert_equal, assert_says

SHAPE = (5, 6, 7)


@pytest.mark.parametrize(
    ("rank", "want"),
    [
        (3, (3, 3, 3)),
        (np.int64(3), (3, 3, 3)),
        (np.array(3), (3, 3, 3)),
        ((1, 2, 3), (1, 2, 3)),
        ([5, 6, 7], (5, 6, 7)),
        (np.array([1, 2, 3]), (1, 2, 3)),
        ((np.int32(1), 2, np.uint8(3)), (1, 2, 3)),
        (range(1, 4), (1, 2, 3)),
    ],
)
def test_integers_of_every_kind_are_ranks(rank, want):
    got = tucker_rank(rank, SHAPE)
    assert_equal(got, want)
    assert_equal({type(r) for r in got}, {int})


@pytest.mark.parametrize(
    ("rank", "parts"),
    [
        (0, ["1 or more", "0"]),
        (-1, ["1 or more", "-1"]),
        ((2, 0, 2), ["rank[1]", "0"]),
        ((2, 2), ["3", "(5, 6, 7)", "(2, 2)"]),
        ((2, 2, 2, 2), ["3", "4"]),
        (6, ["mode 0", "5", "6", "(5, 6, 6)"]),
        ((9, 6, 7), ["mode 0", "5", "9", "(5, 6, 7)"]),
        (True, ["True"]),
        (2.0, ["2.0"]),
        (np.array([1.0, 2.0, 3.0]), ["rank[0]"]),
        ((1, 2, np.True_), ["rank[2]"]),
        ("3", ["rank"]),
        (object(), ["object"]),
    ],
)
def test_other_ranks_are_refused_and_the_mode_is_named(rank, parts):
    with pytest.raises(RankError) as error:
        tucker_rank(rank, SHAPE, "tucker")
    assert_says(error, "tucker:", *parts)


@pytest.mark.parametrize("tol", [0, 1, -0.1, 1.5, True, "a", float("nan"), None, 1j])
def test_a_tolerance_outside_zero_and_one_is_refused(tol):
    with pytest.raises(RankError) as error:
        check_tol(tol)
    assert_says(error, "between 0 and 1", repr(tol))


def test_a_tolerance_the_dtype_cannot_reach_is_refused_with_the_one_it_can():
    with pytest.raises(RankError) as error:
        check_tol(1e-7, np.dtype("float32"))
    assert_says(error, "1e-06", "float32", "1e-07", "float64")
    with pytest.raises(RankError) as error:
        check_tol(1e-15, np.dtype("complex128"))
    assert_says(error, "1e-14", "complex128", "Raise tol.")
    assert_equal(check_tol(1e-6, np.dtype("float32")), 1e-6)
    assert_equal(check_tol(np.float32(0.5)), 0.5)
    assert_equal(check_tol(np.float32(1e-6), np.dtype("float32")), float(np.float32(1e-6)))
    assert_equal(check_tol(0.1, np.dtype("int64")), 0.1)


def test_both_or_neither_of_rank_and_tol_are_refused_with_an_example():
    for rank, tol, word, got in (
        (None, None, "neither", "got neither"),
        (2, 0.1, "both", "got rank=2 and tol=0.1"),
    ):
        with pytest.raises(RankError) as error:
            rank_or_tol(rank, tol, SHAPE, np.dtype("float64"))
        assert_says(error, f"not {word}", got, "rank=2", "tol=1e-3")


def test_upper_limits_are_one_for_all_or_one_each():
    for value, want in ((np.int64(3), (3, 3)), ([1, 9], (1, 9)), (np.array([4, 2]), (4, 2))):
        assert_equal(at_most(value, 2, "round", "train_rank", "one per bond"), want)
    for value, part in (
        ({2, 3}, "set"),
        (frozenset({2, 3}), "set"),
        (None, "NoneType"),
        ([1], "got 1: (1,)"),
    ):
        with pytest.raises(RankError) as error:
            at_most(value, 2, "round", "train_rank", "one per bond")
        assert_says(error, "round: train_rank", "one per bond", part)


def test_a_cp_rank_is_one_positive_integer():
    assert_equal(cp_rank(np.int64(40)), 40)
    for rank in (0, (2, 2), True, 1.0):
        with pytest.raises(RankError) as error:
            cp_rank(rank)
        assert_says(error, "cp:")
