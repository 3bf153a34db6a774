"""``change_mode``: the same function in another mode, against the function before."""

from __future__ import annotations

import numpy as np
import pytest

import tenfac
from tenfac import GP, Chebyshev, ConvergenceWarning, DataError, Discrete, ShapeError, Tucker
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_same_kind,
    assert_says,
    to_numpy,
)
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
