"""The search of a completion with problems whose errors are written down beforehand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from tenfac.core.progress import Progress
from tenfac.decompose.completion import search as module
from tenfac.decompose.completion.observed import Observed
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_says


class Scripted:
    """A problem of 100 entries whose sweeps have the errors given; remembers what it is asked."""

    sweeps, max_repairs, n_params = 4, 3, 20

    def __init__(self, errors):
        self.entries, self.errors, self.asked = SimpleNamespace(size=100), iter(errors), []

    def start(self, _):
        return 0.0

    def sweep(self, state, ridge, noise2):
        self.asked.append((state, ridge, noise2))
        return state + 1.0, 100 * next(self.errors) ** 2

    def extrapolate(self, new, before, share):
        return new + share * (new - before)


def settled(errors, max_iter=50, precision=0.0, first=1.0):
    problem = Scripted(errors)
    return problem, *module._settle(problem, 0.0, first, max_iter, 1e-3, precision, Progress("test"))


def test_a_fit_has_settled_when_three_sweeps_change_the_error_by_less_than_the_tolerance_each():
    for fall, count in ((0.0, 4), (0.99e-3, 4), (1.2e-3, 50)):
        problem, _, _, done = settled(0.5 * (1 - fall) ** np.arange(50))
        assert_equal((done, len(problem.asked)), (count < 50, count))


def test_a_fit_has_settled_at_once_where_the_error_is_rounding():
    for error, count in ((3.9e-7, 1), (4.1e-7, 4)):
        problem, _, _, done = settled([error] * 50, precision=1e-7)
        assert_equal((done, len(problem.asked)), (True, count))


def test_sweeps_start_ever_further_ahead_until_the_error_rises():
    problem, state, error, _ = settled([0.9, 0.8, 0.7, 0.75, 0.6, 0.5], max_iter=6)
    momentum, points, here, ahead = 0.0, [], 0.0, 0.0
    for rises in (False, False, False, True, False, False):
        points.append(ahead)
        if rises:
            ahead, momentum = here, 0.0
        else:
            new = ahead + 1
            ahead, here = new + momentum * (new - here), new
            momentum += 0.25
    assert_close(np.array([asked[0] for asked in problem.asked]), np.array(points))
    assert_close(state, here)
    assert_close(error, 0.5)


def test_the_noise_is_what_the_parameters_leave_free_of_the_residual():
    problem, *_ = settled([0.5, 0.4, 0.3], max_iter=3, first=0.6)
    want = [e**2 * 100 / 80 for e in (0.6, 0.5, 0.4)]
    assert_close(np.array([asked[2] for asked in problem.asked]), np.array(want))
    for count in (90, 95):  # a tenth of the entries is free at least
        problem.n_params = count
        assert_close(module._noise2(problem, 0.5), 2.5)


@pytest.mark.parametrize(
    ("validations", "starts", "best"),
    [
        ([0.1, 0.1], 2, 0),
        ([0.3, 0.1, 0.2, 0.1, 0.1], 4, 1),
        ([0.1, 0.2, 0.3], 3, 0),
        ([0.1, 0.102, 0.1], 2, 0),
        ([0.1, 0.1021, 0.2], 3, 0),
        ([9e-6, 1.0], 1, 0),
        ([1.1e-5, 1.0], 2, 0),
        ([2.0, 2.0, 2.0], 3, 0),
    ],
)
def test_starts_go_on_until_the_best_error_is_sound_and_reached_twice(monkeypatch, validations, starts, best):
    made = iter(module._Fit(n, value, value) for n, value in enumerate(validations))
    monkeypatch.setattr(module, "_anneal", lambda *_: next(made))
    monkeypatch.setattr(module, "_repaired", lambda *given: given[1])
    fit, count = module._search(Scripted([]), None, 1.0, len(validations), None, Progress("test"))
    assert_equal((count, fit.state), (starts, best))


def repaired(monkeypatch, validations, max_repairs=3):
    """The validation error reached, and the ridges tried."""
    ridges, problem, left = [], Scripted([]), iter(validations)
    problem.repair, problem.max_repairs = lambda state: state, max_repairs

    def annealed(problem, state, ridge, *_):
        ridges.append(ridge)
        value = next(left)
        return module._Fit(0, value, value)

    monkeypatch.setattr(module, "_anneal", annealed)
    fit = module._repaired(problem, module._Fit(0, 1.0, 1.0), None, Progress("test"))
    return fit.validation, ridges


def test_repairs_go_on_while_they_gain_and_try_a_smaller_ridge_when_they_do_not(monkeypatch):
    large, small = module._RIDGE_REPAIRS
    assert_equal(repaired(monkeypatch, [0.9, 0.9, 0.5, 0.5, 0.5]), (0.5, [large, large, small, large, small]))
    assert_equal(repaired(monkeypatch, [0.996, 0.9951]), (1.0, [large, small]))
    assert_equal(repaired(monkeypatch, [0.994, 0.994, 0.994]), (0.994, [large, large, small]))
    assert_equal(repaired(monkeypatch, 0.9 ** np.arange(1, 20), 2)[1], [large] * 4)
    assert_equal(repaired(monkeypatch, [9e-6, 1.0]), (9e-6, [large]))
    assert_equal(repaired(monkeypatch, [], 0), (1.0, []))


def test_a_sweep_that_raises_the_error_is_told_with_the_error_that_is_kept():
    told = []
    progress = Progress("test", None, 0, lambda _, error: told.append(error))
    module._settle(Scripted([0.9, 0.8, 0.7, 0.75, 0.6]), 0.0, 1.0, 5, 1e-3, 0.0, progress)
    assert_close(np.array(told), np.array([0.9, 0.8, 0.7, 0.7, 0.6]))


def test_a_start_goes_on_after_its_ridge_has_fallen_while_its_error_falls_but_not_for_ever():
    problem = Scripted(0.5 * 0.9 ** np.arange(99))
    problem.evaluate = lambda *_: np.array([0.0])
    held = Observed((1, 1), (np.array([0]), np.array([0])), np.array([1.0]))
    fit = module._anneal(problem, 0.0, 1.0, 4, held, Progress("test"))
    count = len(problem.asked)
    assert_above(count, 20, "sweeps")
    assert_below(count, 80, "sweeps")
    assert_close(fit.train, 0.5 * 0.9 ** (count - 1))
    assert_close(fit.validation, 1.0)


def test_each_start_is_logged_by_its_number(monkeypatch, caplog):
    made = iter(module._Fit(n, value, value) for n, value in enumerate((0.3, 0.2, 0.1)))
    monkeypatch.setattr(module, "_anneal", lambda *_: next(made))
    monkeypatch.setattr(module, "_repaired", lambda *given: given[1])
    with caplog.at_level("INFO", logger="tenfac"):
        module._search(Scripted([]), None, 1.0, 3, None, Progress("test", None, 2))
    said = [record.getMessage().partition(" on ")[0] for record in caplog.records]
    assert_equal(said, [f"test: start {n}: relative error 0.{4 - n}, 0.{4 - n}" for n in (1, 2, 3)])


def test_starts_take_a_large_a_middle_and_a_small_ridge_in_turn(monkeypatch):
    ridges = []

    def annealed(problem, state, ridge, sweeps, *_):
        ridges.append((ridge, sweeps))
        return module._Fit(0, 1.0, 0.9 ** len(ridges))

    monkeypatch.setattr(module, "_anneal", annealed)
    monkeypatch.setattr(module, "_repaired", lambda *given: given[1])
    module._search(Scripted([]), None, 0.1, 7, None, Progress("test"))
    large, middle, small = ridges[:3]
    assert_equal(ridges, [large, middle, small] * 2 + [large])
    assert_equal((large > middle > small, {sweeps for _, sweeps in ridges}), (True, {4}))


def test_values_are_divided_by_their_root_mean_square_and_zeros_by_one():
    for largest in (1e-200, 0.1, 1.0, 1e200):
        assert_close(module._scale(np.array([3.0, -4.0, 0.0, 0.0]) * largest), 2.5 * largest)
    assert_close(module._scale(np.array([3j, 4.0])), math.sqrt(12.5))
    assert_equal(module._scale(np.zeros(3)), 1.0)


def test_the_share_held_out_is_rounded_and_leaves_both_sides_an_entry():
    for size, share, held in ((10, 0.25, 2), (10, 0.26, 3), (2, 0.5, 1), (3, 0.01, 1), (100, 0.5, 50)):
        index = (np.arange(size), np.zeros(size, dtype=int))
        data = Observed((size, 1), index, np.arange(size, dtype=float))
        train, other = module._split(data, share, np.random.default_rng(0))
        assert_equal((train.size, other.size), (size - held, held))
        assert_equal(np.sort(np.concatenate([train.values, other.values])), data.values)
        assert_equal(np.sort(train.values), train.values)


def test_an_error_that_is_nan_is_the_worst_and_the_ridge_falls_to_nothing():
    problem = Scripted([0.5] * 60)
    problem.evaluate = lambda *_: np.array([np.nan])
    held = Observed((1, 1), (np.array([0]), np.array([0])), np.array([1.0]))
    fit = module._anneal(problem, 0.0, 1.0, 4, held, Progress("test"))
    assert_equal(fit.validation, math.inf)
    ridges = np.array([asked[1] for asked in problem.asked])
    assert_close(ridges[:4], np.array([1.0, 1e-2, 1e-4, 1e-6]))
    assert_equal(ridges[4:], np.zeros(len(ridges) - 4))
    assert_below(len(ridges), 8, "sweeps")


@pytest.mark.parametrize(("count", "more"), [(10, ""), (11, ", ...")])
def test_ten_rows_without_entries_are_named(count, more):
    data = Observed((count + 1, 1), (np.array([count]), np.array([0])), np.ones(1))
    (note,) = module._notes_on_rows(data, "cp_complete")
    named = ", ".join(map(str, range(10)))
    assert_says(note, f"{count} of {count + 1} rows of mode 0", f"entry: {named}{more}. They")
