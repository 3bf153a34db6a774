"""``change_mode``: the same function in another mode, against the function before."""

from __future__ import annotations

import time

import numpy as np
import pytest

import tenfac
from tenfac import CP, GP, Chebyshev, ConvergenceWarning, DataError, Discrete, ShapeError, Tucker
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_same_kind,
    assert_says,
    to_numpy,
)
from tests.core.test_formats import Line
from tests.core.test_hybrid import DOSES, FACTOR, KNOTS, TIMES, VALUES, Numpy, created, dense
from tests.oracles import matern_dense


@pytest.fixture(params=["tucker", "cp", "train"])
def hybrid(request, make):
    return created(request.param, make)


def test_a_gp_mode_becomes_polynomials_within_the_tolerance(hybrid, make):
    tol = 1e-6 if make.dtype == "float64" else 1e-4
    t = hybrid.change_mode(2, Chebyshev, tol=tol)
    assert isinstance(t.modes[2], Chebyshev)
    assert_equal(t.info.converged, True)
    assert_below(t.info.rel_error, tol, "measured change")
    assert_same_kind(t.factors[2], hybrid.factors[2])
    doses, times = np.linspace(*DOSES, 5), np.linspace(*TIMES, 301)
    want = dense(doses, times)
    change = np.abs(to_numpy(t.on_grid(None, doses, times)) - want).max() / np.abs(want).max()
    assert_below(change, 1.5 * tol, "change on a grid")
    fixed = hybrid.change_mode(-1, Chebyshev(t.modes[2].size, TIMES), tol=3 * tol)
    assert_close(fixed.at(1, 0.5, 2.0), to_numpy(t.at(1, 0.5, 2.0)), FACTOR, like=hybrid.at(1, 0.5, 2.0))


def test_polynomials_become_a_gp_mode_of_enough_knots():
    t = created("tucker", Numpy())
    with pytest.warns(ConvergenceWarning):
        smooth = t.change_mode(2, Chebyshev(9, (0.0, 6.0)))
    back = smooth.change_mode(2, GP("matern52", np.linspace(0, 6, 60), lengthscale=3.0), tol=5e-3)
    assert_equal((back.info.converged, back.modes[2].n_knots), (True, 60))
    want = smooth.on_grid(None, [0.5], np.linspace(0, 6, 31))
    change = np.abs(back.on_grid(None, [0.5], np.linspace(0, 6, 31)) - want).max()
    assert_below(change, 5e-3 * np.abs(want).max(), "change")


def test_a_change_to_a_mode_that_holds_the_functions_is_exact(hybrid, make):
    more = hybrid.modes[2].common(GP("matern52", [2.0, 6.5], lengthscale=2.0, domain=TIMES))
    for n, target in ((2, more), (1, Chebyshev(8, DOSES))):
        t = hybrid.change_mode(n, target)
        assert_equal(t.modes[n], target)
        assert_below(t.info.rel_error, 100 * make.eps, "change")
    constant = hybrid * 0.0 + 2.5
    moved = constant.change_mode(1, GP("matern12", [0.0, 0.1, 2.0], lengthscale=0.01))
    assert_close(float(moved.at(0, 1.0, 1.0)), 2.5, FACTOR * make.eps / 2.2e-16)


def test_a_table_of_values_at_knots_or_nodes_becomes_a_function_and_back(make):
    values = np.random.default_rng(1).normal(size=(3, 6))
    table = tenfac.tucker(make.asarray(values), rank=(3, 3))
    like = table.factors[0]
    curve = table.change_mode(1, GP("matern52", KNOTS, lengthscale=2.0))
    assert_close(curve.on_grid(None, KNOTS), values, FACTOR, like=like)
    assert_close(curve.change_mode(1, KNOTS).to_tensor(), values, FACTOR, like=like)
    nodes = Chebyshev(6, DOSES)
    assert_close(table.change_mode(1, nodes).on_grid(None, nodes.nodes()), values, FACTOR, like=like)
    times, level = np.array([0.1, 2.0, 5.5]), values.mean(axis=1)
    weights = np.linalg.solve(matern_dense(KNOTS, KNOTS, 2.5, 2.0), values.T - level)
    want = (matern_dense(times, KNOTS, 2.5, 2.0) @ weights + level).T
    assert_close(curve.on_grid(None, times), want, FACTOR, like=like)


