"""What the sums over charges and Gaussians take: libraries, precisions, boxes, terms."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import DataError, ShapeError
from tenfac.functional.charges.checks import check_box, check_charges, check_points, check_terms, share_of
from tests.checks import assert_close, assert_equal, assert_same_kind, assert_says, to_numpy

BOX = [(0.0, 1.0), (-2.0, 2.0)]


def test_a_share_of_a_tolerance_is_no_less_than_float64_can_give() -> None:
    assert_close(share_of(1e-6, 0.3), 3e-7)
    assert_equal([share_of(1e-13, 0.3), share_of(2e-13, 0.5)], [1e-13, 1e-13])


def test_lists_beside_an_array_take_its_library_and_precision_unless_they_are_integers(make) -> None:
    like = make.asarray(np.array([0.25, 0.5]))
    centers, amplitudes = check_charges([[0.1, 1], [0.2, -1]], like, BOX, "here")
    assert_same_kind(centers, like)
    assert_equal(to_numpy(amplitudes).tolist(), [0.25, 0.5])
    centers, amplitudes = check_charges(make.asarray(np.array([[0.1, 1.0]])), [3], BOX, "here")
    assert_same_kind(amplitudes, like)
    assert_equal(to_numpy(amplitudes).tolist(), [3.0])
    whole = make.asarray(np.array([[0.0, 1.0]])) > 5  # booleans have no precision of their own to give
    centers, amplitudes = check_charges(whole, [1 / 3], BOX, "here")
    assert_equal(to_numpy(amplitudes).astype(float).tolist()[0] in (1 / 3, float(np.float32(1 / 3))), True)


def test_without_a_box_there_are_three_columns_and_any_finite_place() -> None:
    centers, amplitudes = check_charges([[1e9, 0, -1e9]], [1], None, "here")
    assert_equal((centers.tolist(), amplitudes.tolist()), ([[1e9, 0.0, -1e9]], [1.0]))
    for centers, domain, parts in (
        ([[1.0, 2.0]], None, "(N, 3)"),
        ([[1.0, 2.0, 3.0]], BOX, "(N, 2)"),
        ([1.0, 2.0], BOX, "(2,)"),
        (np.zeros((1, 2, 1)), BOX, "(1, 2, 1)"),
    ):
        with pytest.raises(ShapeError) as error:
            check_charges(centers, [1.0], domain, "here", ("places", "heights"))
        assert_says(error, "here: `places`", parts)
    with pytest.raises(ShapeError) as error:
        check_charges(np.zeros((0, 2)), [], BOX, "here", ("places", "heights"))
    assert_says(error, "`places` must have a row or more")
    with pytest.raises(ShapeError) as error:
        check_charges([[0.5, 0.0]] * 2, [[1.0], [1.0]], BOX, "here", ("places", "heights"))
    assert_says(error, "`heights`", "2 places", "(2, 1)")
    with pytest.raises(DataError) as error:
        check_charges([[0.5, 0.0]] * 3, [1.0, np.nan, np.inf], BOX, "here")
    assert_says(error, "nan at 1")


def test_a_place_beyond_one_side_is_named_with_its_row() -> None:
    inside = np.array([[0.0, -2.0], [1.0, 2.0], [0.5, 0.0]])
    check_points(inside, BOX, "here")
    check_points(np.zeros((0, 2)), BOX, "here")
    for row in range(3):
        for place in ([-0.1, 0.0], [1.1, 0.0], [0.5, -2.1], [0.5, 2.1]):
            points = inside.copy()
            points[row] = place
            with pytest.raises(DataError) as error:
                check_points(points, BOX, "here", "places")
            assert_says(error, "here: `places`", f"{place} in row {row}", "[(0.0, 1.0), (-2.0, 2.0)]")
    for bad in (np.nan, np.inf):
        with pytest.raises(DataError) as error:
            check_points(np.array([[0.0, 0.0], [0.5, bad]]), BOX, "here")
        assert_says(error, "must be finite", f"[0.5, {bad}] in row 1")
    with pytest.raises(DataError) as error:
        check_points(inside * 1j, BOX, "here")
    assert_says(error, "must be real")


@pytest.mark.parametrize("low", [1e-3, 1.0, 1e6])
def test_a_rounding_beyond_the_box_is_one_of_its_largest_end(low) -> None:
    box = [(-2 * low, low)]
    for units, taken in ((7, True), (9, False)):
        for end, way in ((-2 * low, -1), (low, 1)):
            points = np.array([[end + way * units * 2.0**-52 * 2 * low]])
            if taken:
                check_points(points, box, "here")
                continue
            with pytest.raises(DataError):
                check_points(points, box, "here")


def test_boxes_are_pairs_and_terms_are_sorted_by_width() -> None:
    assert_equal(check_box(np.array([[0, 1], [2, 3]]), "here"), ((0.0, 1.0), (2.0, 3.0)))
    for bad in ([], [(0.0, 1.0, 2.0)], [(0.0, 1.0), (1.0,)], [0.0, 1.0], "ab", None):
        with pytest.raises(ShapeError) as error:
            check_box(bad, "here")
        assert_says(error, "here: `domain`", repr(bad))
    tau, w = check_terms([3.0, 1.0, 0.0, 1.0], [1.0, 2.0, 0.0, 4.0], "here")
    assert_equal((tau.tolist(), w.tolist()), ([0.0, 1.0, 1.0, 3.0], [0.0, 2.0, 4.0, 1.0]))
    assert_equal(check_terms([3.0, 1.0], None, "here")[1].tolist(), [1.0, 1.0])
    for tau, w in (([np.inf], [1.0]), ([1.0, 1.0], [1.0, np.nan]), ([1.0, -1e-9], None)):
        with pytest.raises(DataError) as error:
            check_terms(tau, w, "here")
        assert_says(error, "exponents must be finite and 0 or more, weights finite")
    for tau, w in (([[1.0]], [[1.0]]), ([], []), ([1.0], [1.0, 2.0]), (1.0, None)):
        with pytest.raises(ShapeError) as error:
            check_terms(tau, w, "here")
        assert_says(error, "two sequences of one length")
    with pytest.raises(DataError) as error:
        check_terms(["a"], None, "here")
    assert_says(error, "sequences of numbers", "['a']")
    with pytest.raises(DataError) as error:
        check_terms([1.0, 2.0], [0.0, 0.0], "here")
    assert_says(error, "a weight must differ from 0")
