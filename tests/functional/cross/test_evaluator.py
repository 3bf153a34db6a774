"""The user's function as the constructions call it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tenfac.functional.cross.evaluator import Evaluator, OutOfEvaluationsError
from tests.checks import assert_close, assert_equal


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