def test_a_missed_tolerance_is_said_with_the_knob():
    rough = GP("matern12", KNOTS, lengthscale=2.0)
    t = Tucker(np.ones(1), [rough.factor(VALUES[:, :1])], [rough])
    with pytest.warns(ConvergenceWarning, match="larger tol") as caught:
        made = t.change_mode(0, Chebyshev(20, rough.domain), tol=1e-3)
    assert_equal((len(caught), made.info.converged), (1, False))
    fine = np.linspace(0, 6, 5001)
    error = np.abs(made.at(fine) - t.at(fine)).max() / np.abs(t.at(fine)).max()
    assert_above(made.info.rel_error, 0.8 * error, "measured change")


@pytest.mark.parametrize("degree", [0, 3, 16, 17, 40])
def test_the_class_finds_the_shortest_polynomials_that_keep_the_tolerance(degree):
    coefficients = np.full((60, 1), 1e-13)  # far below the tolerance together
    coefficients[degree] = 1.0
    t = Tucker(np.ones(1), [coefficients], [Chebyshev(60, DOSES)])
    found = t.change_mode(0, Chebyshev, tol=1e-8)
    assert_equal((found.modes[0].size, found.modes[0].domain), (degree + 1, DOSES))
    assert_below(found.info.rel_error, 1e-11, "change")
    assert_equal((t * 0.0).change_mode(0, Chebyshev).modes[0].size, 1)


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-9])
def test_the_class_keeps_its_tolerance_where_coefficients_fall_slowly(tol):
    falling = 0.8 ** np.arange(200.0)[:, None]
    t = Tucker(np.ones(1), [falling], [Chebyshev(200)])
    found, x = t.change_mode(0, Chebyshev, tol=tol), np.linspace(-1, 1, 4001)
    change = np.abs(found.at(x) - t.at(x)).max() / np.abs(t.at(x)).max()
    assert_below(change, tol, "change")
    assert_equal(found.info.converged, True)
    needed = np.log(tol * 0.2) / np.log(0.8)  # the tail of a geometric series is five times its first term
    assert_below(found.modes[0].size, needed + 10, "coefficients")


def test_no_tolerance_asks_for_more_than_the_precision_holds():
    t = Tucker(np.ones(1, "f4"), [0.5 ** np.arange(30.0, dtype="f4")[:, None]], [Chebyshev(30)])
    found = t.change_mode(0, Chebyshev, tol=1e-10)
    assert_equal((found.info.converged, found.dtype), (True, np.dtype("f4")))
    assert_below(found.modes[0].size, 24, "coefficients")


def test_what_no_polynomials_hold_stops_at_the_largest_and_says_so(monkeypatch):
    monkeypatch.setattr("tenfac.core.change._LARGEST", 65)
    rough = GP("matern12", KNOTS, lengthscale=2.0)
    t = Tucker(np.ones(1), [rough.factor(VALUES[:, :1])], [rough])
    with pytest.warns(ConvergenceWarning):
        found = t.change_mode(0, Chebyshev, tol=1e-9)
    assert_equal((found.info.converged, found.info.reason), (False, "tolerance missed"))
    assert_below(found.modes[0].size, 65, "coefficients")
    assert_above(found.modes[0].size, 33, "coefficients")


@pytest.mark.parametrize("where", ["a first row", "a lower end", "an upper end"])
def test_what_changes_only_at_a_row_or_an_end_of_another_mode_is_seen(where):
    if where == "a first row":
        other, edge, constant = Discrete(2), np.array([1.0, 0.0]), np.array([0.0, 1.0])
    else:  # ((1 + x) / 2)^999 is below 1/e farther than a 500th from its end
        other, sign = Chebyshev(1000), 1.0 if where == "an upper end" else -1.0
        edge = other.factor(((1 + sign * other.nodes()) / 2)[:, None] ** 999)[:, 0]
        constant = np.eye(1000)[0]
    bent, flat = np.eye(9)[8], np.eye(9)[0]
    t = CP(None, [np.stack([edge, constant], axis=1), np.stack([bent, flat], axis=1)], [other, Chebyshev(9)])
    with pytest.warns(ConvergenceWarning):
        made = t.change_mode(1, Chebyshev(5), tol=1e-3)
    assert_above(made.info.rel_error, 0.7, "change")


