"""The user's function as the constructions call it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tenfac import DataError, ShapeError
from tenfac.functional.cross.evaluator import Evaluator, OutOfEvaluationsError
from tests.checks import assert_close, assert_equal, assert_says


def plane(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x + 10 * y


def test_points_of_the_cube_are_mapped_to_the_domain() -> None:
    evaluate = Evaluator(plane, [(0, 1), (2, 6)], 100, True)
    assert_close(evaluate(np.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]])), np.array([20.0, 40.5, 61.0]))


def test_evaluations_are_counted_and_the_largest_is_remembered() -> None:
    evaluate = Evaluator(plane, [(-1, 1)] * 2, 5, True)
    evaluate(np.array([[0.5, 0.5], [0.0, -1.0]]))
    assert_equal((evaluate.n_evals, evaluate.largest), (2, 10.0))
    assert_equal(evaluate.place, np.array([0.0, -1.0]))


def test_more_than_the_limit_is_refused_before_the_function_is_called() -> None:
    evaluate = Evaluator(plane, [(-1, 1)] * 2, 5, True)
    evaluate(np.zeros((5, 2)))
    with pytest.raises(OutOfEvaluationsError):
        evaluate(np.zeros((1, 2)))
    assert_equal(evaluate.n_evals, 5)


def test_the_first_place_without_a_number_is_named_and_no_points_are_no_call() -> None:
    evaluate = Evaluator(lambda x: np.where(x > 0.5, np.nan, x), [(0, 2)], 100, True)
    with pytest.raises(DataError) as error:
        evaluate(np.array([[-0.9], [-0.2], [0.5]]))
    assert_says(error, "nan at (0.8)")
    assert_equal(Evaluator(max, [(0, 2)], 100, True)(np.empty((0, 1))), np.empty(0))


def test_a_scalar_function_is_given_numbers_one_by_one() -> None:
    seen = []

    def f(x: float, y: float) -> float:
        seen.append((type(x), type(y)))
        return x + 10 * y

    points = np.random.default_rng(0).uniform(-1, 1, (7, 2))
    assert_close(Evaluator(f, [(-1, 1)] * 2, 100, False)(points), plane(*points.T))
    assert_equal(seen, [(float, float)] * 7)


@pytest.mark.parametrize("count", [0, 1, 63, 1000])
def test_a_pool_gives_the_values_in_order(count: int) -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (count, 2))
    with ThreadPoolExecutor(3) as pool:
        got = Evaluator(plane, [(-1, 1)] * 2, 10**4, True, pool)(points)
    assert_close(got, plane(*points.T))


def test_one_number_for_two_points_must_be_the_same_every_time() -> None:
    evaluate = Evaluator(lambda x, y: float(np.sum(x + y)), [(-1, 1)] * 2, 100, True)
    evaluate(np.array([[0.5, 0.25]]))  # of one point it is the value there
    evaluate(np.array([[0.25, 0.25]]))
    evaluate(np.array([[0.5, 0.25], [0.0, 0.0]]))
    evaluate(np.array([[0.0, 0.0], [0.5, 0.25]]))
    with pytest.raises(ShapeError) as error:
        evaluate(np.array([[0.5, 0.5], [0.0, 0.0]]))
    assert_says(error, "got 1.0 for 2 points and 0.75 for others", "vectorized=False")


def test_the_largest_value_whose_square_is_a_number_and_the_first_of_equal_ones() -> None:
    evaluate = Evaluator(lambda x: 0.9e140 * np.sign(x), [(-1, 1)], 100, True)
    evaluate(np.array([[0.5], [-0.5]]))
    assert_equal((evaluate.largest, evaluate.place.tolist()), (0.9e140, [0.5]))
    evaluate(np.array([[-0.7]]))
    assert_equal(evaluate.place.tolist(), [0.5])
    with pytest.raises(DataError, match=r"below 1e\+140"):
        Evaluator(lambda x: 1.1e140 * x, [(-1, 1)], 100, True)(np.array([[1.0]]))


def test_points_a_rounding_beyond_the_cube_are_clipped_and_progress_is_told() -> None:
    seen, told = [], []
    evaluate = Evaluator(lambda x: seen.append(x.max()) or x, [(0.1, 0.3)], 9, True, None, told.append)
    evaluate(np.array([[1 + 1e-12], [-1 - 1e-12]]))
    assert_equal((seen, told), ([0.3], [2]))