def test_a_batch_is_changed_as_each_of_it_and_measured_together(make):
    values = np.random.default_rng(1).normal(size=(3, 6, 2))
    table = CP(None, [make.asarray(values), make(3, 4, 2)])
    curves = table.change_mode(0, GP("matern52", KNOTS, lengthscale=2.0))
    smooth = curves.change_mode(0, Chebyshev, tol=1e-3)
    assert_equal((curves.batch_shape, smooth.info.converged), ((3,), True))
    times, rows = np.linspace(0, 6, 50), np.arange(50) % 4
    for k in range(3):
        one = CP(None, [f[k] for f in table.factors]).change_mode(0, curves.modes[0])
        want = to_numpy(one.at(times, rows))
        assert_close(curves.at(times, rows)[k], want, FACTOR, like=table.factors[0])
        change = np.abs(to_numpy(smooth.at(times, rows))[k] - want).max()
        assert_below(change, 2e-3 * np.abs(to_numpy(curves.at(times, rows))).max(), "change")


@pytest.mark.parametrize("kind", ["tucker", "cp", "train"])
def test_a_batch_of_one_or_more_modes_is_measured_like_its_worst(kind):
    rng = np.random.default_rng(0)
    for n, modes in (
        (0, [Chebyshev(12)]),
        (0, [Chebyshev(12), Discrete(3)]),
        (1, [Discrete(2), Chebyshev(12), Discrete(3)]),
    ):
        batch = CP(rng.normal(size=(2, 2)), [rng.normal(size=(2, m.size, 2)) for m in modes], modes)
        batch = {"cp": lambda t: t, "tucker": CP.to_tucker, "train": CP.to_train}[kind](batch)
        with pytest.warns(ConvergenceWarning):
            made = batch.change_mode(n, Chebyshev(9))
        grid = [np.linspace(-1, 1, 400) if m == n else None for m in range(len(modes))]
        before, after = batch.on_grid(*grid), made.on_grid(*grid)
        change = np.abs(after - before).max() / np.abs(before).max()
        assert_below(abs(made.info.rel_error / change - 1), 0.1, "measured over true change, less 1")


def test_the_seconds_of_a_change_are_those_it_took():
    start = time.perf_counter()
    info = created("tucker", Numpy()).change_mode(2, Chebyshev, tol=1e-2).info
    assert 0 < info.seconds <= time.perf_counter() - start


def test_gradients_of_torch_pass_through_a_change():
    import torch

    mode = GP("matern32", [0.0, 1.0, 2.5], lengthscale=1.0)
    factor = torch.tensor(mode.factor(np.eye(3)), requires_grad=True)

    def run(factor):
        t = Tucker(torch.ones(3, dtype=torch.float64), [factor], [mode])
        return t.change_mode(0, Chebyshev(5, (0.0, 2.5)), tol=0.9).factors[0]

    assert torch.autograd.gradcheck(run, [factor])


@pytest.mark.parametrize(
    ("mode", "target", "error", "parts"),
    [
        (2, GP, DataError, ["the class Chebyshev", "points"]),
        (2, "chebyshev", DataError, ["the class Chebyshev"]),
        (0, Chebyshev, ShapeError, ["discrete", "Chebyshev(3, domain)"]),
        (0, GP("matern12", [0.0, 1.0], lengthscale=1.0), ShapeError, ["mode 0 has 3", "has 2"]),
        (2, Discrete(4), ShapeError, ["t.change_mode(n, points)"]),
        (2, Chebyshev(4, (0.0, 8.0)), DataError, ["[-1.0, 7.0]", "[0.0, 8.0]"]),
        (2, Chebyshev(4, (-2.0, 5.0)), DataError, ["[-1.0, 7.0]", "[-2.0, 5.0]"]),
        (2, Line(4), ShapeError, ["a mode that takes values at nodes", "Line"]),
        (2, [[1.0]], ShapeError, ["1-way"]),
        (2, [8.0], DataError, ["mode 2", "8"]),
        (3, Chebyshev, ShapeError, ["mode"]),
    ],
)
def test_a_target_that_does_not_fit_is_refused(mode, target, error, parts):
    with pytest.raises(error) as raised:
        created("tucker", Numpy()).change_mode(mode, target)
    assert_says(raised, "change_mode", *parts)


def test_a_tolerance_that_is_none_is_refused():
    with pytest.raises(tenfac.RankError) as error:
        created("tucker", Numpy()).change_mode(2, Chebyshev, tol=2)
    assert_says(error, "change_mode", "between 0 and 1")
